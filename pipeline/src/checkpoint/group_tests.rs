//! Scenario: checkpoints that are right only together, whose log is cut at every byte and flipped at
//! every bit, and that are put while a commit is under way. Guarantee: all of them come back, or
//! none.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::store::StoreOptions;
use super::table::{Changes, PutError, Table};
use super::{Checkpoint, CheckpointStore, OpenReport, WriterCore, WriterOptions};
use crate::clock::Mono;
use crate::fs::{Fs, FsFile, SimFs};

const DIR: &str = "/s";

fn at(offset: u64) -> Checkpoint {
    Checkpoint {
        offset,
        generation: 1,
        payload: vec![offset as u8; 5],
    }
}

fn open(fs: &SimFs) -> (CheckpointStore, OpenReport) {
    open_at(Arc::new(fs.clone()))
}

fn open_at(fs: Arc<dyn Fs>) -> (CheckpointStore, OpenReport) {
    let options = StoreOptions {
        seed: 4,
        ..StoreOptions::default()
    };
    CheckpointStore::open(fs, Path::new(DIR), options).unwrap()
}

fn log(fs: &SimFs) -> (PathBuf, Vec<u8>) {
    let path = Path::new(DIR).join("0000000000000001.log");
    let content = fs.content(&path).unwrap();
    (path, content)
}

fn offsets<const N: usize>(store: &CheckpointStore, keys: [&[u8]; N]) -> [u64; N] {
    keys.map(|key| store.get(key).map_or(0, |c| c.offset))
}

const KEYS: [&[u8]; 5] = [b"alone", b"a", b"b", b"c", b"last"];

/// All at 1 in the snapshot; in the log `alone` at 2, then `a`, `b` and `c` together at 2, then
/// `last` at 2.
fn one_group() -> SimFs {
    let fs = SimFs::new(0);
    let (mut store, _) = open(&fs);
    for key in KEYS {
        store.put(key, at(1)).unwrap();
    }
    store.commit().unwrap();
    store.put(b"alone", at(2)).unwrap();
    store
        .put_all(KEYS[1..4].iter().map(|key| (*key, at(2))))
        .unwrap();
    store.put(b"last", at(2)).unwrap();
    let done = store.commit().unwrap();
    assert_eq!((done.records, done.compacted), (5, false));
    fs
}

#[test]
fn every_cut_of_a_log_leaves_all_of_a_group_or_nothing() {
    let (path, content) = log(&one_group());
    let mut seen = std::collections::BTreeSet::new();
    for len in 0..content.len() {
        let fs = one_group();
        fs.set_content(&path, content[..len].to_vec());
        let (store, report) = open(&fs);
        seen.insert(offsets(&store, KEYS));
        assert_eq!(report.damaged_records, 0, "cut at {len}");
        assert!(
            !report.is_damaged(),
            "what a crash interrupted is no damage"
        );
    }
    let want = [[1, 1, 1, 1, 1], [2, 1, 1, 1, 1], [2, 2, 2, 2, 1]];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), want);
}

#[test]
fn a_flipped_bit_costs_one_record_or_one_group() {
    let (path, content) = log(&one_group());
    let mut of_group = 0;
    for bit in 0..content.len() * 8 {
        let fs = one_group();
        let mut bad = content.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs.set_content(&path, bad);
        let (store, report) = open(&fs);
        let found = offsets(&store, KEYS);
        assert!(found[1] == found[2] && found[2] == found[3], "bit {bit}");
        let old = (
            u64::from(found[0] == 1),
            u64::from(found[1] == 1),
            u64::from(found[4] == 1),
        );
        assert!(old.0 + old.1 + old.2 <= 1, "bit {bit}: {found:?}");
        of_group += old.1;
        // Three records of the group are lost by one damage.
        let lost = old.0 + 3 * old.1 + old.2;
        let known = report.damaged_records + u64::from(report.torn_bytes > 0);
        assert_eq!(known, lost, "bit {bit}: {report:?}");
    }
    assert!(of_group > 500, "{of_group}");
}

#[test]
fn what_shares_a_key_with_a_group_that_is_not_saved_joins_it() {
    let fs = SimFs::new(0);
    let (mut store, _) = open(&fs);
    store.put(b"x", at(1)).unwrap();
    store.commit().unwrap();
    let put = |keys: &[&[u8]], offset| {
        store
            .put_all(keys.iter().map(|key| (*key, at(offset))))
            .unwrap();
    };
    put(&[b"a", b"b"], 2);
    put(&[b"c", b"d"], 2);
    put(&[b"b", b"c"], 3);
    store.put(b"a", at(9)).unwrap();
    store.remove(b"d");
    store.commit().unwrap();
    let (path, content) = log(&fs);
    let mut seen = std::collections::BTreeSet::new();
    for len in 0..=content.len() {
        let fs = fs.clone();
        fs.crash(1);
        fs.set_content(&path, content[..len].to_vec());
        seen.insert(offsets(&open(&fs).0, [b"x", b"a", b"b", b"c", b"d"]));
    }
    let want = [[1, 0, 0, 0, 0], [1, 9, 3, 3, 0]];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), want);
}

/// Guarantee: what takes the place of others is there, or they are, whatever a power loss leaves of the
/// log; what is not saved yet and is tied to one of them comes along.
#[test]
fn what_is_replaced_is_replaced_as_a_whole() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let fs = SimFs::new(seed);
        let (store, _) = open(&fs);
        let (mut core, handle) = WriterCore::new(store, WriterOptions::default());
        for key in KEYS {
            handle.put(key, at(5)).unwrap();
        }
        let saved: [(&[u8], _); 1] = [(b"x", at(1))];
        handle.put_durable(saved, None).unwrap();
        core.step(Mono(1));
        core.step(Mono(u64::MAX / 2));
        core.step(Mono(u64::MAX / 2 + 1));
        handle
            .put_all([(KEYS[2], at(6)), (KEYS[3], at(6))])
            .unwrap();
        let removed: Vec<_> = KEYS[..2].iter().map(|key| key.to_vec()).collect();
        let put = [(KEYS[2].to_vec(), at(4)), (b"new".to_vec(), at(3))];
        handle.replace(&removed, &put).unwrap();
        fs.halt_at(fs.operations() + seed / 4 % 3);
        drop(core.finish(Mono(u64::MAX / 2 + 2)));
        fs.crash(seed);
        let keys: [&[u8]; 5] = [KEYS[0], KEYS[1], KEYS[2], KEYS[3], b"new"];
        seen.insert(offsets(&open(&fs).0, keys));
    }
    let want = [[0, 0, 4, 6, 3], [5, 5, 5, 5, 0]];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), want);
}

/// Guarantee: where there is no room for all of it, nothing is replaced.
#[test]
fn what_does_not_fit_replaces_nothing() {
    let fs = Arc::new(SimFs::new(0));
    let options = StoreOptions {
        live_bytes_max: 200,
        ..StoreOptions::default()
    };
    let (store, _) = CheckpointStore::open(fs, Path::new("/state"), options).unwrap();
    let (_core, handle) = WriterCore::new(store, WriterOptions::default());
    handle.put(b"a", at(1)).unwrap();
    let put: Vec<_> = (0..20u8).map(|n| (vec![n + 1], at(1))).collect();
    let refused = handle.replace(&[b"a".to_vec()], &put);
    assert!(matches!(refused, Err(PutError::Full { .. })), "{refused:?}");
    assert_eq!((handle.stats().keys, handle.get(b"a")), (1, Some(at(1))));
}

#[test]
fn who_waits_for_one_of_a_group_has_all_of_it_saved() {
    let mut table = Table::new(1 << 20);
    table.put_all([(&b"a"[..], at(1)), (b"b", at(1))]).unwrap();
    table.put(b"other", at(1), false).unwrap();
    table.put(b"a", at(2), true).unwrap();
    let mut out = Vec::new();
    let mut pass = table.changes(Changes::Urgent);
    assert_eq!(table.encode(&mut pass, 0, usize::MAX, &mut out), 2);
    assert_eq!(table.encode(&mut pass, 0, usize::MAX, &mut out), 0);
    table.saved(Changes::Urgent, table.sequence());
    // It is on disk and does not tie anything any more.
    table.put(b"b", at(3), false).unwrap();
    let mut pass = table.changes(Changes::All);
    assert_eq!(table.encode(&mut pass, 0, usize::MAX, &mut out), 2);
}

/// What happens once.
type Act = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A disk in whose appends something happens.
struct Busy {
    disk: SimFs,
    at_append: Act,
    /// Which file's appends.
    extension: &'static str,
}

struct BusyFile {
    file: Box<dyn FsFile>,
    at_append: Act,
}

impl FsFile for BusyFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        self.file.read_at(offset, buf)
    }
    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        // Beyond the header: the first records are written.
        if bytes.len() > 1000
            && let Some(act) = self.at_append.lock().unwrap().take()
        {
            act();
        }
        self.file.append(bytes)
    }
    fn byte_len(&self) -> std::io::Result<u64> {
        self.file.byte_len()
    }
    fn truncate(&mut self, len: u64) -> std::io::Result<()> {
        self.file.truncate(len)
    }
    fn sync_data(&mut self) -> std::io::Result<()> {
        self.file.sync_data()
    }
    fn try_lock_exclusive(&self) -> std::io::Result<bool> {
        self.file.try_lock_exclusive()
    }
}

impl Fs for Busy {
    fn open(&self, path: &Path) -> std::io::Result<Box<dyn FsFile>> {
        self.disk.open(path)
    }
    fn open_append(&self, path: &Path) -> std::io::Result<Box<dyn FsFile>> {
        self.disk.open_append(path)
    }
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn FsFile>> {
        let file = self.disk.create(path)?;
        if path.extension().is_none_or(|e| e != self.extension) {
            return Ok(file);
        }
        let at_append = self.at_append.clone();
        Ok(Box::new(BusyFile { file, at_append }))
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn list(&self, dir: &Path) -> std::io::Result<Vec<std::ffi::OsString>> {
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &Path, mode: u32) -> std::io::Result<()> {
        self.disk.create_dir(dir, mode)
    }
}

/// Commits so much that it takes several writes, puts `first` (written by the first of them)
/// and `last` (by the last) together in between, and loses power after the commit.
fn put_in_the_midst_of_a_commit(extension: &'static str) -> [u64; 3] {
    let disk = SimFs::new(0);
    let at_append = Act::default();
    let busy = Busy {
        disk: disk.clone(),
        at_append: at_append.clone(),
        extension,
    };
    let (mut store, _) = open_at(Arc::new(busy));
    let many = |store: &CheckpointStore, offset| {
        store.put(b"first", at(offset)).unwrap();
        for n in 0..8000u32 {
            store.put(&n.to_be_bytes(), at(offset)).unwrap();
        }
        store.put(b"last", at(offset)).unwrap();
    };
    if extension == "log" {
        store.commit().unwrap();
        many(&store, 1);
        store.commit().unwrap();
        many(&store, 2);
    } else {
        many(&store, 2);
        // The next commit begins a generation.
        drop(store.commit());
        drop(store);
        disk.kill();
        let busy = Busy {
            disk: disk.clone(),
            at_append: at_append.clone(),
            extension,
        };
        store = open_at(Arc::new(busy)).0;
    }
    let table = store.table().clone();
    *at_append.lock().unwrap() = Some(Box::new(move || {
        let batch: [(&[u8], Checkpoint); 3] =
            [(b"first", at(3)), (b"last", at(3)), (b"new", at(3))];
        table.lock().unwrap().put_all(batch).unwrap();
    }));
    store.commit().unwrap();
    assert!(at_append.lock().unwrap().is_none(), "it happened");
    assert_eq!(store.stats().unsaved_keys, 3);
    drop(store);
    disk.crash(0);
    offsets(&open(&disk).0, [b"first", b"last", b"new"])
}

#[test]
fn what_is_put_together_during_a_commit_is_saved_by_it_as_a_whole_or_not() {
    for extension in ["log", "tmp"] {
        let found = put_in_the_midst_of_a_commit(extension);
        assert_eq!(
            found,
            [3, 3, 3],
            "{extension}: `last` is written after that"
        );
    }
}
