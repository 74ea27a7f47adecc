//! OTLP: requests of all three signals as protobuf and JSON.
//!
//! [`Encoded`] is a request as the bytes it came as, looked through once by [`Encoded::parse`]. What
//! no node looks into is passed on as these bytes.
//!
//! One table of the messages of OTLP (`schema`) tells the walker and both directions of JSON what
//! there is. What repeated values mean is what protobuf says: of a field that may come once and
//! comes several times the last value counts; messages that come several times are merged, which is
//! the same as their bytes one after the other; of several members of a `oneof` the last one counts.
//! Repeated numbers may be packed or not.
//!
//! ```
//! use tailwater_pdata::{Signal, otlp::{Encoded, Limits}};
//! // resource_logs { scope_logs { log_records {} log_records {} } }
//! let body = b"\x0a\x06\x12\x04\x12\x00\x12\x00".as_slice().into();
//! let logs = Encoded::parse(Signal::Logs, body, &Limits::default())?;
//! assert_eq!(logs.items(), 2);
//! # Ok::<(), tailwater_pdata::otlp::WireError>(())
//! ```

mod columns;
mod counts;
mod decode;
pub mod edit;
mod encode;
mod encoded;
mod error;
pub mod json;
mod limits;
pub mod metrics;
mod pick;
mod points;
mod regroup;
pub mod revise;
pub mod rewrite;
mod schema;
mod split;
mod value;
mod view;
mod walk;
mod wire;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(any(test, feature = "fuzzing"))]
pub mod oracle;
#[cfg(any(test, feature = "fuzzing"))]
pub mod samples;

#[cfg(test)]
mod edit_tests;
#[cfg(test)]
mod json_tests;
#[cfg(test)]
mod logs_tests;
#[cfg(test)]
mod pick_tests;
#[cfg(test)]
mod split_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod view_tests;

pub use counts::{Count, CountMetric, count_request};
pub use decode::decode_logs;
pub use encode::encode_logs;
pub use encoded::Encoded;
pub use error::{Problem, WireError};
pub use limits::Limits;
pub use pick::{PickLimits, Picked};
pub use regroup::Regrouped;
