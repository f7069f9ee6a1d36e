//! The table was made by running Python's `shlex.split` on each line.

use proptest::prelude::*;

use super::*;

#[test]
fn words_are_pythons() {
    let table: &[(&str, Result<&[&str], SplitError>)] = &[
        ("", Ok(&[])),
        (" ", Ok(&[])),
        ("\t\r\n", Ok(&[])),
        ("echo hello", Ok(&["echo", "hello"])),
        ("echo 'hello world'", Ok(&["echo", "hello world"])),
        ("echo \"a b\" c", Ok(&["echo", "a b", "c"])),
        ("a  b\tc\nd\re", Ok(&["a", "b", "c", "d", "e"])),
        (
            "echo # not a comment",
            Ok(&["echo", "#", "not", "a", "comment"]),
        ),
        ("#x y", Ok(&["#x", "y"])),
        ("echo hi; ls | wc", Ok(&["echo", "hi;", "ls", "|", "wc"])),
        (
            "echo $HOME $(id) `id` *",
            Ok(&["echo", "$HOME", "$(id)", "`id`", "*"]),
        ),
        ("''", Ok(&[""])),
        ("\"\"", Ok(&[""])),
        ("'' ''", Ok(&["", ""])),
        ("a''b", Ok(&["ab"])),
        ("a'b c'd", Ok(&["ab cd"])),
        ("a\"b c\"d", Ok(&["ab cd"])),
        ("a\\ b", Ok(&["a b"])),
        ("\\#", Ok(&["#"])),
        ("\\'", Ok(&["'"])),
        ("\"\\\"\"", Ok(&["\""])),
        ("\"\\\\\"", Ok(&["\\"])),
        ("\"\\a\\n\\$\"", Ok(&["\\a\\n\\$"])),
        ("'\\a'", Ok(&["\\a"])),
        ("'a\\'b'", Err(SplitError::NoClosingQuotation)),
        ("'it'\\''s'", Ok(&["it's"])),
        ("a\\\nb", Ok(&["a\nb"])),
        ("\"a\\\nb\"", Ok(&["a\\\nb"])),
        ("'a\nb'", Ok(&["a\nb"])),
        ("\"\\'\"", Ok(&["\\'"])),
        ("x\\", Err(SplitError::NoEscapedCharacter)),
        ("\"x\\", Err(SplitError::NoEscapedCharacter)),
        ("'abc", Err(SplitError::NoClosingQuotation)),
        ("\"abc", Err(SplitError::NoClosingQuotation)),
        ("a'b", Err(SplitError::NoClosingQuotation)),
        ("echo 'x", Err(SplitError::NoClosingQuotation)),
        (
            "sh -c 'cd /app && ls -la \"$d\"'",
            Ok(&["sh", "-c", "cd /app && ls -la \"$d\""]),
        ),
        ("é '…' \"ü\"", Ok(&["é", "…", "ü"])),
        ("a\u{a0}b", Ok(&["a\u{a0}b"])),
        ("a\u{2003}b", Ok(&["a\u{2003}b"])),
        ("a\u{b}b\u{c}c", Ok(&["a\u{b}b\u{c}c"])),
        ("a\u{0}b", Ok(&["a\u{0}b"])),
        ("a=b --c='d e'", Ok(&["a=b", "--c=d e"])),
        ("\\\\", Ok(&["\\"])),
        ("\"\\\"", Err(SplitError::NoClosingQuotation)),
        ("'\"'\"'\"'", Err(SplitError::NoClosingQuotation)),
        ("a\\\tb", Ok(&["a\tb"])),
        ("  lead trail  ", Ok(&["lead", "trail"])),
        ("\"'\"", Ok(&["'"])),
        ("\"a\"'b'c", Ok(&["abc"])),
        ("\u{feff}x", Ok(&["\u{feff}x"])),
        ("1>2 3<4 &", Ok(&["1>2", "3<4", "&"])),
        ("{a,b} [c]", Ok(&["{a,b}", "[c]"])),
        ("!x ~y", Ok(&["!x", "~y"])),
        ("\\ ", Ok(&[" "])),
        ("' '", Ok(&[" "])),
        ("\"\\`\"", Ok(&["\\`"])),
        ("a\\'b c", Ok(&["a'b", "c"])),
    ];
    for (line, words) in table {
        let expected = words.map(|words| words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(split(line), expected, "{line:?}");
    }
    assert_eq!(
        SplitError::NoClosingQuotation.to_string(),
        "No closing quotation"
    );
}

/// Single quotes around everything, as `shlex.quote` does.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\"'\"'"))
}

proptest! {
    #[test]
    fn quoted_words_come_back(words in proptest::collection::vec(any::<String>(), 0..6)) {
        let line = words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
        prop_assert_eq!(split(&line), Ok(words));
    }

    #[test]
    fn escaped_words_come_back(words in proptest::collection::vec("[^\\x00]{1,8}", 0..6)) {
        let escape = |word: &String| word.chars().flat_map(|c| ['\\', c]).collect::<String>();
        let line = words.iter().map(escape).collect::<Vec<_>>().join("\t");
        prop_assert_eq!(split(&line), Ok(words));
    }

    #[test]
    fn nothing_but_quoting_is_special(line in "[^'\"\\\\ \t\r\n]{1,20}( [^'\"\\\\ \t\r\n]{1,20}){0,3}") {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        prop_assert_eq!(split(&line), Ok(words));
    }

    #[test]
    fn any_line_is_judged(line in any::<String>()) {
        if let Ok(words) = split(&line) {
            prop_assert!(words.iter().map(String::len).sum::<usize>() <= line.len());
        }
    }
}
