//! Flags and the configuration file: what is accepted can be run, and means the same when read again.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use agent_sandbox_router::args::{Args, ArgsError, Plan};

/// The text of the file, and after each NUL a flag.
pub(crate) fn check(bytes: &[u8]) {
    // Files that never end, or that are somebody's.
    for place in [&b"/dev"[..], b"/proc", b"/sys"] {
        if bytes.windows(place.len()).any(|window| window == place) {
            return;
        }
    }
    let mut parts = bytes.split(|byte| *byte == 0);
    let content = parts.next().unwrap_or_default();
    let mut file = tempfile::NamedTempFile::new().expect("a file can be made");
    file.write_all(content).expect("the file can be written");
    let mut line = vec![
        OsString::from("agent-sandbox-router"),
        "--authz-mode=allow-all".into(),
        "--config".into(),
        file.path().as_os_str().to_owned(),
    ];
    line.extend(parts.map(|flag| OsString::from_vec(flag.to_vec())));
    match read(&line) {
        Ok(plan) => {
            let settings = plan.settings.adjustable();
            for time in [
                settings.time.request,
                settings.time.connect,
                settings.time.idle,
                settings.time.request_header,
                settings.time.keep_alive,
            ] {
                assert!(time > Duration::ZERO);
            }
            assert!(settings.limits.connections > 0 && settings.limits.head > 0);
            assert!(plan.listeners.http.is_some() || plan.listeners.https.is_some());
            assert!(plan.listeners.https.is_none() || plan.tls.is_some());
            let again = read(&line).expect("what was accepted is accepted again");
            assert!(plan.lasting().differences(&again.lasting()).is_empty());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn read(line: &[OsString]) -> Result<Plan, ArgsError> {
    Args::read(line.iter().cloned()).and_then(Args::plan)
}
