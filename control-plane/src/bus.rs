//! Between discovery and what acts on it: events with idempotency keys, kept until every consumer has
//! had them.
//!
//! At least once: a consumer that ends before it has acknowledged gets the same again. So consumers are
//! idempotent.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::Event;
use crate::store::{Recorded, Store, StoreError};

/// From where a consumer reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadFrom {
    /// Behind what it has acknowledged; what there is, if it never has.
    Acknowledged,
    /// Behind this event; 0 = all that is kept.
    Event(u64),
}

/// See the module's documentation.
pub trait Bus: Send + Sync {
    /// Publishes an event, unless one of this key is known. True if it is new.
    ///
    /// # Errors
    /// It could not be kept. It is to be published again then.
    fn publish(&self, key: &str, event: &Event) -> Result<bool, StoreError>;

    /// What a consumer of this name reads.
    ///
    /// # Errors
    /// It cannot be found out how far it is.
    fn subscribe(
        &self,
        consumer: &str,
        from: ReadFrom,
    ) -> Result<Box<dyn Subscription>, StoreError>;
}

/// One consumer's way through the events.
pub trait Subscription: Send {
    /// The next events, in order; none if there are none in this time.
    ///
    /// # Errors
    /// They cannot be read; the next call tries again.
    fn next(&mut self, limit: usize, wait: Duration) -> Result<Vec<Recorded>, StoreError>;

    /// Says that all up to this one are done with.
    ///
    /// # Errors
    /// It could not be kept: they may come again after a restart.
    fn acknowledge(&mut self, seq: u64) -> Result<(), StoreError>;

    /// Goes back to behind what was acknowledged.
    ///
    /// # Errors
    /// It cannot be found out what that is.
    fn restart(&mut self) -> Result<(), StoreError>;

    /// The name under which it acknowledges, for those who do that in a transaction of their own.
    fn consumer(&self) -> &str;
}

/// Wakes who waits for something.
#[derive(Debug, Default)]
struct Bell {
    rung: Mutex<u64>,
    ring: Condvar,
}

impl Bell {
    fn ring(&self) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        *rung += 1;
        self.ring.notify_all();
    }

    fn rung(&self) -> u64 {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it rings after it had rung so often, or the time is up.
    fn wait(&self, heard: u64, deadline: Instant) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while *rung == heard {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.ring.wait_timeout(rung, left);
            rung = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The bus of one process: a table of events, and a bell.
#[derive(Clone)]
pub struct EmbeddedBus {
    store: Arc<dyn Store>,
    bell: Arc<Bell>,
    wall: fn() -> i64,
}

impl EmbeddedBus {
    /// Over the events of `store`; `wall` says the time, ns since the epoch.
    pub fn new(store: Arc<dyn Store>, wall: fn() -> i64) -> EmbeddedBus {
        EmbeddedBus {
            store,
            bell: Arc::default(),
            wall,
        }
    }

    /// Ends the waits of all subscriptions.
    pub fn wake(&self) {
        self.bell.ring();
    }
}

impl Bus for EmbeddedBus {
    fn publish(&self, key: &str, event: &Event) -> Result<bool, StoreError> {
        let seq = self.store.publish(key, event, (self.wall)())?;
        if seq.is_some() {
            self.bell.ring();
        }
        Ok(seq.is_some())
    }

    fn subscribe(
        &self,
        consumer: &str,
        from: ReadFrom,
    ) -> Result<Box<dyn Subscription>, StoreError> {
        let seq = match from {
            ReadFrom::Acknowledged => self.store.cursor(consumer)?,
            ReadFrom::Event(seq) => seq,
        };
        Ok(Box::new(EmbeddedSubscription {
            bus: self.clone(),
            consumer: consumer.to_owned(),
            seq,
        }))
    }
}

struct EmbeddedSubscription {
    bus: EmbeddedBus,
    consumer: String,
    seq: u64,
}

impl Subscription for EmbeddedSubscription {
    fn next(&mut self, limit: usize, wait: Duration) -> Result<Vec<Recorded>, StoreError> {
        let heard = self.bus.bell.rung();
        let mut events = self.bus.store.events_after(self.seq, limit)?;
        if events.is_empty() && !wait.is_zero() {
            self.bus.bell.wait(heard, Instant::now() + wait);
            events = self.bus.store.events_after(self.seq, limit)?;
        }
        if let Some(last) = events.last() {
            self.seq = last.seq;
        }
        Ok(events)
    }

    fn acknowledge(&mut self, seq: u64) -> Result<(), StoreError> {
        self.bus.store.advance(&self.consumer, seq)
    }

    fn restart(&mut self) -> Result<(), StoreError> {
        self.seq = self.bus.store.cursor(&self.consumer)?;
        Ok(())
    }

    fn consumer(&self) -> &str {
        &self.consumer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Origin;
    use crate::store::SqliteStore;

    fn absent(generation: i64) -> Event {
        Event::Absent {
            generation,
            origin: Origin::Docker,
            id: "docker:a".into(),
        }
    }

    fn bus() -> EmbeddedBus {
        EmbeddedBus::new(Arc::new(SqliteStore::in_memory().unwrap()), || 0)
    }

    /// Guarantee: a key is taken once; what was not acknowledged comes again, from any place; and who
    /// has acknowledged goes on behind it.
    #[test]
    fn events_come_at_least_once_and_can_be_replayed() {
        let bus = bus();
        for n in 1..=5 {
            assert!(bus.publish(&format!("k{n}"), &absent(n)).unwrap());
        }
        let read = |from| {
            let mut reader = bus.subscribe("r", from).unwrap();
            let events = reader.next(10, Duration::ZERO).unwrap();
            (reader, events.iter().map(|e| e.seq).collect::<Vec<_>>())
        };
        assert_eq!(read(ReadFrom::Acknowledged).1, [1, 2, 3, 4, 5]);
        let (mut reader, again) = read(ReadFrom::Acknowledged);
        assert_eq!(again, [1, 2, 3, 4, 5]);
        reader.acknowledge(3).unwrap();
        assert_eq!(read(ReadFrom::Acknowledged).1, [4, 5]);
        reader.acknowledge(2).unwrap();
        assert_eq!(read(ReadFrom::Acknowledged).1, [4, 5], "it never goes back");
        assert_eq!(read(ReadFrom::Event(1)).1, [2, 3, 4, 5]);
        assert_eq!(read(ReadFrom::Event(0)).1, [1, 2, 3, 4, 5]);
        assert!(!bus.publish("k3", &absent(3)).unwrap());
        assert_eq!(read(ReadFrom::Event(0)).1.len(), 5);
    }

    /// Guarantee: who waits is told of an event at once, and of a wake-up without one.
    #[test]
    fn who_waits_is_woken() {
        let bus = bus();
        let mut reader = bus.subscribe("r", ReadFrom::Acknowledged).unwrap();
        let other = bus.clone();
        let publish = std::thread::spawn(move || other.publish("k", &absent(1)).unwrap());
        let events = reader.next(10, Duration::from_secs(60)).unwrap();
        assert_eq!(events.len(), 1);
        assert!(publish.join().unwrap());
        let other = bus.clone();
        let waking = std::thread::spawn(move || reader.next(10, Duration::from_secs(60)).unwrap());
        while !waking.is_finished() {
            other.wake();
            std::thread::yield_now();
        }
        assert_eq!(waking.join().unwrap(), []);
    }
}
