//! From an encoded request to the body that is sent, and back.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::{Encoded, Limits, json};

use super::compress::{Compression, decompress, in_one_piece};
use crate::client::GRPC_ENCODING;

/// Largest body that is taken apart again.
const UNPACKED_BYTES_MAX: usize = 1 << 30;
pub(super) const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Which protocol carries the requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Carrier {
    Http,
    Grpc,
}

/// How requests are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Protobuf.
    Proto,
    /// JSON.
    Json,
}

/// How the bodies of one exporter are made.
#[derive(Clone, Debug)]
pub(super) struct Packing {
    signal: Signal,
    carrier: Carrier,
    form: Form,
    compression: Compression,
    headers: Arc<HeaderMap>,
}

/// A body cannot be made or taken apart.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct PackError(String);

impl PackError {
    fn new(what: &str, e: impl std::fmt::Display) -> PackError {
        PackError(format!("{what}: {e}"))
    }
}

impl Packing {
    pub fn new(signal: Signal, carrier: Carrier, form: Form, compression: Compression) -> Packing {
        let mut headers = HeaderMap::new();
        if carrier == Carrier::Http {
            headers.insert(
                CONTENT_TYPE,
                match form {
                    Form::Proto => PROTOBUF,
                    Form::Json => JSON,
                },
            );
        }
        if let Some(name) = compression.name() {
            headers.insert(encoding_header(carrier), HeaderValue::from_static(name));
        }
        Packing {
            signal,
            carrier,
            form,
            compression,
            headers: Arc::new(headers),
        }
    }

    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// The headers of every request.
    pub fn headers(&self) -> &Arc<HeaderMap> {
        &self.headers
    }

    /// The way in which a request with `headers` was made: one that was stored may be of another
    /// configuration.
    pub fn of(&self, headers: &Arc<HeaderMap>) -> Packing {
        if **headers == *self.headers {
            return self.clone();
        }
        let name = headers.get(encoding_header(self.carrier));
        let name = name.and_then(|n| n.to_str().ok()).unwrap_or("");
        let compression = match self.carrier {
            Carrier::Http => Compression::http(name, 0).unwrap_or(Compression::None),
            Carrier::Grpc => Compression::grpc(name),
        };
        let form = match headers.get(CONTENT_TYPE) == Some(&JSON) {
            true => Form::Json,
            false => Form::Proto,
        };
        Packing {
            compression,
            form,
            headers: headers.clone(),
            ..*self
        }
    }

    /// The body of a request.
    pub fn pack(&self, encoded: &Encoded) -> Result<Vec<Bytes>, PackError> {
        let chunks: Vec<Bytes> = match self.form {
            Form::Proto => encoded.chunks().cloned().collect(),
            Form::Json => {
                let mut text = Vec::new();
                encoded.write_json(&mut text);
                vec![text.into()]
            }
        };
        self.compression
            .compress(chunks)
            .map_err(|e| PackError::new("cannot be compressed", e))
    }

    /// What a body was made of.
    pub fn unpack(&self, body: &[Bytes]) -> Result<Encoded, PackError> {
        let whole = in_one_piece(body.to_vec());
        let raw = match self.compression.name() {
            None => Ok(whole),
            Some(name) => decompress(name, &whole, UNPACKED_BYTES_MAX),
        };
        let raw = raw.map_err(|e: io::Error| PackError::new("cannot be decompressed", e))?;
        // It was looked at when it came in.
        let limits = Limits {
            depth: Limits::DEPTH_MAX,
            items: usize::MAX,
            scopes: usize::MAX,
            attributes: usize::MAX,
        };
        let raw = match self.form {
            Form::Proto => raw,
            Form::Json => json::to_proto(self.signal, &raw, &limits)
                .map_err(|e| PackError::new("cannot be read as JSON", e))?,
        };
        Encoded::parse(self.signal, raw, &limits)
            .map_err(|e| PackError::new("cannot be read again", e))
    }
}

fn encoding_header(carrier: Carrier) -> HeaderName {
    match carrier {
        Carrier::Http => CONTENT_ENCODING,
        Carrier::Grpc => GRPC_ENCODING,
    }
}
