//! Validated settings, as the shards use them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use regex::bytes::Regex;
use tailwater_pdata::{Key, Map, Value};

use super::config::NamedFile;
use super::file_attrs::FileAttributeRules;
use super::lanes::Lanes;
use super::tail::OnTruncate;
use crate::input::charset::Charset;
use crate::input::constants::Constants;
use crate::input::frame::FrameSpec;

/// Bytes read at once.
pub const READ_BYTES: usize = 256 << 10;

/// See the module's documentation.
pub struct Settings {
    /// The receiver's id, with the exporter it serves where there are several; for messages.
    pub id: Arc<str>,
    /// Where positions are stored.
    pub namespace: Arc<str>,
    /// What it shares with the other lanes of the receiver, and which of them it is.
    pub lanes: Arc<Lanes>,
    /// See `lanes`.
    pub lane: usize,
    /// Bytes read at once.
    pub read_bytes: usize,
    /// `fingerprint_size`.
    pub head_bytes: usize,
    /// `encoding`.
    pub charset: Charset,
    /// Rules of framing, for the configured encoding.
    pub frame: FrameSpec,
    /// The content is container logs: blanks at the end of a line that goes on in the next one
    /// (CRI tag `P`) are text, whatever `frame` trims.
    pub keep_partial_blanks: bool,
    /// `force_flush_period`; zero = never.
    pub force_flush_period: Duration,
    /// `poll_interval`.
    pub poll_interval: Duration,
    /// `on_truncate`.
    pub on_truncate: OnTruncate,
    /// Open files per shard.
    pub open_files_max: usize,
    /// Files that the receiver has open now, in all its threads.
    pub open_files: Arc<AtomicUsize>,
    /// `acquire_fs_lock`.
    pub acquire_fs_lock: bool,
    /// `file_cache_advise`.
    pub forget_pages: bool,
    /// `delete_after_read`.
    pub delete_after_read: bool,
    /// How long a renamed file is watched for late writes after it was read to its end.
    pub linger_renamed: Duration,
    /// The same for a deleted file.
    pub linger_deleted: Duration,
    /// How long a deleted file is held until everything is delivered.
    pub hold_age_max: Duration,
    /// Bytes of deleted files that are held, per shard.
    pub hold_bytes_max: u64,
    /// `include_file_*`.
    pub attributes: FileAttributeRules,
    /// `header.pattern`.
    pub header: Option<Regex>,
    /// `attributes` and `resource`.
    pub constants: Constants,
    /// `files`: the resource of the records of each, with what `resource` says.
    pub resources: HashMap<PathBuf, Arc<Map>>,
    /// Changes are found by looking instead of by notification.
    pub polling: AtomicBool,
}

impl Settings {
    /// The rules of framing for a file of encoding `charset`.
    pub fn frame(&self, charset: Charset) -> FrameSpec {
        let mut spec = FrameSpec {
            units: charset.units(),
            ..self.frame.clone()
        };
        spec.trim.trailing &= !self.keep_partial_blanks;
        spec
    }

    /// The resource of the records of the file at `path`, if it has one of its own.
    pub fn resource_of(&self, path: &Path) -> Option<&Arc<Map>> {
        self.resources.get(path)
    }

    /// How soon a file at rest is looked at again that has been idle for `idle`; `None` = not by
    /// itself, notifications tell.
    pub fn probe_interval(&self, idle: Duration) -> Option<Duration> {
        if !self.polling.load(std::sync::atomic::Ordering::Relaxed) {
            // Notifications are news, not truth: a file that was just written is looked at again.
            return (idle < Duration::from_secs(5)).then_some(Duration::from_secs(1));
        }
        let interval = self.poll_interval;
        Some(if idle < Duration::from_secs(60) {
            interval
        } else {
            interval.max(Duration::from_secs(1))
        })
    }
}

/// The resource of the records of each of `files`: what is the same for all, and over it what is theirs.
pub fn resources_of(constants: &Constants, files: &[NamedFile]) -> HashMap<PathBuf, Arc<Map>> {
    let of = |file: &NamedFile| {
        let mut resource = constants.resource().cloned().unwrap_or_default();
        for (key, text) in &file.resource {
            resource.insert(Key::from(key.as_str()), Value::str(text));
        }
        (file.path.clone(), Arc::new(resource))
    };
    let own = files.iter().filter(|f| !f.resource.is_empty());
    own.map(of).collect()
}
