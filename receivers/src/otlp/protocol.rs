//! OTLP: a path of HTTP and a method of gRPC for each signal; over HTTP protobuf or JSON, answered in the
//! same form.
//!
//! Source: opentelemetry-proto, docs/specification.md, OTLP/HTTP, and the services in
//! `opentelemetry/proto/collector`; status codes as the collector's.

use hyper::{Response, StatusCode};
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::{Encoded, Limits, json};

use super::config::Paths;
use crate::server::{Answer, Code, Decoded, Form, JSON, PROTO, Plain, Protocol, Status, plain};

/// See the module's documentation.
pub struct Otlp {
    paths: Paths,
}

impl Otlp {
    /// Signals are posted to `paths`.
    pub fn new(paths: Paths) -> Otlp {
        Otlp { paths }
    }
}

impl Protocol for Otlp {
    fn posted_to(&self, path: &str) -> Option<Signal> {
        let known = [
            (Signal::Logs, &self.paths.logs),
            (Signal::Metrics, &self.paths.metrics),
            (Signal::Traces, &self.paths.traces),
        ];
        let found = known.into_iter().find(|(_, p)| *p == path);
        found.map(|(signal, _)| signal)
    }

    fn called(&self, path: &str) -> Option<Signal> {
        match path {
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Some(Signal::Logs),
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => {
                Some(Signal::Metrics)
            }
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Some(Signal::Traces),
            _ => None,
        }
    }

    fn decode(
        &self,
        request: Plain,
        _room: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Decoded, Status> {
        let limits = Limits::default();
        let invalid = |problem: String| Status::new(Code::InvalidArgument, problem);
        let signal = request.signal;
        let proto = match request.form {
            Form::Proto => request.body.clone(),
            Form::Json => json::to_proto(signal, &request.body, &limits)
                .map_err(|e| invalid(e.to_string()))?,
        };
        let encoded = Encoded::parse(signal, proto, &limits).map_err(|e| invalid(e.to_string()))?;
        Ok(Decoded {
            digest: request.digest(),
            records: encoded.into(),
        })
    }

    fn success(&self, form: Form) -> Response<Answer> {
        match form {
            Form::Json => plain(StatusCode::OK, JSON, r#"{"partialSuccess":{}}"#),
            Form::Proto => plain(StatusCode::OK, PROTO, ""),
        }
    }

    fn failure(&self, status: &Status, form: Form) -> Response<Answer> {
        let code = match status.code {
            // What is too large would come again with the code that stands for it.
            Code::ResourceExhausted => {
                return self.failure(
                    &Status {
                        code: Code::InvalidArgument,
                        ..status.clone()
                    },
                    form,
                );
            }
            _ => status.http(),
        };
        match form {
            Form::Proto => plain(code, PROTO, status.to_proto()),
            Form::Json => plain(code, JSON, status.to_json()),
        }
    }
}
