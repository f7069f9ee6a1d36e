//! Service account tokens for projected volumes: requested from the API server, renewed in time.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest as ApiRequest, TokenRequestSpec,
};
use k8s_openapi::api::core::v1::{Pod, PodSpec, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};

use super::projected::{Projection, Source, TokenRequest};

/// A token is renewed when this part of its life is left, or after a day.
const RENEW_AT: f64 = 0.8;
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// The tokens of one pod.
#[derive(Debug)]
pub(crate) struct Tokens {
    namespace: String,
    account: String,
    pod: BoundObjectReference,
    issued: BTreeMap<TokenRequest, String>,
    renewals: BTreeMap<TokenRequest, Timestamp>,
}

impl Tokens {
    /// No tokens yet.
    pub(crate) fn for_pod(pod: &Pod, spec: &PodSpec) -> Self {
        let account = spec
            .service_account_name
            .as_deref()
            .filter(|name| !name.is_empty());
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            account: account.unwrap_or("default").to_owned(),
            pod: BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            },
            issued: BTreeMap::new(),
            renewals: BTreeMap::new(),
        }
    }

    /// The service account they are for.
    pub(crate) fn account(&self) -> &str {
        &self.account
    }

    /// The tokens by what was asked for.
    pub(crate) fn issued(&self) -> &BTreeMap<TokenRequest, String> {
        &self.issued
    }

    /// The earliest time at which one must be renewed.
    pub(crate) fn renewal(&self) -> Option<Timestamp> {
        self.renewals.values().min().copied()
    }

    /// Requests what `projection` needs and does not have, or has only for a short time more.
    pub(crate) async fn ensure(
        &mut self,
        client: &Client,
        projection: &Projection,
        now: Timestamp,
    ) -> kube::Result<()> {
        for source in &projection.sources {
            let Source::Token { request, .. } = source else {
                continue;
            };
            if self.renewals.get(request).is_some_and(|due| now < *due) {
                continue;
            }
            let response = self.request(client, request).await?;
            // An answer without a token leaves the volume waiting, which says so.
            let Some(status) = response.status else {
                continue;
            };
            let expires = status.expiration_timestamp.map_or(now, |time| time.0);
            self.issued
                .insert(request.clone(), status.token.unwrap_or_default());
            self.renewals.insert(request.clone(), renewal(now, expires));
        }
        Ok(())
    }

    async fn request(&self, client: &Client, request: &TokenRequest) -> kube::Result<ApiRequest> {
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &self.namespace);
        let body = ApiRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(request.audience.iter().cloned().collect()),
                bound_object_ref: Some(self.pod.clone()),
                expiration_seconds: Some(request.expiration_seconds),
            }),
            ..ApiRequest::default()
        };
        api.create_subresource("token", &self.account, &PostParams::default(), &body)
            .await
    }
}

/// When a token issued at `now` is renewed.
fn renewal(now: Timestamp, expires: Timestamp) -> Timestamp {
    let life = expires.duration_since(now);
    let wait = SignedDuration::try_from_secs_f64(life.as_secs_f64() * RENEW_AT);
    let wait = wait.unwrap_or(LONGEST).min(LONGEST);
    now.saturating_add(wait).unwrap_or(expires)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_comes_before_the_end_and_within_a_day() {
        let now = Timestamp::UNIX_EPOCH;
        let after = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(renewal(now, after(3600)), after(2880));
        assert_eq!(renewal(now, after(1_000_000)), after(86_400));
    }
}
