//! Encodes push requests: the other side of the decoder, for tests and small clients.
//!
//! Written from the same table as [`super::proto`] and for clarity, not speed.

use super::push::{PushEntry, PushRequest};
use crate::time::NANOS_PER_SECOND;

/// A push request as protobuf, not compressed.
pub fn encode_push(request: &PushRequest<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for stream in &request.streams {
        let mut message = Vec::new();
        put_bytes(&mut message, 1, stream.labels.as_bytes());
        for entry in &stream.entries {
            put_bytes(&mut message, 2, &encode_entry(entry));
        }
        put_bytes(&mut out, 1, &message);
    }
    out
}

/// Compresses with the raw snappy block format, the only one Loki takes.
///
/// # Panics
/// Never for inputs below 4 GiB, the format's own limit.
pub fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new()
        .compress_vec(bytes)
        .expect("input is below the 4 GiB of the format")
}

fn encode_entry(entry: &PushEntry<'_>) -> Vec<u8> {
    let mut timestamp = Vec::new();
    put_number(
        &mut timestamp,
        1,
        entry.ts_ns.div_euclid(NANOS_PER_SECOND) as u64,
    );
    put_number(
        &mut timestamp,
        2,
        entry.ts_ns.rem_euclid(NANOS_PER_SECOND) as u64,
    );
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &timestamp);
    put_bytes(&mut out, 2, &entry.line);
    for (name, value) in &entry.metadata {
        let mut pair = Vec::new();
        put_bytes(&mut pair, 1, name.as_bytes());
        put_bytes(&mut pair, 2, value.as_bytes());
        put_bytes(&mut out, 3, &pair);
    }
    out
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A number field; zero is left out, as proto3 does.
fn put_number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        out.push(field << 3);
        put_varint(out, value);
    }
}
