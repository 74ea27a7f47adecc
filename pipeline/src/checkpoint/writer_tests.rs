//! Scenario: receivers put, a writer saves. Guarantee: commits are as rare as allowed and as soon
//! as wanted; tickets tell the truth; a failing disk delays nobody and loses nothing.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{
    Checkpoint, CheckpointHandle, CheckpointStore, CheckpointWriter, Flush, PutError, StoreOptions,
    TicketState, WriterCore, WriterOptions,
};
use crate::clock::{Mono, SystemClock};
use crate::component::Wake;
use crate::fs::SimFs;

#[derive(Default)]
struct Wakes(AtomicU64);

impl Wake for Wakes {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn store(fs: &SimFs) -> CheckpointStore {
    CheckpointStore::open(
        Arc::new(fs.clone()),
        Path::new("/s"),
        StoreOptions::default(),
    )
    .unwrap()
    .0
}

fn core(fs: &SimFs) -> (WriterCore, CheckpointHandle) {
    WriterCore::new(store(fs), WriterOptions::default())
}

fn at(offset: u64) -> Checkpoint {
    Checkpoint {
        offset,
        ..Checkpoint::default()
    }
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn puts_are_saved_once_per_interval_and_an_idle_writer_sleeps() {
    let (mut core, handle) = core(&SimFs::new(0));
    assert_eq!(core.step(Mono(5)), None, "idle");
    handle.put(b"k", at(1)).unwrap();
    assert_eq!(core.step(Mono(5)), None, "the first is saved at once");
    assert_eq!(handle.stats().commits, 1);
    for offset in 2..100 {
        handle.put(b"k", at(offset)).unwrap();
        assert_eq!(core.step(Mono(5 + offset)), Some(Mono(5 + SECOND)));
    }
    assert_eq!(
        (handle.stats().commits, core.step(Mono(5 + SECOND))),
        (1, None)
    );
    assert_eq!(
        (handle.stats().commits, handle.stats().unsaved_keys),
        (2, 0)
    );
    handle.put(b"k", at(99)).unwrap();
    assert_eq!(core.step(Mono(6 + SECOND)), None, "nothing changed");
}

#[test]
fn what_is_put_together_is_saved_together_also_when_one_of_it_is_urgent() {
    let fs = SimFs::new(0);
    let (mut core, handle) = core(&fs);
    handle.put(b"other", at(1)).unwrap();
    core.step(Mono(0));
    let batch = [(&b"a"[..], at(5)), (b"b", at(7))];
    handle.put_all(batch).unwrap();
    assert_eq!(core.step(Mono(1)), Some(Mono(SECOND)), "nobody waits");
    // Somebody needs one of the two on disk at once.
    let ticket = handle.put_durable([(&b"a"[..], at(6))], None).unwrap();
    core.step(Mono(2));
    assert_eq!(ticket.state(), TicketState::Durable);
    drop((core, handle));
    let (store, _) = CheckpointStore::open(
        Arc::new(fs.clone()),
        Path::new("/s"),
        StoreOptions::default(),
    )
    .unwrap();
    assert_eq!(
        (store.get(b"a"), store.get(b"b")),
        (Some(at(6)), Some(at(7)))
    );
    // One that is refused does not keep the others.
    let (_, handle) = WriterCore::new(store, WriterOptions::default());
    let batch = [(&b"a"[..], at(1)), (b"b", at(8))];
    assert!(handle.put_all(batch).is_err());
    assert_eq!(handle.get(b"b"), Some(at(8)));
}

#[test]
fn a_durable_put_is_saved_at_once_together_with_all_others() {
    let fs = SimFs::new(0);
    let (mut core, handle) = core(&fs);
    handle.put(b"a", at(1)).unwrap();
    core.step(Mono(0));
    handle.put(b"a", at(2)).unwrap();
    let wakes = Arc::new(Wakes::default());
    let put = |key: &'static [u8]| {
        handle
            .put_durable([(key, at(1))], Some(wakes.clone()))
            .unwrap()
    };
    let tickets = [put(b"b"), put(b"c")];
    assert_eq!(tickets[0].state(), TicketState::Pending);
    assert_eq!(core.step(Mono(1)), None);
    assert!(tickets.iter().all(|t| t.state() == TicketState::Durable));
    assert_eq!(wakes.0.load(Ordering::SeqCst), 2);
    assert_eq!(handle.stats().commits, 2, "one commit for both");
    fs.crash(0);
    drop(core);
    let store = store(&fs);
    assert_eq!(
        [b"a", b"b", b"c"].map(|k| store.get(k).unwrap().offset),
        [2, 1, 1]
    );
}

#[test]
fn what_is_refused_is_said_at_once() {
    let (_core, handle) = core(&SimFs::new(0));
    handle.put(b"k", at(5)).unwrap();
    let refused = PutError::Backwards {
        generation: 0,
        offset: 5,
    };
    assert_eq!(handle.put(b"k", at(4)), Err(refused));
    assert_eq!(
        handle.put_durable([(&b"k"[..], at(4))], None).unwrap_err(),
        refused
    );
    assert_eq!(handle.get(b"k"), Some(at(5)));
    assert_eq!(
        handle.with_prefix(b"k"),
        [(b"k".to_vec().into_boxed_slice(), at(5))]
    );
    assert!(handle.remove(b"k"));
    handle.put(b"k", at(4)).unwrap();
}

#[test]
fn a_failing_disk_is_tried_ever_more_rarely_and_tickets_tell() {
    let fs = SimFs::new(0);
    let (mut core, handle) = core(&fs);
    fs.set_capacity_bytes(Some(fs.used_bytes() + 20));
    let wakes = Arc::new(Wakes::default());
    let put = |offset| {
        handle
            .put_durable([(&b"k"[..], at(offset))], Some(wakes.clone()))
            .unwrap()
    };
    let first = put(1);
    let (mut now, mut pauses) = (Mono(0), Vec::new());
    for _ in 0..6 {
        let next = core.step(now).unwrap();
        pauses.push(next.since(now).as_secs());
        now = next;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 8, 8]);
    assert_eq!(
        (first.state(), wakes.0.load(Ordering::SeqCst)),
        (TicketState::Failing, 1)
    );
    let early = Mono(now.0 - 1);
    let second = put(2);
    assert_eq!(
        core.step(early),
        Some(now),
        "a new ticket does not hasten it"
    );
    assert_eq!(second.state(), TicketState::Failing, "but is told");
    assert_eq!(handle.alarm().unwrap().failures, 6);
    assert_eq!(handle.get(b"k"), Some(at(2)));

    fs.set_capacity_bytes(None);
    assert_eq!(core.step(now), None);
    assert_eq!([first.state(), second.state()], [TicketState::Durable; 2]);
    assert!(handle.alarm().is_none());
    fs.crash(0);
    drop(core);
    assert_eq!(store(&fs).get(b"k"), Some(at(2)));
}

#[test]
fn the_age_of_what_is_not_saved_counts_from_the_oldest_change() {
    let fs = SimFs::new(0);
    let (mut core, handle) = core(&fs);
    handle.put(b"a", at(1)).unwrap();
    core.step(Mono(0));
    assert_eq!(handle.unsaved_for(Mono(9 * SECOND)), Duration::ZERO);
    fs.set_capacity_bytes(Some(fs.used_bytes()));
    handle.put(b"a", at(2)).unwrap();
    core.step(Mono(2 * SECOND));
    handle.put(b"b", at(1)).unwrap();
    assert_eq!(handle.stats().unsaved_keys, 2, "as of now");
    core.step(Mono(5 * SECOND));
    assert_eq!(handle.unsaved_for(Mono(7 * SECOND)), Duration::from_secs(5));
    fs.set_capacity_bytes(None);
    core.step(Mono(20 * SECOND));
    assert_eq!(handle.unsaved_for(Mono(30 * SECOND)), Duration::ZERO);
    assert_eq!(handle.stats().unsaved_keys, 0);
}

#[test]
fn the_end_saves_what_is_left_or_says_that_it_is_abandoned() {
    let fs = SimFs::new(0);
    let (core, handle) = core(&fs);
    handle.put(b"k", at(1)).unwrap();
    let ticket = handle.put_durable([], None).unwrap();
    drop(core.finish(Mono(0)));
    assert_eq!(ticket.state(), TicketState::Durable);
    assert_eq!(
        handle.flush(Duration::ZERO),
        Flush::Abandoned,
        "nobody saves any more"
    );

    let (core, handle) = self::core(&fs);
    let ticket = handle.put_durable([(&b"k"[..], at(2))], None).unwrap();
    (0..40).for_each(|n| fs.fail_at(fs.operations() + n, ErrorKind::Other));
    core.finish(Mono(0));
    assert_eq!(ticket.state(), TicketState::Abandoned);
}

#[test]
fn the_thread_saves_flushes_and_ends() {
    let fs = SimFs::new(0);
    let long = WriterOptions {
        interval: Duration::from_secs(3600),
        ..WriterOptions::default()
    };
    let writer = CheckpointWriter::spawn(store(&fs), Arc::new(SystemClock::default()), long);
    let writer = writer.unwrap();
    let patience = Duration::from_secs(20);
    let threads: Vec<_> = (0..4u8)
        .map(|key| {
            let handle = writer.handle();
            std::thread::spawn(move || {
                for offset in 1..200 {
                    handle.put(&[key], at(offset)).unwrap();
                    if offset % 50 == 0 {
                        assert_eq!(handle.flush(patience), Flush::Done);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    let handle = writer.handle();
    assert_eq!(handle.flush(patience), Flush::Done);
    handle.put(b"last", at(7)).unwrap();
    drop(writer);
    fs.crash(0);
    let store = store(&fs);
    assert!((0..4).all(|key| store.get(&[key]) == Some(at(199))));
    assert_eq!(
        store.get(b"last"),
        Some(at(7)),
        "the end saves what the interval held back"
    );
    assert_eq!(handle.flush(patience), Flush::Abandoned);
}
