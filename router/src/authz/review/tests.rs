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
    assert_eq!(cache.len(), 2);
}
