//! Scenario: files come and go until a store is full, or so many change that saving all of them
//! would keep the disk busy. Guarantee: memory and writes stay within their limits; what makes
//! room is what nobody holds, oldest first, and it is counted; what is refused is counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{
    Checkpoint, CheckpointStore, PutError, StoreOptions, TicketState, WriterCore, WriterOptions,
};
use crate::clock::Mono;
use crate::fs::SimFs;

/// Bytes of one checkpoint with a key of four bytes and a payload of 200.
const ENTRY_BYTES: u64 = 231;

fn at(offset: u64) -> Checkpoint {
    Checkpoint {
        offset,
        generation: 0,
        payload: vec![offset as u8; 200],
    }
}

fn open(fs: &SimFs, keys_max: u64) -> CheckpointStore {
    let options = StoreOptions {
        live_bytes_max: keys_max * ENTRY_BYTES,
        ..StoreOptions::default()
    };
    CheckpointStore::open(Arc::new(fs.clone()), Path::new("/s"), options)
        .unwrap()
        .0
}

fn key(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

fn keys(store: &CheckpointStore) -> Vec<u32> {
    let number =
        |(key, _): (Box<[u8]>, Checkpoint)| u32::from_be_bytes(key[..4].try_into().unwrap());
    store.with_prefix(b"").into_iter().map(number).collect()
}

#[test]
fn released_keys_make_room_oldest_first_and_held_ones_never() {
    let fs = SimFs::new(0);
    let mut store = open(&fs, 4);
    (0..4).for_each(|n| store.put(&key(n), at(1)).unwrap());
    assert_eq!(store.stats().live_bytes, 4 * ENTRY_BYTES);
    let full = PutError::Full {
        live_bytes_max: 4 * ENTRY_BYTES,
    };
    assert_eq!(store.put(&key(9), at(1)), Err(full), "all are held");
    let stats = store.stats();
    assert_eq!((stats.refused, stats.evicted, stats.full), (1, 0, true));
    store.put(&key(0), at(2)).unwrap();
    assert!(store.stats().full, "a known key needs no room");

    (0..3).for_each(|n| store.release(&key(n)));
    assert!(!store.stats().full);
    store.commit().unwrap();
    store.put(&key(4), at(1)).unwrap();
    store.put(&key(5), at(1)).unwrap();
    assert_eq!(keys(&store), [0, 3, 4, 5], "0 was written after 1 and 2");
    let stats = store.stats();
    assert_eq!((stats.refused, stats.evicted, stats.full), (1, 2, false));
    store.put(&key(0), at(3)).unwrap();
    assert_eq!(store.put(&key(6), at(1)), Err(full), "0 is held again");
    store.commit().unwrap();
    drop(store);
    fs.crash(0);
    assert_eq!(keys(&open(&fs, 4)), [0, 3, 4, 5], "evictions are saved");
}

#[test]
fn what_an_earlier_run_left_makes_room_in_the_order_it_was_written() {
    let fs = SimFs::new(0);
    let mut store = open(&fs, 5);
    for n in [3, 1, 4, 0, 2] {
        store.put(&key(n), at(1)).unwrap();
        store.commit().unwrap();
    }
    drop(store);
    // Twice, so that the order comes from a snapshot.
    open(&fs, 5).commit().unwrap();
    let store = open(&fs, 5);
    store.put(&key(1), at(1)).unwrap();
    for (n, left) in [(10, [0, 1, 2, 4, 10]), (11, [0, 1, 2, 10, 11])] {
        store.put(&key(n), at(1)).unwrap();
        assert_eq!(keys(&store), left, "3 and 4 are the oldest but for 1");
    }
}

#[test]
fn a_growing_payload_makes_room_too_and_what_is_too_long_is_counted() {
    let store = open(&SimFs::new(0), 3);
    (0..3).for_each(|n| store.put(&key(n), at(1)).unwrap());
    (0..2).for_each(|n| store.release(&key(n)));
    let longer = Checkpoint {
        payload: vec![0; 300],
        ..at(2)
    };
    store.put(&key(2), longer).unwrap();
    assert_eq!(keys(&store), [1, 2]);
    let huge = Checkpoint {
        payload: vec![0; 9000],
        ..at(3)
    };
    assert_eq!(
        store.put(&key(2), huge),
        Err(PutError::PayloadTooLong(9000))
    );
    assert_eq!(store.stats().refused, 1);
}

/// A month of pods on one node: each lives for a moment.
#[test]
fn churn_leaves_a_store_within_its_limit() {
    let fs = SimFs::new(0);
    let mut store = open(&fs, 500);
    for n in 0..20_000 {
        store.put(&key(n), at(1)).unwrap();
        if n >= 50 {
            store.release(&key(n - 50));
        }
        if n % 100 == 0 {
            store.commit().unwrap();
        }
    }
    let stats = store.stats();
    assert_eq!((stats.keys, stats.refused, stats.evicted), (500, 0, 19_500));
    let newest: Vec<u32> = (19_500..20_000).collect();
    assert_eq!(keys(&store), newest);
    let live = stats.live_bytes;
    assert!(stats.size_bytes < 12 * live.max(1 << 20), "{stats:?}");
}

/// Guarantee (10,000 files of which every one gets lines all the time): saving writes 64 KiB a
/// second, no position is older than a minute and a half, and who waits does not wait for that.
#[test]
fn ten_thousand_busy_files_write_64_kib_a_second() {
    const FILES: u32 = 10_000;
    const SECONDS: u64 = 150;
    const SECOND: u64 = 1_000_000_000;
    let fs = SimFs::new(0);
    let store = CheckpointStore::open(
        Arc::new(fs.clone()),
        Path::new("/s"),
        StoreOptions::default(),
    );
    let options = WriterOptions {
        interval: Duration::from_millis(250),
        ..WriterOptions::default()
    };
    let (mut core, handle) = WriterCore::new(store.unwrap().0, options);
    let put_all = |offset| (0..FILES).for_each(|n| handle.put(&key(n), at(offset)).unwrap());
    put_all(1);
    core.step(Mono(0));
    let begun = handle.stats();
    assert_eq!(begun.unsaved_keys, 0, "the first is saved at once");
    for second in 1..=SECONDS {
        put_all(second + 1);
        core.step(Mono(second * SECOND));
        let unsaved = handle.unsaved_for(Mono(second * SECOND));
        assert!(unsaved <= Duration::from_secs(90), "{unsaved:?}");
    }
    let stats = handle.stats();
    let written = stats.written_bytes - begun.written_bytes;
    let allowed = (SECONDS + 1) * (64 << 10) + u64::from(FILES) * ENTRY_BYTES;
    assert!(written <= allowed, "{written} bytes, {allowed} allowed");
    assert!(stats.commits >= begun.commits + 3, "{stats:?}");

    let before = handle.stats();
    let wait = [(&b"wait"[..], at(1))];
    let ticket = handle.put_durable(wait, None).unwrap();
    core.step(Mono(SECONDS * SECOND + 1));
    assert_eq!(ticket.state(), TicketState::Durable);
    let alone = handle.stats().written_bytes - before.written_bytes;
    assert_eq!(alone, ENTRY_BYTES, "only what is waited for");
    assert!(handle.stats().unsaved_keys > 0);
    drop(core);
    fs.crash(0);
    let store = open(&fs, 1 << 20);
    assert_eq!(store.get(b"wait"), Some(at(1)));
    assert_eq!(store.with_prefix(b"").len(), FILES as usize + 1);
}

#[derive(Clone, Debug)]
enum Step {
    Put(u32),
    Release(u32),
    Commit,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u32..24).prop_map(Step::Put),
        4 => (0u32..24).prop_map(Step::Release),
        2 => Just(Step::Commit),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// Guarantee: a store behaves as a list ordered by writes of which the first that is not held
    /// leaves when there is no room.
    #[test]
    fn property_what_leaves_a_full_store_is_the_oldest_that_nobody_holds(steps in steps()) {
        const MAX: usize = 8;
        let fs = SimFs::new(0);
        let mut store = open(&fs, MAX as u64);
        // Keys by when they were written, and whether they are held.
        let mut model: BTreeMap<u64, (u32, bool)> = BTreeMap::new();
        let (mut time, mut evicted, mut refused) = (0, 0, 0);
        for step in steps {
            time += 1;
            let find = |model: &BTreeMap<u64, (u32, bool)>, n| {
                model.iter().find(|(_, (key, _))| *key == n).map(|(t, _)| *t)
            };
            match step {
                Step::Put(n) => {
                    let known = find(&model, n);
                    known.map(|t| model.remove(&t));
                    if known.is_none() && model.len() == MAX {
                        let free = model.iter().find(|(_, (_, held))| !held).map(|(t, _)| *t);
                        evicted += u64::from(free.is_some());
                        free.map(|t| model.remove(&t));
                    }
                    let fits = model.len() < MAX;
                    prop_assert_eq!(store.put(&key(n), at(time)).is_ok(), fits);
                    if fits {
                        model.insert(time, (n, true));
                    } else {
                        refused += 1;
                    }
                }
                Step::Release(n) => {
                    store.release(&key(n));
                    if let Some(t) = find(&model, n) {
                        model.insert(t, (n, false));
                    }
                }
                Step::Commit => drop(store.commit().unwrap()),
                Step::Restart => {
                    store.commit().unwrap();
                    let stats = store.stats();
                    prop_assert_eq!((stats.evicted, stats.refused), (evicted, refused));
                    (evicted, refused) = (0, 0);
                    drop(store);
                    fs.crash(time);
                    store = open(&fs, MAX as u64);
                    model.values_mut().for_each(|(_, held)| *held = false);
                }
            }
            let mut want: Vec<u32> = model.values().map(|(n, _)| *n).collect();
            want.sort_unstable();
            prop_assert_eq!(keys(&store), want);
        }
    }
}
