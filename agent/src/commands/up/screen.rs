//! The live line of `up`, on a terminal.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_control_plane::builder::RECEIVERS;
use tailwater_control_plane::metrics::Metrics;
use tailwater_control_plane::model::Origin;
use tailwater_pipeline::DropReason;
use tailwater_telemetry::metrics::{Accounting, MetricsRegistry};

/// How often it is written.
const INTERVAL: Duration = Duration::from_millis(250);

/// See the module's documentation. Elsewhere there is nothing but the log.
pub struct Screen {
    terminal: bool,
    accounts: Vec<Arc<Accounting>>,
    metrics: Metrics,
    last: Instant,
    records: u64,
}

impl Screen {
    /// Shows what is counted here.
    pub fn new(registry: &Arc<MetricsRegistry>, metrics: &Metrics) -> Screen {
        let account = |id| Accounting::new(registry, "receiver", id, DropReason::NAMES);
        Screen {
            terminal: std::io::stdout().is_terminal(),
            accounts: RECEIVERS.map(account).into(),
            metrics: metrics.clone(),
            last: Instant::now(),
            records: 0,
        }
    }

    /// How often it wants to be shown.
    pub fn interval(&self) -> Option<Duration> {
        self.terminal.then_some(INTERVAL)
    }

    /// Writes the line, if it is time.
    pub fn show(&mut self) {
        let now = Instant::now();
        let seconds = now.duration_since(self.last).as_secs_f64();
        if !self.terminal || seconds < INTERVAL.as_secs_f64() {
            return;
        }
        let counts = Origin::ALL.map(|origin| self.metrics.sources(origin));
        let counts = || counts.iter().flatten();
        let tailed: i64 = counts().map(|c| c.live.get() + c.starting.get()).sum();
        let draining: i64 = counts().map(|c| c.draining.get()).sum();
        let bad: i64 = counts().map(|c| c.quarantined.get()).sum();
        let all: Vec<_> = self.accounts.iter().map(|a| a.snapshot()).collect();
        let delivered: u64 = all.iter().map(|s| s.delivered.records).sum();
        let in_flight: u64 = all.iter().map(|s| s.in_flight.records).sum();
        let rate = delivered.saturating_sub(self.records) as f64 / seconds;
        let bad = match bad {
            0 => String::new(),
            n => format!("  left out {n}"),
        };
        // The live line is for whoever looks; the agent goes on without them.
        let mut out = std::io::stdout();
        let _ = write!(
            out,
            "\r{tailed:>5} sources  {draining:>4} ending{bad}  {rate:>9.0} lines/s  \
             in flight {in_flight:>7}  delivered {delivered:>10} "
        );
        let _ = out.flush();
        (self.last, self.records) = (now, delivered);
    }

    /// Ends the line.
    pub fn end(&self) {
        if self.terminal {
            let _ = writeln!(std::io::stdout());
        }
    }
}
