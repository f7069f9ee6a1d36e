//! POST, PUT, PATCH and DELETE of objects, and their subresources.

use axum::body::Body;
use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::Api;
use super::body::{self, Decoded};
use super::list::list_metadata;
use super::negotiate::Accepted;
use super::read;
use super::request::Query;
use super::respond;
use crate::meta;
use crate::ops::{
    DeleteOptions, Deleted, Encoder, FieldValidation, PatchKind, Preconditions, Propagation,
    ScaleChange, Target, WriteOptions, Written,
};
use crate::registry::{Origin, SubresourceAction};
use crate::schema::FieldError;
use crate::status::{ApiError, success};

/// The longest name of a field manager.
const MAX_MANAGER: usize = 128;

/// What every write needs from its request.
pub(super) struct Request<'a> {
    pub api: &'a Api,
    pub target: &'a Target,
    pub subresource: &'a str,
    pub query: &'a Query,
    pub headers: &'a HeaderMap,
    pub accepted: Accepted,
}

impl Request<'_> {
    /// POST to a collection.
    pub(super) fn create(&self, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
        let validation = validation("CreateOptions", self.query)?;
        let Decoded { value, problems } = body::object(self.headers, bytes, validation)?;
        let options = self.options("CreateOptions", validation, problems)?;
        let written = self.api.engine.create(self.target, value, &options)?;
        Ok(self.written(&written))
    }

    /// PUT of an object or a part of it.
    pub(super) fn update(&self, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
        let validation = validation("UpdateOptions", self.query)?;
        let Decoded { value, problems } = body::object(self.headers, bytes, validation)?;
        let options = self.options("UpdateOptions", validation, problems)?;
        if self.is_scale() {
            return self.scale(ScaleChange::Put(&value), &options);
        }
        let engine = &self.api.engine;
        let written = engine.update(self.target, self.subresource, value, &options)?;
        Ok(self.written(&written))
    }

    /// PATCH of an object or a part of it.
    pub(super) fn patch(&self, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
        let validation = validation("PatchOptions", self.query)?;
        let strategic = self.target.descriptor.origin == Origin::BuiltIn || self.is_scale();
        let force = self.query.optional_flag("force");
        let kind = body::patch_kind(self.headers, strategic, force == Some(true))?;
        let refuse = |error| ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[error]);
        if matches!(kind, PatchKind::Apply { .. }) {
            if self.query.get("fieldManager").is_none() {
                let why = "is required for apply patch";
                return Err(refuse(FieldError::required("fieldManager", why)));
            }
        } else if force.is_some() {
            let why = "may not be specified for non-apply patch";
            return Err(refuse(FieldError::forbidden("force", why)));
        }
        let Decoded { value, problems } = body::patch(kind, bytes, validation)?;
        let options = self.options("PatchOptions", validation, problems)?;
        if self.is_scale() {
            return self.scale(ScaleChange::Patch(kind, &value), &options);
        }
        let engine = &self.api.engine;
        let written = engine.patch(self.target, self.subresource, kind, &value, &options)?;
        Ok(self.written(&written))
    }

    /// DELETE of an object.
    pub(super) fn delete(&self, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
        let options = delete_options(self.query, self.headers, bytes)?;
        let deleted = self.api.engine.delete(self.target, &options)?;
        Ok(self.deleted(&deleted))
    }

    /// DELETE of a collection.
    pub(super) fn delete_collection(&self, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
        let options = delete_options(self.query, self.headers, bytes)?;
        let page = read::selected(self.api, self.target, self.query)?;
        let engine = &self.api.engine;
        let objects = engine.delete_collection(self.target, &options, &page.objects)?;
        let metadata = list_metadata(engine.store.revision(), None, None);
        let include = read::include_object(self.query)?;
        let now = engine.clock.now();
        Ok(read::answer(
            self.target,
            self.accepted,
            include,
            objects,
            &metadata,
            now,
        ))
    }

    /// POST to a subresource of an object.
    pub(super) fn create_subresource(
        &self,
        action: &SubresourceAction,
        bytes: &Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let validation = validation("CreateOptions", self.query)?;
        let Decoded { value, problems } = body::object(self.headers, bytes, validation)?;
        let options = self.options("CreateOptions", validation, problems)?;
        let engine = &self.api.engine;
        match action {
            SubresourceAction::Binding => {
                engine.bind(self.target, &value, &options)?;
                Ok(self.success())
            }
            SubresourceAction::Eviction => {
                let mut delete = match value.get("deleteOptions") {
                    Some(options) if !options.is_null() => parse_delete_options(options)?,
                    _ => DeleteOptions::default(),
                };
                delete.dry_run |= options.dry_run;
                engine.evict(self.target, &value, &delete)?;
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                    "code": StatusCode::CREATED.as_u16(),
                });
                Ok(respond::value(StatusCode::CREATED, self.accepted, &status))
            }
            SubresourceAction::Token => {
                let token = engine.request_token(self.target, &value)?;
                Ok(respond::value(StatusCode::CREATED, self.accepted, &token))
            }
            SubresourceAction::Part { .. }
            | SubresourceAction::Scale(_)
            | SubresourceAction::Connect => Err(ApiError::method_not_allowed()),
        }
    }

    fn is_scale(&self) -> bool {
        let found = self.target.version.subresource(self.subresource);
        matches!(
            found.map(|found| &found.action),
            Some(SubresourceAction::Scale(_))
        )
    }

    fn scale(
        &self,
        change: ScaleChange<'_>,
        options: &WriteOptions,
    ) -> Result<Response<Body>, ApiError> {
        let engine = &self.api.engine;
        let written = engine.update_scale(self.target, change, options)?;
        let scale = engine.scale(self.target, &written.object)?;
        Ok(respond::value(StatusCode::OK, self.accepted, &scale))
    }

    fn success(&self) -> Response<Body> {
        let status = success(&self.target.descriptor, &self.target.name, None);
        respond::value(StatusCode::CREATED, self.accepted, &status)
    }

    fn written(&self, written: &Written) -> Response<Body> {
        let code = if written.created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let encoder = Encoder::of(self.target);
        let include =
            read::include_object(self.query).unwrap_or(super::table::IncludeObject::Metadata);
        let now = self.api.engine.clock.now();
        let mut response =
            respond::object(code, self.accepted, &encoder, &written.object, include, now);
        respond::warn(&mut response, &written.warnings);
        response
    }

    fn deleted(&self, deleted: &Deleted) -> Response<Body> {
        let descriptor = &self.target.descriptor;
        match deleted {
            Deleted::Gone(object) if !descriptor.returns_deleted => {
                let uid = object.uid().map(|uid| uid.to_string());
                let status = success(descriptor, object.name(), uid.as_deref());
                respond::value(StatusCode::OK, self.accepted, &status)
            }
            Deleted::Gone(object) | Deleted::Pending(object) => {
                let encoder = Encoder::of(self.target);
                let include = super::table::IncludeObject::Metadata;
                let now = self.api.engine.clock.now();
                respond::object(
                    StatusCode::OK,
                    self.accepted,
                    &encoder,
                    object,
                    include,
                    now,
                )
            }
        }
    }

    fn options(
        &self,
        kind: &str,
        validation: FieldValidation,
        decoding: Vec<String>,
    ) -> Result<WriteOptions, ApiError> {
        Ok(WriteOptions {
            dry_run: dry_run(kind, self.query.all("dryRun"))?,
            validation,
            manager: manager(kind, self.query, self.headers)?,
            decoding,
        })
    }
}

fn validation(kind: &str, query: &Query) -> Result<FieldValidation, ApiError> {
    match query.get("fieldValidation") {
        None | Some("Warn") => Ok(FieldValidation::Warn),
        Some("Strict") => Ok(FieldValidation::Strict),
        Some("Ignore") => Ok(FieldValidation::Ignore),
        Some(other) => {
            let supported = ["", "Ignore", "Strict", "Warn"];
            let error = FieldError::not_supported("fieldValidation", &json!(other), supported);
            Err(ApiError::invalid("meta.k8s.io", kind, "", &[error]))
        }
    }
}

fn dry_run<'a>(kind: &str, values: impl Iterator<Item = &'a str>) -> Result<bool, ApiError> {
    let mut dry = false;
    for value in values {
        match value {
            "" => {}
            "All" => dry = true,
            other => {
                let error = FieldError::not_supported("dryRun", &json!([other]), ["All"]);
                return Err(ApiError::invalid("meta.k8s.io", kind, "", &[error]));
            }
        }
    }
    Ok(dry)
}

/// The field manager: as given, or the product name of the user agent.
fn manager(kind: &str, query: &Query, headers: &HeaderMap) -> Result<String, ApiError> {
    let Some(given) = query.get("fieldManager") else {
        let agent = headers
            .get(USER_AGENT)
            .and_then(|agent| agent.to_str().ok())
            .unwrap_or("");
        let product = agent.split('/').next().unwrap_or("");
        let product: String = product.chars().take(MAX_MANAGER).collect();
        return Ok(if product.is_empty() {
            "unknown".to_owned()
        } else {
            product
        });
    };
    let refuse = |error| Err(ApiError::invalid("meta.k8s.io", kind, "", &[error]));
    if given.len() > MAX_MANAGER {
        return refuse(FieldError::too_long("fieldManager", MAX_MANAGER as u64));
    }
    if let Some((at, odd)) = given.char_indices().find(|(_, c)| c.is_control()) {
        let problem = format!(
            "invalid character U+{:04X} (at position {at})",
            u32::from(odd)
        );
        return refuse(FieldError::invalid("fieldManager", &json!(given), problem));
    }
    Ok(given.to_owned())
}

/// Options of a deletion from the body or, when that is empty, from the query.
fn delete_options(
    query: &Query,
    headers: &HeaderMap,
    bytes: &Bytes,
) -> Result<DeleteOptions, ApiError> {
    if !bytes.is_empty() {
        let Decoded { value, .. } = body::object(headers, bytes, FieldValidation::Ignore)?;
        if !value.is_null() {
            let mut options = parse_delete_options(&value)?;
            options.dry_run |= dry_run("DeleteOptions", query.all("dryRun"))?;
            return Ok(options);
        }
    }
    let grace = query
        .get("gracePeriodSeconds")
        .map(|text| {
            text.parse::<i64>().map_err(|_| {
                ApiError::bad_request(format!(
                    "gracePeriodSeconds: expected an integer, not \"{text}\""
                ))
            })
        })
        .transpose()?;
    Ok(DeleteOptions {
        dry_run: dry_run("DeleteOptions", query.all("dryRun"))?,
        grace,
        propagation: propagation(
            query.get("propagationPolicy"),
            query.optional_flag("orphanDependents"),
        )?,
        preconditions: Preconditions::default(),
    })
}

fn parse_delete_options(value: &Value) -> Result<DeleteOptions, ApiError> {
    let kind = value
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or("DeleteOptions");
    if !value.is_object() || kind != "DeleteOptions" {
        return Err(ApiError::bad_request(
            "the body of a delete must be DeleteOptions",
        ));
    }
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(ToOwned::to_owned);
    let demands = value.get("preconditions");
    Ok(DeleteOptions {
        dry_run: dry_run(
            "DeleteOptions",
            meta::strings(value.get("dryRun")).into_iter(),
        )?,
        grace: value.get("gracePeriodSeconds").and_then(Value::as_i64),
        propagation: propagation(
            value.get("propagationPolicy").and_then(Value::as_str),
            value.get("orphanDependents").and_then(Value::as_bool),
        )?,
        preconditions: Preconditions {
            uid: text(demands.and_then(|demands| demands.get("uid"))),
            resource_version: text(demands.and_then(|demands| demands.get("resourceVersion"))),
        },
    })
}

fn propagation(
    policy: Option<&str>,
    orphan_dependents: Option<bool>,
) -> Result<Option<Propagation>, ApiError> {
    let refuse = |error| {
        Err(ApiError::invalid(
            "meta.k8s.io",
            "DeleteOptions",
            "",
            &[error],
        ))
    };
    let given = policy;
    let policy = match policy {
        None | Some("") => None,
        Some("Background") => Some(Propagation::Background),
        Some("Foreground") => Some(Propagation::Foreground),
        Some("Orphan") => Some(Propagation::Orphan),
        Some(other) => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            return refuse(FieldError::not_supported(
                "propagationPolicy",
                &json!(other),
                supported,
            ));
        }
    };
    match (policy, orphan_dependents) {
        (Some(_), Some(_)) => {
            let given = given.unwrap_or("");
            let why = "orphanDependents and deletionPropagation cannot be both set";
            refuse(FieldError::invalid("propagationPolicy", &json!(given), why))
        }
        (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (None, Some(false)) => Ok(Some(Propagation::Background)),
        (policy, None) => Ok(policy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(Some(text))
    }

    #[test]
    fn the_manager_is_given_or_the_user_agents_product() {
        let mut headers = HeaderMap::new();
        let manager =
            |text: &str, headers: &HeaderMap| manager("PatchOptions", &query(text), headers);
        assert_eq!(manager("", &headers).unwrap(), "unknown");
        headers.insert(USER_AGENT, "kubectl/v1.33.0 (linux/amd64)".parse().unwrap());
        assert_eq!(manager("", &headers).unwrap(), "kubectl");
        assert_eq!(manager("fieldManager=me", &headers).unwrap(), "me");
        assert!(manager("fieldManager=a%0Ab", &headers).is_err());
        assert!(manager(&format!("fieldManager={}", "x".repeat(129)), &headers).is_err());
    }

    #[test]
    fn delete_options_come_from_the_body_or_the_query() {
        let parse = |q: &str, body: &'static str| {
            delete_options(
                &query(q),
                &HeaderMap::new(),
                &Bytes::from_static(body.as_bytes()),
            )
        };
        let options = parse(
            "",
            r#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,
            "propagationPolicy":"Foreground","preconditions":{"uid":"u"},"dryRun":["All"]}"#,
        )
        .unwrap();
        assert_eq!(options.propagation, Some(Propagation::Foreground));
        assert_eq!((options.grace, options.dry_run), (Some(0), true));
        assert_eq!(options.preconditions.uid.as_deref(), Some("u"));
        let options = parse("gracePeriodSeconds=5&propagationPolicy=Orphan", "").unwrap();
        assert_eq!(
            (options.grace, options.propagation),
            (Some(5), Some(Propagation::Orphan))
        );
        let orphan = parse("orphanDependents=true", "").unwrap();
        assert_eq!(orphan.propagation, Some(Propagation::Orphan));
        assert_eq!(
            parse("propagationPolicy=Never", "").unwrap_err().code(),
            422
        );
        assert_eq!(
            parse("orphanDependents=true&propagationPolicy=Orphan", "")
                .unwrap_err()
                .code(),
            422
        );
        assert_eq!(parse("dryRun=Some", "").unwrap_err().code(), 422);
        assert_eq!(parse("", "[]").unwrap_err().code(), 400);
    }
}
