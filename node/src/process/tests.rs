//! Real processes under every confinement that this machine allows.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::container::{Container, StartError};
use super::init::message::{
    Access, Bind, Confinement, Launch, Limits, Main, Process, Root, TextFile, User, UserMap,
};
use super::isolation::{self, DEFAULT_ID_BASE, Isolation, Level, Unconfined};
use super::leftovers::Records;
use super::spawn::{InitProgram, Spawner};

const DEADLINE: Duration = Duration::from_secs(30);

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

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("the deadline passed")
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

async fn none_left(marker: &str) {
    within(async {
        while !processes(marker).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
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

#[tokio::test]
async fn a_program_has_the_environment_it_is_given_and_no_other() {
    for bench in benches() {
        let mut launch = bench.launch("c", &["env"]);
        launch
            .process
            .env
            .push(("GREETING".into(), "hello world".into()));
        let (code, text) = bench.run(&launch).await;
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(code, 0, "{:?}: {text}", bench.confinement);
        assert_eq!(lines, ["GREETING=hello world", "PATH=/usr/bin:/bin"]);
    }
}

#[tokio::test]
async fn standard_input_is_empty_and_no_descriptor_leaks() {
    for bench in benches() {
        let (code, text) = bench
            .shell("read line; echo \"read $?\"; for f in /proc/self/fd/*; do if [ -e $f ]; then echo ${f##*/}; fi; done")
            .await;
        assert_eq!(code, 0, "{text}");
        assert_eq!(text, "read 1\n0\n1\n2\n", "{:?}", bench.confinement);
    }
}

#[tokio::test]
async fn the_exit_status_is_the_programs_or_its_signals() {
    for bench in benches() {
        assert_eq!(bench.shell("exit 7").await.0, 7);
        assert_eq!(bench.shell("kill -KILL $$").await.0, 137);
        assert_eq!(bench.shell("kill -TERM $$").await.0, 143);
    }
}

#[tokio::test]
async fn a_program_without_a_handler_ends_at_once_when_told_to() {
    for bench in benches() {
        within(async {
            let (container, mut output) = bench
                .start(&bench.launch("c", &["sh", "-c", "echo up; exec sleep 1000"]))
                .await
                .unwrap();
            read_until(&mut output, "up").await;
            container.signal(Signal::TERM);
            assert_eq!(container.wait().await, 143, "{:?}", bench.confinement);
        })
        .await;
    }
}

#[tokio::test]
async fn the_files_of_the_host_and_of_other_pods_are_out_of_reach() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let secret = home.path().join("secret");
    fs::write(&secret, "of the host").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    for bench in benches() {
        let other = bench.root("other-pod").join("secret");
        fs::write(&other, "of another pod").unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
        for path in [&secret, &other] {
            let (code, text) = bench.shell(&format!("cat {}", path.display())).await;
            assert_ne!(code, 0, "{:?} reads {}", bench.confinement, path.display());
            assert!(!text.contains("of "), "{text}");
        }
        // Neither can anything be written next to them.
        let (code, text) = bench
            .shell(&format!("echo x > {}/new", home.path().display()))
            .await;
        assert_ne!(code, 0, "{text}");
        let (_, text) = bench.shell("ls /home /root 2>&1").await;
        let listed = text.lines().find(|line| {
            !line.is_empty()
                && !line.ends_with(':')
                && !line.contains("cannot access")
                && !line.contains("cannot open")
        });
        assert_eq!(listed, None, "{:?} lists {text}", bench.confinement);
    }
}

#[tokio::test]
async fn a_private_root_has_only_what_a_container_has() {
    for bench in namespaced() {
        let (code, text) = bench
            .shell("ls -d /proc/1/root/* | wc -l; ls /; ls /dev; cat /etc/hostname; hostname; id -u; pwd; ps ax -o comm= | sort | tr '\\n' ' '")
            .await;
        assert_eq!(code, 0, "{text}");
        for absent in [
            "home", "root\n", "boot", "srv", "mnt", "sys", "var", "run", "kmsg", "mem\n", "vda",
        ] {
            assert!(!text.contains(absent), "{absent:?} is in {text}");
        }
        assert!(text.contains("pod-name\npod-name\n1000\n/work\n"), "{text}");
        // Only the container's own processes are visible.
        let programs = text.lines().last().unwrap();
        assert!(
            !programs.contains("cargo") && programs.contains("ps"),
            "{programs}"
        );
    }
}

#[tokio::test]
async fn nothing_is_left_to_regain() {
    for bench in benches() {
        let (code, text) = bench
            .shell("grep -E '^(CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs)' /proc/self/status; umask; ulimit -c")
            .await;
        assert_eq!(code, 0, "{text}");
        for line in [
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "CapAmb:\t0000000000000000",
            "NoNewPrivs:\t1",
            "0022",
            "0",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{:?}: {line} is not in {text}",
                bench.confinement
            );
        }
        // An ordinary user cannot shrink the bounding set, but cannot use it either.
        if bench.private_root() || rustix::process::geteuid().is_root() {
            assert!(text.contains("CapBnd:\t0000000000000000"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_superuser_inside_is_nobody_outside() {
    for bench in namespaced() {
        let mut launch = bench.launch(
            "c",
            &["sh", "-c", "id -u; mount -t tmpfs none /tmp 2>&1; mount -o remount,rw,bind /usr 2>&1; echo x > /usr/x; echo 1 > /proc/sys/kernel/sysrq; touch /work/mine"],
        );
        launch.process.user = User::default();
        // Chown and override file permissions, as container engines grant.
        launch.process.capabilities = vec![0, 1];
        let (_, text) = bench.run(&launch).await;
        assert!(text.starts_with("0\n"), "{text}");
        assert!(!Path::new("/usr/x").exists());
        let owner = fs::metadata(bench.root("c").join("work/mine")).unwrap();
        let expected = match bench.confinement {
            Confinement::Namespaces(UserMap::Range { base }) => base,
            _ => rustix::process::geteuid().as_raw(),
        };
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), expected);
    }
}

#[tokio::test]
async fn volumes_appear_at_their_paths_with_their_access() {
    for bench in namespaced() {
        let volume = bench.root("volume");
        fs::create_dir(volume.join("sub")).unwrap();
        fs::write(volume.join("sub/file"), "content").unwrap();
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)).unwrap();
        let bind = |target: &str, sub_path: Option<&str>, access| Bind {
            source: volume.clone(),
            sub_path: sub_path.map(PathBuf::from),
            target: target.into(),
            access,
        };
        let mut launch = bench.launch(
            "c",
            &["sh", "-c", "cat /data/sub/file /one /ro/file; echo new > /data/new; echo new > /ro/new; ls /made"],
        );
        launch.root.binds = vec![
            bind("/data", None, Access::ReadWrite),
            bind("/one", Some("sub/file"), Access::ReadWrite),
            bind("/ro", Some("sub"), Access::ReadOnly),
            bind("/made", Some("missing/deep"), Access::ReadWrite),
        ];
        let (code, text) = bench.run(&launch).await;
        assert_eq!(code, 0, "{text}");
        assert!(text.starts_with("contentcontentcontent"), "{text}");
        assert!(text.contains("Read-only"), "{text}");
        assert_eq!(fs::read_to_string(volume.join("new")).unwrap(), "new\n");
        assert!(!volume.join("sub/new").exists() && volume.join("missing/deep").is_dir());
    }
}

#[tokio::test]
async fn a_link_in_a_volume_leads_nowhere_outside() {
    for bench in namespaced() {
        let volume = bench.root("volume");
        let outside = bench.root("outside");
        fs::write(outside.join("secret"), "secret").unwrap();
        symlink(&outside, volume.join("absolute")).unwrap();
        symlink("../outside", volume.join("relative")).unwrap();
        for sub_path in ["absolute", "relative", "relative/secret"] {
            let mut launch = bench.launch("c", &["true"]);
            launch.root.binds = vec![Bind {
                source: volume.clone(),
                sub_path: Some(sub_path.into()),
                target: "/data".into(),
                access: Access::ReadWrite,
            }];
            let error = bench.start(&launch).await.unwrap_err();
            assert!(error.to_string().contains(sub_path), "{error}");
        }
        // A mount point inside such a volume is made where a process inside would find it.
        let mut launch = bench.launch("c", &["sh", "-c", "ls -A /data/absolute/"]);
        launch.root.binds = vec![
            Bind {
                source: volume.clone(),
                sub_path: None,
                target: "/data".into(),
                access: Access::ReadWrite,
            },
            Bind {
                source: bench.root("inner"),
                sub_path: None,
                target: Path::new("/data/absolute/inner").into(),
                access: Access::ReadWrite,
            },
        ];
        // The link dangles inside, so this cannot work, and nothing may appear outside.
        bench.start(&launch).await.unwrap_err();
        assert!(!outside.join("inner").exists());
    }
}

#[tokio::test]
async fn a_read_only_root_can_only_be_written_in_volumes() {
    for bench in namespaced() {
        let volume = bench.root("volume");
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)).unwrap();
        let mut launch = bench.launch(
            "c",
            &[
                "sh",
                "-c",
                "touch /work/a; touch /tmp/b; touch /data/c && echo ok > /dev/null && echo done",
            ],
        );
        launch.root.read_only = true;
        launch.root.binds = vec![Bind {
            source: volume,
            sub_path: None,
            target: "/data".into(),
            access: Access::ReadWrite,
        }];
        let (code, text) = bench.run(&launch).await;
        assert_eq!(code, 0, "{text}");
        assert_eq!(text.matches("Read-only").count(), 2, "{text}");
        assert!(text.ends_with("done\n"), "{text}");
    }
}

#[tokio::test]
async fn a_failed_start_says_why_and_leaves_nothing() {
    for bench in benches() {
        let missing = bench.start(&bench.launch("c", &["no-such-program"])).await;
        let Err(StartError::Exec(message)) = missing else {
            panic!("{missing:?}")
        };
        assert!(
            message.contains("no-such-program") && message.contains("not found in $PATH"),
            "{message}"
        );
        let directory = bench.start(&bench.launch("c", &["/usr"])).await;
        assert!(
            matches!(directory, Err(StartError::Exec(_))),
            "{directory:?}"
        );
        let empty = bench.start(&bench.launch("c", &[])).await;
        assert!(matches!(empty, Err(StartError::Exec(_))), "{empty:?}");
        let records = fs::read_dir(bench.state.path().join("running")).unwrap();
        assert_eq!(records.count(), 0);
    }
    for bench in namespaced() {
        let mut launch = bench.launch("c", &["true"]);
        launch.root.binds = vec![Bind {
            source: "/no/such/volume".into(),
            sub_path: None,
            target: "/data".into(),
            access: Access::ReadWrite,
        }];
        let failed = bench.start(&launch).await;
        let Err(StartError::Setup(message)) = failed else {
            panic!("{failed:?}")
        };
        assert!(message.contains("/data"), "{message}");
    }
}

#[tokio::test]
async fn daemons_and_orphans_end_with_the_main_program() {
    for bench in benches() {
        let sleep = unique_sleep();
        let script = format!(
            "setsid {sleep} >/dev/null 2>&1 & (setsid sh -c '{sleep} & {sleep}' >/dev/null 2>&1 &); echo up; read x < /proc/self/fd/0; exit 3"
        );
        let launch = bench.launch("c", &["sh", "-c", &script]);
        let (code, _) = bench.run(&launch).await;
        assert_eq!(code, 3);
        assert_eq!(
            processes(&marker(&sleep)),
            Vec::<i32>::new(),
            "{:?}",
            bench.confinement
        );
    }
}

#[tokio::test]
async fn killing_and_dropping_take_the_whole_tree() {
    for bench in benches() {
        for dropped in [false, true] {
            let sleep = unique_sleep();
            let script = format!("trap '' TERM; setsid {sleep} & echo up; {sleep}; {sleep}");
            let (container, mut output) = bench
                .start(&bench.launch("c", &["sh", "-c", &script]))
                .await
                .unwrap();
            read_until(&mut output, "up").await;
            if dropped {
                drop(container);
            } else {
                container.kill();
                assert_eq!(
                    within(container.wait()).await,
                    137,
                    "{:?}",
                    bench.confinement
                );
            }
            none_left(&marker(&sleep)).await;
        }
    }
}

#[tokio::test]
async fn a_program_that_is_its_own_init_runs_without_a_second_process() {
    for bench in namespaced() {
        let mut launch = bench.launch(
            "c",
            &[
                "sh",
                "-c",
                "echo $$; trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done",
            ],
        );
        launch.main = Main::PidOne;
        let (container, mut output) = bench.start(&launch).await.unwrap();
        assert_eq!(read_until(&mut output, "up").await, "1\nup");
        let children = fs::read_to_string(format!("/proc/{}/stat", container.pid())).unwrap();
        assert!(children.contains("(sh)"), "{children}");
        container.signal(Signal::TERM);
        assert_eq!(within(container.wait()).await, 5);
        let failed = bench
            .start(&Launch {
                process: Process {
                    argv: vec!["nope".into()],
                    ..launch.process.clone()
                },
                ..launch.clone()
            })
            .await;
        assert!(matches!(failed, Err(StartError::Exec(_))), "{failed:?}");
    }
}

#[tokio::test]
async fn a_pause_container_waits_to_be_told() {
    for bench in benches() {
        let mut launch = bench.launch("c", &[]);
        launch.main = Main::Pause;
        let (container, _output) = bench.start(&launch).await.unwrap();
        container.signal(Signal::TERM);
        assert_eq!(within(container.wait()).await, 143);
    }
}

#[tokio::test]
async fn limits_hold() {
    for bench in benches() {
        let mut launch = bench.launch("c", &["sh", "-c", "ulimit -n; ulimit -f"]);
        launch.process.limits = Limits {
            open_files: Some(77),
            processes: None,
            file_size: Some(512 * 100),
        };
        let (_, text) = bench.run(&launch).await;
        assert_eq!(text, "77\n100\n");
    }
}

#[tokio::test]
async fn a_second_program_runs_inside_the_container() {
    for bench in benches() {
        let (container, mut output) = bench
            .start(&bench.launch(
                "c",
                &["sh", "-c", "echo here > mine; echo up; exec sleep 1000"],
            ))
            .await
            .unwrap();
        read_until(&mut output, "up").await;
        let process = |argv: &[&str]| Process {
            argv: argv.iter().map(ToString::to_string).collect(),
            ..bench.launch("c", &[]).process
        };
        let run = |argv: &[&str]| within(bench.spawner.exec("probe", &container, process(argv)));
        let outcome = run(&["sh", "-c", "cat mine; echo err >&2; exit 4"])
            .await
            .unwrap();
        assert_eq!((outcome.code, outcome.output.as_str()), (4, "here\nerr\n"));
        let loud = run(&["sh", "-c", "head -c 1000000 /dev/zero"])
            .await
            .unwrap();
        assert_eq!(
            (loud.code, loud.output.len()),
            (0, super::container::OUTPUT_LIMIT)
        );
        let missing = run(&["no-such-program"]).await;
        assert!(matches!(missing, Err(StartError::Exec(_))), "{missing:?}");
        // It is confined like the container.
        let caps = run(&["grep", "-E", "^(CapEff|NoNewPrivs)", "/proc/self/status"])
            .await
            .unwrap();
        assert_eq!(caps.output, "CapEff:\t0000000000000000\nNoNewPrivs:\t1\n");
        // A caller that loses patience ends it.
        let sleep = unique_sleep();
        let argv: Vec<&str> = sleep.split(' ').collect();
        tokio::select! {
            outcome = run(&argv) => panic!("{outcome:?}"),
            () = async {
                while processes(&marker(&sleep)).is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            } => {}
        }
        none_left(&marker(&sleep)).await;
        container.kill();
        within(container.wait()).await;
        let ended = run(&["true"]).await;
        if bench.private_root() {
            assert!(ended.unwrap_err().to_string().contains("ended"));
        }
    }
}

#[tokio::test]
async fn the_strongest_isolation_is_chosen_and_reported() {
    let bench = Bench::new(Confinement::Plain { uid_base: None });
    let isolation = Isolation::detect(
        &bench.spawner,
        &bench.records,
        bench.state.path(),
        Unconfined::Refuse,
        DEFAULT_ID_BASE,
    )
    .await
    .unwrap();
    // Not on every machine, but on every machine that runs these tests.
    assert_eq!(
        isolation.level(),
        Level::Namespaces,
        "{:?}",
        isolation.missing()
    );
    assert!(
        isolation.to_string().starts_with("namespaces ("),
        "{isolation}"
    );
    assert!(
        isolation
            .missing()
            .iter()
            .any(|line| line.contains("network"))
    );
    assert!(!bench.state.path().join("probe").exists());
}

/// What the doomed process does: it starts a container with a daemon in it and waits to be killed.
#[allow(
    clippy::print_stdout,
    reason = "the pipe to the test is standard output"
)]
pub(super) fn doomed_host(state: &OsStr, confinement: &OsStr) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bench = Bench {
            spawner: Spawner::new(InitProgram::current()).unwrap(),
            records: Arc::new(Records::open(Path::new(state).join("running")).unwrap()),
            state: TempDir::with_prefix_in("doomed", state).unwrap(),
            confinement: serde_json::from_str(confinement.to_str().unwrap()).unwrap(),
        };
        fs::set_permissions(bench.state.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let sleep = fs::read_to_string(Path::new(state).join("sleep")).unwrap();
        let script = format!("trap '' TERM HUP; setsid {sleep} & echo up; {sleep}");
        let mut containers = Vec::new();
        for main in [Main::Supervised, Main::PidOne] {
            let mut launch = bench.launch("c", &["sh", "-c", &script]);
            launch.main = main;
            let (container, mut output) = bench.start(&launch).await.unwrap();
            read_until(&mut output, "up").await;
            containers.push((container, output));
        }
        println!("up");
        std::future::pending::<()>().await;
    });
}

#[tokio::test]
async fn a_killed_node_leaves_no_orphan() {
    for confinement in confinements() {
        let state = tempfile::tempdir().unwrap();
        fs::set_permissions(state.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let sleep = unique_sleep();
        fs::write(state.path().join("sleep"), &sleep).unwrap();
        let mut host = tokio::process::Command::new("/proc/self/exe")
            .arg(super::test_host::DOOMED_HOST)
            .arg(state.path())
            .arg(serde_json::to_string(&confinement).unwrap())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut ready = [0; 3];
        within(host.stdout.take().unwrap().read_exact(&mut ready))
            .await
            .unwrap();
        within(async {
            while processes(&marker(&sleep)).len() < 4 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        host.start_kill().unwrap();
        within(host.wait()).await.unwrap();
        none_left(&marker(&sleep)).await;
    }
}
