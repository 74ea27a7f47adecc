//! What a component is to the engine.
//!
//! Data moves by plain calls on one shard thread: a [`Source`] (the shard's half of a receiver)
//! emits a [`Batch`] into its chain, every [`Processor`] passes it on, and the [`Exporter`] (the
//! shard's half of an exporter) encodes it and hands a finished body to its node's sender. Nothing
//! in these traits blocks or awaits; who cannot take more says so by [`Admission`].

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Authenticator;
use tailwater_pdata::Signal;

use crate::batch::Batch;
use crate::clock::Mono;
use crate::files::TailedFiles;

/// How much more a node is willing to take. Ordered: the most restrictive one wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Admission {
    /// Everything is welcome.
    #[default]
    Open,
    /// More than half of the room is taken: only sources that have nothing under way should read,
    /// and little at a time. This keeps one stuck destination from taking the room of the others.
    Scarce,
    /// Nothing more: sources pause. Nothing is lost by it, files are the buffer.
    Closed,
}

/// Where a node puts what it passes on.
pub trait Output {
    /// Passes a batch on to the next node.
    fn emit(&mut self, batch: Batch);
    /// The time of this step.
    fn now(&self) -> Mono;
}

/// A processor's instance in one chain of one shard.
///
/// Contract: every part that comes in is passed on, or its duty is resolved, exactly once;
/// what is kept (batching) is passed on by the time `deadline` names, and by `flush`.
pub trait Processor: Send {
    /// Takes a batch.
    fn process(&mut self, batch: Batch, out: &mut dyn Output);

    /// Whether sources in front of it may read.
    fn admission(&self) -> Admission {
        Admission::Open
    }

    /// Whether what it is handed now goes back to whoever sent it. A source whose senders can be told so
    /// hands on what waits, whatever the admission, so that they are told at once.
    fn refuses(&self) -> bool {
        false
    }

    /// When [`Processor::tick`] wants to be called; `None` = not at all.
    fn deadline(&self) -> Option<Mono> {
        None
    }

    /// Called at or after the deadline.
    fn tick(&mut self, _out: &mut dyn Output) {}

    /// Passes on everything that is kept.
    fn flush(&mut self, _out: &mut dyn Output) {}
}

/// The pipelines behind a connector, in the order in which it was told them when it was built.
pub trait Ways {
    /// Hands a batch to the pipeline with this number.
    fn emit(&mut self, way: usize, batch: Batch);
}

/// A connector's instance at the end of one chain of one shard. It keeps nothing.
///
/// Contract: every part that comes in is handed on, or its duty is resolved, exactly once.
pub trait Connector: Send {
    /// Takes what comes to the end of the chain.
    fn pass(&self, batch: Batch, out: &mut dyn Ways);
}

/// An exporter's half in one shard: turns batches into requests. The other half, the sender, is
/// shared by all shards and belongs to the [`ExporterNode`].
pub trait Exporter: Send {
    /// Takes a batch; its duties are resolved when the destination answered.
    fn export(&mut self, batch: Batch, now: Mono);

    /// Whether there is room in the sender's queue.
    fn admission(&self) -> Admission;

    /// When [`Exporter::tick`] wants to be called; `None` = not at all.
    fn deadline(&self) -> Option<Mono> {
        None
    }

    /// Called at or after the deadline.
    fn tick(&mut self, _now: Mono) {}

    /// Hands everything that is kept to the sender.
    fn flush(&mut self, _now: Mono) {}
}

/// What a source did in one turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// There is more to do right away.
    Busy,
    /// Nothing to do until woken, or until the given time.
    Idle(Option<Mono>),
}

/// What a source may use in one turn.
pub trait SourceCx: Output {
    /// How much the nodes behind it are willing to take.
    fn admission(&self) -> Admission;

    /// The same for one signal: a source of several need not hold up those whose nodes have room.
    fn admission_of(&self, _signal: Signal) -> Admission {
        self.admission()
    }

    /// Whether a processor behind it hands items of `signal` back now, see [`Processor::refuses`].
    fn refuses(&self, _signal: Signal) -> bool {
        false
    }
}

/// A receiver's half in one shard.
pub trait Source: Send {
    /// Does a bounded amount of work (about a millisecond) and says how to go on.
    fn poll(&mut self, cx: &mut dyn SourceCx) -> Progress;

    /// Called again and again while the agent stops: takes in acknowledgements, reads nothing
    /// new. True when nothing of it is under way any more.
    fn drain(&mut self, cx: &mut dyn SourceCx) -> bool;
}

/// Wakes one shard. Cheap to call when the shard is awake.
pub trait Wake: Send + Sync {
    /// Makes the shard run its sources soon.
    fn wake(&self);
}

/// What a receiver gets to know about the shard that runs one of its sources.
#[derive(Clone)]
pub struct ShardHandle {
    /// Number of the shard, from 0.
    pub index: usize,
    /// Wakes it.
    pub waker: Arc<dyn Wake>,
}

/// A running receiver: its discovery, listeners and other shared parts.
pub trait ReceiverNode: Send {
    /// The half that shard `shard` runs. Called once per shard, before [`ReceiverNode::start`].
    fn source(&mut self, shard: &ShardHandle) -> Box<dyn Source>;

    /// Takes what it can get only from outside and nobody else may have, such as an address to listen
    /// at. Called before anything of what runs is changed, so that a failure changes nothing; what was
    /// taken is given back when the node is dropped.
    ///
    /// # Errors
    /// It is not to be had.
    fn acquire(&mut self) -> Result<(), BuildError> {
        Ok(())
    }

    /// Starts discovery, listeners and the like. Nothing may run before this call.
    fn start(&mut self) -> Result<(), BuildError>;

    /// Goes on with the settings of `next`, which was built for the same lane and is not started: at a
    /// moment of its own choice, without giving up anything that is open or under way, and under the
    /// name that it has. Called if the settings said
    /// [`Succession::InPlace`](crate::factory::Succession::InPlace), also where only other lanes of the
    /// receiver come or go; before those that were built with `next` and are new are started.
    fn take_over(&mut self, _next: Box<dyn ReceiverNode>) {}

    /// For [`ReceiverNode::take_over`], which has to know nodes of its own kind.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;

    /// Where it is asked which files it reads, if it reads files. Stays good while the node is there,
    /// whatever it takes over.
    fn files(&self) -> Option<Arc<dyn TailedFiles>> {
        None
    }

    /// Stops taking in anything new; sources go on until they are drained.
    fn stop(&mut self);
}

/// What an exporter has on disk, where it stays when the exporter stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stored {
    /// Requests that are not delivered.
    pub requests: u64,
    /// Bytes of the files that they are in.
    pub bytes: u64,
}

/// A running exporter: its queue and sender.
pub trait ExporterNode: Send {
    /// The half that shard `shard` runs.
    fn front(&mut self, shard: &ShardHandle) -> Box<dyn Exporter>;

    /// Starts the sender. Nothing may run before this call.
    fn start(&mut self) -> Result<(), BuildError>;

    /// For how long there has been something to send while nothing was accepted; for health.
    fn stalled_for(&self) -> Duration {
        Duration::ZERO
    }

    /// What it has on disk now; after [`ExporterNode::stop`], what stays there.
    fn stored(&self) -> Stored {
        Stored::default()
    }

    /// Where its queue on disk is, if it has one.
    fn queue_dir(&self) -> Option<&Path> {
        None
    }

    /// Stops when everything is sent or `deadline` has passed; what is left then is resolved as
    /// [`crate::Outcome::Retry`], what is on disk stays there. Returns the number of records left.
    fn stop(&mut self, deadline: Mono) -> u64;
}

/// A running extension.
pub trait ExtensionNode: Send {
    /// Starts it.
    fn start(&mut self) -> Result<(), BuildError>;

    /// What it offers to components that name it as their authenticator.
    fn authenticator(&self) -> Option<Authenticator> {
        None
    }

    /// Told once all pipelines run, and again (false) when they begin to stop.
    fn pipelines_ready(&mut self, _ready: bool) {}

    /// Stops it.
    fn stop(&mut self);
}

/// Why a node could not be built or started. Carries what a person needs to mend it.
#[derive(Debug, thiserror::Error)]
#[error("{node}: {message}")]
pub struct BuildError {
    /// The node, as `kind "id"`.
    pub node: String,
    /// What went wrong and what to do.
    pub message: String,
}

impl BuildError {
    /// An error of `node`.
    pub fn new(node: impl Into<String>, message: impl Into<String>) -> BuildError {
        BuildError {
            node: node.into(),
            message: message.into(),
        }
    }
}
