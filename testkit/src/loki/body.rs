//! From an HTTP body to a push request: content encoding, content type, decompression.

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder};

use super::behaviour::LokiBehaviour;
use super::proto::{self, ReadLimits};
use super::push::PushRequest;
use super::{Refusal, json};
use crate::http::Request;

/// A decompressed body and what it holds.
#[derive(Debug)]
pub(super) struct PlainBody {
    bytes: Vec<u8>,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Protobuf,
}

impl PlainBody {
    /// Undoes the content encoding and, for protobuf, snappy.
    pub(super) fn open(request: &Request, behaviour: &LokiBehaviour) -> Result<Self, Refusal> {
        let max = behaviour.decompressed_bytes_max;
        let content_type = request.header("content-type").unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !is_media_type(media_type) {
            return Err(Refusal::new(400, "mime: no media type"));
        }
        let json = media_type.eq_ignore_ascii_case("application/json");
        let decoded = match request.header("content-encoding").unwrap_or_default() {
            // "snappy" says what protobuf is anyway.
            "" | "snappy" => None,
            "gzip" => Some(inflate(MultiGzDecoder::new(&*request.body), max)?),
            "deflate" => Some(inflate(DeflateDecoder::new(&*request.body), max)?),
            other => {
                let text = format!("Content-Encoding {other:?} not supported");
                return Err(Refusal::new(400, text));
            }
        };
        if json {
            let bytes = decoded.unwrap_or_else(|| request.body.clone());
            check_size(bytes.len(), max)?;
            return Ok(Self {
                bytes,
                form: Form::Json,
            });
        }
        let bytes = unsnap(decoded.as_deref().unwrap_or(&request.body), max)?;
        Ok(Self {
            bytes,
            form: Form::Protobuf,
        })
    }

    /// Parses the body. The error is a 400 for the whole request.
    pub(super) fn parse(&self, limits: &ReadLimits) -> Result<PushRequest<'_>, Refusal> {
        match self.form {
            Form::Json => json::read_push(&self.bytes).map_err(|text| Refusal::new(400, text)),
            Form::Protobuf => proto::read_push(&self.bytes, limits)
                .map_err(|error| Refusal::new(400, error.to_string())),
        }
    }
}

/// `type/subtype`, or a single token, as Go's media type parser takes it.
fn is_media_type(text: &str) -> bool {
    let token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
    };
    match text.split_once('/') {
        Some((kind, subtype)) => token(kind) && token(subtype),
        None => token(text),
    }
}

fn check_size(bytes: usize, max: usize) -> Result<(), Refusal> {
    if bytes > max {
        Err(Refusal::body_too_large(bytes, max))
    } else {
        Ok(())
    }
}

fn inflate(decoder: impl Read, max: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let read = decoder.take(max as u64 + 1).read_to_end(&mut bytes);
    let read = read.map_err(|error| Refusal::new(400, error.to_string()))?;
    check_size(read, max)?;
    Ok(bytes)
}

pub(super) fn unsnap(bytes: &[u8], max: usize) -> Result<Vec<u8>, Refusal> {
    let corrupt = |_| Refusal::new(400, "snappy: corrupt input");
    check_size(snap::raw::decompress_len(bytes).map_err(corrupt)?, max)?;
    snap::raw::Decoder::new()
        .decompress_vec(bytes)
        .map_err(corrupt)
}
