//! What is remembered of each stream, for as long as it is wanted and within a bound.

use std::collections::HashMap;
use std::time::Duration;

use tailwater_pipeline::clock::Mono;

use super::StreamId;

/// Streams that are remembered at most, where nothing else is said. Their last values take about
/// 100 MiB, if they are numbers.
pub const STREAMS_MAX: usize = 1_000_000;

/// Values by stream.
#[derive(Debug)]
pub struct Streams<V> {
    slots: HashMap<StreamId, Slot<V>, foldhash::fast::FixedState>,
    /// Streams at most.
    max: usize,
    /// How long a stream is remembered after it was seen last; zero: for ever.
    stale_after: Duration,
    /// When old ones are looked for next.
    next_sweep: Option<Mono>,
}

#[derive(Debug)]
struct Slot<V> {
    seen: Mono,
    value: V,
}

/// Where a value can be put.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// There was room.
    Room,
    /// So many that were not seen for the longest time were forgotten for it.
    Evicted(usize),
}

impl<V> Streams<V> {
    /// Room for `max` streams, which are forgotten `stale_after` they were seen last (zero: never).
    pub fn new(max: usize, stale_after: Duration) -> Streams<V> {
        Streams {
            // Keys are hashes already, by a seed that nobody knows.
            slots: HashMap::with_hasher(foldhash::fast::FixedState::with_seed(0)),
            max,
            stale_after,
            next_sweep: None,
        }
    }

    /// Number of streams.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True without streams.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// True if a new stream needs the room of another one.
    pub fn is_full(&self) -> bool {
        self.slots.len() >= self.max
    }

    /// What is known of a stream that is seen now. One that is too old is not known.
    pub fn see(&mut self, id: StreamId, now: Mono) -> Option<&mut V> {
        let stale = |s: &Slot<V>| now.since(s.seen) >= self.stale_after;
        if !self.stale_after.is_zero() && self.slots.get(&id).is_some_and(stale) {
            self.slots.remove(&id);
        }
        let slot = self.slots.get_mut(&id)?;
        slot.seen = now;
        Some(&mut slot.value)
    }

    /// What is known of a stream, without seeing it.
    pub fn get_mut(&mut self, id: StreamId) -> Option<&mut V> {
        self.slots.get_mut(&id).map(|slot| &mut slot.value)
    }

    /// Begins to remember a stream. If there is no room, those that were not seen for the longest time
    /// are forgotten, a sixteenth of all.
    pub fn insert(&mut self, id: StreamId, value: V, now: Mono) -> Taken {
        let mut taken = Taken::Room;
        if self.is_full() && !self.slots.contains_key(&id) {
            taken = Taken::Evicted(self.evict());
        }
        self.slots.insert(id, Slot { seen: now, value });
        if !self.stale_after.is_zero() {
            self.next_sweep.get_or_insert(now.after(self.stale_after));
        }
        taken
    }

    fn evict(&mut self) -> usize {
        let mut seen: Vec<Mono> = self.slots.values().map(|s| s.seen).collect();
        let many = (seen.len() / 16).max(1).min(seen.len());
        if many == 0 {
            return 0;
        }
        let (_, limit, _) = seen.select_nth_unstable(many - 1);
        let limit = *limit;
        let mut left = many;
        self.slots.retain(|_, slot| {
            let goes = slot.seen <= limit && left > 0;
            left -= usize::from(goes);
            !goes
        });
        many - left
    }

    /// Forgets those that are too old. Returns how many those are.
    pub fn expire(&mut self, now: Mono) -> usize {
        if self.stale_after.is_zero() {
            return 0;
        }
        let before = self.slots.len();
        let stale_after = self.stale_after;
        self.slots.retain(|_, s| now.since(s.seen) < stale_after);
        let oldest = self.slots.values().map(|s| s.seen).min();
        // Each sweep looks at all of them; one that ends a little later may wait for the next but one.
        let not_before = now.after(stale_after / 8);
        self.next_sweep = oldest.map(|seen| seen.after(stale_after).max(not_before));
        before - self.slots.len()
    }

    /// When the first of them can be too old.
    pub fn next_sweep(&self) -> Option<Mono> {
        self.next_sweep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Mono {
        Mono::default().after(SECOND * seconds as u32)
    }

    #[test]
    fn streams_are_forgotten_when_they_were_not_seen_for_too_long() {
        let mut streams = Streams::new(10, 5 * SECOND);
        assert_eq!(streams.next_sweep(), None);
        streams.insert(StreamId(1), 'a', at(0));
        streams.insert(StreamId(2), 'b', at(3));
        assert_eq!(streams.next_sweep(), Some(at(5)));
        assert_eq!(streams.see(StreamId(1), at(4)), Some(&mut 'a'));
        assert_eq!(streams.expire(at(5)), 0);
        assert_eq!(streams.next_sweep(), Some(at(8)));
        assert_eq!(streams.see(StreamId(2), at(8)), None, "before any sweep");
        assert_eq!(streams.expire(at(9)), 1);
        assert_eq!((streams.is_empty(), streams.next_sweep()), (true, None));
        let mut forever = Streams::new(10, Duration::ZERO);
        forever.insert(StreamId(1), 'a', at(0));
        assert_eq!(forever.expire(at(1 << 20)), 0);
        assert_eq!(forever.see(StreamId(1), at(1 << 20)), Some(&mut 'a'));
        assert_eq!(forever.next_sweep(), None);
    }

    #[test]
    fn sweeps_are_rare() {
        let mut streams = Streams::new(1000, 8 * SECOND);
        for i in 0..100 {
            let seen = at(0).after(Duration::from_millis(10 * i));
            streams.insert(StreamId(i.into()), (), seen);
        }
        assert_eq!(streams.expire(at(8)), 1);
        assert_eq!(streams.next_sweep(), Some(at(9)), "not with each stream");
        assert_eq!(streams.expire(at(9)), 99);
    }

    #[test]
    fn there_is_never_more_than_the_bound() {
        let mut streams = Streams::new(32, Duration::ZERO);
        for i in 0..100 {
            let taken = streams.insert(StreamId(i), i, at(i as u64 / 3));
            assert_eq!(taken == Taken::Room, !matches!(taken, Taken::Evicted(_)));
            assert!(streams.len() <= 32);
        }
        assert_eq!(streams.get_mut(StreamId(99)), Some(&mut 99));
        assert_eq!(streams.get_mut(StreamId(0)), None, "the oldest went");
        assert_eq!(streams.insert(StreamId(99), 1, at(99)), Taken::Room);
    }
}
