//! The stores of positions: one per storage extension, and the agent's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tailwater_config::{
    ComponentEntry, ComponentId, ComponentKind, ConfigError, ConfigFile, Errors, KeyPath, Node,
};
use tailwater_pipeline::BuildError;
use tailwater_pipeline::checkpoint::{
    CheckpointError, CheckpointHandle, CheckpointStore, CheckpointWriter, Flush, ReadErrors,
    StoreOptions, WriterOptions, state_dir,
};
use tailwater_pipeline::clock::{Clock, Mono};
use tailwater_pipeline::fs::{Fs, OsFs};
use tailwater_pipeline::graph::Resolved;
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::storage::Storages;
use tailwater_telemetry::metrics::{CheckpointMetrics, MetricsRegistry};

use crate::extensions::file_storage;

/// A write that takes longer is an alarm: the disk does not answer.
const WRITE_TIME_MAX: Duration = Duration::from_secs(5);

/// The directory below a storage directory that holds our store.
pub const STORE_DIR: &str = "tailwater";

/// The directory below a storage directory that holds the queues of exporters.
pub const QUEUES_DIR: &str = "tailwater-queues";

/// The directory below the agent's state directory that holds its own store.
pub const OWN_DIR: &str = "checkpoints";

/// Who may look at positions: their owner.
const STATE_DIR_MODE: u32 = 0o700;

/// The sections of exporters that say where a queue is.
const QUEUE_SECTIONS: [&str; 2] = ["sending_queue", "remote_write_queue"];

/// The storage extensions of a configuration, by id.
pub type Directories = BTreeMap<String, file_storage::Settings>;

/// See the module's documentation. Belongs to the agent and outlives every node.
pub struct AgentStorages {
    directories: Mutex<Directories>,
    clock: Arc<dyn Clock>,
    metrics: Arc<MetricsRegistry>,
    open: Mutex<BTreeMap<PathBuf, OpenStore>>,
}

/// The state directory that the command line names.
static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// Has everything of this process kept below `dir`, whatever the environment says. Before anything is
/// looked for there; only the first one counts.
pub fn choose_state_directory(dir: PathBuf) {
    let _ = CHOSEN.set(dir);
}

/// Where the agent's own store is.
pub fn own_directory() -> Result<PathBuf, BuildError> {
    if let Some(dir) = CHOSEN.get() {
        return Ok(dir.join(OWN_DIR));
    }
    let dir = state_dir().map_err(|e| BuildError::new("the state directory", e.to_string()))?;
    Ok(dir.join(OWN_DIR))
}

/// Every storage that a receiver or a queue names must be a `file_storage` that runs, as in the
/// collector. Without this, the mistake would show at the start only.
pub fn check(file: &ConfigFile, errors: &mut Errors) {
    for receiver in file.components(ComponentKind::Receiver) {
        let path = receiver.path(ComponentKind::Receiver).child("storage");
        check_one(file, receiver.node.get("storage"), path, errors);
    }
    for exporter in file.components(ComponentKind::Exporter) {
        for section in QUEUE_SECTIONS {
            let path = exporter.path(ComponentKind::Exporter).child(section);
            let node = exporter.node.get(section).and_then(|q| q.get("storage"));
            check_one(file, node, path.child("storage"), errors);
        }
    }
}

/// The directories of the storages in which exporters of `file` have their queues, by exporter.
pub fn queues(file: &ConfigFile) -> BTreeMap<String, PathBuf> {
    let directories = AgentStorages::named(file);
    let exporters = file.components(ComponentKind::Exporter);
    let queue = |e: &ComponentEntry| {
        let mut sections = QUEUE_SECTIONS.iter().filter_map(|s| e.node.get(s));
        let storage = sections.find_map(|q| q.get("storage")?.as_text())?;
        let directory = directories.get(storage)?.directory.clone();
        Some((e.id.to_string(), directory))
    };
    exporters.iter().filter_map(queue).collect()
}

/// The directories of the storages in which receivers of `file` keep positions, by receiver and storage.
pub fn positions(file: &ConfigFile, resolved: &Resolved) -> BTreeMap<(String, String), PathBuf> {
    let directories = AgentStorages::named(file);
    let of = |(receiver, storage): (&str, String)| {
        let directory = directories.get(&storage)?.directory.clone();
        Some(((receiver.to_owned(), storage), directory))
    };
    resolved.positions().filter_map(of).collect()
}

fn check_one(file: &ConfigFile, node: Option<&Node>, path: KeyPath, errors: &mut Errors) {
    let Some((node, text)) = node.and_then(|n| Some((n, n.as_text()?))) else {
        return;
    };
    // What is no id is reported by the component.
    let Ok(id) = ComponentId::parse(text) else {
        return;
    };
    let message = if file.component(ComponentKind::Extension, &id).is_none() {
        format!("references extension \"{id}\" which is not configured")
    } else if id.type_name() != "file_storage" {
        format!("extension \"{id}\" does not store anything; name a file_storage")
    } else if !file.service.extensions.iter().any(|r| r.id == id) {
        format!("extension \"{id}\" does not run; add it to service::extensions")
    } else {
        return;
    };
    errors.push(ConfigError::new(node.span.clone(), path, message));
}

/// Adds the store that receivers use which name no storage. Those of a `file_storage` are reached
/// through it.
pub fn reach(file: &ConfigFile, reach: &mut Reach) {
    let receivers = file.components(ComponentKind::Receiver);
    let own = receivers.iter().any(|r| r.node.get("storage").is_none());
    if let (true, Ok(dir)) = (own, own_directory()) {
        reach.writes_below(dir, Some(STATE_DIR_MODE));
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
    open_store_on(Arc::new(OsFs), dir)
}

/// As [`open_store`], on a given file system.
fn open_store_on(fs: Arc<dyn Fs>, dir: &Path) -> Result<CheckpointStore, BuildError> {
    let open = |read_errors| {
        let options = StoreOptions {
            read_errors,
            ..StoreOptions::default()
        };
        CheckpointStore::open(fs.clone(), dir, options)
    };
    // A read error that does not go away must not keep the agent from starting: what can be read
    // is used, and what cannot is reported.
    let opened = match open(ReadErrors::Refuse) {
        Err(CheckpointError::Io {
            action: "open" | "read",
            ..
        }) => open(ReadErrors::TakeAsDamage),
        other => other,
    };
    let (store, report) = opened.map_err(|e| {
        BuildError::new(format!("the positions in {}", dir.display()), e.to_string())
    })?;
    if report.is_damaged() {
        tracing::error!(
            directory = %dir.display(), positions = report.recovered,
            torn_bytes = report.torn_bytes, damaged_records = report.damaged_records,
            used_previous_generation = report.used_previous_generation,
            "the stored positions were damaged; everything readable is used, and lines may be \
             delivered again"
        );
    } else if report.torn_bytes > 0 {
        tracing::info!(
            directory = %dir.display(), torn_bytes = report.torn_bytes,
            "the last write of positions was not finished; the ones before it are used"
        );
    }
    Ok(store)
}

/// A store that receivers use.
struct OpenStore {
    writer: CheckpointWriter,
    metrics: Arc<CheckpointMetrics>,
}

impl OpenStore {
    /// Why nothing is saved: the newest error, or a disk that does not answer.
    fn alarm(&self, now: Mono) -> Option<String> {
        let handle = self.writer.handle();
        let failed = handle.alarm().map(|alarm| alarm.error);
        failed.or_else(|| {
            let writing = handle.writing_for(now);
            if writing >= WRITE_TIME_MAX {
                return Some(format!(
                    "the disk has not answered for {} s",
                    writing.as_secs()
                ));
            }
            let full = handle.stats().full;
            full.then(|| "no room for the positions of more files".to_owned())
        })
    }

    /// Copies the store's numbers to its metrics. One caller at a time.
    fn observe(&self, now: Mono) {
        let (handle, m) = (self.writer.handle(), &self.metrics);
        let stats = handle.stats();
        let counters = [
            (&m.writes, stats.commits),
            (&m.write_failures, stats.failed_commits),
            (&m.written_bytes, stats.written_bytes),
            (&m.refused, stats.refused),
            (&m.evicted, stats.evicted),
        ];
        for (counter, value) in counters {
            counter.inc_by(value.saturating_sub(counter.get()));
        }
        let took = handle.write_time().as_secs_f64();
        m.write_seconds
            .inc_by((took - m.write_seconds.get()).max(0.0));
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        m.size_bytes.set(gauge(stats.size_bytes));
        m.entries.set(gauge(stats.keys as u64));
        m.unsaved_entries.set(gauge(stats.unsaved_keys as u64));
        m.unsaved_seconds.set(handle.unsaved_for(now).as_secs_f64());
        m.alarm.set(i64::from(self.alarm(now).is_some()));
    }
}

impl AgentStorages {
    /// No storages but the agent's own. Nothing is opened before a receiver asks for it.
    pub fn new(clock: Arc<dyn Clock>, metrics: Arc<MetricsRegistry>) -> AgentStorages {
        AgentStorages {
            directories: Mutex::default(),
            clock,
            metrics,
            open: Mutex::default(),
        }
    }

    /// The storages that `file` names.
    pub fn named(file: &ConfigFile) -> Directories {
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
        directories
    }

    /// From now on there are these; gives those there were.
    pub fn set(&self, directories: Directories) -> Directories {
        let mut known = self.directories.lock().unwrap_or_else(|e| e.into_inner());
        std::mem::replace(&mut *known, directories)
    }

    fn directory(&self, id: Option<&str>) -> Result<PathBuf, BuildError> {
        match id {
            None => own_directory(),
            Some(id) => Ok(self.extension(id)?.join(STORE_DIR)),
        }
    }

    /// The directory of a storage extension, which exists.
    fn extension(&self, id: &str) -> Result<PathBuf, BuildError> {
        let directories = self.directories.lock().unwrap_or_else(|e| e.into_inner());
        let Some(s) = directories.get(id) else {
            let known: Vec<&str> = directories.keys().map(String::as_str).collect();
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
        Ok(s.directory.clone())
    }

    /// Brings the metrics of every store up to date. Called at each scrape.
    pub fn observe(&self) {
        let now = self.clock.now();
        let open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        open.values().for_each(|store| store.observe(now));
    }

    /// Why some store does not save, if one does not.
    pub fn alarms(&self) -> Vec<String> {
        let now = self.clock.now();
        let open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        let alarm = |(dir, store): (&PathBuf, &OpenStore)| {
            let why = store.alarm(now)?;
            Some(format!("{}: {why}", dir.display()))
        };
        open.iter().filter_map(alarm).collect()
    }

    /// Saves everything and ends the writers. False if something could not be saved in time.
    pub fn close(&self, deadline: Mono) -> bool {
        let writers = std::mem::take(&mut *self.open.lock().unwrap_or_else(|e| e.into_inner()));
        let mut saved = true;
        for (_, store) in writers {
            let left = deadline.since(self.clock.now());
            saved &= store.writer.handle().flush(left) == Flush::Done;
            drop(store);
        }
        saved
    }
}

/// A name of its own for every text: bytes that are not letters, digits, `-` or `_` are written as
/// `~` and two hexadecimal digits.
fn file_name(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
            other => out.push_str(&format!("~{other:02x}")),
        }
    }
    out
}

impl Storages for AgentStorages {
    fn open(&self, id: Option<&str>) -> Result<CheckpointHandle, BuildError> {
        let dir = self.directory(id)?;
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(store) = open.get(&dir) {
            return Ok(store.writer.handle());
        }
        let store = open_store(&dir)?;
        let metrics = CheckpointMetrics::new(&self.metrics, &dir.to_string_lossy());
        metrics
            .recoveries
            .inc_by(u64::from(store.opened().is_damaged()));
        let started = CheckpointWriter::spawn(store, self.clock.clone(), writer_options());
        let writer = started.map_err(|e| {
            BuildError::new(
                "the positions",
                format!("cannot start the writer's thread: {e}"),
            )
        })?;
        let handle = writer.handle();
        open.insert(dir, OpenStore { writer, metrics });
        Ok(handle)
    }

    fn queue_dir(&self, id: &str, name: &str) -> Result<PathBuf, BuildError> {
        Ok(self.extension(id)?.join(QUEUES_DIR).join(file_name(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::io;
    use tailwater_pipeline::checkpoint::Checkpoint;
    use tailwater_pipeline::fs::FsFile;
    use tailwater_testkit::tempdir::TempDir;

    /// How a file fails.
    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        Open,
        Read,
    }

    /// The system's files, but for those whose names end in one of the given texts.
    struct BrokenFs(&'static [&'static str], Fault);

    impl BrokenFs {
        fn breaks(&self, path: &Path) -> bool {
            let name = path.to_string_lossy();
            self.0.iter().any(|end| name.ends_with(end))
        }
    }

    struct BrokenFile(Box<dyn FsFile>);

    impl FsFile for BrokenFile {
        fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("a bad sector"))
        }
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.append(bytes)
        }
        fn byte_len(&self) -> io::Result<u64> {
            self.0.byte_len()
        }
        fn truncate(&mut self, len: u64) -> io::Result<()> {
            self.0.truncate(len)
        }
        fn sync_data(&mut self) -> io::Result<()> {
            self.0.sync_data()
        }
        fn try_lock_exclusive(&self) -> io::Result<bool> {
            self.0.try_lock_exclusive()
        }
    }

    impl Fs for BrokenFs {
        fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
            let file = OsFs.open(path)?;
            match self.breaks(path) {
                true if self.1 == Fault::Open => Err(io::Error::other("a bad sector")),
                true => Ok(Box::new(BrokenFile(file))),
                false => Ok(file),
            }
        }
        fn open_append(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
            OsFs.open_append(path)
        }
        fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
            OsFs.create(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            OsFs.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            OsFs.remove(path)
        }
        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            OsFs.sync_dir(dir)
        }
        fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
            OsFs.list(dir)
        }
        fn create_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
            OsFs.create_dir(dir, mode)
        }
    }

    fn at(offset: u64) -> Checkpoint {
        Checkpoint {
            offset,
            ..Checkpoint::default()
        }
    }

    /// Two generations: `a` at 1 and 2 in the first, at 3 in the log of the second.
    fn two_generations() -> TempDir {
        let dir = TempDir::new("broken-store").unwrap();
        for offsets in [&[1, 2][..], &[2, 3]] {
            let mut store = open_store(&dir.join("s")).unwrap();
            for offset in offsets {
                store.put(b"a", at(*offset)).unwrap();
                store.commit().unwrap();
            }
        }
        dir
    }

    /// Guarantee: a disk that does not give some files back costs at most what only they had; the
    /// agent starts, says that positions may be missing, and saves again.
    #[test]
    fn files_that_cannot_be_read_are_replaced_by_older_ones_and_never_pass_as_a_first_run() {
        const SNAPSHOT: &str = "2.snapshot";
        const LOG: &str = "2.log";
        let cases: [(&[&str], Option<u64>, bool); 4] = [
            (&[SNAPSHOT], Some(3), false),
            (&[LOG], Some(2), true),
            (&[SNAPSHOT, LOG], Some(2), true),
            (&["snapshot", "log"], None, true),
        ];
        for (broken, offset, may_lack_keys) in cases {
            for fault in [Fault::Read, Fault::Open] {
                let dir = two_generations();
                let fs = Arc::new(BrokenFs(broken, fault));
                let mut store = open_store_on(fs, &dir.join("s")).unwrap();
                assert_eq!(store.get(b"a").map(|c| c.offset), offset, "{broken:?}");
                let opened = store.opened();
                assert!(opened.is_damaged(), "{broken:?}: {opened:?}");
                assert_eq!(opened.may_lack_keys(), may_lack_keys, "{broken:?}");
                store.put(b"a", at(9)).unwrap();
                store.commit().unwrap();
                drop(store);
                let store = open_store(&dir.join("s")).unwrap();
                assert_eq!(store.get(b"a"), Some(at(9)), "{broken:?}");
                assert!(!store.opened().is_damaged(), "{broken:?}");
            }
        }
    }

    /// Guarantee: whatever section an exporter says it in, its queue is in a storage that runs, and is known.
    #[test]
    fn queues_are_in_storages_that_run() {
        use crate::commands::check::{check_offer, mistakes};
        use crate::offer::{Offer, Reading};
        for (exporter, section) in [
            ("otlp_http", "sending_queue"),
            ("prometheusremotewrite", "remote_write_queue"),
        ] {
            let check = |runs: &str| {
                let yaml = format!(
                    "receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:0'}}}}}}}}\n\
                     exporters: {{{exporter}: {{endpoint: 'http://a.example', {section}: {{storage: file_storage}}}}}}\n\
                     extensions: {{file_storage: {{directory: /q}}}}\n\
                     service:\n  extensions: [{runs}]\n  \
                     pipelines: {{metrics: {{receivers: [otlp], exporters: [{exporter}]}}}}\n"
                );
                let offer = Offer {
                    sources: vec![tailwater_config::Source::Yaml(yaml)],
                    ..Offer::default()
                };
                check_offer(&offer, &Reading::of(&offer)).map_err(|e| mistakes(&e))
            };
            let refused = check("").err().unwrap();
            let text = format!("{section}::storage: extension \"file_storage\" does not run");
            assert!(
                refused.len() == 1 && refused[0].contains(&text),
                "{refused:?}"
            );
            let known = queues(&check("file_storage").unwrap().loaded.file);
            assert_eq!(known, [(exporter.to_owned(), PathBuf::from("/q"))].into());
        }
    }

    #[test]
    fn every_queue_has_a_file_name_of_its_own() {
        assert_eq!(file_name("otlp_grpc/a.b logs"), "otlp_grpc~2fa~2eb~20logs");
        assert_ne!(file_name("a~2fb"), file_name("a/b"));
        assert_eq!(file_name(".."), "~2e~2e");
    }

    #[test]
    fn an_empty_directory_is_a_first_run() {
        let dir = TempDir::new("new-store").unwrap();
        let opened = open_store(&dir.join("s")).unwrap().opened();
        assert!(!opened.is_damaged() && opened.recovered == 0);
    }
}
