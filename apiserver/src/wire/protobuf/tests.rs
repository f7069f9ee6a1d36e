//! Bodies captured from real clients, the encodings one by one, and damage of every kind.
//!
//! `captured.jsonl` holds bodies as kubectl 1.32 and 1.36 send them (they are the same), each with
//! the object that the same command prints with `--dry-run=client -o json`.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const CAPTURED: &str = include_str!("captured.jsonl");

/// A length-delimited field.
fn bytes_field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut field = varint(u64::from(number) << 3 | 2);
    field.extend(varint(bytes.len() as u64));
    field.extend(bytes);
    field
}

fn number_field(number: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(number) << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn frame(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = [
        bytes_field(1, api_version.as_bytes()),
        bytes_field(2, kind.as_bytes()),
    ]
    .concat();
    [
        MAGIC.to_vec(),
        bytes_field(1, &type_meta),
        bytes_field(2, raw),
    ]
    .concat()
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name, without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

#[test]
fn bodies_captured_from_kubectl() {
    let mut count = 0;
    for line in CAPTURED.lines() {
        let case: Value = serde_json::from_str(line).expect("a line of JSON");
        let body = STANDARD
            .decode(case["body"].as_str().expect("text"))
            .expect("base64");
        let object = decode(&body).expect("a captured body");
        assert_eq!(
            object,
            without_nulls(case["object"].clone()),
            "{}",
            case["command"]
        );
        count += 1;
    }
    assert_eq!(count, 17);
}

#[test]
fn times_and_numbers() {
    let time =
        |seconds: u64, nanos: u64| [number_field(1, seconds), number_field(2, nanos)].concat();
    let meta = bytes_field(1, &bytes_field(8, &time(1_700_000_000, 5)));
    let lease_spec = [
        bytes_field(1, b"me"),
        number_field(2, 15),
        bytes_field(4, &time(1_700_000_000, 123_456_789)),
    ]
    .concat();
    let lease = decode(&frame(
        "coordination.k8s.io/v1",
        "Lease",
        &[meta, bytes_field(2, &lease_spec)].concat(),
    ))
    .expect("a lease");
    assert_eq!(
        lease,
        json!({
            "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"creationTimestamp": "2023-11-14T22:13:20Z"},
            "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15,
                     "renewTime": "2023-11-14T22:13:20.123456Z"},
        })
    );
}

#[test]
fn quantities_ports_and_inlined_messages() {
    // A container with a quantity map, a port by name, arguments and an optional zero.
    let entry = [
        bytes_field(1, b"cpu"),
        bytes_field(2, &bytes_field(1, b"0.5")),
    ]
    .concat();
    let port = [
        number_field(1, 1),
        number_field(2, 0),
        bytes_field(3, b"web"),
    ]
    .concat();
    let probe = bytes_field(1, &bytes_field(2, &bytes_field(2, &port)));
    let container = [
        bytes_field(1, b"a"),
        bytes_field(4, b"x"),
        bytes_field(4, b"y"),
        bytes_field(8, &bytes_field(1, &entry)),
        bytes_field(10, &probe),
    ]
    .concat();
    let spec = [
        bytes_field(2, &container),
        number_field(4, 0),
        number_field(11, 1),
    ]
    .concat();
    let pod = decode(&frame("v1", "Pod", &bytes_field(2, &spec))).expect("a pod");
    assert_eq!(
        pod["spec"],
        json!({
            "containers": [{
                "name": "a", "args": ["x", "y"], "resources": {"limits": {"cpu": "500m"}},
                "livenessProbe": {"httpGet": {"port": "web"}},
            }],
            "terminationGracePeriodSeconds": 0,
            "hostNetwork": true,
        })
    );
}

#[test]
fn options_wrapped_lists_and_packed_numbers() {
    let options = [
        number_field(1, 0),
        bytes_field(2, &bytes_field(1, b"uid")),
        bytes_field(4, b"Orphan"),
    ];
    let options = decode(&frame("apps/v1", "DeleteOptions", &options.concat())).expect("options");
    assert_eq!(
        options,
        json!({"kind": "DeleteOptions", "apiVersion": "apps/v1", "gracePeriodSeconds": 0,
               "preconditions": {"uid": "uid"}, "propagationPolicy": "Orphan"})
    );

    let extra = [
        bytes_field(1, b"scope"),
        bytes_field(2, &[bytes_field(1, b"a"), bytes_field(1, b"b")].concat()),
    ];
    let review = bytes_field(
        2,
        &[bytes_field(3, b"u"), bytes_field(5, &extra.concat())].concat(),
    );
    let review = decode(&frame(
        "authorization.k8s.io/v1",
        "SubjectAccessReview",
        &review,
    ))
    .expect("a review");
    assert_eq!(
        review["spec"],
        json!({"user": "u", "extra": {"scope": ["a", "b"]}})
    );

    // Packed and plain numbers mean the same, and what is unknown is skipped.
    let codes = [number_field(3, 1), bytes_field(3, &[2, 3])].concat();
    let on_exit_codes = [
        bytes_field(2, b"In"),
        codes,
        bytes_field(99, b"?"),
        number_field(98, 7),
    ]
    .concat();
    let policy = bytes_field(
        1,
        &[bytes_field(1, b"Ignore"), bytes_field(2, &on_exit_codes)].concat(),
    );
    let job = bytes_field(2, &bytes_field(11, &policy));
    let job = decode(&frame("batch/v1", "Job", &job)).expect("a job");
    assert_eq!(
        job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"],
        json!({"operator": "In", "values": [1, 2, 3]})
    );
}

#[test]
fn what_cannot_be_decoded_says_why() {
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"{}".to_vec(), "not a Kubernetes protobuf body"),
        (MAGIC.to_vec(), "names no apiVersion and kind"),
        (
            [MAGIC, &[0x0a, 0xff]].concat(),
            "ends in the middle of a field",
        ),
        ([MAGIC, &[0x0b]].concat(), "wire type 3"),
        (
            [MAGIC, &[0x02, 0x00]].concat(),
            "field number is out of range",
        ),
        ([MAGIC, &[0xff; 12]].concat(), "longer than 64 bits"),
        (
            frame("v1", "Secret", &bytes_field(2, &bytes_field(1, &[0xff]))),
            "not UTF-8",
        ),
        (
            frame("v1", "Pod", &number_field(2, 1)),
            "a number stands where",
        ),
        (
            frame("v1", "Pod", &bytes_field(2, &number_field(3, u64::MAX))),
            "a number stands where",
        ),
        (
            frame(
                "apps/v1",
                "Deployment",
                &bytes_field(2, &number_field(1, 1 << 40)),
            ),
            "cannot unmarshal number 1099511627776 into Go struct field DeploymentSpec.spec.replicas \
             of type int32",
        ),
        (
            frame(
                "v1",
                "Pod",
                &bytes_field(1, &bytes_field(8, &number_field(1, u64::MAX / 2))),
            ),
            "not a time of a four-digit year",
        ),
        (
            [frame("v1", "Pod", b""), bytes_field(3, b"gzip")].concat(),
            "content encoding \"gzip\"",
        ),
    ];
    for (body, expected) in cases {
        let error = decode(&body).expect_err(expected);
        assert!(matches!(error, ProtobufError::Malformed(_)), "{error:?}");
        assert!(
            error.to_string().contains(expected),
            "{error} does not say {expected:?}"
        );
    }
    for (api_version, kind) in [
        ("example.com/v1", "Foo"),
        ("v1", "ReplicationController"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ] {
        assert_eq!(
            decode(&frame(api_version, kind, b"")),
            Err(ProtobufError::Unsupported {
                api_version: api_version.into(),
                kind: kind.into()
            })
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _outcome = decode(&bytes);
        for kind in ["Pod", "Secret", "Event", "Service"] {
            let _outcome = decode(&frame("v1", kind, &bytes));
        }
    }

    #[test]
    fn damaged_bodies_never_panic(line in 0..17_usize, at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<bool>()) {
        let case: Value = serde_json::from_str(CAPTURED.lines().nth(line).expect("a line")).expect("JSON");
        let mut body = STANDARD.decode(case["body"].as_str().expect("text")).expect("base64");
        let at = at.index(body.len());
        if cut { body.truncate(at) } else { body[at] = to }
        let _outcome = decode(&body);
    }

    #[test]
    fn nesting_is_bounded(depth in 1..400_usize) {
        // A JSON schema below a schema below ... is the only way to nest without end.
        let mut inner = Vec::new();
        for _ in 0..depth { inner = bytes_field(2, &inner); }
        let _outcome = decode(&frame("v1", "Pod", &inner));
    }
}
