//! What a receiver knows of the requests that its listeners carry.

use bytes::Bytes;
use hyper::Response;
use tailwater_pdata::otlp::Encoded;
use tailwater_pdata::{LogsBatch, Signal};
use tailwater_pipeline::Payload;

use super::answer::Answer;
use super::inflate::Encoding;
use super::memory::Digest;
use super::status::Status;

/// How a request is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// protobuf.
    Proto,
    /// JSON.
    Json,
}

/// What the requests of a receiver look like, and the answers to them.
pub trait Protocol: Send + Sync + 'static {
    /// The signal that is posted to a path of HTTP.
    fn posted_to(&self, path: &str) -> Option<Signal>;

    /// The signal that a method of gRPC (`/service/method`) takes.
    fn called(&self, path: &str) -> Option<Signal>;

    /// What a body of HTTP is compressed with inside of what its `Content-Encoding` says, and what that
    /// stands for.
    fn encodings(&self, form: Form, told: Encoding) -> (Encoding, Encoding) {
        let _ = form;
        (told, Encoding::Identity)
    }

    /// Takes a request apart, with a digest of it if that is wanted. `room` is asked for the bytes that
    /// take more than what came.
    ///
    /// # Errors
    /// What the request is answered with.
    fn decode(
        &self,
        request: Plain,
        room: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Decoded, Status>;

    /// The answer over HTTP to a request whose records are delivered.
    fn success(&self, form: Form) -> Response<Answer>;

    /// The answer over HTTP to any other; `Retry-After` is added.
    fn failure(&self, status: &Status, form: Form) -> Response<Answer>;
}

/// A request that was inflated.
#[derive(Clone, Debug)]
pub struct Plain {
    /// What it carries.
    pub signal: Signal,
    /// How it is written.
    pub form: Form,
    /// Its bytes.
    pub body: Bytes,
    /// Whether its digest is wanted.
    pub digest: bool,
}

impl Plain {
    /// The digest, if it is wanted.
    pub fn digest(&self) -> Option<Digest> {
        let bytes = std::slice::from_ref(&self.body);
        self.digest.then(|| Digest::of(self.signal, bytes.iter()))
    }
}

/// A decoded request.
#[derive(Debug)]
pub struct Decoded {
    /// The records.
    pub records: Records,
    /// What it is known by if it comes again.
    pub digest: Option<Digest>,
}

/// What a request carries.
#[derive(Clone, Debug)]
pub enum Records {
    /// An OTLP message as it came.
    Encoded(Encoded),
    /// Log records.
    Logs {
        /// As columns, none of them empty.
        batches: Vec<LogsBatch>,
        /// How many.
        rows: usize,
        /// Bytes of memory that they take.
        bytes: usize,
    },
}

impl Records {
    /// Log records; batches without any are left out.
    pub fn logs(mut batches: Vec<LogsBatch>) -> Records {
        batches.retain(|batch| !batch.is_empty());
        Records::Logs {
            rows: batches.iter().map(LogsBatch::rows).sum(),
            bytes: batches.iter().map(LogsBatch::heap_bytes).sum(),
            batches,
        }
    }

    /// The signal they belong to.
    pub fn signal(&self) -> Signal {
        match self {
            Records::Encoded(encoded) => encoded.signal(),
            Records::Logs { .. } => Signal::Logs,
        }
    }

    /// Log records, data points or spans.
    pub fn items(&self) -> usize {
        match self {
            Records::Encoded(encoded) => encoded.items(),
            Records::Logs { rows, .. } => *rows,
        }
    }

    /// Bytes of memory that they take.
    pub fn bytes(&self) -> usize {
        match self {
            Records::Encoded(encoded) => encoded.len(),
            Records::Logs { bytes, .. } => *bytes,
        }
    }

    /// Hands them on, one payload after the other.
    pub fn into_payloads(self, mut each: impl FnMut(Payload)) {
        match self {
            Records::Encoded(encoded) => each(encoded.into()),
            Records::Logs { batches, .. } => batches.into_iter().map(Into::into).for_each(each),
        }
    }
}

impl From<Encoded> for Records {
    fn from(encoded: Encoded) -> Records {
        Records::Encoded(encoded)
    }
}
