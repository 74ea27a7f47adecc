//! Signs what is offered: with an Ed25519 key, in the format that agents look for (`docs/OPAMP.md`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use sha2::{Digest, Sha256};
use tailwater_opamp::proto::AgentConfigFile;
use tailwater_opamp::signature::{ED25519_SPKI, SIGNATURE_FILE, hex, signed_text};

use crate::secret;

/// The label of a key's file.
const LABEL: &str = "PRIVATE KEY";

/// A key that signs.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    name: String,
}

/// Nothing of it is for others to see.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.name)
    }
}

impl SigningKey {
    /// Makes one in a file that is not there yet.
    ///
    /// # Errors
    /// The file is there, or cannot be written; for people.
    pub fn make(path: &Path) -> Result<SigningKey, String> {
        let random = ring::rand::SystemRandom::new();
        let der = Ed25519KeyPair::generate_pkcs8(&random)
            .map_err(|_| "the system gives no random bytes".to_owned())?;
        secret::make(path, &secret::pem(LABEL, der.as_ref()))?;
        SigningKey::of_file(path)
    }

    /// Reads one that nobody else may read, PKCS#8 in PEM form.
    ///
    /// # Errors
    /// It cannot be read, others can read it, or it is none; for people.
    pub fn of_file(path: &Path) -> Result<SigningKey, String> {
        let text = secret::read(path)?;
        // What the parsers say could quote the key.
        let wrong = || {
            format!(
                "{}: no Ed25519 key in it (PKCS#8, PEM; `tailwater-control key` makes one)",
                path.display()
            )
        };
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| wrong())?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der());
        let pair = pair.map_err(|_| wrong())?;
        let name = hex(&Sha256::digest(pair.public_key().as_ref())[..4]);
        Ok(SigningKey { pair, name })
    }

    /// A name of it, short.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its public half, as `public_keys` of agents take it.
    pub fn public(&self) -> String {
        BASE64_STANDARD.encode([&ED25519_SPKI, self.pair.public_key().as_ref()].concat())
    }

    /// The signature of these files under a version, base64.
    pub fn sign(&self, files: &BTreeMap<String, AgentConfigFile>, version: u64) -> String {
        let signature = self.pair.sign(signed_text(files, version).as_bytes());
        BASE64_STANDARD.encode(signature.as_ref())
    }
}

/// The file of an offer that says its version and carries its signature.
pub fn signature_file(version: u64, signature: &str) -> (String, AgentConfigFile) {
    let body = json!({"version": version, "signature": signature});
    let file = AgentConfigFile {
        body: body.to_string().into_bytes(),
        content_type: "application/json".to_owned(),
    };
    (SIGNATURE_FILE.to_owned(), file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    /// Guarantee: a key is its owner's alone and is never written over; what it signs can be verified by the
    /// half of it that is printed.
    #[test]
    fn keys_are_made_read_and_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let key = SigningKey::make(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(SigningKey::make(&path).unwrap_err().contains("is there"));
        assert_eq!(SigningKey::of_file(&path).unwrap().public(), key.public());
        let file = AgentConfigFile {
            body: b"a: 1".to_vec(),
            content_type: String::new(),
        };
        let files = BTreeMap::from([("a".to_owned(), file)]);
        let signature = BASE64_STANDARD.decode(key.sign(&files, 7)).unwrap();
        let public = BASE64_STANDARD.decode(key.public()).unwrap();
        let public = UnparsedPublicKey::new(&ED25519, &public[ED25519_SPKI.len()..]);
        let text = signed_text(&files, 7);
        assert!(public.verify(text.as_bytes(), &signature).is_ok());
        let text = signed_text(&files, 8);
        assert!(public.verify(text.as_bytes(), &signature).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(
            SigningKey::of_file(&path)
                .unwrap_err()
                .contains("chmod 600")
        );
        let other = dir.path().join("other.pem");
        secret::make(
            &other,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        )
        .unwrap();
        let wrong = SigningKey::of_file(&other).unwrap_err();
        assert!(
            wrong.contains("no Ed25519 key") && !wrong.contains("AAAA"),
            "{wrong}"
        );
    }

    /// As `openssl genpkey -algorithm ed25519` writes it: without the public half. Source: RFC 8410, 10.3.
    #[test]
    fn keys_of_other_tools_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let text = "-----BEGIN PRIVATE KEY-----\n\
                    MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                    -----END PRIVATE KEY-----\n";
        secret::make(&path, text).unwrap();
        let key = SigningKey::of_file(&path).unwrap();
        let public = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
        assert_eq!(key.public(), public);
    }
}
