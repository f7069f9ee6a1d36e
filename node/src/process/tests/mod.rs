//! Real processes under every confinement that this machine allows.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

mod confinement;
mod lifetime;
mod mounts;

pub(super) use self::lifetime::doomed_host;
use super::container::{Container, StartError};
use super::init::message::{
    Access, Bind, Confinement, Launch, Limits, Main, Process, Root, TextFile, User, UserMap,
};
use super::isolation::{self, DEFAULT_ID_BASE};
use super::leftovers::Records;
use super::spawn::{InitProgram, Spawner};
use crate::test_wait::{eventually, within};

struct Bench {
    spawner: Spawner,
    records: Arc<Records>,
    state: TempDir,
    confinement: Confinement,
}

/// Every confinement that works for this user on this kernel; the tests below run under each.
fn confinements() -> Vec<Confinement> {
    let privileged = rustix::process::geteuid().is_root();
    let uid_base = privileged.then_some(DEFAULT_ID_BASE);
    let mut list = vec![
        Confinement::Namespaces(UserMap::Single),
        Confinement::Landlock { uid_base },
    ];
    if privileged {
        list.push(Confinement::Namespaces(UserMap::Range {
            base: DEFAULT_ID_BASE,
        }));
    }
    list
}

fn benches() -> Vec<Bench> {
    confinements().into_iter().map(Bench::new).collect()
}

fn namespaced() -> Vec<Bench> {
    benches()
        .into_iter()
        .filter(|bench| matches!(bench.confinement, Confinement::Namespaces(_)))
        .collect()
}

impl Bench {
    fn new(confinement: Confinement) -> Self {
        let state = tempfile::tempdir().unwrap();
        // Containers run as other users when the test has privileges.
        fs::set_permissions(state.path(), fs::Permissions::from_mode(0o711)).unwrap();
        Self {
            spawner: Spawner::new(InitProgram::current()).unwrap(),
            records: Arc::new(Records::open(state.path().join("running")).unwrap()),
            confinement,
            state,
        }
    }

    fn private_root(&self) -> bool {
        matches!(self.confinement, Confinement::Namespaces(_))
    }

    fn root(&self, name: &str) -> PathBuf {
        let path = self.state.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn launch(&self, name: &str, argv: &[&str]) -> Launch {
        let directory = self.root(name);
        let cwd = if self.private_root() {
            PathBuf::from("/work")
        } else {
            directory.join("work")
        };
        Launch {
            confinement: self.confinement.clone(),
            root: Root {
                directory,
                host_paths: isolation::host_paths(),
                directories: vec!["/tmp".into(), "/work".into()],
                files: vec![TextFile {
                    path: "/etc/hostname".into(),
                    content: "pod-name\n".into(),
                }],
                ..Root::default()
            },
            hostname: "pod-name".into(),
            main: Main::Supervised,
            process: Process {
                argv: argv.iter().map(ToString::to_string).collect(),
                env: vec![("PATH".into(), "/usr/bin:/bin".into())],
                cwd,
                user: User {
                    uid: 1000,
                    gid: 1000,
                    groups: vec![],
                },
                ..Process::default()
            },
        }
    }

    async fn start(&self, launch: &Launch) -> Result<(Container, pipe::Receiver), StartError> {
        let (reader, writer) = std::io::pipe().unwrap();
        let stderr = writer.try_clone().unwrap();
        let container = self
            .spawner
            .launch("test", launch, writer.into(), stderr.into(), &self.records)
            .await?;
        let reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).unwrap();
        Ok((container, reader))
    }

    /// Runs a container to its end.
    async fn run(&self, launch: &Launch) -> (u8, String) {
        within(async {
            let (container, mut output) = self.start(launch).await.unwrap();
            let mut text = String::new();
            output.read_to_string(&mut text).await.unwrap();
            (container.wait().await, text)
        })
        .await
    }

    async fn shell(&self, script: &str) -> (u8, String) {
        self.run(&self.launch("c", &["sh", "-c", script])).await
    }
}

/// Processes whose command line holds `marker`.
fn processes(marker: &str) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            *pid != own && String::from_utf8_lossy(&line).contains(marker)
        })
        .collect()
}

/// A sleep that can be told from every other process of the machine.
fn unique_sleep() -> String {
    format!("sleep {}", 1_000_000_000 + fastrand::u64(0..1_000_000_000))
}

fn marker(sleep: &str) -> String {
    sleep.replace(' ', "\0")
}

/// Waits until this many processes, or what else is asked, have the marker.
async fn until_processes(marker: &str, enough: impl Fn(usize) -> bool) {
    eventually("processes", async || {
        enough(processes(marker).len()).then_some(())
    })
    .await;
}

async fn none_left(marker: &str) {
    until_processes(marker, |number| number == 0).await;
}

/// Reads until `text` has been seen.
async fn read_until(output: &mut pipe::Receiver, text: &str) -> String {
    within(async {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&seen).contains(text) {
            let read = output.read(&mut byte).await.unwrap();
            assert!(read > 0, "ended after {:?}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
        String::from_utf8(seen).unwrap()
    })
    .await
}
