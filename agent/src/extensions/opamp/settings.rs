//! The options, as the collector's extension names them, and our own beside them.

use std::time::Duration;

use tailwater_config::Section;
use tailwater_exporters::client::{ClientOptions, Endpoint, TlsOptions};
use tailwater_opamp::InstanceUid;
use tailwater_opamp::proto::agent;

use super::signature::PublicKey;
use crate::layer::Rules;

/// Limit of messages in both directions. Source: the specification recommends 64 MiB; a configuration
/// has at most 16 MiB here.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;
/// Source: the specification.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long opening a connection or waiting for an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long before its end a certificate is renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);
/// What is sent as attributes at most.
const ATTRIBUTES_MAX: usize = 128;

/// Where the server is, and how it is spoken to.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Over a WebSocket, or else by requests.
    pub websocket: bool,
    /// Where.
    pub endpoint: Endpoint,
}

impl Target {
    /// Reads a URL with `ws`, `wss`, `http` or `https`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Target, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let (websocket, scheme) = match &*scheme.to_ascii_lowercase() {
            "ws" => (true, "http"),
            "wss" => (true, "https"),
            "http" => (false, "http"),
            "https" => (false, "https"),
            _ => return Err("a URL with ws://, wss://, http:// or https:// is needed".to_owned()),
        };
        let endpoint = Endpoint::parse(&format!("{scheme}://{rest}")).map_err(|e| e.problem)?;
        Ok(Target {
            websocket,
            endpoint,
        })
    }
}

/// Validated options.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the server is.
    pub target: Target,
    /// How it is reached.
    pub client: ClientOptions,
    /// Between two requests; over a WebSocket, between two heartbeats.
    pub interval: Duration,
    /// Limit of a message.
    pub message_bytes_max: usize,
    /// The instance's name; else one is made and kept.
    pub instance_uid: Option<InstanceUid>,
    /// Bits of what is claimed.
    pub capabilities: u64,
    /// Attributes that are sent besides: those that identify, and others.
    pub identifying: Vec<(String, String)>,
    /// See `identifying`.
    pub others: Vec<(String, String)>,
    /// Attributes of the agent's own telemetry are sent besides.
    pub include_resource: bool,
    /// What a remote configuration may name.
    pub rules: Rules,
    /// Who may sign remote configurations; empty: they need no signature.
    pub keys: Vec<PublicKey>,
    /// A certificate is asked for, and a new one so long before it ends.
    pub certificate: Option<Duration>,
    /// An older version than one that was in force is taken.
    pub allow_older: bool,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    ("server", "The control plane."),
    ("server::ws", "A WebSocket. It or `http` is required."),
    ("server::http", "Polling."),
    ("instance_uid", "A UUID; made and kept unless set."),
    (
        "heartbeat_interval",
        "own: Of a WebSocket. The server may offer another one.",
    ),
    ("message_bytes_max", "own: In both directions."),
    ("capabilities", "What the agent does."),
    ("agent_description", "What it says of itself."),
    (
        "agent_description::identifying_attributes",
        "own: Attributes that identify it; 128 at most.",
    ),
    (
        "agent_description::non_identifying_attributes",
        "Other attributes; 128 at most.",
    ),
    (
        "agent_description::include_resource_attributes",
        "All attributes of `service::telemetry::resource` besides.",
    ),
    ("remote_config", "own: What a remote configuration may do."),
    ("certificate_request", "own: Client certificates."),
    (
        "certificate_request::renew_before",
        "own: How long before its end another one is asked for, but not before a third of its time is over.",
    ),
    (
        "certificate_request::enabled",
        "own: Ask for one; needs `accepts_opamp_connection_settings`.",
    ),
    ("ppid", "Only 0."),
    ("ppid_poll_interval", "Has nothing to act on."),
];

impl Settings {
    /// Whether remote configurations are taken.
    pub fn takes_layers(&self) -> bool {
        self.capabilities & agent::ACCEPTS_REMOTE_CONFIG != 0
    }

    /// Reads the section. `None` only together with an error.
    pub fn decode(s: &mut Section<'_, '_>) -> Option<Settings> {
        s.describe(OPTIONS);
        let server = s.section("server", decode_server);
        let uid = s.string_optional("instance_uid").filter(|t| !t.is_empty());
        let uid = uid.and_then(|text| {
            let parsed = text.parse();
            parsed
                .map_err(|why: &str| s.invalid("instance_uid", why))
                .ok()
        });
        let interval = s.duration_in(
            "heartbeat_interval",
            INTERVAL,
            Duration::from_secs(1)..=Duration::from_secs(86_400),
        );
        let message_bytes_max = s.byte_size("message_bytes_max", MESSAGE_BYTES_MAX, 4096..=1 << 30);
        let (beats, capabilities) = s.section("capabilities", decode_capabilities);
        let (identifying, others, include_resource) = s.section("agent_description", |d| {
            (
                attributes(d, "identifying_attributes"),
                attributes(d, "non_identifying_attributes"),
                d.bool("include_resource_attributes", false),
            )
        });
        let remote = s.section("remote_config", decode_remote);
        let certificate = s.section("certificate_request", |c| {
            let before = c.duration("renew_before", RENEW_BEFORE);
            c.bool("enabled", false).then_some(before)
        });
        if certificate.is_some() && capabilities & agent::ACCEPTS_OPAMP_CONNECTION_SETTINGS == 0 {
            let why = "needs capabilities::accepts_opamp_connection_settings: the certificate comes as an offer";
            s.invalid("certificate_request", why);
        }
        if s.i64("ppid", 0, ..) != 0 {
            let why = "is not supported: it is for agents that a supervisor starts, and this one needs none";
            s.invalid("ppid", why);
        }
        s.duration_optional("ppid_poll_interval");
        let (rules, keys, allow_older) = remote;
        let (target, client, polling) = server?;
        Some(Settings {
            interval: match target.websocket {
                true => interval,
                false => polling.unwrap_or(interval),
            },
            target,
            client,
            message_bytes_max: usize::try_from(message_bytes_max).unwrap_or(usize::MAX),
            instance_uid: uid,
            capabilities: match beats {
                true => capabilities | agent::REPORTS_HEARTBEAT,
                false => capabilities,
            },
            identifying,
            others,
            include_resource,
            rules,
            keys,
            certificate,
            allow_older,
        })
    }
}

type Server = (Target, ClientOptions, Option<Duration>);

fn decode_server(s: &mut Section<'_, '_>) -> Option<Server> {
    let ws = s.section_if_present("ws", |s| decode_transport(s, true));
    let http = s.section_if_present("http", |s| decode_transport(s, false));
    match (ws, http) {
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => {
            s.error("ws or http is required");
            None
        }
        (Some(_), Some(_)) => {
            s.error("only one of ws and http can be set");
            None
        }
    }
}

/// What its options do.
const TRANSPORT: &[(&str, &str)] = &[
    (
        "endpoint",
        "`ws://` or `wss://`; of `http`, `http://` or `https://`.",
    ),
    ("headers", "Headers of requests."),
    ("timeout", "own: How long an attempt may take."),
    ("tls", "Certificates, and whom to trust."),
    ("proxy_url", "own: As of exporters."),
];

fn decode_transport(s: &mut Section<'_, '_>, websocket: bool) -> Option<Server> {
    s.describe(TRANSPORT);
    let url = s.string_required("endpoint");
    let target = url.and_then(|url| match Target::parse(&url) {
        Ok(target) if target.websocket == websocket => Some(target),
        Ok(_) => {
            let schemes = match websocket {
                true => "must begin with ws:// or wss://; for http:// and https:// there is server::http",
                false => "must begin with http:// or https://; for ws:// and wss:// there is server::ws",
            };
            s.invalid("endpoint", schemes);
            None
        }
        Err(problem) => {
            s.invalid("endpoint", problem);
            None
        }
    });
    s.refuse(
        "auth",
        "set what authenticates in headers, such as Authorization: Bearer ${env:TOKEN}",
    );
    let headers = s.secret_map("headers").unwrap_or_default();
    let headers = headers
        .into_iter()
        .map(|(name, value)| (name, value.expose().to_owned()));
    let client = ClientOptions {
        timeout: s.duration("timeout", TIMEOUT),
        headers: headers.collect(),
        tls: s.section("tls", TlsOptions::decode),
        proxy_url: s.secret("proxy_url").map(|url| url.expose().to_owned()),
        http2: !websocket,
        ..ClientOptions::default()
    };
    client.validate(s);
    if !websocket {
        s.describe(&[(
            "polling_interval",
            "How often is asked; at least 1s, 30s unless set.",
        )]);
    }
    let polling = match websocket {
        true => None,
        false => s.duration_in_optional("polling_interval", ..=Duration::from_secs(86_400)),
    };
    // As in the collector: zero is the default.
    let polling = polling.filter(|p| !p.is_zero());
    if polling.is_some_and(|p| p < Duration::from_secs(1)) {
        s.invalid("polling_interval", "must be at least 1s");
    }
    Some((target?, client, polling))
}

/// What its options do.
const CAPABILITIES: &[(&str, &str)] = &[
    (
        "reports_effective_config",
        "Says what configuration is in force.",
    ),
    ("reports_health", "Says how it is."),
    (
        "reports_available_components",
        "Says what components there are.",
    ),
    (
        "accepts_remote_config",
        "Takes a configuration, as the collector's supervisor has it.",
    ),
    (
        "accepts_opamp_connection_settings",
        "Takes other settings of the connection, as the collector's supervisor has it.",
    ),
    ("reports_heartbeat", "Gives signs of life."),
    (
        "accepts_restart_command",
        "Begins anew when it is told to: stops as by SIGTERM, and runs the same program with the same arguments.",
    ),
    ("reports_own_metrics", "True is refused."),
    ("reports_own_logs", "True is refused."),
    ("reports_own_traces", "True is refused."),
];

/// Whether heartbeats are sent, and the other bits.
fn decode_capabilities(s: &mut Section<'_, '_>) -> (bool, u64) {
    s.describe(CAPABILITIES);
    let mut bits = agent::REPORTS_STATUS;
    let mut flag = |s: &mut Section<'_, '_>, key: &str, default, bit| {
        if s.bool(key, default) {
            bits |= bit;
        }
    };
    flag(
        s,
        "reports_effective_config",
        true,
        agent::REPORTS_EFFECTIVE_CONFIG,
    );
    flag(s, "reports_health", true, agent::REPORTS_HEALTH);
    flag(
        s,
        "reports_available_components",
        true,
        agent::REPORTS_AVAILABLE_COMPONENTS,
    );
    let remote = agent::ACCEPTS_REMOTE_CONFIG | agent::REPORTS_REMOTE_CONFIG;
    flag(s, "accepts_remote_config", false, remote);
    let connection =
        agent::ACCEPTS_OPAMP_CONNECTION_SETTINGS | agent::REPORTS_CONNECTION_SETTINGS_STATUS;
    flag(s, "accepts_opamp_connection_settings", false, connection);
    let restart = agent::ACCEPTS_RESTART_COMMAND;
    flag(s, "accepts_restart_command", false, restart);
    let beats = s.bool("reports_heartbeat", true);
    let unsupported = [
        (
            "reports_own_metrics",
            "metrics are served where service::telemetry::metrics says",
        ),
        ("reports_own_logs", "set service::telemetry::logs"),
        ("reports_own_traces", "the agent makes no traces of itself"),
    ];
    for (key, instead) in unsupported {
        if s.bool(key, false) {
            s.invalid(key, format!("is not supported: {instead}"));
        }
    }
    (beats, bits)
}

fn attributes(s: &mut Section<'_, '_>, key: &str) -> Vec<(String, String)> {
    let found = s.string_map(key).unwrap_or_default();
    if found.len() > ATTRIBUTES_MAX {
        s.invalid(key, format!("has at most {ATTRIBUTES_MAX} attributes"));
    }
    found
}

/// What its options do.
const REMOTE: &[(&str, &str)] = &[
    (
        "allow_read",
        "own: Absolute paths that it may name for reading, besides what the local one names.",
    ),
    (
        "allow_write",
        "own: Absolute paths that it may name for writing.",
    ),
    (
        "allow_endpoints",
        "own: Servers that it may name, as `host:port`.",
    ),
    (
        "allow_variables",
        "own: Variables of the environment that it may take over.",
    ),
    (
        "public_keys",
        "own: Ed25519 keys, PEM or base64 of 32 bytes, of which one must have signed it.",
    ),
    (
        "allow_older_versions",
        "own: One that is older than what is in force is taken, too.",
    ),
];

fn decode_remote(s: &mut Section<'_, '_>) -> (Rules, Vec<PublicKey>, bool) {
    s.describe(REMOTE);
    let mut paths = |key: &str| {
        let list = s.string_list(key).unwrap_or_default();
        if list.iter().any(|path| !path.starts_with('/')) {
            s.invalid(key, "each must be an absolute path");
        }
        list.into_iter().map(Into::into).collect()
    };
    let (read, write) = (paths("allow_read"), paths("allow_write"));
    let servers = s.string_list("allow_endpoints").unwrap_or_default();
    if servers.iter().any(|text| !is_host_port(text)) {
        let why = "each must be host:port; the host may begin with \"*.\", the port may be \"*\"";
        s.invalid("allow_endpoints", why);
    }
    let variables = s.string_list("allow_variables").unwrap_or_default();
    let mut keys = Vec::new();
    for text in s.string_list("public_keys").unwrap_or_default() {
        match PublicKey::parse(&text) {
            Ok(key) => keys.push(key),
            Err(why) => s.invalid("public_keys", why),
        }
    }
    let rules = Rules {
        read,
        write,
        servers,
        variables,
    };
    (rules, keys, s.bool("allow_older_versions", false))
}

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let name = host.strip_prefix("*.").unwrap_or(host);
    let named = !name.is_empty() && !name.contains(['*', '/', ' ', '@']);
    named && (port == "*" || port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_config::{Errors, parse};

    fn settings(yaml: &str) -> Result<Settings, String> {
        let node = parse(yaml, "o.yaml").unwrap();
        let mut errors = Errors::new();
        let mut section = Section::new(&node, "extensions::opamp", &mut errors);
        let decoded = Settings::decode(&mut section);
        section.finish();
        match errors.is_empty() {
            true => decoded.ok_or_else(|| "neither settings nor an error".to_owned()),
            false => Err(errors.to_string()),
        }
    }

    const WS: &str = "server: {ws: {endpoint: 'wss://c.example:4320/v1/opamp'}}";
    const HTTP: &str = "server: {http: {endpoint: 'http://127.0.0.1:4320/v1/opamp'";

    #[test]
    fn the_collectors_options_mean_what_they_mean_there() {
        let s = settings(WS).unwrap();
        assert!(s.target.websocket && s.target.endpoint.https && !s.client.http2);
        assert_eq!(
            s.target.endpoint.to_string(),
            "https://c.example:4320/v1/opamp"
        );
        assert_eq!((s.capabilities, s.interval), (0x6805, INTERVAL));
        assert!(!s.takes_layers());
        let s = settings(&format!("{HTTP}, polling_interval: 7s}}}}")).unwrap();
        assert!(!s.target.websocket && s.client.http2);
        assert_eq!(s.interval, Duration::from_secs(7));
        let all = format!(
            "{WS}\ninstance_uid: 018f4b1e-7d2a-7fff-bfff-ffffffffffff\n\
             capabilities: {{accepts_remote_config: true, accepts_opamp_connection_settings: true, \
             accepts_restart_command: true, reports_health: false, reports_effective_config: false, \
             reports_available_components: false, reports_heartbeat: false}}\n\
             agent_description: {{non_identifying_attributes: {{a: b}}, include_resource_attributes: true}}\n\
             remote_config: {{allow_read: [/var/log], allow_endpoints: ['*.loki.example:*'], \
             allow_variables: [X], allow_older_versions: true}}\nheartbeat_interval: 5s\n"
        );
        let s = settings(&all).unwrap();
        assert_eq!(s.capabilities, 0x9503);
        assert!(s.takes_layers() && s.include_resource && s.allow_older);
        assert_eq!(s.others, [("a".to_owned(), "b".to_owned())]);
        assert_eq!(s.interval, Duration::from_secs(5));
        assert_eq!(s.rules.variables, ["X"]);
    }

    #[test]
    fn a_certificate_is_asked_for_where_one_can_come() {
        let on = "certificate_request: {enabled: true, renew_before: 1h}";
        assert!(
            settings(&format!("{WS}\n{on}"))
                .unwrap_err()
                .contains("certificate_request")
        );
        let accepts = "capabilities: {accepts_opamp_connection_settings: true}";
        let s = settings(&format!("{WS}\n{accepts}\n{on}")).unwrap();
        assert_eq!(s.certificate, Some(Duration::from_secs(3600)));
    }

    #[test]
    fn what_is_not_supported_or_makes_no_sense_is_refused_by_name() {
        for (yaml, said) in [
            ("{}".to_owned(), "ws or http is required"),
            (
                format!("{HTTP}}}, ws: {{endpoint: 'ws://a/'}}}}"),
                "only one",
            ),
            (
                "server: {ws: {endpoint: 'http://a/'}}".to_owned(),
                "server::http",
            ),
            (
                "server: {http: {endpoint: 'wss://a/'}}".to_owned(),
                "server::ws",
            ),
            ("server: {ws: {endpoint: a}}".to_owned(), "ws://"),
            (
                format!("{HTTP}, polling_interval: 5ms}}}}"),
                "polling_interval",
            ),
            (format!("{HTTP}, auth: basicauth}}}}"), "auth"),
            (format!("{WS}\ninstance_uid: 7"), "instance_uid"),
            (format!("{WS}\nppid: 7"), "ppid"),
            (
                format!("{WS}\ncapabilities: {{reports_own_metrics: true}}"),
                "reports_own_metrics",
            ),
            (
                format!("{WS}\nremote_config: {{allow_read: [logs]}}"),
                "allow_read",
            ),
            (
                format!("{WS}\nremote_config: {{allow_endpoints: [loki]}}"),
                "allow_endpoints",
            ),
            (
                format!("{WS}\nremote_config: {{public_keys: [abc]}}"),
                "public_keys",
            ),
            (format!("{WS}\nremote_confg: {{}}"), "remote_confg"),
        ] {
            let text = settings(&yaml).expect_err(&yaml);
            assert!(text.contains(said), "{yaml}: {text}");
        }
    }
}
