//! Volumes as directories, with the objects behind them in a test API.

use serde_json::{Value, json};

use super::*;
use crate::pod::fields::Allocatable;
use crate::pod::references::References;
use crate::test_api::TestApi;

struct Fixture {
    api: TestApi,
    pod: Pod,
    volumes: PodVolumes,
    references: References,
    directory: tempfile::TempDir,
    /// Held because the watches end with their tasks.
    _watches: crate::objects::ObjectWatches,
}

impl Fixture {
    fn new(api: TestApi, spec: &Value) -> Result<Self, VolumeError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"a": "1"}},
            "spec": spec,
        }))
        .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let spec = pod.spec.as_ref().unwrap();
        let volumes = PodVolumes::parse(
            &pod,
            spec,
            directory.path().join("volumes"),
            Ownership::default(),
        )?;
        let tasks = agent_sandbox_service::tasks::Tasks::new("test");
        let watches = crate::objects::ObjectWatches::new(api.client(), tasks);
        let references = References::of(spec, "ns", &watches);
        Ok(Self {
            api,
            volumes,
            references,
            directory,
            pod,
            _watches: watches,
        })
    }

    async fn sync(&mut self) -> Result<(), VolumeError> {
        let snapshot = self.references.snapshot().await;
        let facts = Facts {
            pod: &self.pod,
            node_name: "n",
            host_ip: "127.0.0.1".parse().unwrap(),
            pod_ip: Some("127.100.0.1".parse().unwrap()),
            allocatable: Allocatable {
                cpus: 1,
                memory_bytes: 1,
                storage_bytes: 1,
            },
        };
        let client = self.api.client();
        let claims = self.directory.path().join("claims");
        let now = Timestamp::now();
        self.volumes
            .sync(&client, facts, &snapshot, &claims, now)
            .await
    }

    fn read(&self, path: &str) -> String {
        let path = self.directory.path().join("volumes").join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

fn spec(volumes: &Value) -> Value {
    json!({"containers": [{"name": "c"}], "volumes": volumes})
}

#[tokio::test]
async fn a_config_map_volume_follows_its_object() {
    let path = "/api/v1/namespaces/ns/configmaps/cm";
    let api = TestApi::new();
    let volumes = json!([{"name": "v", "configMap": {"name": "cm"}}]);
    let mut fixture = Fixture::new(api, &spec(&volumes)).unwrap();
    let missing = fixture.sync().await.unwrap_err();
    assert_eq!(
        missing.to_string(),
        "MountVolume.SetUp failed for volume \"v\" : configmap \"cm\" not found"
    );
    assert!(!missing.is_final());
    // The watch says when it appears, and when it changes.
    fixture.api.put(path, json!({"data": {"k": "one"}}));
    fixture.references.changed().await;
    fixture.sync().await.unwrap();
    assert_eq!(fixture.read("v/k"), "one");
    fixture.api.put(path, json!({"data": {"k": "two"}}));
    fixture.references.changed().await;
    fixture.sync().await.unwrap();
    assert_eq!(fixture.read("v/k"), "two");
    assert_eq!(fixture.read("v/..data/k"), "two");
    // A deleted object leaves the files as they are: a running pod keeps what it has.
    fixture.api.remove(path);
    fixture.references.changed().await;
    fixture.sync().await.unwrap_err();
    assert_eq!(fixture.read("v/k"), "two");
}

#[tokio::test]
async fn fields_and_tokens_are_written() {
    let volumes = json!([{"name": "v", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token"}},
        {"downwardAPI": {"items": [
            {"path": "ip", "fieldRef": {"fieldPath": "status.podIP"}},
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        ]}},
    ]}}]);
    let mut fixture = Fixture::new(TestApi::new(), &spec(&volumes)).unwrap();
    fixture.sync().await.unwrap();
    assert_eq!(fixture.read("v/token"), "token-for-default");
    assert_eq!(fixture.read("v/ip"), "127.100.0.1");
    assert!(fixture.volumes.follows_pod());
    assert!(fixture.volumes.renewal().is_some());
    fixture.pod.metadata.labels = Some([("b".to_owned(), "2".to_owned())].into());
    fixture.sync().await.unwrap();
    assert_eq!(fixture.read("v/labels"), "b=\"2\"");
    let tokens = fixture.api.writes();
    assert_eq!(tokens.len(), 1, "one token is enough: {tokens:?}");
    assert_eq!(tokens[0].2["spec"]["boundObjectRef"]["uid"], "u");
}

#[tokio::test]
async fn an_empty_directory_and_a_claim_can_be_written_by_everybody() {
    let volumes = json!([
        {"name": "scratch", "emptyDir": {}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "c"}},
    ]);
    let mut fixture = Fixture::new(TestApi::new(), &spec(&volumes)).unwrap();
    let missing = fixture.sync().await.unwrap_err().to_string();
    assert!(
        missing.contains("persistentvolumeclaim \"c\" not found"),
        "{missing}"
    );
    fixture.api.put(
        "/api/v1/namespaces/ns/persistentvolumeclaims/c",
        json!({"metadata": {"uid": "claim-uid"}, "status": {"phase": "Bound"}}),
    );
    fixture.sync().await.unwrap();
    for path in ["volumes/scratch", "claims/claim-uid"] {
        let meta = fs::metadata(fixture.directory.path().join(path)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o777, "{path}");
    }
}

#[test]
fn other_kinds_of_volume_are_refused_by_name() {
    for (volume, expected) in [
        (json!({"hostPath": {"path": "/"}}), "hostPath"),
        (json!({"nfs": {"server": "s", "path": "/"}}), "nfs"),
        (json!({"csi": {"driver": "d"}}), "csi"),
        (
            json!({"projected": {"sources": [{"clusterTrustBundle": {"path": "p"}}]}}),
            "clusterTrustBundle",
        ),
        (json!({}), "without a source"),
    ] {
        let mut volume = volume;
        volume["name"] = json!("v");
        let api = TestApi::new();
        // Parsing calls nobody, so no runtime is needed, but building a client wants one.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let error =
            runtime.block_on(async { Fixture::new(api, &spec(&json!([volume]))).err().unwrap() });
        assert!(error.is_final());
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn mounts_are_ordered_checked_and_read_only_where_they_must_be() {
    let volumes = json!([
        {"name": "d", "emptyDir": {}},
        {"name": "c", "configMap": {"name": "cm"}},
    ]);
    let fixture = Fixture::new(TestApi::new(), &spec(&volumes)).unwrap();
    let mounts = |mounts: Value| {
        let container =
            serde_json::from_value(json!({"name": "c", "volumeMounts": mounts})).unwrap();
        let environment = Environment {
            variables: vec![("POD".into(), "p-1".into())],
            skipped: vec![],
        };
        fixture.volumes.mounts(&container, &environment)
    };
    let binds = mounts(json!([
        {"name": "d", "mountPath": "/a/b/c", "subPathExpr": "x/$(POD)"},
        {"name": "c", "mountPath": "/a/b", "subPath": "k"},
        {"name": "d", "mountPath": "/a", "readOnly": true},
        {"name": "d", "mountPath": "z"},
    ]))
    .unwrap();
    let summary: Vec<_> = binds
        .iter()
        .map(|bind| {
            (
                bind.target.to_str().unwrap(),
                bind.sub_path.as_ref().map(|path| path.to_str().unwrap()),
                bind.access,
            )
        })
        .collect();
    assert_eq!(
        summary,
        [
            ("/a", None, Access::ReadOnly),
            ("/z", None, Access::ReadWrite),
            ("/a/b", Some("k"), Access::ReadOnly),
            ("/a/b/c", Some("x/p-1"), Access::ReadWrite),
        ]
    );
    for (mount, expected) in [
        (json!({"name": "nope", "mountPath": "/x"}), "nope"),
        (
            json!({"name": "d", "mountPath": "/x", "subPath": "../y"}),
            "../y",
        ),
        (
            json!({"name": "d", "mountPath": "/x", "subPath": "/y"}),
            "/y",
        ),
        (
            json!({"name": "d", "mountPath": "/x", "subPathExpr": "../$(POD)"}),
            "../p-1",
        ),
    ] {
        let error = mounts(json!([mount])).unwrap_err();
        assert!(
            error.is_final() && error.to_string().contains(expected),
            "{error}"
        );
    }
}
