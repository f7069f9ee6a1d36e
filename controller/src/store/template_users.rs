//! What shares a template's hash: templates, policies, sandboxes and pods of one namespace whose template's
//! name has it. Policies select pods by that hash, which is short enough for two names to share, so this is
//! where it shows that a policy is still needed, and that a template's pods would get another one's rules.
//!
//! Kept by the routes as rows come and go; the template controller and the sandboxes that wait for a
//! policy ask. Nothing here is decided for good: every answer is about the rows as they are now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent_sandbox_crds::{hash, labels};

use super::State;
use crate::ident::{Key, Text};
use crate::objects::{Head, Labels, PodRow, PolicyRow, SandboxRow, TemplateRow};

/// A namespace and the hash of a template's name.
pub(super) type Shared = (Text, Text);

/// Who shares one hash in one namespace.
#[derive(Debug, Default)]
pub(super) struct Users {
    pub(super) templates: BTreeSet<Key>,
    pub(super) policies: BTreeSet<Key>,
    pub(super) sandboxes: BTreeSet<Key>,
    pub(super) pods: BTreeSet<Key>,
    /// How many of the sandboxes recorded which template.
    named: BTreeMap<Text, usize>,
}

impl Users {
    fn is_empty(&self) -> bool {
        self.templates.is_empty() && self.policies.is_empty() && self.is_idle()
    }

    /// Whether nothing runs, or may run again, under the hash.
    pub(super) fn is_idle(&self) -> bool {
        self.sandboxes.is_empty() && self.pods.is_empty()
    }
}

/// All hashes in use.
#[derive(Debug, Default)]
pub(super) struct TemplateUsers(BTreeMap<Shared, Users>);

impl TemplateUsers {
    pub(super) fn get(&self, shared: &Shared) -> Option<&Users> {
        self.0.get(shared)
    }

    /// Moves `key` in one of the sets from `old` to `new`.
    pub(super) fn shift(
        &mut self,
        set: impl Fn(&mut Users) -> &mut BTreeSet<Key>,
        key: &Key,
        new: Option<Shared>,
        old: Option<Shared>,
    ) {
        if new == old {
            return;
        }
        if let Some(new) = new {
            set(self.0.entry(new).or_default()).insert(key.clone());
        }
        if let Some(old) = old {
            self.edit(&old, |users| {
                set(users).remove(key);
            });
        }
    }

    /// Counts a sandbox for the template it recorded.
    pub(super) fn recount(&mut self, new: Option<(Shared, Text)>, old: Option<(Shared, Text)>) {
        if new == old {
            return;
        }
        if let Some((shared, name)) = new {
            let users = self.0.entry(shared).or_default();
            *users.named.entry(name).or_default() += 1;
        }
        if let Some((shared, name)) = old {
            self.edit(&shared, |users| {
                if let Some(count) = users.named.get_mut(&name) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        users.named.remove(&name);
                    }
                }
            });
        }
    }

    fn edit(&mut self, shared: &Shared, edit: impl FnOnce(&mut Users)) {
        if let Some(users) = self.0.get_mut(shared) {
            edit(users);
            if users.is_empty() {
                self.0.remove(shared);
            }
        }
    }
}

/// The hash that a sandbox or a pod carries.
pub(super) fn carried(head: &Head, found: &Labels) -> Option<Shared> {
    let hash = found.get(labels::SANDBOX_TEMPLATE_REF_HASH)?;
    Some((head.key.namespace.clone(), hash.clone()))
}

/// The hash of the template a policy belongs to.
pub(super) fn covered(policy: &PolicyRow) -> Option<Shared> {
    let hash = hash::name_hash(policy.template_name()?);
    Some((policy.head.key.namespace.clone(), hash.into()))
}

/// The hash of a template's name.
pub(super) fn own(template: &TemplateRow) -> Shared {
    let namespace = template.head.key.namespace.clone();
    (namespace, template.ref_hash.clone())
}

/// Who had the hash of a template's name first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rival {
    /// The name of the other template.
    pub template: Text,
    /// Whether that template is gone, and only what it covers is left.
    pub is_gone: bool,
}

impl State {
    /// Whether something may need the policy of the template of this name: a sandbox of the template, or a
    /// pod that carries its hash and is not known to be another template's.
    pub fn template_is_used(&self, template: &Key) -> bool {
        let shared = (
            template.namespace.clone(),
            hash::name_hash(&template.name).into(),
        );
        let Some(users) = self.template_users.get(&shared) else {
            return false;
        };
        let others: usize = users
            .named
            .iter()
            .filter(|(name, _)| **name != template.name)
            .map(|(_, count)| count)
            .sum();
        if users.sandboxes.len() > others {
            return true;
        }
        users.pods.iter().any(|key| {
            let sandbox = self.pods.get(key).and_then(|pod| {
                let owner = pod.head.owner.as_ref()?;
                let row = self.sandboxes.get(&key.sibling(owner.name.clone()))?;
                (row.head.uid == owner.uid).then_some(row)
            });
            let named = sandbox.and_then(|row| row.template_name());
            named.is_none_or(|name| *name == template.name)
        })
    }

    /// The templates that are gone while sandboxes of theirs are left.
    pub(super) fn gone_templates(&self) -> impl Iterator<Item = Key> {
        let named = self.template_users.0.iter().flat_map(|(shared, users)| {
            let names = users.named.keys();
            names.map(|name| Key::new(shared.0.clone(), name.clone()))
        });
        named.filter(|key| self.templates.get(key).is_none())
    }

    /// The pods that carry the hash of a template's name.
    pub fn pods_under(&self, template: &Key) -> impl Iterator<Item = &Arc<PodRow>> {
        let shared = (
            template.namespace.clone(),
            hash::name_hash(&template.name).into(),
        );
        self.template_users
            .get(&shared)
            .into_iter()
            .flat_map(|users| &users.pods)
            .filter_map(|key| self.pods.get(key))
    }

    /// Who had the hash of the template's name first, if somebody had: an older template, or what is left
    /// of one that is gone. Policies add up, so whoever comes second must not get any pods.
    pub fn rival(&self, template: &TemplateRow) -> Option<Rival> {
        let users = self.template_users.get(&own(template))?;
        let key = &template.head.key;
        let age = |row: &TemplateRow| (row.head.created, row.head.key.name.clone());
        let mine = age(template);
        let older = users
            .templates
            .iter()
            .filter(|other| *other != key)
            .filter_map(|other| self.templates.get(other))
            .filter(|other| age(other) < mine)
            .min_by_key(|other| age(other));
        if let Some(older) = older {
            return Some(Rival {
                template: older.head.key.name.clone(),
                is_gone: false,
            });
        }
        let is_left = |name: &Text| {
            *name != key.name && !users.templates.contains(&key.sibling(name.clone()))
        };
        let policies = users
            .policies
            .iter()
            .filter_map(|key| self.policies.get(key));
        let by_policy = policies
            .filter(|policy| policy.head.created <= template.head.created)
            .filter_map(|policy| policy.template_name())
            .find(|name| is_left(name));
        let by_sandbox = || {
            let name = users.named.keys().find(|name| is_left(name))?;
            let sandboxes = users
                .sandboxes
                .iter()
                .filter_map(|key| self.sandboxes.get(key));
            let left = |row: &&Arc<SandboxRow>| {
                row.template_name() == Some(name) && row.head.created <= template.head.created
            };
            sandboxes.into_iter().find(left).map(|_| name)
        };
        by_policy.or_else(by_sandbox).map(|name| Rival {
            template: name.clone(),
            is_gone: true,
        })
    }

    /// A policy that was deleted although pods need it and its template is gone.
    pub fn fallen_policy(&self, key: &Key) -> Option<Arc<PolicyRow>> {
        self.fallen_policies.get(key).cloned()
    }
}
