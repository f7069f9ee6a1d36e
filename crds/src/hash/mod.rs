//! Hashes that appear in labels: of names and of blueprints.

/// 32-bit FNV-1a of the UTF-8 bytes, as eight lower-case hexadecimal digits.
///
/// It shortens names for label values; it is neither secret nor free of collisions, so nothing may rely on it for
/// ownership.
pub fn name_hash(text: &str) -> String {
    const OFFSET_BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let hash = text.bytes().fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(PRIME)
    });
    format!("{hash:08x}")
}
#[cfg(test)]
mod tests;
