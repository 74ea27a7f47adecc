//! What outlives the process: the instance's name, what became of remote configurations, and settings of
//! the connection that were offered. Files of the agent's own directory that only its owner may read.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use tailwater_opamp::InstanceUid;
use tailwater_opamp::proto::{AgentConfigFile, Status};
use tailwater_pipeline::checkpoint::state_dir;
use tailwater_pipeline::reach::Reach;

use super::signature::hex;
use crate::offer::keep;

/// Below the agent's state directory.
const DIRECTORY: &str = "opamp";
/// Largest file that is read back: three configurations of 16 MiB as base64, with room.
const FILE_BYTES_MAX: u64 = 128 << 20;

/// Files by name, as they were offered.
pub type Files = BTreeMap<String, AgentConfigFile>;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// What became of remote configurations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remote {
    /// The newest offer, in the server's words.
    pub hash: Vec<u8>,
    /// How far it is.
    pub status: i32,
    /// Why not.
    pub error: String,
    /// How often it was begun to put it into force.
    pub attempts: u64,
    /// What is being put into force.
    pub offered: Option<Files>,
    /// What was in force last, to start with.
    pub applied: Option<Files>,
    /// What was in force before that.
    pub previous: Option<Files>,
    /// The newest version that was in force.
    pub version: Option<u64>,
}

impl Store {
    /// That of this agent.
    pub fn of_agent() -> Result<Store, String> {
        let dir = state_dir().map_err(|e| e.to_string())?;
        Ok(Store {
            dir: dir.join(DIRECTORY),
        })
    }

    /// One in a directory.
    #[cfg(test)]
    pub fn at(dir: &std::path::Path) -> Store {
        Store {
            dir: dir.to_owned(),
        }
    }

    /// Adds the directory, which is made if it is missing.
    pub fn reach(&self, reach: &mut Reach) {
        reach.writes_below(&self.dir, Some(0o700));
    }

    /// The instance's name: that of the configuration, unless the server gave it another one since; else
    /// the one that was kept; else `new`, which is kept.
    pub fn instance(
        &self,
        configured: Option<InstanceUid>,
        new: impl FnOnce() -> Result<InstanceUid, String>,
    ) -> Result<InstanceUid, String> {
        let uid = |v: &Value| v.as_str().and_then(|t| t.parse().ok());
        let kept = self.read("instance.json").unwrap_or_default();
        let known: Option<InstanceUid> = uid(&kept["uid"]);
        let same = configured.is_none() || uid(&kept["configured"]) == configured;
        if let (Some(known), true) = (known, same) {
            return Ok(known);
        }
        let uid = configured.map_or_else(new, Ok)?;
        self.rename(uid, configured)?;
        Ok(uid)
    }

    /// Keeps another name of the instance; `configured` is the one of the configuration.
    pub fn rename(&self, uid: InstanceUid, configured: Option<InstanceUid>) -> Result<(), String> {
        let configured = configured.map(|c| c.to_string());
        self.write(
            "instance.json",
            &json!({"uid": uid.to_string(), "configured": configured}),
        )
    }

    /// What became of remote configurations. Nothing if nothing can be read.
    pub fn remote(&self) -> Remote {
        let v = self.read("remote.json").unwrap_or_default();
        let status = v["status"]
            .as_i64()
            .and_then(|s| Status::try_from(s as i32).ok());
        Remote {
            hash: unhex(v["hash"].as_str().unwrap_or_default()).unwrap_or_default(),
            status: status.unwrap_or(Status::Unset) as i32,
            error: v["error"].as_str().unwrap_or_default().to_owned(),
            attempts: v["attempts"].as_u64().unwrap_or(0),
            offered: files(&v["offered"]),
            applied: files(&v["applied"]),
            previous: files(&v["previous"]),
            version: v["version"].as_u64(),
        }
    }

    /// Keeps it.
    pub fn set_remote(&self, remote: &Remote) -> Result<(), String> {
        let value = json!({
            "hash": hex(&remote.hash),
            "status": remote.status,
            "error": remote.error,
            "attempts": remote.attempts,
            "offered": remote.offered.as_ref().map(files_json),
            "applied": remote.applied.as_ref().map(files_json),
            "previous": remote.previous.as_ref().map(files_json),
            "version": remote.version,
        });
        self.write("remote.json", &value)
    }

    /// A value that others gave to [`Store::write`].
    pub fn read(&self, name: &str) -> Option<Value> {
        let path = self.dir.join(name);
        let bytes = fs::metadata(&path).ok()?.len();
        (bytes <= FILE_BYTES_MAX).then_some(())?;
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Keeps a value.
    pub fn write(&self, name: &str, value: &Value) -> Result<(), String> {
        let path = self.dir.join(name);
        let kept = keep(&path, value.to_string().as_bytes());
        kept.map_err(|e| format!("cannot keep {}: {e}", path.display()))
    }
}

fn files_json(files: &Files) -> Value {
    let one = |(name, file): (&String, &AgentConfigFile)| {
        let body = BASE64_STANDARD.encode(&file.body);
        (name.clone(), json!([body, file.content_type]))
    };
    Value::Object(files.iter().map(one).collect::<Map<_, _>>())
}

fn files(value: &Value) -> Option<Files> {
    let one = |(name, file): (&String, &Value)| {
        let body = BASE64_STANDARD.decode(file[0].as_str()?).ok()?;
        let content_type = file[1].as_str()?.to_owned();
        Some((name.clone(), AgentConfigFile { body, content_type }))
    };
    value.as_object()?.iter().map(one).collect()
}

/// What [`hex`] gave.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    pairs
        .remainder()
        .is_empty()
        .then(|| pairs.map(|p| p[0] << 4 | p[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tailwater_testkit::tempdir::TempDir;

    #[test]
    fn a_name_stays_until_the_server_or_the_configuration_gives_another() {
        let dir = TempDir::new("opamp-uid").unwrap();
        let store = Store::at(&dir.join("state/opamp"));
        let uid = |n| InstanceUid([n; 16]);
        let never = || Err("made anew".to_owned());
        assert_eq!(store.instance(None, || Ok(uid(1))), Ok(uid(1)));
        assert_eq!(store.instance(None, never), Ok(uid(1)));
        assert_eq!(store.instance(Some(uid(2)), never), Ok(uid(2)));
        store.rename(uid(3), Some(uid(2))).unwrap();
        assert_eq!(store.instance(Some(uid(2)), never), Ok(uid(3)));
        assert_eq!(store.instance(Some(uid(4)), never), Ok(uid(4)));
        assert_eq!(store.instance(None, never), Ok(uid(4)));
    }

    #[test]
    fn what_was_kept_comes_back_and_is_nobody_elses() {
        let dir = TempDir::new("opamp-remote").unwrap();
        let store = Store::at(&dir.join("state/opamp"));
        assert_eq!(store.remote(), Remote::default());
        let file = AgentConfigFile {
            body: vec![0, 255, b'a'],
            content_type: "text/yaml".into(),
        };
        let remote = Remote {
            hash: vec![1, 0xab],
            status: Status::Failed as i32,
            error: "why\nnot".into(),
            attempts: 2,
            offered: None,
            applied: Some(Files::from([("".to_owned(), file)])),
            previous: Some(Files::new()),
            version: Some(7),
        };
        store.set_remote(&remote).unwrap();
        assert_eq!(store.remote(), remote);
        let path = dir.join("state/opamp/remote.json");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "{").unwrap();
        assert_eq!(store.remote(), Remote::default());
    }
}
