//! Scenario: a turn of a shard's thread does not end. Guarantee: the health report says that a
//! restart would help, until the turn ends after all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::{EngineMetrics, MetricsRegistry};

use crate::clock::{Clock, SimClock};
use crate::component::{Progress, Source, SourceCx};
use crate::shard::ShardThread;

/// Says that a turn began and ends it when it is told to.
struct Stuck {
    begun: Sender<()>,
    end: Receiver<()>,
}

impl Source for Stuck {
    fn poll(&mut self, _cx: &mut dyn SourceCx) -> Progress {
        let _ = self.begun.send(());
        let _ = self.end.recv();
        Progress::Idle(None)
    }

    fn drain(&mut self, _cx: &mut dyn SourceCx) -> bool {
        true
    }
}

#[test]
fn a_turn_that_does_not_end_asks_for_a_restart() {
    let clock = Arc::new(SimClock::default());
    let health = HealthRegistry::new();
    let engine = EngineMetrics::new(&MetricsRegistry::default());
    let shard = ShardThread::spawn(0, clock.clone(), engine, &health).unwrap();
    let (begun, has_begun) = bounded(1);
    let (end, may_end) = bounded(1);
    let source = Box::new(Stuck {
        begun,
        end: may_end,
    });
    shard.run(Box::new(|s| {
        s.add_source("stuck".into(), source, Vec::new())
    }));
    has_begun.recv_timeout(Duration::from_secs(20)).unwrap();
    let live = || health.report(clock.now().0).live;
    clock.advance(Duration::from_secs(59));
    assert!(live());
    clock.advance(Duration::from_secs(2));
    assert!(!live());
    end.send(()).unwrap();
    let begin = Instant::now();
    while !live() && begin.elapsed() < Duration::from_secs(20) {
        std::thread::yield_now();
    }
    assert!(live(), "the turn is over");
    shard.stop();
}
