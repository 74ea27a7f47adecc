//! The judges the product is tested against, also used by `tailwater demo`.
//!
//! * [`loki::FakeLoki`]: a real HTTP server on a loopback port that answers pushes the way Loki
//!   does, its limits, partial rejections, misleading successes and faults included.
//! * [`otlp::OtlpStandIn`]: a backend for OTLP over HTTP and gRPC that records what comes, and answers
//!   as it is told to.
//! * [`writer::LogWriter`]: writes log files as container runtimes and applications do (CRI,
//!   Docker json-file, plain) and rotates them in every usual way.
//! * [`oracle::DeliveryOracle`]: knows what was written, is told what arrived, and says exactly
//!   what is missing, repeated, out of order or damaged.
//! * [`postgres::Postgres`]: a real PostgreSQL, where there is one.
//! * [`ports`]: where servers listen that go away and come back.
//! * [`rng::Rng`] and [`tempdir::TempDir`]: what those need, and tests with them.
//!
//! The three meet in [`entry::EntryRef`]: the server hands every stored entry to a hook, and the
//! oracle is such a hook.
//!
//! ```
//! use tailwater_testkit::loki::{FakeLoki, LokiOptions};
//! use tailwater_testkit::oracle::DeliveryOracle;
//!
//! # fn main() -> std::io::Result<()> {
//! let oracle = DeliveryOracle::new();
//! let loki = FakeLoki::start(LokiOptions {
//!     on_entry: Some(oracle.hook()),
//!     ..LokiOptions::default()
//! })?;
//! assert!(loki.push_url().starts_with("http://127.0.0.1:"));
//! assert_eq!(oracle.report().totals.missing, 0);
//! # Ok(())
//! # }
//! ```
//!
//! Invariants: plain threads and blocking sockets, no async runtime (but for the stand-in for OTLP,
//! as gRPC needs HTTP/2: it runs hyper on a thread of its own); no dependency on any other
//! crate of this workspace, so a fault of the product cannot hide in its judge; servers listen on
//! 127.0.0.1 only; every random choice comes from a seed; every buffer has a limit.

mod crc;
pub mod entry;
pub mod http;
pub mod kubernetes;
pub mod loki;
pub mod message;
pub mod nats;
pub mod oracle;
pub mod otlp;
pub mod ports;
pub mod postgres;
pub mod rng;
pub mod tempdir;
pub mod time;
pub mod writer;
