//! What any parser can do besides: `timestamp`, `severity`, `trace`, `scope_name` and `body`.

use tailwater_pdata::LogsBatch;

use super::field::Field;
use super::operator::{Operator, OperatorCx, Rows};
use super::record_error::RecordError;
use super::scope::{ScopeName, ScopeNames};
use super::severity::SeverityParser;
use super::time::TimeParser;
use super::trace::TraceParser;

/// Parts of a record that a parser sets from fields it has just parsed.
#[derive(Debug, Default)]
pub(super) struct Embedded {
    /// The field that becomes the body.
    pub(super) body: Option<Field>,
    pub(super) time: Option<TimeParser>,
    pub(super) severity: Option<SeverityParser>,
    pub(super) trace: Option<TraceParser>,
    pub(super) scope: Option<ScopeName>,
}

impl Embedded {
    /// Treats the active rows. A field that is missing for the body is no error. The others are
    /// all tried and the first error is the one that counts, as in the collector.
    pub(super) fn process(&self, batch: &mut LogsBatch, rows: &mut Rows, cx: &OperatorCx) {
        let nothing = self.time.is_none() && self.severity.is_none() && self.trace.is_none();
        if nothing && self.body.is_none() && self.scope.is_none() {
            return;
        }
        let mut names = ScopeNames::default();
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            if let Some(cell) = self.body.as_ref().and_then(|f| f.cell(batch, row)) {
                batch.set_body(row, cell);
            }
            let mut result = Ok(());
            if let Some(time) = &self.time {
                result = result.and(time.apply(batch, row, cx.now_ns));
            }
            if let Some(severity) = &self.severity {
                let r = severity.apply(batch, row);
                result = result.and(r);
            }
            if let Some(trace) = &self.trace {
                let r = trace.apply(batch, row);
                result = result.and(r);
            }
            if let Some(scope) = &self.scope {
                let r = scope.apply(batch, row, &mut names);
                result = result.and(r);
            }
            if let Err(e) = result {
                rows.fail(row, || e);
            }
        }
    }
}

/// One of them as an operator of its own.
#[derive(Debug)]
pub(super) struct EmbeddedOperator(pub(super) Embedded);

impl Operator for EmbeddedOperator {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, cx: &mut OperatorCx) {
        self.0.process(batch, rows, cx);
    }
}

/// Error of a field that has to be there.
pub(super) fn required(field: &Field) -> impl Fn() -> RecordError + '_ {
    || field.missing()
}
