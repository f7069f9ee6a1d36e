use proptest::prelude::*;
use serde_json::json;

use super::*;

fn matches(selector: &LabelSelector, labels: &Value) -> bool {
    selector.matches(|key| labels.get(key).and_then(Value::as_str))
}

fn selects(selector: &str, labels: &Value) -> bool {
    matches(&LabelSelector::parse(selector).expect(selector), labels)
}

#[test]
fn matching() {
    let labels = json!({"app": "web", "tier": "front", "n": "5", "empty": ""});
    for (selector, expected) in [
        ("", true),
        ("app", true),
        ("!app", false),
        ("! other", true),
        ("app=web", true),
        ("app==web", true),
        ("app = web , tier!=back", true),
        ("app!=web", false),
        ("other!=web", true),
        ("app in (web,db)", true),
        ("app in (db)", false),
        ("app notin (db,cache)", true),
        ("other notin (a)", true),
        ("other in (a)", false),
        ("empty=", true),
        ("empty in ()", true),
        ("empty in (,x)", true),
        ("app in (a,)", false),
        ("n>4", true),
        ("n<5", false),
        ("app>4", false),
        ("other<4", false),
        ("app=web,tier=back", false),
        ("app=in", false),
    ] {
        assert_eq!(selects(selector, &labels), expected, "{selector:?}");
    }
    assert!(
        selects("in=notin", &json!({"in": "notin"})),
        "keywords are also words"
    );
    assert!(selects("x in (in, notin)", &json!({"x": "in"})));
    assert!(selects("!a", &Value::Null));
}

#[test]
fn canonical_text() {
    for (selector, canonical) in [
        ("b=1, a!=2", "a!=2,b=1"),
        ("x in (b,a)", "x in (a,b)"),
        ("x notin (b , a)", "x notin (a,b)"),
        ("!y,z", "!y,z"),
        ("a==b", "a==b"),
        ("a>1,b<2", "a>1,b<2"),
        ("", ""),
    ] {
        assert_eq!(
            LabelSelector::parse(selector).expect(selector).to_string(),
            canonical
        );
    }
}

#[test]
fn refusals_are_worded_as_on_a_real_server() {
    for (selector, message) in [
        (
            ",a",
            "found ',', expected: !, identifier, or 'end of string'",
        ),
        ("a,", "found '', expected: identifier after ','"),
        (
            "a b",
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
        ),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        (
            "a=(b)",
            "unable to parse requirement: found '(', expected: identifier",
        ),
        (
            "a in b",
            "unable to parse requirement: found 'b' expected: '('",
        ),
        (
            "a in (b c)",
            "unable to parse requirement: found 'c', expected: ',' or ')'",
        ),
        (
            "!=a",
            "found '!=', expected: !, identifier, or 'end of string'",
        ),
        (
            "n>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' \
             operators, the value must be an integer",
        ),
        (
            "-a=b",
            "unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist \
             of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
             validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
    ] {
        let error = LabelSelector::parse(selector).expect_err(selector);
        assert_eq!(error.to_string(), message, "{selector}");
    }
    let error = LabelSelector::parse("a=b/c").expect_err("a slash in a value");
    assert!(
        error
            .to_string()
            .contains("values[0][a]: Invalid value: \"b/c\""),
        "{error}"
    );
}

#[test]
fn selectors_in_objects() {
    let selector = LabelSelector::from_object(&json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["front", "back"]},
            {"key": "legacy", "operator": "DoesNotExist"},
        ],
    }))
    .expect("valid");
    assert!(matches(&selector, &json!({"app": "web", "tier": "back"})));
    assert!(!matches(&selector, &json!({"app": "web"})));
    assert!(!matches(
        &selector,
        &json!({"app": "web", "tier": "back", "legacy": ""})
    ));

    for (expression, message) in [
        (
            json!({"key": "a", "operator": "Like"}),
            "\"Like\" is not a valid label selector operator",
        ),
        (
            json!({"key": "a", "operator": "In"}),
            "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, \
             values set can't be empty",
        ),
        (
            json!({"key": "a", "operator": "Exists", "values": ["b"]}),
            "unable to parse requirement: values: Invalid value: [\"b\"]: values set must be empty \
             for exists and does not exist",
        ),
    ] {
        let error = LabelSelector::from_object(&json!({"matchExpressions": [expression]}))
            .expect_err("malformed");
        assert_eq!(error.to_string(), message);
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC*") {
        let _outcome = LabelSelector::parse(&text);
    }

    #[test]
    fn canonical_text_is_a_fixed_point(text in "[ab!=<>(), in1-]{0,24}") {
        if let Ok(selector) = LabelSelector::parse(&text) {
            let canonical = selector.to_string();
            let again = LabelSelector::parse(&canonical).expect("canonical text parses");
            prop_assert_eq!(canonical, again.to_string());
        }
    }
}
