//! Whether what waits moves: looked at once a second, told to the health registry.
//!
//! Exporters say themselves for how long nothing was accepted. Receivers are judged by their
//! metrics: errors that go on, and records under way of which none is settled.

use std::sync::Arc;
use std::time::Duration;

use tailwater_pipeline::DropReason;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::lanes::Lane;
use tailwater_telemetry::health::{ComponentHealth, HealthRegistry, State, Watch};
use tailwater_telemetry::metrics::{Accounting, FilesMetrics, LagMetrics};

/// Something that had work for so long while nothing of it was done is not healthy.
pub const STALLED_AFTER: Duration = Duration::from_secs(20);
/// Records may wait in a batch for a while; longer than this nothing that works keeps them.
const UNSETTLED_AFTER: Duration = Duration::from_secs(180);
/// Reading is tried again more often than this, so errors further apart have nothing in common.
const ERRORS_APART: Duration = Duration::from_secs(10);
/// The name of the alarm.
const STALLED: &str = "stalled";

/// Adds a component to the report that is judged from outside of it.
pub fn watched(health: &HealthRegistry, kind: &str, id: &str, now: Mono) -> Arc<ComponentHealth> {
    let component = health.component(kind, id, Watch::outside(0), now.0);
    component.set(State::Ok, now.0);
    component
}

/// Raises or clears the alarm of an exporter that got nothing accepted for `stalled`.
pub fn judge_exporter(health: &ComponentHealth, stalled: Duration, now: Mono) {
    if stalled >= STALLED_AFTER {
        // The report adds for how long it has been so.
        let since = now.0.saturating_sub(nanoseconds(stalled));
        health.raise(STALLED, "nothing was accepted", since);
    } else {
        health.clear(STALLED);
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What is watched of one receiver.
pub struct ReceiverWatch {
    health: Arc<ComponentHealth>,
    account: Arc<Accounting>,
    files: Arc<FilesMetrics>,
    lag: Arc<LagMetrics>,
    /// Records that were settled at the last look, and since when it is so.
    settled: u64,
    settled_at: Mono,
    errors: u64,
    /// The first and the newest of errors that follow each other.
    erring: Option<(Mono, Mono)>,
}

impl ReceiverWatch {
    /// A watch over a lane of receiver `id`.
    pub fn new(id: &str, lane: &Lane, health: &HealthRegistry, now: Mono) -> ReceiverWatch {
        let metrics = &*lane.metrics;
        let files = FilesMetrics::new(metrics, id);
        ReceiverWatch {
            health: watched(health, "receiver", &lane.name(id), now),
            account: Accounting::new(metrics, "receiver", id, DropReason::NAMES),
            errors: files.file_errors.get(),
            files,
            lag: LagMetrics::new(metrics, id, "all"),
            settled: 0,
            settled_at: now,
            erring: None,
        }
    }

    /// Looks, and raises or clears the alarm.
    pub fn look(&mut self, now: Mono) {
        let account = self.account.snapshot();
        let settled = account.read.records - account.in_flight.records;
        if settled != self.settled || account.is_settled() {
            (self.settled, self.settled_at) = (settled, now);
        }
        let errors = self.files.file_errors.get();
        if std::mem::replace(&mut self.errors, errors) != errors {
            let first = self.erring.map_or(now, |(first, _)| first);
            self.erring = Some((first, now));
        }
        self.erring = self
            .erring
            .filter(|(_, newest)| now.since(*newest) <= ERRORS_APART);
        match self.reason(account.in_flight.records, now) {
            Some((text, since)) => self.health.raise(STALLED, text, since.0),
            None => self.health.clear(STALLED),
        }
    }

    /// Why it makes no progress, and since when; the report adds for how long.
    fn reason(&self, in_flight: u64, now: Mono) -> Option<(String, Mono)> {
        // Files that vanish before they are opened are errors, too, but nothing of them waits.
        let waits = self.lag.lag_seconds.get() >= STALLED_AFTER.as_secs_f64();
        if let Some((first, newest)) = self.erring
            && newest.since(first) >= STALLED_AFTER
            && waits
        {
            let text = "files, which the log names, cannot be read".to_owned();
            return Some((text, first));
        }
        (now.since(self.settled_at) >= UNSETTLED_AFTER).then(|| {
            let text = format!("none of {in_flight} records under way was settled");
            (text, self.settled_at)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_pdata::Signal;
    use tailwater_pipeline::Budget;
    use tailwater_telemetry::metrics::{Amount, MetricsRegistry, Settlement};

    fn at(seconds: u64) -> Mono {
        Mono(0).after(Duration::from_secs(seconds))
    }

    struct Rig {
        metrics: Arc<MetricsRegistry>,
        health: HealthRegistry,
        watch: ReceiverWatch,
    }

    impl Rig {
        fn new() -> Rig {
            let (metrics, health) = (Arc::<MetricsRegistry>::default(), HealthRegistry::new());
            health.pipelines_up(0, 0);
            let lane = Lane {
                exporter: "loki".into(),
                metrics: metrics.clone(),
                budget: Budget::new(1),
                alone: true,
                signals: vec![Signal::Logs],
            };
            let watch = ReceiverWatch::new("filelog", &lane, &health, at(0));
            Rig {
                metrics,
                health,
                watch,
            }
        }

        /// Looks every second up to `until`; the seconds at which a reason was shown.
        fn seconds_stalled(&mut self, until: u64, mut each: impl FnMut(&Rig, u64)) -> Vec<u64> {
            let mut shown = Vec::new();
            for second in 1..=until {
                each(self, second);
                self.watch.look(at(second));
                if !self.health.report(at(second).0).ready {
                    shown.push(second);
                }
            }
            shown
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_shows_within_thirty_seconds_and_until_it_can() {
        let mut rig = Rig::new();
        let files = FilesMetrics::new(&rig.metrics, "filelog");
        let shown = rig.seconds_stalled(40, |_, _| files.file_errors.inc());
        assert!(shown.is_empty(), "nothing waits behind these errors");
        let mut rig = Rig::new();
        let files = FilesMetrics::new(&rig.metrics, "filelog");
        let lag = LagMetrics::new(&rig.metrics, "filelog", "all");
        let shown = rig.seconds_stalled(100, |_, second| {
            lag.lag_seconds.set(second as f64);
            // As reading is tried: ever more rarely, up to every 6.4 s.
            if second <= 60 && second % 6 == 0 {
                files.file_errors.inc();
            }
        });
        assert_eq!(shown.first(), Some(&30), "{shown:?}");
        assert_eq!(shown.last(), Some(&70), "{shown:?}");
        let text = rig.seconds_stalled(40, |_, second| {
            if second % 20 == 0 {
                files.file_errors.inc();
            }
        });
        assert!(text.is_empty(), "errors now and then are not a stuck file");
    }

    #[test]
    fn records_that_nobody_settles_show_and_waiting_in_a_batch_does_not() {
        let mut rig = Rig::new();
        let account = rig.watch.account.clone();
        account.read(Amount::new(10, 100));
        let shown = rig.seconds_stalled(200, |_, _| {});
        assert_eq!(shown.first(), Some(&UNSETTLED_AFTER.as_secs()));
        let settled = Settlement {
            batch: Amount::new(5, 50),
            filtered_by: &[],
            filtered: 0,
            dropped: &[],
        };
        account.settled(settled);
        rig.watch.look(at(201));
        assert!(rig.health.report(at(201).0).ready, "some was settled");
        account.settled(settled);
        rig.watch.look(at(202));
        rig.watch.look(at(900));
        assert!(rig.health.report(at(900).0).ready, "nothing waits");
    }

    #[test]
    fn an_exporter_shows_after_its_time_and_until_something_is_accepted() {
        let health = HealthRegistry::new();
        health.pipelines_up(0, 0);
        let loki = watched(&health, "exporter", "loki", at(0));
        for (stalled, ready) in [(0, true), (19, true), (20, false), (90, false), (1, true)] {
            judge_exporter(&loki, Duration::from_secs(stalled), at(100));
            let report = health.report(at(100).0);
            assert_eq!((report.ready, report.live), (ready, true), "{stalled} s");
            if stalled == 20 {
                let said = report.reasons[0].to_string();
                let want = "exporter \"loki\": stalled: nothing was accepted for 20 s";
                assert_eq!(said, want, "how long is said once, and from its beginning");
            }
        }
    }
}
