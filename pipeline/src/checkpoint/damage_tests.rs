//! Scenario: files of a store are cut at every byte, flipped at every bit, deleted or replaced.
//! Guarantee: opening never fails nor panics; what is found was put at some time; what the report
//! says is true; one damaged file does not lose what another one still has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{BadHeader, FileKind, HEADER_BYTES, Header};
use super::recover::path_of;
use super::{
    Checkpoint, CheckpointError, CheckpointStore, KEY_BYTES_MAX, OpenReport, PAYLOAD_BYTES_MAX,
    PutError, ReadErrors, StoreOptions,
};
use crate::fs::{Fs, OsFs, SimFs};

const DIR: &str = "/s";

fn at(offset: u64) -> Checkpoint {
    Checkpoint {
        offset,
        generation: 1,
        payload: vec![offset as u8; 5],
    }
}

fn open(fs: &SimFs) -> (CheckpointStore, OpenReport) {
    let options = StoreOptions {
        seed: 4,
        ..StoreOptions::default()
    };
    CheckpointStore::open(Arc::new(fs.clone()), Path::new(DIR), options).unwrap()
}

fn paths(fs: &SimFs) -> Vec<PathBuf> {
    let names = fs.list(Path::new(DIR)).unwrap().into_iter();
    names
        .map(|n| Path::new(DIR).join(n))
        .filter(|p| !p.ends_with("lock"))
        .collect()
}

/// Two generations: `a` and `b` were put at 1 in the first and at 2 in its log, at 3 in the second
/// generation's log; `c` only in the first, `d` was removed in the first's log.
fn two_generations() -> SimFs {
    let fs = SimFs::new(0);
    let save = |keys: &[&str], offset| {
        let (mut store, _) = open(&fs);
        for key in keys {
            store.put(key.as_bytes(), at(offset)).unwrap();
        }
        // The first commit of a process begins a generation.
        let started = store.commit().unwrap();
        assert!(started.compacted);
        store
    };
    drop(save(&["c", "d"], 1));
    let mut store = save(&["a", "b"], 1);
    store.put(b"a", at(2)).unwrap();
    store.put(b"b", at(2)).unwrap();
    store.remove(b"d");
    assert!(!store.commit().unwrap().compacted);
    drop(store);
    let mut store = save(&[], 0);
    store.put(b"a", at(3)).unwrap();
    store.put(b"b", at(3)).unwrap();
    store.commit().unwrap();
    drop(store);
    assert_eq!(paths(&fs).len(), 4, "two generations of two files");
    fs
}

fn offsets(store: &CheckpointStore) -> Vec<(String, u64)> {
    let all = store.with_prefix(b"").into_iter();
    all.map(|(k, v)| (String::from_utf8(k.to_vec()).unwrap(), v.offset))
        .collect()
}

fn whole() -> Vec<(String, u64)> {
    [("a", 3), ("b", 3), ("c", 1)]
        .map(|(k, o)| (k.to_owned(), o))
        .to_vec()
}

/// Opens, checks what every damage must leave, and that the damage heals at the next commit.
fn check_damaged(fs: &SimFs, why: &str) -> (Vec<(String, u64)>, OpenReport) {
    let (mut store, report) = open(fs);
    let found = offsets(&store);
    for (key, offset) in &found {
        let payload = store.get(key.as_bytes()).unwrap().payload;
        assert_eq!(payload, at(*offset).payload, "{why}");
        assert!(["a", "b", "c"].contains(&key.as_str()), "{why}: {key}");
    }
    store.commit().unwrap();
    drop(store);
    let (store, healed) = open(fs);
    assert_eq!(
        healed,
        OpenReport {
            recovered: found.len(),
            ..OpenReport::default()
        },
        "{why}"
    );
    assert_eq!(offsets(&store), found, "{why}");
    (found, report)
}

fn file(fs: &SimFs, index: usize) -> (PathBuf, Vec<u8>) {
    let path = paths(fs).remove(index);
    let content = fs.content(&path).unwrap();
    (path, content)
}

/// Indexes into the sorted paths: log before snapshot, old before new.
const OLD_LOG: usize = 0;
const NEW_LOG: usize = 2;
const NEW_SNAPSHOT: usize = 3;

#[test]
fn every_cut_of_the_newest_log_keeps_what_is_before_it() {
    let (_, content) = file(&two_generations(), NEW_LOG);
    let mut seen = std::collections::BTreeSet::new();
    for len in 0..content.len() {
        let fs = two_generations();
        let (path, content) = file(&fs, NEW_LOG);
        fs.set_content(&path, content[..len].to_vec());
        let (found, report) = check_damaged(&fs, &format!("cut at {len}"));
        let offset = |key| found.iter().find(|(k, _)| k == key).map(|(_, o)| *o);
        assert!(offset("a") >= Some(2) && offset("b") >= Some(2) && offset("c") == Some(1));
        assert_eq!(report.damaged_records, 0);
        seen.insert((offset("a"), offset("b")));
    }
    let want = [(Some(2), Some(2)), (Some(3), Some(2))];
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        want,
        "a record is there or not"
    );
}

#[test]
fn every_cut_and_flip_of_the_newest_snapshot_falls_back_without_loss() {
    let (_, content) = file(&two_generations(), NEW_SNAPSHOT);
    let cuts = (0..content.len()).map(|len| content[..len].to_vec());
    let flips = (0..content.len() * 8)
        .step_by(3)
        .map(|bit| flipped(&content, bit));
    for (i, bad) in cuts.chain(flips).enumerate() {
        let fs = two_generations();
        let (path, _) = file(&fs, NEW_SNAPSHOT);
        fs.set_content(&path, bad);
        let (found, report) = check_damaged(&fs, &format!("damage {i}"));
        assert_eq!(found, whole(), "damage {i}");
        assert!(report.used_previous_generation && !report.salvaged);
    }
}

fn flipped(content: &[u8], bit: usize) -> Vec<u8> {
    let mut bad = content.to_vec();
    bad[bit / 8] ^= 1 << (bit % 8);
    bad
}

#[test]
fn a_flipped_bit_in_the_newest_log_costs_at_most_one_record() {
    let (_, content) = file(&two_generations(), NEW_LOG);
    for bit in 0..content.len() * 8 {
        let fs = two_generations();
        let (path, content) = file(&fs, NEW_LOG);
        fs.set_content(&path, flipped(&content, bit));
        let (found, report) = check_damaged(&fs, &format!("bit {bit}"));
        let old = found.iter().filter(|(_, offset)| *offset == 2).count();
        assert!(old <= 1 && found.len() == 3, "bit {bit}: {found:?}");
        assert_eq!(
            old as u64,
            report.damaged_records + u64::from(report.torn_bytes > 0)
        );
    }
}

#[test]
fn damage_to_the_previous_generation_does_not_matter_alone() {
    let (_, content) = file(&two_generations(), OLD_LOG);
    for bit in (0..content.len() * 8).step_by(5) {
        let fs = two_generations();
        let (path, content) = file(&fs, OLD_LOG);
        fs.set_content(&path, flipped(&content, bit));
        assert_eq!(check_damaged(&fs, "old log").0, whole());
    }
}

#[test]
fn without_any_whole_snapshot_every_readable_record_is_taken() {
    let fs = two_generations();
    for path in paths(&fs)
        .iter()
        .filter(|p| p.extension().unwrap() == "snapshot")
    {
        let content = fs.content(path).unwrap();
        fs.set_content(path, content[..content.len() - 1].to_vec());
    }
    let (found, report) = check_damaged(&fs, "both snapshots cut");
    assert_eq!(found, whole());
    assert!(report.salvaged && !report.used_previous_generation && report.torn_bytes > 0);

    let fs = two_generations();
    for path in paths(&fs) {
        let len = fs.content(&path).unwrap().len();
        fs.set_content(&path, vec![0; len]);
    }
    let (found, report) = check_damaged(&fs, "all NUL");
    assert!(found.is_empty() && report.salvaged && report.damaged_records > 0);
}

#[test]
fn missing_files_are_damage_too() {
    for index in 0..4 {
        let fs = two_generations();
        fs.remove(&file(&fs, index).0).unwrap();
        let (found, _) = check_damaged(&fs, &format!("file {index} is gone"));
        if index == NEW_LOG {
            assert_eq!(found[..2], [("a".to_owned(), 2), ("b".to_owned(), 2)]);
        } else {
            assert_eq!(found, whole());
        }
    }
}

#[test]
fn a_generation_that_was_begun_when_power_was_lost_is_no_damage() {
    let header = Header {
        kind: FileKind::Log,
        generation: 4,
        salt: 5,
    };
    for (content, torn_bytes) in [
        (Vec::new(), 0),
        (header.encode()[..20].to_vec(), 20),
        // A length that was written before the bytes were.
        (vec![0; HEADER_BYTES], HEADER_BYTES as u64),
    ] {
        let fs = two_generations();
        fs.set_content(&path_of(Path::new(DIR), 4, FileKind::Log), content);
        let (store, report) = open(&fs);
        let want = OpenReport {
            recovered: 3,
            torn_bytes,
            ..OpenReport::default()
        };
        assert_eq!((offsets(&store), report), (whole(), want));
        assert!(!report.is_damaged());
    }
    let fs = two_generations();
    let content = vec![0; HEADER_BYTES + 1];
    fs.set_content(&path_of(Path::new(DIR), 4, FileKind::Log), content);
    assert!(open(&fs).1.may_lack_keys(), "a record may have stood there");
}

#[test]
fn a_failing_disk_is_refused_or_taken_as_damage_as_wanted() {
    let total = {
        let fs = two_generations();
        let before = fs.operations();
        open(&fs);
        fs.operations() - before
    };
    let (mut refused, mut fell_back) = (0, 0);
    for (operation, read_errors) in
        (0..total).flat_map(|n| [(n, ReadErrors::Refuse), (n, ReadErrors::TakeAsDamage)])
    {
        let fs = two_generations();
        for again in 0..3 {
            fs.fail_at(
                fs.operations() + operation + again,
                std::io::ErrorKind::Other,
            );
        }
        let options = StoreOptions {
            read_errors,
            ..StoreOptions::default()
        };
        match CheckpointStore::open(Arc::new(fs.clone()), Path::new(DIR), options) {
            Ok((store, report)) if read_errors == ReadErrors::Refuse => {
                assert_eq!(offsets(&store), whole());
                assert!(!report.used_previous_generation && !report.salvaged);
            }
            Ok((_, report)) => fell_back += u32::from(report.used_previous_generation),
            Err(CheckpointError::Newer { .. } | CheckpointError::Locked { .. }) => panic!(),
            Err(_) => refused += u32::from(read_errors == ReadErrors::Refuse),
        }
        fs.kill();
        assert_eq!(check_damaged(&fs, "the error is gone").0, whole());
    }
    assert!(refused > 10 && fell_back > 0, "{refused} {fell_back}");
}

#[test]
fn files_of_a_newer_version_are_refused_and_left_alone() {
    let fs = two_generations();
    let (path, mut content) = file(&fs, NEW_SNAPSHOT);
    content[8] = 9;
    let crc = crc32fast::hash(&content[..32]);
    content[32..36].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Header::decode(&content), Err(BadHeader::Newer(9)));
    fs.set_content(&path, content.clone());
    let opened = CheckpointStore::open(
        Arc::new(fs.clone()),
        Path::new(DIR),
        StoreOptions::default(),
    );
    let message = opened.err().unwrap().to_string();
    assert!(message.contains("newer version (format 9"), "{message}");
    assert_eq!(fs.content(&path).unwrap(), content);
}

#[test]
fn a_second_user_of_the_directory_is_told_who_the_first_is() {
    let fs = SimFs::new(0);
    let (store, _) = open(&fs);
    let second = CheckpointStore::open(
        Arc::new(fs.clone()),
        Path::new(DIR),
        StoreOptions::default(),
    );
    let message = second.err().unwrap().to_string();
    assert!(
        message.contains("in use by this process itself"),
        "{message}"
    );
    drop(store);
    open(&fs);
}

#[test]
fn offsets_move_back_only_with_a_raised_generation() {
    let (store, _) = open(&SimFs::new(0));
    let put = |offset, generation| {
        store.put(
            b"k",
            Checkpoint {
                offset,
                generation,
                payload: Vec::new(),
            },
        )
    };
    assert_eq!(put(10, 1), Ok(()));
    assert_eq!(
        put(9, 1),
        Err(PutError::Backwards {
            generation: 1,
            offset: 10
        })
    );
    assert_eq!(
        put(11, 0),
        Err(PutError::Backwards {
            generation: 1,
            offset: 10
        })
    );
    assert_eq!(store.get(b"k").unwrap().offset, 10);
    assert_eq!(put(0, 2), Ok(()));
    assert!(store.remove(b"k") && !store.remove(b"k"));
    assert_eq!(put(0, 0), Ok(()));
}

#[test]
fn limits_of_keys_and_payloads_hold_and_the_largest_come_back() {
    let fs = SimFs::new(0);
    let (key, payload) = ([7; KEY_BYTES_MAX], vec![8; PAYLOAD_BYTES_MAX]);
    let options = StoreOptions {
        live_bytes_max: 9000,
        ..StoreOptions::default()
    };
    let (mut store, _) =
        CheckpointStore::open(Arc::new(fs.clone()), Path::new(DIR), options).unwrap();
    let big = Checkpoint {
        payload: payload.clone(),
        ..at(1)
    };
    store.put(&key, big.clone()).unwrap();
    assert_eq!(
        store.put(&[0; KEY_BYTES_MAX + 1], at(1)),
        Err(PutError::KeyLength(257))
    );
    assert_eq!(store.put(b"", at(1)), Err(PutError::KeyLength(0)));
    let long = Checkpoint {
        payload: vec![0; PAYLOAD_BYTES_MAX + 1],
        ..at(1)
    };
    assert_eq!(
        store.put(b"k", long),
        Err(PutError::PayloadTooLong(PAYLOAD_BYTES_MAX + 1))
    );
    let more = Checkpoint {
        payload: vec![0; 1000],
        ..at(1)
    };
    assert_eq!(
        store.put(b"k", more),
        Err(PutError::Full {
            live_bytes_max: 9000
        })
    );
    assert_eq!(
        store.put(
            &key,
            Checkpoint {
                offset: 2,
                ..big.clone()
            }
        ),
        Ok(()),
        "a known key"
    );
    store.commit().unwrap();
    drop(store);
    assert_eq!(open(&fs).0.get(&key), Some(Checkpoint { offset: 2, ..big }));
}

#[test]
fn a_commit_writes_what_changed_and_the_log_stays_small() {
    let fs = SimFs::new(0);
    let (mut store, _) = open(&fs);
    for i in 0..1000u32 {
        store.put(&i.to_be_bytes(), at(1)).unwrap();
    }
    store.commit().unwrap();
    assert_eq!(
        store.commit().unwrap().records,
        0,
        "nothing changed, nothing written"
    );
    for offset in 2..2000 {
        store.put(&1u32.to_be_bytes(), at(offset)).unwrap();
        let done = store.commit().unwrap();
        assert!(done.compacted || (done.records, done.bytes) == (1, 36));
    }
    for i in 2..1000u32 {
        store.remove(&i.to_be_bytes());
    }
    store.commit().unwrap();
    let stats = store.stats();
    assert_eq!(
        (stats.keys, stats.unsaved_keys, stats.live_bytes),
        (2, 0, 72)
    );
    assert!(stats.log_bytes < StoreOptions::default().log_bytes_min);
    drop(store);
    assert_eq!(open(&fs).1.recovered, 2);
}

#[test]
fn the_size_is_that_of_the_files() {
    let fs = two_generations();
    let on_disk = || -> u64 {
        let content = |p: &PathBuf| fs.content(p).map_or(0, |c| c.len() as u64);
        paths(&fs).iter().map(content).sum()
    };
    let (mut store, _) = open(&fs);
    assert_eq!(store.stats().size_bytes, on_disk(), "as found");
    for offset in 10..14 {
        store.put(b"a", at(offset)).unwrap();
        store.commit().unwrap();
        assert_eq!(store.stats().size_bytes, on_disk(), "offset {offset}");
    }
}

#[test]
fn a_full_disk_keeps_everything_in_memory_and_recovers_when_space_returns() {
    let fs = SimFs::new(0);
    let (mut store, _) = open(&fs);
    store.put(b"a", at(1)).unwrap();
    store.commit().unwrap();
    fs.set_capacity_bytes(Some(fs.used_bytes() + 10));
    for offset in 2..5 {
        store.put(b"a", at(offset)).unwrap();
        store.put(b"b", at(offset)).unwrap();
        assert!(store.commit().unwrap_err().is_disk_full());
    }
    let alarm = store.alarm().unwrap();
    assert!(alarm.is_disk_full && alarm.failures == 3 && alarm.error.contains("append"));
    assert_eq!(store.stats().unsaved_keys, 2);
    assert_eq!(store.get(b"a"), Some(at(4)));
    fs.set_capacity_bytes(None);
    let done = store.commit().unwrap();
    assert_eq!(
        (done.records, done.compacted),
        (2, false),
        "the log was cut clean and goes on"
    );
    assert!(store.alarm().is_none());
    drop(store);
    fs.crash(0);
    let (store, report) = open(&fs);
    assert_eq!(
        (offsets(&store).len(), report.torn_bytes, store.get(b"b")),
        (2, 0, Some(at(4)))
    );
}

#[test]
fn on_a_full_disk_the_previous_generation_makes_room() {
    let fs = two_generations();
    let (mut store, _) = open(&fs);
    fs.set_capacity_bytes(Some(fs.used_bytes()));
    store.put(b"a", at(9)).unwrap();
    store.commit().unwrap();
    drop(store);
    fs.crash(0);
    assert_eq!(open(&fs).0.get(b"a"), Some(at(9)));
}

#[test]
fn the_real_file_system_carries_a_store_through_generations() {
    let dir = std::env::temp_dir().join(format!("tw-checkpoint-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let options = StoreOptions {
        log_bytes_min: 2000,
        ..StoreOptions::default()
    };
    let open = || CheckpointStore::open(Arc::new(OsFs), &dir.join("state"), options);
    for round in 0..3 {
        let (mut store, report) = open().unwrap();
        let recovered = if round == 0 { 0 } else { 20 };
        assert_eq!(
            report,
            OpenReport {
                recovered,
                ..OpenReport::default()
            }
        );
        for offset in 0..10 {
            for key in 0..20u8 {
                store.put(&[key], at(round * 100 + offset)).unwrap();
            }
            store.commit().unwrap();
        }
        assert!(store.stats().compactions >= 3);
        assert!(matches!(
            open().err().unwrap(),
            CheckpointError::Locked { .. }
        ));
    }
    let (store, _) = open().unwrap();
    assert!(store.with_prefix(b"").iter().all(|(_, v)| *v == at(209)));
    assert_eq!(
        OsFs.list(&dir.join("state")).unwrap().len(),
        5,
        "lock and two generations"
    );
    drop(store);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A generation as version 1 of the format wrote it: `a` at 1 and `b` at 2 in the snapshot, `a` at
/// 3 and `b` removed in the log. These bytes never change; every later version reads them.
const SNAPSHOT_V1: &str = "\
    74772d636b70740a01000100000000000100000000000000ca8a33e272e3736e5739796df5771900 \
    d6bf689401010001000000000000000100000000000000610101010101f5771900bd81ea8b010100 \
    01000000000000000200000000000000620202020202f577090032f4335f030200000000000000";
const LOG_V1: &str = "\
    74772d636b70740a01000200000000000100000000000000ca8a33e272e3736e17940154f5771900 \
    5037737a01010001000000000000000300000000000000610303030303f57702000a3d068f0262";

/// The same of version 2: `a` at 1 and `b` at 2 in the snapshot; in the log `a` at 3 and `b` removed
/// together, then `c` at 1.
const SNAPSHOT_V2: &str = "\
    74772d636b70740a02000100000000000100000000000000ca8a33e272e3736e7f906735f5771900 \
    d6bf689401010001000000000000000100000000000000610101010101f5771900bd81ea8b010100 \
    01000000000000000200000000000000620202020202f577090032f4335f030200000000000000";
const LOG_V2: &str = "\
    74772d636b70740a02000200000000000100000000000000ca8a33e272e3736e3f3d1f0cf5772200 \
    5ebef1e804000000000200000001010001000000000000000300000000000000610303030303f577 \
    0b008ef76b680401000000020000000262f5771900dd1ea0d9010100010000000000000001000000 \
    00000000630101010101";

/// Reads a generation that was written at some time.
fn written(snapshot: &str, log: &str) -> (Vec<(String, u64)>, OpenReport) {
    let bytes = |hex: &str| -> Vec<u8> {
        let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
        let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
        digits.chunks(2).map(|pair| byte(pair).unwrap()).collect()
    };
    let fs = SimFs::new(0);
    drop(open(&fs));
    for (name, hex) in [("snapshot", snapshot), ("log", log)] {
        let path = Path::new(DIR).join(format!("0000000000000001.{name}"));
        fs.set_content(&path, bytes(hex));
    }
    let (store, report) = open(&fs);
    (offsets(&store), report)
}

#[test]
fn files_of_every_version_are_read_as_they_were_written() {
    let whole = |recovered| OpenReport {
        recovered,
        ..OpenReport::default()
    };
    let (found, report) = written(SNAPSHOT_V1, LOG_V1);
    assert_eq!((found, report), (vec![("a".to_owned(), 3)], whole(1)));
    let (found, report) = written(SNAPSHOT_V2, LOG_V2);
    let want = [("a", 3), ("c", 1)].map(|(key, at)| (key.to_owned(), at));
    assert_eq!((found, report), (want.to_vec(), whole(2)));
}
