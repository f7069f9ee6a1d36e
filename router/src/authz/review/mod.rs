//! Callers judged by the cluster: who a token belongs to (`TokenReview`), and whether its owner may
//! reach a sandbox (`SubjectAccessReview` for verb `connect` on `sandboxes/proxy`).
//!
//! Answers are kept for a short while under a hash of the question, so a busy client costs the API
//! server a call per interval. Callers that ask the same at the same time share one call, and a caller
//! that goes away in the middle neither fails the others nor leaves a wrong answer behind. Only so many
//! calls are made at once, so that strangers with ever new tokens do not turn on the API server; callers that
//! were identified before have turns of their own, and keep their answers longest.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_crds::CORE_GROUP;
use http::HeaderMap;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Semaphore;

use self::cache::{Cache, Verdict, hash};
use super::{Subject, bearer};
use crate::error::Error;

mod cache;
#[cfg(test)]
mod tests;

/// How long one question to the API server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Questions to the API server at once that strangers cause, and as many that callers cause who were identified
/// before.
const AT_ONCE: usize = 8;
/// How long a question may wait for its turn.
const TURN: Duration = Duration::from_secs(1);

const RESOURCE: &str = "sandboxes";
const SUBRESOURCE: &str = "proxy";
const VERB: &str = "connect";

/// How callers are reviewed.
#[derive(Clone, Debug)]
pub struct ReviewSettings {
    /// Audiences a token must be meant for; empty for the API server's own.
    pub audiences: Vec<String>,
    /// Whether requests without a token are refused.
    pub require_token: bool,
    /// Whether the caller must be allowed to reach the sandbox, beyond being known.
    pub access: bool,
    /// How long an answer is kept.
    pub ttl: Duration,
    /// How many answers are kept.
    pub cache_size: usize,
}

/// Asks the cluster.
pub struct Reviews {
    client: Client,
    /// Turns of strangers.
    strangers: Semaphore,
    /// Turns of callers that were identified before.
    known: Semaphore,
    settings: ReviewSettings,
    callers: Cache<Option<Arc<UserInfo>>>,
    access: Cache<bool>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Failure {
    /// The API server could not be asked, or did not answer the question.
    Failed,
    /// Too many others are being asked about.
    Busy,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Failed => Self::Authorizer,
            Failure::Busy => Self::Overloaded("Too many callers are being identified; try again."),
        }
    }
}

impl Reviews {
    /// Reviews through this client.
    pub fn new(client: Client, settings: ReviewSettings) -> Self {
        Self {
            client,
            strangers: Semaphore::new(AT_ONCE),
            known: Semaphore::new(AT_ONCE),
            callers: Cache::new(settings.ttl, settings.cache_size),
            access: Cache::new(settings.ttl, settings.cache_size),
            settings,
        }
    }

    pub(super) fn judge_sandboxes(&self) -> bool {
        self.settings.access
    }

    pub(super) async fn authorize(
        &self,
        headers: &HeaderMap,
        subject: Subject<'_>,
    ) -> Result<(), Error> {
        let unauthenticated = Error::Unauthenticated("unauthenticated");
        let Some(token) = bearer(headers) else {
            return if self.settings.require_token || self.settings.access {
                Err(unauthenticated)
            } else {
                Ok(())
            };
        };
        let caller = self
            .callers
            .get(hash(&[token]), |before| {
                let turns = if before { &self.known } else { &self.strangers };
                self.review_token(token, turns)
            })
            .await?
            .ok_or(unauthenticated)?;
        if !self.settings.access {
            return Ok(());
        }
        let allowed = self
            .access
            .get(hash(&[token, subject.namespace, subject.name]), |_| {
                self.review_access(&caller, subject)
            })
            .await?;
        if allowed {
            Ok(())
        } else {
            Err(Error::Forbidden)
        }
    }

    async fn review_token(
        &self,
        token: &str,
        turns: &Semaphore,
    ) -> Result<Option<Arc<UserInfo>>, Failure> {
        let audiences = &self.settings.audiences;
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: (!audiences.is_empty()).then(|| audiences.clone()),
            },
            ..TokenReview::default()
        };
        let reviewed = self.create("TokenReview", &review, turns).await?;
        let status = reviewed.status.ok_or(Failure::Failed)?;
        if status.authenticated != Some(true) {
            return Ok(None);
        }
        // A server that does not know audiences says nothing of them, which is no confirmation.
        let confirmed = status.audiences.unwrap_or_default();
        if !audiences.is_empty()
            && !audiences
                .iter()
                .any(|audience| confirmed.contains(audience))
        {
            return Ok(None);
        }
        let user = status.user.unwrap_or_default();
        tracing::debug!(user = user.username, "caller identified");
        Ok(Some(Arc::new(user)))
    }

    async fn review_access(
        &self,
        caller: &UserInfo,
        subject: Subject<'_>,
    ) -> Result<bool, Failure> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: caller.username.clone(),
                uid: caller.uid.clone(),
                groups: caller.groups.clone(),
                extra: caller
                    .extra
                    .as_ref()
                    .map(|extra| extra.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
                    .filter(|extra: &BTreeMap<_, _>| !extra.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    group: Some(CORE_GROUP.to_owned()),
                    resource: Some(RESOURCE.to_owned()),
                    subresource: Some(SUBRESOURCE.to_owned()),
                    verb: Some(VERB.to_owned()),
                    namespace: Some(subject.namespace.to_owned()),
                    name: Some(subject.name.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviewed = self
            .create("SubjectAccessReview", &review, &self.known)
            .await?;
        let status = reviewed.status.ok_or(Failure::Failed)?;
        Ok(status.allowed && status.denied != Some(true))
    }

    async fn create<K>(
        &self,
        what: &'static str,
        review: &K,
        turns: &Semaphore,
    ) -> Result<K, Failure>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
            + serde::Serialize
            + serde::de::DeserializeOwned
            + Clone
            + fmt::Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let params = PostParams::default();
        let turn = tokio::time::timeout(TURN, turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            tracing::debug!(
                what,
                at_once = AT_ONCE,
                "a review found no place in the queue"
            );
            return Err(Failure::Busy);
        };
        match tokio::time::timeout(CALL_TIMEOUT, api.create(&params, review)).await {
            Ok(Ok(reviewed)) => Ok(reviewed),
            Ok(Err(error)) => {
                tracing::error!(what, %error, "the API server did not answer a review");
                Err(Failure::Failed)
            }
            Err(_) => {
                tracing::error!(what, timeout = ?CALL_TIMEOUT, "a review took too long");
                Err(Failure::Failed)
            }
        }
    }
}

impl fmt::Debug for Reviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviews")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Verdict for Option<Arc<UserInfo>> {
    fn is_good(&self) -> bool {
        self.is_some()
    }
}

impl Verdict for bool {
    fn is_good(&self) -> bool {
        *self
    }
}
