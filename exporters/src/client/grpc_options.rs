//! Options of a gRPC client, as the collector's `configgrpc` names them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use tailwater_config::Section;
use tailwater_pipeline::reach::Reach;

use super::auth::AuthOptions;
use super::config::{check_auth, decode_auth, refuse_middlewares};
use super::endpoint::Endpoint;
use super::http::header_map;
use super::options::TlsOptions;
use super::{ClientError, ClientOptions};

/// Which of several addresses a call goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Balancer {
    /// All of them by turns, over a connection to each.
    #[default]
    RoundRobin,
    /// The first one that answers, for as long as it does.
    PickFirst,
}

/// `keepalive`: a ping over connections that are quiet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keepalive {
    /// How long a connection is quiet before a ping. Default 10 s.
    pub time: Duration,
    /// How long the answer to a ping is waited for before the connection is given up. Default 10 s.
    pub timeout: Duration,
    /// Pings also while no call is under way.
    pub permit_without_stream: bool,
}

/// Options of one client.
#[derive(Clone, PartialEq)]
pub struct GrpcOptions {
    /// Where the server is.
    pub endpoint: Endpoint,
    /// Its socket in the file system; `endpoint` is then what it is called.
    pub socket: Option<PathBuf>,
    /// Limit for a whole call, from connecting to the end of the answer; zero = none. Default 5 s.
    pub timeout: Duration,
    /// Limit for opening a connection. Default 10 s.
    pub connect_timeout: Duration,
    /// Metadata of every call.
    pub headers: Vec<(String, String)>,
    /// `tls`.
    pub tls: TlsOptions,
    /// Who we are.
    pub auth: AuthOptions,
    /// `keepalive`.
    pub keepalive: Option<Keepalive>,
    /// `balancer_name`.
    pub balancer: Balancer,
    /// `wait_for_ready`: a call waits for a server that cannot be reached until its time is over.
    pub wait_for_ready: bool,
    /// `authority`: the name of the server that it is told.
    pub authority: Option<String>,
    /// `user_agent`.
    pub user_agent: Option<String>,
}

impl GrpcOptions {
    /// Those on which connections depend; all others the same for everyone.
    pub(super) fn of_connections(&self) -> GrpcOptions {
        GrpcOptions {
            timeout: Duration::ZERO,
            headers: Vec::new(),
            auth: AuthOptions::None,
            wait_for_ready: false,
            authority: None,
            user_agent: None,
            ..self.clone()
        }
    }
}

impl fmt::Debug for GrpcOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("GrpcOptions")
            .field("endpoint", &self.endpoint)
            .field("socket", &self.socket)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("headers (values redacted)", &headers)
            .field("tls", &self.tls)
            .field("auth", &self.auth)
            .field("keepalive", &self.keepalive)
            .field("balancer", &self.balancer)
            .field("wait_for_ready", &self.wait_for_ready)
            .field("authority", &self.authority)
            .field("user_agent", &self.user_agent)
            .finish()
    }
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "endpoint",
        "`host:port`; `http://` before it is plain, `https://` is TLS, `dns:///` is neither; or `unix:///path`, a socket in the file system.",
    ),
    (
        "read_buffer_size",
        "Accepted with a warning: sized automatically.",
    ),
    (
        "write_buffer_size",
        "Accepted with a warning: sized automatically.",
    ),
    ("tls", "Certificates, and whom to trust."),
    (
        "tls::insecure",
        "No TLS, unless `endpoint` begins with `https://` or there is a `ca_file`.",
    ),
    (
        "keepalive",
        "Servers are asked for a sign of life; off unless there is the section.",
    ),
    ("keepalive::time", "After so long without anything."),
    ("keepalive::timeout", "How long that may take."),
    (
        "keepalive::permit_without_stream",
        "Also without requests under way.",
    ),
    ("keepalive::enabled", "False: off."),
    (
        "headers",
        "Metadata of every request; of names that end in `-bin` the value is sent in base64.",
    ),
    ("timeout", "How long an attempt may take."),
    (
        "connect_timeout",
        "own: How long opening a connection may take.",
    ),
    (
        "balancer_name",
        "A connection to each address of the name, or to one.",
    ),
    (
        "wait_for_ready",
        "An attempt waits for a server that cannot be reached until its `timeout`.",
    ),
    (
        "authority",
        "The name of the server in requests; that of `endpoint` unless set.",
    ),
    ("user_agent", "What we say we are; ours unless set."),
];

impl GrpcOptions {
    /// Options for `endpoint`, all others as they are without configuration.
    pub fn new(endpoint: Endpoint) -> GrpcOptions {
        GrpcOptions {
            endpoint,
            socket: None,
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            headers: Vec::new(),
            tls: TlsOptions::default(),
            auth: AuthOptions::None,
            keepalive: None,
            balancer: Balancer::default(),
            wait_for_ready: false,
            authority: None,
            user_agent: None,
        }
    }

    /// Adds the files that are read while connections and calls are made, and the server.
    pub fn reach(&self, reach: &mut Reach) {
        match &self.socket {
            Some(path) => reach.connects_to(format!("unix:{}", path.display())),
            None => reach.connects_to(self.endpoint.host_port()),
        }
        let files = ClientOptions {
            tls: self.tls.clone(),
            auth: self.auth.clone(),
            ..ClientOptions::default()
        };
        files.reach(reach);
    }

    /// Reads the client's options out of an exporter's section, where they stand beside its own.
    /// `compression` is left to the exporter.
    pub fn decode(s: &mut Section<'_, '_>) -> Option<GrpcOptions> {
        s.describe(OPTIONS);
        refuse_middlewares(s);
        for key in ["read_buffer_size", "write_buffer_size"] {
            if s.u64_optional(key, ..).is_some() {
                s.warn(key, "has no effect: buffers are sized automatically");
            }
        }
        let text = s.string_required("endpoint");
        let (insecure, tls) = s.section("tls", |t| {
            let insecure = t.bool("insecure", false);
            (insecure, TlsOptions::decode_files(t))
        });
        let plain = insecure && tls.ca.is_none();
        let target = text.and_then(|text| match parse_target(&text, plain) {
            Ok(target) => Some(target),
            Err(problem) => {
                s.invalid("endpoint", problem);
                None
            }
        });
        // As in the collector, null leaves it off.
        let keepalive = s.section_if_present("keepalive", |k| {
            let keepalive = Keepalive {
                time: k.duration_in("time", Duration::from_secs(10), Duration::from_millis(1)..),
                timeout: k.duration_in(
                    "timeout",
                    Duration::from_secs(10),
                    Duration::from_millis(1)..,
                ),
                permit_without_stream: k.bool("permit_without_stream", false),
            };
            k.bool("enabled", true).then_some(keepalive)
        });
        let balancers = [
            ("round_robin", Balancer::RoundRobin),
            ("pick_first", Balancer::PickFirst),
            ("", Balancer::PickFirst),
        ];
        let headers = s.secret_map("headers").unwrap_or_default();
        let headers = headers
            .into_iter()
            .map(|(name, value)| (name, value.expose().to_owned()));
        let known = target.is_some();
        let (endpoint, socket) = match target {
            Some(target) => target,
            None => (Endpoint::parse("https://localhost:4317").ok()?, None),
        };
        let d = GrpcOptions::new(endpoint);
        let options = GrpcOptions {
            timeout: s.duration("timeout", d.timeout),
            connect_timeout: s.duration("connect_timeout", d.connect_timeout),
            headers: headers.collect(),
            tls,
            auth: decode_auth(s),
            keepalive: keepalive.flatten(),
            balancer: s.choice("balancer_name", &balancers, d.balancer),
            wait_for_ready: s.bool("wait_for_ready", false),
            authority: s.string_optional("authority").filter(|a| !a.is_empty()),
            user_agent: s.string_optional("user_agent").filter(|a| !a.is_empty()),
            endpoint: d.endpoint,
            socket,
        };
        check(s, &options);
        known.then_some(options)
    }
}

/// Refuses what no call could be made with, as far as that shows without reading a file.
fn check(s: &mut Section<'_, '_>, options: &GrpcOptions) {
    match metadata(&options.headers) {
        Err(ClientError::Header { name, problem }) => {
            s.invalid("headers", format!("{name:?}: {problem}"));
        }
        Err(e) => s.invalid("headers", e.to_string()),
        Ok(_) => {}
    }
    if let Some(text) = &options.authority
        && text.parse::<hyper::http::uri::Authority>().is_err()
    {
        s.invalid("authority", "not a host with an optional port");
    }
    if let Some(text) = &options.user_agent
        && HeaderValue::from_str(text).is_err()
    {
        s.invalid("user_agent", "has characters that a header cannot carry");
    }
    check_auth(s, &options.auth);
}

/// `host:port`, with `http://` (plain), `https://` or `dns:///` in front of it if wanted; or
/// `unix:///path` or `unix:path`, which gRPC calls `localhost`.
fn parse_target(text: &str, plain: bool) -> Result<(Endpoint, Option<PathBuf>), String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = match path.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path,
            Some(_) => return Err("unix:// is followed by an absolute path: unix:///path".into()),
            None => path,
        };
        if path.is_empty() || path.contains('\0') {
            return Err("the path of the socket is missing: unix:///path".into());
        }
        let name = if plain {
            "http://localhost"
        } else {
            "https://localhost"
        };
        let endpoint = Endpoint::parse(name).map_err(|e| e.problem)?;
        return Ok((endpoint, Some(path.into())));
    }
    let (https, rest) = match text.split_once("://") {
        None => (!plain, text),
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some(("dns" | "passthrough", rest)) => match rest.strip_prefix('/') {
            Some(rest) => (!plain, rest),
            None => return Err("a name server cannot be chosen; write dns:///host:port".into()),
        },
        Some((scheme, _)) => {
            return Err(format!(
                "{scheme}:// is not supported; only host:port, http://, https://, dns:/// and unix:///"
            ));
        }
    };
    let rest = rest.trim_end_matches('/');
    if rest.is_empty() {
        return Err("requires a non-empty endpoint, such as localhost:4317".into());
    }
    let scheme = if https { "https" } else { "http" };
    let endpoint = Endpoint::parse(&format!("{scheme}://{rest}")).map_err(|e| e.problem)?;
    if endpoint.path != "/" {
        return Err("has a path, which gRPC does not know".into());
    }
    if !endpoint.has_port() {
        return Err("the port is missing: host:port".into());
    }
    Ok((endpoint, None))
}

/// Configured metadata. What belongs to the protocol is refused; values of names that end in
/// `-bin` are encoded.
pub(super) fn metadata(configured: &[(String, String)]) -> Result<HeaderMap, ClientError> {
    let encoded: Vec<(String, String)> = configured
        .iter()
        .map(|(name, value)| {
            let binary = name.to_ascii_lowercase().ends_with("-bin");
            let value = match binary {
                true => BASE64_STANDARD_NO_PAD.encode(value),
                false => value.clone(),
            };
            (name.clone(), value)
        })
        .collect();
    let map = header_map(&encoded)?;
    for name in map.keys() {
        let name = name.as_str();
        if name.starts_with("grpc-") || ["te", "content-type", "host"].contains(&name) {
            return Err(ClientError::Header {
                name: name.to_owned(),
                problem: "it is set by the client and cannot be configured",
            });
        }
    }
    Ok(map)
}
