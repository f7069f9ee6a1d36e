//! What the command line comes to.

use std::time::Duration;

use super::*;

fn parse(arguments: &[&str]) -> Result<Parsed, String> {
    let arguments = ["agent-sandbox-runtime"].iter().chain(arguments);
    Args::parse_from(arguments, []).map_err(|error| error.to_string())
}

#[test]
fn defaults_are_the_published_ones() {
    let config = parse(&[]).unwrap().config;
    assert_eq!(config.address.to_string(), "0.0.0.0");
    assert_eq!(config.ports, [8888]);
    assert_eq!(config.root, PathBuf::from("/app"));
    assert_eq!(config.exec_timeout, Duration::from_secs(300));
    assert_eq!(config.idle_timeout, Duration::from_secs(60));
    assert!(config.token.is_none() && config.max_upload_bytes.is_none());
}

#[test]
fn flags_reach_the_config() {
    let config = parse(&[
        "--address=127.3.0.7",
        "--port=8888",
        "--port=8080,9090",
        "--root-dir=/workspace",
        "--exec-timeout-seconds=0.5",
        "--max-processes=7",
        "--max-upload-bytes=9",
        "--token-file=/run/token",
    ])
    .unwrap()
    .config;
    let addresses: Vec<String> = config.addresses().map(|a| a.to_string()).collect();
    assert_eq!(
        addresses,
        ["127.3.0.7:8888", "127.3.0.7:8080", "127.3.0.7:9090"]
    );
    assert_eq!(config.root, PathBuf::from("/workspace"));
    assert_eq!(config.exec_timeout, Duration::from_millis(500));
    assert_eq!(
        (config.max_processes, config.max_upload_bytes),
        (7, Some(9))
    );
    assert!(matches!(config.token, Some(TokenSource::File(_))));
}

#[test]
fn bad_flags_are_named_with_what_is_expected() {
    for (arguments, texts) in [
        (["--root-dir", " "], ["--root-dir", "blank"]),
        (
            ["--exec-timeout-seconds", "soon"],
            ["--exec-timeout-seconds", "above 0"],
        ),
        (
            ["--exec-timeout-seconds", "nan"],
            ["--exec-timeout-seconds", "above 0"],
        ),
        (
            ["--exec-timeout-seconds", "0"],
            ["--exec-timeout-seconds", "above 0"],
        ),
        (
            ["--shutdown-timeout-seconds", "inf"],
            ["--shutdown-timeout-seconds", "above 0"],
        ),
        (
            ["--idle-timeout-seconds", "0"],
            ["--idle-timeout-seconds", "above 0"],
        ),
        (
            ["--http-idle-timeout=60s", "--idle-timeout=60"],
            ["--http-idle-timeout", "--idle-timeout-seconds"],
        ),
        (["--max-processes", "0"], ["--max-processes", "at least 1"]),
        (["--port", "99999"], ["--port", "99999"]),
        (["--address", "localhost"], ["--address", "localhost"]),
    ] {
        let error = parse(&arguments).unwrap_err();
        assert!(texts.iter().all(|text| error.contains(text)), "{error}");
    }
}

#[test]
fn flags_of_the_daemon_before_mean_what_they_meant() {
    let parsed = parse(&[
        "--listen-host=127.0.0.1",
        "-grpc-port=9091",
        "--shutdown-timeout=1m30s",
        "--http-idle-timeout=90s",
        "--stream-chunk-size=4096",
        "--zap-encoder=json",
    ])
    .unwrap();
    let config = parsed.config;
    let addresses: Vec<String> = config.addresses().map(|a| a.to_string()).collect();
    assert_eq!(addresses, ["127.0.0.1:8080", "127.0.0.1:9091"]);
    assert_eq!(config.root, PathBuf::from("/workspace"));
    assert_eq!(config.shutdown_timeout, Duration::from_secs(90));
    assert_eq!(config.idle_timeout, Duration::from_secs(90));
    assert_eq!(config.stream_chunk_bytes, Some(4096));
    // This program's own flags are not overruled.
    let config = parse(&["--port=8888", "--rest-port=8080", "--root-dir=/app"])
        .unwrap()
        .config;
    assert_eq!(config.ports, [8080, 8888, 9090]);
    assert_eq!(config.root, PathBuf::from("/app"));
    for (arguments, texts) in [
        (
            ["--rest-port=1", "--grpc-port=1"],
            ["--rest-port", "differ"],
        ),
        (["--rest-port=0", "--port=1"], ["--rest-port", "1.."]),
        (
            ["--listen-host=::1", "--address=::1"],
            ["--listen-host", "--address"],
        ),
        (["--http-idle-timeout", "0"], ["--http-idle-timeout", "60s"]),
        (
            ["--shutdown-timeout", "10"],
            ["--shutdown-timeout", "with units"],
        ),
    ] {
        let error = parse(&arguments).unwrap_err();
        assert!(texts.iter().all(|text| error.contains(text)), "{error}");
    }
}

#[test]
fn the_sender_of_answers_is_the_host_unless_it_is_named() {
    let identity = |arguments: &[&str]| {
        let arguments = ["runtime"].iter().chain(arguments);
        let environment = [("HOSTNAME".into(), "pod-7".into())];
        Args::parse_from(arguments, environment)
            .unwrap()
            .config
            .identity
    };
    assert_eq!(identity(&[]).unwrap(), "pod-7");
    assert_eq!(identity(&["--identity=box"]).unwrap(), "box");
    assert!(
        parse(&["--identity", "a\nb"])
            .unwrap_err()
            .contains("--identity")
    );
    assert!(
        parse(&["--command-limits", "x=1"])
            .unwrap_err()
            .contains("nproc")
    );
}

#[test]
fn seconds_are_finite_and_positive() {
    for good in ["1", "0.25", " 300 ", "1e3"] {
        assert!(seconds(good).is_ok(), "{good}");
    }
    for bad in ["", "0", "-1", "nan", "inf", "-inf", "1e400", "5s", "0x10"] {
        assert!(seconds(bad).is_err(), "{bad}");
    }
}

#[test]
fn connections_may_stay_idle_as_long_as_is_said() {
    for flag in ["--idle-timeout-seconds", "--idle-timeout"] {
        let config = parse(&[flag, "1.5"]).unwrap().config;
        assert_eq!(config.idle_timeout, Duration::from_millis(1500), "{flag}");
    }
    // It has a variable, as its neighbours have.
    let command = Args::command();
    let flag = command
        .get_arguments()
        .find(|flag| flag.get_id() == "idle_timeout_seconds");
    let variable = flag.and_then(clap::Arg::get_env).unwrap();
    assert_eq!(variable, "AGENT_SANDBOX_RUNTIME_IDLE_TIMEOUT_SECONDS");
}

#[test]
fn the_help_tells_what_is_no_flag_and_what_flags_change_besides() {
    let help = parse(&["--help"]).unwrap_err();
    for text in [
        "agent-sandbox-runtime install DIR",
        "`AGENT_SANDBOX_RUNTIME_TOKEN`",
        "--idle-timeout-seconds",
    ] {
        assert!(help.contains(text), "{text}: {help}");
    }
    let command = Args::command();
    for name in ["rest_port", "grpc_port"] {
        let flag = command.get_arguments().find(|flag| flag.get_id() == name);
        let text = flag.and_then(clap::Arg::get_help).unwrap().to_string();
        assert!(
            text.contains("--root-dir") && text.contains("/workspace"),
            "{text}"
        );
    }
}
