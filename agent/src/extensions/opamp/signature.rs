//! Who may give remote configurations: signatures with Ed25519 (RFC 8032).
//!
//! A remote configuration can hold a file [`SIGNATURE_FILE`], JSON with `version`, a whole number, and
//! `signature`, base64 of 64 bytes. What is signed is [`signed_text`]: every other file by its hash and name,
//! and the version. So neither a file nor the version can be changed, left out or added.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::Value;
use tailwater_opamp::proto::AgentConfigFile;
use tailwater_opamp::signature::ED25519_SPKI as SPKI;
pub use tailwater_opamp::signature::{SIGNATURE_FILE, hex, signed_text};

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads PEM as of `openssl pkey -pubout`, or base64 of the 32 bytes.
    pub fn parse(text: &str) -> Result<PublicKey, &'static str> {
        const WRONG: &str = "each must be an Ed25519 key: PEM (BEGIN PUBLIC KEY, as of `openssl pkey \
                             -pubout`) or base64 of its 32 bytes";
        let lines = text.lines().map(str::trim);
        let body: String = lines.filter(|l| !l.starts_with("-----")).collect();
        let bytes = BASE64_STANDARD.decode(body.trim()).map_err(|_| WRONG)?;
        let key = bytes.strip_prefix(&SPKI).unwrap_or(&bytes);
        key.try_into().map(PublicKey).map_err(|_| WRONG)
    }
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Of the whole configuration; grows from one to the next.
    pub version: u64,
    signature: Vec<u8>,
}

/// Reads the file, if it is there.
///
/// # Errors
/// It is not what it should be.
pub fn read(files: &BTreeMap<String, AgentConfigFile>) -> Result<Option<Signature>, String> {
    let Some(file) = files.get(SIGNATURE_FILE) else {
        return Ok(None);
    };
    let wrong = || {
        format!(
            "{SIGNATURE_FILE}: must be JSON such as {{\"version\": 7, \"signature\": \"base64 of 64 bytes\"}}"
        )
    };
    let value: Value = serde_json::from_slice(&file.body).map_err(|_| wrong())?;
    let version = value["version"].as_u64().ok_or_else(wrong)?;
    let signature = match &value["signature"] {
        Value::Null => Vec::new(),
        text => {
            let bytes = text.as_str().and_then(|t| BASE64_STANDARD.decode(t).ok());
            bytes.filter(|b| b.len() == 64).ok_or_else(wrong)?
        }
    };
    Ok(Some(Signature { version, signature }))
}

/// Whether one of `keys` signed it.
///
/// # Errors
/// None did; for people.
pub fn verify(
    files: &BTreeMap<String, AgentConfigFile>,
    signature: Option<&Signature>,
    keys: &[PublicKey],
) -> Result<(), String> {
    let signature = signature.filter(|s| !s.signature.is_empty()).ok_or_else(|| {
        format!("it is not signed, but extensions::opamp::remote_config::public_keys is set: the signature is \
                 looked for in the file {SIGNATURE_FILE}")
    })?;
    let text = signed_text(files, signature.version);
    let good = keys.iter().any(|key| {
        let key = UnparsedPublicKey::new(&ED25519, key.0);
        key.verify(text.as_bytes(), &signature.signature).is_ok()
    });
    match good {
        true => Ok(()),
        false => Err(
            "its signature was made by none of public_keys, or for other files or another version"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    /// Files signed by the key of `seed`.
    pub fn signed(
        files: &[(&str, &str)],
        version: u64,
        seed: u8,
    ) -> (BTreeMap<String, AgentConfigFile>, PublicKey) {
        let file = |body: &str| AgentConfigFile {
            body: body.as_bytes().to_vec(),
            content_type: String::new(),
        };
        let mut map: BTreeMap<_, _> = files
            .iter()
            .map(|(name, body)| ((*name).to_owned(), file(body)))
            .collect();
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let signature = pair.sign(signed_text(&map, version).as_bytes());
        let signature = BASE64_STANDARD.encode(signature.as_ref());
        let json = serde_json::json!({"version": version, "signature": signature});
        map.insert(SIGNATURE_FILE.to_owned(), file(&json.to_string()));
        let key = pair.public_key().as_ref().try_into().unwrap();
        (map, PublicKey(key))
    }

    #[test]
    fn what_is_signed_is_every_file_and_the_version() {
        let (files, key) = signed(&[("b.yaml", "b"), ("a.yaml", "a")], 7, 1);
        assert_eq!(
            signed_text(&files, 7),
            "tailwater remote configuration 1\nversion 7\n\
             ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  a.yaml\n\
             3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d  b.yaml\n"
        );
        let check = |files: &BTreeMap<_, _>, keys: &[PublicKey]| {
            verify(files, read(files).unwrap().as_ref(), keys)
        };
        let other = signed(&[], 1, 2).1;
        assert_eq!(check(&files, &[other.clone(), key.clone()]), Ok(()));
        assert!(check(&files, &[other]).is_err());
        assert!(check(&files, &[]).is_err());
        let mut changed = files.clone();
        changed.get_mut("a.yaml").unwrap().body.push(b'\n');
        let mut removed = files.clone();
        removed.remove("b.yaml");
        let mut added = files.clone();
        added.insert("c.yaml".into(), AgentConfigFile::default());
        let mut newer = files.clone();
        let text = String::from_utf8(files[SIGNATURE_FILE].body.clone()).unwrap();
        let text = text.replace("\"version\":7", "\"version\":8");
        newer.get_mut(SIGNATURE_FILE).unwrap().body = text.into_bytes();
        let mut unsigned = files.clone();
        unsigned.remove(SIGNATURE_FILE);
        for wrong in [changed, removed, added, newer, unsigned] {
            assert!(
                check(&wrong, std::slice::from_ref(&key)).is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn keys_are_read_in_both_forms() {
        let raw = BASE64_STANDARD.encode([7; 32]);
        let spki = BASE64_STANDARD.encode([&SPKI[..], &[7; 32]].concat());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n");
        assert_eq!(PublicKey::parse(&raw), Ok(PublicKey([7; 32])));
        assert_eq!(PublicKey::parse(&pem), Ok(PublicKey([7; 32])));
        assert!(PublicKey::parse("").is_err() && PublicKey::parse(&raw[4..]).is_err());
    }

    #[test]
    fn a_broken_signature_file_is_said_to_be_one() {
        for text in [
            "",
            "{}",
            "[]",
            "{\"version\": -1}",
            "{\"version\": 1, \"signature\": \"a\"}",
        ] {
            let file = AgentConfigFile {
                body: text.as_bytes().to_vec(),
                content_type: String::new(),
            };
            let files = BTreeMap::from([(SIGNATURE_FILE.to_owned(), file)]);
            assert!(read(&files).unwrap_err().contains(SIGNATURE_FILE), "{text}");
        }
        let file = AgentConfigFile {
            body: b"{\"version\": 3}".to_vec(),
            content_type: String::new(),
        };
        let files = BTreeMap::from([(SIGNATURE_FILE.to_owned(), file)]);
        assert_eq!(read(&files).unwrap().map(|s| s.version), Some(3));
    }
}
