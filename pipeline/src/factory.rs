//! How the agent makes components without knowing them by name.
//!
//! A component is decoded ([`ReceiverFactory::decode`] and the like: strict, all mistakes at once,
//! no I/O), then built (`build`: nothing spawned, nothing stopped), then started. The list of
//! factories is in one place, the agent's registry.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use tailwater_config::{Errors, KeyPath, Node};
use tailwater_pdata::Signal;
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::MetricsRegistry;

use crate::auth::{Authenticators, Roles};
use crate::budget::Budget;
use crate::clock::Clock;
use crate::component::{
    BuildError, Connector, ExporterNode, ExtensionNode, Processor, ReceiverNode,
};
use crate::connections::Connections;
use crate::lanes::Lane;
use crate::listeners::Listeners;
use crate::reach::Reach;
use crate::storage::Storages;
use crate::trial::ReceiverTrial;

/// What a node is built with. Everything in it belongs to the agent and outlives the node.
#[derive(Clone)]
pub struct NodeCx {
    /// The component's id, e.g. `loki/main`.
    pub id: Arc<str>,
    /// The chain a processor stands in: its pipeline, and where that has several exporters, the one
    /// at the end. Instances in all shards have the same.
    pub pipeline: Option<Arc<str>>,
    /// What a processor or an exporter handles; a receiver learns it of its lanes.
    pub signal: Option<Signal>,
    /// Number of shards.
    pub shards: usize,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Seed of whatever randomness the node needs.
    pub seed: u64,
    /// Memory for records under way.
    pub budget: Arc<Budget>,
    /// Where metrics are registered.
    pub metrics: Arc<MetricsRegistry>,
    /// Where health is reported.
    pub health: Arc<HealthRegistry>,
    /// The runtime for sockets.
    pub runtime: tokio::runtime::Handle,
    /// Sockets that listen.
    pub listeners: Arc<Listeners>,
    /// Connections that outlive who uses them.
    pub connections: Arc<Connections>,
    /// Where positions are stored.
    pub storages: Arc<dyn Storages>,
    /// The extensions that authenticate.
    pub authenticators: Authenticators,
    /// What the agent lends to those of its extensions that know what it is; `None` without an agent.
    pub agent: Option<Arc<dyn Any + Send + Sync>>,
}

/// Validated settings of a receiver.
pub trait ReceiverSettings: Send {
    /// Builds a node for each of `lanes`, in their order. Must not spawn or open listeners. Some of them
    /// may run already: what is built for these is handed to [`ReceiverNode::take_over`].
    fn build(&self, cx: &NodeCx, lanes: &[Lane]) -> Result<Vec<Box<dyn ReceiverNode>>, BuildError>;

    /// Adds what the node uses of the file system. Asked before anything is built; may look at
    /// what is there. The stores of positions are the agent's.
    fn reach(&self, reach: &mut Reach);

    /// How what runs with the settings `running`, of the same kind, comes to these.
    fn succession(&self, _running: &dyn ReceiverSettings) -> Succession {
        Succession::Replace
    }

    /// The storage extension in which it keeps positions. `None`: it keeps none, or keeps them in the agent's own
    /// store. Which one that is cannot change while the agent runs.
    fn storage(&self) -> Option<String> {
        None
    }

    /// Whether a node takes in again what another one of the same id has under way, as those that read
    /// files do. Such a node begins when nothing of the other one is under way any more.
    fn takes_in_again(&self) -> bool {
        false
    }

    /// What it does with lines, to be tried out: as if they were in the file at `path`. Must not start
    /// anything, and touches no file but to ask for what records say of `path`. `None`: it takes in no
    /// lines.
    fn trial(
        &self,
        _cx: &NodeCx,
        _path: &Path,
    ) -> Option<Result<Box<dyn ReceiverTrial>, BuildError>> {
        None
    }

    /// For [`ReceiverSettings::succession`], which has to know the settings of its own kind.
    fn as_any(&self) -> &dyn Any;
}

/// How a receiver with other settings takes the place of one that runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Succession {
    /// What runs takes the settings over, with everything it has open and under way, and lanes come and
    /// go beside it: [`ReceiverNode::take_over`].
    InPlace,
    /// Another node begins, while what the old one has under way is settled.
    Replace,
    /// Not while the agent runs; why, and what to do.
    Restart(String),
}

/// Validated settings of a processor.
pub trait ProcessorSettings: Send {
    /// Builds the instance of one chain in one shard.
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn Processor>, BuildError>;

    /// Reports what it cannot do to `signal`. Asked, before anything is built, for each signal whose
    /// pipelines name it.
    fn check(&self, _signal: Signal, _errors: &mut Errors) {}

    /// Adds what instances use of the file system, if anything. Asked before anything is built; may look
    /// at what is there.
    fn reach(&self, _reach: &mut Reach) {}
}

/// Validated settings of an exporter.
pub trait ExporterSettings: Send {
    /// Builds the node for `cx.signal`: one per id and signal. Must not spawn or connect.
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExporterNode>, BuildError>;

    /// Whether it keeps apart, in requests of their own, data of clients in which what its authenticator
    /// [reads](crate::auth::ClientAuth::reads) differs, and [carries](crate::auth::carry) it along.
    fn carries_clients(&self) -> bool {
        false
    }

    /// Adds what the node uses of the file system. Asked before anything is built; may look at
    /// what is there. The stores of positions are the agent's.
    fn reach(&self, reach: &mut Reach);
}

/// How a connector is used for one of the signals that go into it.
#[derive(Clone, Debug)]
pub struct ConnectorUse {
    /// What goes into it.
    pub signal: Signal,
    /// The pipelines behind it that take what comes out of it then.
    pub behind: Vec<String>,
}

/// Validated settings of a connector. Without more than that, what comes into one is passed on to every
/// pipeline of the same signal behind it.
pub trait ConnectorSettings: Send {
    /// What comes out if this goes in. The factory says what can go in.
    fn gives(&self, signal: Signal) -> Signal {
        signal
    }

    /// Reports what it cannot do where it is used. Asked, before anything is built, for each signal.
    fn check(&self, _used: &ConnectorUse, _errors: &mut Errors) {}

    /// Builds the instance at the end of a chain in a shard. `ways` are the pipelines behind it that it can
    /// hand to: those that lead to the exporter of the chain, which need not be all. `None`: it passes all
    /// on to each of them.
    ///
    /// # Errors
    /// It cannot be built.
    fn build(
        &self,
        _cx: &NodeCx,
        _ways: &[&str],
    ) -> Result<Option<Box<dyn Connector>>, BuildError> {
        Ok(None)
    }
}

/// Validated settings of an extension.
pub trait ExtensionSettings: Send {
    /// Builds the node. Must not spawn or listen.
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExtensionNode>, BuildError>;

    /// Which sides the node will authenticate.
    fn authenticates(&self) -> Roles {
        Roles::default()
    }

    /// Adds what the node uses of the file system. Asked before anything is built; may look at
    /// what is there. The stores of positions are the agent's.
    fn reach(&self, reach: &mut Reach);
}

/// Decodes the settings of one component. `None` only together with an error.
pub type Decode<S> = fn(&Node, &KeyPath, &mut Errors) -> Option<Box<S>>;

/// A kind of component.
pub struct Factory<S: ?Sized> {
    /// The canonical type, e.g. `file_log`.
    pub kind: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Signals it supports: `logs`, `metrics`, `traces`; empty for extensions.
    pub signals: &'static [&'static str],
    /// Decodes its settings.
    pub decode: Decode<S>,
}

/// A kind of receiver.
pub type ReceiverFactory = Factory<dyn ReceiverSettings>;
/// A kind of processor.
pub type ProcessorFactory = Factory<dyn ProcessorSettings>;
/// A kind of exporter.
pub type ExporterFactory = Factory<dyn ExporterSettings>;
/// A kind of connector: its signals are those that go into it.
pub type ConnectorFactory = Factory<dyn ConnectorSettings>;
/// A kind of extension.
pub type ExtensionFactory = Factory<dyn ExtensionSettings>;

/// All kinds of components of a build.
#[derive(Default)]
pub struct Registry {
    /// Receivers.
    pub receivers: Vec<ReceiverFactory>,
    /// Processors.
    pub processors: Vec<ProcessorFactory>,
    /// Exporters.
    pub exporters: Vec<ExporterFactory>,
    /// Connectors.
    pub connectors: Vec<ConnectorFactory>,
    /// Extensions.
    pub extensions: Vec<ExtensionFactory>,
}
