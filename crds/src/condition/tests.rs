use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::new(second, 123_456_789).unwrap()
}

fn ready(status: bool, reason: &str, message: &str) -> DesiredCondition {
    DesiredCondition {
        type_: READY,
        status: status.into(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: Some(3),
    }
}

#[test]
fn transition_time_moves_only_with_the_status() {
    let mut conditions = Vec::new();
    assert!(set(&mut conditions, ready(false, "A", "one"), at(10)));
    assert!(set(&mut conditions, ready(false, "B", "two"), at(20)));
    assert_eq!(conditions[0].last_transition_time.0.as_second(), 10);
    assert_eq!((conditions[0].reason.as_str(), conditions.len()), ("B", 1));
    assert!(set(&mut conditions, ready(true, "C", ""), at(30)));
    assert_eq!(conditions[0].last_transition_time.0.as_second(), 30);
}

#[test]
fn setting_the_same_again_changes_nothing_even_later() {
    let mut conditions = Vec::new();
    set(&mut conditions, ready(true, "A", "one"), at(10));
    let before = conditions.clone();
    assert!(!set(&mut conditions, ready(true, "A", "one"), at(99)));
    assert_eq!(conditions, before);
    let newer = DesiredCondition {
        observed_generation: Some(4),
        ..ready(true, "A", "one")
    };
    assert!(set(&mut conditions, newer, at(99)));
}

#[test]
fn times_are_whole_seconds_and_survive_the_wire() {
    let mut conditions = Vec::new();
    set(&mut conditions, ready(true, "A", ""), at(10));
    let wire = serde_json::to_string(&conditions).unwrap();
    let back: Vec<Condition> = serde_json::from_str(&wire).unwrap();
    assert_eq!(back, conditions);
}

#[test]
fn others_keep_their_place() {
    let mut conditions = Vec::new();
    for type_ in [SUSPENDED, FINISHED, POD_SCHEDULED, READY] {
        let desired = DesiredCondition {
            type_,
            ..ready(true, "A", "")
        };
        set(&mut conditions, desired, at(1));
    }
    set(&mut conditions, ready(false, "B", ""), at(2));
    let order: Vec<_> = conditions.iter().map(|c| c.type_.as_str()).collect();
    assert_eq!(order, [SUSPENDED, FINISHED, POD_SCHEDULED, READY]);
    assert!(is_true(&conditions, FINISHED) && !is_true(&conditions, READY));
    assert!(has_reason(&conditions, READY, "B") && !has_reason(&conditions, "Nope", "B"));
    assert!(remove(&mut conditions, FINISHED) && !remove(&mut conditions, FINISHED));
    sort(&mut conditions);
    let order: Vec<_> = conditions.iter().map(|c| c.type_.as_str()).collect();
    assert_eq!(order, [POD_SCHEDULED, READY, SUSPENDED]);
}

#[test]
fn put_copies_the_transition_time() {
    let mut source = Vec::new();
    set(&mut source, ready(true, "A", ""), at(10));
    let mut target = Vec::new();
    set(&mut target, ready(true, "A", ""), at(50));
    assert!(put(&mut target, source[0].clone()));
    assert_eq!(target, source);
    assert!(!put(&mut target, source[0].clone()));
}

#[test]
fn unacceptable_text_is_made_acceptable() {
    let mut conditions = Vec::new();
    set(&mut conditions, ready(false, "no spaces", "why"), at(1));
    assert_eq!(conditions[0].reason, reason::UNKNOWN);
    assert_eq!(conditions[0].message, "no spaces: why");

    set(
        &mut conditions,
        ready(false, "A", &"ä".repeat(MAX_MESSAGE)),
        at(1),
    );
    assert!(conditions[0].message.ends_with('ä'));
    set(
        &mut conditions,
        ready(false, "A", &"ä".repeat(MAX_MESSAGE + 1)),
        at(1),
    );
    assert_eq!(conditions[0].message.chars().count(), MAX_MESSAGE);
    assert!(conditions[0].message.ends_with('…'));
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
