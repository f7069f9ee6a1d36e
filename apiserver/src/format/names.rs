//! Names, label keys and label values: the rules and the words in which a violation is reported.
//!
//! Each `*_errors` function returns one message per violated rule; an empty list means the value is
//! valid. The rules are those of the Kubernetes documentation, "Object Names and IDs" and "Labels
//! and Selectors".

/// The longest DNS label, and the longest name part of a label key, in bytes.
pub const LABEL_MAX_LENGTH: usize = 63;
/// The longest DNS subdomain, in bytes.
pub const SUBDOMAIN_MAX_LENGTH: usize = 253;

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1035_LABEL: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_NAME: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";

const DNS1123_LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case \
    alphanumeric characters or '-', and must start and end with an alphanumeric character";
const DNS1123_SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case \
    alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const DNS1035_LABEL_RULE: &str = "a DNS-1035 label must consist of lower case alphanumeric \
    characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const QUALIFIED_NAME_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and \
    must start and end with an alphanumeric character";
const LABEL_VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const CONFIG_MAP_KEY_RULE: &str =
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
const ENV_NAME_RULE: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";

/// A DNS label as RFC 1123 has it (may start with a digit): namespaces, containers, volumes.
pub fn dns1123_label_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::from_iter(too_long(value, LABEL_MAX_LENGTH, "characters"));
    if !is_dns1123_label(value) {
        // A value that would be fine as a dotted name is a different mistake from a wild one; the
        // published behaviour words both alike except for the dot.
        if is_dns1123_subdomain(value) {
            errors.push("must not contain dots".to_owned());
        } else {
            errors.push(rule(
                DNS1123_LABEL_RULE,
                DNS1123_LABEL,
                &["my-name", "123-abc"],
            ));
        }
    }
    errors
}

/// A DNS subdomain as RFC 1123 has it: the names of most objects.
pub fn dns1123_subdomain_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::from_iter(too_long(value, SUBDOMAIN_MAX_LENGTH, "characters"));
    if !is_dns1123_subdomain(value) {
        errors.push(rule(
            DNS1123_SUBDOMAIN_RULE,
            DNS1123_SUBDOMAIN,
            &["example.com"],
        ));
    }
    errors
}

/// A DNS label as RFC 1035 has it (must start with a letter).
pub fn dns1035_label_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::from_iter(too_long(value, LABEL_MAX_LENGTH, "characters"));
    let starts_with_letter = value.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if !(starts_with_letter && is_dns1123_label(value)) {
        errors.push(rule(
            DNS1035_LABEL_RULE,
            DNS1035_LABEL,
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// A single path segment: the names of RBAC objects and of a few other kinds.
pub fn path_segment_errors(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|part| value.contains(**part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// A label key: an optional DNS subdomain prefix, `/`, and a name.
pub fn label_key_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let mut parts = value.split('/');
    let (prefix, name) = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, None) => (None, name),
        (Some(prefix), Some(name), None) => (Some(prefix), name),
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')",
                rule(
                    QUALIFIED_NAME_RULE,
                    QUALIFIED_NAME,
                    &["MyName", "my.name", "123-abc"]
                )
            )];
        }
    };
    match prefix {
        None => {}
        Some("") => errors.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => errors.extend(
            dns1123_subdomain_errors(prefix)
                .into_iter()
                .map(|message| format!("prefix part {message}")),
        ),
    }
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    }
    if let Some(message) = too_long(name, LABEL_MAX_LENGTH, "bytes") {
        errors.push(format!("name part {message}"));
    }
    if !is_qualified_name(name) {
        errors.push(format!(
            "name part {}",
            rule(
                QUALIFIED_NAME_RULE,
                QUALIFIED_NAME,
                &["MyName", "my.name", "123-abc"]
            )
        ));
    }
    errors
}

/// A label value: empty, or a name of at most 63 bytes.
pub fn label_value_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::from_iter(too_long(value, LABEL_MAX_LENGTH, "bytes"));
    if !value.is_empty() && !is_qualified_name(value) {
        errors.push(rule(
            LABEL_VALUE_RULE,
            LABEL_VALUE,
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// A key of a ConfigMap or Secret, which becomes a file name in a volume.
pub fn config_map_key_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::from_iter(too_long(value, SUBDOMAIN_MAX_LENGTH, "characters"));
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if value.is_empty() || !value.bytes().all(allowed) {
        errors.push(rule(
            CONFIG_MAP_KEY_RULE,
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match value {
        "." => errors.push("must not be '.'".to_owned()),
        ".." => errors.push("must not be '..'".to_owned()),
        _ if value.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

/// The name of an environment variable.
pub fn env_name_errors(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if value
        .bytes()
        .all(|b| (b' '..=b'~').contains(&b) && b != b'=')
    {
        Vec::new()
    } else {
        vec![ENV_NAME_RULE.to_owned()]
    }
}

/// The name of a port: an IANA service name of at most 15 characters.
pub fn port_name_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::from_iter(too_long(value, 15, "characters"));
    if !value
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        errors.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// A port number from 1 to 65535.
pub fn port_number_errors(value: i64) -> Vec<String> {
    in_range_errors(value, 1, 65535)
}

/// A number between `low` and `high`, both included.
pub fn in_range_errors(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) {
        Vec::new()
    } else {
        vec![format!("must be between {low} and {high}, inclusive")]
    }
}

/// Whether `value` is a DNS label as RFC 1123 has it, its length aside.
fn is_dns1123_label(value: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    value.bytes().all(|b| alphanumeric(b) || b == b'-')
        && value.bytes().next().is_some_and(alphanumeric)
        && value.bytes().next_back().is_some_and(alphanumeric)
}

/// Whether `value` is a DNS subdomain as RFC 1123 has it, its length aside.
fn is_dns1123_subdomain(value: &str) -> bool {
    value.split('.').all(is_dns1123_label)
}

/// Whether `value` is the name part of a label key, its length aside.
fn is_qualified_name(value: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_alphanumeric();
    value
        .bytes()
        .all(|b| alphanumeric(b) || matches!(b, b'-' | b'_' | b'.'))
        && value.bytes().next().is_some_and(alphanumeric)
        && value.bytes().next_back().is_some_and(alphanumeric)
}

/// A length violation. Names are limited in "characters" and labels in "bytes": both count bytes,
/// and the real server words them apart.
fn too_long(value: &str, limit: usize, unit: &str) -> Option<String> {
    (value.len() > limit).then(|| format!("must be no more than {limit} {unit}"))
}

/// A rule with examples and the expression that checks it, in the words of the real server.
fn rule(message: &str, pattern: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples
        .iter()
        .map(|example| format!("'{example}'"))
        .collect();
    format!(
        "{message} (e.g. {}, regex used for validation is '{pattern}')",
        examples.join(",  or ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_dns_rules() {
        let long = "a".repeat(64);
        for (value, label, subdomain, dns1035) in [
            ("web", true, true, true),
            ("web-0", true, true, true),
            ("0web", true, true, false),
            ("web.example", false, true, false),
            ("Web", false, false, false),
            ("-web", false, false, false),
            ("web-", false, false, false),
            ("web..x", false, false, false),
            ("", false, false, false),
            ("web_0", false, false, false),
            ("wéb", false, false, false),
            (long.as_str(), false, true, false),
        ] {
            assert_eq!(
                dns1123_label_errors(value).is_empty(),
                label,
                "label {value:?}"
            );
            assert_eq!(
                dns1123_subdomain_errors(value).is_empty(),
                subdomain,
                "subdomain {value:?}"
            );
            assert_eq!(
                dns1035_label_errors(value).is_empty(),
                dns1035,
                "1035 {value:?}"
            );
        }
        assert!(!dns1123_subdomain_errors(&"a".repeat(254)).is_empty());
    }

    #[test]
    fn messages_read_as_on_a_real_server() {
        assert_eq!(
            dns1123_subdomain_errors("A"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' \
              or '.', and must start and end with an alphanumeric character (e.g. 'example.com', \
              regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            label_value_errors("a b"),
            [
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' \
              or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
              'my_value',  or '12345', regex used for validation is \
              '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ]
        );
        assert_eq!(dns1123_label_errors("a.b"), ["must not contain dots"]);
        assert_eq!(
            label_value_errors(&"a".repeat(64)),
            ["must be no more than 63 bytes"]
        );
        assert_eq!(
            port_name_errors("http--1"),
            ["must not contain consecutive hyphens"]
        );
    }

    #[test]
    fn label_keys_and_values() {
        for key in ["app", "app.kubernetes.io/name", "a_b.C-d", "1"] {
            assert_eq!(label_key_errors(key), Vec::<String>::new(), "{key}");
        }
        for key in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "-a",
            "A.b/c d",
            "UPPER.example/x",
        ] {
            assert!(!label_key_errors(key).is_empty(), "{key:?} was accepted");
        }
        for value in ["", "a", "A_b.c-1"] {
            assert_eq!(label_value_errors(value), Vec::<String>::new(), "{value}");
        }
        for value in ["-a", "a/b", "a "] {
            assert!(
                !label_value_errors(value).is_empty(),
                "{value:?} was accepted"
            );
        }
    }

    #[test]
    fn keys_ports_and_environment_names() {
        for key in ["a", "..data", ".", "..", "a/b", "", "tls.crt"] {
            assert_eq!(
                config_map_key_errors(key).is_empty(),
                matches!(key, "a" | "tls.crt"),
                "{key:?}"
            );
        }
        for name in ["http", "1", "HTTP", "-a", "a-", "web-1", "sixteen-letters-"] {
            assert_eq!(
                port_name_errors(name).is_empty(),
                matches!(name, "http" | "web-1"),
                "{name:?}"
            );
        }
        for name in ["A", "1A", "a=b", "", "é", "a b"] {
            assert_eq!(
                env_name_errors(name).is_empty(),
                matches!(name, "A" | "1A" | "a b"),
                "{name:?}"
            );
        }
        assert_eq!(
            port_number_errors(0),
            ["must be between 1 and 65535, inclusive"]
        );
        assert!(port_number_errors(65535).is_empty());
        assert_eq!(
            path_segment_errors("a/b%"),
            ["may not contain '/'", "may not contain '%'"]
        );
        assert_eq!(path_segment_errors(".."), ["may not be '..'"]);
    }
}
