//! The stores of positions: one per storage extension, and the agent's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailwater_config::{ComponentId, ComponentKind, ConfigError, ConfigFile, Errors};
use tailwater_pipeline::BuildError;
use tailwater_pipeline::checkpoint::{
    CheckpointError, CheckpointHandle, CheckpointStore, CheckpointWriter, Flush, ReadErrors,
    StoreOptions, WriterOptions, state_dir,
};
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::fs::OsFs;
use tailwater_pipeline::storage::Storages;

use crate::extensions::file_storage;

/// The directory below a storage directory that holds our store.
pub const STORE_DIR: &str = "tailwater";

/// The directory below the agent's state directory that holds its own store.
pub const OWN_DIR: &str = "checkpoints";

/// See the module's documentation. Belongs to the agent and outlives every node.
pub struct AgentStorages {
    directories: BTreeMap<String, file_storage::Settings>,
    clock: Arc<dyn Clock>,
    open: Mutex<BTreeMap<PathBuf, CheckpointWriter>>,
}

/// Where the agent's own store is.
pub fn own_directory() -> Result<PathBuf, BuildError> {
    let dir = state_dir().map_err(|e| BuildError::new("the state directory", e.to_string()))?;
    Ok(dir.join(OWN_DIR))
}

/// Every storage that a receiver names must be a `file_storage` that runs, as in the collector.
/// Without this, the mistake would show at the start only.
pub fn check(file: &ConfigFile, errors: &mut Errors) {
    for receiver in file.components(ComponentKind::Receiver) {
        let node = receiver.node.get("storage");
        let Some((node, text)) = node.and_then(|n| Some((n, n.as_text()?))) else {
            continue;
        };
        // What is no id is reported by the receiver.
        let Ok(id) = ComponentId::parse(text) else {
            continue;
        };
        let message = if file.component(ComponentKind::Extension, &id).is_none() {
            format!("references extension \"{id}\" which is not configured")
        } else if id.type_name() != "file_storage" {
            format!("extension \"{id}\" does not store anything; name a file_storage")
        } else if !file.service.extensions.iter().any(|r| r.id == id) {
            format!("extension \"{id}\" does not run; add it to service::extensions")
        } else {
            continue;
        };
        let path = receiver.path(ComponentKind::Receiver).child("storage");
        errors.push(ConfigError::new(node.span.clone(), path, message));
    }
}

/// A commit costs about 0.1 ms of CPU off the data threads, so four a second are cheap, and what a
/// kill makes an agent deliver again stays small.
fn writer_options() -> WriterOptions {
    WriterOptions {
        interval: Duration::from_millis(250),
        ..WriterOptions::default()
    }
}

/// Opens the store in `dir`.
pub fn open_store(dir: &Path) -> Result<CheckpointStore, BuildError> {
    let open = |read_errors| {
        let options = StoreOptions {
            read_errors,
            ..StoreOptions::default()
        };
        CheckpointStore::open(Arc::new(OsFs), dir, options)
    };
    // A read error that does not go away must not keep the agent from starting: what can be read
    // is used, and what cannot is reported.
    let opened = match open(ReadErrors::Refuse) {
        Err(CheckpointError::Io { .. }) => open(ReadErrors::TakeAsDamage),
        other => other,
    };
    let (store, report) = opened.map_err(|e| {
        BuildError::new(format!("the positions in {}", dir.display()), e.to_string())
    })?;
    if report.damaged_records > 0 || report.torn_bytes > 0 || report.used_previous_generation {
        tracing::warn!(
            directory = %dir.display(), torn_bytes = report.torn_bytes,
            damaged_records = report.damaged_records,
            used_previous_generation = report.used_previous_generation,
            "the stored positions were damaged; everything readable is used"
        );
    }
    Ok(store)
}

impl AgentStorages {
    /// The storages a configuration names. Nothing is opened before a receiver asks for it.
    pub fn new(file: &ConfigFile, clock: Arc<dyn Clock>) -> AgentStorages {
        let mut directories = BTreeMap::new();
        for e in file.components(ComponentKind::Extension) {
            if e.id.type_name() == "file_storage" {
                let path = e.path(ComponentKind::Extension);
                let decoded = file_storage::decode(&e.node, &path, &mut Errors::new());
                if let Some(settings) = decoded {
                    directories.insert(e.id.to_string(), settings);
                }
            }
        }
        AgentStorages {
            directories,
            clock,
            open: Mutex::default(),
        }
    }

    fn directory(&self, id: Option<&str>) -> Result<PathBuf, BuildError> {
        let Some(id) = id else { return own_directory() };
        let Some(s) = self.directories.get(id) else {
            let known: Vec<&str> = self.directories.keys().map(String::as_str).collect();
            let text = format!("no such storage extension; there is: {}", known.join(", "));
            return Err(BuildError::new(format!("storage {id:?}"), text));
        };
        if !s.create_directory && !s.directory.is_dir() {
            let text = format!(
                "the directory {} does not exist; create it or set create_directory: true",
                s.directory.display()
            );
            return Err(BuildError::new(format!("extension {id}"), text));
        }
        std::fs::create_dir_all(&s.directory).map_err(|e| {
            let text = format!("cannot create {}: {e}", s.directory.display());
            BuildError::new(format!("extension {id}"), text)
        })?;
        Ok(s.directory.join(STORE_DIR))
    }

    /// Why some store does not save, if one does not.
    pub fn alarms(&self) -> Vec<String> {
        let open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        let alarm = |(dir, w): (&PathBuf, &CheckpointWriter)| {
            w.handle()
                .alarm()
                .map(|a| format!("{}: {}", dir.display(), a.error))
        };
        open.iter().filter_map(alarm).collect()
    }

    /// Saves everything and ends the writers. False if something could not be saved in time.
    pub fn close(&self, deadline: Mono) -> bool {
        let writers = std::mem::take(&mut *self.open.lock().unwrap_or_else(|e| e.into_inner()));
        let mut saved = true;
        for (_, writer) in writers {
            let left = deadline.since(self.clock.now());
            saved &= writer.handle().flush(left) == Flush::Done;
            drop(writer);
        }
        saved
    }
}

impl Storages for AgentStorages {
    fn open(&self, id: Option<&str>) -> Result<CheckpointHandle, BuildError> {
        let dir = self.directory(id)?;
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(writer) = open.get(&dir) {
            return Ok(writer.handle());
        }
        let store = open_store(&dir)?;
        let started = CheckpointWriter::spawn(store, self.clock.clone(), writer_options());
        let writer = started.map_err(|e| {
            BuildError::new(
                "the positions",
                format!("cannot start the writer's thread: {e}"),
            )
        })?;
        let handle = writer.handle();
        open.insert(dir, writer);
        Ok(handle)
    }
}
