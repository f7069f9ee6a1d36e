//! Callers judged by the cluster: who a token belongs to (`TokenReview`), and whether its owner may
//! reach a sandbox (`SubjectAccessReview` for verb `connect` on `sandboxes/proxy`).
//!
//! Answers are kept for a short while under a hash of the question, so a busy client costs the API
//! server a call per interval. Callers that ask the same at the same time share one call, and a caller
//! that goes away in the middle neither fails the others nor leaves a wrong answer behind.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_crds::CORE_GROUP;
use http::HeaderMap;
use indexmap::IndexMap;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use super::{Subject, bearer};
use crate::error::Error;

/// How long one question to the API server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Questions to the API server at once about tokens that it is not known to know, and as many about others.
const AT_ONCE: usize = 8;
/// How long a question may wait for its turn.
const TURN: Duration = Duration::from_secs(1);
/// The least time a failure is remembered, so that an API server in trouble is left alone.
const MIN_FAILURE: Duration = Duration::from_secs(1);

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

/// A question, without the secret in it.
type Question = [u8; 32];

/// Each part is hashed with its length, so that no two questions look the same.
fn hash(parts: &[&str]) -> Question {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// An answer.
trait Verdict: Clone {
    /// Whether it speaks for the caller.
    fn is_good(&self) -> bool;
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

/// Answers for a while, and one caller at a time per question.
struct Cache<T> {
    ttl: Duration,
    size: usize,
    slots: Mutex<IndexMap<Question, Slot<T>>>,
}

struct Slot<T> {
    answer: Arc<OnceCell<Result<T, Failure>>>,
    until: Instant,
    /// Whether the answer before was a good one.
    was_good: bool,
}

impl<T: Verdict> Slot<T> {
    /// Whether the last word about the caller was a good one.
    fn is_good(&self) -> bool {
        match self.answer.get() {
            Some(Ok(verdict)) => verdict.is_good(),
            Some(Err(_)) | None => self.was_good,
        }
    }

    /// Until when it is worth its place.
    fn counts_until(&self, ttl: Duration) -> Instant {
        // Who was known is likely to come again, and asks before strangers then.
        if self.is_good() {
            self.until + ttl
        } else {
            self.until
        }
    }
}

impl<T: Verdict> Cache<T> {
    fn new(ttl: Duration, size: usize) -> Self {
        Self {
            ttl,
            size,
            slots: Mutex::default(),
        }
    }

    /// `ask` is told whether the answer before, which is kept no longer, was a good one.
    async fn get<F>(&self, question: Question, ask: impl FnOnce(bool) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let (answer, before) = self.slot(question);
        // If the one who asks goes away, the next in line asks again.
        let asked = || async {
            let outcome = ask(before).await;
            match outcome {
                Ok(_) => {}
                Err(Failure::Failed) => self.shorten(&question, &answer),
                Err(Failure::Busy) => self.forget(&question, &answer),
            }
            outcome
        };
        answer.get_or_init(asked).await.clone()
    }

    fn slot(&self, question: Question) -> (Arc<OnceCell<Result<T, Failure>>>, bool) {
        let now = Instant::now();
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(&question)
            && now < slot.until
        {
            return (slot.answer.clone(), slot.was_good);
        }
        let before = slots.shift_remove(&question);
        let was_good = before.is_some_and(|slot| slot.is_good());
        if slots.len() >= self.size {
            slots.retain(|_, slot| now < slot.counts_until(self.ttl));
        }
        if slots.len() >= self.size {
            // Made-up tokens do not push out the answers that matter.
            let least = slots.values().position(|slot| !slot.is_good());
            slots.shift_remove_index(least.unwrap_or(0));
        }
        let answer = Arc::new(OnceCell::new());
        slots.insert(
            question,
            Slot {
                answer: answer.clone(),
                until: now + self.ttl,
                was_good,
            },
        );
        (answer, was_good)
    }

    /// A failure is remembered for a shorter time than an answer.
    fn shorten(&self, question: &Question, answer: &Arc<OnceCell<Result<T, Failure>>>) {
        let until = Instant::now() + (self.ttl / 3).max(MIN_FAILURE);
        if let Some(slot) = self.slots.lock().get_mut(question)
            && Arc::ptr_eq(&slot.answer, answer)
        {
            slot.until = until;
        }
    }

    /// Nobody was asked, so the next in line is asked about anew.
    fn forget(&self, question: &Question, answer: &Arc<OnceCell<Result<T, Failure>>>) {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get_mut(question)
            && Arc::ptr_eq(&slot.answer, answer)
        {
            if slot.was_good {
                slot.until = Instant::now();
            } else {
                slots.shift_remove(question);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::StreamExt;
    use futures::stream::FuturesUnordered;
    use http::header::AUTHORIZATION;
    use http::{HeaderValue, Request, Response, StatusCode};
    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    const BOX: Subject<'_> = Subject {
        namespace: "ns",
        name: "box",
    };

    impl Verdict for u8 {
        fn is_good(&self) -> bool {
            true
        }
    }

    /// An API server that answers reviews from a script and counts them.
    fn cluster(
        calls: Arc<AtomicUsize>,
        answer: impl Fn(&str, &Value) -> (u16, Value) + Clone + Send + Sync + 'static,
    ) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let (calls, answer) = (calls.clone(), answer.clone());
            async move {
                calls.fetch_add(1, Ordering::SeqCst);
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let (status, value) = answer(&path, &serde_json::from_slice(&body).unwrap());
                let response = Response::builder()
                    .status(StatusCode::from_u16(status).unwrap())
                    .body(Body::from(value.to_string().into_bytes()))
                    .unwrap();
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        Client::new(service, "default")
    }

    fn settings() -> ReviewSettings {
        ReviewSettings {
            audiences: Vec::new(),
            require_token: true,
            access: false,
            ttl: Duration::from_secs(30),
            cache_size: 2,
        }
    }

    fn authenticated(_: &str, review: &Value) -> (u16, Value) {
        let good = review["spec"]["token"]
            .as_str()
            .unwrap_or("good")
            .starts_with("good");
        let status = json!({"authenticated": good, "user": {"username": "ann"}});
        (201, json!({"metadata": {}, "spec": {}, "status": status}))
    }

    fn bearing(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        headers.insert(AUTHORIZATION, value);
        headers
    }

    #[tokio::test]
    async fn answers_are_kept_by_token_and_given_to_all_who_ask_at_once() {
        let calls = Arc::new(AtomicUsize::new(0));
        let reviews = Reviews::new(cluster(calls.clone(), authenticated), settings());
        let (good, bad) = (bearing("good"), bearing("bad"));
        let (first, second) =
            tokio::join!(reviews.authorize(&good, BOX), reviews.authorize(&good, BOX));
        assert_eq!((first, second), (Ok(()), Ok(())));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        let refused = Err(Error::Unauthenticated("unauthenticated"));
        for _ in 0..2 {
            assert_eq!(reviews.authorize(&bad, BOX).await, refused);
        }
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        assert_eq!(reviews.authorize(&HeaderMap::new(), BOX).await, refused);
        assert_eq!(calls.load(Ordering::SeqCst), 2, "no call without a token");
    }

    #[tokio::test]
    async fn tokenless_requests_pass_only_where_that_was_asked_for() {
        let calls = Arc::new(AtomicUsize::new(0));
        let open = ReviewSettings {
            require_token: false,
            ..settings()
        };
        let reviews = Reviews::new(cluster(calls.clone(), authenticated), open.clone());
        assert_eq!(reviews.authorize(&HeaderMap::new(), BOX).await, Ok(()));
        let strict = ReviewSettings {
            access: true,
            ..open
        };
        let reviews = Reviews::new(cluster(calls, authenticated), strict);
        assert!(reviews.authorize(&HeaderMap::new(), BOX).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_nobodys_verdict_and_soon_forgotten() {
        let calls = Arc::new(AtomicUsize::new(0));
        let broken = |_: &str, _: &Value| (500, json!({"message": "secret detail"}));
        let reviews = Reviews::new(cluster(calls.clone(), broken), settings());
        let good = bearing("good");
        let verdict = reviews.authorize(&good, BOX).await.unwrap_err();
        assert_eq!(verdict, Error::Authorizer);
        assert!(!verdict.to_string().contains("secret"));
        let before = calls.load(Ordering::SeqCst);
        assert!(reviews.authorize(&good, BOX).await.is_err());
        assert_eq!(calls.load(Ordering::SeqCst), before, "kept for a while");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(reviews.authorize(&good, BOX).await.is_err());
        assert!(calls.load(Ordering::SeqCst) > before, "and asked again");
    }

    #[tokio::test]
    async fn a_token_must_be_meant_for_the_audience() {
        for (confirmed, allowed) in [
            (json!(["router"]), true),
            (json!(["other"]), false),
            (json!(null), false),
        ] {
            let answer = move |_: &str, review: &Value| {
                assert_eq!(review["spec"]["audiences"], json!(["router"]));
                let status = json!({"authenticated": true, "audiences": confirmed});
                (201, json!({"metadata": {}, "spec": {}, "status": status}))
            };
            let settings = ReviewSettings {
                audiences: vec!["router".to_owned()],
                ..settings()
            };
            let reviews = Reviews::new(cluster(Arc::default(), answer), settings);
            assert_eq!(reviews.authorize(&bearing("x"), BOX).await.is_ok(), allowed);
        }
    }

    #[tokio::test]
    async fn access_is_reviewed_per_sandbox() {
        let calls = Arc::new(AtomicUsize::new(0));
        let answer = |path: &str, review: &Value| {
            if path.ends_with("/tokenreviews") {
                return authenticated(path, review);
            }
            assert_eq!(path, "/apis/authorization.k8s.io/v1/subjectaccessreviews");
            let spec = &review["spec"];
            assert_eq!(spec["user"], "ann");
            let attributes = &spec["resourceAttributes"];
            assert_eq!(attributes["resource"], "sandboxes");
            assert_eq!(attributes["subresource"], "proxy");
            assert_eq!(attributes["verb"], "connect");
            assert_eq!(attributes["group"], "agents.x-k8s.io");
            assert_eq!(attributes["namespace"], "ns");
            let allowed = attributes["name"] == "box";
            (
                201,
                json!({"metadata": {}, "spec": {}, "status": {"allowed": allowed}}),
            )
        };
        let settings = ReviewSettings {
            access: true,
            ..settings()
        };
        let reviews = Reviews::new(cluster(calls.clone(), answer), settings);
        let good = bearing("good");
        assert_eq!(reviews.authorize(&good, BOX).await, Ok(()));
        assert_eq!(reviews.authorize(&good, BOX).await, Ok(()));
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        let other = Subject {
            name: "other",
            ..BOX
        };
        assert_eq!(reviews.authorize(&good, other).await, Err(Error::Forbidden));
        assert_eq!(
            calls.load(Ordering::SeqCst),
            3,
            "the caller is known already"
        );
    }

    /// An API server that knows every token, and answers as many questions as there are permits.
    fn slow(calls: Arc<AtomicUsize>, answers: Arc<Semaphore>) -> Client {
        let service = tower::service_fn(move |_: Request<Body>| {
            let (calls, answers) = (calls.clone(), answers.clone());
            async move {
                calls.fetch_add(1, Ordering::SeqCst);
                answers.acquire().await.unwrap().forget();
                let (status, value) = authenticated("", &json!({"spec": {"token": "good"}}));
                let response = Response::builder()
                    .status(status)
                    .body(Body::from(value.to_string().into_bytes()))
                    .unwrap();
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        Client::new(service, "default")
    }

    /// So many calls have been made. The clock, which is paused, stays where it is.
    async fn made(calls: &AtomicUsize, number: usize) {
        for _ in 0..100_000 {
            if calls.load(Ordering::SeqCst) >= number {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("only {} of {number} calls", calls.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_with_ever_new_tokens_do_not_turn_on_the_api_server() {
        let (calls, answers) = (Arc::<AtomicUsize>::default(), Arc::new(Semaphore::new(0)));
        let reviews = Reviews::new(slow(calls.clone(), answers.clone()), settings());
        let tokens: Vec<_> = (0..3 * AT_ONCE).map(|n| bearing(&n.to_string())).collect();
        let mut verdicts: FuturesUnordered<_> = tokens
            .iter()
            .map(|token| reviews.authorize(token, BOX))
            .collect();
        // Whoever gets no turn is told to come back, and no call was made for it.
        for _ in AT_ONCE..tokens.len() {
            let verdict = verdicts.next().await.unwrap();
            assert!(matches!(verdict, Err(Error::Overloaded(_))), "{verdict:?}");
        }
        assert_eq!(calls.load(Ordering::SeqCst), AT_ONCE);
        answers.add_permits(AT_ONCE + 1);
        while let Some(verdict) = verdicts.next().await {
            assert_eq!(verdict, Ok(()));
        }
        // Nothing was remembered against them.
        let late = tokens.last().unwrap();
        assert_eq!(reviews.authorize(late, BOX).await, Ok(()));
        assert_eq!(calls.load(Ordering::SeqCst), AT_ONCE + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_known_before_does_not_queue_behind_strangers() {
        let (calls, answers) = (Arc::<AtomicUsize>::default(), Arc::new(Semaphore::new(1)));
        let cache_size = 2 * AT_ONCE;
        let settings = ReviewSettings {
            cache_size,
            ..settings()
        };
        let ttl = settings.ttl;
        let reviews = Reviews::new(slow(calls.clone(), answers.clone()), settings);
        let known = bearing("known");
        assert_eq!(reviews.authorize(&known, BOX).await, Ok(()));
        tokio::time::advance(ttl).await;
        // More strangers than there are turns, and than there are places for answers.
        let tokens: Vec<_> = (0..2 * cache_size)
            .map(|n| bearing(&n.to_string()))
            .collect();
        let mut strangers: FuturesUnordered<_> = tokens
            .iter()
            .map(|token| reviews.authorize(token, BOX))
            .collect();
        tokio::select! {
            verdict = strangers.next() => panic!("nobody was asked and yet {verdict:?}"),
            () = made(&calls, 1 + AT_ONCE) => {}
        }
        let mut again = std::pin::pin!(reviews.authorize(&known, BOX));
        tokio::select! {
            verdict = again.as_mut() => panic!("nobody was asked and yet {verdict:?}"),
            () = made(&calls, 2 + AT_ONCE) => {}
        }
        answers.add_permits(tokens.len());
        assert_eq!(again.await, Ok(()));
    }

    #[tokio::test]
    async fn a_caller_that_leaves_does_not_answer_for_others() {
        let cache: Cache<u8> = Cache::new(Duration::from_secs(30), 2);
        let question = hash(&["q"]);
        let leaving = cache.get(question, |_| std::future::pending());
        assert!(
            tokio::time::timeout(Duration::ZERO, leaving).await.is_err(),
            "it left in the middle"
        );
        let answer = cache.get(question, |_| std::future::ready(Ok(7))).await;
        assert_eq!(answer, Ok(7));
    }

    #[tokio::test]
    async fn the_cache_is_bounded() {
        let cache: Cache<u8> = Cache::new(Duration::from_secs(30), 2);
        for n in 0..10_u8 {
            let question = hash(&[&n.to_string()]);
            assert_eq!(
                cache.get(question, |_| std::future::ready(Ok(n))).await,
                Ok(n)
            );
        }
        assert_eq!(cache.slots.lock().len(), 2);
    }
}
