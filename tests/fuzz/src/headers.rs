//! Routing headers: what passes names one sandbox, and could not name anything else.

use std::net::IpAddr;

use agent_sandbox_router::config::Resolution;
use agent_sandbox_router::resolve::{Address, Resolver};
use agent_sandbox_router::target::{
    AddressClass, NameForm, SANDBOX_ID, SANDBOX_NAMESPACE, SANDBOX_POD_IP, SANDBOX_PORT,
    SANDBOX_TIMEOUT, SANDBOX_UID, Target,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Reads lines: a digit that stands for a routing header, or a name and a colon; then the value.
pub(crate) fn check(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some((name, value)) = field(line) else {
            continue;
        };
        headers.append(name, value);
    }
    let Ok(target) = Target::parse(&headers) else {
        return;
    };
    for name in [
        SANDBOX_ID,
        SANDBOX_NAMESPACE,
        SANDBOX_PORT,
        SANDBOX_POD_IP,
        SANDBOX_UID,
    ] {
        assert!(headers.get_all(&name).iter().count() <= 1, "{name} twice");
    }
    let (id, namespace) = (target.id.as_str(), target.namespace.as_str());
    assert_eq!(
        headers.get(SANDBOX_ID).map(HeaderValue::as_bytes),
        Some(id.as_bytes())
    );
    assert!(is_label(namespace), "{namespace:?}");
    match target.id.form() {
        NameForm::Label => assert!(is_label(id), "{id:?}"),
        NameForm::Subdomain => assert!(id.len() <= 253 && id.split('.').all(is_part), "{id:?}"),
    }
    assert_ne!(target.port, 0);
    if let Some(hint) = target.pod_ip {
        let plain = match hint.address {
            IpAddr::V4(address) => {
                !address.is_unspecified() && !address.is_link_local() && !address.is_multicast()
            }
            IpAddr::V6(address) => {
                address.to_ipv4_mapped().is_none()
                    && !address.is_unspecified()
                    && !address.is_unicast_link_local()
                    && !address.is_multicast()
            }
        };
        assert!(plain && hint.class != AddressClass::Forbidden, "{hint:?}");
        assert_eq!(
            hint.class == AddressClass::Loopback,
            hint.address.is_loopback()
        );
    }
    assert!(target.timeout.is_none_or(|timeout| !timeout.is_zero()));
    resolve(&target);
}

/// Without a table, a name becomes a DNS name inside the cluster's domain, or nothing.
fn resolve(target: &Target) {
    let policy = Resolution {
        dns: Some("cluster.local".into()),
        ..Resolution::default()
    };
    let Ok((route, _)) = Resolver::new(None, policy).lookup(target) else {
        assert_eq!(target.id.form(), NameForm::Subdomain);
        return;
    };
    let (id, namespace) = (target.id.as_str(), target.namespace.as_str());
    let host = format!("{id}.{namespace}.svc.cluster.local");
    assert_eq!(route.address, Address::Name(host.into(), target.port));
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let known = [
        SANDBOX_ID,
        SANDBOX_NAMESPACE,
        SANDBOX_PORT,
        SANDBOX_POD_IP,
        SANDBOX_UID,
        SANDBOX_TIMEOUT,
    ];
    let (first, rest) = line.split_first()?;
    let digit = usize::from(first.wrapping_sub(b'0'));
    if let Some(name) = known.get(digit) {
        return Some((name.clone(), HeaderValue::from_bytes(rest).ok()?));
    }
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    let value = value.get(1..)?.trim_ascii();
    Some((
        HeaderName::from_bytes(name).ok()?,
        HeaderValue::from_bytes(value).ok()?,
    ))
}

fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

fn is_part(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .chars()
            .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'))
}
