//! The connections of a listener: how many, which are idle, and which one makes way for another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Where there are too many connections, one whose bodies have not come after this time makes way.
const BODY_GRACE: Duration = Duration::from_secs(1);

/// What is known of one connection.
pub struct Connection {
    /// When it was opened.
    pub opened: Instant,
    active: AtomicUsize,
    /// Of those the ones whose bodies are not there yet.
    reading: AtomicUsize,
    /// Milliseconds from `opened` to when `reading` was 0 last.
    reading_at: AtomicU64,
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
            reading: AtomicUsize::new(0),
            reading_at: AtomicU64::new(0),
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

    /// The body of a request that has begun is read, until what is returned is dropped.
    pub fn read_body(self: &Arc<Connection>) -> ReadingBody {
        if self.reading.fetch_add(1, Ordering::AcqRel) == 0 {
            let at = self.opened.elapsed().as_millis() as u64;
            self.reading_at.store(at, Ordering::Release);
        }
        ReadingBody(self.clone())
    }

    /// Since when all its requests wait for their bodies; `None` if there is none or one goes on.
    fn waits_since(&self) -> Option<Instant> {
        let reading = self.reading.load(Ordering::Acquire);
        let at = Duration::from_millis(self.reading_at.load(Ordering::Acquire));
        let all = reading > 0 && reading == self.active.load(Ordering::Acquire);
        all.then(|| self.opened + at)
    }

    /// Who makes way first: one that was never used, then one that was, then one whose bodies do not come,
    /// and of those the one that is so for longest. `None` for one that is busy.
    fn rank(&self, now: Instant) -> Option<(u8, Instant)> {
        if let Some(since) = self.idle_since() {
            return Some((u8::from(self.was_used()), since));
        }
        let since = self.waits_since()?;
        (now.saturating_duration_since(since) >= BODY_GRACE).then_some((2, since))
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

/// A body that is being read.
pub struct ReadingBody(Arc<Connection>);

impl Drop for ReadingBody {
    fn drop(&mut self) {
        self.0.reading.fetch_sub(1, Ordering::AcqRel);
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

    /// Lists a new connection. Where there are too many, one is closed that has nothing to do: one that was
    /// never used before one that was, before one that keeps us waiting for bodies, and of those the one
    /// that does so for longest. `None` if all are busy. The second value says whether one made way.
    pub fn add(self: &Arc<Connections>) -> Option<(Listed, bool)> {
        self.add_at(Instant::now())
    }

    fn add_at(self: &Arc<Connections>, now: Instant) -> Option<(Listed, bool)> {
        let mut open = self.lock();
        let mut made_way = false;
        if open.1.len() >= self.max {
            let ranked = open.1.iter();
            let ranked = ranked.filter_map(|(n, c)| Some((c.rank(now)?, *n)));
            let (_, number) = ranked.min()?;
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

    /// Guarantee: one that keeps us waiting for a body makes way after a while, the one that does so for
    /// longest first; one whose request goes on does not.
    #[tokio::test]
    async fn who_keeps_us_waiting_makes_way() {
        let all = Connections::new(2);
        let (slow, _) = all.add().unwrap();
        let (busy, _) = all.add().unwrap();
        let _requests = [&slow, &busy].map(|c| c.connection.begin());
        let _body = slow.connection.read_body();
        drop(busy.connection.read_body());
        assert!(all.add().is_none(), "its time is not over");
        let late = Instant::now() + BODY_GRACE;
        let (third, made_way) = all.add_at(late).unwrap();
        assert!(made_way);
        slow.connection.make_way.notified().await;
        let _request = third.connection.begin();
        assert!(all.add_at(late).is_none(), "all are busy");
    }
}
