//! Flags as manifests pass them.

use agent_sandbox_service::args::LogFormat;
use agent_sandbox_service::pprof::Scope;
use clap::CommandFactory;

use super::values::Bind;
use super::*;

fn plan(flags: &[&str]) -> anyhow::Result<Plan> {
    let flags = std::iter::once("agent-sandbox-controller").chain(flags.iter().copied());
    Args::read(flags.map(OsString::from))?.plan()
}

#[test]
fn the_definition_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn defaults_are_the_documented_ones() {
    let plan = plan(&[]).unwrap();
    let config = &plan.config;
    assert!(!config.extensions && config.leader_election.is_some());
    assert_eq!(config.cluster_domain, "cluster.local");
    assert_eq!((config.workers.sandboxes, config.workers.claims), (100, 50));
    assert_eq!((config.workers.pools, config.workers.templates), (1, 1));
    assert_eq!(config.pools.max_batch, 300);
    assert_eq!(config.pools.readiness_grace, Duration::from_secs(300));
    assert_eq!(config.pools.unschedulable_recheck, Duration::from_secs(60));
    assert!(config.pools.eviction && config.claims.events);
    assert_eq!(config.claims.label_domains, [DEFAULT_LABEL_DOMAIN]);
    assert_eq!(plan.server.metrics, Bind::Everywhere(8080));
    assert_eq!(plan.server.health, Bind::Everywhere(8081));
    assert_eq!(plan.log.format, LogFormat::Json);
    assert_eq!(plan.log.filter, "info");
    assert!(plan.traces.is_none() && plan.server.metrics_tls.is_none());
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
}

#[test]
fn one_dash_is_enough_as_in_go() {
    let plan = plan(&["-leader-elect=false", "-extensions", "-kube-api-qps=-1"]).unwrap();
    assert!(plan.config.extensions && plan.config.leader_election.is_none());
}

#[test]
fn the_version_names_what_the_program_was_built_from() {
    for flag in ["--version", "-version", "--version=true"] {
        let error = plan(&[flag]).unwrap_err();
        let error = error.downcast::<clap::Error>().unwrap();
        assert_eq!(error.exit_code(), 0);
        let text = error.to_string();
        for word in ["commit:", "date:", "compiler: rustc", "platform: linux/"] {
            assert!(text.contains(word), "{text}");
        }
        assert!(!text.contains("unknown"), "{text}");
    }
}

#[test]
fn logs_follow_the_flags_of_the_earlier_program() {
    for (flags, format, filter) in [
        (&["--zap-encoder=console"][..], LogFormat::Plain, "info"),
        (&["--zap-devel"], LogFormat::Plain, "debug"),
        (
            &["--zap-devel", "--zap-encoder=json"],
            LogFormat::Json,
            "debug",
        ),
        (&["--zap-log-level=5"], LogFormat::Json, "trace"),
        (&["--zap-log-level=panic"], LogFormat::Json, "error"),
        (&["--log-format=plain"], LogFormat::Plain, "info"),
    ] {
        let plan = plan(flags).unwrap();
        assert_eq!(plan.log.format, format, "{flags:?}");
        assert_eq!(plan.log.filter, filter, "{flags:?}");
    }
}

#[test]
fn traces_go_where_the_standard_variables_say() {
    let plan = plan(&["--enable-tracing", "--otlp-endpoint=http://collector:4317"]).unwrap();
    assert!(plan.traces.is_some());
}

#[test]
fn profiles_are_served_as_far_as_asked_for() {
    let scope = |flags: &[&str]| plan(flags).unwrap().server.profiles;
    assert_eq!(scope(&[]), None);
    assert_eq!(scope(&["--enable-pprof"]), Some(Scope::Processor));
    assert_eq!(scope(&["--enable-pprof-debug"]), Some(Scope::Everything));
}

#[test]
fn tls_terms_are_taken() {
    let plan = plan(&[
        "--metrics-secure-serving",
        "--metrics-cert-dir=/certs",
        "--tls-min-version=VersionTLS13",
        "--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    ])
    .unwrap();
    let (dir, terms) = plan.server.metrics_tls.unwrap();
    assert_eq!(dir, PathBuf::from("/certs"));
    let terms = format!("{terms:?}");
    assert!(!terms.contains("TLSv1_2"), "{terms}");
}

#[test]
fn booleans_take_both_forms() {
    assert!(plan(&["--extensions"]).unwrap().config.extensions);
    assert!(plan(&["--extensions=true"]).unwrap().config.extensions);
    assert!(!plan(&["--extensions=false"]).unwrap().config.extensions);
    assert!(
        plan(&["--leader-elect=false"])
            .unwrap()
            .config
            .leader_election
            .is_none()
    );
    assert!(
        plan(&["--disable-claim-observability-annotations=false"])
            .unwrap()
            .config
            .claims
            .annotations
    );
    assert!(
        !plan(&["--disable-claim-events"])
            .unwrap()
            .config
            .claims
            .events
    );
}

#[test]
fn flags_of_earlier_releases_are_accepted_with_a_warning() {
    let plan = plan(&[
        "--webhook-port=9443",
        "--webhook-cert-dir=/tmp/x",
        "--manage-webhook-certs=true",
        "--enable-webhook",
        "--enable-pprof",
        "--pprof-block-profile-rate=1000000",
        "--enable-tracing=false",
        "--zap-encoder=json",
        "--zap-log-level=debug",
        "--zap-time-encoding=iso8601",
        "--zap-stacktrace-level=error",
    ])
    .unwrap();
    assert_eq!(plan.warnings.len(), 7, "{:?}", plan.warnings);
    assert!(plan.warnings.iter().all(|text| text.contains("no effect")));
    assert_eq!(plan.log.filter, "debug");
    assert_eq!(plan.log.format, LogFormat::Json);
}

#[test]
fn bad_values_name_the_flag() {
    for flags in [
        ["--kube-api-burst=0"],
        ["--sandbox-concurrent-workers=0"],
        ["--sandbox-warm-pool-max-refill-rate=NaN"],
        ["--sandbox-warm-pool-readiness-grace-period=0s"],
        ["--sandbox-write-behind-window=5"],
        ["--metrics-bind-address=8080"],
        ["--resolvers=example.com"],
        ["--network-policy-block=10.0.0.0"],
        ["--metrics-secure-serving"],
        ["--tls-min-version=VersionTLS10"],
        ["--tls-cipher-suites=X"],
        ["--zap-log-level=loud"],
        ["--zap-stacktrace-level=never"],
        ["--zap-time-encoding=moon"],
        ["--enable-tracing"],
        ["--enable-pprof=maybe"],
        ["--pprof-block-profile-rate=often"],
        ["--unknown"],
    ] {
        let error = format!("{:#}", plan(&flags).unwrap_err());
        let name = flags[0].split('=').next().unwrap();
        assert!(
            error.contains(name) || error.contains("--metrics-cert-dir"),
            "{flags:?}: {error}"
        );
    }
}

#[test]
fn too_many_workers_are_pointed_out() {
    let many = plan(&["--sandbox-concurrent-workers=2000"]).unwrap();
    assert_eq!(many.warnings.len(), 1);
    let limited = plan(&["--kube-api-qps=20"]).unwrap();
    assert_eq!(limited.warnings.len(), 1);
}

#[test]
fn label_domains_come_from_a_file_that_may_be_missing() {
    let missing = plan(&["--allowed-label-domains-file=/nonexistent/file"]).unwrap();
    assert_eq!(missing.config.claims.label_domains, [DEFAULT_LABEL_DOMAIN]);
    let unreadable = plan(&["--allowed-label-domains-file=/"]).unwrap_err();
    assert!(format!("{unreadable:#}").contains("--allowed-label-domains-file"));
}

#[test]
fn a_program_that_has_yet_to_find_its_cluster_is_not_ready() {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    // Reading this kubeconfig takes until somebody has written it.
    let file = std::env::temp_dir().join(format!(
        "agent-sandbox-slow-kubeconfig-{}-{:x}",
        std::process::id(),
        fastrand::u64(..)
    ));
    let made = std::process::Command::new("mkfifo").arg(&file).status();
    assert!(made.unwrap().success());
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let plan = plan(&[
        &format!("--kubeconfig={}", file.display()),
        &format!("--health-probe-bind-address={address}"),
        "--metrics-bind-address=0",
    ])
    .unwrap();
    let program = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(serve::serve(plan))
    });
    // Opened for writing only once the program has opened it for reading, so it listens by now.
    let mut kubeconfig = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    let mut probe = TcpStream::connect(address).unwrap();
    probe
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    probe.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("connection"), "{answer}");
    kubeconfig.write_all(b"no kubeconfig").unwrap();
    drop(kubeconfig);
    let error = program.join().unwrap().unwrap_err();
    assert!(
        format!("{error:#}").contains("slow-kubeconfig"),
        "{error:#}"
    );
    std::fs::remove_file(&file).unwrap();
}
