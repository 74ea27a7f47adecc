//! What the agent says about itself.
//!
//! * [`metrics`]: counters under the collector's names, the accounting identity, the text a scrape
//!   gets.
//! * [`logs`]: the agent's own log, limited per place in the code and written by its own thread.
//! * [`settings`]: the section `service::telemetry`.
//! * [`health`]: states, alarms and progress of components, and what follows from them.
//!
//! ```
//! use tailwater_telemetry::metrics::{Accounting, Amount, MetricsRegistry, ReceiverMetrics};
//!
//! let registry = MetricsRegistry::default();
//! let metrics = ReceiverMetrics::new(&registry, "filelog/app", "file");
//! let account = Accounting::new(&registry, "receiver", "filelog/app", &["too_old"]);
//! account.read(Amount::new(100, 12_000));
//! metrics.accepted_log_records.inc_by(100);
//! assert_eq!(account.snapshot().in_flight, Amount::new(100, 12_000));
//! assert!(registry.render().contains("otelcol_receiver_accepted_log_records"));
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod health;
mod json_text;
pub mod logs;
pub mod metrics;
pub mod settings;
mod time_text;

pub use time_text::{go_duration, rfc3339_nano};
