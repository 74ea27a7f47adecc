//! Stores positions of files under the receiver's namespace.

use std::sync::Arc;
use std::time::Duration;

use tailwater_pipeline::Wake;
use tailwater_pipeline::checkpoint::{Checkpoint, CheckpointHandle, PutError, Ticket};
use tailwater_pipeline::clock::Mono;

use super::lanes::is_mark;
use super::position::{Position, key_prefix};
use super::stamp::{MARK_AGE_LIMIT, MARK_AGE_MAX};

/// See the module's documentation.
pub struct Saver {
    store: CheckpointHandle,
    namespace: Arc<str>,
    waker: Arc<dyn Wake>,
}

fn checkpoint(p: &Position) -> Checkpoint {
    Checkpoint {
        offset: p.offset,
        generation: p.generation,
        payload: p.encode(),
    }
}

impl Saver {
    /// Saves into `store` under `namespace`; `waker` is woken when something became durable.
    pub fn new(store: CheckpointHandle, namespace: Arc<str>, waker: Arc<dyn Wake>) -> Saver {
        Saver {
            store,
            namespace,
            waker,
        }
    }

    /// All stored positions of a receiver. Those that cannot be read are reported and left alone.
    pub fn load(store: &CheckpointHandle, namespace: &str) -> Vec<Position> {
        let prefix = key_prefix(namespace);
        let decode = |(_, c): (Box<[u8]>, Checkpoint)| match Position::decode(
            c.offset,
            c.generation,
            &c.payload,
        ) {
            Ok(p) => Some(p),
            Err(e) => {
                tracing::error!(namespace, error = %e, "a stored file position cannot be used");
                None
            }
        };
        let stored = store.with_prefix(prefix.as_bytes()).into_iter();
        let positions = stored.filter(|(key, _)| !is_mark(key));
        positions.filter_map(decode).collect()
    }

    /// Everything before the position is delivered.
    pub fn save(&mut self, position: &Position) {
        Saver::store(&self.store, &self.namespace, position);
    }

    /// The same for several files that a line is split over: none of the positions is saved without
    /// the others.
    pub fn save_all(&mut self, positions: &[Position]) {
        let keys: Vec<_> = positions.iter().map(|p| p.key(&self.namespace)).collect();
        let keys = keys.iter().map(|k| k.as_slice());
        if let Some(first) = positions.first() {
            let batch = keys.zip(positions.iter().map(checkpoint));
            told(self.store.put_all(batch), first);
        }
    }

    /// The same, for who has no saver of their own.
    pub fn store(store: &CheckpointHandle, namespace: &str, position: &Position) {
        let key = position.key(namespace);
        told(store.put(&key, checkpoint(position)), position);
    }

    /// How old a time mark may be at `now`: a second, and up to a minute where so many files need
    /// new ones that saving them exceeds the store's rate of bytes.
    pub fn mark_age_max(&self, now: Mono) -> Duration {
        // More than the time itself, so that it is paid off before the next ones are due.
        let pause = self.store.overdrawn(now).saturating_mul(4);
        (MARK_AGE_MAX + pause).min(MARK_AGE_LIMIT)
    }

    /// Saves without delay. The ticket tells when it is on disk; there is none if it cannot be stored.
    pub fn save_durably(&mut self, position: &Position) -> Option<Ticket> {
        let key = position.key(&self.namespace);
        let batch = [(key.as_slice(), checkpoint(position))];
        match self.store.put_durable(batch, Some(self.waker.clone())) {
            Ok(ticket) => Some(ticket),
            Err(e) => {
                told(Err(e), position);
                None
            }
        }
    }

    /// A file that is finished. Its position is kept for a while, even if the file is gone: rotation
    /// may compress it yet, and a later run must not read it again.
    pub fn finished(&self, position: &Position) {
        Saver::store_left(&self.store, &self.namespace, position);
    }

    /// Stores the position of a file that nobody reads (any more): it makes room first.
    pub fn store_left(store: &CheckpointHandle, namespace: &str, position: &Position) {
        Saver::store(store, namespace, position);
        store.release(&position.key(namespace));
    }

    /// Forgets a stored position whose file is gone.
    pub fn forget(store: &CheckpointHandle, namespace: &str, position: &Position) {
        store.remove(&position.key(namespace));
    }
}

fn told(result: Result<(), PutError>, position: &Position) {
    if let Err(e) = result {
        tracing::error!(
            path = %position.path.display(), error = %e,
            "a file position was not stored; its lines may be delivered again after a restart"
        );
    }
}

#[cfg(test)]
#[path = "saver_tests.rs"]
mod tests;
