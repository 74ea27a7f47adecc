//! A fake Loki: a real HTTP server with the push behaviour of the real one, its surprises too.
//!
//! The surprises are the point. A push of several streams may be answered 204 although a stream
//! was refused (only the last one is reported); a 400 may have stored most of its entries; some
//! 429 and 500 can never succeed; a 260 means dropped. A client that survives this server with an
//! exact account of what was stored needs no luck with the real one.
//!
//! Endpoints: `POST /loki/api/v1/push` (snappy protobuf; JSON, plain, gzip or deflate),
//! `GET /ready`, and a minimal `GET /loki/api/v1/query_range`. Limits are in [`LokiBehaviour`],
//! faults in [`Faults`] and in scripts ([`FakeLoki::script`]); both may change at any time.
//!
//! Not imitated: OTLP, tail, metric queries, stream sharding's label, `detected_level`, several
//! ingesters, flushing. Behaviour was taken from observation of Loki 3.8 development builds.

pub mod behaviour;
pub mod encode;
pub mod labels;
pub mod metadata;
pub mod model;
pub mod proto;
pub mod push;
pub mod store;

mod admit;
mod body;
mod endpoint;
mod ingest;
mod json;
mod query;
mod rate;
mod state;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::entry::EntryHook;
use crate::http::{Server, ServerLimits, lock};
use crate::rng::Rng;
use behaviour::{Faults, LokiBehaviour, Matcher, Reach, Scripted};
use endpoint::Endpoint;
use proto::ReadLimits;
use state::{State, Store};
use store::{StoreMode, StoredEntry};

pub use state::RequestRecord;

/// The tenant everything is stored for while authentication is off.
pub const DEFAULT_TENANT: &str = "fake";

/// The server's idea of the present, in Unix nanoseconds.
pub type NowFn = Arc<dyn Fn() -> i64 + Send + Sync>;

/// How a [`FakeLoki`] starts.
#[derive(Clone)]
pub struct LokiOptions {
    /// Limits and rules.
    pub behaviour: LokiBehaviour,
    /// Faults.
    pub faults: Faults,
    /// Whether entries are kept.
    pub store: StoreMode,
    /// The clock for age checks and rates. A fixed one never refills a rate's bucket.
    pub now: NowFn,
    /// Seed of the faults' random numbers.
    pub seed: u64,
    /// Called for each stored entry, repeats included, in the order stored. It runs under the
    /// server's lock: it must be quick and must not call the server.
    pub on_entry: Option<EntryHook>,
    /// Limits of the HTTP server.
    pub server: ServerLimits,
    /// Limits of the protobuf reader.
    pub read: ReadLimits,
    /// How many of the newest requests [`FakeLoki::requests`] remembers.
    pub requests_kept_max: usize,
}

impl Default for LokiOptions {
    fn default() -> Self {
        Self {
            behaviour: LokiBehaviour::default(),
            faults: Faults::default(),
            store: StoreMode::default(),
            now: Arc::new(crate::time::system_unix_nanos),
            seed: 0,
            on_entry: None,
            server: ServerLimits::default(),
            read: ReadLimits::default(),
            requests_kept_max: 1024,
        }
    }
}

impl fmt::Debug for LokiOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LokiOptions")
            .field("behaviour", &self.behaviour)
            .field("faults", &self.faults)
            .field("store", &self.store)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// Counters of a running server. All grow only, except the levels `pushes_hanging` and
/// `streams_active`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LokiStats {
    /// Requests whose head was read, of any kind.
    pub requests: u64,
    /// Pushes among them.
    pub pushes: u64,
    /// Responses sent to pushes, by status.
    pub push_responses: BTreeMap<u16, u64>,
    /// Pushes whose connection was closed instead of an answer.
    pub pushes_unanswered: u64,
    /// Pushes held by a hang fault now.
    pub pushes_hanging: u64,
    /// Bytes of push bodies as received.
    pub body_bytes: u64,
    /// Entries in pushes that could be decoded and were processed.
    pub entries_received: u64,
    /// Entries stored, repeats included.
    pub entries_accepted: u64,
    /// Entries stored as queries would show them; `None` when storage only counts.
    pub entries_distinct: Option<u64>,
    /// Entries accepted but not kept, because the store's bound was reached.
    pub entries_not_kept: u64,
    /// Entries refused, by the reason Loki's `loki_discarded_samples_total` would give.
    pub discarded: BTreeMap<String, u64>,
    /// Those of them that were refused in a request answered with 204.
    pub discarded_hidden: u64,
    /// Streams over all tenants.
    pub streams_active: usize,
}

impl LokiStats {
    /// Entries refused, over all reasons. `received = accepted + discarded_total` holds always.
    pub fn discarded_total(&self) -> u64 {
        self.discarded.values().sum()
    }
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    status: u16,
    text: String,
}

impl Refusal {
    fn new(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }

    fn body_too_large(bytes: usize, max: usize) -> Self {
        Self::new(
            413,
            format!("request body too large: {bytes} bytes, limit: {max} bytes"),
        )
    }
}

/// A running fake. Dropping it closes everything and ends its threads.
pub struct FakeLoki {
    server: Server,
    inner: Arc<Inner>,
}

/// What the handle and the endpoint share.
struct Inner {
    now: NowFn,
    on_entry: Option<EntryHook>,
    read: ReadLimits,
    requests_kept_max: usize,
    state: Mutex<State>,
    /// Signalled after every request.
    changed: Condvar,
}

impl FakeLoki {
    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// What binding or starting a thread fails with.
    pub fn start(options: LokiOptions) -> io::Result<Self> {
        let inner = Arc::new(Inner {
            now: options.now,
            on_entry: options.on_entry,
            read: options.read,
            requests_kept_max: options.requests_kept_max,
            state: Mutex::new(State {
                behaviour: Arc::new(options.behaviour),
                faults: options.faults,
                fault_epoch: 0,
                reach: Reach::Up,
                ready: true,
                rng: Rng::new(options.seed),
                store: Store::new(options.store),
                stats: LokiStats::default(),
                scripts: Vec::new(),
                requests: VecDeque::new(),
            }),
            changed: Condvar::new(),
        });
        let server = Server::start(Arc::new(Endpoint(Arc::clone(&inner))), options.server)?;
        Ok(Self { server, inner })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The URL of the push endpoint.
    pub fn push_url(&self) -> String {
        format!("{}/loki/api/v1/push", self.url())
    }

    /// Connections accepted so far, to see whether a client keeps them alive.
    pub fn connections_accepted(&self) -> u64 {
        self.server.connections_accepted()
    }

    /// Changes the limits and rules; requests that begin later see it.
    pub fn set_behaviour(&self, change: impl FnOnce(&mut LokiBehaviour)) {
        change(Arc::make_mut(&mut lock(&self.inner.state).behaviour));
    }

    /// Changes the faults. Requests that hang are closed by it.
    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        let mut state = lock(&self.inner.state);
        change(&mut state.faults);
        state.fault_epoch += 1;
    }

    /// Makes the server unreachable, or reachable again on the same port.
    ///
    /// # Errors
    /// Going back to listening failed, because another process took the port.
    pub fn set_reach(&self, reach: Reach) -> io::Result<()> {
        lock(&self.inner.state).reach = reach;
        match reach {
            Reach::Refused => {
                self.server.refuse();
                Ok(())
            }
            Reach::Up | Reach::Unavailable => self.server.listen_again(),
        }
    }

    /// Sets what `/ready` answers: 200, or 503 while pushes go on as usual, as in the first 15
    /// seconds of the real server.
    pub fn set_ready(&self, ready: bool) {
        lock(&self.inner.state).ready = ready;
    }

    /// Appends outcomes for the pushes that match, one for each. Of several scripts that match,
    /// the one added first goes first.
    pub fn script(&self, matcher: Matcher, outcomes: impl IntoIterator<Item = Scripted>) {
        let mut state = lock(&self.inner.state);
        match state
            .scripts
            .iter_mut()
            .find(|(known, _)| *known == matcher)
        {
            Some((_, queue)) => queue.extend(outcomes),
            None => state
                .scripts
                .push((matcher, outcomes.into_iter().collect())),
        }
    }

    /// Forgets the outcomes that were not used.
    pub fn clear_scripts(&self) {
        lock(&self.inner.state).scripts.clear();
    }

    /// Outcomes of scripts not used yet.
    pub fn scripted_left(&self) -> usize {
        lock(&self.inner.state)
            .scripts
            .iter()
            .map(|(_, queue)| queue.len())
            .sum()
    }

    /// The counters now.
    pub fn stats(&self) -> LokiStats {
        lock(&self.inner.state).stats()
    }

    /// Waits until the counters satisfy a condition, at most `time`; false when they did not.
    pub fn wait_until(&self, time: Duration, met: impl Fn(&LokiStats) -> bool) -> bool {
        let state = lock(&self.inner.state);
        let wait = self
            .inner
            .changed
            .wait_timeout_while(state, time, |state| !met(&state.stats()));
        let (state, _) = wait.unwrap_or_else(PoisonError::into_inner);
        met(&state.stats())
    }

    /// The newest requests, oldest first.
    pub fn requests(&self) -> Vec<RequestRecord> {
        lock(&self.inner.state).requests.iter().cloned().collect()
    }

    /// Canonical label strings of a tenant's streams, sorted.
    pub fn streams(&self, tenant: &str) -> Vec<String> {
        let state = lock(&self.inner.state);
        let tenant = state.store.find(tenant);
        tenant
            .map(|tenant| tenant.streams.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// The distinct entries of a stream in the order they first arrived; `labels` is the
    /// canonical string, e.g. `{app="web", job="x"}`. Empty for an unknown stream, and when
    /// storage only counts.
    pub fn entries(&self, tenant: &str, labels: &str) -> Vec<StoredEntry> {
        let state = lock(&self.inner.state);
        let stream = state
            .store
            .find(tenant)
            .and_then(|tenant| tenant.streams.get(labels));
        stream
            .map(|stream| stream.entries.clone())
            .unwrap_or_default()
    }

    /// Entries accepted for a stream, repeats included; known when storage only counts, too.
    pub fn copies(&self, tenant: &str, labels: &str) -> u64 {
        let state = lock(&self.inner.state);
        let stream = state
            .store
            .find(tenant)
            .and_then(|tenant| tenant.streams.get(labels));
        stream.map_or(0, |stream| stream.copies)
    }
}

impl fmt::Debug for FakeLoki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeLoki")
            .field("addr", &self.addr())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
