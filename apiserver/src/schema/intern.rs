//! One copy of equal names, patterns and subtrees.
//!
//! The owner of a set of schemas (the registry) keeps one [`Interner`] and hands it to every
//! parse; schemas stay usable without it. It never changes what a schema means.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::pattern::{Pattern, PatternError};
use super::structural::{Additional, Name, Node, Structural};

/// Shares equal parts of schemas.
#[derive(Debug, Default)]
pub struct Interner {
    names: HashSet<Name>,
    patterns: HashMap<Box<str>, Arc<Pattern>>,
    nodes: HashMap<u64, Vec<Arc<Node>>>,
}

impl Interner {
    /// Forgets what no schema uses any more, for example after a CRD is deleted.
    pub fn sweep(&mut self) {
        // A node keeps its children alive, so removing parents can orphan their children: repeat
        // until nothing goes.
        loop {
            let before = self.len();
            self.nodes.retain(|_, bucket| {
                bucket.retain(|node| Arc::strong_count(node) > 1);
                !bucket.is_empty()
            });
            if self.len() == before {
                break;
            }
        }
        self.patterns
            .retain(|_, pattern| Arc::strong_count(pattern) > 1);
        self.names.retain(|name| Arc::strong_count(name) > 1);
    }

    /// How many distinct nodes are shared.
    pub fn len(&self) -> usize {
        self.nodes.values().map(Vec::len).sum()
    }

    /// Whether nothing is shared yet.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn name(&mut self, text: &str) -> Name {
        if let Some(name) = self.names.get(text) {
            return Arc::clone(name);
        }
        let name: Name = Arc::from(text);
        self.names.insert(Arc::clone(&name));
        name
    }

    pub(super) fn pattern(&mut self, text: &str) -> Result<Arc<Pattern>, PatternError> {
        if let Some(pattern) = self.patterns.get(text) {
            return Ok(Arc::clone(pattern));
        }
        let pattern = Arc::new(Pattern::parse(text)?);
        self.patterns.insert(text.into(), Arc::clone(&pattern));
        Ok(pattern)
    }

    /// The shared form of `node`, whose summary flags are set here.
    pub(super) fn node(&mut self, mut node: Node) -> Structural {
        let recursive = node.children().any(Structural::is_recursive);
        // Definitions that lead back to themselves carry no rules, and looking would expand them.
        let rules_below = !node.rules().is_empty()
            || node
                .children()
                .any(|child| !child.is_recursive() && child.has_rules());
        node.recursive = recursive;
        node.rules_below = rules_below;
        if node.recursive {
            // A recursive link keeps its interner alive; sharing the node would close a circle.
            return Structural::from_node(node);
        }
        let bucket = self.nodes.entry(fingerprint(&node)).or_default();
        if let Some(known) = bucket.iter().find(|known| ***known == node) {
            return Structural::from_shared(Arc::clone(known));
        }
        let shared = Arc::new(node);
        bucket.push(Arc::clone(&shared));
        Structural::from_shared(shared)
    }
}

/// A hash of the node's own data and the identity of its children.
fn fingerprint(node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    (
        node.kind,
        node.nullable,
        node.preserve_unknown,
        node.embedded,
        node.list_type,
        node.map_type,
        node.format,
    )
        .hash(&mut hasher);
    for (name, schema) in &node.properties {
        name.hash(&mut hasher);
        schema.address().hash(&mut hasher);
    }
    node.items
        .as_ref()
        .map(Structural::address)
        .hash(&mut hasher);
    match &node.additional {
        Additional::None => 0_usize.hash(&mut hasher),
        Additional::Any => 1_usize.hash(&mut hasher),
        Additional::Schema(schema) => schema.address().hash(&mut hasher),
    }
    if let Some(checks) = &node.checks {
        format!("{checks:?}").hash(&mut hasher);
    }
    if let Some(extra) = &node.extra {
        format!("{extra:?}").hash(&mut hasher);
    }
    hasher.finish()
}
