//! The lives of sandboxes: pods are killed, end, linger, move, cannot be reached and come back, and each
//! address is given to another sandbox as soon as the router has been told.
//!
//! What is promised, and therefore tried: once the API server's word of a pod's end has reached the
//! router, nothing reaches the pod any more, whoever has its address then. The word has arrived when
//! the router itself answers for the sandbox. An address that is given away before that is beyond what
//! a router can know, and does not happen here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::cluster::{Cluster, Kind};
use super::ledger::Ledger;
use super::named::{NAMESPACE, Named};
use crate::client::{Connection, Failure, Way, refused};
use crate::network;
use crate::programs::POLL;
use crate::sandbox::{Identity, PORT, Sandbox};

/// How long the router may take to learn what happened.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the router says of a sandbox without a pod.
const WITHOUT_POD: [&str; 3] = ["not-ready", "gone", "unknown-sandbox"];

/// What happens to the pod of a sandbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It dies, and some time later the API server says so.
    Killed,
    /// The API server says that it ends, then it does.
    Ended,
    /// The same, but its open connections stay and are still answered.
    Lingers,
    /// Its Sandbox is deleted with it, and created anew under the same name.
    Recreated,
    /// Its Sandbox is suspended and resumed.
    Suspended,
    /// It is moved to an address that does not answer, and then on.
    Unreachable,
    /// Its program ends and starts again where it was; the API server does not notice.
    Restarted,
}

const FATES: [Fate; 7] = [
    Fate::Killed,
    Fate::Ended,
    Fate::Lingers,
    Fate::Recreated,
    Fate::Suspended,
    Fate::Unreachable,
    Fate::Restarted,
];

/// Everything that the router can reach.
#[derive(Debug)]
pub(super) struct World {
    pub(super) cluster: Cluster,
    ledger: Arc<Ledger>,
    places: Vec<Place>,
    /// Given to the next pod.
    free: Ipv4Addr,
    /// Ended pods with open connections.
    lingering: Vec<Sandbox>,
    router: Option<SocketAddr>,
    random: fastrand::Rng,
    pods: u64,
    replaced: u64,
}

/// A sandbox and where its pod is.
#[derive(Debug)]
struct Place {
    named: Arc<Named>,
    generation: u64,
    pod: String,
    address: Ipv4Addr,
    sandbox: Option<Sandbox>,
}

impl World {
    /// So many sandboxes, all running.
    pub(super) fn start(sandboxes: u8, ledger: Arc<Ledger>, seed: u64) -> Result<Self> {
        let mut world = Self {
            cluster: Cluster::start()?,
            ledger,
            places: Vec::new(),
            free: address(0)?,
            lingering: Vec::new(),
            router: None,
            random: fastrand::Rng::with_seed(seed),
            pods: 0,
            replaced: 0,
        };
        for number in 1..=sandboxes {
            let named = Arc::new(Named::new(format!("box-{number}")));
            let mut place = Place {
                named: named.clone(),
                generation: 0,
                pod: String::new(),
                address: address(number)?,
                sandbox: None,
            };
            world.cluster.apply(
                Kind::Sandboxes,
                &place.uid(),
                place.sandbox_object("Running"),
            );
            let identity = named.next(&place.uid());
            world.run(&mut place, identity)?;
            world.places.push(place);
        }
        Ok(world)
    }

    /// Where to ask whether the router has been told.
    pub(super) fn routed_by(&mut self, router: SocketAddr) {
        self.router = Some(router);
    }

    /// The sandboxes.
    pub(super) fn sandboxes(&self) -> Vec<Arc<Named>> {
        self.places
            .iter()
            .map(|place| place.named.clone())
            .collect()
    }

    /// Every address that a pod may have.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let places = self.places.iter().map(|place| place.address.into());
        places.chain([self.free.into()]).collect()
    }

    /// How many pods were replaced.
    pub(super) fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Waits until the router knows all of them.
    pub(super) async fn settle(&mut self) -> Result<()> {
        for index in 0..self.places.len() {
            self.arrived(index).await?;
            self.place(index)?.named.calm();
        }
        Ok(())
    }

    /// Replaces one pod after the other until told to stop.
    pub(super) async fn turn(&mut self, stop: &Shutdown) -> Result<()> {
        let mut before = None;
        while !stop.is_triggered() {
            let index = self.random.usize(..self.places.len());
            // Its own address would be what the next pod gets.
            if before == Some(index) {
                continue;
            }
            before = Some(index);
            let fate = self.random.choice(FATES).context("there are fates")?;
            self.replace(index, fate)
                .await
                .with_context(|| format!("{fate:?}"))?;
            self.replaced += 1;
            match self.random.u8(..) {
                0..16 => self.cluster.interrupt(false),
                16..20 => self.cluster.interrupt(true),
                _ => {}
            }
        }
        Ok(())
    }

    async fn replace(&mut self, index: usize, fate: Fate) -> Result<()> {
        let named = self.place(index)?.named.clone();
        named.disturb();
        if fate == Fate::Restarted {
            let mut place = self.take(index)?;
            place.stop().await;
            named.outlived();
            let identity = named.next(&place.uid());
            place.sandbox = Some(Sandbox::start(identity, place.socket())?);
            self.places.insert(index, place);
            self.arrived(index).await?;
            named.calm();
            return Ok(());
        }
        if fate == Fate::Unreachable {
            self.unreachable(index).await?;
        }
        let mut place = self.take(index)?;
        if fate == Fate::Killed {
            place.stop().await;
            // Long enough for requests to wait for their next attempt.
            self.pause(300).await;
        }
        self.end(&mut place, fate).await?;
        if fate == Fate::Lingers {
            if let Some(sandbox) = place.sandbox.take() {
                sandbox.retire().await;
                self.lingering.push(sandbox);
            }
        } else {
            place.stop().await;
        }
        // While the one before lingers, its address has an heir.
        if self.lingering.len() > 2 {
            self.lingering.remove(0).stop().await;
        }
        std::mem::swap(&mut place.address, &mut self.free);
        if matches!(fate, Fate::Recreated | Fate::Suspended) {
            self.cluster.apply(
                Kind::Sandboxes,
                &place.uid(),
                place.sandbox_object("Running"),
            );
        }
        let identity = named.next(&place.uid());
        let started = self.run(&mut place, identity);
        self.places.insert(index, place);
        started?;
        self.arrived(index).await?;
        named.calm();
        Ok(())
    }

    /// The API server says that the pod is no more; returns when the router has heard it.
    async fn end(&mut self, place: &mut Place, fate: Fate) -> Result<()> {
        self.cluster.delete(Kind::Pods, &place.pod);
        if fate == Fate::Recreated {
            self.cluster.delete(Kind::Sandboxes, &place.uid());
            place.generation += 1;
        }
        self.told(&place.named, &WITHOUT_POD).await?;
        place.named.outlived();
        // Not earlier: what comes by another watch says nothing of whether this one has come.
        if fate == Fate::Suspended {
            self.cluster.apply(
                Kind::Sandboxes,
                &place.uid(),
                place.sandbox_object("Suspended"),
            );
            self.told(&place.named, &["suspended"]).await?;
        }
        Ok(())
    }

    /// Moves the pod to an address where nobody answers, for a while.
    async fn unreachable(&mut self, index: usize) -> Result<()> {
        let mut place = self.take(index)?;
        self.end(&mut place, Fate::Ended).await?;
        place.stop().await;
        std::mem::swap(&mut place.address, &mut self.free);
        let hole = Hole::dig(place.socket()).await?;
        self.announce(&mut place);
        // Long enough for connections to be tried there, and for the kernel to try them again.
        self.pause(1500).await;
        // The next to have the address is another.
        self.end(&mut place, Fate::Ended).await?;
        drop(hole);
        self.places.insert(index, place);
        Ok(())
    }

    /// Starts the pod at the place's address, and lets the API server say so.
    fn run(&mut self, place: &mut Place, identity: Identity) -> Result<()> {
        place.sandbox = Some(Sandbox::start(identity, place.socket())?);
        self.announce(place);
        Ok(())
    }

    fn announce(&mut self, place: &mut Place) {
        self.pods += 1;
        place.pod = format!("00000000-0000-4000-8000-{:012x}", self.pods);
        self.cluster
            .apply(Kind::Pods, &place.pod, place.pod_object());
    }

    fn place(&self, index: usize) -> Result<&Place> {
        self.places.get(index).context("there is such a sandbox")
    }

    fn take(&mut self, index: usize) -> Result<Place> {
        self.place(index)?;
        Ok(self.places.remove(index))
    }

    async fn pause(&mut self, most_millis: u64) {
        let millis = self.random.u64(..most_millis);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Waits until the router itself answers for the sandbox, for one of these reasons.
    async fn told(&self, named: &Named, reasons: &[&str]) -> Result<()> {
        let without_pod = |outcome: &Result<Identity, Failure>| {
            matches!(outcome,
                Err(Failure::Refused { reason, .. }) if reasons.contains(&reason.as_str()))
        };
        self.probe(named, "the router is told of an end", without_pod)
            .await
    }

    /// Waits until the newest pod answers.
    async fn arrived(&self, index: usize) -> Result<()> {
        let place = self.place(index)?;
        let newest = place.sandbox.as_ref().map(Sandbox::identity);
        self.probe(&place.named, "the newest pod answers", |outcome| {
            outcome.as_ref().ok() == newest
        })
        .await
    }

    async fn probe(
        &self,
        named: &Named,
        what: &str,
        holds: impl Fn(&Result<Identity, Failure>) -> bool,
    ) -> Result<()> {
        let router = self.router.context("there is a router")?;
        let deadline = Instant::now() + PATIENCE;
        let tasks = Tasks::new("probe");
        loop {
            let before = named.look();
            let (number, id) = self.ledger.open();
            let way = Way::to(NAMESPACE, named.name()).with("x-request-id", &id);
            let exchange = async {
                let mut connection = Connection::http1(router, &tasks).await?;
                let request = Request::new(Empty::<Bytes>::new());
                let response = connection.send(request, &way).await?;
                self.ledger.answered(number);
                match Identity::of(response.headers())? {
                    Some(identity) => Ok(identity),
                    None => Err(refused(response.status(), response.headers())),
                }
            };
            let outcome = tokio::time::timeout(PATIENCE, exchange)
                .await
                .context("the router does not answer")?;
            if let Ok(answered) = &outcome
                && let Err(text) = named.judge(before, answered)
            {
                self.ledger.violation(format_args!("probe: {text}"));
            }
            self.ledger.count("probe", "complete");
            if holds(&outcome) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "not within {} s: {what}; at last {outcome:?}",
                    PATIENCE.as_secs()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Place {
    fn uid(&self) -> String {
        let number = self.named.name().trim_start_matches("box-");
        format!("{number:0>8}-0000-4000-9000-{:012x}", self.generation)
    }

    fn socket(&self) -> SocketAddr {
        (self.address, PORT).into()
    }

    async fn stop(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.stop().await;
        }
    }

    fn sandbox_object(&self, mode: &str) -> Value {
        json!({
            "apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox",
            "metadata": {"name": self.named.name(), "namespace": NAMESPACE, "uid": self.uid()},
            "spec": {"operatingMode": mode},
        })
    }

    fn pod_object(&self) -> Value {
        let (name, ip) = (self.named.name(), self.address.to_string());
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": NAMESPACE, "uid": self.pod,
                "labels": {"agents.x-k8s.io/sandbox-name-hash": "00000000"},
                "ownerReferences": [{
                    "apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox",
                    "name": name, "uid": self.uid(), "controller": true,
                }],
            },
            "status": {
                "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        })
    }
}

/// An address where connections are neither accepted nor refused: somebody listens whose queue is full.
#[derive(Debug)]
struct Hole {
    _listener: Socket,
    _queued: TcpStream,
}

impl Hole {
    async fn dig(address: SocketAddr) -> Result<Self> {
        let listener = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        listener.set_reuse_address(true)?;
        listener.bind(&address.into())?;
        listener.listen(0)?;
        let queued = TcpStream::connect(address).await?;
        Ok(Self {
            _listener: listener,
            _queued: queued,
        })
    }
}

fn address(number: u8) -> Result<Ipv4Addr> {
    network::address(1, 1 + number)
}
