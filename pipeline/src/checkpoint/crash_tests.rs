//! Scenario: random use of a store on a disk that loses power, fails and fills up at any
//! operation. Guarantee: after a restart every key has what the last successful commit saved, or
//! something that was put later; never anything else, and never a panic. Of what was put together a
//! restart finds all or nothing. Canaries prove that the model notices when a step of the protocol
//! is missing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::frame::blind;
use super::{Checkpoint, CheckpointStore, StoreOptions};
use crate::fs::{Fs, FsFile, SimFs};

const DIR: &str = "/var/lib/tailwater";

fn options() -> StoreOptions {
    StoreOptions {
        log_bytes_min: 500,
        log_per_live: 2,
        seed: 1,
        ..StoreOptions::default()
    }
}

/// A step of a script.
#[derive(Clone, Copy, Debug)]
enum Step {
    Put {
        key: u8,
        advance: u64,
        payload_bytes: usize,
    },
    /// Several keys from `key` on, two apart.
    Together {
        key: u8,
        keys: u8,
        advance: u64,
        payload_bytes: usize,
    },
    Restart {
        key: u8,
    },
    Remove {
        key: u8,
    },
    Commit,
    Kill,
    PowerLoss {
        seed: u64,
    },
    Fail {
        after: u64,
        full: bool,
    },
    Capacity {
        more_bytes: Option<u64>,
    },
}

/// A store, and what it must know of each key.
struct Rig {
    disk: SimFs,
    fs: Arc<dyn Fs>,
    store: Option<CheckpointStore>,
    committed: BTreeMap<u8, Checkpoint>,
    /// Everything each key was since the last successful commit.
    later: Vec<(u8, Option<Checkpoint>)>,
    /// Which of those were put together.
    batches: Vec<Range<usize>>,
    /// What is to be put together is put one by one.
    one_by_one: bool,
    /// The first thing found that must not be.
    wrong: Option<String>,
}

impl Rig {
    fn new(disk: SimFs, fs: Arc<dyn Fs>) -> Rig {
        let (committed, later) = (BTreeMap::new(), Vec::new());
        Rig {
            disk,
            fs,
            store: None,
            committed,
            later,
            batches: Vec::new(),
            one_by_one: false,
            wrong: None,
        }
    }

    /// Which of the things that a key was since the last commit this can be; none for what it was
    /// then.
    fn when(&self, key: u8, found: &Option<Checkpoint>) -> Vec<Option<usize>> {
        let later = self.later.iter().enumerate();
        let same = later.filter(|(_, (k, v))| *k == key && v == found);
        let committed = self.committed.get(&key) == found.as_ref();
        let first = committed.then_some(None).into_iter();
        first.chain(same.map(|(i, _)| Some(i))).collect()
    }

    /// Compares what was found with what was put together.
    fn check_batches(&mut self, store: &CheckpointStore) {
        let batches = std::mem::take(&mut self.batches);
        for batch in batches {
            let keys = self.later[batch.clone()].iter().map(|(key, _)| *key);
            let when = keys.map(|key| self.when(key, &store.get(&[key])));
            let when: Vec<Vec<Option<usize>>> = when.collect();
            let is_in = |at: &Option<usize>| *at >= Some(batch.start);
            let is_there = |when: &Vec<Option<usize>>| when.iter().all(is_in);
            let is_not = |when: &Vec<Option<usize>>| !when.iter().any(is_in);
            if when.iter().any(is_there) && when.iter().any(is_not) {
                let why = format!("a part of {batch:?}: {when:?}");
                self.wrong.get_or_insert(why);
            }
            // What is put from now on does not come after one that is gone.
            if when.iter().all(is_there) {
                self.batches.push(batch);
            }
        }
    }

    /// Opens the store and compares; false if the disk did not let it.
    fn open(&mut self) -> bool {
        if self.store.is_some() {
            return true;
        }
        let opened = CheckpointStore::open(self.fs.clone(), Path::new(DIR), options());
        let Ok((store, _)) = opened else { return false };
        for key in 0..=u8::MAX {
            let found = store.get(&[key]);
            if self.when(key, &found).is_empty() {
                let committed = self.committed.get(&key);
                let why = format!("key {key}: found {found:?}, committed {committed:?}");
                self.wrong.get_or_insert(why);
            }
        }
        if store.with_prefix(&[]).iter().any(|(key, _)| key.len() != 1) {
            self.wrong
                .get_or_insert("a key that was never put".to_owned());
        }
        self.check_batches(&store);
        self.store = Some(store);
        true
    }

    fn put_together(&mut self, keys: &[u8], advance: u64, payload_bytes: usize) {
        let Some(store) = &self.store else { return };
        let next = |key: u8| {
            let old = store.get(&[key]).unwrap_or_default();
            let payload = vec![key ^ advance as u8; payload_bytes];
            let offset = old.offset + advance;
            (
                key,
                Checkpoint {
                    offset,
                    payload,
                    ..old
                },
            )
        };
        let batch: Vec<(u8, Checkpoint)> = keys.iter().map(|key| next(*key)).collect();
        let parts = if self.one_by_one { 1 } else { batch.len() };
        for part in batch.chunks(parts) {
            let part = part
                .iter()
                .map(|(key, v)| (std::slice::from_ref(key), v.clone()));
            store.put_all(part).unwrap();
        }
        let start = self.later.len();
        let batch = batch.into_iter().map(|(key, v)| (key, Some(v)));
        self.later.extend(batch);
        self.batches.push(start..self.later.len());
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Kill => {
                self.store = None;
                return self.disk.kill();
            }
            Step::PowerLoss { seed } => return self.power_loss(seed),
            Step::Fail { after, full } => {
                let kind = if full {
                    io::ErrorKind::StorageFull
                } else {
                    io::ErrorKind::Other
                };
                return self.disk.fail_at(self.disk.operations() + after, kind);
            }
            Step::Capacity { more_bytes } => {
                let capacity = more_bytes.map(|more| self.disk.used_bytes() + more);
                return self.disk.set_capacity_bytes(capacity);
            }
            Step::Put { .. }
            | Step::Together { .. }
            | Step::Restart { .. }
            | Step::Remove { .. }
            | Step::Commit => {}
        }
        if !self.open() {
            return;
        }
        if let Step::Together {
            key,
            keys,
            advance,
            payload_bytes,
        } = step
        {
            let keys: Vec<u8> = (0..keys).map(|n| key + 2 * n).collect();
            return self.put_together(&keys, advance, payload_bytes);
        }
        let Some(store) = &mut self.store else { return };
        match step {
            Step::Put {
                key,
                advance,
                payload_bytes,
            } => {
                let old = store.get(&[key]).unwrap_or_default();
                let payload = vec![key ^ advance as u8; payload_bytes];
                let new = Checkpoint {
                    offset: old.offset + advance,
                    payload,
                    ..old
                };
                store.put(&[key], new.clone()).unwrap();
                self.later.push((key, Some(new)));
            }
            Step::Restart { key } => {
                let generation = store.get(&[key]).map_or(0, |old| old.generation + 1);
                let new = Checkpoint {
                    generation,
                    ..Checkpoint::default()
                };
                store.put(&[key], new.clone()).unwrap();
                self.later.push((key, Some(new)));
            }
            Step::Remove { key } => {
                store.remove(&[key]);
                self.later.push((key, None));
            }
            _ => {
                if store.commit().is_ok() {
                    let live = store.with_prefix(&[]);
                    self.committed = live.into_iter().map(|(key, v)| (key[0], v)).collect();
                    self.later.clear();
                    self.batches.clear();
                }
            }
        }
    }

    fn power_loss(&mut self, seed: u64) {
        self.store = None;
        self.disk.crash(seed);
    }

    /// Power loss, then a healthy disk: what was found must be saved again and be found again.
    fn end(mut self, seed: u64) -> Option<String> {
        self.power_loss(seed);
        self.disk.set_capacity_bytes(None);
        assert!(self.open(), "a healthy disk opens");
        self.step(Step::Put {
            key: 200,
            advance: 1,
            payload_bytes: 1,
        });
        self.step(Step::Commit);
        assert!(self.later.is_empty(), "a healthy disk commits");
        self.power_loss(0);
        assert!(self.open());
        self.wrong
    }
}

/// Puts, removals and commits that pass through several generations.
fn script() -> Vec<Step> {
    let mut steps = Vec::new();
    for round in 0..24 {
        for key in 0..3 {
            let payload_bytes = 20 + 17 * usize::from(round % 4);
            steps.push(Step::Put {
                key: key + round % 5,
                advance: 10,
                payload_bytes,
            });
        }
        match round {
            4 => steps.push(Step::Remove { key: 2 }),
            6 => steps.push(Step::Restart { key: 1 }),
            8 => steps.extend([Step::Commit, Step::Kill]),
            _ => {}
        }
        if round % 3 == 0 {
            steps.push(Step::Together {
                key: round % 2,
                keys: 2 + round % 4,
                advance: 10,
                payload_bytes: 40,
            });
        }
        steps.push(Step::Commit);
    }
    steps
}

fn run(set_up: &dyn Fn(SimFs) -> Rig, halt_at: u64, seed: u64) -> (Option<String>, u64) {
    let disk = SimFs::new(seed);
    disk.halt_at(halt_at);
    let mut rig = set_up(disk.clone());
    for step in script() {
        // A kill would set the halted machine going again.
        if disk.operations() > halt_at {
            break;
        }
        let is_kill = matches!(step, Step::Kill);
        rig.step(step);
        if is_kill {
            disk.halt_at(halt_at);
        }
    }
    let operations = disk.operations();
    (rig.end(seed), operations)
}

/// Runs the script with a power loss at every operation, in several ways; the first violation.
fn first_violation(wrap: fn(SimFs) -> Arc<dyn Fs>) -> Option<String> {
    first_violation_of(&|disk: SimFs| Rig::new(disk.clone(), wrap(disk)))
}

fn first_violation_of(set_up: &dyn Fn(SimFs) -> Rig) -> Option<String> {
    let (_, operations) = run(set_up, u64::MAX, 1);
    assert!(operations > 120, "the script does something: {operations}");
    (0..operations).find_map(|halt_at| {
        (8 * halt_at..8 * (halt_at + 1)).find_map(|seed| {
            let wrong = run(set_up, halt_at, seed).0?;
            Some(format!("halt at {halt_at}, seed {seed}: {wrong}"))
        })
    })
}

#[test]
fn a_power_loss_at_any_operation_loses_nothing_that_was_committed() {
    assert_eq!(first_violation(|disk| Arc::new(disk)), None);
}

/// A file system without some of the steps that durability needs.
struct Broken {
    disk: SimFs,
    sync_dir: bool,
    sync_data: bool,
}

struct Unsynced(Box<dyn FsFile>);

impl FsFile for Unsynced {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
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
        Ok(())
    }
    fn try_lock_exclusive(&self) -> io::Result<bool> {
        self.0.try_lock_exclusive()
    }
}

impl Broken {
    fn file(&self, file: Box<dyn FsFile>) -> Box<dyn FsFile> {
        if self.sync_data {
            file
        } else {
            Box::new(Unsynced(file))
        }
    }
}

impl Fs for Broken {
    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.disk.open(path)
    }
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        Ok(self.file(self.disk.open_append(path)?))
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        Ok(self.file(self.disk.create(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // The directory itself is there, or nothing could be lost from it.
        if self.sync_dir || dir != Path::new(DIR) {
            self.disk.sync_dir(dir)
        } else {
            Ok(())
        }
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        self.disk.create_dir(dir, mode)
    }
}

#[test]
fn canary_the_model_catches_a_missing_directory_sync() {
    let found = first_violation(|disk| {
        Arc::new(Broken {
            disk,
            sync_dir: false,
            sync_data: true,
        })
    });
    assert!(found.is_some());
}

#[test]
fn canary_the_model_catches_a_missing_data_sync() {
    let found = first_violation(|disk| {
        Arc::new(Broken {
            disk,
            sync_dir: true,
            sync_data: false,
        })
    });
    assert!(found.is_some());
}

#[test]
fn canary_the_model_catches_positions_that_are_put_one_by_one() {
    let found = first_violation_of(&|disk: SimFs| Rig {
        one_by_one: true,
        ..Rig::new(disk.clone(), Arc::new(disk))
    });
    assert!(found.is_some_and(|why| why.contains("a part of")));
}

#[test]
fn canary_the_model_catches_missing_checksums() {
    blind::set(true);
    let found = first_violation(|disk| Arc::new(disk));
    blind::set(false);
    assert!(found.is_some());
}

/// Found by the property test: making room removed the generation that a crash would have needed,
/// since the name of the newer one was not durable yet.
#[test]
fn making_room_removes_nothing_that_a_power_loss_could_still_need() {
    for (fail_after, seed) in (0..25).flat_map(|n| (0..64).map(move |seed| (n, seed))) {
        let disk = SimFs::new(seed);
        let mut rig = Rig::new(disk.clone(), Arc::new(disk.clone()));
        let put = Step::Put {
            key: 1,
            advance: 1,
            payload_bytes: 50,
        };
        rig.step(put);
        rig.step(Step::Commit);
        rig.step(Step::Kill);
        assert!(rig.open());
        rig.step(Step::Fail {
            after: fail_after,
            full: false,
        });
        rig.step(Step::Commit);
        rig.step(Step::Kill);
        rig.step(Step::Capacity {
            more_bytes: Some(40),
        });
        // Does not fit, whatever is removed.
        rig.step(Step::Put {
            key: 2,
            advance: 1,
            payload_bytes: 500,
        });
        rig.step(Step::Commit);
        assert_eq!(
            rig.end(seed),
            None,
            "failure after {fail_after}, seed {seed}"
        );
    }
}

/// Found by the property test: a new process wrote into the unfinished file of a killed one, whose
/// synchronisation had failed.
#[test]
fn a_file_whose_synchronisation_failed_is_not_written_again_by_a_new_process() {
    for (fail_after, seed) in (0..20).flat_map(|n| (0..64).map(move |seed| (n, seed))) {
        let disk = SimFs::new(seed);
        let mut rig = Rig::new(disk.clone(), Arc::new(disk.clone()));
        let put = |payload_bytes| Step::Put {
            key: 1,
            advance: 1,
            payload_bytes,
        };
        rig.step(put(1));
        for after in [fail_after, fail_after + 1, fail_after + 2] {
            rig.step(Step::Fail { after, full: false });
        }
        for step in [Step::Commit, Step::Kill, put(2), Step::Commit] {
            rig.step(step);
        }
        let wrong = rig.end(4 * seed);
        assert_eq!(wrong, None, "failure after {fail_after}, seed {seed}");
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..6u8;
    let put = (key.clone(), 0..100u64, 0..120usize);
    let put = put.prop_map(|(key, advance, payload_bytes)| Step::Put {
        key,
        advance,
        payload_bytes,
    });
    let together = (key.clone(), 1..4u8, 0..100u64, 0..120usize);
    let together = together.prop_map(|(key, keys, advance, payload_bytes)| Step::Together {
        key,
        keys,
        advance,
        payload_bytes,
    });
    let step = prop_oneof![
        12 => put,
        4 => together,
        2 => key.clone().prop_map(|key| Step::Restart { key }),
        2 => key.prop_map(|key| Step::Remove { key }),
        8 => Just(Step::Commit),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(|seed| Step::PowerLoss { seed }),
        2 => (0..12u64, any::<bool>()).prop_map(|(after, full)| Step::Fail { after, full }),
        1 => (0..400u64).prop_map(|more| Step::Capacity { more_bytes: Some(more) }),
        1 => Just(Step::Capacity { more_bytes: None }),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn property_faults_of_every_kind_lose_nothing_that_was_committed(
        steps in steps(), seed in any::<u64>(),
    ) {
        let disk = SimFs::new(seed);
        let mut rig = Rig::new(disk.clone(), Arc::new(disk));
        for step in steps {
            rig.step(step);
        }
        prop_assert_eq!(rig.end(seed), None);
    }
}
