//! How a text is offered: as a file, under a hash by which the answer is known, and signed if there is a key.
//!
//! A signed offer has a version that is higher than that of each one before, of whatever group, and kept before the
//! offer is made: agents take nothing older than what they ran. So going back is a new offer too, of an old text.

use std::collections::BTreeMap;
use std::sync::Arc;

use tailwater_control_plane::model::Digest;
use tailwater_control_plane::store::{Release, Releases, StoreError};
use tailwater_opamp::proto::{AgentConfigFile, AgentConfigMap, AgentRemoteConfig};

use crate::now_ms;
use crate::sign::{SigningKey, signature_file};

/// The file of an offer that holds the pipeline.
pub const PIPELINE_FILE: &str = "pipeline.yaml";
/// What is good before anything was: nothing is laid over the agent's own configuration.
pub const FALLBACK_BODY: &str = "";

/// A text as it is offered.
#[derive(Clone, PartialEq, Debug)]
pub struct Offer {
    /// Which text.
    pub digest: Digest,
    /// Which key signed it.
    pub key: Option<String>,
    /// To agents of ours.
    pub ours: AgentRemoteConfig,
    /// To others, which would take a signature for a part of their configuration.
    pub others: AgentRemoteConfig,
}

/// See the module's documentation.
pub struct Offers {
    store: Arc<dyn Releases>,
    key: Option<SigningKey>,
}

impl Offers {
    /// Offers that are signed by this key, if there is one.
    pub fn new(store: Arc<dyn Releases>, key: Option<SigningKey>) -> Offers {
        Offers { store, key }
    }

    /// The name of the key.
    pub fn key(&self) -> Option<&str> {
        self.key.as_ref().map(SigningKey::name)
    }

    /// An offer of a text to agents of a group, for a cause.
    ///
    /// # Errors
    /// What the store says. No version was given then.
    pub fn make(
        &self,
        group: &str,
        digest: &Digest,
        body: &str,
        cause: &str,
    ) -> Result<Arc<Offer>, StoreError> {
        let mut files = BTreeMap::new();
        if body != FALLBACK_BODY {
            let file = AgentConfigFile {
                body: body.as_bytes().to_vec(),
                content_type: "text/yaml".to_owned(),
            };
            files.insert(PIPELINE_FILE.to_owned(), file);
        }
        let now = now_ms();
        let Some(key) = &self.key else {
            let others = config(files, hash(digest, now, None));
            return Ok(Arc::new(Offer {
                digest: digest.clone(),
                key: None,
                ours: others.clone(),
                others,
            }));
        };
        let draft = Release {
            version: 0,
            group: group.to_owned(),
            digest: digest.clone(),
            cause: cause.to_owned(),
            key: key.name().to_owned(),
            signature: String::new(),
            at_ms: now,
        };
        let release = self
            .store
            .release(draft, &|version| key.sign(&files, version))?;
        let hash = hash(digest, release.version, Some(key.name()));
        let others = config(files.clone(), hash.clone());
        let (name, file) = signature_file(release.version, &release.signature);
        files.insert(name, file);
        Ok(Arc::new(Offer {
            digest: digest.clone(),
            key: Some(key.name().to_owned()),
            ours: config(files, hash),
            others,
        }))
    }
}

fn config(files: BTreeMap<String, AgentConfigFile>, hash: Vec<u8>) -> AgentRemoteConfig {
    AgentRemoteConfig {
        config: Some(AgentConfigMap { config_map: files }),
        config_hash: hash,
    }
}

/// The digest and a number, so it is known what an agent answers also after a restart, and the same can be offered
/// anew; and which key signed it.
fn hash(digest: &Digest, number: u64, key: Option<&str>) -> Vec<u8> {
    let key = key.map(|k| format!("-{k}")).unwrap_or_default();
    format!("{}-{number:x}{key}", digest.as_str()).into_bytes()
}

/// Which digest a hash is about; none if it is not one of ours.
pub fn digest_of(hash: &[u8]) -> Option<Digest> {
    let text = std::str::from_utf8(hash).ok()?;
    let (digest, _) = text.split_once('-')?;
    let is_one = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
    is_one.then(|| Digest::from_text(digest))
}

/// Which key signed the offer of a hash.
pub fn key_of(hash: &[u8]) -> Option<&str> {
    std::str::from_utf8(hash).ok()?.split('-').nth(2)
}

#[cfg(test)]
mod tests {
    use tailwater_control_plane::store::SqliteStore;
    use tailwater_opamp::signature::SIGNATURE_FILE;

    use super::*;

    /// Guarantee: each signed offer has a higher version, also of an old text; agents of others get the text alone.
    #[test]
    fn versions_grow_and_hashes_tell_what_was_offered() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::make(&dir.path().join("key.pem")).unwrap();
        let name = key.name().to_owned();
        let store = Arc::new(SqliteStore::in_memory().unwrap());
        let digest = Digest::of(b"a: 1");
        let plain = Offers::new(store.clone(), None);
        let offer = plain.make("g", &digest, "a: 1", "x").unwrap();
        assert_eq!(offer.ours, offer.others);
        assert_eq!(digest_of(&offer.ours.config_hash), Some(digest.clone()));
        assert_eq!(key_of(&offer.ours.config_hash), None);
        let signed = Offers::new(store.clone(), Some(key));
        let version = |offer: &Offer| -> u64 {
            let files = &offer.ours.config.as_ref().unwrap().config_map;
            let said: serde_json::Value =
                serde_json::from_slice(&files[SIGNATURE_FILE].body).unwrap();
            said["version"].as_u64().unwrap()
        };
        for wanted in 1..4 {
            let offer = signed.make("g", &digest, "a: 1", "x").unwrap();
            assert_eq!(version(&offer), wanted);
            assert_eq!(digest_of(&offer.ours.config_hash), Some(digest.clone()));
            assert_eq!(key_of(&offer.ours.config_hash), Some(name.as_str()));
            let others = offer.others.config.as_ref().unwrap();
            assert_eq!(others.config_map.len(), 1);
        }
        let own = Digest::of(FALLBACK_BODY.as_bytes());
        let back = signed.make("g", &own, FALLBACK_BODY, "x").unwrap();
        assert_eq!(version(&back), 4);
        let kept = store.releases("g", 1).unwrap();
        assert_eq!((&kept[0].digest, kept[0].version), (&own, 4));
    }
}
