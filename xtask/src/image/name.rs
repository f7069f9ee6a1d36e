//! Names of images, as engines and clusters read them.

/// A tag: letters, digits, `_`, `.` and `-`, at most 128.
pub(crate) fn tag(text: &str) -> Result<String, String> {
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let rest = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if first && rest && text.len() <= 128 {
        return Ok(text.to_owned());
    }
    Err(
        "expected up to 128 letters, digits, `_`, `.` and `-`, the first a letter, digit or `_`"
            .into(),
    )
}

/// A registry's host with what may follow. Without a host, engines put one of their own in front, and the
/// name would not be the one that clusters look for.
pub(crate) fn registry(text: &str) -> Result<String, String> {
    let mut parts = text.split('/');
    let host = parts.next().unwrap_or_default();
    let simple = |part: &str| {
        let ends =
            |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends(part.chars().next())
            && ends(part.chars().next_back())
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
    };
    let (name, port) = host.split_once(':').unwrap_or((host, "0"));
    let is_host = host == "localhost" || host.contains(['.', ':']);
    if !is_host || !simple(name) || port.parse::<u16>().is_err() {
        return Err(
            "expected it to begin with a host in lower case: `localhost`, or one with a dot or a port".into(),
        );
    }
    if !parts.all(simple) {
        return Err(
            "expected parts of lower-case letters, digits, `.`, `_` and `-` after the host".into(),
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_engines_leave_as_they_are_pass() {
        for good in [
            "localhost",
            "localhost/a/b-c",
            "localhost:5000",
            "registry.internal/x",
        ] {
            assert_eq!(registry(good).as_deref(), Ok(good));
        }
        for bad in [
            "", "agents", "agents/x", "Host.x", "h.x/", "h.x//a", "h.x/A", "h.x:no", "-h.x",
            "h.x/-",
        ] {
            assert!(registry(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_are_short_and_simple() {
        for good in ["0.1.0", "_x", "Latest-2"] {
            assert_eq!(tag(good).as_deref(), Ok(good));
        }
        for bad in ["", ".x", "-x", "a:b", "a/b", "a b", &"x".repeat(129)] {
            assert!(tag(bad).is_err(), "{bad}");
        }
    }
}
