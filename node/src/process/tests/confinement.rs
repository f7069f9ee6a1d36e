//! What a program can see, reach and regain.

use super::*;
use crate::process::isolation::{Isolation, Level, Unconfined};

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
