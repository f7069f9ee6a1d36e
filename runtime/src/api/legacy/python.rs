//! Python's way of putting things, where it is part of the wire format.

use std::io;

/// The text of an `OSError` about `name`, as in `[Errno 2] No such file or directory: 'x'`.
pub(super) fn os_error(error: &io::Error, name: &str) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(number) => {
            let end = format!(" (os error {number})");
            let text = text.strip_suffix(&end).unwrap_or(&text);
            format!("[Errno {number}] {text}: {}", repr(name))
        }
        None => format!("{text}: {}", repr(name)),
    }
}

/// `repr` of a list of strings.
pub(super) fn repr_list<S: AsRef<str>>(items: &[S]) -> String {
    let items: Vec<String> = items.iter().map(|item| repr(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

/// `repr` of a string.
pub(super) fn repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            character if character == quote => {
                out.push('\\');
                out.push(quote);
            }
            character if is_printable(character) => out.push(character),
            character => out.push_str(&escape(character)),
        }
    }
    out.push(quote);
    out
}

fn escape(character: char) -> String {
    match u32::from(character) {
        code @ 0..=0xff => format!("\\x{code:02x}"),
        code @ 0x100..=0xffff => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    }
}

/// Both languages take this from the Unicode tables; after a letter, Rust leaves combining marks alone
/// as Python always does. Python also escapes every blank but the ordinary one.
fn is_printable(character: char) -> bool {
    if character.is_control() || (character != ' ' && character.is_whitespace()) {
        return false;
    }
    let probe: String = ['a', character].iter().collect();
    !probe.escape_debug().to_string().contains("\\u{")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right-hand sides were printed by Python.
    #[test]
    fn strings_look_as_in_python() {
        for (text, expected) in [
            ("x", "'x'"),
            ("", "''"),
            ("it's", "\"it's\""),
            ("say \"it's\"", "'say \"it\\'s\"'"),
            ("a\\b\n\r\t", "'a\\\\b\\n\\r\\t'"),
            ("\u{0}\u{7f}\u{a0}", "'\\x00\\x7f\\xa0'"),
            ("é…漢🙂", "'é…漢🙂'"),
            ("e\u{301}", "'e\u{301}'"),
            ("\u{200b}\u{2028}\u{e0001}", "'\\u200b\\u2028\\U000e0001'"),
        ] {
            assert_eq!(repr(text), expected);
        }
        assert_eq!(repr_list(&["sleep", "5"]), "['sleep', '5']");
        assert_eq!(repr_list::<&str>(&[]), "[]");
    }

    #[test]
    fn system_errors_carry_number_text_and_name() {
        let missing = io::Error::from_raw_os_error(2);
        assert_eq!(
            os_error(&missing, "x"),
            "[Errno 2] No such file or directory: 'x'"
        );
        let other = io::Error::other("strange");
        assert_eq!(os_error(&other, "x"), "strange: 'x'");
    }
}
