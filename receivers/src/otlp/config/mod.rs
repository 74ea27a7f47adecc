//! Options of the receiver `otlp`: its listeners, and where each signal is posted to.

use tailwater_config::Section;

use crate::server::{Endpoints, ServerOptions};

/// Where it listens unless that is said.
const ENDPOINTS: Endpoints = Endpoints {
    grpc: "localhost:4317",
    http: "localhost:4318",
};

/// Options of the receiver.
#[derive(Clone, Debug)]
pub struct OtlpConfig {
    /// `protocols`, `limits` and `refuse_unprotected`.
    pub server: ServerOptions,
    /// `logs_url_path`, `metrics_url_path`, `traces_url_path` of `protocols::http`.
    pub paths: Paths,
}

/// Where each signal is posted to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paths {
    /// `logs_url_path`.
    pub logs: String,
    /// `metrics_url_path`.
    pub metrics: String,
    /// `traces_url_path`.
    pub traces: String,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths {
            logs: "/v1/logs".to_owned(),
            metrics: "/v1/metrics".to_owned(),
            traces: "/v1/traces".to_owned(),
        }
    }
}

/// What its options do.
const PATHS: &[(&str, &str)] = &[
    ("logs_url_path", "Path to which logs are posted."),
    ("metrics_url_path", "Path to which metrics are posted."),
    ("traces_url_path", "Path to which traces are posted."),
];

impl Paths {
    fn decode(s: &mut Section<'_, '_>) -> Paths {
        s.describe(PATHS);
        let d = Paths::default();
        Paths {
            logs: url_path(s, "logs_url_path", &d.logs),
            metrics: url_path(s, "metrics_url_path", &d.metrics),
            traces: url_path(s, "traces_url_path", &d.traces),
        }
    }
}

impl OtlpConfig {
    /// Reads the section of the receiver.
    pub fn decode(s: &mut Section<'_, '_>) -> OtlpConfig {
        let (server, paths) = ServerOptions::decode(s, ENDPOINTS, Paths::decode);
        OtlpConfig {
            server,
            paths: paths.unwrap_or_default(),
        }
    }
}

fn url_path(s: &mut Section<'_, '_>, key: &str, default: &str) -> String {
    let path = s.string(key, default);
    let path = if path.starts_with('/') {
        path
    } else {
        format!("/{path}")
    };
    if path.parse::<hyper::http::uri::PathAndQuery>().is_err() || path.contains('?') {
        s.invalid(key, "is not the path of a URL");
    }
    path
}

#[cfg(test)]
mod tests;
