//! The bus of one process: a table of events in the store, and a bell.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Batch, Bus, Gap, ReadFrom, Subscription};
use crate::model::Event;
use crate::store::{Store, StoreError};

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

/// See the module's documentation.
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

impl EmbeddedSubscription {
    /// What there is. Of a consumer that acknowledges nothing is forgotten that it has not had, so there is no gap for it.
    fn read(&mut self, limit: usize) -> Result<Batch, StoreError> {
        let events = self.bus.store.events_after(self.seq, limit)?;
        // Not sooner: what is forgotten while it is read is noticed.
        let forgotten = self.bus.store.forgotten_events()?;
        let gap = (0 < self.seq && self.seq < forgotten).then_some(Gap::Forgotten {
            after: self.seq,
            before: forgotten + 1,
        });
        let last = events.last().map(|e| e.seq);
        self.seq = last.unwrap_or(self.seq).max(gap.map_or(0, |_| forgotten));
        Ok(Batch { gap, events })
    }
}

impl Subscription for EmbeddedSubscription {
    fn next(&mut self, limit: usize, wait: Duration) -> Result<Batch, StoreError> {
        let heard = self.bus.bell.rung();
        let mut batch = self.read(limit)?;
        if batch == Batch::default() && !wait.is_zero() {
            self.bus.bell.wait(heard, Instant::now() + wait);
            batch = self.read(limit)?;
        }
        Ok(batch)
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
    use crate::bus::suite::{absent, check};
    use crate::store::SqliteStore;

    fn bus() -> EmbeddedBus {
        EmbeddedBus::new(Arc::new(SqliteStore::in_memory().unwrap()), || 0)
    }

    #[test]
    fn the_embedded_bus_keeps_to_it() {
        check(&mut Bench(None));
    }

    /// In a file, so that it can be opened again.
    struct Bench(Option<(tempfile::TempDir, Arc<SqliteStore>)>);

    impl Bench {
        fn store(&self) -> Arc<SqliteStore> {
            self.0.as_ref().unwrap().1.clone()
        }
    }

    impl crate::bus::suite::Bench for Bench {
        fn anew(&mut self) {
            let dir = tempfile::tempdir().unwrap();
            let store = SqliteStore::open(&dir.path().join("bus.db")).unwrap();
            self.0 = Some((dir, Arc::new(store)));
        }

        fn bus(&self) -> Arc<dyn Bus> {
            Arc::new(EmbeddedBus::new(self.store(), || 0))
        }

        fn store(&self) -> Arc<dyn Store> {
            self.store()
        }

        fn crash(&mut self) {
            let (dir, store) = self.0.take().unwrap();
            drop(store);
            let store = SqliteStore::open(&dir.path().join("bus.db")).unwrap();
            self.0 = Some((dir, Arc::new(store)));
        }

        fn forget_before(&mut self, seq: u64) {
            let store = self.store();
            let newest = store.events_after(0, 1_000).unwrap().last().unwrap().seq;
            store.advance("everybody", newest).unwrap();
            store.prune_events(newest + 1 - seq).unwrap();
        }
    }

    /// Guarantee: what a consumer that acknowledges has not had is not forgotten, however little is to be kept.
    #[test]
    fn nothing_is_forgotten_of_a_consumer() {
        let store = Arc::new(SqliteStore::in_memory().unwrap());
        let bus = EmbeddedBus::new(store.clone(), || 0);
        for n in 1..=9 {
            bus.publish(&format!("k{n}"), &absent(n)).unwrap();
        }
        let mut reader = bus.subscribe("r", ReadFrom::Acknowledged).unwrap();
        reader.acknowledge(5).unwrap();
        store.advance("other@log", 2).unwrap();
        assert_eq!(
            store.prune_events(0).unwrap(),
            5,
            "of another log than this"
        );
        reader.restart().unwrap();
        let batch = reader.next(10, Duration::ZERO).unwrap();
        assert_eq!(batch.gap, None);
        let seqs: Vec<_> = batch.events.iter().map(|e| e.seq).collect();
        assert_eq!(seqs, [6, 7, 8, 9]);
    }

    /// Guarantee: who waits is woken without an event, too.
    #[test]
    fn who_waits_is_woken() {
        let bus = bus();
        let mut reader = bus.subscribe("r", ReadFrom::Acknowledged).unwrap();
        let other = bus.clone();
        let waking = std::thread::spawn(move || reader.next(10, Duration::from_secs(60)).unwrap());
        while !waking.is_finished() {
            other.wake();
            std::thread::yield_now();
        }
        assert_eq!(waking.join().unwrap(), Batch::default());
    }
}
