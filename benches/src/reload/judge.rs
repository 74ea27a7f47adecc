//! What arrives, by whatever protocol, against what was written.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tailwater_testkit::entry::EntryHook;
use tailwater_testkit::loki::behaviour::LokiBehaviour;
use tailwater_testkit::loki::store::StoreMode;
use tailwater_testkit::loki::{FakeLoki, LokiOptions};
use tailwater_testkit::oracle::{DeliveryOracle, Totals};
use tailwater_testkit::otlp::OtlpStandIn;

/// Requests by OTLP that are remembered; nobody asks for them.
const REQUESTS_KEPT_MAX: usize = 16;

/// When something arrived.
#[derive(Default)]
struct Arrivals {
    last: Option<Instant>,
    longest: Duration,
}

/// The sinks, and the oracle behind them.
pub struct Judge {
    /// Told by the writers.
    pub oracle: DeliveryOracle,
    arrivals: Arc<Mutex<Arrivals>>,
    loki: FakeLoki,
    otlp: OtlpStandIn,
}

impl Judge {
    /// Sinks that take everything, on free ports of the loopback interface.
    ///
    /// # Errors
    /// If they cannot listen.
    pub fn start() -> Result<Judge> {
        let oracle = DeliveryOracle::new();
        let arrivals: Arc<Mutex<Arrivals>> = Arc::default();
        let hook: EntryHook = {
            let (oracle, arrivals) = (oracle.clone(), arrivals.clone());
            Arc::new(move |entry| {
                oracle.observe(entry);
                let now = Instant::now();
                let mut arrivals = lock(&arrivals);
                if let Some(last) = arrivals.last.replace(now) {
                    arrivals.longest = arrivals.longest.max(now.saturating_duration_since(last));
                }
            })
        };
        let loki = FakeLoki::start(LokiOptions {
            behaviour: LokiBehaviour::permissive(),
            store: StoreMode::CountOnly,
            on_entry: Some(hook.clone()),
            requests_kept_max: 0,
            ..LokiOptions::default()
        })?;
        let otlp = OtlpStandIn::start(Some(hook))?;
        otlp.keep_requests(REQUESTS_KEPT_MAX);
        Ok(Judge {
            oracle,
            arrivals,
            loki,
            otlp,
        })
    }

    /// Where Loki's push endpoint is.
    pub fn loki(&self) -> SocketAddr {
        self.loki.addr()
    }

    /// Where OTLP over HTTP is taken.
    pub fn otlp(&self) -> SocketAddr {
        self.otlp.http_addr()
    }

    /// The longest time without an arrival since this was asked last, the one that goes on included.
    pub fn take_gap(&self) -> Duration {
        let mut arrivals = lock(&self.arrivals);
        let open = arrivals.last.map_or(Duration::ZERO, |last| last.elapsed());
        std::mem::take(&mut arrivals.longest).max(open)
    }

    /// Different lines that have arrived.
    pub fn delivered(&self) -> u64 {
        self.oracle.progress().iter().map(|p| p.delivered).sum()
    }

    /// What was lost and what came twice so far.
    pub fn totals(&self) -> Totals {
        self.oracle.report().totals
    }
}

/// Nothing panics while it holds the lock.
fn lock(arrivals: &Mutex<Arrivals>) -> MutexGuard<'_, Arrivals> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}
