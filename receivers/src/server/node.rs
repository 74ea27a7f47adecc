//! From options to a running receiver.

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tailwater_pdata::Signal;
use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::lanes::Lane;
use tailwater_pipeline::listeners::Lent;
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{BuildError, DropReason, ReceiverNode, ShardHandle, Source};
use tailwater_telemetry::metrics::{Accounting, IntakeMetrics};

use super::grpc::GrpcService;
use super::guard::{CHECKS_MAX, Guard};
use super::http::HttpService;
use super::intake::{Intake, Queue};
use super::listener::{Listener, Server, runtime};
use super::options::ServerOptions;
use super::protocol::Protocol;
use super::source::PushSource;
use super::stats::{Stats, Transport};
use crate::listen::{Bound, Carrier, Door, Endpoint, Listen, TlsOptions, TlsSource};

/// Builds the nodes of `lanes` of a receiver of this kind. Nothing listens yet.
///
/// # Errors
/// Certificates cannot be used.
pub fn nodes(
    kind: &'static str,
    protocol: Arc<dyn Protocol>,
    options: &ServerOptions,
    cx: &NodeCx,
    lanes: &[Lane],
) -> Result<Vec<PushNode>, BuildError> {
    let signals = lanes.iter().map(|lane| lane.signals.clone());
    let intake = Arc::new(Intake::new(
        signals.collect(),
        &options.limits,
        cx.budget.clone(),
        cx.clock.clone(),
        IntakeMetrics::new(&cx.metrics, &cx.id),
    ));
    let signals: Vec<Signal> = Signal::ALL
        .into_iter()
        .filter(|signal| intake.takes(*signal))
        .collect();
    let tls = |options: Option<&TlsOptions>, protocols: &[&str]| {
        let source = options.map(|o| TlsSource::new(o.clone(), protocols));
        source.transpose().map_err(|e| error(cx, e.to_string()))
    };
    let grpc_tls = tls(options.grpc.as_ref().and_then(|g| g.tls.as_ref()), &["h2"])?;
    let http_tls = tls(
        options.http.as_ref().and_then(|h| h.tls.as_ref()),
        &["h2", "http/1.1"],
    )?;
    let shared = Arc::new(Shared {
        kind,
        protocol,
        cx: cx.clone(),
        options: options.clone(),
        intake,
        signals,
        tls: Mutex::new((grpc_tls, http_tls)),
        opened: Mutex::default(),
        running: Mutex::default(),
        lanes: AtomicUsize::new(lanes.len()),
    });
    let node = |(number, lane): (usize, &Lane)| PushNode {
        account: Accounting::new(&lane.metrics, "receiver", &cx.id, DropReason::NAMES),
        shared: shared.clone(),
        number,
        queues: Vec::new(),
    };
    Ok(lanes.iter().enumerate().map(node).collect())
}

/// What listeners of these options use of the file system.
pub fn reach(options: &ServerOptions, reach: &mut Reach) {
    let listens = [
        options.grpc.as_ref().map(|g| (&g.listen, &g.tls)),
        options.http.as_ref().map(|h| (&h.listen, &h.tls)),
    ];
    for (listen, tls) in listens.into_iter().flatten() {
        if let Endpoint::Unix(path) = &listen.endpoint {
            reach.listens_at(path);
        }
        if let Some(tls) = tls {
            tls.reach(reach);
        }
    }
}

fn error(cx: &NodeCx, message: impl Into<String>) -> BuildError {
    BuildError::new(format!("receiver {:?}", cx.id), message)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the lanes of a receiver share: there is one server for all.
struct Shared {
    kind: &'static str,
    protocol: Arc<dyn Protocol>,
    cx: NodeCx,
    options: ServerOptions,
    intake: Arc<Intake>,
    signals: Vec<Signal>,
    /// Of gRPC and HTTP, until the listeners are opened.
    tls: Mutex<(Option<TlsSource>, Option<TlsSource>)>,
    /// Of gRPC and HTTP, until they serve.
    opened: Mutex<Option<[Option<Lent>; 2]>>,
    running: Mutex<Option<Running>>,
    /// Lanes that have not started yet.
    lanes: AtomicUsize,
}

struct Running {
    server: Server,
    ports: [Option<u16>; 2],
}

impl Shared {
    /// Listens, without serving yet.
    fn acquire(&self) -> Result<(), BuildError> {
        let mut opened = locked(&self.opened);
        if opened.is_some() {
            return Ok(());
        }
        let grpc = self.options.grpc.as_ref();
        let grpc = grpc.map(|o| self.open("grpc", &o.listen, o.tls.as_ref(), o.auth.is_some()));
        let http = self.options.http.as_ref();
        let http = http.map(|o| self.open("http", &o.listen, o.tls.as_ref(), o.auth.is_some()));
        *opened = Some([grpc.transpose()?, http.transpose()?]);
        Ok(())
    }

    fn start(&self) -> Result<Running, BuildError> {
        let failed = |e: std::io::Error| error(&self.cx, format!("no thread: {e}"));
        let grpc = self.options.grpc.as_ref().and_then(|g| g.auth.as_ref());
        let http = self.options.http.as_ref().and_then(|h| h.auth.as_ref());
        let guards = [grpc, http].into_iter().flatten().count();
        let runtime = runtime(
            self.kind,
            self.intake.room.decoders_max(),
            guards * CHECKS_MAX,
        )
        .map_err(failed)?;
        match self.listeners(&runtime) {
            Ok((listeners, ports)) => {
                runtime.spawn(self.intake.answers.clone().deliver());
                let server = Server::start(self.kind, runtime, listeners).map_err(failed)?;
                Ok(Running { server, ports })
            }
            Err(e) => {
                // Nothing runs on it.
                runtime.shutdown_background();
                Err(e)
            }
        }
    }

    fn listeners(
        &self,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<(Vec<Listener>, [Option<u16>; 2]), BuildError> {
        let (grpc_tls, http_tls) = std::mem::take(&mut *locked(&self.tls));
        let limits = &self.options.limits;
        self.acquire()?;
        let opened = locked(&self.opened).take().unwrap_or_default();
        let port = |lent: &Option<Lent>| Some(lent.as_ref()?.local_addr()?.port());
        let ports = [port(&opened[0]), port(&opened[1])];
        let bound = |i: usize| {
            let lent = opened[i].clone();
            let lent = lent.ok_or_else(|| error(&self.cx, "its address was not opened"))?;
            Bound::new(lent, runtime.handle()).map_err(|e| error(&self.cx, e.to_string()))
        };
        let mut listeners = Vec::new();
        if let Some(options) = &self.options.grpc {
            let bound = bound(0)?;
            let stats = self.stats(Transport::Grpc);
            let guard = self.guard(options.auth.as_deref())?;
            let service = GrpcService::new(
                self.protocol.clone(),
                self.intake.clone(),
                stats.clone(),
                options,
                guard,
                limits,
            );
            listeners.push(Listener::grpc(
                bound,
                service,
                grpc_tls,
                options,
                limits.connections_max,
                stats,
            ));
        }
        if let Some(options) = &self.options.http {
            let bound = bound(1)?;
            let stats = self.stats(Transport::Http);
            let guard = self.guard(options.auth.as_deref())?;
            let service = HttpService::new(
                self.protocol.clone(),
                self.intake.clone(),
                stats.clone(),
                options,
                guard,
                limits,
            );
            listeners.push(Listener::http(
                bound,
                service,
                http_tls,
                options,
                limits.connections_max,
                stats,
            ));
        }
        Ok((listeners, ports))
    }

    fn guard(&self, id: Option<&str>) -> Result<Guard, BuildError> {
        Guard::named(id, &self.cx.authenticators).map_err(|e| error(&self.cx, e))
    }

    fn stats(&self, transport: Transport) -> Arc<Stats> {
        Stats::new(&self.cx.metrics, &self.cx.id, transport, &self.signals)
    }

    fn open(
        &self,
        protocol: &str,
        listen: &Listen,
        tls: Option<&TlsOptions>,
        auth: bool,
    ) -> Result<Lent, BuildError> {
        let door = Door {
            carrier: Carrier::Streams,
            protocol,
            option: &format!("protocols::{protocol}::endpoint"),
            listen,
            tls,
            auth,
            refuse_unprotected: self.options.refuse_unprotected,
        };
        door.open(&self.cx).map_err(|e| error(&self.cx, e))
    }
}

/// The node of one lane.
pub struct PushNode {
    shared: Arc<Shared>,
    account: Arc<Accounting>,
    number: usize,
    queues: Vec<Arc<Queue>>,
}

impl PushNode {
    /// The ports of gRPC and HTTP, once they are open.
    pub fn ports(&self) -> [Option<u16>; 2] {
        let running = locked(&self.shared.running);
        running.as_ref().map_or([None; 2], |r| r.ports)
    }
}

impl ReceiverNode for PushNode {
    fn acquire(&mut self) -> Result<(), BuildError> {
        self.shared.acquire()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn source(&mut self, shard: &ShardHandle) -> Box<dyn Source> {
        let queue = Queue::new(shard);
        self.queues.push(queue.clone());
        Box::new(PushSource::new(queue, self.account.clone()))
    }

    fn start(&mut self) -> Result<(), BuildError> {
        let lane = self.shared.intake.lane(self.number);
        let queues = std::mem::take(&mut self.queues);
        if lane.queues.set(queues).is_err() {
            return Ok(());
        }
        // The last lane opens the door: before, there is no way for some of the data.
        if self.shared.lanes.fetch_sub(1, Ordering::AcqRel) == 1 {
            let running = self.shared.start()?;
            *locked(&self.shared.running) = Some(running);
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.shared.intake.stop();
        if let Some(running) = &*locked(&self.shared.running) {
            running.server.stop();
        }
    }
}
