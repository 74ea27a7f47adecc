//! Room for bodies that are coming in or being inflated: bytes over all connections, with a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of bytes that all connections of a receiver share.
#[derive(Debug)]
pub struct Room {
    taken_bytes: AtomicUsize,
    limit_bytes: usize,
    /// Bodies that are decoded at once on threads of their own. More would not be faster, and each
    /// thread keeps memory of the largest body it has seen.
    decoders: Arc<Semaphore>,
    decoders_max: usize,
}

impl Room {
    /// Room for `limit_bytes`, and half of the processors to decode what comes.
    pub fn new(limit_bytes: usize) -> Arc<Room> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let decoders_max = cores.div_ceil(2);
        Arc::new(Room {
            taken_bytes: AtomicUsize::new(0),
            limit_bytes,
            decoders: Arc::new(Semaphore::new(decoders_max)),
            decoders_max,
        })
    }

    /// How many bodies are decoded at once on threads of their own, at most.
    pub fn decoders_max(&self) -> usize {
        self.decoders_max
    }

    /// Bytes taken now.
    pub fn taken_bytes(&self) -> usize {
        self.taken_bytes.load(Ordering::Acquire)
    }
}

/// What one request has taken; given back on drop.
#[derive(Debug)]
pub struct Hold {
    room: Arc<Room>,
    bytes: usize,
}

impl Hold {
    /// Nothing yet.
    pub fn of(room: &Arc<Room>) -> Hold {
        Hold {
            room: room.clone(),
            bytes: 0,
        }
    }

    /// Waits for the turn of a body to be decoded on a thread of its own; it lasts until what is given is
    /// dropped.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Fails only if it is closed, which nobody does.
        self.room.decoders.clone().acquire_owned().await.ok()
    }

    /// Takes `bytes` more; false if there is no room for them. Who has all that is taken may take
    /// more than there is: a single request is bounded by its own limit.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let own = self.bytes;
        let take = |taken: usize| {
            let after = taken.saturating_add(bytes);
            (after <= self.room.limit_bytes || taken == own).then_some(after)
        };
        let taken = &self.room.taken_bytes;
        let done = taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        self.bytes += if done.is_ok() { bytes } else { 0 };
        done.is_ok()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.room
            .taken_bytes
            .fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_and_one_alone_may_exceed_the_limit() {
        let room = Room::new(100);
        let (mut a, mut b) = (Hold::of(&room), Hold::of(&room));
        assert!(a.grow(60) && b.grow(40) && !a.grow(1) && !b.grow(1));
        assert_eq!(room.taken_bytes(), 100);
        drop(a);
        assert!(b.grow(500), "nobody else has any");
        drop(b);
        assert_eq!(room.taken_bytes(), 0);
    }
}
