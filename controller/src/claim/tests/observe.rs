//! What counts as a claim's own.

use serde_json::json;

use super::CLAIM;
use crate::claim::Learned;
use crate::claim::observe::observe;
use crate::claim::plan::Observed;
use crate::expiry::Deadlines;
use crate::fixtures::{owner, uid};
use crate::ident::Key;
use crate::objects::{ClaimRow, SandboxRow};
use crate::store::{Queues, Seen, Store};

/// What the claim `n/c` sees when a sandbox in this namespace names its UID as that of its controller.
fn with_sandbox_in(namespace: &str, name: &str) -> Observed {
    let store = Store::new(Queues::default(), Deadlines::new());
    let claim = json!({
        "metadata": {"name": "c", "namespace": "n", "uid": uid(CLAIM), "resourceVersion": "1"},
        "spec": {"warmPoolRef": {"name": "p"}},
        "status": {"sandbox": {"name": name}},
    });
    let sandbox = json!({
        "metadata": {
            "name": name, "namespace": namespace, "uid": uid(20), "resourceVersion": "2",
            "ownerReferences": owner("SandboxClaim", "c", &uid(CLAIM)),
        },
        "spec": {},
    });
    let claim = serde_json::from_value(claim).unwrap();
    let sandbox = serde_json::from_value(sandbox).unwrap();
    store.observe::<ClaimRow>(claim, Seen::InWatch).unwrap();
    store.observe::<SandboxRow>(sandbox, Seen::InWatch).unwrap();
    let key = Key::new("n", "c");
    store
        .read(|state| observe(state, &key, &Learned::default()))
        .unwrap()
}

#[test]
fn a_sandbox_of_another_namespace_is_not_bound_by_naming_the_claims_uid() {
    let own = with_sandbox_in("n", "p-1");
    assert_eq!(own.bound.len(), 1);
    for name in ["p-1", "c"] {
        let forged = with_sandbox_in("other", name);
        assert!(forged.bound.is_empty(), "{:?}", forged.bound);
        assert!(
            forged.namesake.is_none(),
            "nor does it hold the claim's name"
        );
    }
}
