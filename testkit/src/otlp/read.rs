//! Reads of OTLP messages what tests ask about: how many items, and the lines of logs.

use std::io::Read;

use flate2::read::{MultiGzDecoder, ZlibDecoder};
use serde_json::Value;

/// Largest body after decompression.
const BODY_BYTES_MAX: u64 = 256 << 20;

/// What a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Log records.
    Logs,
    /// Metrics.
    Metrics,
    /// Spans.
    Traces,
}

/// Why a body is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadError(pub String);

/// A log record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// `time_unix_nano`.
    pub time_ns: i64,
    /// The body, if it is text.
    pub body: Vec<u8>,
    /// The attribute `log.file.name`.
    pub file: String,
}

/// What was read of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Log records, data points or spans.
    pub items: u64,
    /// The log records.
    pub lines: Vec<Line>,
}

/// Undoes a content encoding, as `confighttp` names them; `framed` tells the two kinds of snappy apart.
pub(super) fn decode(name: &str, body: &[u8], framed: bool) -> Result<Vec<u8>, ReadError> {
    let read = |from: &mut dyn Read| {
        let mut out = Vec::new();
        let done = from.take(BODY_BYTES_MAX).read_to_end(&mut out);
        done.map(|_| out)
            .map_err(|e| ReadError(format!("{name}: {e}")))
    };
    let fail = |e: &dyn std::fmt::Display| ReadError(format!("{name}: {e}"));
    match name {
        "" | "identity" => Ok(body.to_vec()),
        "gzip" => read(&mut MultiGzDecoder::new(body)),
        "zlib" | "deflate" => read(&mut ZlibDecoder::new(body)),
        "zstd" => {
            let made = zstd::stream::read::Decoder::with_buffer(body);
            read(&mut made.map_err(|e| fail(&e))?)
        }
        "lz4" => read(&mut lz4_flex::frame::FrameDecoder::new(body)),
        "x-snappy-framed" => read(&mut snap::read::FrameDecoder::new(body)),
        "snappy" if framed => read(&mut snap::read::FrameDecoder::new(body)),
        "snappy" => {
            let made = snap::raw::Decoder::new().decompress_vec(body);
            made.map_err(|e| fail(&e))
        }
        other => Err(ReadError(format!("unknown encoding {other:?}"))),
    }
}

type Fields<'a> = Vec<(u64, Field<'a>)>;

#[derive(Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// All fields of a message.
fn fields(mut rest: &[u8]) -> Result<Fields<'_>, ReadError> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let value = match tag & 7 {
            0 => Field::Number(varint(&mut rest)?),
            1 => Field::Number(u64::from_le_bytes(array(take(&mut rest, 8)?))),
            2 => {
                let length = varint(&mut rest)?;
                Field::Bytes(take(&mut rest, length)?)
            }
            5 => Field::Number(u64::from(u32::from_le_bytes(array(take(&mut rest, 4)?)))),
            other => return Err(ReadError(format!("wire type {other}"))),
        };
        found.push((tag >> 3, value));
    }
    Ok(found)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("as many bytes were taken")
}

fn take<'a>(rest: &mut &'a [u8], n: u64) -> Result<&'a [u8], ReadError> {
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    let end = || ReadError("the message ends inside of a field".to_owned());
    let (head, tail) = rest.split_at_checked(n).ok_or_else(end)?;
    *rest = tail;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64, ReadError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(ReadError("a varint that is too long".to_owned()))
}

/// The messages in a repeated field.
fn inner<'a>(message: &[(u64, Field<'a>)], number: u64) -> Vec<&'a [u8]> {
    let of = message.iter().filter(|(n, _)| *n == number);
    of.filter_map(|(_, value)| match value {
        Field::Bytes(bytes) => Some(*bytes),
        Field::Number(_) => None,
    })
    .collect()
}

/// The last value of a field that is a number.
fn number(message: &[(u64, Field<'_>)], number: u64) -> u64 {
    let of = message.iter().rev().find(|(n, _)| *n == number);
    match of {
        Some((_, Field::Number(value))) => *value,
        _ => 0,
    }
}

/// Reads a request in protobuf form.
pub(super) fn proto(kind: Kind, body: &[u8]) -> Result<Message, ReadError> {
    let request = fields(body)?;
    if request.iter().any(|(n, _)| *n != 1) {
        return Err(ReadError("a request has field 1 only".to_owned()));
    }
    let mut message = Message::default();
    for resource in inner(&request, 1) {
        for scope in inner(&fields(resource)?, 2) {
            for item in inner(&fields(scope)?, 2) {
                let item = fields(item)?;
                match kind {
                    Kind::Logs => message.lines.push(line(&item)?),
                    Kind::Traces => message.items += 1,
                    Kind::Metrics => {
                        // gauge, sum, histogram, exponential_histogram, summary
                        for data in [5, 7, 9, 10, 11] {
                            for data in inner(&item, data) {
                                message.items += inner(&fields(data)?, 1).len() as u64;
                            }
                        }
                    }
                }
            }
        }
    }
    message.items += message.lines.len() as u64;
    Ok(message)
}

fn line(record: &[(u64, Field<'_>)]) -> Result<Line, ReadError> {
    let text = |value: &[u8]| Ok(inner(&fields(value)?, 1).first().map(|b| b.to_vec()));
    let mut line = Line {
        time_ns: number(record, 1) as i64,
        ..Line::default()
    };
    if let Some(body) = inner(record, 5).last() {
        line.body = text(body)?.unwrap_or_default();
    }
    for pair in inner(record, 6) {
        let pair = fields(pair)?;
        if let ([b"log.file.name"], [value]) = (&inner(&pair, 1)[..], &inner(&pair, 2)[..]) {
            let name = text(value)?.unwrap_or_default();
            line.file = String::from_utf8_lossy(&name).into_owned();
        }
    }
    Ok(line)
}

/// Reads a request in JSON form.
pub(super) fn json(kind: Kind, body: &[u8]) -> Result<Message, ReadError> {
    let root: Value = serde_json::from_slice(body).map_err(|e| ReadError(e.to_string()))?;
    let (resources, scopes, items) = match kind {
        Kind::Logs => ("resourceLogs", "scopeLogs", "logRecords"),
        Kind::Metrics => ("resourceMetrics", "scopeMetrics", "metrics"),
        Kind::Traces => ("resourceSpans", "scopeSpans", "spans"),
    };
    let mut message = Message::default();
    for item in list(&root, resources)
        .flat_map(|r| list(r, scopes))
        .flat_map(|s| list(s, items))
    {
        match kind {
            Kind::Traces => message.items += 1,
            Kind::Metrics => {
                let data = [
                    "gauge",
                    "sum",
                    "histogram",
                    "exponentialHistogram",
                    "summary",
                ];
                let points = |d: &&str| list(&item[*d], "dataPoints").count() as u64;
                message.items += data.iter().map(points).sum::<u64>();
            }
            Kind::Logs => {
                let time = item["timeUnixNano"].as_str().unwrap_or("0");
                let file = list(item, "attributes").find(|a| a["key"] == "log.file.name");
                let file = file.and_then(|a| a["value"]["stringValue"].as_str());
                let body = item["body"]["stringValue"].as_str();
                message.lines.push(Line {
                    time_ns: time
                        .parse()
                        .map_err(|_| ReadError("timeUnixNano".to_owned()))?,
                    body: body.unwrap_or_default().as_bytes().to_vec(),
                    file: file.unwrap_or_default().to_owned(),
                });
            }
        }
    }
    message.items += message.lines.len() as u64;
    Ok(message)
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}
