//! What the processors of OTTL share: how groups of statements and conditions are written, what an error
//! does, and items of a request as the language sees them.

mod config;
mod histograms;
mod items;
mod metrics;
mod report;

pub use config::{ConditionGroup, ErrorMode, StatementGroup};
pub(crate) use config::{condition_groups, conditions_of, error_mode, statement_groups};
pub(crate) use items::{Around, Item};
pub(crate) use metrics::edit as edit_metric;
pub(crate) use report::Report;
