//! What the fake server checks, and what goes wrong with it.

use std::time::Duration;

/// The server's limits and validation rules. Defaults are Loki's own unless said otherwise.
///
/// A limit of `None` is not checked. All of it may change while the server runs.
#[derive(Debug, Clone)]
pub struct LokiBehaviour {
    /// Whether a tenant header is required; without it everything is stored for `fake`.
    pub auth_enabled: bool,
    /// Tenants whose pushes are answered with [`LokiBehaviour::blocked_status`] and dropped.
    pub blocked_tenants: Vec<String>,
    /// The status for blocked tenants. Loki's default is 260; an operator who sets 200 makes it
    /// answer a plain 204.
    pub blocked_status: u16,
    /// Request body as received, before decompression; more is 413.
    pub body_bytes_max: usize,
    /// Request body after decompression; more is 413. Loki's default is 5000 MiB; ours is lower,
    /// for the sake of the machine the tests run on.
    pub decompressed_bytes_max: usize,
    /// The request as sent on to an ingester; more is 500, nothing stored. 4 MiB.
    pub grpc_message_bytes_max: Option<usize>,
    /// Longest line in bytes, inclusive. 256 KiB.
    pub line_bytes_max: Option<usize>,
    /// Cut longer lines (at a byte, not a character) instead of rejecting them.
    pub line_truncate: bool,
    /// Reject entries older than this. 7 days.
    pub reject_old_samples: Option<Duration>,
    /// Reject entries further in the future than this. 10 minutes.
    pub creation_grace: Option<Duration>,
    /// Reject entries this much older than the newest of their stream: half of the maximum chunk
    /// age, 1 hour.
    pub behind_head_max: Option<Duration>,
    /// A new stream that holds an entry before this Unix time (ns) is refused with 500. Reached
    /// only with [`LokiBehaviour::reject_old_samples`] off. Off by default.
    pub schema_start_ns: Option<i64>,
    /// Labels per stream, `service_name` not counted. 15.
    pub label_names_max: Option<usize>,
    /// Length of a label name in bytes, inclusive. 1024.
    pub label_name_bytes_max: Option<usize>,
    /// Length of a label value in bytes, inclusive. 2048.
    pub label_value_bytes_max: Option<usize>,
    /// Labels every stream must have. None.
    pub labels_required: Vec<String>,
    /// Add `service_name` when it is missing. It shows in query results only: storage and hooks
    /// keep the labels as sent. Off means that a stream without labels is refused.
    pub discover_service_name: bool,
    /// Whether structured metadata is accepted at all.
    pub metadata_allowed: bool,
    /// Names and values of one entry's metadata together, in bytes, inclusive. 64 KiB.
    pub metadata_bytes_max: Option<usize>,
    /// Metadata pairs of one entry, inclusive. 128.
    pub metadata_pairs_max: Option<usize>,
    /// Bytes (lines and metadata) per second and tenant. 4 MB.
    pub ingestion_rate_bytes: Option<u64>,
    /// The bucket for it; a larger request can never pass. 6 MB.
    pub ingestion_burst_bytes: u64,
    /// Bytes per second and stream. 3 MB.
    pub stream_rate_bytes: Option<u64>,
    /// The bucket for it; a larger part of a request for one stream can never pass. 15 MB.
    pub stream_burst_bytes: u64,
    /// With sharding on (the default) a stream's part passes the rate limit whole or not at all;
    /// with it off, entry by entry.
    pub shard_streams: bool,
    /// Active streams per tenant. 5000.
    pub streams_max: Option<usize>,
    /// Entries an error text lists one by one, before it only counts. 10.
    pub ignored_lines_reported_max: usize,
    /// Loki from 2.7 on: an ingester forgets the error of a stream when a later stream of the
    /// same request succeeds, so a 204 may hide rejections. False is the behaviour before it.
    pub last_stream_decides: bool,
    /// Largest `limit` of a query. 5000.
    pub query_entries_max: usize,
}

impl Default for LokiBehaviour {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        const MIB_U64: u64 = 1024 * 1024;
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            auth_enabled: false,
            blocked_tenants: Vec::new(),
            blocked_status: 260,
            body_bytes_max: 100 * MIB,
            decompressed_bytes_max: 256 * MIB,
            grpc_message_bytes_max: Some(4 * MIB),
            line_bytes_max: Some(256 * 1024),
            line_truncate: false,
            reject_old_samples: Some(7 * 24 * HOUR),
            creation_grace: Some(HOUR / 6),
            behind_head_max: Some(HOUR),
            schema_start_ns: None,
            label_names_max: Some(15),
            label_name_bytes_max: Some(1024),
            label_value_bytes_max: Some(2048),
            labels_required: Vec::new(),
            discover_service_name: true,
            metadata_allowed: true,
            metadata_bytes_max: Some(64 * 1024),
            metadata_pairs_max: Some(128),
            ingestion_rate_bytes: Some(4 * MIB_U64),
            ingestion_burst_bytes: 6 * MIB_U64,
            stream_rate_bytes: Some(3 * MIB_U64),
            stream_burst_bytes: 15 * MIB_U64,
            shard_streams: true,
            streams_max: Some(5000),
            ignored_lines_reported_max: 10,
            last_stream_decides: true,
            query_entries_max: 5000,
        }
    }
}

impl LokiBehaviour {
    /// Everything well-formed is accepted, at any rate, age and size the machine can hold. For
    /// tests and demonstrations where the server is only the place where lines arrive.
    pub fn permissive() -> Self {
        Self {
            grpc_message_bytes_max: None,
            line_bytes_max: None,
            reject_old_samples: None,
            creation_grace: None,
            behind_head_max: None,
            label_names_max: None,
            label_name_bytes_max: None,
            label_value_bytes_max: None,
            metadata_bytes_max: None,
            metadata_pairs_max: None,
            ingestion_rate_bytes: None,
            stream_rate_bytes: None,
            streams_max: None,
            ..Self::default()
        }
    }
}

/// Whether the server can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// As usual.
    #[default]
    Up,
    /// The port is closed: connecting is refused.
    Refused,
    /// Connected, but every request (`/ready` too) is answered with 503.
    Unavailable,
}

/// What is done to the body of every push response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyFault {
    /// Nothing.
    #[default]
    None,
    /// Error bodies are padded with spaces to this many bytes; a 204 becomes a 200 with such a
    /// body, since a 204 cannot have one.
    Huge {
        /// Length of the body.
        bytes: usize,
    },
    /// The body is padded to `bytes` and written one byte per `pause`.
    Slow {
        /// Length of the body.
        bytes: usize,
        /// Time between two bytes.
        pause: Duration,
    },
}

/// Faults of the push endpoint. All off by default; may change while the server runs.
///
/// The probabilities are drawn from one seeded generator, one draw per fault and request in the
/// order of the fields, so a run with one connection repeats exactly.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Probability of closing the connection before the request body is read; nothing is stored.
    pub reset_before: f64,
    /// Probability of a 429 without processing.
    pub status_429: f64,
    /// Probability of a 500 without processing.
    pub status_500: f64,
    /// Probability of a 503 without processing.
    pub status_503: f64,
    /// Probability of processing the request and then closing the connection without an answer.
    pub reset_after: f64,
    /// Time between reading a request and processing it.
    pub delay: Duration,
    /// Requests are read and then neither processed nor answered, until the server stops or the
    /// fault is cleared.
    pub hang: bool,
    /// What is done to response bodies.
    pub body: BodyFault,
    /// Sent as `Retry-After` (in seconds) with every 429 and 503, made up ones included. Loki
    /// itself sends none.
    pub retry_after_seconds: Option<u64>,
}

/// Which requests a script applies to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Matcher {
    /// Every push.
    Any,
    /// Pushes of a tenant.
    Tenant(String),
    /// Pushes that contain a stream with this label.
    Stream {
        /// Label name.
        name: String,
        /// Label value, compared exactly.
        value: String,
    },
}

/// One scripted outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scripted {
    /// Processed as usual; holds a place in the queue.
    Process,
    /// Answered with this status and body, and not processed.
    Answer {
        /// HTTP status.
        status: u16,
        /// Plain text body.
        body: String,
    },
    /// Processed, and then answered with this status and body whatever the result was.
    ProcessThenAnswer {
        /// HTTP status.
        status: u16,
        /// Plain text body.
        body: String,
    },
    /// The connection is closed and nothing processed.
    Close,
    /// Processed, and then the connection is closed without an answer.
    ProcessThenClose,
    /// Not processed and not answered until the server stops or its faults change.
    Hang,
}
