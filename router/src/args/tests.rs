//! Flags, file and environment as an operator gives them. Variables are not set here: setting them
//! is racy in a process with threads. That they are bound to their flags is asserted instead.

use std::io::Write;
use std::time::Duration;

use agent_sandbox_service::args::LogFormat;

use super::*;
use crate::config::Config;

fn plan(flags: &[&str]) -> Result<Plan, ArgsError> {
    let line = ["agent-sandbox-router"].iter().chain(flags);
    Args::read(line.map(OsString::from))?.plan()
}

fn open(flags: &[&str]) -> Plan {
    let mut all = vec!["--authz-mode=allow-all"];
    all.extend(flags);
    plan(&all).unwrap()
}

fn refusal(flags: &[&str]) -> String {
    let mut all = vec!["--authz-mode=allow-all"];
    all.extend(flags);
    plan(&all).unwrap_err().to_string()
}

fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

#[test]
fn open_to_everybody_must_be_asked_for() {
    let error = plan(&[]).unwrap_err().to_string();
    assert!(error.starts_with("--authz-mode: is needed"), "{error}");
    assert!(matches!(
        plan(&["--allow-unauthenticated-router=Yes "]).unwrap().authz,
        AuthzPlan::Local(authorizer) if authorizer.is_open()
    ));
    assert!(plan(&["--allow-unauthenticated-router=false"]).is_err());
    // A token wins over the permission to do without.
    let both = plan(&["--allow-unauthenticated-router=1", "--authz-static-token=t"]).unwrap();
    assert!(matches!(both.authz, AuthzPlan::Local(authorizer) if !authorizer.is_open()));
}

#[test]
fn the_defaults_are_those_of_the_config() {
    let Plan {
        listeners,
        settings,
        source,
        ..
    } = open(&[]);
    assert_eq!(listeners.http, Some(BindAddress::Any(8080)));
    assert_eq!(listeners.metrics, Some(BindAddress::Any(9090)));
    assert_eq!(listeners.probes, Some(BindAddress::Any(8081)));
    assert!(matches!(source, Source::Watch));
    assert!(listeners.https.is_none() && settings.access_log);
    let default = Config::new(crate::authz::Authorizer::AllowAll);
    assert_eq!(
        format!("{:?}", settings.time),
        format!("{:?}", default.time)
    );
    assert_eq!(
        format!("{:?}", settings.limits),
        format!("{:?}", default.limits)
    );
    assert_eq!(
        format!("{:?}", settings.resolution),
        format!("{:?}", default.resolution)
    );
    assert_eq!(
        format!("{:?}", settings.pool),
        format!("{:?}", default.pool)
    );
    assert_eq!(
        format!("{:?}", settings.retry),
        format!("{:?}", default.retry)
    );
}

#[test]
fn variables_are_bound_to_flags() {
    let command = Args::command();
    let bound = |id: &str| {
        command
            .get_arguments()
            .find(|argument| argument.get_id() == id)
            .and_then(clap::Arg::get_env)
            .map(|name| name.to_string_lossy().into_owned())
    };
    for (id, name) in [
        ("config", "SANDBOX_ROUTER_CONFIG"),
        ("cluster_domain", "CLUSTER_DOMAIN"),
        ("kubeconfig", "KUBECONFIG"),
        ("proxy_timeout_seconds", "PROXY_TIMEOUT_SECONDS"),
        ("authz_static_token", "ROUTER_AUTH_TOKEN"),
        (
            "allow_unauthenticated_router",
            "ALLOW_UNAUTHENTICATED_ROUTER",
        ),
        ("trusted_proxy_cidrs", "TRUSTED_PROXY_CIDRS"),
        ("otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("otlp_traces_endpoint", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
    ] {
        assert_eq!(bound(id).as_deref(), Some(name));
    }
}

#[test]
fn flags_are_accepted_in_gos_notation() {
    let plan = open(&[
        "-http-bind-address",
        "127.0.0.1:0",
        "--metrics-bind-address=",
        "-access-log=false",
        "--dns-fallback",
        "--proxy-timeout",
        "1m30s",
    ]);
    assert!(plan.listeners.metrics.is_none());
    assert!(!plan.settings.access_log);
    assert_eq!(
        plan.settings.resolution.dns.as_deref(),
        Some("cluster.local")
    );
    assert_eq!(plan.settings.time.request, Duration::from_secs(90));
}

#[test]
fn flags_beat_the_file_and_the_file_beats_the_rest() {
    let config = file(
        "proxy-timeout: 10s\nupstream-max-retries: 7\naccess-log: false\ncluster-domain: from.file\n\
         cache-namespace: null\nproxy-timeout-seconds: 44\n",
    );
    let path = config.path().to_str().unwrap();
    let plan = open(&["--config", path, "--proxy-timeout=20s"]);
    assert_eq!(plan.settings.time.request, Duration::from_secs(20));
    assert_eq!(plan.settings.retry.max, 7);
    assert!(!plan.settings.access_log);
    assert_eq!(plan.settings.resolution.namespace, None);
    let plan = open(&[&format!("-config={path}")]);
    assert_eq!(plan.settings.time.request, Duration::from_secs(10));
}

#[test]
fn a_file_that_makes_no_sense_is_refused() {
    let refused = |content: &str| {
        let config = file(content);
        refusal(&["--config", config.path().to_str().unwrap()])
    };
    assert!(refused("nonsense: 1").contains(r#"unknown config key "nonsense""#));
    assert!(refused("config: other.yaml").contains("unknown config key"));
    assert!(refused("authz-tokenreview-audiences: [a, b]").contains("must be a scalar"));
    assert!(refused("- a\n- b").contains("not a YAML mapping"));
    assert!(refused("proxy-timeout: 180").contains("--proxy-timeout"));
    assert!(refusal(&["--config", "/nowhere/x.yaml"]).contains("/nowhere/x.yaml"));
    let empty = file("# nothing\n\n");
    open(&["--config", empty.path().to_str().unwrap()]);
}

#[test]
fn the_python_routers_variables_are_weaker_than_flags() {
    let plan = open(&[
        "--proxy-timeout-seconds=12.5",
        "--websocket-idle-timeout-seconds=0",
    ]);
    assert_eq!(plan.settings.time.request, Duration::from_millis(12_500));
    assert_eq!(plan.settings.time.upgrade_idle, time::FOREVER);
    let plan = open(&["--proxy-timeout-seconds=12", "--proxy-timeout=3s"]);
    assert_eq!(plan.settings.time.request, Duration::from_secs(3));
    let plan = open(&["--proxy-timeout-seconds=abc"]);
    assert_eq!(plan.settings.time.request, Duration::from_secs(180));
    let plan = open(&[
        "--websocket-max-connections-per-client=64",
        "--max-keepalive-connections=20",
    ]);
    assert_eq!(plan.settings.limits.upgrades_per_client, Some(64));
    assert_eq!(plan.settings.pool.idle, 20);
    assert!(plan.warnings.is_empty());
    let plan = open(&["--max-keepalive-connections=20", "--upstream-max-idle=30"]);
    assert_eq!(plan.settings.pool.idle, 30);
}

#[test]
fn what_is_ignored_of_the_python_routers_variables_is_said() {
    let plan = open(&[
        "--proxy-timeout-seconds=0",
        "--websocket-idle-timeout-seconds=nan",
        "--websocket-max-lifetime-seconds=-1",
        "--websocket-max-connections-per-client=2.5",
        "--websocket-max-message-bytes=16777216",
        "--max-keepalive-connections=-1",
    ]);
    let default = Config::new(crate::authz::Authorizer::AllowAll);
    assert_eq!(
        format!(
            "{:?} {:?} {:?}",
            plan.settings.time, plan.settings.limits, plan.settings.pool
        ),
        format!("{:?} {:?} {:?}", default.time, default.limits, default.pool)
    );
    let expected = [
        "PROXY_TIMEOUT_SECONDS=0 ",
        "WEBSOCKET_IDLE_TIMEOUT_SECONDS=nan ",
        "WEBSOCKET_MAX_LIFETIME_SECONDS=-1 ",
        "WEBSOCKET_MAX_CONNECTIONS_PER_CLIENT=2.5 ",
        "MAX_KEEPALIVE_CONNECTIONS=-1 ",
        "WEBSOCKET_MAX_MESSAGE_BYTES=16777216 ",
    ];
    assert_eq!(plan.warnings.len(), expected.len(), "{:?}", plan.warnings);
    for (warning, name) in plan.warnings.iter().zip(expected) {
        assert!(
            warning.starts_with(name) && warning.ends_with("; it is ignored"),
            "{warning}"
        );
    }
}

#[test]
fn flags_of_the_go_router_that_mean_something_else_here_are_accepted_and_said() {
    let plan = open(&[
        "--zap-devel",
        "--zap-encoder=json",
        "-zap-stacktrace-level=error",
        "--enable-otel-metrics",
    ]);
    assert_eq!(plan.log.format, LogFormat::Json);
    assert_eq!(plan.log.filter, "debug");
    for (warning, flag) in plan
        .warnings
        .iter()
        .zip(["--zap-stacktrace-level", "--enable-otel-metrics"])
    {
        assert!(
            warning.starts_with(flag) && warning.contains("has no effect"),
            "{warning}"
        );
    }
    assert_eq!(plan.warnings.len(), 2);
    assert!(refusal(&["--zap-log-level=loud"]).contains("--zap-log-level"));
}

#[test]
fn what_needs_a_restart_is_told_from_what_does_not() {
    let before = open(&[]).lasting();
    let adjusted = open(&[
        "--proxy-timeout=1s",
        "--upstream-max-retries=9",
        "--max-requests=1",
        "--trusted-proxy-cidrs=10.0.0.0/8",
    ]);
    assert!(before.differences(&adjusted.lasting()).is_empty());
    let adjustable = adjusted.settings.adjustable();
    assert_eq!(adjustable.time.request, Duration::from_secs(1));
    assert_eq!(adjustable.retry.max, 9);
    assert_eq!(adjustable.limits.requests, Some(1));
    assert_eq!(adjustable.trusted_proxies.len(), 1);
    for (flags, what) in [
        (&["--http-bind-address=:1"][..], "listeners"),
        (
            &[
                "--https-bind-address=:1",
                "--tls-cert-file=a",
                "--tls-key-file=b",
            ],
            "listeners TLS",
        ),
        (&["--cache-namespace=a"], "resolution"),
        (&["--static-sandboxes=a/b=10.0.0.1"], "resolution"),
        (&["--authz-mode=tokenreview"], "authorization"),
        (&["--keep-alive-timeout=1s"], "client connections"),
        (&["--upstream-max-idle=1"], "connections to sandboxes"),
        (&["--shutdown-delay=1s"], "shutdown"),
        (&["--access-log=false"], "logging"),
        (&["--otlp-endpoint=http://collector:4317"], "tracing"),
    ] {
        let later = open(flags).lasting();
        assert_eq!(before.differences(&later).join(" "), what, "{flags:?}");
    }
}

#[test]
fn addresses_of_callers_are_not_trusted_where_sandboxes_are_opened_one_by_one() {
    let key = file("0123456789abcdef0123456789abcdef");
    let scoped = format!("--authz-scoped-token-secret-file={}", key.path().display());
    for mode in ["access-review", "scoped-token"] {
        let mode = format!("--authz-mode={mode}");
        let error = refusal(&[&mode, &scoped, "--pod-ip-header=trust"]);
        assert!(
            error.starts_with("--pod-ip-header: trust lets callers"),
            "{error}"
        );
    }
    open(&["--authz-mode=tokenreview", "--pod-ip-header=trust"]);
}

#[test]
fn impossible_values_name_their_flag() {
    for (flags, expected) in [
        (
            &["--http-bind-address="][..],
            "--http-bind-address: is empty",
        ),
        (&["--http-bind-address=8080"], "--http-bind-address:"),
        (
            &["--https-bind-address=:8443"],
            "--tls-cert-file: is needed",
        ),
        (
            &["--https-bind-address=:8443", "--tls-cert-file=a"],
            "--tls-key-file: is needed",
        ),
        (
            &["--mtls-mode=required"],
            "--mtls-mode: needs an HTTPS listener",
        ),
        (
            &[
                "--https-bind-address=:8443",
                "--tls-cert-file=a",
                "--tls-key-file=b",
                "--mtls-mode=optional",
            ],
            "--tls-client-ca-file: is needed",
        ),
        (&["--mtls-mode=sometimes"], "--mtls-mode"),
        (&["--cluster-domain="], "--cluster-domain: is empty"),
        (&["--proxy-timeout=0"], "--proxy-timeout: must be longer"),
        (&["--proxy-timeout=-1s"], "--proxy-timeout"),
        (
            &["--connect-timeout=0s"],
            "--connect-timeout: must be longer",
        ),
        (&["--max-request-body-bytes=-1"], "--max-request-body-bytes"),
        (
            &["--max-connections=0"],
            "--max-connections: must be at least 1",
        ),
        (
            &["--max-request-header-bytes=10"],
            "--max-request-header-bytes",
        ),
        (
            &["--trusted-proxy-cidrs=10.0.0.0/8,x"],
            r#""x" is not an address"#,
        ),
        (
            &["--allow-loopback-pod-ip"],
            "--allow-loopback-pod-ip: has a meaning only",
        ),
        (&["--authz-mode=maybe"], "--authz-mode"),
        (
            &["--authz-mode=static"],
            "--authz-static-token-file: the static token is empty",
        ),
        (
            &["--authz-mode=scoped-token"],
            "--authz-scoped-token-secret-file: is needed",
        ),
        (
            &[
                "--authz-mode=scoped-token",
                "--authz-scoped-token-secret-file=/nowhere/key",
            ],
            "/nowhere/key",
        ),
        (
            &["--authz-mode=tokenreview", "--authz-tokenreview-ttl=0"],
            "--authz-tokenreview-ttl: must be longer",
        ),
        (
            &[
                "--authz-mode=tokenreview",
                "--authz-tokenreview-cache-size=0",
            ],
            "--authz-tokenreview-cache-size: must be at least 1",
        ),
        (
            &["--enable-tracing"],
            "--enable-tracing needs --otlp-endpoint",
        ),
        (
            &["--otlp-endpoint=https://c:4317"],
            "expected http://HOST:PORT",
        ),
        (&["--no-such-flag"], "--no-such-flag"),
    ] {
        let error = refusal(flags);
        assert!(error.contains(expected), "{flags:?}: {error}");
    }
    let short = file("too short");
    let error = refusal(&[
        "--authz-mode=scoped-token",
        "--authz-scoped-token-secret-file",
        short.path().to_str().unwrap(),
    ]);
    assert!(error.contains("at least 32 bytes"), "{error}");
}

#[test]
fn without_a_watch_names_are_resolved_by_dns() {
    let plan = open(&["--cache-enabled=false", "--cluster-domain=example.org."]);
    assert!(matches!(plan.source, Source::Dns));
    assert_eq!(plan.settings.resolution.dns.as_deref(), Some("example.org"));
}

#[test]
fn the_command_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn given_sandboxes_leave_nothing_to_watch() {
    let plan = open(&["--static-sandboxes=default/box=10.0.0.7"]);
    assert!(matches!(plan.source, Source::Fixed { .. }));
    assert_eq!(plan.settings.resolution.dns, None);
    let error = refusal(&[
        "--static-sandboxes=default/box=10.0.0.7",
        "--cache-namespace=default",
    ]);
    assert!(
        error.contains("--cache-namespace has no meaning"),
        "{error}"
    );
}
