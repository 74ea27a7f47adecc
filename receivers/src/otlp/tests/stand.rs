//! A running receiver with one shard and clients for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tailwater_config::{Errors, KeyPath, parse};
use tailwater_pdata::Signal;
use tailwater_pipeline::auth::Authenticator;
use tailwater_pipeline::checkpoint::CheckpointHandle;
use tailwater_pipeline::client::ClientInfo;
use tailwater_pipeline::clock::{Mono, SystemClock};
use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::handover::Outlet;
use tailwater_pipeline::lanes::Lane;
use tailwater_pipeline::shard::{Chain, ShardThread, Stage};
use tailwater_pipeline::storage::Storages;
use tailwater_pipeline::{
    Admission, Batch, Budget, BuildError, DropReason, Exporter, Outcome, Output, Part, Processor,
    ReceiverNode,
};
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::{Accounting, EngineMetrics, MetricsRegistry, Snapshot};
use tokio::net::TcpStream;

use super::guard::{Doorkeeper, SlowDoor};
use crate::otlp::{OtlpNode, OtlpSettings};

/// A bound on everything that must not hang.
pub const LONG: Duration = Duration::from_secs(20);

/// One log record `a`: resource_logs, scope_logs, log_records, body, string_value.
pub const ONE: &[u8] = b"\x0a\x09\x12\x07\x12\x05\x2a\x03\x0a\x01a";

/// What the destination does.
#[derive(Clone)]
pub struct Destination(Arc<Mutex<State>>, Signal);

struct State {
    outcome: Option<Outcome>,
    admission: Admission,
    /// Nothing of it is taken, whatever of others is.
    closed: Option<Signal>,
    /// A processor in front of it hands everything back.
    refusing: bool,
    kept: Vec<Part>,
    records: usize,
    /// Who sent what came last.
    client: Option<Arc<ClientInfo>>,
}

impl Destination {
    /// Everything that comes, and what was kept, has this fate; `None` = it is kept.
    pub fn set(&self, outcome: Option<Outcome>) {
        let mut state = self.0.lock().unwrap();
        state.outcome = outcome;
        if let Some(outcome) = outcome {
            let kept = std::mem::take(&mut state.kept);
            drop(state);
            kept.into_iter().for_each(|part| part.ack.resolve(outcome));
        }
    }

    /// How much is taken from now on.
    pub fn admit(&self, admission: Admission) {
        self.0.lock().unwrap().admission = admission;
    }

    /// Takes nothing of a signal from now on.
    pub fn close(&self, signal: Signal) {
        self.0.lock().unwrap().closed = Some(signal);
    }

    /// Whether a processor in front of it hands everything back from now on.
    pub fn refuse(&self, refusing: bool) {
        self.0.lock().unwrap().refusing = refusing;
    }

    /// Who sent what came last.
    pub fn client(&self) -> ClientInfo {
        let client = self.0.lock().unwrap().client.clone();
        ClientInfo::clone(&client.expect("something came"))
    }

    /// Records that came.
    pub fn records(&self) -> usize {
        self.0.lock().unwrap().records
    }
}

impl Exporter for Destination {
    fn export(&mut self, batch: Batch, _now: Mono) {
        let mut state = self.0.lock().unwrap();
        state.records += batch.items();
        state.client = batch.parts.first().and_then(|part| part.ack.client());
        match state.outcome {
            None => state.kept.extend(batch.parts),
            Some(outcome) => {
                drop(state);
                batch
                    .parts
                    .into_iter()
                    .for_each(|part| part.ack.resolve(outcome));
            }
        }
    }

    fn admission(&self) -> Admission {
        let state = self.0.lock().unwrap();
        if state.closed == Some(self.1) {
            return Admission::Closed;
        }
        state.admission
    }
}

/// A processor that hands everything back while it is told to.
struct Gate(Arc<Mutex<State>>);

impl Processor for Gate {
    fn process(&mut self, batch: Batch, out: &mut dyn Output) {
        if !self.refuses() {
            return out.emit(batch);
        }
        let parts = batch.parts.into_iter();
        parts.for_each(|part| part.ack.resolve(Outcome::Retry));
    }

    fn admission(&self) -> Admission {
        match self.refuses() {
            true => Admission::Closed,
            false => Admission::Open,
        }
    }

    fn refuses(&self) -> bool {
        self.0.lock().unwrap().refusing
    }
}

struct NoStorages;

impl Storages for NoStorages {
    fn open(&self, _id: Option<&str>) -> Result<CheckpointHandle, BuildError> {
        Err(BuildError::new("test", "the receiver stores nothing"))
    }
}

/// A running receiver.
pub struct Stand {
    // Fields are dropped in this order: as in the agent, shards end before nodes.
    shard: Option<ShardThread>,
    nodes: Vec<OtlpNode>,
    /// What is behind each lane.
    pub destinations: Vec<Destination>,
    /// Metrics.
    pub metrics: Arc<MetricsRegistry>,
    /// What the agent holds.
    pub held: Arc<Budget>,
    accounts: Vec<Arc<Accounting>>,
}

fn context(metrics: &Arc<MetricsRegistry>) -> NodeCx {
    let door = Authenticator {
        server: Some(Arc::new(Doorkeeper::default())),
        client: None,
    };
    let slow = Authenticator {
        server: Some(Arc::new(SlowDoor)),
        client: None,
    };
    NodeCx {
        id: "otlp".into(),
        pipeline: None,
        signal: None,
        shards: 1,
        clock: Arc::new(SystemClock::default()),
        seed: 1,
        budget: Budget::new(1 << 20),
        metrics: metrics.clone(),
        health: Arc::new(HealthRegistry::new()),
        runtime: tokio::runtime::Handle::current(),
        listeners: Default::default(),
        storages: Arc::new(NoStorages),
        agent: None,
        authenticators: [("door".to_owned(), door), ("slow".to_owned(), slow)]
            .into_iter()
            .collect(),
    }
}

/// Decodes the options of a receiver.
pub fn settings(yaml: &str) -> OtlpSettings {
    let node = parse(yaml, "test.yaml").unwrap();
    let mut errors = Errors::new();
    let settings = OtlpSettings::decode(&node, &KeyPath::from("receivers::otlp"), &mut errors);
    settings.unwrap_or_else(|| panic!("{yaml}: {errors}"))
}

/// Both protocols at free ports; `more` is added to the options of the receiver.
pub fn both(more: &str) -> String {
    format!(
        "{{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}, http: {{endpoint: '127.0.0.1:0'}}}}{more}}}"
    )
}

impl Stand {
    /// A receiver with these options that delivers everything.
    pub fn new(yaml: &str) -> Stand {
        Stand::with_lanes(yaml, &["one"])
    }

    /// A receiver that reaches several exporters.
    pub fn with_lanes(yaml: &str, exporters: &[&str]) -> Stand {
        Stand::try_new(yaml, exporters).unwrap_or_else(|e| panic!("{e}"))
    }

    /// As [`Stand::with_lanes`], or why it does not start.
    pub fn try_new(yaml: &str, exporters: &[&str]) -> Result<Stand, BuildError> {
        Stand::start(yaml, exporters, &[Signal::Logs])
    }

    /// A receiver with one exporter that pipelines of these signals lead to.
    pub fn with_signals(yaml: &str, signals: &[Signal]) -> Stand {
        Stand::start(yaml, &["one"], signals).unwrap_or_else(|e| panic!("{e}"))
    }

    fn start(yaml: &str, exporters: &[&str], signals: &[Signal]) -> Result<Stand, BuildError> {
        let metrics = Arc::new(MetricsRegistry::default());
        let cx = context(&metrics);
        let alone = exporters.len() == 1;
        let lanes: Vec<Lane> = exporters
            .iter()
            .map(|exporter| Lane {
                exporter: Arc::from(*exporter),
                metrics: if alone {
                    metrics.clone()
                } else {
                    Arc::new(metrics.scoped("exporter", exporter))
                },
                budget: cx.budget.clone(),
                signals: signals.to_vec(),
                alone,
            })
            .collect();
        let mut nodes = settings(yaml).nodes(&cx, &lanes)?;
        let engine = EngineMetrics::new(&metrics);
        let shard = ShardThread::spawn(0, cx.clock.clone(), engine, &cx.health).unwrap();
        let mut stand = Stand {
            shard: None,
            nodes: Vec::new(),
            destinations: Vec::new(),
            accounts: Vec::new(),
            metrics: metrics.clone(),
            held: cx.budget.clone(),
        };
        for (node, lane) in nodes.iter_mut().zip(&lanes) {
            let account =
                |kind, id: &str| Accounting::new(&lane.metrics, kind, id, DropReason::NAMES);
            let state = Arc::new(Mutex::new(State {
                outcome: Some(Outcome::Delivered),
                admission: Admission::Open,
                closed: None,
                refusing: false,
                kept: Vec::new(),
                records: 0,
                client: None,
            }));
            let destination = Destination(state.clone(), Signal::Logs);
            let outlet = Outlet {
                key: lane.exporter.clone(),
                exporter: Box::new(destination.clone()),
                signal: Signal::Logs,
                account: account("exporter", &lane.exporter),
                gate: None,
            };
            let mut outlets = vec![outlet];
            let mut chains = Vec::new();
            for signal in signals {
                if *signal != Signal::Logs {
                    outlets.push(Outlet {
                        key: lane.exporter.clone(),
                        exporter: Box::new(Destination(state.clone(), *signal)),
                        signal: *signal,
                        account: account("exporter", &lane.exporter),
                        gate: None,
                    });
                }
                chains.push(Chain {
                    id: format!("{signal} to {}", lane.exporter).into(),
                    pipeline: signal.as_str().into(),
                    signal: *signal,
                    processors: vec![Stage {
                        id: "gate".into(),
                        processor: Box::new(Gate(state.clone())),
                        incoming: Arc::new(|_| {}),
                        outgoing: Arc::new(|_| {}),
                    }],
                    exporters: vec![lane.exporter.clone()],
                });
            }
            let source = node.source(shard.handle());
            let id = lane.exporter.clone();
            shard.run(Box::new(move |s| {
                let feeds = chains.iter().map(|c| c.id.clone()).collect();
                outlets.into_iter().for_each(|o| s.add_exporter(o));
                chains.into_iter().for_each(|c| s.add_chain(c));
                s.add_source(id, source, feeds);
            }));
            stand.destinations.push(destination);
            stand.accounts.push(account("receiver", "otlp"));
        }
        stand.shard = Some(shard);
        for node in &mut nodes {
            node.start()?;
        }
        stand.nodes = nodes;
        Ok(stand)
    }

    /// The only destination.
    pub fn destination(&self) -> &Destination {
        &self.destinations[0]
    }

    /// The port of gRPC.
    pub fn grpc(&self) -> u16 {
        self.nodes[0].ports()[0].expect("gRPC listens")
    }

    /// The port of HTTP.
    pub fn http(&self) -> u16 {
        self.nodes[0].ports()[1].expect("HTTP listens")
    }

    /// The account of a lane, which adds up.
    pub fn account(&self, lane: usize) -> Snapshot {
        let snapshot = self.accounts[lane].snapshot();
        snapshot.check().unwrap();
        snapshot
    }

    /// The value of the only series of a metric with this text in its labels.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.metrics.render();
        let line = text
            .lines()
            .find(|l| l.starts_with(&format!("{name}{{")) && l.contains(labels));
        let line = line.unwrap_or_else(|| panic!("no {name} with {labels} in\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until something holds, and lets the test's tasks and the receiver's threads go on meanwhile.
    pub async fn until(&self, what: &str, holds: impl Fn(&Stand) -> bool) {
        let waiting = async {
            while !holds(self) {
                std::thread::yield_now();
                tokio::task::yield_now().await;
            }
        };
        let met = tokio::time::timeout(LONG, waiting).await;
        assert!(met.is_ok(), "{what}\n{}", self.metrics.render());
    }

    /// Stops taking in, as the agent does, and drains the shard; returns when it is drained.
    pub async fn stop(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.stop());
        if let Some(shard) = &self.shard {
            shard.drain();
        }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.stop());
        if let Some(shard) = self.shard.take() {
            shard.drain();
            for destination in &self.destinations {
                destination.set(Some(Outcome::Retry));
            }
            shard.stop();
        }
    }
}

/// An answer as a client sees it.
#[derive(Debug)]
pub struct Answered {
    /// Status of HTTP.
    pub status: StatusCode,
    /// Head.
    pub headers: HeaderMap,
    /// What follows the body.
    pub trailers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answered {
    /// A header's text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The code of gRPC, wherever it stands.
    pub fn code(&self) -> u8 {
        let code = self.headers.get("grpc-status");
        let code = code.or(self.trailers.get("grpc-status"));
        code.expect("a status").to_str().unwrap().parse().unwrap()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Takes in a whole answer.
pub async fn answered(response: hyper::Response<hyper::body::Incoming>) -> Answered {
    let (head, body) = response.into_parts();
    let body = tokio::time::timeout(LONG, body.collect()).await;
    let body = body.expect("in time").expect("a whole body");
    let trailers = body.trailers().cloned().unwrap_or_default();
    Answered {
        status: head.status,
        headers: head.headers,
        trailers,
        body: body.to_bytes(),
    }
}

/// Sends one request over HTTP/1.1 on a connection of its own.
pub async fn send(port: u16, request: Request<Full<Bytes>>) -> Answered {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let response = tokio::time::timeout(LONG, sender.send_request(request)).await;
    let answered = answered(response.expect("in time").expect("an answer")).await;
    connection.abort();
    answered
}

/// A request of OTLP over HTTP.
pub fn post(path: &str, kind: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("host", "test")
        .header(CONTENT_TYPE, kind)
        .body(Full::new(body.into()))
        .unwrap()
}

/// A connection of gRPC.
#[derive(Clone)]
pub struct GrpcClient {
    sender: hyper::client::conn::http2::SendRequest<Full<Bytes>>,
}

impl GrpcClient {
    /// Connects.
    pub async fn connect(port: u16) -> GrpcClient {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        GrpcClient::over(stream).await
    }

    /// Speaks over a stream.
    pub async fn over<S>(stream: S) -> GrpcClient
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        GrpcClient { sender }
    }

    /// Calls the method that takes logs.
    pub async fn call(&self, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answered {
        let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
        self.call_at(path, headers, body).await
    }

    /// Calls any method.
    pub async fn call_at(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answered {
        let mut request = Request::post(format!("http://test{path}"))
            .header(CONTENT_TYPE, "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request.headers_mut().unwrap().insert(
                hyper::header::HeaderName::try_from(*name).unwrap(),
                value.parse().unwrap(),
            );
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let mut sender = self.sender.clone();
        let response = tokio::time::timeout(LONG, sender.send_request(request)).await;
        answered(response.expect("in time").expect("an answer")).await
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// A message of gRPC.
pub fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u32).to_be_bytes();
    [&[flag][..], &length, message].concat()
}
