//! Flags as manifests pass them.

use clap::{CommandFactory, Parser};

use super::*;

fn plan(flags: &[&str]) -> anyhow::Result<Plan> {
    let flags = std::iter::once("agent-sandbox-controller").chain(flags.iter().copied());
    Args::try_parse_from(flags)?.plan()
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
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
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
    ])
    .unwrap();
    assert_eq!(plan.warnings.len(), 6, "{:?}", plan.warnings);
    assert!(plan.warnings.iter().all(|text| text.contains("no effect")));
    assert_eq!(plan.log.filter, "debug");
    assert_eq!(
        plan.log.format,
        agent_sandbox_service::args::LogFormat::Json
    );
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
        ["--tls-min-version=VersionTLS13"],
        ["--tls-cipher-suites=X"],
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
