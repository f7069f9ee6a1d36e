//! That pieces change nothing.

use super::*;

fn pattern(text: &str) -> Pattern {
    Pattern::compile(text, Syntax::Regex, false).unwrap()
}

fn each(pattern: &Pattern, text: &[u8]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let regex = &pattern.regex;
    let find = |text, at| regex.find_at(text, at).map(|found| (found.range(), ()));
    let visit = |range, ()| {
        ranges.push(range);
        Ok(())
    };
    pattern.each(text, &Caller::default(), find, visit).unwrap();
    ranges
}

#[test]
fn patterns_know_whether_they_match_line_breaks() {
    for (text, spans) in [
        ("a.*b", false),
        ("^\\w+$", false),
        ("[a-z]|(b{2})", false),
        ("[^\\n]", false),
        ("a\\nb", true),
        ("\\s", true),
        ("[^x]", true),
        ("(?s).", true),
        ("(?-u)[^x]", true),
        ("(a|(?:b\\x0a)+)", true),
    ] {
        assert_eq!(pattern(text).spans, spans, "{text}");
    }
}

#[test]
fn blocks_change_no_match() {
    let mut text = Vec::new();
    for number in 0..16_000 {
        text.extend_from_slice(match number % 4 {
            0 => {
                b"alpha beta, and what else makes a line as long as lines usually are\n".as_slice()
            }
            1 => b"\r\n",
            2 => b"\xc3\xa9t\xc3\xa9 \xff\n",
            _ => b"\n",
        });
    }
    text.extend_from_slice(&vec![b'x'; 2 * BLOCK]);
    text.extend_from_slice(b"\nlast");
    for expression in [
        "alpha", "^", "$", "^$", "x*", "\\b", "(?-m:^)", "\\z", "(?m-R:$)", "t.", "\\n\\n", "[^a]+",
    ] {
        let pattern = pattern(expression);
        let expected: Vec<_> = pattern
            .regex
            .find_iter(&text)
            .map(|found| found.range())
            .collect();
        assert!(each(&pattern, &text) == expected, "{expression}");
    }
    assert_eq!(each(&pattern("^$|a"), b"a"), vec![0..1]);
}

#[test]
fn long_lines_are_looked_at_in_parts() {
    let mut line = vec![b'x'; 3 * PART];
    let caller = Caller::default();
    let find = |text: &str, line: &[u8]| pattern(text).in_line(line, &caller).unwrap();
    // Neither the ends of a part nor its beginning are those of the line.
    for text in ["y", "x$y", "[^x]$", "x\\by", "^y"] {
        assert_eq!(find(text, &line), None, "{text}");
    }
    assert_eq!(find("x$", &line), Some(3 * PART - 1..3 * PART));
    for at in [10, PART - 2, PART, 2 * PART + 7] {
        line.get_mut(at..at + 3).unwrap().copy_from_slice(b"yzy");
        assert_eq!(find("y.y", &line), Some(at..at + 3), "{at}");
        assert_eq!(find("yzy.*", &line).map(|found| found.start), Some(at));
        line.get_mut(at..at + 3).unwrap().copy_from_slice(b"xxx");
    }
}

#[test]
fn nothing_is_compared_when_nobody_waits() {
    let (caller, waiting) = Caller::new();
    drop(waiting);
    let pattern = pattern("a");
    for line in [b"a".to_vec(), vec![b'a'; 2 * PART]] {
        let outcome = pattern.in_line(&line, &caller);
        assert!(matches!(outcome, Err(FileError::Cancelled)));
    }
    let outcome = pattern.each(
        b"b",
        &caller,
        |_, _| None::<(Range<usize>, ())>,
        |_, ()| Ok(()),
    );
    assert!(matches!(outcome, Err(FileError::Cancelled)));
}
