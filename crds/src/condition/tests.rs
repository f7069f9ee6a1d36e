use super::*;

#[test]
fn acceptable_text_is_left_alone() {
    assert_eq!(corrected("A", ""), None);
    assert_eq!(corrected("A", &"ä".repeat(MAX_MESSAGE)), None);
}

#[test]
fn a_message_is_cut_at_its_limit_in_characters() {
    let (reason, message) = corrected("A", &"ä".repeat(MAX_MESSAGE + 1)).unwrap();
    assert_eq!(reason, "A");
    assert_eq!(message.chars().count(), MAX_MESSAGE);
    assert!(message.ends_with("ä…"));
}

#[test]
fn a_reason_that_is_none_is_told_in_the_message() {
    let unknown = |message: &str| Some((reason::UNKNOWN.to_owned(), message.to_owned()));
    assert_eq!(corrected("no spaces", "why"), unknown("no spaces: why"));
    assert_eq!(corrected("", "why"), unknown("why"));
    let (reason, message) = corrected(&"-".repeat(MAX_MESSAGE), "why").unwrap();
    assert_eq!(reason, reason::UNKNOWN);
    assert_eq!(message.chars().count(), MAX_MESSAGE);
}

#[test]
fn reasons_follow_the_pattern() {
    let longest = "a".repeat(MAX_REASON);
    for good in ["A", "PodFailed", "a1", "A_", "A,b:C", &longest] {
        assert!(is_valid_reason(good), "{good}");
    }
    let too_long = "a".repeat(MAX_REASON + 1);
    for bad in ["", "1a", "_a", "a:", "a,", "a b", "ä", "a-b", &too_long] {
        assert!(!is_valid_reason(bad), "{bad}");
    }
}
