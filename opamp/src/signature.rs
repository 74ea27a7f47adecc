//! What is signed of a remote configuration, for whoever signs it and whoever looks at that. See `docs/OPAMP.md`.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::proto::AgentConfigFile;

/// The file of an offer with the version and the signature.
pub const SIGNATURE_FILE: &str = "tailwater-signature.json";

/// The bytes before an Ed25519 key in its usual form (`SubjectPublicKeyInfo`, RFC 8410, 4).
pub const ED25519_SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// What is signed:
///
/// ```text
/// tailwater remote configuration 1
/// version 7
/// <SHA-256 of the file in lower-case hexadecimal>  <its name>
/// ```
///
/// with a line for each file but the signature's, in the order of their names as bytes, each line ended by
/// a line feed. (`sha256sum` prints lines like these.)
pub fn signed_text(files: &BTreeMap<String, AgentConfigFile>, version: u64) -> String {
    let mut text = format!("tailwater remote configuration 1\nversion {version}\n");
    for (name, file) in files.iter().filter(|(name, _)| *name != SIGNATURE_FILE) {
        text.push_str(&format!("{}  {name}\n", hex(&Sha256::digest(&file.body))));
    }
    text
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
