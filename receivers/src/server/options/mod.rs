//! Options of what receivers listen with, as the collector's `configgrpc`, `confighttp`, `confignet` and
//! `configtls` name them, and limits of our own beside them.

mod cors;

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use tailwater_config::Section;

pub use cors::Cors;

use super::inflate::Encoding;
use crate::listen::{Listen, TlsOptions};

/// Why metadata of TLS is refused.
const TLS_METADATA: &str = "nothing reads what TLS knows of a client; leave it out";
/// Why middleware is refused.
const MIDDLEWARES: &str = "is not supported: no extension of this build stands between clients and the \
                           receiver. Remove it; `limits` bounds requests, connections and bytes, `auth` checks \
                           senders, and a memory_limiter refuses what there is no memory for";

/// How the listeners of a receiver are configured.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// `protocols::grpc`.
    pub grpc: Option<GrpcOptions>,
    /// `protocols::http`.
    pub http: Option<HttpOptions>,
    /// `limits`.
    pub limits: Limits,
    /// `refuse_unprotected`: do not start on an address that others reach without TLS, or
    /// without client certificates or an authenticator. Default false: a warning.
    pub refuse_unprotected: bool,
}

/// Where the listeners of a receiver are unless that is said.
#[derive(Clone, Copy, Debug)]
pub struct Endpoints {
    /// `protocols::grpc::endpoint`.
    pub grpc: &'static str,
    /// `protocols::http::endpoint`.
    pub http: &'static str,
}

/// Limits over all listeners of one receiver (`limits`). Ours; the collector has none of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// `in_flight_bytes_max`: bytes of requests whose records are not encoded for their destination
    /// yet. Half as much again may be taken by bodies that are coming in or being inflated.
    /// Default 64 MiB.
    pub in_flight_bytes_max: usize,
    /// `requests_max`: requests at the same time; one connection takes no more than are left to the others.
    /// Default 4096.
    pub requests_max: usize,
    /// `connections_max`: connections of each listener. Default 1024.
    pub connections_max: usize,
    /// `body_timeout`: a request must be there as a whole after this time. Default 30 s.
    pub body_timeout: Duration,
    /// `decode_timeout`: a body that is there waits for its turn to be inflated or decoded for so long at
    /// most. Default 10 s.
    pub decode_timeout: Duration,
    /// `request_timeout`: a request that is not delivered after this time is handed back to its
    /// sender. Default 60 s.
    pub request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            in_flight_bytes_max: 64 << 20,
            requests_max: 4096,
            connections_max: 1024,
            body_timeout: Duration::from_secs(30),
            decode_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
        }
    }
}

/// `protocols::grpc`.
#[derive(Clone, Debug)]
pub struct GrpcOptions {
    /// `endpoint` and `transport`.
    pub listen: Listen,
    /// `tls`.
    pub tls: Option<TlsOptions>,
    /// `auth::authenticator`: the id of an extension.
    pub auth: Option<String>,
    /// `include_metadata`: what comes beside the records can be read by `from_context`. Default false.
    pub include_metadata: bool,
    /// `max_recv_msg_size_mib`, in bytes: of a message as sent and as inflated. Default 4 MiB.
    pub message_bytes_max: usize,
    /// `max_concurrent_streams`: requests at the same time on one connection. Default 256.
    pub streams_max: u32,
    /// `keepalive::server_parameters`.
    pub keepalive: Keepalive,
}

/// `keepalive::server_parameters`, with the defaults of grpc-go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keepalive {
    /// `max_connection_idle`: a connection without requests is closed. Default: never.
    pub idle_max: Option<Duration>,
    /// `max_connection_age`: a connection is closed, a tenth earlier or later. Default: never.
    pub age_max: Option<Duration>,
    /// `max_connection_age_grace`: requests under way may take as long after that. Default: no limit.
    pub age_grace: Option<Duration>,
    /// `time`: a client that is silent is asked for a sign after it. Default 2 h.
    pub ping_after: Duration,
    /// `timeout`: a client that gives none for this time is gone. Default 20 s.
    pub ping_timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Keepalive {
        Keepalive {
            idle_max: None,
            age_max: None,
            age_grace: None,
            ping_after: Duration::from_secs(7200),
            ping_timeout: Duration::from_secs(20),
        }
    }
}

/// `protocols::http`.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// `endpoint` and `transport`.
    pub listen: Listen,
    /// `tls`.
    pub tls: Option<TlsOptions>,
    /// `auth::authenticator`: the id of an extension.
    pub auth: Option<String>,
    /// `auth::request_params`: parameters of the query that stand for headers of that name.
    pub auth_params: Vec<HeaderName>,
    /// `include_metadata`: headers can be read by `from_context`. Default false.
    pub include_metadata: bool,
    /// `max_request_body_size`: bytes of a body as sent and as inflated. Default 20 MiB.
    pub body_bytes_max: usize,
    /// `compression_algorithms`. Default all.
    pub encodings: Vec<Encoding>,
    /// `cors`.
    pub cors: Option<Cors>,
    /// `response_headers`: in every answer.
    pub response_headers: HeaderMap,
    /// `read_timeout`: a request must be there as a whole; the shorter of it and
    /// `limits::body_timeout` counts. Default: none.
    pub read_timeout: Option<Duration>,
    /// `read_header_timeout`: the head of a request must be there. Default 1 min.
    pub header_timeout: Option<Duration>,
    /// `write_timeout`: a request must be answered; the shorter of it and `limits::request_timeout`
    /// counts. Default 30 s.
    pub write_timeout: Option<Duration>,
    /// `idle_timeout`: a connection without requests is closed. Default 1 min.
    pub idle_timeout: Option<Duration>,
    /// `keep_alives_enabled`: more than one request on a connection. Default true.
    pub keep_alive: bool,
}

/// What its options do.
const SERVER: &[(&str, &str)] = &[
    (
        "protocols",
        "How data comes; at least one. `grpc:` alone means its defaults.",
    ),
    ("protocols::grpc", "gRPC."),
    ("protocols::http", "HTTP/1.1 and HTTP/2."),
    ("limits", "own: What all requests together may use."),
    (
        "refuse_unprotected",
        "own: Do not start at an address that others reach without TLS, or without `client_ca_file` and `auth`; otherwise a loud warning.",
    ),
];

impl ServerOptions {
    /// Reads `protocols`, `limits` and `refuse_unprotected`. `more` reads what a receiver has in
    /// `protocols::http` besides.
    pub fn decode<T>(
        s: &mut Section<'_, '_>,
        default: Endpoints,
        more: impl Fn(&mut Section<'_, '_>) -> T,
    ) -> (ServerOptions, Option<T>) {
        s.describe(SERVER);
        let (grpc, http) = s.section("protocols", |p| {
            let grpc = p.optional_section("grpc", false, |g| GrpcOptions::decode(g, default.grpc));
            let http = p.optional_section("http", false, |h| {
                let more = more(h);
                (HttpOptions::decode(h, default.http), more)
            });
            (grpc, http)
        });
        let (http, more) = http.unzip();
        if grpc.is_none() && http.is_none() {
            s.invalid("protocols", "at least one of grpc and http is needed");
        }
        if let (Some(grpc), Some(http)) = (&grpc, &http)
            && grpc.listen.endpoint == http.listen.endpoint
            && !grpc.listen.any_port()
        {
            // As in the collector it is the start that fails: what is checked on another machine
            // may lack the variables that tell the endpoints apart.
            s.warn(
                "protocols",
                "grpc and http share an endpoint: only one of them will be able to listen there",
            );
        }
        let options = ServerOptions {
            grpc,
            http,
            limits: s.section("limits", Limits::decode),
            refuse_unprotected: s.bool("refuse_unprotected", false),
        };
        (options, more)
    }
}

/// What its options do.
const LIMITS: &[(&str, &str)] = &[
    (
        "in_flight_bytes_max",
        "own: Bytes of requests that are not encoded for their destination yet, apart from what tailing may use; beyond it requests are told to come again. Bodies that come in, or are being inflated, may take half as much again; where all of that is taken, bodies that do not come make way: those of connections that have more, then those that are waited for for a second.",
    ),
    (
        "requests_max",
        "own: Requests at the same time; a connection takes no more places than it leaves to others. Where there is none, a request whose body does not come makes way: one of the connection that has most of them.",
    ),
    (
        "connections_max",
        "own: Connections of each listener; beyond it the one that is idle for longest is closed.",
    ),
    (
        "body_timeout",
        "own: A request must be there as a whole within this time.",
    ),
    (
        "decode_timeout",
        "own: A body that is there waits so long at most for its turn to be inflated or decoded, in which connections take turns; then it is told to come again.",
    ),
    (
        "request_timeout",
        "own: A request that is not delivered by then is told to come again.",
    ),
];

impl Limits {
    fn decode(s: &mut Section<'_, '_>) -> Limits {
        s.describe(LIMITS);
        let d = Limits::default();
        let positive = Duration::from_millis(1)..;
        let bytes = s.byte_size(
            "in_flight_bytes_max",
            d.in_flight_bytes_max as u64,
            1 << 20..=1 << 40,
        );
        Limits {
            in_flight_bytes_max: usize::try_from(bytes).unwrap_or(usize::MAX),
            requests_max: s.usize("requests_max", d.requests_max, 1..=1_000_000),
            connections_max: s.usize("connections_max", d.connections_max, 1..=1_000_000),
            body_timeout: s.duration_in("body_timeout", d.body_timeout, positive.clone()),
            decode_timeout: s.duration_in("decode_timeout", d.decode_timeout, positive.clone()),
            request_timeout: s.duration_in("request_timeout", d.request_timeout, positive),
        }
    }
}

/// What its options do.
const GRPC: &[(&str, &str)] = &[
    ("enabled", "False: as if the section was not there."),
    (
        "read_buffer_size",
        "Accepted with a warning: sized automatically.",
    ),
    (
        "write_buffer_size",
        "Accepted with a warning: sized automatically.",
    ),
    (
        "max_recv_msg_size_mib",
        "MiB of a message as sent and as inflated; larger ones are answered ResourceExhausted. 0 means 4.",
    ),
    (
        "max_concurrent_streams",
        "Requests at the same time on one connection; 0 means 256.",
    ),
    ("tls", "TLS; without it connections are plain."),
    ("keepalive", "When connections are looked after and closed."),
    (
        "keepalive::enabled",
        "False: as if the section was not there.",
    ),
    (
        "keepalive::server_parameters::enabled",
        "False: as if the section was not there.",
    ),
    (
        "keepalive::enforcement_policy::enabled",
        "False: as if the section was not there.",
    ),
    (
        "keepalive::server_parameters",
        "When connections end, and when clients are asked for a sign of life.",
    ),
    (
        "keepalive::server_parameters::max_connection_idle",
        "A connection without requests for so long is closed; 0 = never.",
    ),
    (
        "keepalive::server_parameters::max_connection_age",
        "A connection ends after so long, a tenth shorter or longer at most; 0 = never.",
    ),
    (
        "keepalive::server_parameters::max_connection_age_grace",
        "How long its requests have left then; 0 = no limit.",
    ),
    (
        "keepalive::server_parameters::time",
        "After so long without anything a client is asked for a sign of life; 0 means 2h.",
    ),
    (
        "keepalive::server_parameters::timeout",
        "How long that may take; 0 means 20s.",
    ),
    (
        "keepalive::enforcement_policy",
        "Accepted with a warning: each ping is answered before the next is read.",
    ),
    (
        "keepalive::enforcement_policy::min_time",
        "Has nothing to act on.",
    ),
    (
        "keepalive::enforcement_policy::permit_without_stream",
        "Has nothing to act on.",
    ),
];

impl GrpcOptions {
    fn decode(s: &mut Section<'_, '_>, endpoint: &str) -> GrpcOptions {
        s.describe(GRPC);
        refuse_what_is_missing(s);
        buffers(s);
        let listen = Listen::decode(s, endpoint);
        let mebibytes = s.usize("max_recv_msg_size_mib", 4, ..=4096);
        let streams_max = s.u64("max_concurrent_streams", 256, ..=u64::from(u32::MAX));
        GrpcOptions {
            listen,
            auth: decode_auth(s, |_| ()).map(|(id, ())| id),
            tls: s.optional_section("tls", false, TlsOptions::decode),
            include_metadata: s.bool("include_metadata", false),
            // As in the collector, 0 is what is not given.
            message_bytes_max: if mebibytes == 0 { 4 } else { mebibytes } << 20,
            streams_max: match u32::try_from(streams_max).unwrap_or(u32::MAX) {
                0 => 256,
                n => n,
            },
            keepalive: s
                .optional_section("keepalive", false, decode_keepalive)
                .unwrap_or_default(),
        }
    }
}

fn decode_keepalive(s: &mut Section<'_, '_>) -> Keepalive {
    let given = |d: Duration| (!d.is_zero()).then_some(d);
    let params = s.optional_section("server_parameters", false, |p| {
        let d = Keepalive::default();
        Keepalive {
            idle_max: given(p.duration("max_connection_idle", Duration::ZERO)),
            age_max: given(p.duration("max_connection_age", Duration::ZERO)),
            age_grace: given(p.duration("max_connection_age_grace", Duration::ZERO)),
            ping_after: given(p.duration("time", Duration::ZERO)).unwrap_or(d.ping_after),
            ping_timeout: given(p.duration("timeout", Duration::ZERO)).unwrap_or(d.ping_timeout),
        }
    });
    let policy = s.optional_section("enforcement_policy", false, |p| {
        p.duration("min_time", Duration::ZERO);
        p.bool("permit_without_stream", false);
    });
    if policy.is_some() {
        s.warn(
            "enforcement_policy",
            "has no visible effect: clients may ask for signs of life as often as they like, each is \
             answered before the next is read",
        );
    }
    params.unwrap_or_default()
}

/// What its options do.
const HTTP: &[(&str, &str)] = &[
    ("enabled", "False: as if the section was not there."),
    ("include_tls_metadata", "True is refused: nothing reads it."),
    (
        "max_request_body_size",
        "Bytes of a body as sent and as inflated; longer ones are refused. 0 means 20971520.",
    ),
    ("cors", "Which pages of browsers may send; none without it."),
    ("cors::enabled", "False: as if the section was not there."),
    ("tls", "TLS; without it connections are plain."),
    (
        "compression_algorithms",
        "How bodies may be compressed: gzip, zstd, zlib, snappy, deflate, lz4; all unless set. Snappy may be framed or one block, deflate bare or in zlib.",
    ),
    (
        "response_headers",
        "Headers of every answer; what the answer says of itself wins.",
    ),
    (
        "read_timeout",
        "How long the body of a request may take; 0 = no limit. The shorter of it and `limits::body_timeout` counts.",
    ),
    (
        "read_header_timeout",
        "How long the head of a request may take; 0 = no limit.",
    ),
    (
        "write_timeout",
        "How long an answer may take; 0 = no limit. The shorter of it and `limits::request_timeout` counts.",
    ),
    (
        "idle_timeout",
        "A connection without requests for so long is closed; 0 = never.",
    ),
    (
        "keep_alives_enabled",
        "Connections stay for further requests.",
    ),
    (
        "auth::request_params",
        "Parameters of the query that count instead of headers of the same name.",
    ),
];

impl HttpOptions {
    fn decode(s: &mut Section<'_, '_>, endpoint: &str) -> HttpOptions {
        s.describe(HTTP);
        refuse_what_is_missing(s);
        if s.bool("include_tls_metadata", false) {
            s.invalid("include_tls_metadata", TLS_METADATA);
        }
        let bytes = s.usize("max_request_body_size", 0, ..);
        let given = |d: Duration| (!d.is_zero()).then_some(d);
        let cors = s.optional_section("cors", false, Cors::decode);
        let (auth, auth_params) = decode_auth(s, decode_params).unzip();
        HttpOptions {
            listen: Listen::decode(s, endpoint),
            auth,
            auth_params: auth_params.unwrap_or_default(),
            tls: s.optional_section("tls", false, TlsOptions::decode),
            include_metadata: s.bool("include_metadata", false),
            body_bytes_max: if bytes == 0 { 20 << 20 } else { bytes },
            encodings: decode_encodings(s),
            cors: cors.flatten(),
            response_headers: decode_headers(s),
            read_timeout: given(s.duration("read_timeout", Duration::ZERO)),
            header_timeout: given(s.duration("read_header_timeout", Duration::from_secs(60))),
            write_timeout: given(s.duration("write_timeout", Duration::from_secs(30))),
            idle_timeout: given(s.duration("idle_timeout", Duration::from_secs(60))),
            keep_alive: s.bool("keep_alives_enabled", true),
        }
    }
}

/// The authenticator, and what `more` reads beside it.
fn decode_auth<T>(
    s: &mut Section<'_, '_>,
    more: impl FnOnce(&mut Section<'_, '_>) -> T,
) -> Option<(String, T)> {
    let auth = s.section_if_present("auth", |a| {
        let id = a.component_id("authenticator");
        if id.is_none() && !a.has("authenticator") {
            a.error("authenticator is required");
        }
        let more = more(a);
        id.map(|id| (id.to_string(), more))
    });
    auth.flatten()
}

/// `request_params`.
fn decode_params(s: &mut Section<'_, '_>) -> Vec<HeaderName> {
    let mut params = Vec::new();
    for name in s.string_list("request_params").unwrap_or_default() {
        match HeaderName::try_from(&name) {
            Ok(name) => params.push(name),
            Err(_) => s.invalid("request_params", format!("{name:?}: no header can have it")),
        }
    }
    params
}

/// What its options do.
const OF_BOTH: &[(&str, &str)] = &[
    (
        "middlewares",
        "Only an empty list: no extension of this build stands in between. `limits` bounds requests, `auth` checks senders.",
    ),
    (
        "dialer",
        "Accepted with a warning: no effect on a listener.",
    ),
    ("dialer::timeout", "Has nothing to act on."),
    ("auth", "Who may send."),
    (
        "auth::authenticator",
        "An extension that checks senders, such as `basicauth` or `bearertokenauth`. Required.",
    ),
    (
        "include_metadata",
        "Headers of requests go with the data: `from_context` of `attributes` and `resource`, `metadata_keys` of `batch` and others read them.",
    ),
    ("tls::enabled", "False: as if the section was not there."),
];

fn refuse_what_is_missing(s: &mut Section<'_, '_>) {
    s.describe(OF_BOTH);
    if s.list("middlewares").is_some_and(|all| !all.is_empty()) {
        s.invalid("middlewares", MIDDLEWARES);
    }
    if s.section_if_present("dialer", |d| d.duration("timeout", Duration::ZERO))
        .is_some()
    {
        s.warn("dialer", "has no effect on a listener");
    }
}

fn buffers(s: &mut Section<'_, '_>) {
    for key in ["read_buffer_size", "write_buffer_size"] {
        if s.u64_optional(key, ..).is_some() {
            s.warn(
                key,
                "has no visible effect: buffers are sized automatically",
            );
        }
    }
}

fn decode_encodings(s: &mut Section<'_, '_>) -> Vec<Encoding> {
    let Some(names) = s.string_list("compression_algorithms") else {
        return Encoding::ALL.to_vec();
    };
    let mut found = Vec::new();
    for name in names.iter().map(|n| n.trim()) {
        match Encoding::of(name) {
            // Plain bodies are always taken; the collector lists them as an empty text.
            Some(Encoding::Identity) => {}
            Some(encoding) => found.push(encoding),
            None => s.invalid(
                "compression_algorithms",
                format!(
                    "{name:?} is none of {}",
                    Encoding::ALL.map(Encoding::name).join(", ")
                ),
            ),
        }
    }
    found
}

fn decode_headers(s: &mut Section<'_, '_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in s.secret_map("response_headers").unwrap_or_default() {
        let parsed = (
            HeaderName::try_from(&name),
            HeaderValue::from_str(value.expose()),
        );
        match parsed {
            (Ok(name), Ok(value)) => {
                headers.insert(name, value);
            }
            (Err(_), _) => s.invalid("response_headers", format!("{name:?}: not a header name")),
            (_, Err(_)) => s.invalid(
                "response_headers",
                format!("{name:?}: the value has characters that a header cannot carry"),
            ),
        }
    }
    headers
}
