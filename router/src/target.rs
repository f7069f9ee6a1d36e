//! Routing headers to a [`Target`]: the only place that reads `X-Sandbox-*`.
//!
//! The proxy calls [`Target::parse`] once per request, before anything else is decided. Parsing
//! never looks anything up and never rewrites a header: values that pass are kept as the shared
//! bytes they arrived in, so a request costs no allocation here.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// `X-Sandbox-ID`: the name of the Sandbox.
pub const SANDBOX_ID: HeaderName = HeaderName::from_static("x-sandbox-id");
/// `X-Sandbox-Namespace`: the namespace of the Sandbox.
pub const SANDBOX_NAMESPACE: HeaderName = HeaderName::from_static("x-sandbox-namespace");
/// `X-Sandbox-Port`: the port to dial.
pub const SANDBOX_PORT: HeaderName = HeaderName::from_static("x-sandbox-port");
/// `X-Sandbox-Pod-IP`: where the client believes the sandbox is.
pub const SANDBOX_POD_IP: HeaderName = HeaderName::from_static("x-sandbox-pod-ip");
/// `X-Sandbox-UID`: the UID of the Sandbox.
pub const SANDBOX_UID: HeaderName = HeaderName::from_static("x-sandbox-uid");
/// `X-Sandbox-Timeout`: seconds the client is prepared to wait.
pub const SANDBOX_TIMEOUT: HeaderName = HeaderName::from_static("x-sandbox-timeout");

/// The port dialled when the request names none.
pub const DEFAULT_PORT: u16 = 8888;

const DEFAULT_NAMESPACE: HeaderValue = HeaderValue::from_static("default");
/// Longest object name Kubernetes accepts.
const MAX_NAME: usize = 253;
/// Longest DNS label.
const MAX_LABEL: usize = 63;

/// Where a request wants to go, as far as its headers say.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name of the sandbox.
    pub id: SandboxName,
    /// Namespace of the sandbox; `default` when the header is absent.
    pub namespace: Namespace,
    /// Port on the pod; [`DEFAULT_PORT`] when the header is absent.
    pub port: u16,
    /// UID of the Sandbox object, when given.
    pub uid: Option<HeaderValue>,
    /// The client's idea of the pod's address, when given. Never dialled unverified unless the
    /// operator asked for that.
    pub pod_ip: Option<PodIp>,
    /// The longest the client wants to wait, when it gave a finite positive number.
    pub timeout: Option<Duration>,
}

/// A sandbox name, which is a DNS label or, for names only a table can know, a DNS subdomain.
#[derive(Clone, Eq, PartialEq)]
pub struct SandboxName {
    text: HeaderValue,
    form: NameForm,
}

/// Whether a name can be part of a DNS name made by the router.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NameForm {
    /// 1 to 63 of `[a-z0-9-]`, safe as the first label of a host name.
    Label,
    /// Dots or up to 253 characters: legal for a Sandbox, but only ever looked up, never resolved.
    Subdomain,
}

/// A namespace name: a DNS label.
#[derive(Clone, Eq, PartialEq)]
pub struct Namespace(HeaderValue);

/// The address a client sent, with the class that decides whether it may be dialled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PodIp {
    /// The address, with IPv4-mapped IPv6 unmapped.
    pub address: IpAddr,
    /// What kind of address it is.
    pub class: AddressClass,
}

/// Kinds of address, as far as dialling them on a caller's word is concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddressClass {
    /// An ordinary unicast address.
    Unicast,
    /// 127.0.0.0/8 or `::1`.
    Loopback,
    /// Unspecified, link-local or multicast: no pod has such an address.
    Forbidden,
}

/// Why the routing headers are refused. The texts are what clients of earlier routers match on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TargetError {
    /// No sandbox was named.
    #[error("X-Sandbox-ID header is required.")]
    MissingId,
    /// The name is neither a label nor a subdomain.
    #[error("Invalid sandbox ID format.")]
    Id,
    /// The namespace is not a label.
    #[error("Invalid namespace format.")]
    Namespace,
    /// The port is not a number from 1 to 65535.
    #[error("Invalid port format.")]
    Port,
    /// The address is not a bare IP literal, or of a class that no pod has.
    #[error("Invalid target IP address.")]
    PodIp,
    /// A routing header occurs more than once, so the request is ambiguous.
    #[error("{0} header must not be repeated.")]
    Repeated(&'static str),
}

impl Target {
    /// Reads the routing headers.
    ///
    /// # Errors
    /// The first header that is missing, repeated or malformed, in the order of the fields.
    pub fn parse(headers: &HeaderMap) -> Result<Self, TargetError> {
        let id = single(headers, &SANDBOX_ID, "X-Sandbox-ID")?.ok_or(TargetError::MissingId)?;
        let id = SandboxName::parse(id).ok_or(TargetError::Id)?;
        let namespace = match single(headers, &SANDBOX_NAMESPACE, "X-Sandbox-Namespace")? {
            Some(value) => Namespace::parse(value).ok_or(TargetError::Namespace)?,
            None => Namespace(DEFAULT_NAMESPACE),
        };
        let port = match single(headers, &SANDBOX_PORT, "X-Sandbox-Port")? {
            Some(value) => parse_port(value).ok_or(TargetError::Port)?,
            None => DEFAULT_PORT,
        };
        let pod_ip = match single(headers, &SANDBOX_POD_IP, "X-Sandbox-Pod-IP")? {
            Some(value) => Some(PodIp::parse(value).ok_or(TargetError::PodIp)?),
            None => None,
        };
        let uid = single(headers, &SANDBOX_UID, "X-Sandbox-UID")?.cloned();
        Ok(Self {
            id,
            namespace,
            port,
            uid,
            pod_ip,
            timeout: headers.get(&SANDBOX_TIMEOUT).and_then(parse_timeout),
        })
    }

    /// The UID as text, when given and readable.
    pub fn uid_text(&self) -> Option<&str> {
        self.uid.as_ref().and_then(|uid| uid.to_str().ok())
    }
}

impl SandboxName {
    /// Accepts a DNS label or subdomain.
    pub fn parse(value: &HeaderValue) -> Option<Self> {
        let form = if is_label(value.as_bytes()) {
            NameForm::Label
        } else if is_subdomain(value.as_bytes()) {
            NameForm::Subdomain
        } else {
            return None;
        };
        Some(Self {
            text: value.clone(),
            form,
        })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        // Only ASCII passes `parse`, so this never falls back.
        self.text.to_str().unwrap_or_default()
    }

    /// Whether the name may become a host name.
    pub fn form(&self) -> NameForm {
        self.form
    }
}

impl Namespace {
    /// Accepts a DNS label.
    pub fn parse(value: &HeaderValue) -> Option<Self> {
        is_label(value.as_bytes()).then(|| Self(value.clone()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        // Only ASCII passes `parse`, so this never falls back.
        self.0.to_str().unwrap_or_default()
    }
}

impl fmt::Debug for SandboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for SandboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PodIp {
    /// Accepts a bare IP literal that some pod could have.
    fn parse(value: &HeaderValue) -> Option<Self> {
        let address: IpAddr = value.to_str().ok()?.parse().ok()?;
        let address = address.to_canonical();
        let class = AddressClass::of(address);
        (class != AddressClass::Forbidden).then_some(Self { address, class })
    }
}

impl AddressClass {
    /// The class of `address`, which must be canonical (not IPv4-mapped).
    pub fn of(address: IpAddr) -> Self {
        let forbidden = address.is_unspecified()
            || address.is_multicast()
            || match address {
                IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
        if forbidden {
            Self::Forbidden
        } else if address.is_loopback() {
            Self::Loopback
        } else {
            Self::Unicast
        }
    }
}

/// The only value of a header; an empty value counts as absent.
fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    shown: &'static str,
) -> Result<Option<&'a HeaderValue>, TargetError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(TargetError::Repeated(shown));
    }
    Ok(first.filter(|value| !value.is_empty()))
}

fn is_label(text: &[u8]) -> bool {
    text.len() <= MAX_LABEL && is_name_part(text)
}

fn is_subdomain(text: &[u8]) -> bool {
    text.len() <= MAX_NAME && text.split(|byte| *byte == b'.').all(is_name_part)
}

/// Lower-case letters, digits and inner hyphens.
fn is_name_part(text: &[u8]) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.first().is_some_and(alphanumeric)
        && text.last().is_some_and(alphanumeric)
        && text.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}

/// Decimal; a leading `+` and leading zeros are accepted, as earlier routers did.
fn parse_port(value: &HeaderValue) -> Option<u16> {
    value.to_str().ok()?.parse().ok().filter(|port| *port != 0)
}

/// A finite positive number of seconds; anything else counts as absent.
fn parse_timeout(value: &HeaderValue) -> Option<Duration> {
    let seconds: f64 = value.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|timeout| !timeout.is_zero())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pairs: &[(&'static str, &str)]) -> Result<Target, TargetError> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        Target::parse(&headers)
    }

    fn with(name: &'static str, value: &str) -> Result<Target, TargetError> {
        parse(&[("x-sandbox-id", "box"), (name, value)])
    }

    #[test]
    fn a_missing_or_empty_id_is_named() {
        assert_eq!(parse(&[]).unwrap_err(), TargetError::MissingId);
        let error = parse(&[("x-sandbox-id", "")]).unwrap_err();
        assert_eq!(error.to_string(), "X-Sandbox-ID header is required.");
    }

    #[test]
    fn ids_that_are_no_names_are_refused() {
        for id in [
            "foo/bar", "foo_bar", "FooBar", "-foo", "foo-", "a..b", ".a", "a b", "ä",
        ] {
            assert_eq!(
                parse(&[("x-sandbox-id", id)]).unwrap_err(),
                TargetError::Id,
                "{id}"
            );
        }
        let long = "a".repeat(254);
        assert_eq!(
            parse(&[("x-sandbox-id", &long)]).unwrap_err(),
            TargetError::Id
        );
    }

    #[test]
    fn labels_are_told_from_names_only_a_table_can_know() {
        let form = |id: &str| parse(&[("x-sandbox-id", id)]).unwrap().id.form();
        assert_eq!(form(&"a".repeat(63)), NameForm::Label);
        assert_eq!(form("0box"), NameForm::Label);
        assert_eq!(form(&"a".repeat(64)), NameForm::Subdomain);
        assert_eq!(form("foo.evil.com"), NameForm::Subdomain);
    }

    #[test]
    fn namespaces_are_labels_and_default() {
        for namespace in ["a b", "a!", "a.b", "Aa", "--", &"a".repeat(64)] {
            assert_eq!(
                with("x-sandbox-namespace", namespace).unwrap_err(),
                TargetError::Namespace,
                "{namespace}"
            );
        }
        assert_eq!(
            with("x-sandbox-namespace", "my-ns-1")
                .unwrap()
                .namespace
                .as_str(),
            "my-ns-1"
        );
        for absent in [
            parse(&[("x-sandbox-id", "box")]),
            with("x-sandbox-namespace", ""),
        ] {
            assert_eq!(absent.unwrap().namespace.as_str(), "default");
        }
    }

    #[test]
    fn ports_are_bounded_and_default() {
        for port in ["abc", "0", "-1", "65536", " ", "8_888", "8888 "] {
            assert_eq!(
                with("x-sandbox-port", port).unwrap_err(),
                TargetError::Port,
                "{port}"
            );
        }
        for (text, port) in [
            ("1", 1),
            ("65535", 65_535),
            ("+8888", 8888),
            ("008888", 8888),
        ] {
            assert_eq!(with("x-sandbox-port", text).unwrap().port, port);
        }
        assert_eq!(with("x-sandbox-port", "").unwrap().port, DEFAULT_PORT);
    }

    #[test]
    fn pod_addresses_are_bare_literals_of_a_routable_class() {
        for ip in [
            "169.254.169.254",
            "fe80::1",
            "fe80::1%eth0",
            "2001:db8::1%eth0",
            "224.0.0.1",
            "ff02::1",
            "0.0.0.0",
            "::",
            "10.0.0.1:80",
            "[::1]",
            "not-an-ip",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "255.255.255.255",
        ] {
            assert_eq!(
                with("x-sandbox-pod-ip", ip).unwrap_err(),
                TargetError::PodIp,
                "{ip}"
            );
        }
        let class = |ip: &str| with("x-sandbox-pod-ip", ip).unwrap().pod_ip.unwrap().class;
        for ip in ["10.0.0.5", "8.8.8.8", "2001:db8::1"] {
            assert_eq!(class(ip), AddressClass::Unicast, "{ip}");
        }
        for ip in ["127.0.0.1", "127.10.20.30", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(class(ip), AddressClass::Loopback, "{ip}");
        }
    }

    #[test]
    fn a_repeated_routing_header_is_refused() {
        let error = parse(&[("x-sandbox-id", "a"), ("x-sandbox-id", "b")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "X-Sandbox-ID header must not be repeated."
        );
        for name in [
            "x-sandbox-namespace",
            "x-sandbox-port",
            "x-sandbox-pod-ip",
            "x-sandbox-uid",
        ] {
            let error = parse(&[("x-sandbox-id", "a"), (name, "1"), (name, "1")]).unwrap_err();
            assert!(matches!(error, TargetError::Repeated(_)), "{name}");
        }
    }

    #[test]
    fn timeouts_that_are_no_positive_number_count_as_absent() {
        for text in ["abc", "nan", "0", "-1", "inf", "", "1e400"] {
            assert_eq!(
                with("x-sandbox-timeout", text).unwrap().timeout,
                None,
                "{text}"
            );
        }
        assert_eq!(
            with("x-sandbox-timeout", "70.5").unwrap().timeout,
            Some(Duration::from_millis(70_500))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(
            id in proptest::collection::vec(32_u8.., 0..80),
            namespace in proptest::collection::vec(32_u8.., 0..80),
            port in "\\PC{0,8}",
            ip in "[0-9a-f:.%]{0,24}",
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in [
                ("x-sandbox-id", id.as_slice()),
                ("x-sandbox-namespace", namespace.as_slice()),
                ("x-sandbox-port", port.as_bytes()),
                ("x-sandbox-pod-ip", ip.as_bytes()),
            ] {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    headers.insert(name, value);
                }
            }
            if let Ok(target) = Target::parse(&headers) {
                let id = target.id.as_str();
                prop_assert!(!id.is_empty() && id.len() <= MAX_NAME);
                prop_assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.'));
                prop_assert!(!target.namespace.as_str().contains('.'));
                prop_assert!(target.port != 0);
                if let Some(ip) = target.pod_ip {
                    prop_assert!(AddressClass::of(ip.address) != AddressClass::Forbidden);
                }
            }
        }
    }
}
