//! What is remembered of a batch until it is settled.

use std::sync::Arc;

use tailwater_telemetry::metrics::FilterCount;

use super::catalog::FileNo;
use super::position::Position;

/// A batch of one file that is under way.
#[derive(Debug)]
pub struct UnderWay {
    /// Where the file stands when it is settled.
    pub position: Arc<Position>,
    /// Records of it that operators removed on purpose. They count when the rest is settled: until
    /// then they may be read again.
    pub filtered: Vec<(Arc<FilterCount>, u64)>,
    /// It holds lines that are split over several files.
    pub joint: Option<Arc<Joint>>,
}

/// A batch that is the duty of several files.
///
/// INVARIANT: their positions pass it at the same time. If one did alone and the process ended
/// then, the next one would read the parts of a line in the others only.
#[derive(Debug)]
pub struct Joint {
    /// The files.
    pub files: Vec<FileNo>,
}

impl UnderWay {
    /// True if it is a duty of file `no`, too.
    pub fn has(&self, no: FileNo) -> bool {
        self.joint.as_ref().is_some_and(|j| j.files.contains(&no))
    }

    /// True if it is this file's part of `joint`.
    pub fn is_of(&self, joint: &Arc<Joint>) -> bool {
        self.joint.as_ref().is_some_and(|j| Arc::ptr_eq(j, joint))
    }
}
