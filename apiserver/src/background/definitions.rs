//! The CRD lifecycle: which definitions are served, and what their status says about it.
//!
//! The only publisher of registry snapshots. A definition is published first and called Established
//! afterwards, so that discovery and OpenAPI know a kind before anybody waits for it. A definition
//! that is deleted stays, without creates, until its objects are gone.

use std::collections::HashMap;
use std::sync::Arc;

use agent_sandbox_service::shutdown::Shutdown;
use serde_json::{Map, Value, json};

use super::queue::Queue;
use crate::meta;
use crate::ops::{DeleteOptions, Engine, Target};
use crate::registry::custom::{self, Phase};
use crate::registry::{CLEANUP, Descriptor, Snapshot};
use crate::status::ApiError;
use crate::store::{Event, EventKind, ListQuery, Object, Observer, Revision};

/// The resource that holds the definitions.
pub(crate) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Owns what the registry serves.
#[derive(Debug)]
pub(crate) struct Definitions {
    engine: Engine,
    built_in: Vec<Arc<Descriptor>>,
    known: HashMap<String, Known>,
    wake: Arc<Wake>,
}

/// What is remembered of a definition between passes.
#[derive(Debug)]
struct Known {
    revision: Revision,
    definition: Value,
    /// `None` when the definition cannot be translated; only definitions that were stored by
    /// another version of the server can be like that.
    descriptor: Option<Arc<Descriptor>>,
    /// What the descriptor was made from.
    spec: Value,
    phase: Phase,
}

/// Wakes the worker on commits that matter to it.
#[derive(Debug)]
struct Wake {
    queue: Queue<()>,
    /// Resources whose definition waits for their last object.
    emptying: parking_lot::Mutex<Vec<String>>,
}

impl Observer for Wake {
    fn observe(&self, resource: &Arc<str>, event: &Event) {
        let emptying = || {
            event.kind == EventKind::Deleted
                && self
                    .emptying
                    .lock()
                    .iter()
                    .any(|waiting| **waiting == **resource)
        };
        if **resource == *DEFINITIONS || emptying() {
            self.queue.push(());
        }
    }
}

impl Definitions {
    /// Takes over a registry that holds the built-in resources.
    pub(crate) fn new(engine: &Engine) -> Self {
        let wake = Arc::new(Wake {
            queue: Queue::new(),
            emptying: parking_lot::Mutex::default(),
        });
        engine.store.observe(wake.clone());
        Self {
            engine: engine.clone(),
            built_in: engine.registry.snapshot().descriptors().to_vec(),
            known: HashMap::new(),
            wake,
        }
    }

    /// Reconciles after every change until shutdown.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let wake = self.wake.clone();
        loop {
            tokio::select! {
                () = shutdown.triggered() => return,
                () = wake.queue.next() => self.reconcile(),
            }
        }
    }

    /// Brings registry and statuses in line with the stored definitions.
    pub(crate) fn reconcile(&mut self) {
        let names = self.refresh();
        let verdicts = self.judge(&names);
        self.publish(&verdicts);
        self.write_statuses(&verdicts);
        self.empty(&names);
    }

    /// Reads what changed and returns the names in the order in which they may claim names: those
    /// accepted before come first, then the older ones.
    fn refresh(&mut self) -> Vec<String> {
        let everything = ListQuery {
            namespace: None,
            revision: None,
            after: None,
        };
        let stored = self
            .engine
            .store
            .list(DEFINITIONS, everything, None, |_| true)
            .map(|page| page.objects)
            .unwrap_or_default();
        self.known
            .retain(|name, _| stored.iter().any(|object| object.name() == name));
        for object in &stored {
            self.learn(object);
        }
        let mut names: Vec<String> = stored
            .iter()
            .map(|object| object.name().to_owned())
            .collect();
        let rank = |name: &String| {
            self.known.get(name).map(|known| {
                let accepted = condition(&known.definition, "NamesAccepted") == Some("True");
                let created = meta::text(&known.definition, "creationTimestamp").to_owned();
                (!accepted, created)
            })
        };
        names.sort_by(|a, b| rank(a).cmp(&rank(b)).then(a.cmp(b)));
        names
    }

    fn learn(&mut self, object: &Object) {
        let before = self.known.remove(object.name());
        if let Some(known) = before.as_ref().filter(|k| k.revision == object.revision()) {
            debug_assert_eq!(known.revision, object.revision());
            self.known
                .extend(before.map(|known| (object.name().to_owned(), known)));
            return;
        }
        let definition = object.value("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        let spec = definition.get("spec").cloned().unwrap_or_default();
        let phase = if object.is_deleting() {
            Phase::Terminating
        } else {
            Phase::Serving
        };
        // Writing a status must not cut the watches of the resource: same spec, same descriptor.
        let same = before.filter(|known| {
            known.spec == spec
                && meta::text(&known.definition, "uid") == meta::text(&definition, "uid")
        });
        let descriptor = match same {
            Some(known) if known.phase == phase => known.descriptor,
            Some(known) => known.descriptor.map(|descriptor| {
                let mut descriptor = Descriptor::clone(&descriptor);
                descriptor.verbs = custom::verbs(phase);
                Arc::new(descriptor)
            }),
            None => translate(&definition, phase),
        };
        let known = Known {
            revision: object.revision(),
            definition,
            descriptor,
            spec,
            phase,
        };
        self.known.insert(object.name().to_owned(), known);
    }

    /// Decides which definitions get the names they ask for.
    fn judge(&self, names: &[String]) -> Vec<Verdict> {
        let mut verdicts: Vec<Verdict> = Vec::new();
        for name in names {
            let Some(known) = self.known.get(name) else {
                continue;
            };
            let descriptor = known.descriptor.clone();
            let conflict = descriptor.as_ref().and_then(|descriptor| {
                let taken = verdicts
                    .iter()
                    .filter(|verdict| verdict.conflict.is_none())
                    .filter_map(|verdict| verdict.descriptor.as_ref());
                self.built_in
                    .iter()
                    .chain(taken)
                    .find_map(|other| conflict(descriptor, other))
            });
            verdicts.push(Verdict {
                name: name.clone(),
                descriptor,
                conflict,
            });
        }
        verdicts
    }

    fn publish(&self, verdicts: &[Verdict]) {
        let accepted = verdicts
            .iter()
            .filter(|verdict| verdict.conflict.is_none())
            .filter_map(|verdict| verdict.descriptor.clone());
        let next: Vec<Arc<Descriptor>> = self.built_in.iter().cloned().chain(accepted).collect();
        let current = self.engine.registry.snapshot();
        let same = current.descriptors().len() == next.len()
            && current
                .descriptors()
                .iter()
                .zip(&next)
                .all(|(a, b)| Arc::ptr_eq(a, b));
        if same {
            return;
        }
        let changed: Vec<Arc<Descriptor>> = next
            .iter()
            .filter(|descriptor| {
                !current
                    .descriptors()
                    .iter()
                    .any(|d| Arc::ptr_eq(d, descriptor))
            })
            .cloned()
            .collect();
        self.engine.registry.publish(Snapshot::new(next));
        for descriptor in &changed {
            self.engine.renormalise(descriptor);
        }
    }

    fn write_statuses(&self, verdicts: &[Verdict]) {
        let snapshot = self.engine.registry.snapshot();
        let Some(resource) = snapshot.qualified(DEFINITIONS) else {
            return;
        };
        let now = meta::time(self.engine.clock.now());
        for verdict in verdicts {
            let Some(known) = self.known.get(&verdict.name) else {
                continue;
            };
            if known.phase == Phase::Terminating {
                continue;
            }
            let outcome = self
                .engine
                .amend(resource, "", &verdict.name, None, |definition| {
                    // The status speaks about the spec that was judged, not about a newer one.
                    if definition.get("spec") == Some(&known.spec) {
                        verdict.write(definition, &now);
                    }
                });
            report(
                "cannot write the status of a definition",
                &verdict.name,
                outcome,
            );
        }
    }

    /// Deletes the objects of definitions on their way out, and lets go of those without objects.
    fn empty(&self, names: &[String]) {
        let terminating: Vec<&String> = names
            .iter()
            .filter(|name| {
                self.known
                    .get(*name)
                    .is_some_and(|known| known.phase == Phase::Terminating)
            })
            .collect();
        *self.wake.emptying.lock() = terminating.iter().map(ToString::to_string).collect();
        let snapshot = self.engine.registry.snapshot();
        let Some(resource) = snapshot.qualified(DEFINITIONS) else {
            return;
        };
        for name in terminating {
            if let Some(descriptor) = snapshot.qualified(name) {
                delete_all(&self.engine, descriptor);
            }
            if self.engine.store.count(name, None) == 0 {
                let outcome = self.engine.amend(resource, "", name, None, |definition| {
                    meta::remove_finalizer(definition, CLEANUP);
                });
                report("cannot release a definition", name, outcome);
            }
        }
    }
}

/// What became of one definition.
#[derive(Debug)]
struct Verdict {
    name: String,
    descriptor: Option<Arc<Descriptor>>,
    /// Reason and message of the condition, when a name is taken.
    conflict: Option<(&'static str, String)>,
}

impl Verdict {
    fn write(&self, definition: &mut Value, now: &str) {
        let Some(descriptor) = &self.descriptor else {
            return;
        };
        match &self.conflict {
            None => {
                let message = "no conflicts found";
                set_condition(
                    definition,
                    now,
                    "NamesAccepted",
                    "True",
                    "NoConflicts",
                    message,
                );
                let accepted = accepted_names(descriptor);
                let path = ["status", "acceptedNames"].map(ToOwned::to_owned);
                meta::put(definition, &path, Some(accepted));
                let message = "the initial names have been accepted";
                set_condition(
                    definition,
                    now,
                    "Established",
                    "True",
                    "InitialNamesAccepted",
                    message,
                );
            }
            Some((reason, message)) => {
                set_condition(definition, now, "NamesAccepted", "False", reason, message);
                let message = "not all names are accepted";
                set_condition(
                    definition,
                    now,
                    "Established",
                    "False",
                    "NotAccepted",
                    message,
                );
            }
        }
    }
}

fn translate(definition: &Value, phase: Phase) -> Option<Arc<Descriptor>> {
    match custom::descriptor(definition, phase) {
        Ok(descriptor) => Some(Arc::new(descriptor)),
        Err(errors) => {
            let name = meta::text(definition, "name");
            tracing::warn!(name, ?errors, "a stored definition cannot be served");
            None
        }
    }
}

/// The first name that two resources of one group both want.
fn conflict(wanted: &Descriptor, other: &Descriptor) -> Option<(&'static str, String)> {
    if wanted.group != other.group {
        return None;
    }
    let clash = |reason, name: &str| Some((reason, format!("\"{name}\" is already in use")));
    let is_path = |name: &str| {
        name == other.plural
            || name == other.singular
            || other.short_names.iter().any(|short| short == name)
    };
    let is_kind = |kind: &str| kind == other.kind || kind == other.list_kind;
    if is_path(&wanted.plural) {
        return clash("PluralConflict", &wanted.plural);
    }
    if is_path(&wanted.singular) {
        return clash("SingularConflict", &wanted.singular);
    }
    if let Some(short) = wanted.short_names.iter().find(|short| is_path(short)) {
        return clash("ShortNamesConflict", short);
    }
    if is_kind(&wanted.kind) {
        return clash("KindConflict", &wanted.kind);
    }
    if is_kind(&wanted.list_kind) {
        return clash("ListKindConflict", &wanted.list_kind);
    }
    None
}

fn accepted_names(descriptor: &Descriptor) -> Value {
    let mut names = json!({
        "plural": descriptor.plural,
        "singular": descriptor.singular,
        "kind": descriptor.kind,
        "listKind": descriptor.list_kind,
    });
    let lists = [
        ("shortNames", &descriptor.short_names),
        ("categories", &descriptor.categories),
    ];
    for (field, list) in lists {
        if !list.is_empty() {
            meta::put(&mut names, &[field.to_owned()], Some(json!(list)));
        }
    }
    names
}

fn condition<'a>(definition: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = definition.get("status")?.get("conditions")?.as_array()?;
    let text = |condition: &'a Value, field: &str| condition.get(field).and_then(Value::as_str);
    conditions
        .iter()
        .find(|condition| text(condition, "type") == Some(kind))
        .and_then(|condition| text(condition, "status"))
}

fn set_condition(
    definition: &mut Value,
    now: &str,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
) {
    let path = ["status", "conditions"].map(ToOwned::to_owned);
    let mut conditions = meta::at(definition, &path)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let is_it = |condition: &Value| condition.get("type").and_then(Value::as_str) == Some(kind);
    let existing = conditions.iter_mut().find(|condition| is_it(condition));
    let since = existing
        .as_ref()
        .filter(|condition| condition.get("status").and_then(Value::as_str) == Some(status))
        .and_then(|condition| condition.get("lastTransitionTime"))
        .cloned()
        .unwrap_or_else(|| now.into());
    let next: Map<String, Value> = [
        ("lastTransitionTime", since),
        ("message", message.into()),
        ("reason", reason.into()),
        ("status", status.into()),
        ("type", kind.into()),
    ]
    .into_iter()
    .map(|(field, value)| (field.to_owned(), value))
    .collect();
    match existing {
        Some(existing) => *existing = next.into(),
        None => conditions.push(next.into()),
    }
    meta::put(definition, &path, Some(conditions.into()));
}

/// Deletes every object of a resource that is not being deleted yet.
fn delete_all(engine: &Engine, descriptor: &Arc<Descriptor>) {
    let everything = ListQuery {
        namespace: None,
        revision: None,
        after: None,
    };
    let page = engine
        .store
        .list(&descriptor.qualified(), everything, None, |object| {
            !object.is_deleting()
        });
    for object in page.map(|page| page.objects).unwrap_or_default() {
        let outcome = Target::stored(descriptor, object.namespace(), object.name())
            .and_then(|target| engine.delete(&target, &DeleteOptions::default()))
            .map(drop);
        report(
            "cannot delete an object of a deleted definition",
            object.name(),
            outcome,
        );
    }
}

fn report(what: &'static str, name: &str, outcome: Result<(), ApiError>) {
    match outcome {
        Err(error) if error.reason() != "NotFound" => tracing::warn!(name, %error, "{what}"),
        _ => {}
    }
}
