//! Options of the receiver `loki`.

use tailwater_config::Section;

use crate::server::{Endpoints, ServerOptions};

/// Where it listens unless that is said.
const ENDPOINTS: Endpoints = Endpoints {
    grpc: "localhost:3600",
    http: "localhost:3500",
};

/// Options of the receiver.
#[derive(Clone, Debug)]
pub struct LokiConfig {
    /// `protocols`, `limits` and `refuse_unprotected`.
    pub server: ServerOptions,
    /// `use_incoming_timestamp`: the time of a record is that of its entry, not of its arrival. Default
    /// false.
    pub incoming_timestamp: bool,
}

impl LokiConfig {
    /// Reads the section of the receiver.
    pub fn decode(s: &mut Section<'_, '_>) -> LokiConfig {
        let (server, _) = ServerOptions::decode(s, ENDPOINTS, |_| ());
        LokiConfig {
            server,
            incoming_timestamp: s.bool("use_incoming_timestamp", false),
        }
    }
}
