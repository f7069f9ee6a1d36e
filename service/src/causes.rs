//! An error with what caused it, on one line, as the user reads it.

use std::error::Error;

/// The texts of an error and its causes, outermost first. A cause that an error before it has quoted
/// is not said twice.
pub fn on_one_line(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read: {0}; try again")]
    struct Quoting(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("no state")]
    struct Outer(#[source] Quoting);

    #[test]
    fn nothing_is_said_twice() {
        let error = Outer(Quoting(std::io::Error::other("disk full")));
        assert_eq!(
            on_one_line(&error),
            "no state: cannot read: disk full; try again"
        );
    }
}
