//! From a container in a pod's spec to a process that can be started.
//!
//! Pure, except that the host's resolver configuration is read: everything else has been fetched.
//! Errors carry the reason under which the container waits.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::env::{self, Environment, expand};
use super::fields;
use super::phase::Reason;
use super::references::Snapshot;
use super::security::{self, Identity};
use crate::image::{self, Image, ImageError, ImageTable, Init, Program};
use crate::process::init::message::{Access, Bind, Launch, Limits, Main, Process, Root, TextFile};
use crate::process::isolation::{self, Isolation};
use crate::quantity::Amount;
use crate::volume::PodVolumes;

/// Open files that a process may have.
const OPEN_FILES: u64 = 65_536;

/// Processes and threads that a container may have; counted per user namespace.
const PROCESSES: u64 = 8192;

/// Files that containers expect and that are the host's where there is no private root.
const GENERATED: [&str; 5] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/passwd",
    "/etc/group",
];

/// Home of users other than the superuser.
const HOME: &str = "/home/user";

/// Where a container leaves its last words unless it says otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// What is known when a container is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) facts: fields::Facts<'a>,
    pub(crate) spec: &'a PodSpec,
    pub(crate) container: &'a Container,
    pub(crate) images: &'a ImageTable,
    pub(crate) isolation: &'a Isolation,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) volumes: &'a PodVolumes,
    /// Directory on the host for this run of the container.
    pub(crate) directory: &'a Path,
}

/// A container ready to be started.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) launch: Launch,
    /// File on the host that receives the termination message.
    pub(crate) termination_log: PathBuf,
    /// Keys that could not become environment variables.
    pub(crate) skipped_env: Vec<String>,
}

/// Why a container cannot be started as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// Whether waiting can help.
    pub(crate) is_final: bool,
}

impl Refusal {
    fn config(error: &impl ToString, is_final: bool) -> Self {
        Self {
            reason: Reason::CreateContainerConfigError,
            message: error.to_string(),
            is_final,
        }
    }
}

/// Finds the image of a container.
pub(crate) fn resolve_image<'t>(
    images: &'t ImageTable,
    container: &Container,
) -> Result<&'t Image, Refusal> {
    let name = container.image.as_deref().unwrap_or_default();
    images.resolve(name).map_err(|error| Refusal {
        reason: match error {
            ImageError::Invalid(_) => Reason::InvalidImageName,
            ImageError::Unknown { .. } => Reason::ErrImagePull,
        },
        message: error.to_string(),
        is_final: true,
    })
}

/// TCP ports that the containers of a pod listen on, by their own words or their images'.
pub(crate) fn ports(spec: &PodSpec, images: &ImageTable) -> Vec<u16> {
    let containers = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    let mut ports: Vec<u16> = containers
        .flat_map(|container| {
            let image = resolve_image(images, container).ok();
            let declared = container.ports.iter().flatten();
            let declared = declared
                .filter(|port| {
                    port.protocol
                        .as_deref()
                        .is_none_or(|protocol| protocol == "TCP")
                })
                .filter_map(|port| u16::try_from(port.container_port).ok());
            let of_image = image
                .into_iter()
                .flat_map(|image| image.ports.iter().copied());
            declared.chain(of_image).collect::<Vec<_>>()
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Builds the process of a container.
pub(crate) fn prepare(inputs: &Inputs<'_>) -> Result<Prepared, Refusal> {
    let Inputs {
        facts,
        spec,
        container,
        isolation,
        ..
    } = inputs;
    let image = resolve_image(inputs.images, container)?;
    let identity = security::identity(spec, container, image.user)
        .map_err(|error| Refusal::config(&error, true))?;
    let places = Places::new(isolation, inputs.directory);
    let environment = environment(inputs, image, &identity, &places)?;
    let mut binds = inputs
        .volumes
        .mounts(container, &environment)
        .map_err(|error| Refusal::config(&error, error.is_final()))?;
    if !isolation.has_private_root() && !binds.is_empty() && !image.is_relocatable() {
        return Err(Refusal::config(
            &format!(
                "volumes cannot be mounted here: {}",
                isolation.missing().join("; ")
            ),
            true,
        ));
    }
    let termination_log = inputs.directory.join("termination-log");
    binds.push(Bind {
        source: termination_log.clone(),
        sub_path: None,
        target: termination_path(container),
        access: Access::ReadWrite,
    });
    binds.extend(image_binds(image));
    let argv = argv(container, image, &environment, facts.pod_ip, &places);
    if argv.is_empty() && image.program != Program::Pause {
        let name = container.image.as_deref().unwrap_or_default();
        let message = format!("image {name:?} has no command; set the container's command");
        return Err(Refusal::config(&message, true));
    }
    let cwd = match container.working_dir.as_deref() {
        Some(path) if !path.is_empty() => Path::new("/").join(path),
        _ => image.working_dir.clone(),
    };
    let hostname = hostname(facts.pod, spec);
    let mut directories = vec![
        PathBuf::from("/tmp"),
        PathBuf::from("/var/tmp"),
        "/run".into(),
    ];
    directories.push(home(&identity).into());
    directories.extend(image.directories.iter().cloned());
    let mut host_paths = isolation::host_paths();
    if !isolation.has_private_root() {
        // Those that a private root generates.
        host_paths.extend(GENERATED.map(PathBuf::from));
    }
    host_paths.extend(image.host_paths.iter().cloned());
    Ok(Prepared {
        launch: Launch {
            confinement: isolation.confinement().clone(),
            root: Root {
                directory: places.root.clone(),
                read_only: identity.read_only_root,
                host_paths,
                directories,
                files: files(facts.pod_ip, spec, &hostname, &identity),
                links: links(image),
                binds,
            },
            hostname,
            main: match (&image.program, image.init, isolation.has_private_root()) {
                (Program::Pause, ..) if argv.is_empty() => Main::Pause,
                (_, Init::Own, true) => Main::PidOne,
                _ => Main::Supervised,
            },
            process: Process {
                argv,
                env: environment.variables,
                cwd: places.inside(&cwd),
                user: identity.user,
                limits: limits(container, isolation),
                capabilities: identity.capabilities,
            },
        },
        termination_log,
        skipped_env: environment.skipped,
    })
}

/// Where paths of the container are on the host, as seen by the container.
struct Places {
    root: PathBuf,
    private: bool,
}

impl Places {
    fn new(isolation: &Isolation, directory: &Path) -> Self {
        Self {
            root: directory.join("root"),
            private: isolation.has_private_root(),
        }
    }

    /// The path under which a program finds what it calls `path`.
    fn inside(&self, path: &Path) -> PathBuf {
        if self.private {
            return path.to_owned();
        }
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The value of `$(CONTAINER_ROOT)`.
    fn prefix(&self) -> String {
        if self.private {
            String::new()
        } else {
            self.root.display().to_string()
        }
    }
}

/// Names that images may refer to in arguments and environment.
fn builtin(name: &str, pod_ip: Option<IpAddr>, places: &Places) -> Option<String> {
    match name {
        "POD_IP" => pod_ip.map(|ip| ip.to_string()),
        "CONTAINER_ROOT" => Some(places.prefix()),
        _ => None,
    }
}

fn environment(
    inputs: &Inputs<'_>,
    image: &Image,
    identity: &Identity,
    places: &Places,
) -> Result<Environment, Refusal> {
    let pod_ip = inputs.facts.pod_ip;
    let hostname = hostname(inputs.facts.pod, inputs.spec);
    let bin = places.inside(Path::new(image::BIN));
    let path = image::PATH.replace(image::BIN, &bin.display().to_string());
    let home = places.inside(Path::new(home(identity)));
    let mut defaults = vec![
        ("PATH".to_owned(), path),
        ("HOSTNAME".to_owned(), hostname),
        ("HOME".to_owned(), home.display().to_string()),
    ];
    if !places.private {
        let temporary = places.inside(Path::new("/tmp"));
        defaults.push(("TMPDIR".to_owned(), temporary.display().to_string()));
    }
    for (name, value) in &image.env {
        let value = expand(value, |name| builtin(name, pod_ip, places));
        defaults.push((name.clone(), value));
    }
    env::build(&inputs.facts, inputs.container, defaults, inputs.snapshot)
        .map_err(|error| Refusal::config(&error, false))
}

fn argv(
    container: &Container,
    image: &Image,
    environment: &Environment,
    pod_ip: Option<IpAddr>,
    places: &Places,
) -> Vec<String> {
    let own = |list: &Option<Vec<String>>| -> Vec<String> {
        let expanded = list
            .iter()
            .flatten()
            .map(|text| expand(text, |name| environment.get(name).map(str::to_owned)));
        expanded.collect()
    };
    let of_image = |list: &[String]| -> Vec<String> {
        let expanded = list
            .iter()
            .map(|text| expand(text, |name| builtin(name, pod_ip, places)));
        expanded.collect()
    };
    let mut image = image.clone();
    image.entrypoint = of_image(&image.entrypoint);
    image.command = of_image(&image.command);
    if let (false, Program::Binary(program), Some(first)) =
        (places.private, &image.program, image.entrypoint.first_mut())
    {
        *first = program.display().to_string();
    }
    image.argv(&own(&container.command), &own(&container.args))
}

/// The image's own program at its place in the container.
fn image_binds(image: &Image) -> Option<Bind> {
    let Program::Binary(path) = &image.program else {
        return None;
    };
    Some(Bind {
        source: path.clone(),
        sub_path: None,
        target: Path::new(image::BIN).join(path.file_name()?),
        access: Access::ReadOnly,
    })
}

fn links(image: &Image) -> Vec<(PathBuf, PathBuf)> {
    let links = image.links.iter();
    links
        .map(|(name, target)| (Path::new(image::BIN).join(name), target.clone()))
        .collect()
}

fn termination_path(container: &Container) -> PathBuf {
    let path = container.termination_message_path.as_deref();
    let path = path
        .filter(|path| !path.is_empty())
        .unwrap_or(TERMINATION_LOG);
    Path::new("/").join(path)
}

fn home(identity: &Identity) -> &'static str {
    if identity.user.uid == 0 {
        "/root"
    } else {
        HOME
    }
}

/// The host name of a pod: its own wish, or its name, within the length the kernel allows.
fn hostname(pod: &Pod, spec: &PodSpec) -> String {
    let named = spec.hostname.as_deref().filter(|name| !name.is_empty());
    let name = named.or(pod.metadata.name.as_deref()).unwrap_or("pod");
    let name: String = name.chars().take(63).collect();
    name.trim_end_matches(['-', '.']).to_owned()
}

/// The files that Kubernetes and container engines provide.
fn files(
    pod_ip: Option<IpAddr>,
    spec: &PodSpec,
    hostname: &str,
    identity: &Identity,
) -> Vec<TextFile> {
    let file = |path: &str, lines: &[String]| TextFile {
        path: path.into(),
        content: lines.iter().flat_map(|line| [line, "\n"]).collect(),
    };
    let mut hosts = vec![
        "# Kubernetes-managed hosts file.".to_owned(),
        "127.0.0.1\tlocalhost".to_owned(),
        "::1\tlocalhost ip6-localhost ip6-loopback".to_owned(),
    ];
    if let Some(ip) = pod_ip {
        hosts.push(
            match spec.subdomain.as_deref().filter(|name| !name.is_empty()) {
                Some(subdomain) => format!("{ip}\t{hostname}.{subdomain}\t{hostname}"),
                None => format!("{ip}\t{hostname}"),
            },
        );
    }
    for alias in spec.host_aliases.iter().flatten() {
        let names = alias.hostnames.clone().unwrap_or_default().join("\t");
        hosts.push(format!("{}\t{names}", alias.ip));
    }
    let user = &identity.user;
    let mut passwd = vec!["root:x:0:0:root:/root:/bin/sh".to_owned()];
    let mut group = vec!["root:x:0:".to_owned()];
    if user.uid != 0 {
        passwd.push(format!("user:x:{}:{}::{HOME}:/bin/sh", user.uid, user.gid));
    }
    if user.gid != 0 {
        group.push(format!("user:x:{}:", user.gid));
    }
    passwd.push("nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin".to_owned());
    group.push("nogroup:x:65534:".to_owned());
    vec![
        file("/etc/resolv.conf", &resolver(spec)),
        file("/etc/hosts", &hosts),
        file("/etc/hostname", &[hostname.to_owned()]),
        file("/etc/passwd", &passwd),
        file("/etc/group", &group),
    ]
}

/// The lines of `/etc/resolv.conf`: the pod's own with `dnsPolicy: None`, else the host's, which may
/// change while the node runs. There is no cluster DNS.
fn resolver(spec: &PodSpec) -> Vec<String> {
    let config = spec.dns_config.clone().unwrap_or_default();
    if spec.dns_policy.as_deref() != Some("None") {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        return text.lines().map(str::to_owned).collect();
    }
    let servers = config.nameservers.unwrap_or_default();
    let mut lines: Vec<String> = servers
        .iter()
        .map(|server| format!("nameserver {server}"))
        .collect();
    let searches = config.searches.filter(|searches| !searches.is_empty());
    lines.extend(searches.map(|searches| format!("search {}", searches.join(" "))));
    let options = config.options.iter().flatten().map(|option| {
        let name = option.name.as_deref().unwrap_or_default();
        match &option.value {
            Some(value) => format!("{name}:{value}"),
            None => name.to_owned(),
        }
    });
    let options: Vec<String> = options.collect();
    if !options.is_empty() {
        lines.push(format!("options {}", options.join(" ")));
    }
    lines
}

/// Limits that the kernel can keep for a process. Memory is not among them: an address-space
/// limit counts reservations that are never used, and would break programs that stay well below
/// their limit.
fn limits(container: &Container, isolation: &Isolation) -> Limits {
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    let storage = limits
        .and_then(|limits| limits.get("ephemeral-storage"))
        .and_then(Amount::of)
        .and_then(|amount| u64::try_from(amount.ceil()).ok());
    Limits {
        open_files: Some(OPEN_FILES),
        // Without a user namespace the count would include the user's programs outside.
        processes: isolation.has_private_root().then_some(PROCESSES),
        // A single file larger than what the container may store in all is certainly too large.
        file_size: storage.filter(|bytes| *bytes > 0),
    }
}

#[cfg(test)]
mod tests {
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

    fn prepared_under(
        isolation: &Isolation,
        pod: Value,
        container: Value,
    ) -> Result<Launch, Refusal> {
        let mut pod = pod;
        pod["metadata"]["name"] = json!("p-1");
        let mut container = container;
        container["name"] = json!("c");
        pod["spec"]["containers"] = json!([container]);
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let spec = pod.spec.as_ref().unwrap();
        let volumes =
            PodVolumes::parse(&pod, spec, "/state/v".into(), Ownership::default()).unwrap();
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
}
