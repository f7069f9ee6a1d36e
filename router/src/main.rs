//! Entry point of the router: reads the command line, connects to the cluster, binds every listener,
//! serves, and drains on SIGTERM or SIGINT.

use std::path::Path;
use std::process::ExitCode;

use agent_sandbox_router::args::{Args, ArgsError, BindAddress, Lasting, Plan, Source};
use agent_sandbox_router::tls::Certificates;
use agent_sandbox_router::{Control, Listener, Router};
use agent_sandbox_service::allocator::{self, Allocator};
use agent_sandbox_service::metrics::Metrics;
use agent_sandbox_service::readiness::Readiness;
use agent_sandbox_service::shutdown::{self, Shutdown};
use agent_sandbox_service::tasks::Tasks;
use agent_sandbox_service::{admin, causes, listen, log, server};
use anyhow::Context;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the admin endpoints may take to stop.
const ADMIN_DRAIN: std::time::Duration = std::time::Duration::from_secs(1);
/// Exit status for a command line or configuration that cannot be used.
const USAGE: u8 = 2;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    let plan = match Args::read(std::env::args_os()).and_then(Args::plan) {
        Ok(plan) => plan,
        Err(error) => return refuse(&error),
    };
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(allocator::give_back_now_and_then)
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run(plan)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", causes::on_one_line(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with the command line. Help and version are no errors.
#[expect(
    clippy::print_stderr,
    reason = "logging is configured by the very flags that cannot be used"
)]
fn refuse(error: &ArgsError) -> ExitCode {
    if let ArgsError::Flags(error) = error {
        return match error.print() {
            Ok(()) if error.exit_code() == 0 => ExitCode::SUCCESS,
            _ => ExitCode::from(USAGE),
        };
    }
    let cause = std::error::Error::source(error)
        .map(|cause| format!(": {cause}"))
        .unwrap_or_default();
    eprintln!("error: {error}{cause}");
    ExitCode::from(USAGE)
}

async fn run(plan: Plan) -> anyhow::Result<()> {
    let lasting = plan.lasting();
    let Plan {
        listeners,
        tls,
        source,
        kubeconfig,
        authz,
        settings,
        log,
        warnings,
    } = plan;
    log::init(&log)?;
    // Before anything can be seen from outside: who sees this program may signal it.
    let (order, admin_order) = (Shutdown::new(), Shutdown::new());
    let signalled = shutdown::signals(&order).context("cannot listen for signals")?;
    let hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let certificates = tls.map(Certificates::load).transpose()?;
    let client = if matches!(source, Source::Watch) || authz.needs_cluster() {
        Some(connect(kubeconfig.as_deref()).await?)
    } else {
        None
    };
    let authorizer = authz
        .authorizer(client.clone())
        .context("the authorization mode needs a cluster")?;
    if authorizer.is_open() {
        tracing::warn!(
            "every caller reaches every sandbox; choose another --authz-mode to change that"
        );
    }
    let (metrics, readiness) = (Metrics::new(), Readiness::new());
    let mut builder = Router::builder(settings.with(authorizer))
        .metrics(&metrics)
        .readiness(&readiness);
    match source {
        Source::Watch => {
            if let Some(client) = client {
                builder = builder.client(client);
            }
        }
        Source::Fixed { table, .. } => builder = builder.resolver(table),
        Source::Dns => {}
    }
    let router = builder.build()?;

    // Every listener is bound before anything is served, so that a port in use is found at once.
    let mut proxy = Vec::new();
    if let Some(address) = listeners.http {
        proxy.push(Listener::plain(bind(address)?));
    }
    if let (Some(address), Some(certificates)) = (listeners.https, certificates) {
        proxy.push(Listener::tls(bind(address)?, certificates));
    }
    let metrics_listener = listeners.metrics.map(bind).transpose()?;
    let probe_listener = listeners.probes.map(bind).transpose()?;

    // Probes and metrics answer until the drain is over.
    let admin_tasks = Tasks::new("admin");
    if let Some(listener) = metrics_listener {
        let server = server::Server::new(admin::metrics_router(metrics));
        let serving = server.serve(listener, admin_order.clone(), ADMIN_DRAIN);
        admin_tasks.spawn("metrics", serving);
    }
    if let Some(listener) = probe_listener {
        let server = server::Server::new(admin::health_router(readiness));
        let serving = server.serve(listener, admin_order.clone(), ADMIN_DRAIN);
        admin_tasks.spawn("probes", serving);
    }
    admin_tasks.spawn("signals", async move {
        let signal = signalled.await;
        tracing::info!(signal, "draining");
    });
    let control = router.control();
    admin_tasks.spawn("reload", follow_hangups(hangups, lasting, control));
    router.serve_all(proxy, order.clone()).await;
    admin_order.trigger();
    admin_tasks.shutdown(ADMIN_DRAIN).await;
    Ok(())
}

/// Reads everything again at every SIGHUP, and takes over what can change while the router runs.
async fn follow_hangups(mut hangups: Signal, lasting: Lasting, control: Control) {
    while hangups.recv().await.is_some() {
        control.look_again();
        match Args::read(std::env::args_os()).and_then(Args::plan) {
            Ok(plan) => {
                for what in lasting.differences(&plan.lasting()) {
                    tracing::warn!(what, "changed, and takes effect only after a restart");
                }
                control.adjust(plan.settings.adjustable());
                tracing::info!("configuration reloaded");
            }
            Err(error) => {
                let error = causes::on_one_line(&error);
                tracing::error!(
                    error,
                    "configuration not reloaded; the one before stays in use"
                );
            }
        }
    }
}

fn bind(address: BindAddress) -> anyhow::Result<TcpListener> {
    let mut candidates = address.candidates().into_iter();
    let mut outcome = candidates
        .next()
        .context("no address to listen on")
        .map(listen::bind)?;
    // A machine without IPv6 has no `[::]`.
    for address in candidates {
        if let Err(error) = &outcome
            && !matches!(
                error.source.kind(),
                std::io::ErrorKind::AddrInUse | std::io::ErrorKind::PermissionDenied
            )
        {
            outcome = listen::bind(address);
        }
    }
    let listener = outcome?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "listening");
    }
    Ok(listener)
}

/// A client for the cluster that a kubeconfig names (several, separated as in `PATH`, are merged),
/// else for the one this process runs in or its user works with.
async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => read(path).await.with_context(|| {
            format!(
                "--kubeconfig {}: a file that `kubectl` accepts is needed",
                path.display()
            )
        })?,
        None => kube::Config::infer().await.context(
            "no cluster found: run in a pod, give --kubeconfig, or use --cache-enabled=false to resolve by DNS",
        )?,
    };
    Client::try_from(config).context("cannot make a client for the cluster")
}

async fn read(path: &Path) -> Result<kube::Config, KubeconfigError> {
    let mut merged = Kubeconfig::default();
    for file in std::env::split_paths(path).filter(|file| !file.as_os_str().is_empty()) {
        merged = merged.merge(Kubeconfig::read_from(file)?)?;
    }
    kube::Config::from_custom_kubeconfig(merged, &KubeConfigOptions::default()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]
";
    const CONTEXT: &str = "apiVersion: v1
kind: Config
contexts: [{name: x, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: t}}]
current-context: x
";

    #[tokio::test]
    async fn a_kubeconfig_may_be_several_files_and_a_bad_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (cluster, context) = (file("cluster", CLUSTER), file("context", CONTEXT));
        let both = std::env::join_paths([&cluster, &context]).unwrap();
        let config = read(Path::new(&both)).await.unwrap();
        assert_eq!(config.cluster_url.to_string(), "http://127.0.0.1:1/");

        for (path, cause) in [
            (directory.path().join("absent"), "No such file"),
            (file("bad", "not: [yaml"), "parse kubeconfig"),
            (context, "the cluster of context"),
        ] {
            let Err(error) = connect(Some(&path)).await else {
                panic!("{} is accepted", path.display());
            };
            let said = causes::on_one_line(error.as_ref());
            assert!(
                said.contains("--kubeconfig") && said.contains("`kubectl`"),
                "{said}"
            );
            assert!(said.contains(path.to_str().unwrap()), "{said}");
            assert_eq!(said.matches(cause).count(), 1, "{said}");
        }
    }
}
