//! Loki's push API: where pushes come to, and what they are answered with.
//!
//! Clients repeat a push that is answered with 429 or 5xx, and drop it at any other failure. So what is
//! given up is a 400, also where a pipeline gave it up, and what may come again is a 503.
//!
//! Source: grafana/loki, docs/sources/reference/loki-http-api.md and pkg/push/push.proto; clients in
//! clients/pkg/promtail/client.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use tailwater_pdata::Signal;
use tailwater_pipeline::clock::Clock;

use super::entries::{Problem, Push};
use super::{json, wire};
use crate::server::{
    Answer, Code, Decoded, Encoding, Form, Plain, Protocol, Records, Status, TEXT, plain,
};

const PATH: &str = "/loki/api/v1/push";
const METHOD: &str = "/logproto.Pusher/Push";

/// Slices of text reach so far, when all bytes of it have to be repaired, too.
const BODY_BYTES_MAX: usize = 512 << 20;

/// See the module's documentation.
pub struct Loki {
    incoming_timestamp: bool,
    clock: Arc<dyn Clock>,
}

impl Loki {
    /// Records have the time of their entries, or of `clock`.
    pub fn new(incoming_timestamp: bool, clock: Arc<dyn Clock>) -> Loki {
        Loki {
            incoming_timestamp,
            clock,
        }
    }
}

impl Protocol for Loki {
    fn posted_to(&self, path: &str) -> Option<Signal> {
        (path == PATH).then_some(Signal::Logs)
    }

    fn called(&self, path: &str) -> Option<Signal> {
        (path == METHOD).then_some(Signal::Logs)
    }

    fn encodings(&self, form: Form, told: Encoding) -> (Encoding, Encoding) {
        // protobuf is a block of snappy, whether the header says so or not. As in the collector, the word
        // says nothing of JSON.
        let outside = match told {
            Encoding::Snappy => Encoding::Identity,
            told => told,
        };
        match form {
            Form::Proto => (outside, Encoding::Snappy),
            Form::Json => (outside, Encoding::Identity),
        }
    }

    fn decode(
        &self,
        request: Plain,
        room: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Decoded, Status> {
        if request.body.len() > BODY_BYTES_MAX {
            let text = format!("a push may have {BODY_BYTES_MAX} bytes");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        let mut push = Push::new(self.incoming_timestamp, self.clock.wall_ns(), room);
        let read = match request.form {
            Form::Proto => wire::read(&request.body, &mut push),
            Form::Json => json::read(&request.body, &mut push),
        };
        match read {
            Ok(()) => Ok(Decoded {
                records: Records::logs(push.batches),
                digest: request.digest(),
            }),
            Err(Problem::Invalid(text)) => Err(Status::new(Code::InvalidArgument, text)),
            Err(Problem::NoRoom) => Err(Status::unavailable("no room for the entries now")),
        }
    }

    fn success(&self, _form: Form) -> Response<Answer> {
        let mut response = Response::new(Answer::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    }

    fn failure(&self, status: &Status, _form: Form) -> Response<Answer> {
        let code = match status.code {
            Code::ResourceExhausted => StatusCode::PAYLOAD_TOO_LARGE,
            Code::Internal => StatusCode::BAD_REQUEST,
            _ => status.http(),
        };
        plain(code, TEXT, status.message.clone())
    }
}
