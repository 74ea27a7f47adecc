//! The handles of processors that change or regroup what they are given.

use super::family::Family;
use super::group::{Group, metric_group};

metric_group! {
    /// What `redaction` did.
    pub struct RedactionMetrics { processor, otel_signal }
    /// Values that were masked or hashed. Resources that many batches share count once.
    values_masked: Counter, Basic, Count, "tailwater_redaction_values_masked";
    /// Attributes and fields of bodies that were removed.
    attributes_removed: Counter, Basic, Count, "tailwater_redaction_attributes_removed";
}

/// The metrics of all groups of this module.
pub(crate) const FAMILIES: &[&[Family]] = &[RedactionMetrics::FAMILIES];
