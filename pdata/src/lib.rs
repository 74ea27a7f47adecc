//! The data model of Tailwater: logs as columns over shared read buffers.
//!
//! A [`LogsBatch`] holds the records of one read (or one request): one immutable text buffer that
//! was filled by the read, an arena for text that had to be computed, and columns of times,
//! severities, bodies and attributes that point into them. A log line is therefore read once and
//! not copied again until it is encoded into an outgoing request.
//!
//! This crate knows no threads, files, sockets or components. Text is kept as bytes: it is valid
//! UTF-8 unless a receiver was told to keep raw bytes (`utf-8-raw`, `nop`), so readers that need
//! `str` go through [`ValueRef::to_str_lossy`].
//!
//! ```
//! use tailwater_pdata::{LogsBatch, ValueRef};
//! let batch = LogsBatch::from_lines(b"one\ntwo\n".as_slice().into(), &[(0, 3), (4, 3)]);
//! assert_eq!(batch.rows(), 2);
//! assert_eq!(batch.body(1), Some(ValueRef::Str(b"two")));
//! ```

mod column;
mod entry;
mod json_text;
mod logs;
mod map_build;
mod number;
pub mod otlp;
mod rows;
mod signal;
mod text;
mod value;

pub use column::{Cell, Column, Columns, Key};
pub use entry::Entry;
pub use logs::{
    LogsBatch, OtlpFields, ResourceFields, Scope, Severities, SourceRows, Times, TraceColumns,
};
pub use number::Digits;
pub use signal::Signal;
pub use text::{Slice, Text};
pub use value::{Map, Value, ValueRef};
