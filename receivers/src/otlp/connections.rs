//! The connections of a listener: how many, which are idle, and which one makes way for another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// What is known of one connection.
pub struct Connection {
    /// When it was opened.
    pub opened: Instant,
    active: AtomicUsize,
    requests: AtomicU64,
    received_bytes: AtomicU64,
    /// Milliseconds from `opened` to the last change of `active` to 0.
    idle_at: AtomicU64,
    /// It is to be closed at once.
    pub make_way: Notify,
}

impl Connection {
    fn new() -> Connection {
        Connection {
            opened: Instant::now(),
            active: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            idle_at: AtomicU64::new(0),
            make_way: Notify::new(),
        }
    }

    /// A request begins; it ends when what is returned is dropped.
    pub fn begin(self: &Arc<Connection>) -> ActiveRequest {
        self.active.fetch_add(1, Ordering::AcqRel);
        self.requests.fetch_add(1, Ordering::AcqRel);
        ActiveRequest(self.clone())
    }

    /// Bytes came in.
    pub fn received(&self, bytes: usize) {
        self.received_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that came in.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Whether there was any request.
    pub fn was_used(&self) -> bool {
        self.requests.load(Ordering::Acquire) > 0
    }

    /// Since when there is no request; `None` while there is one.
    pub fn idle_since(&self) -> Option<Instant> {
        let idle = self.active.load(Ordering::Acquire) == 0;
        let at = Duration::from_millis(self.idle_at.load(Ordering::Acquire));
        idle.then(|| self.opened + at)
    }
}

/// A request under way on a connection.
pub struct ActiveRequest(Arc<Connection>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let at = self.0.opened.elapsed().as_millis() as u64;
        self.0.idle_at.store(at, Ordering::Release);
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All connections of a listener.
pub struct Connections {
    open: Mutex<(u64, HashMap<u64, Arc<Connection>>)>,
    max: usize,
}

/// A connection in the list of all; leaves it on drop.
pub struct Listed {
    all: Arc<Connections>,
    number: u64,
    /// The connection.
    pub connection: Arc<Connection>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.all.lock().1.remove(&self.number);
    }
}

impl Connections {
    /// None yet; there may be `max`.
    pub fn new(max: usize) -> Arc<Connections> {
        Arc::new(Connections {
            open: Mutex::default(),
            max,
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().1.len()
    }

    /// Lists a new connection. Where there are too many, an idle one is closed: one that was never
    /// used before one that was, and of those the one that is idle for longest. `None` if all are
    /// busy. The second value says whether one made way.
    pub fn add(self: &Arc<Connections>) -> Option<(Listed, bool)> {
        let mut open = self.lock();
        let mut made_way = false;
        if open.1.len() >= self.max {
            let idle = open.1.iter();
            let idle = idle.filter_map(|(n, c)| Some((c.was_used(), c.idle_since()?, *n)));
            let (.., number) = idle.min()?;
            if let Some(idle) = open.1.remove(&number) {
                idle.make_way.notify_one();
            }
            made_way = true;
        }
        let connection = Arc::new(Connection::new());
        open.0 += 1;
        let number = open.0;
        open.1.insert(number, connection.clone());
        drop(open);
        let listed = Listed {
            all: self.clone(),
            number,
            connection,
        };
        Some((listed, made_way))
    }

    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<u64, Arc<Connection>>)> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: a busy connection never makes way, an unused one does before one that is used.
    #[tokio::test]
    async fn idle_connections_make_way() {
        let all = Connections::new(2);
        let (used, _) = all.add().unwrap();
        drop(used.connection.begin());
        let (unused, _) = all.add().unwrap();
        let (third, made_way) = all.add().unwrap();
        assert!(made_way && all.count() == 2);
        unused.connection.make_way.notified().await;
        let (first, third) = (used.connection.begin(), third.connection.begin());
        assert!(all.add().is_none(), "all are busy");
        drop(first);
        let (_fourth, made_way) = all.add().unwrap();
        assert!(made_way);
        used.connection.make_way.notified().await;
        drop((unused, used));
        assert_eq!(all.count(), 2, "who made way has left already");
        drop(third);
    }
}
