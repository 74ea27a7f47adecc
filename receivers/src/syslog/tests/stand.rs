//! A running receiver with one shard, and what comes out of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailwater_config::{Errors, KeyPath, parse};
use tailwater_pdata::Signal;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::handover::Outlet;
use tailwater_pipeline::listeners::Listeners;
use tailwater_pipeline::shard::{Chain, ShardThread};
use tailwater_pipeline::{Admission, Batch, DropReason, Exporter, Outcome, Part, ReceiverNode};
use tailwater_telemetry::metrics::{Accounting, EngineMetrics, MetricsRegistry, Snapshot};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};

use crate::syslog::{SyslogNode, SyslogSettings};
use crate::testing;

/// A bound on everything that must not hang.
pub const LONG: Duration = Duration::from_secs(60);

/// What a destination does, and what it has.
#[derive(Clone)]
pub struct Destination(Arc<Mutex<State>>);

struct State {
    outcome: Option<Outcome>,
    admission: Admission,
    kept: Vec<Part>,
    /// What was delivered.
    delivered: Vec<String>,
    /// Records that came, also those that did not stay.
    offered: usize,
}

impl Destination {
    /// Everything that comes, and what was kept, has this fate; `None` = it is kept.
    pub fn set(&self, outcome: Option<Outcome>) {
        let mut state = self.0.lock().unwrap();
        state.outcome = outcome;
        let kept = match outcome {
            Some(_) => std::mem::take(&mut state.kept),
            None => Vec::new(),
        };
        drop(state);
        kept.into_iter().for_each(|part| self.settle(part));
    }

    fn settle(&self, part: Part) {
        let mut state = self.0.lock().unwrap();
        let Some(outcome) = state.outcome else {
            return state.kept.push(part);
        };
        if outcome == Outcome::Delivered {
            let Part { data, ack, .. } = part;
            for logs in data.into_logs() {
                state
                    .delivered
                    .extend((0..logs.rows()).map(|row| testing::text(&logs, row)));
            }
            drop(state);
            return ack.resolve(outcome);
        }
        drop(state);
        part.ack.resolve(outcome);
    }

    /// How much is taken from now on.
    pub fn admit(&self, admission: Admission) {
        self.0.lock().unwrap().admission = admission;
    }

    /// What was delivered: bodies, and attributes behind them.
    pub fn delivered(&self) -> Vec<String> {
        self.0.lock().unwrap().delivered.clone()
    }

    /// How many records were delivered.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().delivered.len()
    }

    /// Records that came.
    pub fn offered(&self) -> usize {
        self.0.lock().unwrap().offered
    }
}

impl Exporter for Destination {
    fn export(&mut self, batch: Batch, _now: Mono) {
        self.0.lock().unwrap().offered += batch.items();
        batch.parts.into_iter().for_each(|part| self.settle(part));
    }

    fn admission(&self) -> Admission {
        self.0.lock().unwrap().admission
    }
}

/// A running receiver.
pub struct Stand {
    // Fields are dropped in this order: as in the agent, shards end before nodes.
    shard: Option<ShardThread>,
    nodes: Vec<SyslogNode>,
    /// What is behind each lane.
    pub destinations: Vec<Destination>,
    metrics: Arc<MetricsRegistry>,
    accounts: Vec<Arc<Accounting>>,
}

/// Decodes the options of a receiver; problems are a text.
pub fn settings(yaml: &str) -> Result<SyslogSettings, String> {
    let node = parse(yaml, "test.yaml").unwrap();
    let mut errors = Errors::new();
    let settings = SyslogSettings::decode(&node, &KeyPath::from("receivers::syslog"), &mut errors);
    settings.ok_or_else(|| errors.to_string())
}

impl Stand {
    /// A receiver with these options that delivers everything.
    pub fn new(yaml: &str) -> Stand {
        Stand::with_lanes(yaml, &["one"], &Arc::default())
    }

    /// A receiver that reaches several exporters and shares sockets with others.
    pub fn with_lanes(yaml: &str, exporters: &[&str], listeners: &Arc<Listeners>) -> Stand {
        let metrics = Arc::new(MetricsRegistry::default());
        let cx = NodeCx {
            listeners: listeners.clone(),
            ..testing::context("syslog", &metrics)
        };
        let lanes = testing::lanes(&cx, exporters, &[Signal::Logs]);
        let settings = settings(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
        let mut nodes = settings.nodes(&cx, &lanes).unwrap();
        let engine = EngineMetrics::new(&metrics);
        let shard = ShardThread::spawn(0, cx.clock.clone(), engine, &cx.health).unwrap();
        let (mut destinations, mut accounts) = (Vec::new(), Vec::new());
        for (node, lane) in nodes.iter_mut().zip(&lanes) {
            let account =
                |kind, id: &str| Accounting::new(&lane.metrics, kind, id, DropReason::NAMES);
            let destination = Destination(Arc::new(Mutex::new(State {
                outcome: Some(Outcome::Delivered),
                admission: Admission::Open,
                kept: Vec::new(),
                delivered: Vec::new(),
                offered: 0,
            })));
            let outlet = Outlet {
                key: lane.exporter.clone(),
                exporter: Box::new(destination.clone()),
                signal: Signal::Logs,
                account: account("exporter", &lane.exporter),
                gate: None,
            };
            let chain = Chain {
                id: lane.exporter.clone(),
                pipeline: "logs".into(),
                signal: Signal::Logs,
                processors: Vec::new(),
                exporters: vec![lane.exporter.clone()],
            };
            let source = node.source(shard.handle());
            let id = lane.exporter.clone();
            shard.run(Box::new(move |s| {
                s.add_exporter(outlet);
                s.add_chain(chain);
                s.add_source(id.clone(), source, vec![id]);
            }));
            destinations.push(destination);
            accounts.push(account("receiver", "syslog"));
        }
        for node in &mut nodes {
            node.acquire().unwrap();
        }
        for node in &mut nodes {
            node.start().unwrap();
        }
        Stand {
            shard: Some(shard),
            nodes,
            destinations,
            metrics,
            accounts,
        }
    }

    /// The only destination.
    pub fn destination(&self) -> &Destination {
        &self.destinations[0]
    }

    /// What the only destination has.
    pub fn delivered(&self) -> Vec<String> {
        self.destination().delivered()
    }

    /// The port of TCP.
    pub fn tcp(&self) -> u16 {
        self.nodes[0].ports()[0].expect("it listens")
    }

    /// The port of UDP.
    pub fn udp(&self) -> u16 {
        self.nodes[0].ports()[1].expect("it listens")
    }

    /// A connection.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.tcp())).await.unwrap()
    }

    /// Sends all of `bytes` over a connection of its own, which is closed.
    pub async fn send(&self, bytes: &[u8]) {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
    }

    /// A socket that sends datagrams to the receiver.
    pub async fn sender(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(("127.0.0.1", self.udp())).await.unwrap();
        socket
    }

    /// The account of a lane, which adds up.
    pub fn account(&self, lane: usize) -> Snapshot {
        let snapshot = self.accounts[lane].snapshot();
        snapshot.check().unwrap();
        snapshot
    }

    /// Records that a lane dropped for lack of room.
    pub fn no_room(&self, lane: usize) -> u64 {
        let dropped = self.account(lane).dropped;
        let reason = |(name, _): &&(&str, _)| *name == "no_room";
        dropped.iter().find(reason).map_or(0, |(_, a)| a.records)
    }

    /// The sum of a metric over series with this text in their labels.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.metrics.render();
        let is_it = |l: &&str| l.starts_with(&format!("{name}{{")) && l.contains(labels);
        let value = |l: &str| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        text.lines().filter(is_it).map(value).sum()
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Stand) -> bool) {
        let waiting = async {
            while !holds(self) {
                std::thread::yield_now();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let met = tokio::time::timeout(LONG, waiting).await;
        let mut delivered = self.delivered();
        delivered.truncate(5);
        let account = self.account(0);
        assert!(met.is_ok(), "{what}: {delivered:#?}\n{account:?}");
    }

    /// Waits until so many records are delivered, and nothing is under way.
    pub async fn until_delivered(&self, records: usize) {
        self.until("delivered", |s| {
            s.account(0).is_settled() && s.destination().count() == records
        })
        .await;
    }

    /// Stops taking in, as the agent does, and drains the shard.
    pub async fn stop(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.stop());
        self.shard.as_ref().unwrap().drain();
        self.until("drained", |s| s.shard.as_ref().unwrap().is_drained())
            .await;
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.stop());
        if let Some(shard) = self.shard.take() {
            shard.stop();
        }
    }
}
