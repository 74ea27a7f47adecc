//! Detectors, and what they have found so far.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tailwater_pdata::Map;
use tailwater_pipeline::clock::Mono;
use tailwater_telemetry::metrics::ResourceDetectionMetrics;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::config::{ResourceDetectionConfig, Retry};

/// An attempt to detect. What it says if it fails is for a person.
pub(super) type Detected<'d> = Pin<Box<dyn Future<Output = Result<Map, String>> + Send + 'd>>;

/// Finds attributes.
pub(super) trait Detector: Send + Sync {
    /// Its name in a configuration.
    fn name(&self) -> &'static str;

    /// One attempt. It may be dropped before it is through.
    fn detect(&self) -> Detected<'_>;
}

/// What all instances of a processor have in common.
pub(super) struct Detection {
    state: Arc<State>,
    detectors: Vec<Arc<dyn Detector>>,
    how: How,
    waits: Duration,
    seed: u64,
    /// Nobody starts it: as if there were nothing to be found.
    runs: bool,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// How attempts are made.
#[derive(Clone)]
struct How {
    timeout: Duration,
    refresh: Duration,
    fail_on_missing: bool,
    retry: Retry,
    only: Vec<String>,
}

struct State {
    found: Mutex<Found>,
    /// Goes up with each change of what was found.
    number: AtomicU64,
    /// Data passes.
    open: AtomicBool,
    meters: Arc<ResourceDetectionMetrics>,
}

#[derive(Default)]
struct Found {
    /// Of each detector.
    by_detector: Vec<Outcome>,
    merged: Arc<Map>,
    /// Until when data waits at most; once it is started.
    until: Option<Mono>,
}

/// What a detector has come to.
#[derive(Clone, Default)]
enum Outcome {
    /// Nothing yet.
    #[default]
    Pending,
    /// It failed, and will not be asked again soon.
    Failed,
    /// It has succeeded; maybe not the last time.
    Found(Map),
}

impl State {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, detector: usize, outcome: Outcome, only: &[String]) {
        let mut found = self.found();
        found.by_detector[detector] = outcome;
        let mut merged = Map::new();
        for outcome in &found.by_detector {
            if let Outcome::Found(map) = outcome {
                super::merge(map, false, &mut merged);
            }
        }
        if !only.is_empty() {
            merged.retain(|key, _| only.iter().any(|name| **name == **key));
        }
        if merged != *found.merged {
            let count = i64::try_from(merged.len()).unwrap_or(i64::MAX);
            self.meters.attributes.set(count);
            tracing::info!(resource = ?merged, "detected resource information");
            found.merged = Arc::new(merged);
            self.number.fetch_add(1, Ordering::Release);
        }
        let settled = |o: &Outcome| !matches!(o, Outcome::Pending);
        if found.by_detector.iter().all(settled) {
            self.open.store(true, Ordering::Release);
        }
    }
}

impl Detection {
    pub fn new(
        config: &ResourceDetectionConfig,
        detectors: Vec<Arc<dyn Detector>>,
        seed: u64,
        meters: Arc<ResourceDetectionMetrics>,
        runs: bool,
    ) -> Detection {
        let found = Found {
            by_detector: vec![Outcome::Pending; detectors.len()],
            ..Found::default()
        };
        Detection {
            state: Arc::new(State {
                found: Mutex::new(found),
                number: AtomicU64::new(0),
                open: AtomicBool::new(false),
                meters,
            }),
            detectors,
            how: How {
                timeout: config.timeout,
                refresh: config.refresh_interval,
                fail_on_missing: config.fail_on_missing,
                retry: config.retry.clone(),
                only: config.only.clone(),
            },
            waits: config.waits(),
            seed,
            runs,
            tasks: Mutex::default(),
        }
    }

    /// Begins to detect, unless that was begun.
    pub fn start(&self, runtime: &Handle, now: Mono) {
        if !self.runs || self.state.found().until.is_some() {
            return;
        }
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if !tasks.is_empty() {
            return;
        }
        self.state.found().until = Some(now.after(self.waits));
        for (i, detector) in self.detectors.iter().enumerate() {
            let (state, how) = (self.state.clone(), self.how.clone());
            let seed = self.seed.wrapping_add(i as u64);
            let task = keep_detecting(detector.clone(), i, state, how, seed);
            tasks.push(runtime.spawn(task).abort_handle());
        }
    }

    /// Whether data passes at `now`.
    pub fn is_open(&self, now: Mono) -> bool {
        if !self.runs || self.state.open.load(Ordering::Acquire) {
            return true;
        }
        if self.how.fail_on_missing {
            return false;
        }
        let over = self.state.found().until.is_some_and(|until| until <= now);
        // Once for all instances: none that is built later waits again.
        if over && !self.state.open.swap(true, Ordering::AcqRel) {
            let found = self.state.found();
            let pending = found.by_detector.iter().zip(&self.detectors);
            let pending = pending.filter(|(o, _)| matches!(o, Outcome::Pending));
            let late: Vec<&str> = pending.map(|(_, detector)| detector.name()).collect();
            tracing::warn!(
                detectors = late.join(", "),
                "resource detection takes too long: data passes without what they find until they do"
            );
        }
        over
    }

    /// Changes with what was found.
    pub fn number(&self) -> u64 {
        self.state.number.load(Ordering::Acquire)
    }

    /// What was found, and its number.
    pub fn found(&self) -> (u64, Arc<Map>) {
        let found = self.state.found();
        (self.number(), found.merged.clone())
    }
}

impl Drop for Detection {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn keep_detecting(
    detector: Arc<dyn Detector>,
    i: usize,
    state: Arc<State>,
    how: How,
    mut seed: u64,
) {
    loop {
        let mut pause = how.retry.initial_interval;
        loop {
            match attempt(&*detector, how.timeout).await {
                Ok(map) => {
                    state.set(i, Outcome::Found(map), &how.only);
                    break;
                }
                Err(error) => {
                    state.meters.failures.inc();
                    tracing::warn!(
                        detector = detector.name(),
                        error,
                        "failed to detect resource"
                    );
                }
            }
            if !how.retry.enabled {
                let known = matches!(state.found().by_detector[i], Outcome::Found(_));
                if !known {
                    state.set(i, Outcome::Failed, &how.only);
                }
                break;
            }
            tokio::time::sleep(spread(pause, how.retry.randomization_factor, &mut seed)).await;
            pause = pause
                .mul_f64(how.retry.multiplier)
                .min(how.retry.max_interval);
        }
        if how.refresh.is_zero() {
            return;
        }
        tokio::time::sleep(how.refresh).await;
    }
}

async fn attempt(detector: &dyn Detector, timeout: Duration) -> Result<Map, String> {
    if timeout.is_zero() {
        return detector.detect().await;
    }
    let attempt = tokio::time::timeout(timeout, detector.detect()).await;
    attempt.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
}

/// A pause that is up to `factor` shorter or longer.
fn spread(pause: Duration, factor: f64, seed: &mut u64) -> Duration {
    // xorshift64*; a seed of zero would stay zero.
    let mut x = (*seed).max(1);
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *seed = x;
    let share = (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64;
    pause.mul_f64(1.0 + factor * (2.0 * share - 1.0))
}
