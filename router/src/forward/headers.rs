//! What happens to headers between client and sandbox.
//!
//! Connection-level fields stop here, in both directions. Credentials never pass. Everything else
//! passes as it is, in whatever number and order, routing headers included.

use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    MAX_FORWARDS, ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::request::Parts;
use http::{Method, Request, Version};

use crate::config::Network;
use crate::error::{Error, ROUTER_ERROR};
use crate::server::Peer;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

const HOPS: usize = 8;
/// Fields that belong to one connection, and the router's own mark, which nobody else sets. `Trailer`
/// is not among them: it announces fields that do pass.
static HOP_BY_HOP: [HeaderName; HOPS] = [
    CONNECTION,
    PROXY_CONNECTION,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TRANSFER_ENCODING,
    UPGRADE,
    ROUTER_ERROR,
];

/// Who sent a request, over what, and whose word counts about others.
#[derive(Clone, Debug)]
pub(crate) struct Sender<'a> {
    peer: &'a Peer,
    trusted_proxies: &'a [Network],
}

impl<'a> Sender<'a> {
    pub(crate) fn new(peer: &'a Peer, trusted_proxies: &'a [Network]) -> Self {
        Self {
            peer,
            trusted_proxies,
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let mut trusted = self.trusted_proxies.iter();
        trusted.any(|network| network.contains(address))
    }
}

/// Refuses what must not be forwarded whatever it asks for.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), Error> {
    if request.method() == Method::CONNECT {
        return Err(Error::Connect);
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Error::BadRequest("Host header must not be repeated."));
    }
    if host.is_none()
        && request.version() == Version::HTTP_11
        && request.uri().authority().is_none()
    {
        return Err(Error::BadRequest("Host header is required."));
    }
    let uri = request.uri();
    if uri.scheme().is_none() && uri.authority().is_some() {
        return Err(Error::BadRequest(
            "The request target must be a path or a whole URL.",
        ));
    }
    // Any other coding would have to be undone before the field is taken away.
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(Error::BadRequest(
            "The only transfer coding understood is chunked, once.",
        ));
    }
    Ok(())
}

/// The protocol a request wants to switch to, if it is one the router carries.
///
/// `h2c` is not: it would hide whatever follows from the router, and answering in HTTP/1.1 is what
/// the standard foresees.
pub(crate) fn upgrade(parts: &Parts) -> Option<HeaderValue> {
    if parts.version != Version::HTTP_11 {
        return None;
    }
    let protocol = parts.headers.get(UPGRADE)?;
    let wanted = tokens(&parts.headers, &CONNECTION)
        .any(|token| token.eq_ignore_ascii_case(b"upgrade"))
        && !protocol.is_empty()
        && !protocol
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|name| name.trim_ascii().eq_ignore_ascii_case(b"h2c"));
    wanted.then(|| protocol.clone())
}

/// Makes the head for the sandbox, except for `Host`, which depends on where it is sent.
pub(crate) fn to_sandbox(parts: &mut Parts, sender: &Sender<'_>, upgrade: Option<HeaderValue>) {
    let host = parts
        .uri
        .authority()
        // Without a user's name and password, which are for nobody to see.
        .and_then(|authority| authority.as_str().rsplit('@').next())
        .and_then(|authority| HeaderValue::from_str(authority).ok())
        .or_else(|| parts.headers.get(HOST).cloned());
    let trailers = tokens(&parts.headers, &TE).any(|token| token.eq_ignore_ascii_case(b"trailers"));
    let headers = &mut parts.headers;
    remove_hop_by_hop(headers);
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers.remove(AUTHORIZATION);
    if parts.version != Version::HTTP_11 {
        headers.remove(EXPECT);
    }
    if parts.version == Version::HTTP_2 {
        join_cookies(headers);
    }
    forwarded(headers, sender, host);
    if let Some(protocol) = upgrade {
        // Servers compare it with `Host`, which is about to be rewritten.
        headers.remove(ORIGIN);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Makes the head for the client.
pub(crate) fn to_client(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
}

/// The address a request really comes from: the peer's, or the right-most one that no trusted proxy
/// vouches for.
pub(crate) fn client_address(headers: &HeaderMap, sender: &Sender<'_>) -> IpAddr {
    let mut client = sender.peer.address;
    if !sender.trusts(client) {
        return client;
    }
    let mut hops: Vec<&[u8]> = tokens(headers, &FORWARDED_FOR).collect();
    hops.reverse();
    for hop in hops {
        let Some(address) = std::str::from_utf8(hop)
            .ok()
            .and_then(|hop| hop.parse::<IpAddr>().ok())
        else {
            break;
        };
        client = address;
        if !sender.trusts(address) {
            break;
        }
    }
    client
}

fn forwarded(headers: &mut HeaderMap, sender: &Sender<'_>, host: Option<HeaderValue>) {
    let peer = sender.peer;
    let mut chain = peer.text.clone();
    if sender.trusts(peer.address) {
        let mut known: Vec<&[u8]> = tokens(headers, &FORWARDED_FOR).collect();
        known.push(peer.text.as_bytes());
        if let Ok(joined) = HeaderValue::from_bytes(&known.join(&b", "[..])) {
            chain = joined;
        }
    } else {
        headers.remove(FORWARDED);
        headers.remove(&FORWARDED_HOST);
        headers.remove(&FORWARDED_PROTO);
    }
    headers.insert(FORWARDED_FOR, chain);
    if let Some(host) = host {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
    let scheme = if peer.tls { "https" } else { "http" };
    headers
        .entry(FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static(scheme));
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // One look at the fields that are there costs less than a search for each that might be.
    let mut found = [false; HOPS];
    for name in headers.keys() {
        for (found, field) in found.iter_mut().zip(&HOP_BY_HOP) {
            *found |= name == field;
        }
    }
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
            .filter_map(|token| HeaderName::from_bytes(token).ok())
            .collect();
        for name in named.iter().filter(|name| !is_end_to_end(name)) {
            headers.remove(name);
        }
    }
    for (_, name) in found.iter().zip(&HOP_BY_HOP).filter(|(found, _)| **found) {
        headers.remove(name);
    }
}

/// Whether a field goes all the way whatever `Connection` says: what the router acts upon and what
/// says where a request came from are not a peer's to take away.
fn is_end_to_end(name: &HeaderName) -> bool {
    [
        HOST,
        CONTENT_LENGTH,
        CONTENT_TYPE,
        TRAILER,
        FORWARDED,
        TRACEPARENT,
        TRACESTATE,
        REQUEST_ID,
    ]
    .contains(name)
        || is_routing(name)
}

/// Whether a field says where a request goes to or came from.
fn is_routing(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-sandbox-") || name.starts_with("x-forwarded-")
}

/// Leaves of a request's trailers what may come so late. Whoever merges them into the head must find
/// no credential, no length and nothing that routes.
pub(super) fn trailers_to_sandbox(trailers: &mut HeaderMap) {
    retain(trailers, |name| {
        let of_the_head = [
            AUTHORIZATION,
            CACHE_CONTROL,
            CONTENT_ENCODING,
            CONTENT_RANGE,
            CONTENT_TYPE,
            COOKIE,
            EXPECT,
            FORWARDED,
            MAX_FORWARDS,
            TE,
        ];
        !is_routing(name) && !of_the_head.contains(name)
    });
}

/// The same for a response.
pub(super) fn trailers_to_client(trailers: &mut HeaderMap) {
    retain(trailers, |_| true);
}

fn retain(trailers: &mut HeaderMap, may: impl Fn(&HeaderName) -> bool) {
    let refused: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| {
            HOP_BY_HOP.contains(name)
                || [HOST, CONTENT_LENGTH, TRAILER].contains(name)
                || !may(name)
        })
        .cloned()
        .collect();
    for name in refused {
        trailers.remove(name);
    }
}

/// HTTP/2 splits cookies over several fields for compression; HTTP/1.1 servers expect one.
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, cookie);
    }
}

/// The non-empty members of a comma-separated field, over all its lines.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    fn parts(pairs: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri("/x").header(HOST, "router:8080");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn sender(trusted: &[Network]) -> Sender<'_> {
        static PEER: LazyLock<Peer> =
            LazyLock::new(|| Peer::new("192.0.2.1".parse().unwrap(), false));
        Sender::new(&PEER, trusted)
    }

    #[test]
    fn connection_fields_and_credentials_stop_here() {
        let mut parts = parts(&[
            ("connection", "close, X-Hop"),
            ("connection", "x-other-hop"),
            ("x-hop", "1"),
            ("x-other-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip, trailers;q=0.5, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("authorization", "Bearer secret"),
            ("trailer", "x-checksum"),
            ("x-custom", "stays"),
            ("x-sandbox-id", "box"),
            ("cookie", "a=1"),
        ]);
        to_sandbox(&mut parts, &sender(&[]), None);
        let mut names: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "cookie",
                "host",
                "te",
                "trailer",
                "x-custom",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-sandbox-id",
            ]
        );
        assert_eq!(parts.headers[TE], "trailers");
    }

    #[test]
    fn forwarded_fields_of_strangers_are_replaced() {
        let pairs = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=evil"),
            ("x-real-ip", "203.0.113.9"),
        ];
        let mut from_stranger = parts(&pairs);
        to_sandbox(&mut from_stranger, &sender(&[]), None);
        let headers = &from_stranger.headers;
        assert_eq!(headers[FORWARDED_FOR], "192.0.2.1");
        assert_eq!(headers[FORWARDED_HOST], "router:8080");
        assert_eq!(headers[FORWARDED_PROTO], "http");
        assert!(!headers.contains_key(FORWARDED));
        assert_eq!(headers["x-real-ip"], "203.0.113.9");

        let trusted = ["192.0.2.0/24".parse().unwrap()];
        let mut from_proxy = parts(&pairs);
        to_sandbox(&mut from_proxy, &sender(&trusted), None);
        let headers = &from_proxy.headers;
        assert_eq!(headers[FORWARDED_FOR], "203.0.113.9, 192.0.2.1");
        assert_eq!(headers[FORWARDED_HOST], "evil");
        assert_eq!(headers[FORWARDED_PROTO], "https");
    }

    #[test]
    fn upgrades_are_told_from_look_alikes() {
        let wants = |pairs: &[(&str, &str)]| upgrade(&parts(pairs)).is_some();
        assert!(wants(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket")
        ]));
        assert!(wants(&[("connection", "upgrade"), ("upgrade", "tcp")]));
        assert!(!wants(&[("upgrade", "websocket")]));
        assert!(!wants(&[("connection", "upgrade")]));
        assert!(!wants(&[("connection", "upgrade"), ("upgrade", "")]));
        assert!(!wants(&[
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "H2C")
        ]));
        assert!(!wants(&[
            ("connection", "upgrade"),
            ("upgrade", "websocket, h2c")
        ]));
    }

    #[test]
    fn an_upgrade_keeps_its_fields_and_loses_its_origin() {
        let pairs = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("origin", "http://router"),
            ("sec-websocket-key", "x"),
        ];
        let mut upgraded = parts(&pairs);
        let protocol = upgrade(&upgraded);
        to_sandbox(&mut upgraded, &sender(&[]), protocol);
        assert_eq!(upgraded.headers[CONNECTION], "Upgrade");
        assert_eq!(upgraded.headers[UPGRADE], "websocket");
        assert!(!upgraded.headers.contains_key(ORIGIN));
        assert_eq!(upgraded.headers["sec-websocket-key"], "x");

        let mut ordinary = parts(&[("origin", "http://router")]);
        to_sandbox(&mut ordinary, &sender(&[]), None);
        assert!(ordinary.headers.contains_key(ORIGIN));
    }

    #[test]
    fn the_client_is_the_right_most_untrusted_hop() {
        let trusted: Vec<Network> = ["10.0.0.0/8", "192.0.2.1"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let client = |chain: &str, trusted: &[Network]| {
            client_address(
                &parts(&[("x-forwarded-for", chain)]).headers,
                &sender(trusted),
            )
            .to_string()
        };
        assert_eq!(client("198.51.100.7", &[]), "192.0.2.1");
        assert_eq!(
            client("6.6.6.6, 198.51.100.7, 10.0.0.2", &trusted),
            "198.51.100.7"
        );
        assert_eq!(client("10.0.0.3, 10.0.0.2", &trusted), "10.0.0.3");
        assert_eq!(client("6.6.6.6, nonsense", &trusted), "192.0.2.1");
    }

    #[test]
    fn http_2_cookies_are_joined() {
        let mut parts = parts(&[("cookie", "a=1"), ("cookie", "b=2")]);
        parts.version = Version::HTTP_2;
        to_sandbox(&mut parts, &sender(&[]), None);
        assert_eq!(parts.headers[COOKIE], "a=1; b=2");
        assert_eq!(parts.headers.get_all(COOKIE).iter().count(), 1);
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        let request = |build: http::request::Builder| check(&build.body(()).unwrap());
        assert_eq!(
            request(Request::connect("example.com:80")),
            Err(Error::Connect)
        );
        assert!(request(Request::get("/")).is_err());
        assert!(request(Request::get("/").header(HOST, "a").header(HOST, "b")).is_err());
        assert!(request(Request::get("/").header(HOST, "a")).is_ok());
        assert!(request(Request::get("http://a/")).is_ok());
        assert!(request(Request::get("/").version(Version::HTTP_10)).is_ok());
    }
}
