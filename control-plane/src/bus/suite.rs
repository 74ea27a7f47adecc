//! What every bus has to keep to. A bus is one more bench.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Batch, Bus, Gap, ReadFrom, Subscription};
use crate::model::{Event, Origin};
use crate::store::Store;

/// How long anything is waited for.
const BOUND: Duration = Duration::from_secs(60);

/// A kind of bus, and what is done to it.
pub(crate) trait Bench {
    /// Begins with nothing.
    fn anew(&mut self);
    /// The bus as a new process has it.
    fn bus(&self) -> Arc<dyn Bus>;
    /// Where consumers keep how far they are.
    fn store(&self) -> Arc<dyn Store>;
    /// What keeps events is killed, and begins again with what it kept.
    fn crash(&mut self);
    /// Events before this one are forgotten, whoever has not had them.
    fn forget_before(&mut self, seq: u64);
}

pub(crate) fn absent(generation: i64) -> Event {
    Event::Absent {
        generation,
        origin: Origin::Docker,
        id: "docker:a".into(),
    }
}

/// All of it.
pub(crate) fn check(bench: &mut dyn Bench) {
    let checks: [fn(&mut dyn Bench); 6] = [
        keys_are_taken_once,
        events_come_at_least_once_and_can_be_replayed,
        what_is_made_of_events_and_how_far_one_is_come_together,
        who_waits_is_told_of_an_event,
        a_crash_costs_nothing,
        what_was_forgotten_is_said,
    ];
    for check in checks {
        bench.anew();
        check(bench);
    }
}

fn publish(bus: &dyn Bus, numbers: impl IntoIterator<Item = i64>) {
    for n in numbers {
        assert!(bus.publish(&format!("k{n}"), &absent(n)).unwrap());
    }
}

/// So many events, however many calls it takes.
fn read(reader: &mut dyn Subscription, count: usize) -> Vec<(u64, i64)> {
    let (mut all, until) = (Vec::new(), Instant::now() + BOUND);
    while all.len() < count && Instant::now() < until {
        let Ok(batch) = reader.next(count - all.len(), Duration::from_millis(100)) else {
            continue;
        };
        assert_eq!(batch.gap, None);
        all.extend(numbers(&batch));
    }
    assert_eq!(all.len(), count, "{all:?}");
    all
}

fn numbers(batch: &Batch) -> Vec<(u64, i64)> {
    let of = |e: &crate::store::Recorded| (e.seq, e.event.generation().unwrap());
    batch.events.iter().map(of).collect()
}

fn at(bus: &dyn Bus, from: ReadFrom) -> Box<dyn Subscription> {
    bus.subscribe("r", from).unwrap()
}

/// Guarantee: of one key one event is kept, the first; keys may hold anything.
fn keys_are_taken_once(bench: &mut dyn Bench) {
    let bus = bench.bus();
    let long = "x".repeat(5_000);
    let keys = [
        "docker/a/1/start",
        "two\r\nlines: of it",
        "\u{e9} ",
        "",
        &long,
    ];
    for (n, key) in keys.iter().enumerate() {
        assert!(bus.publish(key, &absent(n as i64)).unwrap(), "{key:?}");
        assert!(!bus.publish(key, &absent(99)).unwrap(), "{key:?}");
    }
    let again = bench.bus();
    assert!(!again.publish(keys[1], &absent(99)).unwrap());
    let mut reader = at(&*bus, ReadFrom::Acknowledged);
    let (mut read_keys, until) = (Vec::new(), Instant::now() + BOUND);
    while read_keys.len() < keys.len() && Instant::now() < until {
        let batch = reader.next(10, Duration::from_millis(100)).unwrap();
        read_keys.extend(batch.events.into_iter().map(|e| (e.key, e.event)));
    }
    let wanted = keys.iter().enumerate();
    let wanted: Vec<_> = wanted
        .map(|(n, key)| ((*key).to_owned(), absent(n as i64)))
        .collect();
    assert_eq!(read_keys, wanted);
    assert_eq!(reader.next(10, Duration::ZERO).unwrap(), Batch::default());
}

/// Guarantee: what was not acknowledged comes again, to whoever continues under that name; from any place if asked for; and
/// who has acknowledged goes on behind it.
fn events_come_at_least_once_and_can_be_replayed(bench: &mut dyn Bench) {
    let bus = bench.bus();
    publish(&*bus, 1..=5);
    let all = read(&mut *at(&*bus, ReadFrom::Acknowledged), 5);
    assert_eq!(
        all.iter().map(|(_, n)| *n).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert!(all.is_sorted(), "{all:?}");
    let mut reader = at(&*bus, ReadFrom::Acknowledged);
    assert_eq!(read(&mut *reader, 5), all, "nothing was acknowledged");
    reader.acknowledge(all[2].0).unwrap();
    assert_eq!(
        read(&mut *at(&*bench.bus(), ReadFrom::Acknowledged), 2),
        all[3..]
    );
    reader.acknowledge(all[1].0).unwrap();
    let mut another = at(&*bus, ReadFrom::Acknowledged);
    assert_eq!(read(&mut *another, 2), all[3..], "it never goes back");
    another.restart().unwrap();
    assert_eq!(read(&mut *another, 1), all[3..4], "it begins again");
    assert_eq!(read(&mut *another, 1), all[4..], "and goes on");
    assert_eq!(
        read(&mut *at(&*bus, ReadFrom::Event(all[0].0)), 4),
        all[1..]
    );
    assert_eq!(read(&mut *at(&*bus, ReadFrom::Event(0)), 5), all);
    let mut other = bus.subscribe("other", ReadFrom::Acknowledged).unwrap();
    assert_eq!(read(&mut *other, 5), all, "each is where it is");
}

/// Guarantee: a transaction of the store moves the consumer on; one that was not made does not.
fn what_is_made_of_events_and_how_far_one_is_come_together(bench: &mut dyn Bench) {
    let bus = bench.bus();
    publish(&*bus, 1..=3);
    let mut reader = at(&*bus, ReadFrom::Acknowledged);
    let all = read(&mut *reader, 3);
    let none = crate::registry::Changes::default();
    let done = (reader.consumer(), all[1].0);
    bench.store().apply(&none, Some(done)).unwrap();
    reader.restart().unwrap();
    assert_eq!(read(&mut *reader, 1), all[2..]);
}

/// Guarantee: an event ends a wait at once.
fn who_waits_is_told_of_an_event(bench: &mut dyn Bench) {
    let bus = bench.bus();
    let mut reader = at(&*bus, ReadFrom::Acknowledged);
    assert_eq!(reader.next(10, Duration::ZERO).unwrap(), Batch::default());
    let begin = Instant::now();
    let publishing = std::thread::spawn(move || publish(&*bus, [1]));
    let batch = reader.next(10, BOUND).unwrap();
    assert_eq!(batch.events.len(), 1);
    assert!(begin.elapsed() < BOUND);
    publishing.join().unwrap();
}

/// Guarantee: what was published is there after a crash, and known as published; who reads goes on by itself.
fn a_crash_costs_nothing(bench: &mut dyn Bench) {
    publish(&*bench.bus(), 1..=4);
    let bus = bench.bus();
    let mut reader = at(&*bus, ReadFrom::Acknowledged);
    let first = read(&mut *reader, 2);
    reader.acknowledge(first[1].0).unwrap();
    drop((bus, reader));
    bench.crash();
    let bus = bench.bus();
    assert!(!bus.publish("k4", &absent(4)).unwrap(), "it is known");
    publish(&*bus, 5..=6);
    let rest = read(&mut *at(&*bus, ReadFrom::Acknowledged), 4);
    assert_eq!(
        rest.iter().map(|(_, n)| *n).collect::<Vec<_>>(),
        [3, 4, 5, 6]
    );
}

/// Guarantee: who has not had what was forgotten is told so once, and gets all that there is; who wants all that there is, is
/// not told of what was before.
fn what_was_forgotten_is_said(bench: &mut dyn Bench) {
    let bus = bench.bus();
    publish(&*bus, 1..=9);
    let all = read(&mut *at(&*bus, ReadFrom::Event(0)), 9);
    let from = all[1].0;
    bench.forget_before(all[5].0);
    let mut reader = at(&*bus, ReadFrom::Event(from));
    let batch = reader.next(100, BOUND).unwrap();
    let gap = Gap::Forgotten {
        after: from,
        before: all[5].0,
    };
    assert_eq!(batch.gap, Some(gap));
    let mut rest = numbers(&batch);
    rest.extend(read(&mut *reader, 4 - rest.len()));
    assert_eq!(rest, all[5..]);
    assert_eq!(reader.next(1, Duration::ZERO).unwrap(), Batch::default());
    assert_eq!(read(&mut *at(&*bus, ReadFrom::Event(0)), 4), all[5..]);
    // All that there was, with nothing behind it.
    publish(&*bus, [10]);
    let newest = read(&mut *at(&*bus, ReadFrom::Event(all[8].0)), 1)[0].0;
    bench.forget_before(newest + 1);
    let mut late = at(&*bus, ReadFrom::Event(from));
    let batch = late.next(100, Duration::ZERO).unwrap();
    let before = newest + 1;
    let gap = Gap::Forgotten {
        after: from,
        before,
    };
    assert_eq!((batch.gap, batch.events), (Some(gap), vec![]));
    publish(&*bus, [11]);
    assert_eq!(read(&mut *late, 1)[0].1, 11);
}
