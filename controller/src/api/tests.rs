//! What holds calls back, and what does not.

use std::convert::Infallible;
use std::sync::atomic::AtomicUsize;

use agent_sandbox_service::clock::Clock;
use prometheus::Registry;
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::config::LeaderElection;
use crate::lease::{Lease, Standing};
use crate::metrics::Metrics;

/// A server that says yes to everything, and how often it was asked.
fn server() -> (Client, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        count.fetch_add(1, Ordering::SeqCst);
        let code = if request.method() == Method::GET {
            404
        } else {
            200
        };
        let body = http_body_util::Full::new(Bytes::from("{}"));
        async move { Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap()) }
    });
    (Client::new(service, "n"), calls)
}

fn limited(client: &Client, fence: &Fence) -> Api {
    let settings = Settings {
        fence: fence.clone(),
        limit: RateLimit::new(0.1, 1),
        metrics: Metrics::register(&Registry::new()).unwrap().api.clone(),
        host: "test".to_owned(),
        timeout: Duration::from_secs(30),
    };
    Api::new(vec![client.clone()], client.clone(), settings)
}

async fn patch(api: &Api) -> Result<Value> {
    let key = Key::new("n", "a");
    api.patch(&SANDBOXES, &key, Part::Object, &json!({})).await
}

#[tokio::test(start_paused = true)]
async fn a_write_that_waited_beyond_the_lease_is_not_sent() {
    let (client, calls) = server();
    let fence = Fence::closed();
    let api = limited(&client, &fence);
    fence.open_until(Instant::now() + Duration::from_secs(5));
    patch(&api).await.unwrap();
    // The next one has its turn in ten seconds, when the lease is over.
    let late = patch(&api).await;
    assert!(matches!(late, Err(ApiError::NotLeader)), "{late:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn the_lease_does_not_wait_behind_the_workers() {
    let (client, calls) = server();
    let fence = Fence::closed();
    let api = limited(&client, &fence);
    let settings = LeaderElection::new("n", "a");
    let mut lease = Lease::new(&api, settings, fence, Clock::system());
    let waiting = futures::future::join_all((0..20).map(|_| patch(&api)));
    let begun = Instant::now();
    let mut waiting = std::pin::pin!(waiting);
    assert!(futures::poll!(&mut waiting).is_pending());
    for _ in 0..3 {
        assert_eq!(lease.try_once().await.unwrap(), Standing::Leader);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(calls.load(Ordering::SeqCst) >= 6);
}
