//! SHA-256 in the two ways it is written.

use sha2::{Digest, Sha256};

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// As image manifests write it.
pub(crate) fn oci(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}
