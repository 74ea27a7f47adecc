//! A running receiver of OTLP with one shard.

use std::sync::Arc;

use tailwater_config::{Errors, KeyPath, parse};
use tailwater_pdata::Signal;
use tailwater_pipeline::BuildError;
use tailwater_pipeline::auth::{Authenticator, Authenticators};

use super::guard::{Doorkeeper, SlowDoor};
use crate::otlp::OtlpSettings;
pub use crate::server::stand::*;

/// One log record `a`: resource_logs, scope_logs, log_records, body, string_value.
pub const ONE: &[u8] = b"\x0a\x09\x12\x07\x12\x05\x2a\x03\x0a\x01a";

fn authenticators() -> Authenticators {
    let door = Authenticator {
        server: Some(Arc::new(Doorkeeper::default())),
        client: None,
    };
    let slow = Authenticator {
        server: Some(Arc::new(SlowDoor)),
        client: None,
    };
    [("door".to_owned(), door), ("slow".to_owned(), slow)]
        .into_iter()
        .collect()
}

/// Decodes the options of a receiver.
pub fn settings(yaml: &str) -> OtlpSettings {
    let node = parse(yaml, "test.yaml").unwrap();
    let mut errors = Errors::new();
    let settings = OtlpSettings::decode(&node, &KeyPath::from("receivers::otlp"), &mut errors);
    settings.unwrap_or_else(|| panic!("{yaml}: {errors}"))
}

/// Both protocols at free ports; `more` is added to the options of the receiver.
pub fn both(more: &str) -> String {
    format!(
        "{{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}, http: {{endpoint: '127.0.0.1:0'}}}}{more}}}"
    )
}

impl Stand {
    /// A receiver with these options that delivers everything.
    pub fn new(yaml: &str) -> Stand {
        Stand::with_lanes(yaml, &["one"])
    }

    /// A receiver that reaches several exporters.
    pub fn with_lanes(yaml: &str, exporters: &[&str]) -> Stand {
        Stand::try_new(yaml, exporters).unwrap_or_else(|e| panic!("{e}"))
    }

    /// As [`Stand::with_lanes`], or why it does not start.
    pub fn try_new(yaml: &str, exporters: &[&str]) -> Result<Stand, BuildError> {
        Stand::otlp(yaml, exporters, &[Signal::Logs])
    }

    /// A receiver with one exporter that pipelines of these signals lead to.
    pub fn with_signals(yaml: &str, signals: &[Signal]) -> Stand {
        Stand::otlp(yaml, &["one"], signals).unwrap_or_else(|e| panic!("{e}"))
    }

    fn otlp(yaml: &str, exporters: &[&str], signals: &[Signal]) -> Result<Stand, BuildError> {
        let settings = settings(yaml);
        let build = |cx: &_, lanes: &[_]| settings.nodes(cx, lanes);
        Stand::start("otlp", build, authenticators(), exporters, signals)
    }
}
