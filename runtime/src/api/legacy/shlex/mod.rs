//! Splitting a command line with the quoting rules of a POSIX shell and nothing else of it.
//!
//! The same words as Python's `shlex.split`: no comments, no variables, no globbing, no operators.
//! Clients rely on that exactly; they wrap whole scripts as one quoted argument of `sh -c`.

/// Why a line cannot be split. The texts are Python's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum SplitError {
    #[error("No closing quotation")]
    NoClosingQuotation,
    #[error("No escaped character")]
    NoEscapedCharacter,
}

#[derive(Clone, Copy)]
enum State {
    Between,
    Word,
    Quoted(char),
    /// After a backslash, with the quote it stands in, if any.
    Escaped(Option<char>),
}

/// The words of `line`.
///
/// # Errors
/// See [`SplitError`].
pub(crate) fn split(line: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut state = State::Between;
    for character in line.chars() {
        state = match (state, character) {
            (State::Between, ' ' | '\t' | '\r' | '\n') => State::Between,
            (State::Word, ' ' | '\t' | '\r' | '\n') => {
                words.push(std::mem::take(&mut word));
                State::Between
            }
            (State::Between | State::Word, quote @ ('\'' | '"')) => State::Quoted(quote),
            (State::Between | State::Word, '\\') => State::Escaped(None),
            (State::Between | State::Word | State::Escaped(None), other) => {
                word.push(other);
                State::Word
            }
            (State::Quoted(quote), character) if character == quote => State::Word,
            (State::Quoted('"'), '\\') => State::Escaped(Some('"')),
            (State::Quoted(quote), other) => {
                word.push(other);
                State::Quoted(quote)
            }
            (State::Escaped(Some(quote)), other) => {
                if other != '\\' && other != quote {
                    word.push('\\');
                }
                word.push(other);
                State::Quoted(quote)
            }
        };
    }
    match state {
        State::Between => Ok(words),
        State::Word => {
            words.push(word);
            Ok(words)
        }
        State::Quoted(_) => Err(SplitError::NoClosingQuotation),
        State::Escaped(_) => Err(SplitError::NoEscapedCharacter),
    }
}

#[cfg(test)]
mod tests;
