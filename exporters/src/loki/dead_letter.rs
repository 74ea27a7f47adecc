//! The dead letter file: what the destination will never accept, for people to look at.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::{Map, Value};

/// A file of JSON lines with rejected entries. When it has reached its limit it is renamed to
/// `<path>.1`, which replaces an earlier one. Writing happens where the entry was rejected; a
/// failure to write is logged and changes nothing else.
#[derive(Debug)]
pub(super) struct DeadLetters {
    path: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<File>,
    bytes: u64,
    failed: bool,
}

/// A rejected entry.
pub(super) struct DeadLetter<'a> {
    /// Why, as the `reason` label of metrics says it.
    pub reason: &'a str,
    /// What the destination said, if it was asked.
    pub cause: &'a str,
    /// The tenant.
    pub tenant: Option<&'a str>,
    /// The labels of the stream.
    pub labels: &'a str,
    /// ns since the epoch.
    pub time: i64,
    /// The line.
    pub line: &'a [u8],
    /// Structured metadata.
    pub metadata: Vec<(String, String)>,
}

impl DeadLetters {
    /// Letters go to `path`, which is opened when the first one comes.
    pub fn new(path: PathBuf, bytes_max: u64) -> DeadLetters {
        DeadLetters {
            path,
            bytes_max,
            state: Mutex::default(),
        }
    }

    /// Appends letters.
    pub fn write<'a>(&self, letters: impl IntoIterator<Item = DeadLetter<'a>>) {
        let mut text = Vec::new();
        for letter in letters {
            text.extend_from_slice(json(letter).to_string().as_bytes());
            text.push(b'\n');
        }
        if text.is_empty() {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        let result = self.append(&mut state, &text);
        if let Err(error) = &result {
            state.file = None;
            if !state.failed {
                tracing::error!(path = %self.path.display(), %error, "Cannot write dead letters.");
            }
        }
        state.failed = result.is_err();
    }

    fn append(&self, state: &mut State, text: &[u8]) -> std::io::Result<()> {
        if state.file.is_some() && state.bytes + text.len() as u64 > self.bytes_max {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            state.file = None;
            std::fs::rename(&self.path, old)?;
        }
        let file = match &mut state.file {
            Some(file) => file,
            none => {
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&self.path)?;
                state.bytes = file.metadata()?.len();
                none.insert(file)
            }
        };
        file.write_all(text)?;
        state.bytes += text.len() as u64;
        Ok(())
    }
}

fn json(letter: DeadLetter<'_>) -> Value {
    let mut object = Map::new();
    object.insert("reason".into(), letter.reason.into());
    if !letter.cause.is_empty() {
        object.insert("cause".into(), letter.cause.into());
    }
    if let Some(tenant) = letter.tenant {
        object.insert("tenant".into(), tenant.into());
    }
    object.insert("labels".into(), letter.labels.into());
    object.insert("time_unix_nano".into(), letter.time.to_string().into());
    object.insert("line".into(), String::from_utf8_lossy(letter.line).into());
    if !letter.metadata.is_empty() {
        let pairs = letter.metadata.into_iter();
        let pairs: Map<_, _> = pairs.map(|(k, v)| (k, v.into())).collect();
        object.insert("structured_metadata".into(), pairs.into());
    }
    object.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(line: &'static [u8]) -> DeadLetter<'static> {
        DeadLetter {
            reason: "too_old",
            cause: "",
            tenant: Some("t"),
            labels: "{a=\"b\"}",
            time: 5,
            line,
            metadata: vec![("k".into(), "v".into())],
        }
    }

    #[test]
    fn letters_are_json_lines_and_the_file_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dead.json");
        let letters = DeadLetters::new(path.clone(), 300);
        letters.write([letter(b"one \xff"), letter(b"two")]);
        let text = std::fs::read_to_string(&path).unwrap();
        let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first["line"], "one \u{fffd}");
        assert_eq!(first["structured_metadata"]["k"], "v");
        assert_eq!(first["time_unix_nano"], "5");
        for _ in 0..5 {
            letters.write([letter(b"more")]);
        }
        assert!(std::fs::metadata(&path).unwrap().len() <= 300);
        assert!(dir.path().join("dead.json.1").exists());
    }

    #[test]
    fn a_file_that_cannot_be_written_does_no_harm() {
        let letters = DeadLetters::new("/nonexistent/dir/x".into(), 300);
        letters.write([letter(b"one")]);
        letters.write([letter(b"two")]);
    }
}
