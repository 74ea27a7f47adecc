//! What is remembered of a batch until it is settled.

use std::sync::Arc;

use tailwater_telemetry::metrics::FilterCount;

use super::position::Position;

/// A batch of one file that is under way.
#[derive(Debug)]
pub struct UnderWay {
    /// Where the file stands when it is settled.
    pub position: Arc<Position>,
    /// Records of it that operators removed on purpose. They count when the rest is settled: until
    /// then they may be read again.
    pub filtered: Vec<(Arc<FilterCount>, u64)>,
}
