//! Variables of the Python router that mean the same as a flag in another notation.
//!
//! The groups whose flags they stand in for use them; a flag that is given wins. What makes no sense
//! is ignored, as there, and said once the program can log.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use clap::Args as ClapArgs;

/// Variables of the Python router that mean the same as a flag in another notation.
#[derive(ClapArgs, Debug, Default)]
pub(super) struct PythonEnvironment {
    #[arg(long, env = "PROXY_TIMEOUT_SECONDS", hide = true)]
    pub(super) proxy_timeout_seconds: Option<String>,
    #[arg(long, env = "WEBSOCKET_IDLE_TIMEOUT_SECONDS", hide = true)]
    pub(super) websocket_idle_timeout_seconds: Option<String>,
    #[arg(long, env = "WEBSOCKET_MAX_LIFETIME_SECONDS", hide = true)]
    pub(super) websocket_max_lifetime_seconds: Option<String>,
    #[arg(long, env = "WEBSOCKET_MAX_CONNECTIONS_PER_CLIENT", hide = true)]
    pub(super) websocket_max_connections_per_client: Option<String>,
    #[arg(long, env = "WEBSOCKET_MAX_MESSAGE_BYTES", hide = true)]
    pub(super) websocket_max_message_bytes: Option<String>,
    #[arg(long, env = "MAX_KEEPALIVE_CONNECTIONS", hide = true)]
    pub(super) max_keepalive_connections: Option<String>,
}

/// What the variables say, as far as they say something.
#[derive(Debug, Default)]
pub(super) struct Python {
    pub(super) proxy_timeout: Option<Duration>,
    pub(super) upgrade_idle: Option<Duration>,
    pub(super) upgrade_lifetime: Option<Duration>,
    pub(super) upgrades_per_client: Option<u32>,
    pub(super) idle_connections: Option<usize>,
}

impl PythonEnvironment {
    /// What was given, and what of it is ignored.
    pub(super) fn read(self) -> (Python, Vec<String>) {
        let Self {
            proxy_timeout_seconds,
            websocket_idle_timeout_seconds,
            websocket_max_lifetime_seconds,
            websocket_max_connections_per_client,
            websocket_max_message_bytes,
            max_keepalive_connections,
        } = self;
        let mut ignored = Ignored::default();
        let python = Python {
            proxy_timeout: ignored
                .seconds("PROXY_TIMEOUT_SECONDS", proxy_timeout_seconds)
                .and_then(|time| {
                    if time.is_zero() {
                        ignored.note("PROXY_TIMEOUT_SECONDS", "0", "is not more than zero");
                    }
                    Some(time).filter(|time| !time.is_zero())
                }),
            upgrade_idle: ignored.seconds(
                "WEBSOCKET_IDLE_TIMEOUT_SECONDS",
                websocket_idle_timeout_seconds,
            ),
            upgrade_lifetime: ignored.seconds(
                "WEBSOCKET_MAX_LIFETIME_SECONDS",
                websocket_max_lifetime_seconds,
            ),
            upgrades_per_client: ignored.number(
                "WEBSOCKET_MAX_CONNECTIONS_PER_CLIENT",
                websocket_max_connections_per_client,
            ),
            idle_connections: ignored
                .number("MAX_KEEPALIVE_CONNECTIONS", max_keepalive_connections),
        };
        if let Some(text) = websocket_max_message_bytes {
            ignored.note(
                "WEBSOCKET_MAX_MESSAGE_BYTES",
                &text,
                "has no meaning here, because WebSockets are carried as bytes",
            );
        }
        (python, ignored.0)
    }
}

/// Variables that are ignored, each with the reason.
#[derive(Debug, Default)]
struct Ignored(Vec<String>);

impl Ignored {
    fn note(&mut self, name: &str, text: impl Display, why: &str) {
        self.0.push(format!("{name}={text} {why}; it is ignored"));
    }

    fn number<T: FromStr>(&mut self, name: &str, text: Option<String>) -> Option<T> {
        let text = text?;
        let number = text.trim().parse().ok();
        if number.is_none() {
            self.note(name, &text, "is not a number from zero on");
        }
        number
    }

    fn seconds(&mut self, name: &str, text: Option<String>) -> Option<Duration> {
        let text = text?;
        let seconds = text
            .trim()
            .parse::<f64>()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        if seconds.is_none() {
            self.note(name, &text, "is not a number of seconds");
        }
        seconds
    }
}
