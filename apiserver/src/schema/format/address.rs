//! Addresses of machines, mailboxes and documents. Pure predicates, called by the formats.

use std::net::IpAddr;

use super::{is_digits, is_hex};

/// An absolute URI, or an absolute path.
pub(super) fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return false;
    }
    if !valid_escapes(text) {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, _)) = text.split_once(':') else {
        return false;
    };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn valid_escapes(text: &str) -> bool {
    text.split('%')
        .skip(1)
        .all(|rest| rest.get(..2).is_some_and(is_hex))
}

/// `local@domain`, optionally as `Name <local@domain>`.
pub(super) fn is_email(text: &str) -> bool {
    let address = match text.split_once('<') {
        Some((_, rest)) => match rest.strip_suffix('>') {
            Some(inner) => inner,
            None => return false,
        },
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else {
        return false;
    };
    let atom = |s: &str| {
        !s.is_empty()
            && s.chars().all(|c| {
                c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii()
            })
    };
    let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
    (quoted || local.split('.').all(atom)) && domain.split('.').all(atom)
}

pub(super) fn is_hostname(text: &str) -> bool {
    if text.is_empty() || text.len() > 255 {
        return false;
    }
    let label = |s: &str| {
        !s.is_empty()
            && s.chars().count() <= 63
            && !s.starts_with('-')
            && !s.ends_with('-')
            && s.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let labels: Vec<_> = text.split('.').collect();
    let top_ok = match labels.as_slice() {
        [_, .., top] => top.chars().count() >= 2 && top.chars().all(char::is_alphabetic),
        _ => true,
    };
    top_ok && labels.into_iter().all(label)
}

pub(super) fn is_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else {
        return false;
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    let limit = if address.is_ipv4() { 32 } else { 128 };
    is_digits(prefix) && prefix.parse::<u8>().is_ok_and(|bits| bits <= limit)
}

/// 6, 8 or 20 bytes, in pairs with `:` or `-`, or in groups of four with `.`.
pub(super) fn is_mac(text: &str) -> bool {
    let groups = |separator: char, width: usize| -> Option<usize> {
        let parts: Vec<_> = text.split(separator).collect();
        (parts.len() > 1 && parts.iter().all(|p| p.len() == width && is_hex(p)))
            .then_some(parts.len() * width / 2)
    };
    groups(':', 2)
        .or_else(|| groups('-', 2))
        .or_else(|| groups('.', 4))
        .is_some_and(|bytes| matches!(bytes, 6 | 8 | 20))
}
