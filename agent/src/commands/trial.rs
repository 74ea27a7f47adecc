//! `try`: what the components of a pipeline make of lines or records, step by step, without anything
//! being started, sent or stored.

mod choose;
mod heard;
mod input;
mod journey;
mod record;
mod table;

use std::io::{ErrorKind, IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tailwater_pdata::LogsBatch;
use tailwater_pipeline::checkpoint::CheckpointHandle;
use tailwater_pipeline::clock::{Clock, Mono, SimClock, SystemClock};
use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::graph::Trial;
use tailwater_pipeline::storage::Storages;
use tailwater_pipeline::trial::ReceiverTrial;
use tailwater_pipeline::{Budget, BuildError};
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::MetricsRegistry;

use super::check::{Checked, check, complain, warn};
use super::top::Looks;
use crate::cli::{TrialFormat, TryArgs, exit};
use input::Input;
use journey::Journeys;
use table::Table;

/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;
/// Records that may be under way before time goes on.
const UNDER_WAY_MAX: usize = 1_000;
/// Memory for records under way.
const BUDGET_BYTES: usize = 256 << 20;
/// What is kept for longer is passed on as at a stop.
const WAIT_MAX: Duration = Duration::from_secs(3_600);
/// Turns of the clock in a wait at most.
const TURNS_MAX: usize = 10_000;

/// `tailwater try`.
pub fn try_out(args: &TryArgs) -> Result<u8> {
    let checked = match check(&args.config) {
        Ok(checked) => checked,
        Err(errors) => return Ok(complain(&errors)),
    };
    warn(&checked.warnings);
    tracing::subscriber::with_default(heard::Heard, || run(&checked, args))
}

fn run(checked: &Checked, args: &TryArgs) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let clock = Arc::new(SimClock::new(SystemClock::default().wall_ns()));
    let cx = node_cx(&runtime, clock.clone());
    let (file, resolved) = (&checked.loaded.file, &checked.resolved);
    let has_lines = |id: &str| resolved.receiver_trial(id, Path::new(""), &cx).is_some();
    let choice = choose::choose(file, args, &has_lines)?;
    let input = input::open(args)?;
    let path = match &input {
        Input::Lines(_, path) => path.as_path(),
        Input::Entries(_) => Path::new(""),
    };
    let id = choice.receiver.as_deref();
    let receiver = id.and_then(|id| resolved.receiver_trial(id, path, &cx));
    let lines = receiver.transpose()?;
    let graph = resolved.trial(&choice.pipeline, &cx)?;
    let looks = Looks::of_environment();
    let colours = looks.colours && std::io::stdout().is_terminal();
    let table = Table::new(file, &choice, colours, looks.unicode);
    let mut course = Course {
        journeys: Journeys::new(&choice, args.format == TrialFormat::Json, table),
        lines,
        graph,
        clock,
        limit: args.limit,
    };
    let more = match input {
        Input::Lines(reader, _) => course.lines(reader)?,
        Input::Entries(entries) => {
            let more = entries.len() as u64 > course.limit;
            for entry in entries.iter().take(usize::try_from(course.limit)?) {
                course.one(LogsBatch::from_entries(std::slice::from_ref(entry)))?;
            }
            more
        }
    };
    course.settle()?;
    course.journeys.end()?;
    if more {
        let limit = course.limit;
        eprintln!("stopped after {limit} records, there are more: see --limit");
    }
    Ok(exit::OK)
}

/// What nodes are built with: no storage, no listener, no authenticator, and time that is told.
fn node_cx(runtime: &tokio::runtime::Runtime, clock: Arc<SimClock>) -> NodeCx {
    NodeCx {
        id: "".into(),
        pipeline: None,
        signal: None,
        shards: 1,
        clock,
        seed: 1,
        budget: Budget::new(BUDGET_BYTES),
        metrics: Arc::new(MetricsRegistry::default()),
        health: Arc::new(HealthRegistry::new()),
        runtime: runtime.handle().clone(),
        listeners: Arc::default(),
        connections: Arc::default(),
        storages: Arc::new(NoStorages),
        authenticators: Default::default(),
        agent: None,
    }
}

/// Nothing is stored.
struct NoStorages;

impl Storages for NoStorages {
    fn open(&self, _: Option<&str>) -> Result<CheckpointHandle, BuildError> {
        Err(BuildError::new("try", "nothing is stored"))
    }
}

/// Records on their way.
struct Course<'a> {
    lines: Option<Box<dyn ReceiverTrial>>,
    graph: Trial,
    clock: Arc<SimClock>,
    journeys: Journeys<'a>,
    limit: u64,
}

impl Course<'_> {
    /// Tries the lines of a content, up to the limit. True if there are more.
    fn lines(&mut self, mut reader: Box<dyn Read>) -> Result<bool> {
        let mut content = Vec::new();
        let mut buf = vec![0; READ_BYTES];
        loop {
            let read = match reader.read(&mut buf) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                read => read.context("cannot read the input")?,
            };
            content.extend_from_slice(&buf[..read]);
            let last = read == 0;
            let Some(lines) = &mut self.lines else {
                return Ok(false);
            };
            let before = content.len();
            let records = lines.cut(&mut content, last);
            let stuck = content.len() == before;
            for record in records {
                if self.journeys.count() == self.limit {
                    return Ok(true);
                }
                self.one(record)?;
            }
            if last && (content.is_empty() || stuck) {
                return Ok(false);
            }
        }
    }

    /// Tries a record.
    fn one(&mut self, batch: LogsBatch) -> Result<()> {
        let number = self.journeys.comes(&batch);
        let records = match &mut self.lines {
            Some(lines) => lines.operate(number, batch, &mut self.journeys),
            None => vec![(number, batch)],
        };
        for (number, batch) in records {
            self.graph.run(number, batch, &mut self.journeys);
        }
        if self.journeys.under_way() >= UNDER_WAY_MAX {
            self.settle()?;
        }
        self.journeys.show_before(self.held())
    }

    /// The first record that waits somewhere.
    fn held(&self) -> Option<u64> {
        let lines = self.lines.as_ref().and_then(|l| l.held());
        lines.into_iter().chain(self.graph.held()).min()
    }

    /// Lets time go on until nothing waits any more.
    fn settle(&mut self) -> Result<()> {
        let begin = self.clock.now();
        for _ in 0..TURNS_MAX {
            let lines = self.lines.as_ref().and_then(|l| l.deadline());
            let lines = lines.map(|d| Mono::default().after(d));
            let next = lines.into_iter().chain(self.graph.deadline()).min();
            let (Some(next), Some(_)) = (next, self.held()) else {
                break;
            };
            if next.since(begin) > WAIT_MAX {
                break;
            }
            // At least a little, should something be due at once and stay so.
            let step = next.since(self.clock.now()).max(Duration::from_millis(1));
            self.clock.advance(step);
            self.tick();
        }
        self.graph.flush(&mut self.journeys);
        self.journeys.show_before(self.held())
    }

    fn tick(&mut self) {
        if let Some(lines) = &mut self.lines {
            for (number, batch) in lines.tick(&mut self.journeys) {
                self.graph.run(number, batch, &mut self.journeys);
            }
        }
        self.graph.tick(&mut self.journeys);
    }
}
