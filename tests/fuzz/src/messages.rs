//! Calls of the gRPC face: a command is what was asked for, inside the root, or it is refused with a reason; and no
//! body of a call breaks the server.
//!
//! The server lets no command run, so that whatever passes its checks ends there.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use agent_sandbox_runtime::files::Root;
use agent_sandbox_runtime::fuzzing::{Prepared, prepared};
use agent_sandbox_runtime::proto::process::v1::{
    ExecuteRequest, ProcessConfig, ResizeTtyRequest, SendSignalRequest, StartRequest,
    WriteStdinRequest,
};
use agent_sandbox_runtime::{Config, Runtime};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use prost::Message;
use tower::ServiceExt;

/// What is asked of the service.
const METHODS: [&str; 5] = ["Start", "Execute", "WriteStdin", "SendSignal", "ResizeTTY"];
/// In the first byte: the rest is the body as it stands, and not one message.
const BODY: u8 = 0x80;
/// Statuses by their numbers.
const OK: i32 = 0;
const UNKNOWN: i32 = 2;
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const RESOURCE_EXHAUSTED: i32 = 8;
const INTERNAL: i32 = 13;

/// A server of this thread that runs nothing, beside a directory that it must not reach.
struct Server {
    _outer: tempfile::TempDir,
    root: Root,
    path: PathBuf,
    runtime: Runtime,
    tokio: tokio::runtime::Runtime,
}

thread_local! {
    static SERVER: Server = Server::new();
}

impl Server {
    fn new() -> Self {
        let outer = tempfile::tempdir().expect("a directory can be made");
        let path = outer.path().join("root");
        fs::create_dir_all(path.join("a/b")).expect("a directory can be made");
        fs::create_dir(outer.path().join("outside")).expect("a directory can be made");
        fs::write(path.join("file"), "").expect("a file can be made");
        for (link, target) in [
            ("in", "a/b"),
            ("out", "../outside"),
            ("up", ".."),
            ("round", "round"),
        ] {
            symlink(target, path.join(link)).expect("a link can be made");
        }
        let path = path.canonicalize().expect("the root is there");
        let mut config = Config::new(&path);
        config.max_processes = 0;
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime starts");
        let _inside = tokio.enter();
        Self {
            root: Root::open(&path).expect("the root can be opened"),
            runtime: Runtime::builder(config)
                .build()
                .expect("a server can be set up"),
            _outer: outer,
            path,
            tokio,
        }
    }

    /// The status with which a call is answered.
    fn call(&self, method: &str, body: Vec<u8>) -> i32 {
        let request = Request::post(format!("/process.v1.ProcessService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from(body)))
            .expect("the request is one");
        self.tokio.block_on(async {
            let answer = self.runtime.router().oneshot(request).await;
            let answer = answer.expect("a router answers");
            assert_eq!(answer.status(), 200);
            let (head, body) = answer.into_parts();
            let body = body.collect().await.expect("the answer has an end");
            let told = status(&head.headers).or_else(|| status(body.trailers()?));
            told.expect("a call is answered with a status")
        })
    }

    /// Refuses what no process can have, and changes nothing of the rest.
    fn wanted(&self, config: Option<ProcessConfig>) -> i32 {
        let made = prepared(&self.root, config.clone()).expect("there are descriptors");
        let Some(config) = config else {
            assert_eq!(made.err(), Some(INVALID_ARGUMENT));
            return INVALID_ARGUMENT;
        };
        let impossible = config.command.iter().any(|word| word.contains('\0'))
            || config.env_vars.iter().any(|(name, value)| {
                name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
            });
        let elsewhere = config.cwd.as_deref().is_some_and(|cwd| !cwd.is_empty());
        match made {
            Ok(made) => {
                assert!(!impossible, "{config:?}");
                self.same(&config, &made, elsewhere);
                if config.command.is_empty() {
                    INVALID_ARGUMENT
                } else {
                    RESOURCE_EXHAUSTED
                }
            }
            Err(status) => {
                assert!(
                    impossible || elsewhere,
                    "{config:?} is refused with {status}"
                );
                if !elsewhere {
                    assert_eq!(status, INVALID_ARGUMENT, "{config:?}");
                }
                assert!(
                    ![OK, UNKNOWN, INTERNAL].contains(&status),
                    "{config:?}: {status}"
                );
                status
            }
        }
    }

    fn same(&self, config: &ProcessConfig, made: &Prepared, elsewhere: bool) {
        let words: Vec<&[u8]> = config.command.iter().map(String::as_bytes).collect();
        assert_eq!(made.arguments, words);
        let variables: HashMap<OsString, OsString> = made.variables.iter().cloned().collect();
        assert_eq!(variables.len(), made.variables.len(), "{config:?}");
        for (name, value) in &config.env_vars {
            let found = variables.get(OsStr::from_bytes(name.as_bytes()));
            assert_eq!(found, Some(&OsString::from(value)), "{config:?}");
        }
        assert_eq!(variables.len(), config.env_vars.len(), "{config:?}");
        let link = format!("/proc/self/fd/{}", made.directory.as_raw_fd());
        let directory = fs::read_link(link).expect("the directory has a path");
        assert!(
            directory.is_dir() && directory.starts_with(&self.path),
            "{config:?}: {}",
            directory.display()
        );
        assert!(
            elsewhere || directory == self.path,
            "{config:?}: {}",
            directory.display()
        );
    }
}

/// Reads a byte that says which call it is, and its message or its body.
pub(crate) fn check(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else {
        return;
    };
    let number = usize::from(choice & !BODY) % METHODS.len();
    let Some(method) = METHODS.get(number) else {
        return;
    };
    SERVER.with(|server| {
        if choice & BODY != 0 {
            // Nothing runs, so nothing can go well; and what goes wrong is known.
            let status = server.call(method, rest.to_vec());
            assert!(![OK, UNKNOWN].contains(&status), "{method}: {status}");
            return;
        }
        let expected = match number {
            0 => read(rest, |message: StartRequest| server.wanted(message.config)),
            1 => read(rest, |message: ExecuteRequest| {
                server.wanted(message.config)
            }),
            2 => read(rest, |_: WriteStdinRequest| NOT_FOUND),
            3 => read(rest, |_: SendSignalRequest| NOT_FOUND),
            _ => read(rest, |_: ResizeTtyRequest| NOT_FOUND),
        };
        let length = u32::try_from(rest.len()).expect("an input is small");
        let body = [&[0], &length.to_be_bytes()[..], rest].concat();
        assert_eq!(server.call(method, body), expected, "{method}");
    });
}

/// The status of a message: that of one nobody can read, or what is said of it. What was read is read again from
/// what it is written as.
fn read<M: Message + Default + PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    judged: impl FnOnce(M) -> i32,
) -> i32 {
    let Ok(message) = M::decode(bytes) else {
        return INTERNAL;
    };
    let again = M::decode(message.encode_to_vec().as_slice());
    assert_eq!(again.as_ref(), Ok(&message));
    judged(message)
}

fn status(headers: &HeaderMap) -> Option<i32> {
    let text = headers.get("grpc-status")?.to_str().ok()?;
    Some(text.parse().expect("a status is a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERMISSION_DENIED: i32 = 7;

    fn answer(seed: &[u8]) -> i32 {
        let (choice, message) = seed.split_first().unwrap();
        let length = u32::try_from(message.len()).unwrap();
        let body = [&[0], &length.to_be_bytes()[..], message].concat();
        SERVER.with(|server| server.call(METHODS[usize::from(*choice)], body))
    }

    #[test]
    fn what_may_run_is_told_from_what_is_refused() {
        let seeds: [(&[u8], i32); 9] = [
            (
                include_bytes!("../seeds/messages/start"),
                RESOURCE_EXHAUSTED,
            ),
            (
                include_bytes!("../seeds/messages/execute"),
                RESOURCE_EXHAUSTED,
            ),
            (
                include_bytes!("../seeds/messages/cwd-link-in"),
                RESOURCE_EXHAUSTED,
            ),
            (
                include_bytes!("../seeds/messages/execute-empty"),
                INVALID_ARGUMENT,
            ),
            (
                include_bytes!("../seeds/messages/variable-with-equals"),
                INVALID_ARGUMENT,
            ),
            (
                include_bytes!("../seeds/messages/cwd-climbs"),
                PERMISSION_DENIED,
            ),
            (include_bytes!("../seeds/messages/cwd-absent"), NOT_FOUND),
            (include_bytes!("../seeds/messages/not-utf8"), INTERNAL),
            (include_bytes!("../seeds/messages/signal"), NOT_FOUND),
        ];
        for (seed, status) in seeds {
            assert_eq!(answer(seed), status, "{}", seed.escape_ascii());
        }
    }
}
