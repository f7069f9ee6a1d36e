//! How programs start and end, alone, together with what they started, and with the node.

use std::ffi::OsStr;

use rustix::process::Signal;

use super::*;
use crate::process::container::OUTPUT_LIMIT;
use crate::process::test_host::DOOMED_HOST;

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
        assert_eq!((loud.code, loud.output.len()), (0, OUTPUT_LIMIT));
        let missing = run(&["no-such-program"]).await;
        assert!(matches!(missing, Err(StartError::Exec(_))), "{missing:?}");
        // It is confined like the container.
        let caps = run(&["grep", "-E", "^(CapEff|NoNewPrivs)", "/proc/self/status"])
            .await
            .unwrap();
        assert_eq!(caps.output, "CapEff:\t0000000000000000\nNoNewPrivs:\t1\n");
        // A caller that loses patience ends it.
        let sleep = unique_sleep();
        let marked = marker(&sleep);
        let argv: Vec<&str> = sleep.split(' ').collect();
        tokio::select! {
            outcome = run(&argv) => panic!("{outcome:?}"),
            () = until_processes(&marked, |number| number > 0) => {}
        }
        none_left(&marked).await;
        container.kill();
        within(container.wait()).await;
        let ended = run(&["true"]).await;
        if bench.private_root() {
            assert!(ended.unwrap_err().to_string().contains("ended"));
        }
    }
}

/// What the doomed process does: it starts a container with a daemon in it and waits to be killed.
#[allow(
    clippy::print_stdout,
    reason = "the pipe to the test is standard output"
)]
pub(in crate::process) fn doomed_host(state: &OsStr, confinement: &OsStr) {
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
            .arg(DOOMED_HOST)
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
        until_processes(&marker(&sleep), |number| number >= 4).await;
        host.start_kill().unwrap();
        within(host.wait()).await.unwrap();
        none_left(&marker(&sleep)).await;
    }
}
