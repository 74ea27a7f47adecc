//! From configuration to a running receiver.

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tailwater_config::{Errors, KeyPath, Node, ProcessEnvironment, Section};
use tailwater_pipeline::factory::{NodeCx, ReceiverFactory, ReceiverSettings};
use tailwater_pipeline::lanes::Lane;
use tailwater_pipeline::listeners::Lent;
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{BuildError, DropReason, ReceiverNode, ShardHandle, Source};
use tailwater_telemetry::metrics::{
    Accounting, IntakeMetrics, ListenerMetrics, MessageMetrics, ReceiverMetrics,
};

use super::config::SyslogConfig;
use super::framing::Framing;
use super::intake::{Intake, LaneLink, Queue};
use super::message::Transport;
use super::server::{Common, Server, TcpDoor, UdpDoor, runtime};
use super::source::{Rules, SyslogSource};
use crate::input::constants::Constants;
use crate::listen::{Bound, Carrier, Datagrams, Door, TlsSource};
use crate::operators::{BuildCx, Chain};

/// The factory of `syslog`.
pub fn factory() -> ReceiverFactory {
    ReceiverFactory {
        kind: "syslog",
        about: "takes syslog over TCP, TLS and UDP",
        signals: &["logs"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ReceiverSettings>> {
    Some(Box::new(SyslogSettings::decode(node, path, errors)?))
}

/// A decoded configuration.
pub struct SyslogSettings {
    config: SyslogConfig,
    path: KeyPath,
}

impl SyslogSettings {
    /// Reads the section. `None` only together with an error.
    pub fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<SyslogSettings> {
        let before = errors.len();
        let mut section = Section::new(node, path, errors);
        let config = SyslogConfig::decode(&mut section);
        section.finish();
        let wanted = SyslogSettings {
            config,
            path: path.clone(),
        };
        // Everything that can be wrong is found now, not when it is built.
        Chain::report(wanted.chain(), errors);
        if let Err(e) = wanted.constants() {
            errors.push(*e);
        }
        (errors.len() == before).then_some(wanted)
    }

    fn chain(&self) -> Result<Chain, Errors> {
        let cx = BuildCx {
            path: self.path.child("operators"),
            environment: &ProcessEnvironment,
        };
        let first = Some((&self.path, &self.config.parser));
        Chain::build_behind(first, &self.config.operators, &cx)
    }

    fn constants(&self) -> Result<Constants, Box<tailwater_config::ConfigError>> {
        let (attributes, resource) = (&self.config.attributes, &self.config.resource);
        Constants::compile(&self.path, attributes, resource)
    }

    /// Builds the nodes of `lanes`.
    ///
    /// # Errors
    /// Certificates cannot be used.
    pub fn nodes(&self, cx: &NodeCx, lanes: &[Lane]) -> Result<Vec<SyslogNode>, BuildError> {
        let c = &self.config;
        let ways = [
            c.tcp.as_ref().map(|_| Transport::Tcp),
            c.udp.as_ref().map(|_| Transport::Udp),
        ];
        let mut links = Vec::new();
        let mut accounts = Vec::new();
        for lane in lanes {
            let account = Accounting::new(&lane.metrics, "receiver", &cx.id, DropReason::NAMES);
            let metrics = ways
                .map(|way| way.map(|t| ReceiverMetrics::new(&lane.metrics, &cx.id, t.as_str())));
            links.push(LaneLink::new(account.clone(), metrics));
            accounts.push(account);
        }
        let intake = Arc::new(Intake::new(
            links,
            c.in_flight_bytes_max,
            cx.budget.clone(),
            IntakeMetrics::new(&cx.metrics, &cx.id),
        ));
        let constants = self.constants();
        let rules = Arc::new(Rules {
            text: [
                c.tcp.as_ref().map(|t| t.text),
                c.udp.as_ref().map(|u| u.text),
            ],
            metrics: ways
                .map(|way| way.map(|t| MessageMetrics::new(&cx.metrics, &cx.id, t.as_str()))),
            constants: constants.map_err(|e| error(cx, e.to_string()))?,
        });
        let tls = c.tcp.as_ref().and_then(|t| t.tls.clone());
        let tls = tls.map(|options| TlsSource::new(options, &[])).transpose();
        let shared = Arc::new(Shared {
            cx: cx.clone(),
            config: c.clone(),
            intake,
            rules,
            tls: Mutex::new(tls.map_err(|e| error(cx, format!("tcp::{e}")))?),
            opened: Mutex::default(),
            running: Mutex::default(),
            lanes: AtomicUsize::new(lanes.len()),
        });
        let node = |(number, account)| {
            let chains = (0..cx.shards.max(1)).map(|_| self.chain());
            let chains: Result<Vec<Chain>, Errors> = chains.collect();
            Ok(SyslogNode {
                shared: shared.clone(),
                account,
                number,
                chains: chains.map_err(|e| error(cx, e.to_string()))?,
                queues: Vec::new(),
            })
        };
        accounts.into_iter().enumerate().map(node).collect()
    }
}

impl ReceiverSettings for SyslogSettings {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn build(&self, cx: &NodeCx, lanes: &[Lane]) -> Result<Vec<Box<dyn ReceiverNode>>, BuildError> {
        let nodes = self.nodes(cx, lanes)?.into_iter();
        Ok(nodes.map(|node| Box::new(node) as _).collect())
    }

    fn reach(&self, reach: &mut Reach) {
        if let Some(tls) = self.config.tcp.as_ref().and_then(|t| t.tls.as_ref()) {
            tls.reach(reach);
        }
    }
}

fn error(cx: &NodeCx, message: impl Into<String>) -> BuildError {
    BuildError::new(format!("receiver {:?}", cx.id), message)
}

/// Sockets of TCP and of UDP.
type Opened = [Option<Lent>; 2];

/// What the lanes of a receiver share: there is one server for all.
struct Shared {
    cx: NodeCx,
    config: SyslogConfig,
    intake: Arc<Intake>,
    rules: Arc<Rules>,
    /// Until it serves.
    tls: Mutex<Option<TlsSource>>,
    /// Until they serve.
    opened: Mutex<Option<Opened>>,
    running: Mutex<Option<Running>>,
    /// Lanes that have not started yet.
    lanes: AtomicUsize,
}

struct Running {
    server: Server,
    ports: [Option<u16>; 2],
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Listens, without serving yet.
    fn acquire(&self) -> Result<(), BuildError> {
        let mut opened = locked(&self.opened);
        if opened.is_some() {
            return Ok(());
        }
        let tcp = self.config.tcp.as_ref().map(|t| Door {
            carrier: Carrier::Streams,
            protocol: "tcp",
            option: "tcp::listen_address",
            listen: &t.listen,
            tls: t.tls.as_ref(),
            auth: false,
            refuse_unprotected: self.config.refuse_unprotected,
        });
        let udp = self.config.udp.as_ref().map(|u| Door {
            carrier: Carrier::Datagrams,
            protocol: "udp",
            option: "udp::listen_address",
            listen: &u.listen,
            tls: None,
            auth: false,
            refuse_unprotected: self.config.refuse_unprotected,
        });
        let open = |door: Option<Door<'_>>| {
            let lent = door.map(|door| door.open(&self.cx));
            lent.transpose().map_err(|e| error(&self.cx, e))
        };
        *opened = Some([open(tcp)?, open(udp)?]);
        Ok(())
    }

    fn start(&self) -> Result<Running, BuildError> {
        self.acquire()?;
        let failed = |e: std::io::Error| error(&self.cx, e.to_string());
        let [tcp, udp] = locked(&self.opened).take().unwrap_or_default();
        let port = |lent: &Option<Lent>| Some(lent.as_ref()?.local_addr()?.port());
        let ports = [port(&tcp), port(&udp)];
        let runtime = runtime().map_err(failed)?;
        let bound = tcp.map(|lent| Bound::new(lent, runtime.handle()));
        let datagrams = udp.map(|lent| Datagrams::new(lent, runtime.handle()));
        let (bound, datagrams) = (bound.transpose(), datagrams.transpose());
        let tcp = self.config.tcp.as_ref().zip(bound.map_err(failed)?);
        let tcp = tcp.map(|(options, bound)| {
            let door = TcpDoor {
                tls: locked(&self.tls).take(),
                connections_max: options.connections_max,
                idle_timeout: options.idle_timeout,
                common: self.common(Transport::Tcp, &options.framing),
            };
            (bound, door)
        });
        let udp = self.config.udp.as_ref().zip(datagrams.map_err(failed)?);
        let udp = udp.map(|(options, datagrams)| UdpDoor {
            datagrams,
            common: self.common(Transport::Udp, &options.framing),
        });
        let server = Server::start(runtime, tcp, udp, self.intake.clone());
        Ok(Running {
            server: server.map_err(failed)?,
            ports,
        })
    }

    fn common(&self, transport: Transport, framing: &Framing) -> Common {
        let (metrics, id) = (&self.cx.metrics, &self.cx.id);
        Common {
            intake: self.intake.clone(),
            clock: self.cx.clock.clone(),
            framing: Arc::new(framing.clone()),
            messages: MessageMetrics::new(metrics, id, transport.as_str()),
            listener: ListenerMetrics::new(metrics, id, transport.as_str()),
        }
    }
}

/// The node of one lane.
pub struct SyslogNode {
    shared: Arc<Shared>,
    account: Arc<Accounting>,
    number: usize,
    /// One for each shard.
    chains: Vec<Chain>,
    queues: Vec<Arc<Queue>>,
}

impl SyslogNode {
    /// The ports of TCP and UDP, once they are open.
    pub fn ports(&self) -> [Option<u16>; 2] {
        locked(&self.shared.running)
            .as_ref()
            .map_or([None; 2], |r| r.ports)
    }
}

impl ReceiverNode for SyslogNode {
    fn acquire(&mut self) -> Result<(), BuildError> {
        self.shared.acquire()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn source(&mut self, shard: &ShardHandle) -> Box<dyn Source> {
        let queue = Queue::new(shard);
        self.queues.push(queue.clone());
        Box::new(SyslogSource::new(
            queue,
            (self.shared.intake.clone(), self.number),
            self.shared.rules.clone(),
            self.chains.pop().unwrap_or_default(),
            self.account.clone(),
        ))
    }

    fn start(&mut self) -> Result<(), BuildError> {
        let lane = self.shared.intake.lane(self.number);
        if lane.queues.set(std::mem::take(&mut self.queues)).is_err() {
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
        if let Some(running) = &*locked(&self.shared.running) {
            running.server.stop();
        }
    }
}
