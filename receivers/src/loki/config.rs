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

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[(
    "use_incoming_timestamp",
    "The time of a record is that of its entry; else that of its arrival, which a push that comes again does not share. An entry without a time, or with one before 1970 or after 2262, has that of its arrival.",
)];

impl LokiConfig {
    /// Reads the section of the receiver.
    pub fn decode(s: &mut Section<'_, '_>) -> LokiConfig {
        s.describe(OPTIONS);
        let (server, _) = ServerOptions::decode(s, ENDPOINTS, |_| ());
        LokiConfig {
            server,
            incoming_timestamp: s.bool("use_incoming_timestamp", false),
        }
    }
}
