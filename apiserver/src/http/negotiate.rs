//! `Accept`: which form of an answer the client wants.
//!
//! Clients list forms in order of preference with parameters that matter (`as=Table;v=v1;
//! g=meta.k8s.io`). Protobuf is never answered; every client that prefers it also accepts JSON.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::discovery::aggregated;
use crate::status::ApiError;

/// What can be accepted, for the message of a 406.
const OFFERED: [&str; 2] = ["application/json", "application/yaml"];

/// The shape of objects in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Whole objects.
    Object,
    /// `meta.k8s.io/v1` Table.
    Table,
    /// `PartialObjectMetadata` and its list.
    Partial,
}

/// The encoding of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
}

/// Shape and encoding of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Shape.
    pub form: Form,
    /// Encoding.
    pub encoding: Encoding,
}

/// The best form for a resource request.
pub fn accepted(headers: &HeaderMap) -> Result<Accepted, ApiError> {
    let ranges = ranges(headers);
    if ranges.is_empty() {
        return Ok(Accepted {
            form: Form::Object,
            encoding: Encoding::Json,
        });
    }
    ranges
        .iter()
        .find_map(|range| {
            let encoding = range.encoding()?;
            let form = match (
                range.parameter("as"),
                range.parameter("g"),
                range.parameter("v"),
            ) {
                (None, ..) => Form::Object,
                (Some("Table"), Some("meta.k8s.io"), Some("v1" | "v1beta1")) => Form::Table,
                (
                    Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                    Some("meta.k8s.io"),
                    Some("v1" | "v1beta1"),
                ) => Form::Partial,
                _ => return None,
            };
            Some(Accepted { form, encoding })
        })
        .ok_or_else(|| ApiError::not_acceptable(&OFFERED))
}

/// The best form for a discovery request: aggregated in one of its versions, or `None` for the
/// legacy documents.
pub fn discovery(headers: &HeaderMap) -> Option<aggregated::Form> {
    for range in ranges(headers) {
        range.encoding()?;
        match (
            range.parameter("as"),
            range.parameter("g"),
            range.parameter("v"),
        ) {
            (None, ..) => return None,
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                return Some(aggregated::Form::V2);
            }
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
                return Some(aggregated::Form::V2Beta1);
            }
            _ => {}
        }
    }
    None
}

/// One media range of an `Accept` header.
struct Range<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Range<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| *value)
    }

    fn encoding(&self) -> Option<Encoding> {
        match self.media_type {
            "application/json" | "application/*" | "*/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            _ => None,
        }
    }
}

/// The ranges in order of preference.
fn ranges(headers: &HeaderMap) -> Vec<Range<'_>> {
    let mut ranges: Vec<Range<'_>> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().filter(|text| !text.is_empty())?;
            let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
            let quality = parameters
                .iter()
                .find(|(key, _)| *key == "q")
                .and_then(|(_, value)| value.parse().ok())
                .unwrap_or(1.0);
            Some(Range {
                media_type,
                parameters,
                quality,
            })
        })
        .filter(|range| range.quality > 0.0)
        .collect();
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        headers
    }

    fn form(accept: &str) -> Option<(Form, Encoding)> {
        accepted(&headers(accept))
            .ok()
            .map(|a| (a.form, a.encoding))
    }

    #[test]
    fn what_clients_send_is_understood() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,\
                       application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form(kubectl), Some((Form::Table, Encoding::Json)));
        let go = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(form(go), Some((Form::Object, Encoding::Json)));
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;\
                        g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;\
                        g=meta.k8s.io;v=v1,application/json";
        assert_eq!(form(metadata), Some((Form::Partial, Encoding::Json)));
        assert_eq!(form("*/*"), Some((Form::Object, Encoding::Json)));
        assert_eq!(
            form("application/yaml"),
            Some((Form::Object, Encoding::Yaml))
        );
        assert_eq!(
            form("text/html, */*;q=0.1"),
            Some((Form::Object, Encoding::Json))
        );
        let ranked = "application/json;q=0.5, application/yaml";
        assert_eq!(form(ranked), Some((Form::Object, Encoding::Yaml)));
        assert_eq!(form("application/vnd.kubernetes.protobuf"), None);
        assert_eq!(form("application/json;as=Table;v=v9;g=meta.k8s.io"), None);
        assert!(accepted(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn discovery_prefers_the_first_form_it_knows() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                       application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                       application/json";
        assert_eq!(discovery(&headers(kubectl)), Some(aggregated::Form::V2));
        let older = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        assert_eq!(discovery(&headers(older)), Some(aggregated::Form::V2Beta1));
        assert_eq!(discovery(&headers("application/json")), None);
        assert_eq!(discovery(&HeaderMap::new()), None);
    }
}
