//! What went wrong with the records of a batch.

use std::sync::Arc;

use tailwater_ottl::Fault;
use tailwater_pdata::otlp::revise::TooMuch;
use tailwater_pipeline::ack::DropReason;
use tailwater_pipeline::factory::NodeCx;
use tailwater_telemetry::metrics::OttlMetrics;

use super::ErrorMode;

/// Collects errors of one batch, so that each makes a line of the log at most once for it.
pub(crate) struct Report {
    metrics: Option<Arc<OttlMetrics>>,
    id: Arc<str>,
    errors: u64,
    /// The first error that is to be logged: what failed, and why.
    first: Option<(String, Fault)>,
    logged: u64,
    /// An error that ends the batch.
    fatal: bool,
    /// Why the batch could not be gone through.
    too_much: Option<TooMuch>,
}

impl Report {
    pub fn new(cx: &NodeCx) -> Report {
        let signal = cx.signal.map_or("logs", |s| s.as_str());
        Report {
            metrics: Some(OttlMetrics::new(&cx.metrics, &cx.id, signal)),
            id: cx.id.clone(),
            errors: 0,
            first: None,
            logged: 0,
            fatal: false,
            too_much: None,
        }
    }

    /// One that counts nowhere.
    pub fn uncounted() -> Report {
        Report {
            metrics: None,
            id: "ottl".into(),
            errors: 0,
            first: None,
            logged: 0,
            fatal: false,
            too_much: None,
        }
    }

    /// Takes an error; true if the batch is to be given up.
    pub fn error(&mut self, mode: ErrorMode, text: &str, fault: Fault) -> bool {
        self.errors += 1;
        if mode != ErrorMode::Silent {
            self.logged += 1;
            self.first.get_or_insert_with(|| (text.to_owned(), fault));
        }
        self.fatal |= mode == ErrorMode::Propagate;
        mode == ErrorMode::Propagate
    }

    /// The batch could not be gone through, so it is given up.
    pub fn too_much(&mut self, why: TooMuch) {
        self.too_much = Some(why);
    }

    /// Errors since the last [`Report::finish`].
    #[cfg(test)]
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Counts and logs what was collected; why the batch is given up, if it is.
    pub fn finish(&mut self) -> Option<DropReason> {
        let too_much = self.too_much.take();
        if let Some(why) = too_much {
            tracing::warn!(processor = %self.id, error = %why, "OTTL could not be carried out");
        }
        let too_large = too_much.map(|_| DropReason::TooLarge);
        if self.errors == 0 {
            return too_large;
        }
        if let Some(metrics) = &self.metrics {
            metrics.errors.inc_by(self.errors);
        }
        if let Some((text, fault)) = self.first.take() {
            tracing::warn!(
                processor = %self.id,
                ottl = %text,
                records = self.logged,
                error = %fault,
                "OTTL could not be carried out"
            );
        }
        (self.errors, self.logged) = (0, 0);
        let fatal = std::mem::take(&mut self.fatal);
        too_large.or(fatal.then_some(DropReason::OperatorError))
    }
}
