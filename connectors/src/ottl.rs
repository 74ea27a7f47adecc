//! What connectors with conditions share: how they are written, and what an error does.

use std::collections::BTreeSet;
use std::sync::Arc;

use tailwater_config::{ConfigError, KeyPath, Node, Section};
use tailwater_ottl::{Context, Fault, OttlError};
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::revise::{Level, TooMuch};
use tailwater_pipeline::ack::DropReason;
use tailwater_pipeline::factory::NodeCx;
use tailwater_telemetry::metrics::ConnectorOttlMetrics;

/// What becomes of an error at a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorMode {
    /// It is logged and counted, and goes for a condition that does not hold.
    Ignore,
    /// The same without a line in the log.
    Silent,
    /// What it is in is given up.
    Propagate,
}

/// The names of modes.
pub(crate) const MODES: [(&str, ErrorMode); 3] = [
    ("ignore", ErrorMode::Ignore),
    ("silent", ErrorMode::Silent),
    ("propagate", ErrorMode::Propagate),
];

/// What `compile` makes of a text; its mistake is the section's.
pub(crate) fn compiled<T>(
    s: &mut Section<'_, '_>,
    (text, node, path): (&str, &Node, KeyPath),
    compile: impl FnOnce(&str) -> Result<T, OttlError>,
) -> Option<T> {
    match compile(text) {
        Ok(made) => Some(made),
        Err(error) => {
            let error = ConfigError::new(node.span.clone(), path, error.to_string());
            s.errors().push(error);
            None
        }
    }
}

/// The outermost of `contexts` from which all of `named` can be reached.
pub(crate) fn context_for(named: &BTreeSet<Context>, contexts: &[Context]) -> Option<Context> {
    let reaches = |c: &&Context| named.iter().all(|n| c.reaches().contains(n));
    contexts.iter().find(reaches).copied()
}

/// How deep what a context is about is in a request.
pub(crate) fn level(context: Context) -> Level {
    match context {
        Context::Resource => Level::Resource,
        Context::Scope => Level::Scope,
        Context::Log | Context::Span | Context::Metric => Level::Item,
        Context::SpanEvent | Context::DataPoint => Level::Part,
    }
}

/// What went wrong with one batch, so that it makes a line of the log at most once.
#[derive(Default)]
pub(crate) struct Trouble {
    errors: u64,
    logged: u64,
    /// The first error that is to be logged: what failed, and why.
    first: Option<(String, Fault)>,
    too_much: Option<TooMuch>,
    /// An error that gives up what is looked at now.
    fatal: bool,
}

impl Trouble {
    /// Takes an error.
    pub fn error(&mut self, mode: ErrorMode, text: &str, fault: Fault) {
        self.errors += 1;
        if mode != ErrorMode::Silent {
            self.logged += 1;
            self.first.get_or_insert_with(|| (text.to_owned(), fault));
        }
        self.fatal |= mode == ErrorMode::Propagate;
    }

    /// What is looked at could not be gone through.
    pub fn too_much(&mut self, why: TooMuch) {
        self.too_much = Some(why);
    }

    /// Why what is looked at is given up, if it is. Asked once for each part.
    pub fn gives_up(&mut self, connector: &str) -> Option<DropReason> {
        let fatal = std::mem::take(&mut self.fatal);
        if let Some(why) = self.too_much.take() {
            tracing::warn!(connector, error = %why, "OTTL could not be carried out");
            return Some(DropReason::TooLarge);
        }
        fatal.then_some(DropReason::OperatorError)
    }
}

/// Where trouble is told.
pub(crate) struct Report {
    id: Arc<str>,
    metrics: Arc<ConnectorOttlMetrics>,
}

impl Report {
    pub fn new(cx: &NodeCx) -> Report {
        let signal = cx.signal.map_or("logs", Signal::as_str);
        Report {
            id: cx.id.clone(),
            metrics: ConnectorOttlMetrics::new(&cx.metrics, &cx.id, signal),
        }
    }

    /// The connector.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Counts and logs what was collected.
    pub fn tell(&self, trouble: Trouble) {
        if trouble.errors > 0 {
            self.metrics.errors.inc_by(trouble.errors);
        }
        if let Some((text, fault)) = trouble.first {
            tracing::warn!(
                connector = %self.id,
                ottl = %text,
                records = trouble.logged,
                error = %fault,
                "OTTL could not be carried out"
            );
        }
    }
}
