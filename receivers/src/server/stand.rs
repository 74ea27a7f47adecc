//! A running receiver with one shard, an exporter that a test decides for, and clients.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tailwater_pdata::Signal;
use tailwater_pipeline::auth::Authenticators;
use tailwater_pipeline::client::ClientInfo;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::handover::Outlet;
use tailwater_pipeline::lanes::Lane;
use tailwater_pipeline::shard::{Chain, ShardThread, Stage};
use tailwater_pipeline::{
    Admission, Batch, Budget, BuildError, DropReason, Exporter, Outcome, Output, Part, Processor,
    ReceiverNode,
};
use tailwater_telemetry::metrics::{Accounting, EngineMetrics, MetricsRegistry, Snapshot};
use tokio::net::TcpStream;

use crate::server::PushNode;
use crate::testing;

/// A bound on everything that must not hang.
pub const LONG: Duration = Duration::from_secs(20);

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
    /// What came, if that is wanted.
    texts: Option<Vec<String>>,
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

    /// Keeps the texts of log records from now on.
    pub fn remember(&self) {
        self.0.lock().unwrap().texts = Some(Vec::new());
    }

    /// The texts of log records that came; see [`testing::text`].
    pub fn texts(&self) -> Vec<String> {
        self.0.lock().unwrap().texts.clone().expect("remembered")
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
        if let Some(texts) = &mut state.texts {
            let data = batch.parts.iter().map(|part| part.data.clone());
            for logs in data.flat_map(|data| data.into_logs()) {
                texts.extend((0..logs.rows()).map(|row| testing::text(&logs, row)));
            }
        }
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

/// A running receiver.
pub struct Stand {
    // Fields are dropped in this order: as in the agent, shards end before nodes.
    shard: Option<ShardThread>,
    nodes: Vec<PushNode>,
    /// What is behind each lane.
    pub destinations: Vec<Destination>,
    /// Metrics.
    pub metrics: Arc<MetricsRegistry>,
    /// What the agent holds.
    pub held: Arc<Budget>,
    accounts: Vec<Arc<Accounting>>,
}

impl Stand {
    /// Starts the receiver of this name that `build` makes, with exporters that pipelines of these signals lead to.
    pub fn start(
        receiver: &'static str,
        build: impl Fn(&NodeCx, &[Lane]) -> Result<Vec<PushNode>, BuildError>,
        authenticators: Authenticators,
        exporters: &[&str],
        signals: &[Signal],
    ) -> Result<Stand, BuildError> {
        let metrics = Arc::new(MetricsRegistry::default());
        let cx = NodeCx {
            authenticators,
            ..testing::context(receiver, &metrics)
        };
        let lanes = testing::lanes(&cx, exporters, signals);
        let mut nodes = build(&cx, &lanes)?;
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
                texts: None,
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
            stand.accounts.push(account("receiver", receiver));
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
