//! The validated configuration of one router, independent of how it was given.
//!
//! `args.rs` makes one from flags, environment and file; local mode and tests make one directly. A
//! value of these types is already checked: nothing below this module refuses configuration.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::otlp::OtlpSettings;

use crate::authz::Authorizer;

/// Everything that decides how one router behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// How names become addresses.
    pub resolution: Resolution,
    /// How long things may take.
    pub time: Time,
    /// How dialling is repeated.
    pub retry: Retry,
    /// What is accepted at most.
    pub limits: Limits,
    /// Who may reach which sandbox. There is no default: leaving sandboxes open to everybody is
    /// somebody's explicit decision.
    pub authorizer: Arc<Authorizer>,
    /// Peers whose `X-Forwarded-*` headers are believed and extended.
    pub trusted_proxies: Vec<Network>,
    /// Connections to sandboxes.
    pub pool: PoolLimits,
    /// How the router stops.
    pub drain: Drain,
    /// Whether each request is logged.
    pub access_log: bool,
    /// Where traces are sent, if anywhere.
    pub traces: Option<OtlpSettings>,
}

impl Config {
    /// The defaults, with this authorizer.
    pub fn new(authorizer: Authorizer) -> Self {
        Self {
            resolution: Resolution::default(),
            time: Time::default(),
            retry: Retry::default(),
            limits: Limits::default(),
            authorizer: Arc::new(authorizer),
            trusted_proxies: Vec::new(),
            pool: PoolLimits::default(),
            drain: Drain::default(),
            access_log: true,
            traces: None,
        }
    }

    /// The same with what may change changed.
    #[must_use]
    pub fn adjusted(&self, changes: Adjustable) -> Self {
        let Adjustable {
            time,
            retry,
            limits,
            trusted_proxies,
        } = changes;
        Self {
            time,
            retry,
            limits,
            trusted_proxies,
            ..self.clone()
        }
    }
}

/// What may change while a router runs. Of [`Time`] and [`Limits`], what concerns whole client
/// connections stays as it was.
#[derive(Clone, Debug)]
pub struct Adjustable {
    /// How long things may take.
    pub time: Time,
    /// How dialling is repeated.
    pub retry: Retry,
    /// What is accepted at most.
    pub limits: Limits,
    /// Peers whose `X-Forwarded-*` headers are believed and extended.
    pub trusted_proxies: Vec<Network>,
}

/// How names become addresses.
#[derive(Clone, Debug)]
pub struct Resolution {
    /// The only namespace watched; all of them when `None`.
    pub namespace: Option<String>,
    /// Whether Sandbox objects are watched beside pods. Without them the router cannot tell a
    /// suspended or starting sandbox from one that does not exist, and believes any pod that names a
    /// Sandbox as its controller.
    pub sandboxes: bool,
    /// The cluster domain to make DNS names with when the table does not know a sandbox; `None`
    /// refuses such requests instead.
    pub dns: Option<Arc<str>>,
    /// What `X-Sandbox-Pod-IP` is good for.
    pub pod_ip: PodIpPolicy,
    /// How long a request waits for the watch to deliver a sandbox that is not there or not ready.
    pub wait: Duration,
    /// How many requests wait at once.
    pub max_waiting: usize,
    /// How long an address that did not answer is left alone.
    pub quarantine: Duration,
}

impl Default for Resolution {
    fn default() -> Self {
        Self {
            namespace: None,
            sandboxes: true,
            dns: None,
            pod_ip: PodIpPolicy::Verify,
            wait: Duration::from_secs(1),
            max_waiting: 1024,
            quarantine: Duration::from_secs(5),
        }
    }
}

/// What a client's `X-Sandbox-Pod-IP` is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PodIpPolicy {
    /// A hint: chosen when the table agrees that the sandbox has this address, ignored when the
    /// table knows better.
    Verify,
    /// Dialled as it is, before anything else: any caller reaches any address. For deployments that
    /// relied on that.
    Trust {
        /// Whether loopback addresses are dialled too.
        loopback: bool,
    },
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    /// From the last byte of the request to the head of the response; also the cap of
    /// `X-Sandbox-Timeout`.
    pub request: Duration,
    /// A tighter bound on the same wait, when set.
    pub response_header: Option<Duration>,
    /// One attempt to connect.
    pub connect: Duration,
    /// No byte in either direction while a response streams.
    pub idle: Duration,
    /// No byte in either direction of an upgraded connection.
    pub upgrade_idle: Duration,
    /// The whole life of a streamed response, when set.
    pub stream: Option<Duration>,
    /// The whole life of an upgraded connection, when set.
    pub upgrade: Option<Duration>,
    /// A client sending the head of a request.
    pub request_header: Duration,
    /// A client connection between requests.
    pub keep_alive: Duration,
}

impl Default for Time {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(180),
            response_header: None,
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(3600),
            upgrade_idle: Duration::from_secs(3600),
            stream: None,
            upgrade: Some(Duration::from_secs(86_400)),
            request_header: Duration::from_secs(10),
            keep_alive: Duration::from_secs(120),
        }
    }
}

impl Time {
    /// How long a client that asked for `wished` waits for the head of a response.
    pub fn head(&self, wished: Option<Duration>) -> Duration {
        let cap = self
            .response_header
            .map_or(self.request, |header| header.min(self.request));
        wished.map_or(cap, |wished| wished.min(cap))
    }
}

/// How dialling is repeated while nothing of a request has been sent.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Attempts after the first.
    pub max: u32,
    /// The wait before the first repetition; it doubles from there.
    pub initial_delay: Duration,
    /// The longest wait.
    pub max_delay: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max: 3,
            initial_delay: Duration::from_millis(200),
            max_delay: Duration::from_millis(800),
        }
    }
}

impl Retry {
    /// The wait before repetition `number`, counted from 0.
    pub fn delay(&self, number: u32) -> Duration {
        self.initial_delay
            .saturating_mul(1_u32.checked_shl(number).unwrap_or(u32::MAX))
            .min(self.max_delay)
    }
}

/// What is accepted at most. Zero in the program's flags means no limit and becomes `None` here.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request body.
    pub body: Option<u64>,
    /// Bytes of a request head.
    pub head: usize,
    /// Client connections.
    pub connections: usize,
    /// Requests in flight, upgraded connections not included.
    pub requests: Option<u32>,
    /// Requests in flight to one sandbox.
    pub requests_per_sandbox: Option<u32>,
    /// Upgraded connections.
    pub upgrades: Option<u32>,
    /// Upgraded connections to one sandbox.
    pub upgrades_per_sandbox: Option<u32>,
    /// Upgraded connections of one client address.
    pub upgrades_per_client: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: None,
            head: 128 * 1024,
            connections: 65_536,
            requests: Some(32_768),
            requests_per_sandbox: Some(1024),
            upgrades: Some(32_768),
            upgrades_per_sandbox: Some(1024),
            upgrades_per_client: None,
        }
    }
}

/// Connections kept open to sandboxes.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Idle connections to one port of one pod.
    pub idle_per_target: usize,
    /// Idle connections in all.
    pub idle: usize,
    /// How long a connection stays idle. Shorter than the five seconds after which several common
    /// servers close, so that a request rarely meets a connection that is just being closed.
    pub idle_timeout: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            idle_per_target: 128,
            idle: 4096,
            idle_timeout: Duration::from_secs(4),
        }
    }
}

/// How the router stops.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// How long it still accepts connections after it reported not ready, so that load balancers
    /// notice.
    pub delay: Duration,
    /// How long requests and upgraded connections may then still take.
    pub timeout: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            timeout: Duration::from_secs(30),
        }
    }
}

/// A block of addresses, written `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no block of addresses.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text:?} is not an address or a block such as 10.0.0.0/8")]
pub struct NetworkError {
    text: String,
}

impl Network {
    /// Whether the block holds `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |width: u8| u32::from(width - self.prefix.min(width));
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = shift(32);
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = shift(128);
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl std::str::FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let refused = || NetworkError {
            text: text.to_owned(),
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|prefix| *prefix <= width)
                .ok_or_else(refused)?,
            None => width,
        };
        Ok(Self { address, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap() {
        let retry = Retry::default();
        let millis: Vec<u128> = (0..4).map(|n| retry.delay(n).as_millis()).collect();
        assert_eq!(millis, [200, 400, 800, 800]);
        assert_eq!(retry.delay(200), retry.max_delay);
    }

    #[test]
    fn a_client_lowers_the_wait_and_never_raises_it() {
        let time = Time::default();
        let seconds = |wished: Option<u64>| time.head(wished.map(Duration::from_secs)).as_secs();
        assert_eq!(seconds(Some(60)), 60);
        assert_eq!(seconds(Some(9999)), 180);
        assert_eq!(seconds(None), 180);
        let tight = Time {
            response_header: Some(Duration::from_secs(30)),
            ..time
        };
        assert_eq!(tight.head(None).as_secs(), 30);
    }

    #[test]
    fn networks_contain_their_addresses() {
        let network = |text: &str| text.parse::<Network>().unwrap();
        let holds = |block: &str, address: &str| network(block).contains(address.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.255.0.1"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.0.0.1"));
        assert!(holds("192.0.2.7", "192.0.2.7") && !holds("192.0.2.7", "192.0.2.8"));
        assert!(holds("0.0.0.0/0", "203.0.113.9") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1"));
        for text in ["10.0.0.0/33", "ten", "10.0.0.0/", "::/129", ""] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
