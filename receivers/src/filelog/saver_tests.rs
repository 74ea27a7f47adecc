//! Guarantee: files of plain lines, however many, are saved at a bounded rate, and their lines have
//! times that are no older than that makes necessary.

use std::path::Path;

use tailwater_pipeline::checkpoint::{CheckpointStore, StoreOptions, WriterCore, WriterOptions};
use tailwater_pipeline::fs::SimFs;

use super::super::logfs::FileId;
use super::*;

const SECOND: u64 = 1_000_000_000;
const LINE_BYTES: u64 = 100;
/// A part of ten thousand files, and the same part of what is written by default.
const FILES: usize = 10_000 / 25;
const RATE: u64 = (64 << 10) / 25;

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// Files that get a line each second, of which the first `plain` need time marks for it.
struct Node {
    fs: SimFs,
    core: WriterCore,
    store: CheckpointHandle,
    saver: Saver,
    files: Vec<Position>,
    plain: usize,
    now: Mono,
}

fn open(fs: &SimFs) -> CheckpointStore {
    let fs = Arc::new(fs.clone());
    let opened = CheckpointStore::open(fs, Path::new("/s"), StoreOptions::default());
    opened.unwrap().0
}

impl Node {
    fn new(plain: usize) -> Node {
        let fs = SimFs::new(0);
        let options = WriterOptions {
            interval: Duration::from_millis(250),
            bytes_per_second_max: RATE,
            ..WriterOptions::default()
        };
        let (core, store) = WriterCore::new(open(&fs), options);
        let saver = Saver::new(store.clone(), "file_log".into(), Arc::new(Nobody));
        let file = |n: usize| Position {
            id: FileId {
                dev: 0xfd01,
                ino: 1_000_000 + n as u64,
                birth_ns: 1_700_000_000 * SECOND as i64,
            },
            ties: crate::filelog::stamp::Ties {
                time_ns: 1,
                seen: vec![(1, 1)],
            },
            path: Path::new(&format!("/var/log/services/service-{n:05}/service.log")).into(),
            ..Position::default()
        };
        let files = (0..FILES).map(file).collect();
        Node {
            fs,
            core,
            store,
            saver,
            files,
            plain,
            now: Mono(SECOND),
        }
    }

    /// A line for each file. The oldest time that one got, as its age.
    fn second(&mut self) -> Duration {
        let wall = self.now.0 as i64;
        let mut oldest = 0;
        for (n, p) in self.files.iter_mut().enumerate() {
            if n < self.plain {
                let age_max = self.saver.mark_age_max(self.now);
                if p.marks.is_stale(p.offset, wall, age_max) {
                    p.marks.add(p.offset, wall);
                    self.saver.save_durably(p);
                }
                oldest = oldest.max(wall - p.marks.time_of(p.offset).unwrap());
                p.marks.prune(p.offset);
            }
            p.offset += LINE_BYTES;
            self.saver.save(p);
            // Not all of them get it at once.
            if n % 100 == 99 {
                self.core.step(self.now);
            }
        }
        self.core.step(self.now);
        self.now = self.now.after(Duration::from_secs(1));
        Duration::from_nanos(oldest as u64)
    }

    fn written(&self) -> u64 {
        self.store.stats().written_bytes
    }

    /// How many seconds a file's position is behind after a power loss, at most.
    fn behind(self) -> u64 {
        let lines = self.now.0 / SECOND - 1;
        drop((self.core, self.store, self.saver));
        self.fs.crash(0);
        let store = open(&self.fs);
        let saved = store.with_prefix(b"").into_iter().map(|(_, c)| c.offset);
        lines - saved.min().unwrap() / LINE_BYTES
    }
}

/// Seconds to settle, and seconds that are measured.
const SETTLE: u64 = 100;
const MEASURED: u64 = 300;

/// How old the time of a line is at most, and by how many seconds positions are behind. Checks the
/// rate of writing.
fn measure(plain: usize) -> (Duration, u64) {
    let mut node = Node::new(plain);
    for _ in 0..SETTLE {
        node.second();
    }
    let before = node.written();
    let oldest = (0..MEASURED).map(|_| node.second()).max().unwrap();
    let written = node.written() - before;
    // At the end of the time some may have been written ahead.
    let ahead = node.store.stats().live_bytes;
    let behind = node.behind();
    println!(
        "{FILES} busy files, {plain} of them plain: {} bytes/s of {RATE}, {} bytes a file, times up \
         to {:.1} s old, positions {behind} s behind",
        written / MEASURED,
        ahead / FILES as u64,
        oldest.as_secs_f64()
    );
    assert!(written <= MEASURED * RATE + ahead, "{written}");
    (oldest, behind)
}

#[test]
fn many_busy_plain_files_are_saved_at_the_rate_of_the_store() {
    let (oldest, behind) = measure(FILES);
    assert!(oldest <= Duration::from_secs(62), "{oldest:?}");
    assert!(behind <= 62, "{behind}");
}

#[test]
fn plain_files_among_many_others_do_not_keep_those_from_being_saved() {
    let (oldest, behind) = measure(FILES / 10);
    assert!(oldest <= Duration::from_secs(20), "{oldest:?}");
    assert!(behind <= 100, "{behind}");
}

#[test]
fn few_plain_files_have_times_of_the_second_whatever_others_write() {
    let (oldest, behind) = measure(1);
    assert!(oldest <= Duration::from_millis(1_100), "{oldest:?}");
    assert!(behind <= 92, "{behind}");
}
