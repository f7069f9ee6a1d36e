//! The smallest possible run, with the bench's own sandbox and generator and the real router in this
//! process: whether everything is wired rightly, not how fast it is.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use agent_sandbox_router::authz::Authorizer;
use agent_sandbox_router::resolve::fixed::Fixed;
use agent_sandbox_router::{Config, Router};
use agent_sandbox_service::listen;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;

use super::args::{Leg, Plan};
use super::figures::Measure;
use super::legs::{latency, streaming, throughput, tunnels};
use super::peers::{Kind, NAMESPACE, Peer, Sandbox, Site};
use super::report::Report;
use super::stage::Stage;
use crate::bench::generator::Generator;
use crate::bench::installed::free_address;

const ROUNDS: usize = 2;

/// Few connections, little time, small streams.
fn plan() -> Plan {
    Plan {
        router: PathBuf::new(),
        python: None,
        go: None,
        json: None,
        legs: vec![Leg::Throughput],
        peers: vec![Kind::Direct, Kind::Router],
        rounds: ROUNDS,
        memory_rounds: 1,
        time: Duration::from_millis(20),
        warm_up: Duration::ZERO,
        connections: 8,
        stream: 1 << 20,
        messages: 10,
        patience: Duration::ZERO,
        look: Duration::from_millis(1),
    }
}

/// The router in this process; it has both sandboxes.
struct InProcess {
    address: SocketAddr,
    order: Shutdown,
    tasks: Tasks,
}

impl InProcess {
    fn start(site: &Site) -> Self {
        let sandboxes = [Sandbox::Fixed, Sandbox::Scripted]
            .into_iter()
            .fold(Fixed::new(), |all, sandbox| {
                all.sandbox(NAMESPACE, sandbox.name(), site.address(sandbox).ip())
            });
        let mut config = Config::new(Authorizer::AllowAll);
        config.access_log = false;
        let router = Router::builder(config)
            .resolver(sandboxes.into_table())
            .build()
            .unwrap();
        let listener = listen::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (order, tasks) = (Shutdown::new(), Tasks::new("router"));
        tasks.spawn("router", router.serve(listener, order.clone()));
        Self {
            address,
            order,
            tasks,
        }
    }

    async fn stop(self) {
        self.order.trigger();
        self.tasks.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn the_smallest_run_measures_everybody() {
    let mut report = Report::default();
    let stage = Stage::with(plan(), Generator::Own, false, &mut report)
        .await
        .unwrap();
    let router = InProcess::start(&stage.site);
    let cast = [
        Peer::here(Kind::Direct, None),
        Peer::here(Kind::Router, Some(router.address)),
    ];
    cast[1].check(&stage.site).await.unwrap();
    // Without a proxy nobody removes the credentials.
    assert!(cast[0].check(&stage.site).await.is_err());

    let mut gate = stage.gate();
    throughput::compare(&stage, &cast, &mut gate, &mut report)
        .await
        .unwrap();
    latency::compare(&stage, &cast, &mut gate, &mut report)
        .await
        .unwrap();
    streaming::compare(&stage, &cast, &mut gate, &mut report)
        .await
        .unwrap();
    tunnels::compare(&stage, &cast, &mut gate, &mut report)
        .await
        .unwrap();
    router.stop().await;

    let expected = [
        (Leg::Throughput, throughput::USUAL, throughput::PER_SECOND),
        (Leg::Latency, latency::LOADED, latency::QUANTITIES[0].0),
        (Leg::Streaming, streaming::DOWN, streaming::SPEED),
        (Leg::Streaming, streaming::UP, streaming::SPEED),
        (Leg::Tunnels, tunnels::BUSY, tunnels::ECHO),
    ];
    for (leg, setting, quantity) in expected {
        let measure = Measure {
            leg,
            setting,
            quantity,
        };
        let figure = report.figures.figure(measure).unwrap();
        for kind in [Kind::Direct, Kind::Router] {
            let rounds = &figure.rounds[&kind];
            assert_eq!(rounds.len(), ROUNDS, "{measure:?}");
            let all = rounds.iter().all(|round| round.is_some_and(|it| it > 0.0));
            assert!(all, "{measure:?} {kind:?}: {rounds:?}");
        }
    }
    let text = report.text().unwrap();
    assert!(text.contains("router to it"), "{text}");
}

#[tokio::test]
async fn a_wrong_answer_of_the_router_ends_the_run() {
    let mut report = Report::default();
    let stage = Stage::with(plan(), Generator::Own, false, &mut report)
        .await
        .unwrap();
    // Nobody listens there any more.
    let address = free_address().unwrap();
    let mut gate = stage.gate();
    for (kind, ends) in [(Kind::Router, true), (Kind::Nginx, false)] {
        let cast = [Peer::here(kind, Some(address))];
        let found = streaming::compare(&stage, &cast, &mut gate, &mut report).await;
        assert_eq!(found.is_err(), ends, "{kind:?}");
    }
    let text = report.text().unwrap();
    assert!(text.contains("void: nginx in Streaming"), "{text}");
}
