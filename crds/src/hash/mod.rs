//! Hashes that appear in labels: of names and of blueprints.
//!
//! All are 32-bit FNV-1a: short enough for a label, neither secret nor free of collisions, so nothing may rely on one
//! for ownership. The blueprint hashes are taken over a canonical text that other implementations of these resources
//! produce byte for byte ([`canonical`]), which lets two of them take turns on one pool; where they differ all the
//! same, [`same_blueprint`] decides whether a sandbox is really out of date.

mod canonical;
mod order;
mod quantity;
mod semantic;

use crate::pod_template::{Blueprint, PodTemplate};

pub use self::semantic::same_blueprint;

/// FNV-1a of the UTF-8 bytes, as eight lower-case hexadecimal digits.
///
/// ```
/// assert_eq!(agent_sandbox_crds::hash::name_hash("default"), "933b5bde");
/// ```
pub fn name_hash(text: &str) -> String {
    const OFFSET_BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let hash = text.bytes().fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(PRIME)
    });
    format!("{hash:08x}")
}

/// The hash of everything a template's sandboxes are made of ([`crate::labels::SANDBOX_TEMPLATE_HASH`]).
pub fn blueprint_hash(blueprint: &Blueprint) -> String {
    name_hash(&canonical::text("Blueprint", blueprint))
}

/// The hash of a pod template alone ([`crate::labels::SANDBOX_POD_TEMPLATE_HASH`]).
pub fn pod_template_hash(template: &PodTemplate) -> String {
    name_hash(&canonical::text("PodTemplate", template))
}

#[cfg(test)]
mod tests;
