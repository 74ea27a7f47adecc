//! Log lines that users search for. They are written with exactly these words, as the collector
//! writes them, so that alerts on them go on working.
//!
//! Write them as `tracing::info!("{EVERYTHING_IS_READY}")`: a bare constant would become a field.

/// All pipelines run.
pub const EVERYTHING_IS_READY: &str = "Everything is ready. Begin running and processing data.";
/// The agent was asked to stop.
pub const STARTING_SHUTDOWN: &str = "Starting shutdown...";
/// The agent has stopped; nothing follows.
pub const SHUTDOWN_COMPLETE: &str = "Shutdown complete.";
/// A request failed and is sent again. Goes with the fields `error` and `interval`.
pub const EXPORT_RETRIED: &str = "Exporting failed. Will retry the request after interval.";
/// Records were given up. Goes with the fields `error` and `dropped_items`.
pub const EXPORT_DROPPED: &str = "Exporting failed. Dropping data.";
/// The queue of an exporter is full.
pub const QUEUE_FULL: &str = "sending queue is full";
/// The memory limiter makes sources pause.
pub const MEMORY_REFUSED: &str = "data refused due to high memory usage";
