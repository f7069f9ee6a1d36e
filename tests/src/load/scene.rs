//! The stage of a run: the kinds, a namespace, a template and a pool, and their removal whatever
//! happened.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_local::definitions;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::args::Plan;
use super::client::{Kind, Plain};
use super::counters::Writes;
use super::objects;
use super::operator::Operator;
use super::report::Report;
use agent_sandbox_load::machine::{self, Processes, Times};

/// Everything the legs need.
#[derive(Debug)]
pub struct Scene {
    /// What to do.
    pub plan: Plan,
    /// The plain client.
    pub plain: Arc<Plain>,
    /// The cluster's processes on this machine.
    pub processes: Processes,
    /// Where the operator's output goes.
    pub log: PathBuf,
    installed: bool,
}

/// Counters and clocks at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    writes: Writes,
    ours: Writes,
    times: Times,
}

/// What a leg cost, per claim.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Cost {
    /// The operator's writes, by kind.
    pub operator_writes: BTreeMap<String, f64>,
    /// Their sum.
    pub operator_writes_total: f64,
    /// Writes of Kubernetes itself, by kind.
    pub kubernetes_writes: BTreeMap<String, f64>,
    /// Their sum.
    pub kubernetes_writes_total: f64,
    /// The API server's processor time, in milliseconds.
    pub api_server_ms: Option<f64>,
    /// The operator's.
    pub controller_ms: Option<f64>,
    /// The store's.
    pub etcd_ms: Option<f64>,
}

impl Scene {
    /// Connects, installs the kinds if the cluster has none, and creates the namespace.
    pub async fn set(plan: Plan) -> Result<Self> {
        let client = Plain::connect(&plan.kubeconfig, &plan.namespace).await?;
        let installed = install(&client).await?;
        let processes = Processes::find(plan.apiserver_pid)?;
        let scene = Self {
            log: std::env::temp_dir().join(format!("bench-claims-{}.log", std::process::id())),
            plan,
            plain: Arc::new(client),
            processes,
            installed,
        };
        match scene.create_namespace().await {
            Ok(()) => Ok(scene),
            Err(error) => {
                scene.remove_kinds().await?;
                Err(error)
            }
        }
    }

    async fn create_namespace(&self) -> Result<()> {
        let Plan { namespace, .. } = &self.plan;
        let body =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let request = http::Request::post("/api/v1/namespaces")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(serde_json::to_vec(&body)?)?;
        match self.plain.watcher().request::<Value>(request).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => bail!(
                "the cluster has a namespace {namespace} already, and this command deletes its namespace in the end; \
                 delete it with `kubectl delete namespace {namespace}`, or name another with --namespace"
            ),
            Err(error) => return Err(error).context("cannot create the namespace"),
        }
        Ok(())
    }

    /// Removes everything that was made.
    pub async fn strike(&self) -> Result<()> {
        let Self { plain, plan, .. } = self;
        // Claims first, so that nothing is claimed again; pools before sandboxes, so that nothing is
        // refilled; all of them before their kinds, whose absence would hide what they own.
        for kind in [
            Kind::Claim,
            Kind::Pool,
            Kind::Template,
            Kind::Sandbox,
            Kind::Pod,
        ] {
            plain.delete_all(kind).await?;
        }
        for kind in [Kind::Claim, Kind::Sandbox, Kind::Pod] {
            until(&format!("{kind} to be gone"), REMOVAL, || async {
                Ok((plain.count(kind).await? == 0).then_some(()))
            })
            .await?;
        }
        let path = format!("/api/v1/namespaces/{}", plan.namespace);
        plain.delete_path(&path).await?;
        until("the namespace to be gone", REMOVAL, || async {
            Ok(is_missing(&plain.get::<Value>(&path).await).then_some(()))
        })
        .await?;
        self.remove_kinds().await
    }

    async fn remove_kinds(&self) -> Result<()> {
        if !self.installed {
            return Ok(());
        }
        for name in KINDS {
            self.plain.delete_path(&definition(name)).await?;
        }
        let system = agent_sandbox_crds::names::SYSTEM_NAMESPACE;
        self.plain
            .delete_path(&format!("/api/v1/namespaces/{system}"))
            .await
    }

    /// Creates template and pool.
    pub async fn create_pool(&self, replicas: u32) -> Result<()> {
        let Self { plain, .. } = self;
        plain.create(Kind::Template, &objects::template()).await?;
        plain
            .create(Kind::Pool, &objects::pool(objects::POOL, replicas))
            .await?;
        Ok(())
    }

    /// Deletes template and pool with everything the pool owns.
    pub async fn delete_pool(&self) -> Result<()> {
        let Self { plain, .. } = self;
        plain.delete(Kind::Pool, objects::POOL).await?;
        plain.delete(Kind::Template, objects::TEMPLATE).await?;
        plain.delete_all(Kind::Sandbox).await?;
        for kind in [Kind::Sandbox, Kind::Pod] {
            until(&format!("{kind} to be gone"), REMOVAL, || async {
                Ok((plain.count(kind).await? == 0).then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// Changes the pool's size.
    pub async fn resize_pool(&self, replicas: u32) -> Result<()> {
        let patch = json!({"spec": {"replicas": replicas}});
        self.plain
            .patch(Kind::Pool, objects::POOL, &patch)
            .await
            .map(drop)
    }

    /// Waits until the pool is full, nothing is claimed, and the API server has come to rest.
    pub async fn at_rest(&self, replicas: u32) -> Result<()> {
        let Self { plain, .. } = self;
        let what =
            format!("the pool to have {replicas} ready members and nothing else to be there");
        until(&what, FILL, || async {
            let pool = plain.read(Kind::Pool, objects::POOL).await?;
            let ready = pool
                .pointer("/status/readyReplicas")
                .and_then(Value::as_u64);
            if ready.unwrap_or_default() != u64::from(replicas) {
                return Ok(None);
            }
            let wanted = usize::try_from(replicas)?;
            let clean = plain.count(Kind::Claim).await? == 0
                && plain.count(Kind::Sandbox).await? == wanted
                && plain.count(Kind::Pod).await? == wanted;
            Ok(clean.then_some(()))
        })
        .await?;
        self.settle().await
    }

    /// Waits until the API server does little, or some seconds have passed: a busy cluster of
    /// somebody else's never rests.
    pub async fn settle(&self) -> Result<()> {
        for _ in 0..SETTLING {
            let before = self.processes.times()?;
            tokio::time::sleep(SETTLED).await;
            let spent = self.processes.times()?.since(&before);
            if spent
                .of(machine::API_SERVER)
                .is_none_or(|time| time < SETTLED / 20)
            {
                break;
            }
        }
        Ok(())
    }

    /// Measures how idle the machine is, for the record.
    pub async fn look_around(&self, report: &mut Report) -> Result<()> {
        let before = self.processes.times()?;
        tokio::time::sleep(QUIET).await;
        report.idle(self.processes.times()?.since(&before).idle_share());
        Ok(())
    }

    /// Reads all counters and clocks; the clocks last, because reading the counters costs the API
    /// server time.
    pub async fn snapshot(&self, operator: &Operator) -> Result<Snapshot> {
        let writes = Writes::of_server(&self.plain.text("/metrics").await?);
        let ours = operator.writes().await?;
        Ok(Snapshot {
            writes,
            ours,
            times: self.clocks(operator)?,
        })
    }

    /// Reads the clocks alone.
    pub fn clocks(&self, operator: &Operator) -> Result<Times> {
        self.processes.with_controller(operator.pid()).times()
    }

    /// What was spent since a snapshot on `claims` claims that this program created and deleted.
    pub async fn cost(&self, operator: &Operator, before: &Snapshot, claims: u32) -> Result<Cost> {
        // Clocks first this time, for the same reason.
        let times = self.clocks(operator)?.since(&before.times);
        let now = self.snapshot(operator).await?;
        let ours = now.ours.since(&before.ours);
        let users = Writes(BTreeMap::from([
            ("POST sandboxclaims".to_owned(), f64::from(claims)),
            ("DELETE sandboxclaims".to_owned(), f64::from(claims)),
        ]));
        let theirs = now
            .writes
            .since(&before.writes)
            .without(&ours)
            .without(&users);
        let each = |name| {
            let time = times.of(name)?;
            Some(time.as_secs_f64() * 1000.0 / f64::from(claims.max(1)))
        };
        Ok(Cost {
            operator_writes_total: ours.per(claims).total(),
            operator_writes: ours.per(claims).0,
            kubernetes_writes_total: theirs.per(claims).total(),
            kubernetes_writes: theirs.per(claims).0,
            api_server_ms: each(machine::API_SERVER),
            controller_ms: each(machine::CONTROLLER),
            etcd_ms: each("etcd"),
        })
    }
}

/// Installs the kinds unless the cluster has them; `true` when it did.
async fn install(plain: &Plain) -> Result<bool> {
    let mut missing = Vec::new();
    for name in KINDS {
        if is_missing(&plain.get::<Value>(&definition(name)).await) {
            missing.push(name);
        }
    }
    if missing.is_empty() {
        return Ok(false);
    }
    ensure!(
        missing.len() == KINDS.len(),
        "the cluster has some of our kinds but not {}; install all of them with \
         `kubectl apply --server-side --filename charts/agent-sandbox/crds`, or remove them all",
        missing.join(", ")
    );
    definitions::install(plain.watcher())
        .await
        .context("the cluster has none of our kinds, and they cannot be installed")?;
    Ok(true)
}

fn definition(name: &str) -> String {
    format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
}

fn is_missing<T>(answer: &Result<T>) -> bool {
    let error = answer.as_ref().err();
    let error = error.and_then(|error| error.downcast_ref::<kube::Error>());
    matches!(error, Some(kube::Error::Api(status)) if status.code == 404)
}

/// Asks again and again until there is an answer.
pub async fn until<T, F, R>(what: &str, patience: Duration, mut probe: F) -> Result<T>
where
    F: FnMut() -> R,
    R: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = probe().await? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("waited {} s in vain for {what}", patience.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}

const KINDS: [&str; 4] = [
    "sandboxes.agents.x-k8s.io",
    "sandboxclaims.extensions.agents.x-k8s.io",
    "sandboxtemplates.extensions.agents.x-k8s.io",
    "sandboxwarmpools.extensions.agents.x-k8s.io",
];
/// How long a pool may take to fill; 6,000 members take minutes on two processors.
const FILL: Duration = Duration::from_secs(1200);
/// How long the cluster may take to remove everything.
const REMOVAL: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(250);
/// Looks at the API server's rest, and how long each lasts.
const SETTLING: u32 = 10;
const SETTLED: Duration = Duration::from_millis(500);
/// How long the machine's rest is looked at.
const QUIET: Duration = Duration::from_secs(2);
