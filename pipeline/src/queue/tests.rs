//! The queue on a disk that loses and tears what was not synchronised, against a model.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::segment::HEADER_BYTES;
use super::*;
use crate::clock::Rng64;
use crate::fs::{Fs, SimFs};

const DIR: &str = "/state/queue";
const LIMITS: QueueLimits = QueueLimits {
    bytes_max: 20_000,
    segment_bytes: 1_500,
};

fn open(fs: &SimFs) -> Result<DurableQueue, QueueError> {
    DurableQueue::open(Arc::new(fs.clone()), Path::new(DIR), LIMITS, 7)
}

/// An item that says which it is, of some length that follows from it.
fn item(id: u64) -> Vec<u8> {
    let mut rng = Rng64::new(id);
    let mut bytes = id.to_le_bytes().to_vec();
    let len = rng.below(300);
    bytes.extend((0..len).map(|_| rng.next_u64() as u8));
    bytes
}

/// Which item it is; fails if it is not exactly as it was given.
fn id_of(bytes: &[u8]) -> u64 {
    let id = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes == item(id), "item {id} was changed");
    id
}

fn read_all(queue: &mut DurableQueue) -> Vec<(u64, u64)> {
    let mut buf = Vec::new();
    let mut all = Vec::new();
    while let Some(seq) = queue.next(&mut buf).unwrap() {
        all.push((seq, id_of(&buf)));
    }
    all
}

#[derive(Clone, Debug)]
enum Op {
    Append,
    Sync,
    Next,
    /// Settles one of the items that are handed out.
    Settle(u8),
    Save,
    /// One of the next operations of the disk fails.
    Fault(u8, bool),
    /// The disk has this much room from now on, or any.
    Room(Option<u16>),
    Crash(u64),
    Kill,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => Just(Op::Append),
        5 => Just(Op::Sync),
        5 => Just(Op::Next),
        4 => any::<u8>().prop_map(Op::Settle),
        2 => Just(Op::Save),
        1 => (0u8..8, any::<bool>()).prop_map(|(n, full)| Op::Fault(n, full)),
        1 => proptest::option::of(200u16..4_000).prop_map(Op::Room),
        1 => any::<u64>().prop_map(Op::Crash),
        1 => Just(Op::Kill),
    ];
    proptest::collection::vec(op, 1..120)
}

/// What a queue owes.
#[derive(Default)]
struct Model {
    next_id: u64,
    /// Appended since the last synchronisation.
    open: Vec<u64>,
    /// Stored for sure and not settled.
    owed: BTreeSet<u64>,
    /// Handed out in this run: number, item.
    out: Vec<(u64, u64)>,
    /// Settled in this run.
    settled: BTreeSet<u64>,
    /// Settled, and that is stored for sure.
    saved: BTreeSet<u64>,
    last_out: Option<u64>,
}

impl Model {
    fn took(&mut self, seq: u64, id: u64) {
        assert!(
            self.last_out.is_none_or(|last| last < id),
            "item {id} is out of order"
        );
        assert!(!self.saved.contains(&id), "item {id} was settled for sure");
        self.last_out = Some(id);
        self.out.push((seq, id));
    }

    /// The process is gone; a new one has opened the queue and reads all of it.
    fn reopened(&mut self, fs: &SimFs) -> DurableQueue {
        let mut queue = open(fs).unwrap();
        self.open.clear();
        self.settled.clear();
        self.out.clear();
        self.last_out = None;
        for (seq, id) in read_all(&mut queue) {
            self.took(seq, id);
        }
        let found: BTreeSet<u64> = self.out.iter().map(|o| o.1).collect();
        let lost: Vec<_> = self.owed.difference(&found).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert_eq!(queue.stats().damaged_items, 0, "{:?}", queue.stats());
        assert_eq!(queue.stats().items, self.out.len() as u64);
        queue
    }
}

fn run(ops: Vec<Op>, seed: u64) {
    let fs = SimFs::new(seed);
    fs.create_dir(Path::new("/state"), 0o700).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let mut m = Model::default();
    let mut queue = open(&fs).unwrap();
    // The directory itself is made durable by whoever owns it.
    fs.sync_dir(Path::new("/state")).unwrap();
    let mut buf = Vec::new();
    for op in ops {
        match op {
            Op::Append => {
                m.next_id += 1;
                let bytes = item(m.next_id);
                let (a, b) = bytes.split_at(bytes.len() / 2);
                let before = queue.stats();
                match queue.append(&[a, b]) {
                    Ok(_) => m.open.push(m.next_id),
                    Err(QueueError::Full { .. }) => assert!(before.bytes > 15_000, "{before:?}"),
                    // What was not synchronised may have gone with it; the next synchronisation says so.
                    Err(_) => {}
                }
                assert!(queue.stats().bytes <= LIMITS.bytes_max);
            }
            Op::Sync => {
                let n = m.open.len() as u64;
                let open = std::mem::take(&mut m.open);
                if let Ok(range) = queue.sync() {
                    assert_eq!(range.end - range.start, n);
                    m.owed.extend(open);
                }
            }
            Op::Next => {
                if let Ok(Some(seq)) = queue.next(&mut buf) {
                    let id = id_of(&buf);
                    assert!(m.owed.contains(&id), "item {id} is not stored");
                    m.took(seq, id);
                }
            }
            Op::Settle(n) => {
                if !m.out.is_empty() {
                    let (seq, id) = m.out.remove(usize::from(n) % m.out.len());
                    queue.settle(seq, seq + 1);
                    m.owed.remove(&id);
                    m.settled.insert(id);
                }
            }
            Op::Save => {
                if queue.save_settled().is_ok() {
                    m.saved.append(&mut m.settled);
                }
            }
            Op::Fault(n, full) => {
                let kind = if full {
                    ErrorKind::StorageFull
                } else {
                    ErrorKind::Other
                };
                fs.fail_at(fs.operations() + u64::from(n), kind);
            }
            Op::Room(room) => {
                let used = fs.used_bytes();
                fs.set_capacity_bytes(room.map(|r| used + u64::from(r)));
            }
            Op::Crash(seed) => {
                drop(queue);
                fs.crash(seed);
                queue = m.reopened(&fs);
            }
            Op::Kill => {
                drop(queue);
                fs.kill();
                queue = m.reopened(&fs);
            }
        }
    }
    drop(queue);
    fs.crash(seed);
    m.reopened(&fs);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Guarantee: whatever fails and whenever the power goes, what was said to be stored and is not
    /// settled comes back unchanged and in order, what is surely settled does not, and nothing that
    /// was not stored is handed out.
    #[test]
    fn what_is_stored_comes_back(ops in ops(), seed in any::<u64>()) {
        run(ops, seed);
    }

    /// Guarantee: damage costs the items it hits and no others, each of them counted.
    #[test]
    fn damage_is_skipped_and_counted(
        damages in proptest::collection::vec((any::<u16>(), any::<u16>(), 0u16..500, 0u8..4), 1..4),
        settled in any::<u64>(),
    ) {
        let fs = SimFs::new(1);
        fs.create_dir(Path::new(DIR), 0o700).unwrap();
        let mut queue = open(&fs).unwrap();
        for id in 0..50 {
            queue.append(&[&item(id)]).unwrap();
            queue.sync().unwrap();
        }
        let mut wanted = BTreeSet::new();
        for (seq, id) in read_all(&mut queue) {
            if settled >> (seq % 64) & 1 == 1 {
                queue.settle(seq, seq + 1);
            } else {
                wanted.insert(id);
            }
        }
        queue.save_settled().unwrap();
        drop(queue);
        fs.kill();
        let names = fs.list(Path::new(DIR)).unwrap();
        let segments: Vec<_> = names.iter().filter(|n| n.to_str().unwrap().ends_with(".queue")).collect();
        prop_assume!(!segments.is_empty());
        for (which, at, len, how) in damages {
            let path = Path::new(DIR).join(segments[usize::from(which) % segments.len()]);
            let Some(mut content) = fs.content(&path) else { continue };
            let at = usize::from(at) % (content.len() + 1);
            let end = (at + usize::from(len)).min(content.len());
            match how {
                0 => content[at..end].fill(0),
                1 => content[at..end].iter_mut().for_each(|b| *b ^= 0x55),
                2 => content.truncate(at),
                _ => drop(content.splice(at..at, vec![0x11; usize::from(len)])),
            }
            if how == 2 && at == 0 {
                fs.remove(&path).unwrap();
            } else {
                fs.set_content(&path, content);
            }
        }
        let mut queue = open(&fs).unwrap();
        let found: Vec<u64> = read_all(&mut queue).into_iter().map(|o| o.1).collect();
        prop_assert!(found.is_sorted());
        let found: BTreeSet<u64> = found.into_iter().collect();
        let stats = queue.stats();
        prop_assert!(found.is_subset(&wanted));
        prop_assert_eq!(stats.damaged_items as usize, wanted.len() - found.len(), "{:?}", stats);
        prop_assert_eq!(stats.unfinished_items, 0);
        // It goes on.
        queue.append(&[&item(99)]).unwrap();
        queue.sync().unwrap();
        prop_assert_eq!(read_all(&mut queue).into_iter().map(|o| o.1).collect::<Vec<_>>(), [99]);
    }

    /// Guarantee: no content makes opening or reading fail or panic.
    #[test]
    fn any_content_can_be_opened(
        a in proptest::collection::vec(any::<u8>(), 0..300),
        b in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let fs = SimFs::new(1);
        fs.create_dir(Path::new(DIR), 0o700).unwrap();
        let at = |name: &str| Path::new(DIR).join(name);
        fs.set_content(&at(&format!("{:016x}-{:016x}-{:016x}.queue", 5, 1, 1)), a.clone());
        fs.set_content(&at(&format!("{:016x}-{:016x}-{:016x}.queue", 9, 2, 1)), b.clone());
        fs.set_content(&at("settled.0"), b);
        fs.set_content(&at("settled.1"), a);
        fs.set_content(&at("0-0-0.queue"), vec![1]);
        let mut queue = open(&fs).unwrap();
        prop_assert_eq!(read_all(&mut queue), []);
        queue.append(&[b"x"]).unwrap();
        queue.sync().unwrap();
        let mut buf = Vec::new();
        prop_assert!(queue.next(&mut buf).unwrap().is_some());
        prop_assert_eq!(&buf[..], b"x");
    }
}

/// Guarantee: the room is bounded, an item that cannot fit is refused as such, and room comes back
/// when items are settled.
#[test]
fn a_full_queue_refuses_and_recovers() {
    let fs = SimFs::new(1);
    fs.create_dir(Path::new(DIR), 0o700).unwrap();
    let mut queue = open(&fs).unwrap();
    let large = vec![7; LIMITS.bytes_max as usize];
    assert!(matches!(
        queue.append(&[&large]),
        Err(QueueError::TooLarge { .. })
    ));
    let piece = vec![7; 1_000];
    let mut stored = 0;
    while queue.append(&[&piece]).is_ok() {
        queue.sync().unwrap();
        stored += 1;
    }
    assert!(stored >= 17, "{stored}");
    assert!(matches!(
        queue.append(&[&piece]),
        Err(QueueError::Full { .. })
    ));
    let mut buf = Vec::new();
    while let Some(seq) = queue.next(&mut buf).unwrap() {
        queue.settle(seq, seq + 1);
    }
    assert_eq!(queue.stats().items, 0);
    for _ in 0..stored {
        queue.append(&[&piece]).unwrap();
    }
    queue.sync().unwrap();
    // One item as large as the queue has its place once the others are gone.
    while let Some(seq) = queue.next(&mut buf).unwrap() {
        queue.settle(seq, seq + 1);
    }
    queue.append(&[&large[..large.len() - 200]]).unwrap();
    assert!(
        fs.used_bytes() <= LIMITS.bytes_max,
        "settled segments are removed"
    );
}

/// Guarantee: a directory has one user, and a format of a later version is left alone.
#[test]
fn what_is_not_ours_is_refused_by_name() {
    let fs = SimFs::new(1);
    fs.create_dir(Path::new(DIR), 0o700).unwrap();
    let mut queue = open(&fs).unwrap();
    assert!(matches!(open(&fs), Err(QueueError::Locked { .. })));
    queue.append(&[b"x"]).unwrap();
    queue.sync().unwrap();
    drop(queue);
    fs.kill();
    let names = fs.list(Path::new(DIR)).unwrap();
    let name = names
        .iter()
        .find(|n| n.to_str().unwrap().ends_with(".queue"))
        .unwrap();
    let path = Path::new(DIR).join(name);
    let mut content = fs.content(&path).unwrap();
    content[8] = 9;
    let crc = crc32fast::hash(&content[..40]).to_le_bytes();
    content[40..44].copy_from_slice(&crc);
    fs.set_content(&path, content.clone());
    let error = open(&fs).err().unwrap().to_string();
    assert!(
        error.contains("format 9") && error.contains("queue"),
        "{error}"
    );
    assert_eq!(fs.content(&path).unwrap(), content);
}

/// The files of the queue, the oldest first.
fn segment_paths(fs: &SimFs) -> Vec<std::path::PathBuf> {
    let mut names = fs.list(Path::new(DIR)).unwrap();
    names.sort();
    let segments = names
        .iter()
        .filter(|n| n.to_str().unwrap().ends_with(".queue"));
    segments.map(|n| Path::new(DIR).join(n)).collect()
}

/// All that can be read, and how often reading failed.
fn read_what_can_be(queue: &mut DurableQueue) -> (Vec<(u64, u64)>, u32) {
    let (mut buf, mut items, mut failures) = (Vec::new(), Vec::new(), 0);
    loop {
        match queue.next(&mut buf) {
            Ok(Some(seq)) => items.push((seq, id_of(&buf))),
            Ok(None) => return (items, failures),
            Err(e) => {
                assert!(e.to_string().contains("cannot read"), "{e}");
                failures += 1;
                assert!(failures < 1_000, "it goes on with others");
            }
        }
    }
}

proptest! {
    /// Guarantee: bytes that the disk does not give back cost nothing but time: their items are neither
    /// damaged nor settled nor removed, others go on in the meantime, each comes once, and all do
    /// when the disk gives them back, in this run or after a restart.
    #[test]
    fn what_cannot_be_read_is_kept(
        bad in proptest::collection::vec((any::<u8>(), 0usize..1_500, 1usize..200), 1..4),
        restart in any::<bool>(),
    ) {
        let fs = SimFs::new(1);
        fs.create_dir(Path::new(DIR), 0o700).unwrap();
        let mut queue = open(&fs).unwrap();
        for id in 0..50 {
            queue.append(&[&item(id)]).unwrap();
            queue.sync().unwrap();
        }
        queue.save_settled().unwrap();
        drop(queue);
        fs.kill();
        let segments = segment_paths(&fs);
        for (which, at, len) in bad {
            let at = HEADER_BYTES as usize + at;
            let path = &segments[usize::from(which) % segments.len()];
            fs.set_unreadable(path, at..at + len);
        }
        let mut queue = open(&fs).unwrap();
        let (found, failures) = read_what_can_be(&mut queue);
        let missing = 50 - found.len() as u64;
        prop_assert_eq!(missing > 0, failures > 0);
        // At the end of the last segment there may be more than is known.
        prop_assert!(queue.stats().unreadable_items >= missing, "{:?}", queue.stats());
        prop_assert_eq!(queue.stats().damaged_items, 0);
        for (seq, _) in &found {
            queue.settle(*seq, seq + 1);
        }
        queue.append(&[&item(50)]).unwrap();
        queue.sync().unwrap();
        queue.save_settled().unwrap();
        if restart {
            drop(queue);
            fs.kill();
            queue = open(&fs).unwrap();
        }
        segments.iter().for_each(|path| fs.set_unreadable(path, 0..0));
        queue.retry_unreadable();
        let (rest, failures) = read_what_can_be(&mut queue);
        prop_assert_eq!((failures, queue.stats().damaged_items), (0, 0));
        prop_assert_eq!(queue.stats().unreadable_items, 0);
        let mut ids: Vec<u64> = found.into_iter().chain(rest).map(|(_, id)| id).collect();
        ids.sort();
        prop_assert_eq!(ids, (0..=50).collect::<Vec<_>>(), "each once");
    }
}

/// Guarantee: a disk that fails for a moment changes nothing, not even the order; and what follows
/// an item that cannot be read for long is removed when it is settled, so that the queue does not fill.
#[test]
fn failures_that_pass_and_failures_that_stay() {
    let fs = SimFs::new(1);
    fs.create_dir(Path::new(DIR), 0o700).unwrap();
    let mut queue = open(&fs).unwrap();
    for id in 0..30 {
        queue.append(&[&item(id)]).unwrap();
        queue.sync().unwrap();
    }
    let paths = segment_paths(&fs);
    let (first, all) = (paths[0].clone(), 0..1 << 20);
    let mut buf = Vec::new();
    fs.set_unreadable(&first, all.clone());
    for _ in 0..7 {
        assert!(queue.next(&mut buf).is_err());
    }
    fs.set_unreadable(&first, 0..0);
    let seq = queue.next(&mut buf).unwrap().unwrap();
    assert_eq!((seq, id_of(&buf)), (0, 0));
    fs.set_unreadable(&first, all);
    let (found, _) = read_what_can_be(&mut queue);
    assert!(found.len() > 20, "{}", found.len());
    let mut appended = 30;
    for (seq, _) in found {
        queue.settle(seq, seq + 1);
    }
    // Several times what the queue has room for.
    for _ in 0..500 {
        queue.append(&[&item(appended)]).unwrap();
        queue.sync().unwrap();
        let seq = queue.next(&mut buf).unwrap().unwrap();
        assert_eq!(id_of(&buf), appended);
        queue.settle(seq, seq + 1);
        appended += 1;
    }
    assert!(fs.content(&first).is_some(), "it is kept");
    queue.settle(0, 1);
    queue.retry_unreadable();
    assert!(queue.next(&mut buf).is_err(), "still");
    fs.set_unreadable(&first, 0..0);
    queue.retry_unreadable();
    let (rest, failures) = read_what_can_be(&mut queue);
    assert_eq!((rest.first(), failures), (Some(&(1, 1)), 0));
    assert_eq!(queue.stats().damaged_items, 0);
}
