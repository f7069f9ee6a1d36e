//! Containers of pods and what becomes of them, with and without a private root.

use serde_json::{Value, json};

use super::*;
use crate::pod::fields::Allocatable;
use crate::process::init::message::{Confinement, UserMap};
use crate::volume::Ownership;

fn images() -> ImageTable {
    let runtime = Image::program("/opt/bin/runtime")
        .names(["runtime"])
        .unwrap()
        .entrypoint_args(["--listen", "$(POD_IP):8888"])
        .env("BASE", "$(CONTAINER_ROOT)/app")
        .user(1000, 1000)
        .directory("/app")
        .working_dir("/app")
        .port(8888)
        .init(Init::Own);
    let fixed = Image::program("/opt/bin/fixed").names(["fixed"]).unwrap();
    ImageTable::host_defaults().with(runtime).with(fixed)
}

fn isolation(confinement: Confinement) -> Isolation {
    Isolation::describe(confinement, vec!["no namespaces".into()])
}

fn prepared_under(isolation: &Isolation, pod: Value, container: Value) -> Result<Launch, Refusal> {
    let mut pod = pod;
    pod["metadata"]["name"] = json!("p-1");
    let mut container = container;
    container["name"] = json!("c");
    pod["spec"]["containers"] = json!([container]);
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let spec = pod.spec.as_ref().unwrap();
    let volumes = PodVolumes::parse(&pod, spec, "/state/v".into(), Ownership::default()).unwrap();
    prepare(&Inputs {
        facts: fields::Facts {
            pod: &pod,
            node_name: "n",
            host_ip: "127.0.0.1".parse().unwrap(),
            pod_ip: Some("127.100.0.9".parse().unwrap()),
            allocatable: Allocatable {
                cpus: 1,
                memory_bytes: 1,
                storage_bytes: 1,
            },
        },
        spec,
        container: &spec.containers[0],
        images: &images(),
        isolation,
        snapshot: &Snapshot::default(),
        volumes: &volumes,
        directory: Path::new("/state/c"),
    })
    .map(|prepared| prepared.launch)
}

fn prepared(pod: Value, container: Value) -> Result<Launch, Refusal> {
    let isolation = isolation(Confinement::Namespaces(UserMap::Single));
    prepared_under(&isolation, pod, container)
}

fn env<'a>(launch: &'a Launch, name: &str) -> Option<&'a str> {
    let found = launch.process.env.iter().find(|(key, _)| key == name)?;
    Some(&found.1)
}

fn file<'a>(launch: &'a Launch, path: &str) -> &'a str {
    let mut files = launch.root.files.iter();
    let found = files.find(|file| file.path == Path::new(path));
    &found.unwrap().content
}

#[test]
fn names_are_resolved_as_the_pod_or_the_host_says() {
    let of = |spec: Value| {
        let launch = prepared(json!({"spec": spec}), json!({"image": "busybox"})).unwrap();
        file(&launch, "/etc/resolv.conf").to_owned()
    };
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert_eq!(
        of(json!({"dnsPolicy": "ClusterFirst"})).trim_end(),
        host.trim_end()
    );
    let own = of(json!({"dnsPolicy": "None", "dnsConfig": {
        "nameservers": ["127.0.0.53", "::1"], "searches": ["a.example", "b.example"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }}));
    assert_eq!(
        own,
        "nameserver 127.0.0.53\nnameserver ::1\nsearch a.example b.example\noptions ndots:2 edns0\n"
    );
}

#[test]
fn an_image_supplies_what_the_pod_leaves_open() {
    let launch = prepared(json!({}), json!({"image": "registry/runtime:1"})).unwrap();
    assert_eq!(
        launch.process.argv,
        ["/.image/bin/runtime", "--listen", "127.100.0.9:8888"]
    );
    assert_eq!(launch.main, Main::PidOne);
    assert_eq!(launch.process.cwd, Path::new("/app"));
    assert_eq!(launch.process.user.uid, 1000);
    assert_eq!(env(&launch, "BASE"), Some("/app"));
    assert_eq!(env(&launch, "HOSTNAME"), Some("p-1"));
    assert_eq!(env(&launch, "HOME"), Some("/home/user"));
    assert!(env(&launch, "PATH").unwrap().starts_with("/.image/bin:"));
    let program = launch.root.binds.last().unwrap();
    assert_eq!(program.target, Path::new("/.image/bin/runtime"));
    assert!(launch.root.directories.contains(&PathBuf::from("/app")));
    let hosts = file(&launch, "/etc/hosts");
    assert!(hosts.contains("127.100.0.9\tp-1\n"), "{hosts}");
}

#[test]
fn a_pod_overrides_and_expands() {
    let launch = prepared(
        json!({"spec": {"hostname": "other", "subdomain": "sub",
               "hostAliases": [{"ip": "127.0.0.5", "hostnames": ["a", "b"]}]}}),
        json!({
            "image": "busybox",
            "command": ["sh", "-c"], "args": ["echo $(WHO) $$(WHO) $(NOT)"],
            "workingDir": "/srv/x",
            "env": [{"name": "WHO", "value": "me"}, {"name": "HOME", "value": "/elsewhere"}],
            "resources": {"limits": {"ephemeral-storage": "1Mi"}},
        }),
    )
    .unwrap();
    assert_eq!(launch.process.argv, ["sh", "-c", "echo me $(WHO) $(NOT)"]);
    assert_eq!(launch.process.cwd, Path::new("/srv/x"));
    assert_eq!(env(&launch, "HOME"), Some("/elsewhere"));
    assert_eq!(launch.process.limits.file_size, Some(1 << 20));
    assert_eq!(launch.hostname, "other");
    assert_eq!(launch.main, Main::Supervised);
    let hosts = file(&launch, "/etc/hosts");
    assert!(
        hosts.contains("\tother.sub\tother\n127.0.0.5\ta\tb\n"),
        "{hosts}"
    );
}

#[test]
fn refusals_have_the_reasons_of_a_kubelet() {
    for (container, reason, text) in [
        (json!({"image": "nginx"}), Reason::ErrImagePull, "nginx"),
        (
            json!({"image": "Not Valid"}),
            Reason::InvalidImageName,
            "Not Valid",
        ),
        (
            json!({"image": "busybox", "securityContext": {"privileged": true}}),
            Reason::CreateContainerConfigError,
            "privileged",
        ),
        (
            json!({"image": "busybox", "envFrom": [{"secretRef": {"name": "s"}}]}),
            Reason::CreateContainerConfigError,
            "secret \"s\" not found",
        ),
        (
            json!({"image": "busybox", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
            Reason::CreateContainerConfigError,
            "no volume \"v\"",
        ),
    ] {
        let refusal = prepared(json!({}), container).unwrap_err();
        assert_eq!(refusal.reason, reason);
        assert!(refusal.message.contains(text), "{refusal:?}");
    }
    // What may still appear is waited for.
    let missing = json!({"image": "busybox", "envFrom": [{"secretRef": {"name": "s"}}]});
    assert!(!prepared(json!({}), missing).unwrap_err().is_final);
}

#[test]
fn without_a_private_root_paths_are_moved_or_refused() {
    let landlock = isolation(Confinement::Landlock { uid_base: None });
    let launch = prepared_under(&landlock, json!({}), json!({"image": "runtime"})).unwrap();
    assert_eq!(launch.process.argv[0], "/opt/bin/runtime");
    assert_eq!(env(&launch, "BASE"), Some("/state/c/root/app"));
    assert_eq!(env(&launch, "TMPDIR"), Some("/state/c/root/tmp"));
    assert_eq!(launch.process.cwd, Path::new("/state/c/root/app"));
    assert_eq!(launch.main, Main::Supervised);
    let pod = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    let mounting = |image: &str| {
        let mounts = json!([{"name": "v", "mountPath": "/app/v"}]);
        let container = json!({"image": image, "volumeMounts": mounts});
        prepared_under(&landlock, pod.clone(), container)
    };
    mounting("runtime").unwrap();
    let refusal = mounting("fixed").unwrap_err();
    assert!(refusal.message.contains("no namespaces"), "{refusal:?}");
}

#[test]
fn ports_come_from_the_pod_and_its_images() {
    let spec = serde_json::from_value(json!({"containers": [
        {"name": "a", "image": "runtime", "ports": [
            {"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]},
        {"name": "b", "image": "unknown", "ports": [{"containerPort": 80}]},
    ]}))
    .unwrap();
    assert_eq!(ports(&spec, &images()), [80, 8888]);
}
