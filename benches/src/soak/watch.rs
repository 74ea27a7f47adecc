//! Looking at a run once a second: the agent from outside, writers, oracle and sink.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tailwater_testkit::loki::{FakeLoki, LokiStats};
use tailwater_testkit::oracle::{DeliveryOracle, Progress};

use super::load::Load;
use super::sample::Sample;
use crate::process::Process;

/// Between two looks at how far lines have come.
const LOOK: Duration = Duration::from_millis(250);

/// Looks per sample.
const LOOKS: u32 = 4;

/// What is watched.
#[derive(Debug)]
pub struct Watch<'a> {
    /// The agent.
    pub process: &'a Process,
    /// The writers.
    pub load: &'a Load,
    /// Who knows which lines arrived.
    pub oracle: &'a DeliveryOracle,
    /// The sink.
    pub loki: &'a FakeLoki,
}

/// The state between samples.
#[derive(Debug)]
pub struct Watcher {
    begin: Instant,
    next: Instant,
    lags: BTreeMap<u32, Lag>,
}

impl Default for Watcher {
    fn default() -> Self {
        let now = Instant::now();
        Watcher {
            begin: now,
            next: now,
            lags: BTreeMap::new(),
        }
    }
}

impl Watcher {
    /// Waits for the end of the second and says what was seen in it.
    ///
    /// # Errors
    /// If the agent has ended.
    pub fn second(&mut self, on: &Watch<'_>) -> Result<Sample> {
        let (mut lag_lines, mut lag) = (0, Duration::ZERO);
        for _ in 0..LOOKS {
            self.next += LOOK;
            std::thread::sleep(self.next.saturating_duration_since(Instant::now()));
            let now = self.begin.elapsed();
            let progress = on.oracle.progress();
            let behind = progress.iter().map(|p| p.written - p.delivered);
            lag_lines = lag_lines.max(behind.sum::<u64>());
            for p in &progress {
                lag = lag.max(self.lags.entry(p.writer).or_default().look(now, p));
            }
        }
        let usage = on.process.usage()?;
        let descriptors = on.process.descriptors().context("the agent is gone")?;
        let progress = on.oracle.progress();
        let sum = |of: fn(&Progress) -> u64| progress.iter().map(of).sum::<u64>() as f64;
        let (written, bytes) = (sum(|p| p.written), on.load.bytes() as f64);
        let stats = on.loki.stats();
        Ok(Sample {
            seconds: self.begin.elapsed().as_secs_f64(),
            resident_bytes: usage.resident_bytes as f64,
            descriptors: descriptors as f64,
            threads: usage.threads as f64,
            cpu_seconds: usage.cpu_seconds(),
            lines_written: written,
            lines_delivered: sum(|p| p.delivered),
            bytes_written: bytes,
            lag_bytes: lag_lines as f64 * bytes / written.max(1.0),
            lag_seconds: lag.as_secs_f64(),
            requests: stats.pushes as f64,
            requests_failed: failed(&stats) as f64,
        })
    }
}

/// Pushes without a success.
pub fn failed(stats: &LokiStats) -> u64 {
    let answers = stats.push_responses.iter();
    let refused = answers
        .filter(|(status, _)| **status >= 300)
        .map(|(_, n)| n);
    refused.sum::<u64>() + stats.pushes_unanswered
}

/// How long the lines of one writer take: what it had written at each look, until that arrived.
#[derive(Debug, Default)]
struct Lag {
    written: VecDeque<(Duration, u64)>,
    /// The newest look at which nothing was written that has not arrived by now.
    settled: Duration,
}

impl Lag {
    /// The age of the oldest line that has not arrived, at most.
    fn look(&mut self, now: Duration, progress: &Progress) -> Duration {
        self.written.push_back((now, progress.written));
        while let Some((at, written)) = self.written.front().copied()
            && written <= progress.delivered
        {
            self.settled = at;
            self.written.pop_front();
        }
        // The first look that is left may hold a line written right after the one before it.
        match self.written.front() {
            Some(_) => now - self.settled,
            None => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_age_of_the_oldest_line_that_has_not_arrived() {
        let mut lag = Lag::default();
        let mut look = |now, written, delivered| {
            let progress = Progress {
                writer: 1,
                written,
                delivered,
            };
            lag.look(Duration::from_secs(now), &progress).as_secs()
        };
        assert_eq!(look(1, 10, 10), 0);
        assert_eq!(look(2, 20, 10), 1);
        assert_eq!(look(3, 30, 10), 2);
        assert_eq!(look(4, 30, 19), 3);
        assert_eq!(look(5, 30, 20), 3);
        assert_eq!(look(6, 30, 30), 0);
    }
}
