//! Forms: how a body is cut on its way changes nothing, and no data comes from nowhere.

use agent_sandbox_runtime::fuzzing::form;

/// Reads a byte that says how the body is cut, a line with the content type, and the body.
pub(crate) fn check(bytes: &[u8]) {
    let Some((cut, rest)) = bytes.split_first() else {
        return;
    };
    let mut halves = rest.splitn(2, |byte| *byte == b'\n');
    let kind = String::from_utf8_lossy(halves.next().unwrap_or_default()).into_owned();
    let body = halves.next().unwrap_or_default();
    let whole = form(&kind, &[body]);
    // Every byte by itself, and pieces of one size.
    for size in [1, usize::from(*cut).max(1)] {
        let pieces: Vec<&[u8]> = body.chunks(size).collect();
        assert_eq!(form(&kind, &pieces), whole, "in pieces of {size}");
    }
    let Some(Ok(parts)) = whole else {
        return;
    };
    let data: usize = parts.iter().map(|(_, _, data)| data.len()).sum();
    assert!(data <= body.len(), "{data} bytes of {}", body.len());
    for (_, _, data) in &parts {
        let found = data.is_empty() || body.windows(data.len()).any(|window| window == data);
        assert!(found, "{data:?} was not sent");
    }
}
