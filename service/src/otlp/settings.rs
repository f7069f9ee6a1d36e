//! Where spans go, from the standard variables of OpenTelemetry.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use http::Uri;
use http::header::{HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme};

/// Flags and variables of trace export.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Tracing")]
pub struct OtlpArgs {
    /// Export traces; by default when an endpoint is set
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_tracing: Option<bool>,
    /// Collector for traces and everything else
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        default_value = "",
        value_name = "URL"
    )]
    pub otlp_endpoint: String,
    /// Collector for traces
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        default_value = "",
        value_name = "URL"
    )]
    pub otlp_traces_endpoint: String,
    /// How the collector is spoken to
    #[arg(long, env = "OTEL_EXPORTER_OTLP_PROTOCOL", value_enum, default_value_t)]
    pub otlp_protocol: Protocol,
    /// Headers for the collector, as `name=value` separated by commas
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_HEADERS",
        hide_env_values = true,
        default_value = "",
        value_name = "HEADERS"
    )]
    pub otlp_headers: String,
    /// Name of the service in traces
    #[arg(
        long,
        env = "OTEL_SERVICE_NAME",
        default_value = "",
        value_name = "NAME"
    )]
    pub otel_service_name: String,
    /// More about the service, as `name=value` separated by commas
    #[arg(
        long,
        env = "OTEL_RESOURCE_ATTRIBUTES",
        default_value = "",
        value_name = "ATTRIBUTES"
    )]
    pub otel_resource_attributes: String,
    /// Share of traces begun here that are recorded, from 0 to 1
    #[arg(
        long,
        env = "OTEL_TRACES_SAMPLER_ARG",
        default_value = "1",
        value_name = "RATIO"
    )]
    pub otel_traces_sampler_arg: String,
}

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Protocol {
    /// gRPC over HTTP/2 without TLS.
    #[default]
    Grpc,
    /// Protobuf in the body of a POST.
    #[value(name = "http/protobuf")]
    HttpProtobuf,
}

/// Checked settings of an exporter.
#[derive(Clone, Debug)]
pub struct OtlpSettings {
    /// Where requests are posted.
    pub(super) url: Uri,
    pub(super) protocol: Protocol,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) resource: Vec<(String, String)>,
    /// Share of traces begun here that are recorded.
    pub ratio: f64,
}

/// Why traces cannot be exported.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OtlpError {
    /// Export is asked for without an endpoint.
    #[error("--enable-tracing needs --otlp-endpoint, for example http://collector:4317")]
    NoEndpoint,
    /// The endpoint is not usable.
    #[error(
        "--otlp-endpoint {given:?} is not usable; expected http://HOST:PORT (an agent or sidecar can add TLS)"
    )]
    Endpoint {
        /// What was given.
        given: String,
    },
    /// A list is malformed.
    #[error("--{flag}: expected name=value pairs separated by commas")]
    Pairs {
        /// The flag.
        flag: &'static str,
    },
    /// The ratio is not usable.
    #[error("--otel-traces-sampler-arg {given:?} is not a number from 0 to 1")]
    Ratio {
        /// What was given.
        given: String,
    },
}

impl OtlpArgs {
    /// Decides whether and where spans go; `service` names the program where nothing else does.
    ///
    /// # Errors
    /// Names the flag that is not usable.
    pub fn settings(&self, service: &str) -> Result<Option<OtlpSettings>, OtlpError> {
        let (endpoint, whole) = if self.otlp_traces_endpoint.is_empty() {
            (&self.otlp_endpoint, false)
        } else {
            (&self.otlp_traces_endpoint, true)
        };
        match self.enable_tracing {
            Some(false) => return Ok(None),
            Some(true) if endpoint.is_empty() => return Err(OtlpError::NoEndpoint),
            None if endpoint.is_empty() => return Ok(None),
            Some(true) | None => {}
        }
        let url = self
            .url(endpoint, whole)
            .ok_or_else(|| OtlpError::Endpoint {
                given: endpoint.clone(),
            })?;
        let headers = pairs(&self.otlp_headers)
            .and_then(|pairs| {
                pairs
                    .into_iter()
                    .map(|(name, value)| {
                        let name = HeaderName::from_str(&name.to_ascii_lowercase()).ok()?;
                        Some((name, HeaderValue::from_str(&value).ok()?))
                    })
                    .collect()
            })
            .ok_or(OtlpError::Pairs {
                flag: "otlp-headers",
            })?;
        let mut resource = pairs(&self.otel_resource_attributes).ok_or(OtlpError::Pairs {
            flag: "otel-resource-attributes",
        })?;
        let name = Some(self.otel_service_name.clone())
            .filter(|name| !name.is_empty())
            .or_else(|| {
                let at = resource.iter().position(|(key, _)| key == "service.name")?;
                Some(resource.remove(at).1)
            })
            .unwrap_or_else(|| service.to_owned());
        resource.retain(|(key, _)| key != "service.name");
        resource.insert(0, ("service.name".to_owned(), name));
        let ratio = self
            .otel_traces_sampler_arg
            .parse()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio))
            .ok_or_else(|| OtlpError::Ratio {
                given: self.otel_traces_sampler_arg.clone(),
            })?;
        Ok(Some(OtlpSettings {
            url,
            protocol: self.otlp_protocol,
            headers,
            resource,
            ratio,
        }))
    }

    /// A traces endpoint is taken as it is for HTTP; a general one gets the signal's path.
    fn url(&self, endpoint: &str, whole: bool) -> Option<Uri> {
        let mut parts = endpoint.parse::<Uri>().ok()?.into_parts();
        if parts.scheme != Some(Scheme::HTTP) || parts.authority.is_none() {
            return None;
        }
        let given = parts
            .path_and_query
            .as_ref()
            .map_or("/", PathAndQuery::path);
        let path = match self.otlp_protocol {
            Protocol::Grpc => {
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export".to_owned()
            }
            Protocol::HttpProtobuf if whole => given.to_owned(),
            Protocol::HttpProtobuf => format!("{}/v1/traces", given.trim_end_matches('/')),
        };
        parts.path_and_query = Some(path.parse().ok()?);
        Uri::from_parts(parts).ok()
    }
}

fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    text.split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let name = name.trim();
            (!name.is_empty()).then(|| (name.to_owned(), value.trim().to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> OtlpArgs {
        OtlpArgs {
            otel_traces_sampler_arg: "1".to_owned(),
            ..OtlpArgs::default()
        }
    }

    #[test]
    fn an_endpoint_switches_tracing_on_and_an_explicit_no_wins() {
        let endpoint = OtlpArgs {
            otlp_endpoint: "http://collector:4317".to_owned(),
            ..args()
        };
        assert!(args().settings("x").unwrap().is_none());
        let settings = endpoint.settings("sandbox-router").unwrap().unwrap();
        assert_eq!(
            settings.url,
            "http://collector:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        );
        assert_eq!(settings.resource[0].1, "sandbox-router");
        let off = OtlpArgs {
            enable_tracing: Some(false),
            ..endpoint
        };
        assert!(off.settings("x").unwrap().is_none());
        let on = OtlpArgs {
            enable_tracing: Some(true),
            ..args()
        };
        assert_eq!(on.settings("x").unwrap_err(), OtlpError::NoEndpoint);
    }

    #[test]
    fn http_endpoints_follow_the_specification() {
        let url = |endpoint: &str, traces: &str| {
            let args = OtlpArgs {
                otlp_endpoint: endpoint.to_owned(),
                otlp_traces_endpoint: traces.to_owned(),
                otlp_protocol: Protocol::HttpProtobuf,
                ..args()
            };
            args.settings("x").unwrap().unwrap().url.to_string()
        };
        assert_eq!(url("http://c:4318", ""), "http://c:4318/v1/traces");
        assert_eq!(
            url("http://c:4318/base/", ""),
            "http://c:4318/base/v1/traces"
        );
        assert_eq!(url("http://c:4318", "http://t:1/own"), "http://t:1/own");
    }

    #[test]
    fn what_is_not_usable_is_named() {
        let refused = |change: fn(&mut OtlpArgs)| {
            let mut args = OtlpArgs {
                otlp_endpoint: "http://c:4317".to_owned(),
                ..args()
            };
            change(&mut args);
            args.settings("x").unwrap_err().to_string()
        };
        assert!(refused(|a| a.otlp_endpoint = "https://c:4317".into()).contains("--otlp-endpoint"));
        assert!(refused(|a| a.otlp_endpoint = "c:4317".into()).contains("http://HOST:PORT"));
        assert!(refused(|a| a.otlp_headers = "novalue".into()).contains("--otlp-headers"));
        assert!(refused(|a| a.otel_resource_attributes = "=x".into()).contains("--otel-resource"));
        assert!(refused(|a| a.otel_traces_sampler_arg = "2".into()).contains("from 0 to 1"));
    }

    #[test]
    fn the_name_of_the_service_is_said_once() {
        let args = OtlpArgs {
            otlp_endpoint: "http://c:4317".to_owned(),
            otel_resource_attributes: "service.name=mine,zone=a".to_owned(),
            ..args()
        };
        let resource = args.settings("x").unwrap().unwrap().resource;
        assert_eq!(
            resource,
            [
                ("service.name".to_owned(), "mine".to_owned()),
                ("zone".to_owned(), "a".to_owned())
            ]
        );
    }
}
