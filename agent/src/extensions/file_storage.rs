//! `file_storage`: names the directory where receivers that refer to it keep their positions.
//!
//! Positions are kept without it, too, in the agent's state directory. With it they are in
//! `<directory>/tailwater`, so the collector's own files in the same directory are left alone (see
//! `tailwater checkpoints import`).

use std::path::PathBuf;

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pipeline::factory::{ExtensionFactory, ExtensionSettings, NodeCx};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{BuildError, ExtensionNode};

/// The factory of `file_storage`.
pub fn factory() -> ExtensionFactory {
    ExtensionFactory {
        kind: "file_storage",
        about: "names the directory where positions are kept",
        signals: &[],
        decode: |node, path, errors| {
            decode(node, path, errors).map(|s| Box::new(s) as Box<dyn ExtensionSettings>)
        },
    }
}

/// Validated settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `directory`.
    pub directory: PathBuf,
    /// `create_directory`: create it if it does not exist.
    pub create_directory: bool,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "directory",
        "Positions are in `tailwater` in it, queues in `tailwater-queues`; the collector's own files there are left alone.",
    ),
    (
        "create_directory",
        "The directory is made if it is missing.",
    ),
    ("timeout", "Has nothing to act on."),
    ("fsync", "Has nothing to act on."),
    (
        "recreate",
        "True is accepted with a warning: damage is repaired when the store is opened.",
    ),
    (
        "max_size",
        "Accepted with a warning: the store is compacted and limited by itself.",
    ),
    (
        "compaction",
        "Of the collector's database; has nothing to act on.",
    ),
    ("compaction::on_start", "Has nothing to act on."),
    ("compaction::on_rebound", "Has nothing to act on."),
    ("compaction::cleanup_on_start", "Has nothing to act on."),
    ("compaction::directory", "Has nothing to act on."),
    ("compaction::max_transaction_size", "Has nothing to act on."),
    (
        "compaction::rebound_needed_threshold_mib",
        "Has nothing to act on.",
    ),
    (
        "compaction::rebound_trigger_threshold_mib",
        "Has nothing to act on.",
    ),
    ("compaction::check_interval", "Has nothing to act on."),
];

/// Decodes the extension. Options that tune the collector's embedded database have no counterpart
/// in our log-structured store; they are accepted because they change nothing a user can see.
pub fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Settings> {
    let mut s = Section::new(node, path, errors);
    s.describe(OPTIONS);
    let directory = s.string("directory", "/var/lib/otelcol/file_storage");
    let create_directory = s.bool("create_directory", false);
    s.duration("timeout", std::time::Duration::from_secs(1));
    s.bool("fsync", false);
    s.refuse(
        "directory_permissions",
        "set the umask, or create the directory beforehand",
    );
    if s.bool("recreate", false) {
        s.warn(
            "recreate",
            "has no effect: damage is repaired when the store is opened",
        );
    }
    if s.u64("max_size", 0, ..) > 0 {
        s.warn(
            "max_size",
            "has no effect: the store is compacted and limited by itself",
        );
    }
    s.section("compaction", |s| {
        for key in ["on_start", "on_rebound", "cleanup_on_start"] {
            s.bool(key, false);
        }
        s.string_optional("directory");
        for key in [
            "max_transaction_size",
            "rebound_needed_threshold_mib",
            "rebound_trigger_threshold_mib",
        ] {
            s.u64(key, 0, ..);
        }
        s.duration("check_interval", std::time::Duration::from_secs(5));
    });
    s.finish();
    Some(Settings {
        directory: directory.into(),
        create_directory,
    })
}

impl ExtensionSettings for Settings {
    fn build(&self, _cx: &NodeCx) -> Result<Box<dyn ExtensionNode>, BuildError> {
        Ok(Box::new(FileStorage))
    }

    fn reach(&self, reach: &mut Reach) {
        // The directory as a whole: the store is made in it when a receiver asks for it.
        let create = self.create_directory.then_some(0o777);
        reach.writes_below(&self.directory, create);
    }
}

/// The store itself belongs to the agent and is opened when a receiver asks for it.
struct FileStorage;

impl ExtensionNode for FileStorage {
    fn start(&mut self) -> Result<(), BuildError> {
        Ok(())
    }

    fn stop(&mut self) {}
}
