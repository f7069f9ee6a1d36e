//! The `fieldPath` of validation rules: `.spec.replicas`, `.labels['a.b/c']`.
//!
//! A small subset of `JSONPath` without list indices, as published for `x-kubernetes-validations`.

use super::structural::Node;

/// The field names in `text`; `None` when it is not such a path.
pub(super) fn parse(text: &str) -> Option<Vec<String>> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            let (name, tail) = after.split_at(end);
            if name.is_empty() {
                return None;
            }
            steps.push(name.to_owned());
            rest = tail;
        } else {
            let (name, tail) = quoted(rest.strip_prefix("['")?)?;
            steps.push(name);
            rest = tail.strip_prefix(']')?;
        }
    }
    (!steps.is_empty()).then_some(steps)
}

/// The text up to the closing quote, escapes resolved, and what follows the quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '\'' => return Some((name, chars.as_str())),
            '\\' => name.push(match chars.next()? {
                'a' => '\u{7}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                '\'' => '\'',
                '\\' => '\\',
                _ => return None,
            }),
            c => name.push(c),
        }
    }
}

/// The path as it continues a field path: `.name` for properties, `[name]` for map keys.
pub(super) fn render(text: &str, schema: &Node) -> String {
    let mut out = String::new();
    let mut at = Some(schema);
    for step in parse(text).unwrap_or_default() {
        let property = at.and_then(|node| node.property(&step));
        if let Some(property) = property {
            out.push('.');
            out.push_str(&step);
            at = Some(property);
        } else {
            out.push('[');
            out.push_str(&step);
            out.push(']');
            at = at.and_then(|node| node.additional_properties().map(|schema| &**schema));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_parse() {
        let parsed = |text| parse(text).map(|steps| steps.join("|"));
        assert_eq!(parsed(".spec.replicas").as_deref(), Some("spec|replicas"));
        assert_eq!(parsed(".a['b.c/d'].e").as_deref(), Some("a|b.c/d|e"));
        assert_eq!(parsed("['it\\'s']").as_deref(), Some("it's"));
        for bad in [
            "", "spec", ".", ".a..b", ".a[0]", ".a['b'", ".a['b]", "['\\x']",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
