//! What is told of files: which file is meant, where it is by now, and how far it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::files::{FileState, FileStatus, FilesPart, FilesQuery};

use super::super::logfs::{LogFs, OsLogFs};
use super::*;

const WALL_NS: i64 = 2_000_000_000_000_000_000;

/// A directory of logs, a catalog of them, and what it has open for a shard.
struct Rig {
    dir: tempfile::TempDir,
    catalog: Catalog,
    open: Vec<OpenFile>,
}

impl Rig {
    /// Of `*.log`, each with ten bytes.
    fn new(names: &[&str]) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let rules = Rules {
            head_bytes: 1000,
            from_beginning: true,
            gzip: GzipRule::Auto,
            shards: 1,
            selects: Box::new(|path| path.extension().is_some_and(|e| e == "log")),
            started_ns: 0,
            open_files: Arc::default(),
            open_files_max: usize::MAX,
            keep_offset: false,
            anew_when_cut: true,
        };
        let mut rig = Rig {
            catalog: Catalog::new(rules, Arc::new(OsLogFs), Vec::new()),
            open: Vec::new(),
            dir,
        };
        for name in names {
            fs::write(rig.path(name), "123456789\n").unwrap();
        }
        rig.scan(names);
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn scan(&mut self, names: &[&str]) {
        let seen = |name: &&str| Seen {
            path: self.path(name),
            meta: OsLogFs.meta(&self.path(name)).unwrap(),
            target: None,
        };
        let seen = names.iter().map(seen).collect();
        for (_, action) in self.catalog.scan(seen, Mono::default()) {
            if let Action::Open(open) = action {
                self.open.push(*open);
            }
        }
    }

    /// As the reader of the `n`-th file does.
    fn moved_to(&self, n: usize, read: u64, acked: u64) {
        let shared = &self.open[n].shared;
        shared.read_offset.store(read, Ordering::Release);
        shared.acked_offset.store(acked, Ordering::Release);
    }

    fn ask(&self, part: FilesPart, limit: usize) -> (Vec<FileStatus>, bool) {
        let query = FilesQuery {
            paths: None,
            part,
            limit,
        };
        let page = self.catalog.report(&query, WALL_NS);
        (page.files, page.more)
    }

    fn all(&self) -> Vec<FileStatus> {
        self.ask(FilesPart::After(0), 100).0
    }
}

/// Guarantee: what is told is what the disk and the reader know at that instant.
#[test]
fn a_file_is_told_with_its_identity_and_how_far_it_is() {
    let rig = Rig::new(&["a.log"]);
    rig.moved_to(0, 8, 3);
    let shared = &rig.open[0].shared;
    let one = rig.all().remove(0);
    let meta = OsLogFs.meta(&rig.path("a.log")).unwrap();
    assert_eq!((one.device, one.inode), (meta.id.dev, meta.id.ino));
    assert_eq!(one.birth_ns.unwrap_or_default(), meta.id.birth_ns);
    assert_eq!(one.changed_ns, meta.mtime_ns);
    assert_eq!((&*one.path, &one.place), (&*rig.path("a.log"), &None));
    assert_eq!((one.size, one.read, one.acknowledged), (10, 8, 3));
    assert_eq!(
        (one.lag_bytes, one.lag),
        (7, None),
        "since when is not known"
    );
    assert_eq!((one.state, one.held_deleted_bytes), (FileState::Open, 0));
    let since = WALL_NS as u64 - 5_000_000_000;
    shared.pending_since_ns.store(since, Ordering::Release);
    assert_eq!(rig.all()[0].lag, Some(Duration::from_secs(5)));
    // It grows, and nobody has looked at it since.
    fs::write(rig.path("a.log"), "123456789\n123456789\n").unwrap();
    assert_eq!((rig.all()[0].size, rig.all()[0].lag_bytes), (20, 17));
    rig.moved_to(0, 20, 20);
    let done = rig.all().remove(0);
    assert_eq!((done.lag_bytes, done.lag), (0, Some(Duration::ZERO)));
}

/// Guarantee: a file that was rotated is told under the path that its records name and the one it has
/// now, with its own size and not with that of what took its place; a deleted one with what only its
/// reader holds.
#[test]
fn rotated_and_deleted_files_are_told_as_what_they_are() {
    let mut rig = Rig::new(&["a.log", "b.log"]);
    rig.moved_to(0, 10, 4);
    rig.moved_to(1, 10, 1);
    fs::rename(rig.path("a.log"), rig.path("a.log.1")).unwrap();
    fs::write(rig.path("a.log"), "x".repeat(5_000)).unwrap();
    fs::remove_file(rig.path("b.log")).unwrap();
    rig.scan(&["a.log"]);
    let files = rig.all();
    let [old, deleted, new] = files.as_slice() else {
        panic!("{files:?}");
    };
    assert_eq!(&*old.path, rig.path("a.log"));
    assert_eq!(old.place.as_deref(), Some(&*rig.path("a.log.1")));
    assert_eq!(
        (old.state, old.size, old.lag_bytes),
        (FileState::Rotated, 10, 6)
    );
    // So is its lag measured.
    assert_eq!(rig.catalog.size_now(old.no), Some(10));
    assert_eq!((deleted.state, &deleted.place), (FileState::Deleted, &None));
    assert_eq!((deleted.lag_bytes, deleted.held_deleted_bytes), (9, 9));
    // Its reader has begun with nothing of it.
    assert_eq!((&*new.path, new.size), (&*rig.path("a.log"), 5_000));
    assert!(new.inode != old.inode && new.held_deleted_bytes == 0);
}

#[test]
fn what_a_reader_does_with_a_file_is_its_state() {
    let rig = Rig::new(&["a.log"]);
    let shared = &rig.open[0].shared;
    let state = || rig.all()[0].state;
    for (flag, want) in [
        (&shared.closed, FileState::Closed),
        (&shared.waits, FileState::Waiting),
        (&shared.cut, FileState::Cut),
        (&shared.finished, FileState::Finished),
    ] {
        flag.store(true, Ordering::Release);
        assert_eq!(state(), want);
    }
}

/// Guarantee: pages are cut without a file told twice or left out, paths are picked where files were
/// and where they are, and those that are furthest behind come first.
#[test]
fn parts_of_many_files_are_told() {
    let names = ["a.log", "b.log", "c.log", "d.log"];
    let rig = Rig::new(&names);
    for (n, acked) in [5, 0, 9, 2].into_iter().enumerate() {
        rig.moved_to(n, 10, acked);
    }
    let name = |f: &FileStatus| f.path.file_name().unwrap().to_str().unwrap().to_owned();
    let part = |part, limit| {
        let (files, more) = rig.ask(part, limit);
        (files.iter().map(name).collect::<Vec<_>>(), more)
    };
    let first = rig.all()[0].no;
    assert_eq!(
        part(FilesPart::After(0), 3),
        (names[..3].iter().map(|n| (*n).to_owned()).collect(), true)
    );
    assert_eq!(
        part(FilesPart::After(first), 3),
        (names[1..].iter().map(|n| (*n).to_owned()).collect(), false)
    );
    let worst = |limit| part(FilesPart::FurthestBehind, limit).0.concat();
    assert_eq!(worst(2), "b.logd.log");
    assert_eq!(worst(9), "b.logd.loga.logc.log");
    assert!(part(FilesPart::FurthestBehind, 3).1 && !part(FilesPart::FurthestBehind, 4).1);
    let query = FilesQuery {
        paths: Some(Arc::new(|path: &Path| path.ends_with("c.log"))),
        part: FilesPart::After(0),
        limit: 1,
    };
    let page = rig.catalog.report(&query, WALL_NS);
    assert_eq!((page.files.len(), page.more), (1, false));
    assert_eq!(name(&page.files[0]), "c.log");
}
