//! Idle connections, kept for the next request to the same server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use foldhash::HashMap;
use hyper::client::conn::http1::SendRequest;
use rustls::ClientConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::body::Chunks;

/// Which connections may serve which requests.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    pub https: bool,
    pub host_port: String,
    /// `host:port` of the proxy in between.
    pub proxy: Option<String>,
}

/// Limits of a pool; 0 and zero mean no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub idle_max: usize,
    pub idle_per_key_max: usize,
    pub open_per_key_max: usize,
    pub idle_timeout: Duration,
    /// Keeps nothing.
    pub disabled: bool,
}

/// A connection that nobody uses.
pub(super) struct Usable {
    pub sender: SendRequest<Chunks>,
    /// Where it leads: to the server or its proxy.
    pub peer: SocketAddr,
    /// How TLS was made, if it was.
    pub secured: Option<Arc<ClientConfig>>,
}

struct Idle {
    usable: Usable,
    since: Instant,
}

impl Idle {
    /// It is open, and not idle for longer than `timeout`.
    fn is_good(&self, timeout: Duration) -> bool {
        let old = !timeout.is_zero() && self.since.elapsed() >= timeout;
        !old && !self.usable.sender.is_closed()
    }
}

#[derive(Default)]
struct Inner {
    idle: HashMap<Key, Vec<Idle>>,
    uses: HashMap<Key, Arc<Semaphore>>,
    reaper: Reaper,
}

/// The task that closes idle connections. It goes with what it looks after, and does not wait for the
/// time of connections that went with it.
#[derive(Default)]
pub(super) struct Reaper(Option<AbortHandle>);

impl Reaper {
    /// Begins with `task`, unless it is at work.
    pub fn begin(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0
            .get_or_insert_with(|| tokio::spawn(task).abort_handle());
    }

    /// There is nothing to do any more.
    pub fn rest(&mut self) {
        self.0 = None;
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.0.take().iter().for_each(AbortHandle::abort);
    }
}

impl Inner {
    fn idle_total(&self) -> usize {
        self.idle.values().map(Vec::len).sum()
    }

    fn is_full(&self, key: &Key, limits: &Limits) -> bool {
        let here = self.idle.get(key).map_or(0, Vec::len);
        (limits.idle_max > 0 && self.idle_total() >= limits.idle_max)
            || (limits.idle_per_key_max > 0 && here >= limits.idle_per_key_max)
    }

    /// Forgets connections that are closed or idle for longer than `timeout`.
    fn prune(&mut self, timeout: Duration) {
        self.idle.retain(|_, list| {
            list.retain(|idle| idle.is_good(timeout));
            !list.is_empty()
        });
    }
}

/// A pool. Locked for moments, once or twice per request.
pub(super) struct Pool {
    inner: Arc<Mutex<Inner>>,
    limits: Limits,
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(|e| e.into_inner())
}

impl Pool {
    pub fn new(limits: Limits) -> Pool {
        Pool {
            inner: Arc::default(),
            limits,
        }
    }

    /// Waits until one more connection to `key` may be in use. Held while it is.
    pub async fn permit(&self, key: &Key) -> Option<OwnedSemaphorePermit> {
        if self.limits.open_per_key_max == 0 {
            return None;
        }
        let uses = {
            let mut inner = lock(&self.inner);
            let fresh = || Arc::new(Semaphore::new(self.limits.open_per_key_max));
            inner.uses.entry(key.clone()).or_insert_with(fresh).clone()
        };
        // The semaphore is never closed.
        uses.acquire_owned().await.ok()
    }

    /// The connection that was used last and still works.
    pub fn take(&self, key: &Key) -> Option<Usable> {
        let mut inner = lock(&self.inner);
        let list = inner.idle.get_mut(key)?;
        // What is below it is looked at when it is wanted, and by the reaper.
        while let Some(idle) = list.pop() {
            if idle.is_good(self.limits.idle_timeout) {
                return Some(idle.usable);
            }
        }
        None
    }

    /// Forgets the idle connections to `peer`: one like them was silent.
    pub fn forget(&self, peer: SocketAddr) {
        let mut inner = lock(&self.inner);
        for list in inner.idle.values_mut() {
            list.retain(|i| i.usable.peer != peer);
        }
    }

    /// Keeps a connection whose answer was read to its end, if the limits let it.
    pub fn put(&self, key: Key, usable: Usable) {
        let limits = self.limits;
        if limits.disabled || usable.sender.is_closed() {
            return;
        }
        let mut inner = lock(&self.inner);
        if inner.is_full(&key, &limits) {
            // Of connections that ended meanwhile.
            inner.prune(limits.idle_timeout);
            if inner.is_full(&key, &limits) {
                return;
            }
        }
        inner.idle.entry(key).or_default().push(Idle {
            usable,
            since: Instant::now(),
        });
        if !limits.idle_timeout.is_zero() {
            let pool = Arc::downgrade(&self.inner);
            inner.reaper.begin(reap(pool, limits.idle_timeout));
        }
    }

    /// Idle connections now.
    #[cfg(test)]
    pub fn idle(&self) -> usize {
        let mut inner = lock(&self.inner);
        inner.prune(self.limits.idle_timeout);
        inner.idle_total()
    }
}

/// Closes idle connections when their time is over. Ends when there are none, so that an idle
/// agent has no timer.
async fn reap(pool: Weak<Mutex<Inner>>, timeout: Duration) {
    loop {
        let next = {
            let Some(inner) = pool.upgrade() else { return };
            let mut inner = lock(&inner);
            inner.prune(timeout);
            let oldest = inner.idle.values().flatten().map(|i| i.since).min();
            if oldest.is_none() {
                inner.reaper.rest();
            }
            oldest
        };
        let Some(oldest) = next else { return };
        tokio::time::sleep_until(oldest + timeout).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: no task of a client that went waits for the time of its connections.
    #[test]
    fn the_task_goes_with_what_it_looks_after() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let (alive, gone) = tokio::sync::oneshot::channel::<()>();
            let mut reaper = Reaper::default();
            reaper.begin(async move {
                let _alive = alive;
                std::future::pending::<()>().await;
            });
            reaper.begin(async { unreachable!("it is at work") });
            tokio::task::yield_now().await;
            drop(reaper);
            let ended = tokio::time::timeout(Duration::from_secs(30), gone).await;
            assert!(ended.is_ok_and(|alive| alive.is_err()));
        });
    }
}
