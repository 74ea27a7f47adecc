//! A stand-in for a backend that takes OTLP, over HTTP and over gRPC, on two loopback ports.
//!
//! It records what it accepted and answers as it is told to: any status, partial success, late, never,
//! or by closing the connection. It is no OpenTelemetry Collector: it reads of the messages what tests
//! ask about (`opentelemetry-proto`, `logs/v1`, `metrics/v1`, `trace/v1` and the services), and is strict
//! about the transport (method, paths, content types, encodings, framing).

mod read;
mod serve;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

pub use read::{Kind, Message, ReadError};

use crate::entry::{EntryHook, EntryRef};
use crate::ports;

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// OTLP/HTTP.
    Http,
    /// OTLP/gRPC.
    Grpc,
}

/// A request that was read, whatever it was answered.
#[derive(Debug, Clone)]
pub struct Record {
    /// How it came.
    pub carrier: Carrier,
    /// Logs, metrics or traces.
    pub kind: Kind,
    /// Header names in lower case and values, in the order sent.
    pub headers: Vec<(String, String)>,
    /// Bytes of the body as sent (of gRPC: of the message).
    pub sent_bytes: usize,
    /// The body, neither compressed nor framed.
    pub body: Vec<u8>,
    /// Log records, data points or spans.
    pub items: u64,
    /// Whether it was answered with success.
    pub accepted: bool,
}

impl Record {
    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What a request is answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Answer {
    /// Success.
    #[default]
    Accept,
    /// Success, with a partial success in it.
    Partial {
        /// Items that are said to be rejected.
        rejected: i64,
        /// Why.
        message: String,
    },
    /// A refusal.
    Refuse {
        /// The status over HTTP.
        http: u16,
        /// The code over gRPC.
        grpc: u32,
        /// For people.
        message: String,
        /// `Retry-After` in seconds, or a `RetryInfo`.
        retry_after: Option<u64>,
    },
    /// The connection is closed after the request was read.
    Close,
    /// Success after a while.
    Late(Duration),
    /// Nothing, for as long as the client waits.
    Never,
    /// 413 or `RESOURCE_EXHAUSTED` for what is longer than so many bytes before compression, else
    /// success.
    Limit(usize),
}

impl Answer {
    /// "Try again", without a wait.
    pub fn unavailable() -> Answer {
        Answer::Refuse {
            http: 503,
            grpc: 14,
            message: "unavailable, on purpose".to_owned(),
            retry_after: None,
        }
    }
}

#[derive(Default)]
struct Inner {
    answer: Answer,
    /// Answers of the next requests, before `answer` counts.
    script: Vec<Answer>,
    records: Vec<Record>,
    /// Of more than so many, the oldest are forgotten.
    records_max: Option<usize>,
    /// What was wrong with requests that could not be read.
    errors: Vec<String>,
    connections: u64,
}

struct State {
    inner: Mutex<Inner>,
    hook: Option<EntryHook>,
}

impl State {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next request is answered.
    fn next_answer(&self) -> Answer {
        let mut inner = self.inner();
        if inner.script.is_empty() {
            return inner.answer.clone();
        }
        inner.script.remove(0)
    }

    fn error(&self, text: String) {
        self.inner().errors.push(text);
    }

    /// Takes note of a request. Called before its success is answered, as a client may be told of
    /// what is recorded only.
    fn record(&self, record: Record, message: &Message) {
        if let (true, Some(hook)) = (record.accepted, &self.hook) {
            for line in &message.lines {
                hook(&EntryRef {
                    tenant: "",
                    labels: &line.file,
                    ts_ns: line.time_ns,
                    line: &line.body,
                    metadata: &[],
                });
            }
        }
        let mut inner = self.inner();
        inner.records.push(record);
        let max = inner.records_max.unwrap_or(usize::MAX);
        let old = inner.records.len().saturating_sub(max);
        inner.records.drain(..old);
    }
}

/// See the module's documentation. Dropping it closes its connections and ends its thread.
pub struct OtlpStandIn {
    state: Arc<State>,
    http: SocketAddr,
    grpc: SocketAddr,
    stop: Option<watch::Sender<bool>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl OtlpStandIn {
    /// Starts on free ports. `hook` is called for each log record of requests that are accepted, with the
    /// attribute `log.file.name` as its labels.
    ///
    /// # Errors
    /// What listening fails with.
    pub fn start(hook: Option<EntryHook>) -> io::Result<OtlpStandIn> {
        OtlpStandIn::start_at(ports::free_addr()?, ports::free_addr()?, hook)
    }

    /// As [`OtlpStandIn::start`], on given addresses.
    ///
    /// # Errors
    /// What listening fails with.
    pub fn start_at(
        http: SocketAddr,
        grpc: SocketAddr,
        hook: Option<EntryHook>,
    ) -> io::Result<OtlpStandIn> {
        let state = Arc::new(State {
            inner: Mutex::default(),
            hook,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let bind = |at: SocketAddr| runtime.block_on(tokio::net::TcpListener::bind(at));
        let (http, grpc) = (bind(http)?, bind(grpc)?);
        let (http_at, grpc_at) = (http.local_addr()?, grpc.local_addr()?);
        let (stop, stopped) = watch::channel(false);
        let own = state.clone();
        let thread = std::thread::Builder::new().name("otlp-stand-in".into());
        let thread = thread.spawn(move || {
            runtime.block_on(async {
                tokio::join!(
                    serve::accept(http, Carrier::Http, own.clone(), stopped.clone()),
                    serve::accept(grpc, Carrier::Grpc, own, stopped),
                )
            });
        })?;
        Ok(OtlpStandIn {
            state,
            http: http_at,
            grpc: grpc_at,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens for HTTP.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// Where it listens for gRPC.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc
    }

    /// The URL that exporters add `/v1/logs` and the like to.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// What all requests are answered from now on.
    pub fn set_answer(&self, answer: Answer) {
        self.state.inner().answer = answer;
    }

    /// What the next requests are answered, before what [`OtlpStandIn::set_answer`] says.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state.inner().script.extend(answers);
    }

    /// Scripted answers that no request has had yet.
    pub fn scripted_left(&self) -> usize {
        self.state.inner().script.len()
    }

    /// Keeps the newest `max` requests alone from now on, for long runs: what is counted over the requests
    /// is counted over those. The hook sees all.
    pub fn keep_requests(&self, max: usize) {
        self.state.inner().records_max = Some(max);
    }

    /// The requests so far.
    pub fn records(&self) -> Vec<Record> {
        self.state.inner().records.clone()
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.state.inner().records.len()
    }

    /// Items of requests that were accepted.
    pub fn items(&self, kind: Kind) -> u64 {
        let inner = self.state.inner();
        let of_kind = inner.records.iter().filter(|r| r.kind == kind);
        of_kind.filter(|r| r.accepted).map(|r| r.items).sum()
    }

    /// What was wrong with requests that could not be read.
    pub fn errors(&self) -> Vec<String> {
        self.state.inner().errors.clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.state.inner().connections
    }
}

impl Drop for OtlpStandIn {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(true);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
