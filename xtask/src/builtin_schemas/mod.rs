//! `cargo xtask generate builtin-schemas --from DIR`: what the embedded API server knows about the
//! built-in kinds of Kubernetes.
//!
//! Reads the published sources of one Kubernetes release in a Go module cache and writes two
//! committed files into `apiserver/data/`:
//!
//! * `schemas.json`: the OpenAPI v3 definitions reachable from the served kinds, without prose, one
//!   definition a line, so that a diff between two releases is readable;
//! * `types.txt`: for each of these types its fields as the API's JSON and protobuf encodings have
//!   them (number, name, type, whether absent and zero differ), which no OpenAPI document says.
//!
//! It runs by hand when the release moves, not in a build: the sources are not needed to compile.

mod go_types;
mod openapi;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::report;

/// Where to read and which release.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The `k8s.io` directory of a Go module cache (`$(go env GOMODCACHE)/k8s.io`), holding the
    /// modules `kubernetes`, `api`, `apimachinery` and `apiextensions-apiserver`
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// The release to read, as the module `k8s.io/kubernetes` names it
    #[arg(long, default_value = RELEASE)]
    pub(crate) release: String,
}

/// The release the committed files come from; the server announces the same in `/version`.
const RELEASE: &str = "v1.36.3";

/// The kinds served, by group, version and kind, and the bodies of their subresources.
const KINDS: &[(&str, &str, &[&str])] = &[
    (
        "",
        "v1",
        &[
            "Binding",
            "ConfigMap",
            "Endpoints",
            "Event",
            "Namespace",
            "Node",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "Pod",
            "PodTemplate",
            "Secret",
            "Service",
            "ServiceAccount",
        ],
    ),
    ("apiextensions.k8s.io", "v1", &["CustomResourceDefinition"]),
    (
        "apps",
        "v1",
        &[
            "ControllerRevision",
            "DaemonSet",
            "Deployment",
            "ReplicaSet",
            "StatefulSet",
        ],
    ),
    (
        "authentication.k8s.io",
        "v1",
        &["SelfSubjectReview", "TokenRequest", "TokenReview"],
    ),
    (
        "authorization.k8s.io",
        "v1",
        &[
            "LocalSubjectAccessReview",
            "SelfSubjectAccessReview",
            "SelfSubjectRulesReview",
            "SubjectAccessReview",
        ],
    ),
    ("autoscaling", "v1", &["Scale"]),
    ("autoscaling", "v2", &["HorizontalPodAutoscaler"]),
    ("batch", "v1", &["CronJob", "Job"]),
    ("coordination.k8s.io", "v1", &["Lease"]),
    ("discovery.k8s.io", "v1", &["EndpointSlice"]),
    ("events.k8s.io", "v1", &["Event"]),
    (
        "networking.k8s.io",
        "v1",
        &["Ingress", "IngressClass", "NetworkPolicy"],
    ),
    ("node.k8s.io", "v1", &["RuntimeClass"]),
    ("policy", "v1", &["Eviction", "PodDisruptionBudget"]),
    (
        "rbac.authorization.k8s.io",
        "v1",
        &["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"],
    ),
    ("scheduling.k8s.io", "v1", &["PriorityClass"]),
    ("storage.k8s.io", "v1", &["StorageClass"]),
];

/// Definitions wanted besides the kinds: bodies and list metadata that every group uses.
const EXTRA_DEFINITIONS: &[&str] = &[
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
];

/// Reads the sources and writes both files below `root`, the repository.
pub(crate) fn run(args: &Args, root: &Path) -> Result<()> {
    report::step("generating the schemas of the built-in kinds");
    let sources = Sources::locate(args)?;
    let (definitions, roots) = openapi::collect(&sources, KINDS, EXTRA_DEFINITIONS)?;
    let types = go_types::collect(&sources, &roots, &definitions)?;

    let data = root.join("apiserver/data");
    std::fs::create_dir_all(&data).with_context(|| format!("creating {}", data.display()))?;
    for (name, text) in [
        ("schemas.json", openapi::render(&definitions)?),
        ("types.txt", go_types::render(&types, &args.release)),
    ] {
        let path = data.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Where the sources of one release are.
#[derive(Debug)]
struct Sources {
    /// The directory of OpenAPI v3 documents.
    openapi: PathBuf,
    /// The `k8s.io` directory.
    modules: PathBuf,
    /// The version of the library modules that belongs to the release: `v0.36.3` for `v1.36.3`.
    libraries: String,
}

impl Sources {
    fn locate(args: &Args) -> Result<Self> {
        let Some(minor) = args.release.strip_prefix("v1.") else {
            bail!("--release must look like v1.36.3, not {}", args.release);
        };
        let kubernetes = args.from.join(format!("kubernetes@{}", args.release));
        let openapi = kubernetes.join("api/openapi-spec/v3");
        ensure!(
            openapi.is_dir(),
            "{} does not exist; run `go mod download k8s.io/kubernetes@{}` and pass the k8s.io \
             directory of the module cache with --from",
            openapi.display(),
            args.release
        );
        Ok(Self {
            openapi,
            modules: args.from.clone(),
            libraries: format!("v0.{minor}"),
        })
    }

    /// The directory of a Go package such as `k8s.io/api/core/v1`.
    fn package(&self, import_path: &str) -> Result<PathBuf> {
        let path = import_path
            .strip_prefix("k8s.io/")
            .with_context(|| format!("{import_path} is not a Kubernetes package"))?;
        let (module, rest) = path.split_once('/').unwrap_or((path, ""));
        Ok(self
            .modules
            .join(format!("{module}@{}", self.libraries))
            .join(rest))
    }
}
