//! Chains behind connectors, turn by turn on a clock of the test.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tailwater_pdata::otlp::{Count, CountMetric, count_request};
use tailwater_pdata::{LogsBatch, Map, Signal};
use tailwater_telemetry::metrics::{Accounting, MetricsRegistry};

use super::*;
use crate::ack::{AckSink, AckToken, Counts, DropReason, Outcome};
use crate::batch::{LogsPart, Part};
use crate::budget::Permit;
use crate::clock::SimClock;
use crate::component::{
    Admission, Connector, Exporter, Output, Processor, Progress, Source, SourceCx, Ways,
};

/// What the parts of a test share.
#[derive(Default)]
struct World {
    /// Numbers of items that the source is to emit.
    given: Mutex<Vec<u32>>,
    /// What the exporter got.
    arrived: Mutex<Vec<Part>>,
    /// What became of items, in order.
    settled: Mutex<Vec<(u64, Outcome)>>,
    /// What the source was told at its last turn: how much is taken, and whether it is refused.
    told: Mutex<(Admission, bool)>,
    /// What the exporter, and the processor `keep`, say.
    says: Mutex<(Admission, Admission, bool)>,
}

impl AckSink for World {
    fn settled(&self, key: u64, outcome: Outcome, _: &Counts) {
        self.settled.lock().unwrap().push((key, outcome));
    }
}

struct Giver(Arc<World>);

impl Giver {
    fn emit(&self, cx: &mut dyn SourceCx) {
        for n in self.0.given.lock().unwrap().drain(..) {
            // As many records as its number.
            let lines: Vec<(u32, u32)> = (0..n).map(|_| (0, 1)).collect();
            let logs = LogsBatch::from_lines(Bytes::from_static(b"x"), &lines);
            let ack = AckToken::new(self.0.clone(), n.into());
            let permit = Permit::none();
            cx.emit(Batch::of(LogsPart { logs, ack, permit }));
        }
    }
}

impl Source for Giver {
    fn poll(&mut self, cx: &mut dyn SourceCx) -> Progress {
        *self.0.told.lock().unwrap() = (cx.admission(), cx.refuses(Signal::Logs));
        self.emit(cx);
        Progress::Idle(None)
    }

    fn drain(&mut self, cx: &mut dyn SourceCx) -> bool {
        self.emit(cx);
        true
    }
}

/// Keeps everything until it is told to pass it on.
struct Keep(Arc<World>, Vec<Batch>);

impl Processor for Keep {
    fn process(&mut self, batch: Batch, _: &mut dyn Output) {
        self.1.push(batch);
    }
    fn admission(&self) -> Admission {
        self.0.says.lock().unwrap().1
    }
    fn refuses(&self) -> bool {
        self.0.says.lock().unwrap().2
    }
    fn flush(&mut self, out: &mut dyn Output) {
        self.1.drain(..).for_each(|b| out.emit(b));
    }
}

struct End(Arc<World>);

impl Exporter for End {
    fn export(&mut self, batch: Batch, _: Mono) {
        self.0.arrived.lock().unwrap().extend(batch.parts);
    }
    fn admission(&self) -> Admission {
        self.0.says.lock().unwrap().0
    }
}

impl World {
    fn arrived(&self) -> Vec<usize> {
        let arrived = self.arrived.lock().unwrap();
        arrived.iter().map(|p| p.data.items()).collect()
    }

    fn give(&self, shard: &mut Shard, n: u32) {
        self.given.lock().unwrap().push(n);
        shard.woken();
        shard.step();
    }

    /// A chain to the exporter that keeps things or not, and leads on to others or not.
    fn chain(self: &Arc<Self>, id: &str, keeps: Option<bool>, to: &[&str]) -> NextChain {
        let stages = keeps.map(|new| match new {
            false => NextStage::Kept("keep".into()),
            true => NextStage::New(Stage {
                id: "keep".into(),
                processor: Box::new(Keep(self.clone(), Vec::new())),
                incoming: Arc::new(|_| {}),
                outgoing: Arc::new(|_| {}),
            }),
        });
        let way = |chain: &&str| NextWay {
            chain: (*chain).into(),
            produced: Arc::new(|_| {}),
        };
        let link = NextLink {
            connector: "forward".into(),
            consumed: Arc::new(|_| {}),
            ways: to.iter().map(way).collect(),
            by: None,
        };
        NextChain {
            id: id.into(),
            pipeline: id.into(),
            signal: Signal::Logs,
            stages: stages.into_iter().collect(),
            exporter: "end".into(),
            direct: to.is_empty(),
            links: (!to.is_empty()).then_some(link).into_iter().collect(),
        }
    }
}

/// From a source through `a` and `mid`, which keeps what it gets, to `out`; `b` leads to `out` as well.
fn shard() -> (Shard, Arc<World>) {
    let (mut shard, world) = (
        Shard::new(Arc::new(SimClock::default())),
        Arc::new(World::default()),
    );
    let registry = MetricsRegistry::default();
    shard.swap(Swap {
        outlets: vec![Outlet {
            key: "end".into(),
            signal: Signal::Logs,
            exporter: Box::new(End(world.clone())),
            account: Accounting::new(&registry, "exporter", "end", DropReason::NAMES),
            gate: None,
        }],
        chains: vec![
            world.chain("a", None, &["mid"]),
            world.chain("b", None, &["out"]),
            world.chain("mid", Some(true), &["out"]),
            world.chain("out", None, &[]),
        ],
        sources: vec![NewSource {
            id: "giver".into(),
            receiver: "giver".into(),
            source: Box::new(Giver(world.clone())),
            chains: vec!["a".into()],
        }],
        ..Swap::default()
    });
    (shard, world)
}

/// Guarantee: what is kept behind a connector arrives before what goes another way after a change,
/// although the chain that keeps it is the same before and after.
#[test]
fn what_is_kept_behind_a_connector_is_not_overtaken() {
    let (mut shard, world) = shard();
    world.give(&mut shard, 1);
    assert_eq!(world.arrived(), [0; 0]);
    shard.swap(Swap {
        chains: vec![
            world.chain("a", None, &["mid"]),
            world.chain("b", None, &["out"]),
            world.chain("mid", Some(false), &["out"]),
            world.chain("out", None, &[]),
        ],
        feeds: vec![("giver".into(), vec!["b".into()])],
        ..Swap::default()
    });
    world.give(&mut shard, 2);
    assert_eq!(world.arrived(), [1, 2]);
}

/// Guarantee: what a source that goes has behind connectors is passed on at once.
#[test]
fn what_a_source_that_goes_has_behind_connectors_is_passed_on() {
    let (mut shard, world) = shard();
    world.give(&mut shard, 1);
    shard.retire("giver", Arc::default());
    assert_eq!(world.arrived(), [1]);
}

/// Guarantee: what a source that goes passes on while it is drained goes the way that it had, although the
/// chain has another name since.
#[test]
fn a_source_that_goes_finds_its_chain_under_another_name() {
    let (mut shard, world) = shard();
    shard.retire("giver", Arc::default());
    let renamed = |id: &str, to: &[&str]| NextChain {
        id: format!("{id} to end").into(),
        ..world.chain(id, None, to)
    };
    shard.swap(Swap {
        chains: vec![renamed("a", &["out to end"]), renamed("out", &[])],
        ..Swap::default()
    });
    world.give(&mut shard, 3);
    assert_eq!(world.arrived(), [3]);
}

/// Guarantee: an outcome passes through connectors, of several ways the worst when all are known; and a
/// source is told what is behind them.
#[test]
fn outcomes_and_admission_pass_through() {
    let (mut shard, world) = shard();
    shard.swap(Swap {
        chains: vec![
            world.chain("a", None, &["mid", "out"]),
            world.chain("mid", Some(true), &["out"]),
            world.chain("out", None, &[]),
        ],
        feeds: vec![("giver".into(), vec!["a".into()])],
        ..Swap::default()
    });
    world.give(&mut shard, 3);
    let end = |outcome| world.arrived.lock().unwrap().remove(0).ack.resolve(outcome);
    assert_eq!(world.arrived(), [3], "the other way keeps it");
    end(Outcome::Delivered);
    assert_eq!(*world.settled.lock().unwrap(), []);
    shard.flush();
    end(Outcome::Retry);
    assert_eq!(*world.settled.lock().unwrap(), [(3, Outcome::Retry)]);
    let open = Admission::Open;
    for says in [
        (open, open, false),
        (Admission::Closed, open, false),
        (open, Admission::Scarce, false),
        (open, open, true),
    ] {
        *world.says.lock().unwrap() = says;
        shard.woken();
        shard.step();
        assert_eq!(*world.told.lock().unwrap(), (says.0.max(says.1), says.2));
    }
}

/// Passes on one point for each batch, and each record to nobody.
struct Turn;

impl Connector for Turn {
    fn pass(&self, batch: Batch, out: &mut dyn Ways) {
        for part in batch.parts {
            let count = Count {
                attributes: Map::new(),
                count: part.data.items() as u64,
                start_ns: 1,
                end_ns: 1,
            };
            let metric = CountMetric {
                name: "n",
                description: "",
                counts: vec![count],
            };
            let request = count_request("s", [(&Map::new(), vec![metric])]);
            let part = Part {
                data: request.into(),
                ack: part.ack,
                permit: part.permit,
            };
            out.emit(0, Batch { parts: vec![part] });
        }
    }
}

/// Guarantee: what a connector makes of records goes on in chains of its signal, to the half of the exporter
/// that is of that signal; whether there is room there is what a source is told, and the outcome is its.
#[test]
fn a_connector_leads_to_another_signal() {
    let (mut shard, world) = shard();
    let registry = MetricsRegistry::default();
    let mut logs = world.chain("logs", None, &["metrics"]);
    logs.links[0].by = Some(Box::new(Turn));
    let metrics = NextChain {
        signal: Signal::Metrics,
        ..world.chain("metrics", None, &[])
    };
    shard.swap(Swap {
        outlets: vec![Outlet {
            key: "end".into(),
            signal: Signal::Metrics,
            exporter: Box::new(End(world.clone())),
            account: Accounting::new(&registry, "exporter", "end", DropReason::NAMES),
            gate: None,
        }],
        outlets_gone: vec![("end".into(), Signal::Logs)],
        chains: vec![logs, metrics],
        feeds: vec![("giver".into(), vec!["logs".into()])],
        ..Swap::default()
    });
    world.says.lock().unwrap().0 = Admission::Scarce;
    world.give(&mut shard, 3);
    assert_eq!(world.told.lock().unwrap().0, Admission::Scarce);
    let part = world.arrived.lock().unwrap().pop().unwrap();
    assert_eq!(
        (part.data.signal(), part.data.items()),
        (Signal::Metrics, 1)
    );
    assert_eq!(*world.settled.lock().unwrap(), []);
    part.ack.resolve(Outcome::Delivered);
    assert_eq!(*world.settled.lock().unwrap(), [(3, Outcome::Delivered)]);
}
