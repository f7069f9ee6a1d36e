//! Volumes, and what a link in one of them may lead to.

use std::os::unix::fs::symlink;

use super::*;

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
