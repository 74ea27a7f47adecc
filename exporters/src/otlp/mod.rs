//! The OTLP exporters: `otlp_http` (`otlphttp`) and `otlp_grpc` (`otlp`).
//!
//! What came as OTLP is sent as the bytes it came as: requests are put side by side or cut apart,
//! never encoded again (`front`). Records of files are encoded from their columns. A body is
//! compressed in the shard (`packing`, `compress`) and sent by [`crate::delivery`]; `judge` tells it
//! what an answer means.
//!
//! **Order.** Requests have no lanes: OTLP promises no order, and one request at a time would cost a
//! round trip each. They leave in the order in which they were made, up to `num_consumers` at the
//! same time; one that has to be sent again is overtaken.

mod answer;
mod compress;
mod config;
mod front;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod judge;
mod node;
mod packing;

pub use compress::Compression;
pub use config::{Common, OtlpGrpcSettings, OtlpHttpSettings};
pub use judge::OnConfigurationError;
pub use node::{grpc_factory, http_factory};
pub use packing::Form;
