//! Options of lists and watches, the filter they share, and continue tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::request::Query;
use crate::ops::{Encoder, Target};
use crate::schema::{FieldError, FieldReason};
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::ApiError;
use crate::store::{Key, Object, Revision};

/// How `resourceVersion` is to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    /// At that version or later.
    NotOlderThan,
    /// At exactly that version.
    Exact,
}

/// Parsed list options.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Most objects per page.
    pub limit: Option<usize>,
    /// Where a page starts.
    pub token: Option<Token>,
    /// `resourceVersion`; `None` when unset.
    pub revision: Option<Revision>,
    /// `resourceVersionMatch`
    pub version_match: Option<VersionMatch>,
    /// `sendInitialEvents`
    pub initial_events: Option<bool>,
    /// `allowWatchBookmarks`
    pub bookmarks: bool,
    /// `timeoutSeconds`
    pub timeout: Option<u64>,
}

impl ListOptions {
    /// Parses and checks the query of a list or watch.
    pub fn parse(query: &Query, watch: bool) -> Result<Self, ApiError> {
        let revision = match query.get("resourceVersion") {
            None => None,
            Some(text) => Some(text.parse().map_err(|error| {
                let message = format!("resourceVersion: {error}");
                if watch {
                    ApiError::untyped(message)
                } else {
                    ApiError::bad_request(format!("invalid resource version: {message}"))
                }
            })?),
        };
        let version_match = match query.get("resourceVersionMatch") {
            None => None,
            Some("Exact") => Some(VersionMatch::Exact),
            Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
            Some(other) => {
                let supported = ["Exact", "NotOlderThan", ""];
                let path = "resourceVersionMatch";
                return Err(refuse(FieldError::not_supported(
                    path,
                    &json!(other),
                    supported,
                )));
            }
        };
        let options = Self {
            limit: number(query, "limit")?.and_then(|n| usize::try_from(n).ok()),
            token: query.get("continue").map(Token::parse).transpose()?,
            revision,
            version_match,
            initial_events: query.optional_flag("sendInitialEvents"),
            bookmarks: query.flag("allowWatchBookmarks"),
            timeout: number(query, "timeoutSeconds")?,
        };
        options.check(watch)?;
        Ok(options)
    }

    fn check(&self, watch: bool) -> Result<(), ApiError> {
        let forbid = |path: &str, why: &str| Err(refuse(FieldError::forbidden(path, why)));
        let field = "resourceVersionMatch";
        if self.initial_events.is_some() {
            if !watch {
                return forbid(
                    "sendInitialEvents",
                    "sendInitialEvents is forbidden for list",
                );
            }
            if self.version_match != Some(VersionMatch::NotOlderThan) {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                return forbid(field, why);
            }
        }
        match self.version_match {
            Some(_) if watch && self.initial_events.is_none() => forbid(
                field,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
            Some(_) if !watch && self.token.is_some() => forbid(
                field,
                "resourceVersionMatch is forbidden when continue is provided",
            ),
            Some(_) if !watch && self.revision.is_none() => forbid(
                field,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            Some(VersionMatch::Exact) if !watch && self.revision == Some(Revision::ZERO) => forbid(
                field,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            None | Some(_) => Ok(()),
        }
    }

    /// The revision a list is pinned to, and the least one it must have reached.
    pub fn snapshot(&self) -> Result<(Option<Revision>, Option<Revision>), ApiError> {
        let given = self.revision.filter(|revision| *revision != Revision::ZERO);
        if let Some(token) = &self.token {
            if given.is_some() {
                return Err(ApiError::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            return Ok((token.revision, None));
        }
        // Published table of semantics: with a limit, an unqualified version means exactly it.
        let exact = self.version_match == Some(VersionMatch::Exact)
            || self.version_match.is_none() && self.limit.is_some();
        Ok(if exact { (given, None) } else { (None, given) })
    }
}

/// Where the next page starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The snapshot of the first page; `None` goes on from the present.
    pub revision: Option<Revision>,
    /// The last key of the previous page.
    pub after: Key,
}

/// The token's text form before encoding.
#[derive(Serialize, Deserialize)]
struct TokenText {
    v: String,
    rv: i64,
    namespace: String,
    name: String,
}

impl Token {
    /// The opaque text.
    pub fn encode(&self) -> String {
        let revision = self
            .revision
            .map_or(-1, |r| i64::try_from(r.get()).unwrap_or(-1));
        let text = TokenText {
            v: "meta.k8s.io/v1".to_owned(),
            rv: revision,
            namespace: self.after.namespace.as_ref().to_owned(),
            name: self.after.name.as_ref().to_owned(),
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&text).unwrap_or_default())
    }

    fn parse(text: &str) -> Result<Self, ApiError> {
        let refuse = || ApiError::bad_request("invalid continue token: continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refuse())?;
        let text: TokenText = serde_json::from_slice(&bytes).map_err(|_| refuse())?;
        Ok(Self {
            revision: u64::try_from(text.rv).ok().map(Revision::new),
            after: Key::new(&text.namespace, &text.name),
        })
    }
}

/// Label and field selectors of a request, ready to be asked about stored objects.
#[derive(Debug, Clone)]
pub struct Filter {
    labels: LabelSelector,
    fields: FieldSelector,
    /// Set when the fields of the request's form are not those of the stored form.
    view: Option<Encoder>,
}

impl Filter {
    /// Parses the selectors of a query.
    pub fn parse(query: &Query, target: &Target) -> Result<Self, ApiError> {
        let refuse =
            |error: crate::selector::SelectorError| ApiError::bad_request(error.to_string());
        let labels =
            LabelSelector::parse(query.get("labelSelector").unwrap_or("")).map_err(refuse)?;
        let text = query.get("fieldSelector").unwrap_or("");
        let fields =
            FieldSelector::parse(text, &target.descriptor, &target.version).map_err(refuse)?;
        let view = (target.descriptor.stored_as.is_some() && !fields.is_empty())
            .then(|| Encoder::of(target));
        Ok(Self {
            labels,
            fields,
            view,
        })
    }

    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The name that objects must have, if the selector fixes it.
    pub fn name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    /// Whether an object passes.
    pub fn accepts(&self, object: &Object) -> bool {
        if !self.labels.matches(|key| object.labels().get(key)) {
            return false;
        }
        if self.fields.is_empty() {
            return true;
        }
        match &self.view {
            None => self.fields.matches(|field| match field {
                "metadata.name" => object.name(),
                "metadata.namespace" => object.namespace(),
                other => object.fields().get(other),
            }),
            Some(encoder) => {
                let value = encoder.value(object);
                let fields = encoder.view_fields(&value);
                self.fields.matches(|field| match field {
                    "metadata.name" => object.name(),
                    "metadata.namespace" => object.namespace(),
                    other => fields.get(other),
                })
            }
        }
    }
}

/// A number of the query; none when it is not positive, as clients write "no limit".
fn number(query: &Query, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(text) = query.get(name) else {
        return Ok(None);
    };
    let number: i64 = text.parse().map_err(|_| {
        ApiError::bad_request(format!("{name}: expected an integer, not \"{text}\""))
    })?;
    Ok(u64::try_from(number).ok().filter(|number| *number > 0))
}

fn refuse(error: FieldError) -> ApiError {
    debug_assert!(matches!(
        error.reason,
        FieldReason::Forbidden | FieldReason::NotSupported
    ));
    ApiError::invalid("meta.k8s.io", "ListOptions", "", &[error])
}

/// The metadata of a list.
pub(super) fn list_metadata(
    revision: Revision,
    token: Option<&Token>,
    remaining: Option<usize>,
) -> Value {
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    if let (Value::Object(metadata), Some(token)) = (&mut metadata, token) {
        metadata.insert("continue".to_owned(), token.encode().into());
        if let Some(remaining) = remaining {
            metadata.insert("remainingItemCount".to_owned(), remaining.into());
        }
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str, watch: bool) -> Result<ListOptions, ApiError> {
        ListOptions::parse(&Query::parse(Some(query)), watch)
    }

    #[test]
    fn resource_versions_mean_what_is_published() {
        let at = |query: &str| options(query, false).unwrap().snapshot().unwrap();
        let five = Some(Revision::new(5));
        assert_eq!(at(""), (None, None));
        assert_eq!(at("resourceVersion=0"), (None, None));
        assert_eq!(at("resourceVersion=0&limit=3"), (None, None));
        assert_eq!(at("resourceVersion=5"), (None, five));
        assert_eq!(at("resourceVersion=5&limit=3"), (five, None));
        assert_eq!(
            at("resourceVersion=5&limit=3&resourceVersionMatch=NotOlderThan"),
            (None, five)
        );
        assert_eq!(
            at("resourceVersion=5&resourceVersionMatch=Exact"),
            (five, None)
        );
    }

    #[test]
    fn contradictory_options_are_refused() {
        let code = |query: &str, watch| options(query, watch).unwrap_err().code().as_u16();
        assert_eq!(code("resourceVersion=x", false), 400);
        assert_eq!(code("limit=many", false), 400);
        assert_eq!(code("continue=!!", false), 400);
        assert_eq!(code("resourceVersionMatch=Exact", false), 422);
        assert_eq!(
            code("resourceVersionMatch=Newest&resourceVersion=1", false),
            422
        );
        assert_eq!(
            code("resourceVersionMatch=Exact&resourceVersion=0", false),
            422
        );
        assert_eq!(code("sendInitialEvents=true", false), 422);
        assert_eq!(code("sendInitialEvents=true", true), 422);
        assert_eq!(code("resourceVersionMatch=NotOlderThan", true), 422);
        assert!(
            options(
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
                true
            )
            .is_ok()
        );
    }

    #[test]
    fn tokens_survive_their_text_form() {
        for revision in [None, Some(Revision::new(7))] {
            let token = Token {
                revision,
                after: Key::new("ns", "a.b"),
            };
            assert_eq!(Token::parse(&token.encode()).unwrap(), token);
        }
    }
}
