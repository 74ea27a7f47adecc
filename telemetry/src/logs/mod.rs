//! The agent's own log.
//!
//! A [`SelfLog`] is a `tracing` layer: it filters by level, limits how often one place in the code
//! may write, encodes in the collector's console or JSON form, and hands the line to a thread of
//! its own. Everything can be changed while it runs. Lines of dependencies are shown from `warn`
//! on only: at their debug levels some print headers, and headers hold secrets.
//!
//! Fields belong on events; spans are not shown.

mod encode;
mod lines;
mod output;
mod recent;
mod redact;
mod sampling;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

pub use encode::Encoding;
pub use lines::{
    EVERYTHING_IS_READY, EXPORT_DROPPED, EXPORT_RETRIED, MEMORY_REFUSED, QUEUE_FULL,
    SHUTDOWN_COMPLETE, STARTING_SHUTDOWN,
};
pub use output::OutputPath;
pub use redact::{REDACTED, is_secret_name, without_credentials};
pub use sampling::Sampling;

use crate::metrics::SelfLogMetrics;
use encode::{Frame, Line, encode_event, encode_suppressed};
use output::{Outputs, Writer};
use recent::Recent;
use sampling::{Sampler, Verdict};

/// How long a change of outputs waits for a writer that is busy.
const WRITER_PATIENCE: Duration = Duration::from_secs(2);
/// Crates of the product; others are dependencies.
const OWN_TARGET: &str = "tailwater";

/// Why the log could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// An output cannot be opened.
    #[error("cannot open the log output {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread that writes could not be started.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(std::io::Error),
    /// An output does not take lines.
    #[error("an output of the log is blocked")]
    Blocked,
    /// Another log was installed before.
    #[error("the process has a log already")]
    Installed,
}

/// How the agent writes its own log (`service::telemetry::logs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The least important level that is written.
    pub level: LevelFilter,
    /// The form of lines.
    pub encoding: Encoding,
    /// Limits per place in the code; `None` = every line is written.
    pub sampling: Option<Sampling>,
    /// Where lines go.
    pub output_paths: Vec<OutputPath>,
    /// Where trouble with those is told.
    pub error_output_paths: Vec<OutputPath>,
    /// Fields of every line: name and value as JSON text.
    pub initial_fields: Vec<(String, String)>,
    /// Leave out the place in the code.
    pub disable_caller: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            level: LevelFilter::INFO,
            encoding: Encoding::Console,
            sampling: Some(Sampling::default()),
            output_paths: vec![OutputPath::Stderr],
            error_output_paths: vec![OutputPath::Stderr],
            initial_fields: Vec::new(),
            disable_caller: false,
        }
    }
}

type Place = tracing::callsite::Identifier;

#[derive(Debug)]
struct Shared {
    settings: RwLock<Arc<LogSettings>>,
    /// By place; the metadata is kept to report what was left out there.
    sampler: Mutex<Sampler<PlaceKey>>,
    writer: Writer,
    recent: Arc<Recent>,
    metrics: Arc<SelfLogMetrics>,
    started: Instant,
}

/// A place in the code, compared by its identity.
#[derive(Clone, Debug)]
struct PlaceKey(Place, &'static Metadata<'static>);

impl PartialEq for PlaceKey {
    fn eq(&self, other: &PlaceKey) -> bool {
        self.0 == other.0
    }
}
impl Eq for PlaceKey {}
impl std::hash::Hash for PlaceKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// The agent's own log: a layer to install and a handle to change it. Clones share everything.
#[derive(Clone, Debug)]
pub struct SelfLog {
    shared: Arc<Shared>,
}

impl SelfLog {
    /// Opens the outputs and starts the writer.
    ///
    /// # Errors
    /// [`LogError::Open`] names the output that cannot be opened.
    pub fn new(settings: LogSettings, metrics: Arc<SelfLogMetrics>) -> Result<SelfLog, LogError> {
        let outputs = Outputs::open(&settings.output_paths, &settings.error_output_paths)?;
        let recent = Arc::new(Recent::default());
        let shared = Shared {
            writer: Writer::start(outputs, metrics.clone(), recent.clone())?,
            recent,
            settings: RwLock::new(Arc::new(settings)),
            sampler: Mutex::default(),
            metrics,
            started: Instant::now(),
        };
        Ok(SelfLog {
            shared: Arc::new(shared),
        })
    }

    /// A subscriber with this log as its only layer.
    pub fn subscriber(&self) -> impl Subscriber + Send + Sync + 'static {
        use tracing_subscriber::layer::SubscriberExt;
        tracing_subscriber::registry().with(self.clone())
    }

    /// Makes this the log of the whole process.
    ///
    /// # Errors
    /// [`LogError::Installed`] if there is one already.
    pub fn install(&self) -> Result<(), LogError> {
        tracing::subscriber::set_global_default(self.subscriber()).map_err(|_| LogError::Installed)
    }

    /// Takes new settings into use. Outputs are opened first: after an error everything is as it
    /// was.
    ///
    /// # Errors
    /// [`LogError::Open`], or [`LogError::Blocked`] if the present outputs do not take lines.
    pub fn reconfigure(&self, settings: LogSettings) -> Result<(), LogError> {
        let old = self.settings();
        let same = old.output_paths == settings.output_paths
            && old.error_output_paths == settings.error_output_paths;
        if !same {
            let outputs = Outputs::open(&settings.output_paths, &settings.error_output_paths)?;
            self.shared.writer.replace(outputs, WRITER_PATIENCE)?;
        }
        *self
            .shared
            .settings
            .write()
            .unwrap_or_else(|e| e.into_inner()) = Arc::new(settings);
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// Opens files anew, after they were rotated.
    ///
    /// # Errors
    /// [`LogError::Blocked`] if an output does not take lines.
    pub fn reopen(&self) -> Result<(), LogError> {
        self.shared.writer.reopen(WRITER_PATIENCE)
    }

    /// The newest lines that were written, as they were written, the oldest first: 256 KiB of them.
    pub fn recent(&self) -> String {
        self.shared.recent.text()
    }

    /// Writes how many lines were left out in windows that are over. Call it about once a tick.
    pub fn report_suppressed(&self) {
        self.report(false);
    }

    /// Reports everything left out and waits until all lines are written.
    ///
    /// # Errors
    /// [`LogError::Blocked`] if that takes longer than twice `timeout`.
    pub fn flush(&self, timeout: Duration) -> Result<(), LogError> {
        self.report(true);
        self.shared.writer.flush(timeout)
    }

    fn settings(&self) -> Arc<LogSettings> {
        self.shared
            .settings
            .read()
            .unwrap_or_else(|e| e.into_inner())
            .clone()
    }

    fn report(&self, all: bool) {
        let settings = self.settings();
        let Some(sampling) = &settings.sampling else {
            return;
        };
        let now = self.shared.started.elapsed();
        let left_out = {
            let mut sampler = self
                .shared
                .sampler
                .lock()
                .unwrap_or_else(|e| e.into_inner());
            sampler.report(sampling, now, all)
        };
        for (place, lines) in left_out {
            let line = encode_suppressed(place.1, lines, &frame(&settings, 0));
            self.shared.writer.write(line);
        }
    }

    fn takes(&self, meta: &Metadata<'_>) -> bool {
        let own = meta.target().starts_with(OWN_TARGET);
        meta.is_event()
            && *meta.level() <= self.settings().level
            && (own || *meta.level() <= Level::WARN)
    }
}

fn frame(settings: &LogSettings, suppressed: u64) -> Frame<'_> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Frame {
        encoding: settings.encoding,
        unix_ns: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        caller: !settings.disable_caller,
        initial: &settings.initial_fields,
        suppressed,
    }
}

impl<S: Subscriber> Layer<S> for SelfLog {
    fn register_callsite(&self, meta: &'static Metadata<'static>) -> Interest {
        if self.takes(meta) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, meta: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.takes(meta)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.settings().level)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let settings = self.settings();
        let mut suppressed = 0;
        if let Some(sampling) = &settings.sampling {
            let place = PlaceKey(event.metadata().callsite(), event.metadata());
            let now = self.shared.started.elapsed();
            let mut sampler = self
                .shared
                .sampler
                .lock()
                .unwrap_or_else(|e| e.into_inner());
            match sampler.admit(sampling, place, now) {
                Verdict::Write { suppressed: before } => suppressed = before,
                Verdict::Suppress => {
                    self.shared.metrics.lines_suppressed.inc();
                    return;
                }
            }
        }
        let line: Line = encode_event(event, &frame(&settings, suppressed));
        self.shared.writer.write(line);
    }
}

#[cfg(test)]
mod tests;
