//! OTLP/JSON to and from protobuf, as the OTLP specification maps them: lowerCamelCase names,
//! 64 bit integers as strings, trace and span ids in hexadecimal, other bytes in base64,
//! enumerations as numbers.
//!
//! Read is more than is written: names of the `.proto` files, names of enumerators, numbers where
//! strings are due and the other way round, base64 of both alphabets with and without padding.
//! Names that are not known are passed over, `null` is the default. Of a name that comes twice in
//! an object, and of the members of a `oneof`, the last one counts.
//!
//! Protobuf is written as encoders do: fields by number, numbers that repeat packed, default values
//! of fields that do not tell them from none left out. JSON is written without white space, names in
//! the order of the `.proto` files. What was written by one comes back from the other byte by byte.

mod read;
mod write;

use bytes::Bytes;

use super::limits::Limits;
use super::{Encoded, WireError, schema, walk};
use crate::Signal;

/// JSON that is not a request of its signal.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{problem}, at line {line} column {column} in {path}")]
pub struct JsonError {
    /// What is wrong.
    pub problem: String,
    /// From 1 on.
    pub line: usize,
    /// From 1 on, in bytes; 0 at the very beginning of a line.
    pub column: usize,
    /// The field, from the request on, as `resourceLogs.scopeLogs.logRecords.body`; `the request`
    /// outside of all.
    pub path: String,
}

/// A request in JSON as one in protobuf. Of `limits`, the depth is kept here, in messages as
/// [`Encoded::parse`] counts them; the rest is left to it. JSON is never read deeper than 128 objects and
/// lists.
pub fn to_proto(signal: Signal, json: &[u8], limits: &Limits) -> Result<Bytes, JsonError> {
    read::request(
        schema::request(signal),
        json,
        limits.depth.min(Limits::DEPTH_MAX),
    )
}

/// Appends a request in protobuf as one JSON object, without a line end. Fields that are not known
/// are left out. Refuses what [`Encoded::parse`] refuses, but for limits other than
/// [`Limits::DEPTH_MAX`]; `out` is as it was then.
pub fn from_proto(signal: Signal, proto: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
    let limits = Limits {
        depth: Limits::DEPTH_MAX,
        items: usize::MAX,
        scopes: usize::MAX,
        attributes: usize::MAX,
    };
    let root = schema::request(signal);
    walk::walk(root, proto, &limits)?;
    write::message(root, proto, out);
    Ok(())
}

/// Appends the message `buf`, which has been walked, as an object.
pub(super) fn object(message: &'static schema::Message, buf: &[u8], out: &mut Vec<u8>) {
    write::message(message, buf, out);
}

impl Encoded {
    /// Appends the request as one JSON object, as [`from_proto`] does.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        write::message(schema::request(self.signal()), &self.body(), out);
    }
}
