//! From configuration to a running receiver.

use std::any::Any;
use std::sync::Arc;
use std::thread::JoinHandle;

use sha2::{Digest, Sha256};
use tailwater_config::{Errors, KeyPath, Node, ProcessEnvironment, Section};
use tailwater_pipeline::checkpoint::CheckpointHandle;
use tailwater_pipeline::factory::{NodeCx, ReceiverFactory, ReceiverSettings, Succession};
use tailwater_pipeline::lanes::Lane;
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{
    BuildError, DropReason, Progress, ReceiverNode, ShardHandle, Source, SourceCx,
};
use tailwater_telemetry::metrics::{Accounting, JournalMetrics, ReceiverMetrics};

use super::child::{Lines, Reading};
use super::config::JournaldConfig;
use super::source::{JournaldSource, Parts};
use crate::input::constants::Constants;
use crate::operators::{BuildCx, Chain};

/// The value of the label `transport`.
const TRANSPORT: &str = "journald";
/// Names up to this length are a part of their key.
const NAME_BYTES_MAX: usize = 200;
/// Where the system's journals are, and what tells this system's from others.
const SYSTEM: [&str; 3] = ["/var/log/journal", "/run/log/journal", "/etc/machine-id"];

/// The factory of `journald`.
pub fn factory() -> ReceiverFactory {
    ReceiverFactory {
        kind: "journald",
        about: "reads systemd's journal through journalctl",
        signals: &["logs"],
        decode,
    }
}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ReceiverSettings>> {
    Some(Box::new(JournaldSettings::decode(node, path, errors)?))
}

/// A decoded configuration.
pub struct JournaldSettings {
    config: JournaldConfig,
    path: KeyPath,
}

impl JournaldSettings {
    /// Reads the section. `None` only together with an error.
    pub fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<JournaldSettings> {
        let before = errors.len();
        let mut section = Section::new(node, path, errors);
        let config = JournaldConfig::decode(&mut section);
        section.finish();
        let wanted = JournaldSettings {
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

    /// The options as they were read.
    pub fn config(&self) -> &JournaldConfig {
        &self.config
    }

    fn chain(&self) -> Result<Chain, Errors> {
        let cx = BuildCx {
            path: self.path.child("operators"),
            environment: &ProcessEnvironment,
        };
        Chain::build_behind(None, &self.config.operators, &cx)
    }

    fn constants(&self) -> Result<Constants, Box<tailwater_config::ConfigError>> {
        let (attributes, resource) = (&self.config.attributes, &self.config.resource);
        Constants::compile(&self.path, attributes, resource)
    }

    /// Builds the nodes of `lanes`.
    ///
    /// # Errors
    /// There is no store of positions.
    pub fn nodes(&self, cx: &NodeCx, lanes: &[Lane]) -> Result<Vec<JournaldNode>, BuildError> {
        let storage = self.config.storage.as_ref().map(|id| id.to_string());
        let store = cx.storages.open(storage.as_deref())?;
        let node = |lane: &Lane| {
            let chain = self.chain().map_err(|e| error(cx, e.to_string()))?;
            let constants = self.constants().map_err(|e| error(cx, e.to_string()))?;
            Ok(JournaldNode {
                config: self.config.clone(),
                cx: NodeCx {
                    metrics: lane.metrics.clone(),
                    budget: lane.budget.clone(),
                    ..cx.clone()
                },
                store: store.clone(),
                key: key(&lane.name(&cx.id)),
                rules: Some((chain, constants)),
                lines: None,
                thread: None,
            })
        };
        lanes.iter().map(node).collect()
    }
}

/// What the cursor of a lane is stored under.
fn key(name: &str) -> Arc<[u8]> {
    if name.len() <= NAME_BYTES_MAX {
        return name.as_bytes().into();
    }
    let hash = Sha256::digest(name.as_bytes());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("journald {hash}").into_bytes().into()
}

impl ReceiverSettings for JournaldSettings {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn takes_in_again(&self) -> bool {
        true
    }

    fn storage(&self) -> Option<String> {
        self.config.storage.as_ref().map(ToString::to_string)
    }

    fn succession(&self, running: &dyn ReceiverSettings) -> Succession {
        let running = running.as_any().downcast_ref::<JournaldSettings>();
        match running.is_some_and(|r| r.config.storage == self.config.storage) {
            true => Succession::Replace,
            false => Succession::Restart(
                "storage: where the cursor is stored cannot change while the agent runs, since the one that \
                 there is would stay behind; restart the agent"
                    .to_owned(),
            ),
        }
    }

    fn build(&self, cx: &NodeCx, lanes: &[Lane]) -> Result<Vec<Box<dyn ReceiverNode>>, BuildError> {
        let nodes = self.nodes(cx, lanes)?.into_iter();
        Ok(nodes.map(|node| Box::new(node) as _).collect())
    }

    fn reach(&self, reach: &mut Reach) {
        let c = &self.config;
        reach.executes(&c.executable());
        if let Some(root) = &c.root {
            // The program is in there, and all that it needs.
            return reach.executes(root);
        }
        let given = c.places.iter().map(|place| place.as_path());
        for place in SYSTEM.iter().map(std::path::Path::new).chain(given) {
            reach.reads_below(place);
        }
    }
}

fn error(cx: &NodeCx, message: impl Into<String>) -> BuildError {
    BuildError::new(format!("receiver {:?}", cx.id), message)
}

/// The node of one lane.
pub struct JournaldNode {
    config: JournaldConfig,
    cx: NodeCx,
    store: CheckpointHandle,
    key: Arc<[u8]>,
    /// Until there is a source.
    rules: Option<(Chain, Constants)>,
    lines: Option<Arc<Lines>>,
    thread: Option<JoinHandle<()>>,
}

impl JournaldNode {
    fn id(&self) -> Arc<str> {
        Arc::from(self.cx.id.to_string())
    }

    fn journal(&self) -> Arc<JournalMetrics> {
        JournalMetrics::new(&self.cx.metrics, &self.cx.id)
    }
}

impl ReceiverNode for JournaldNode {
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn source(&mut self, shard: &ShardHandle) -> Box<dyn Source> {
        let Some((chain, constants)) = self.rules.take() else {
            // One log goes through one shard.
            return Box::new(NoSource);
        };
        let lines = Lines::new(shard.waker.clone());
        self.lines = Some(lines.clone());
        let (metrics, id) = (&self.cx.metrics, &self.cx.id);
        let parts = Parts {
            lines,
            chain,
            constants,
            message_bytes: self.config.message_bytes,
            conventions: self.config.conventions,
            store: (self.store.clone(), self.key.clone()),
            account: Accounting::new(metrics, "receiver", id, DropReason::NAMES),
            metrics: ReceiverMetrics::new(metrics, id, TRANSPORT),
            journal: self.journal(),
            budget: self.cx.budget.clone(),
            clock: self.cx.clock.clone(),
            id: self.id(),
        };
        Box::new(JournaldSource::new(parts, shard))
    }

    fn start(&mut self) -> Result<(), BuildError> {
        let Some(lines) = &self.lines else {
            return Ok(());
        };
        let stored = self.store.get(&self.key);
        let cursor = stored.and_then(|stored| String::from_utf8(stored.payload).ok());
        let config = self.config.clone();
        let reading = Reading {
            command: Box::new(move |cursor| config.command(cursor)),
            cursor,
            line_bytes_max: self.config.entry_bytes_max,
            metrics: self.journal(),
            id: self.id(),
        };
        let thread = reading.start(lines.clone());
        self.thread = Some(thread.map_err(|e| error(&self.cx, format!("no thread: {e}")))?);
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(lines) = &self.lines {
            lines.stop();
        }
    }
}

impl Drop for JournaldNode {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The half in a shard that has nothing to do.
struct NoSource;

impl Source for NoSource {
    fn poll(&mut self, _cx: &mut dyn SourceCx) -> Progress {
        Progress::Idle(None)
    }

    fn drain(&mut self, _cx: &mut dyn SourceCx) -> bool {
        true
    }
}
