//! Decoding of the options that the collector calls `confighttp` and `configtls`.

use std::path::PathBuf;
use std::time::Duration;

use tailwater_config::Section;
use tailwater_pipeline::auth::Authenticators;
use tailwater_pipeline::pem::decode_pem;
use tailwater_pipeline::tls::Handshake;

use super::auth::{AuthOptions, Credentials};
use super::endpoint::Endpoint;
use super::http::header_map;
use super::options::{ClientOptions, TlsOptions};
use super::{ClientError, proxy, tls};

impl Endpoint {
    /// Reads a required URL.
    pub fn decode(s: &mut Section<'_, '_>, key: &str) -> Option<Endpoint> {
        let url = s.string_required(key)?;
        Endpoint::parse(&url)
            .map_err(|e| s.invalid(key, e.problem))
            .ok()
    }
}

/// What its options do.
const FIXED_COMPRESSION: &[(&str, &str)] = &[
    (
        "compression",
        "The protocol fixes it: what is not refused means that.",
    ),
    ("compression_params", "Only without a level."),
    ("compression_params::level", "0 or -1."),
];

/// Reads `compression` for an exporter whose bodies are compressed as its protocol says: `own`,
/// `none` and the empty text mean that, anything else is refused.
pub fn decode_fixed_compression(s: &mut Section<'_, '_>, own: &str) {
    s.describe(FIXED_COMPRESSION);
    s.one_of("compression", &["", "none", own], "");
    let level = s.section("compression_params", |p| p.i64("level", 0, ..));
    if ![0, -1].contains(&level) {
        let why = "the protocol fixes how bodies are compressed, which has no levels; remove it";
        s.invalid("compression_params", why);
    }
}

/// What its options do.
const HTTP: &[(&str, &str)] = &[
    ("timeout", "How long an attempt may take."),
    (
        "connect_timeout",
        "own: How long opening a connection may take.",
    ),
    (
        "tls",
        "Certificates, and whom to trust. The URL says whether TLS is used.",
    ),
    (
        "proxy_url",
        "A proxy of HTTP (`http://`, or `https://` over TLS, by the exporter's `tls`, verified by its own name) or SOCKS 5 (`socks5://` or `socks5h://`, port 1080), with `user:password@` if it wants them. One of SOCKS resolves the names, with either spelling, as with Go programs. The environment's unless set.",
    ),
    (
        "max_idle_conns",
        "Connections that wait for requests; 0 = no limit.",
    ),
    (
        "max_idle_conns_per_host",
        "The same, of one host; 0 = no limit.",
    ),
    (
        "max_conns_per_host",
        "Connections to one host; 0 = no limit.",
    ),
    (
        "idle_conn_timeout",
        "A connection without requests for so long is closed.",
    ),
    ("disable_keep_alives", "A connection for each request."),
    (
        "force_attempt_http2",
        "Over TLS, HTTP/2 with servers that choose it: all requests share one connection, for which the limits of connections do not count. false: HTTP/1.1, as for plain requests.",
    ),
    (
        "http2_read_idle_timeout",
        "A connection over which nothing came for so long is asked for a sign of life; 0 = never. Anything else switches HTTP/2 on.",
    ),
    ("http2_ping_timeout", "How long that may take; 0 means 15s."),
    (
        "cookies",
        "What the server sets is sent back to it until it ends; 64 cookies of 4 KiB. A configured header `Cookie` wins. Off unless there is the section.",
    ),
    ("cookies::enabled", "False: off."),
    (
        "read_buffer_size",
        "Accepted with a warning: sized automatically.",
    ),
    (
        "write_buffer_size",
        "Accepted with a warning: sized automatically.",
    ),
    ("headers", "Headers of every request."),
];

impl ClientOptions {
    /// Reads the client's options out of an exporter's section, where they stand beside its own.
    /// `endpoint` and `compression` are left to the exporter.
    pub fn decode(s: &mut Section<'_, '_>, defaults: ClientOptions) -> ClientOptions {
        s.describe(HTTP);
        let read_idle = s.duration("http2_read_idle_timeout", defaults.http2_read_idle_timeout);
        let ping_timeout = s.duration("http2_ping_timeout", Duration::ZERO);
        // As in the collector, where looking after such connections switches them on.
        let http2 = s.bool("force_attempt_http2", defaults.http2) || !read_idle.is_zero();
        refuse_middlewares(s);
        let cookies = s.section_if_present("cookies", |c| c.bool("enabled", true));
        // Both exist for tuning only; the sockets and the HTTP library size their buffers
        // themselves, so any value gives what it asks for: correct transfer.
        for key in ["read_buffer_size", "write_buffer_size"] {
            if s.u64_optional(key, ..).is_some() {
                s.warn(key, "has no effect: buffers are sized automatically");
            }
        }
        let headers = s.secret_map("headers").unwrap_or_default();
        let headers = headers
            .into_iter()
            .map(|(name, value)| (name, value.expose().to_owned()));
        let options = ClientOptions {
            timeout: s.duration("timeout", defaults.timeout),
            connect_timeout: s.duration("connect_timeout", defaults.connect_timeout),
            headers: headers.collect(),
            tls: s.section("tls", TlsOptions::decode),
            proxy_url: s.secret("proxy_url").map(|url| url.expose().to_owned()),
            auth: decode_auth(s),
            max_idle_conns: s.usize("max_idle_conns", defaults.max_idle_conns, ..),
            max_idle_conns_per_host: s.usize(
                "max_idle_conns_per_host",
                defaults.max_idle_conns_per_host,
                ..,
            ),
            max_conns_per_host: s.usize("max_conns_per_host", defaults.max_conns_per_host, ..),
            idle_conn_timeout: s.duration("idle_conn_timeout", defaults.idle_conn_timeout),
            disable_keep_alives: s.bool("disable_keep_alives", defaults.disable_keep_alives),
            cookies: cookies.unwrap_or(defaults.cookies),
            http2,
            http2_read_idle_timeout: read_idle,
            http2_ping_timeout: match ping_timeout.is_zero() {
                true => defaults.http2_ping_timeout,
                false => ping_timeout,
            },
        };
        check(s, &options);
        options
    }

    /// Reports headers, a proxy or credentials that no request could be sent with, for those who read
    /// options by themselves.
    pub fn validate(&self, s: &mut Section<'_, '_>) {
        check(s, self);
    }
}

/// What its options do.
const MIDDLEWARES: &[(&str, &str)] = &[(
    "middlewares",
    "Only an empty list: no extension of this build changes requests. `headers` and `auth` do.",
)];

/// `middlewares`: a list that may only be empty.
pub(super) fn refuse_middlewares(s: &mut Section<'_, '_>) {
    s.describe(MIDDLEWARES);
    if s.list("middlewares").is_some_and(|all| !all.is_empty()) {
        let why = "is not supported: no extension of this build changes requests. Remove it; `headers` sets \
                   headers, `auth` names who logs in, and what else is to be done to requests a proxy in \
                   between can do";
        s.invalid("middlewares", why);
    }
}

/// Refuses what no request could be sent with, as far as that shows without reading a file.
fn check(s: &mut Section<'_, '_>, options: &ClientOptions) {
    if let Some(url) = &options.proxy_url
        && let Err(e) = proxy::parse("proxy_url", url)
    {
        s.invalid("proxy_url", e.problem);
    }
    match header_map(&options.headers) {
        Err(ClientError::Header { name, problem }) => {
            s.invalid("headers", format!("{name:?}: {problem}"));
        }
        Err(e) => s.invalid("headers", e.to_string()),
        Ok(_) => {}
    }
    check_auth(s, &options.auth);
}

/// Refuses credentials that no header can carry.
pub(super) fn check_auth(s: &mut Section<'_, '_>, auth: &AuthOptions) {
    let key = match auth {
        AuthOptions::Basic { .. } => "basic_auth",
        AuthOptions::Bearer { .. } => "bearer_token",
        AuthOptions::None
        | AuthOptions::Extension(_)
        | AuthOptions::BasicFile { .. }
        | AuthOptions::BearerFile(_) => return,
    };
    if let Err(problem) = Credentials::new(auth, &Authenticators::default()) {
        s.invalid(key, problem);
    }
}

/// What its options do.
const AUTH: &[(&str, &str)] = &[
    (
        "auth",
        "How one logs in; only one of it, `basic_auth`, `bearer_token` and `bearer_token_file`.",
    ),
    (
        "auth::authenticator",
        "An extension, such as `basicauth`, `bearertokenauth` or `headers_setter`. Required.",
    ),
    ("basic_auth", "own: A user name and a password."),
    ("basic_auth::username", "own: The name."),
    (
        "basic_auth::password",
        "own: The password. It or `password_file` is required.",
    ),
    ("basic_auth::password_file", "own: File with the password."),
    ("bearer_token", "own: A token."),
    ("bearer_token_file", "own: File with a token."),
];

/// `auth`, `basic_auth`, `bearer_token` or `bearer_token_file`; the last three are our own.
pub(super) fn decode_auth(s: &mut Section<'_, '_>) -> AuthOptions {
    s.describe(AUTH);
    let extension = s
        .section_if_present("auth", |a| {
            let id = a.component_id("authenticator");
            if id.is_none() && !a.has("authenticator") {
                a.error("authenticator is required");
            }
            id.map(|id| AuthOptions::Extension(id.to_string()))
        })
        .flatten();
    let basic = s.section_if_present("basic_auth", decode_basic).flatten();
    let token = s.secret("bearer_token");
    let token = token.map(|t| AuthOptions::Bearer {
        token: t.expose().to_owned(),
    });
    let file = s.string_optional("bearer_token_file");
    let file = file.map(|path| AuthOptions::BearerFile(PathBuf::from(path)));
    let mut given = [extension, basic, token, file].into_iter().flatten();
    let first = given.next().unwrap_or_default();
    if given.next().is_some() {
        s.error("only one of auth, basic_auth, bearer_token and bearer_token_file can be set");
    }
    first
}

fn decode_basic(s: &mut Section<'_, '_>) -> Option<AuthOptions> {
    let username = s.string_required("username");
    let password = s.secret("password");
    let file = s.string_optional("password_file");
    match (password, file) {
        (Some(_), Some(_)) => {
            s.error("only one of password and password_file can be set");
            None
        }
        (None, None) => {
            s.error("password or password_file is required");
            None
        }
        (Some(p), None) => Some(AuthOptions::Basic {
            username: username?,
            password: p.expose().to_owned(),
        }),
        (None, Some(path)) => Some(AuthOptions::BasicFile {
            username: username?,
            password_file: path.into(),
        }),
    }
}

/// What its options do.
const INSECURE: &[(&str, &str)] = &[(
    "insecure",
    "Accepted with a warning: the URL says whether TLS is used.",
)];

/// What its options do.
const TLS: &[(&str, &str)] = &[
    (
        "ca_file",
        "File with the authorities that are trusted, PEM; the system's unless set.",
    ),
    ("ca_pem", "The same as text."),
    (
        "include_system_ca_certs_pool",
        "The system's authorities are trusted besides.",
    ),
    ("cert_file", "File with our certificate, PEM."),
    ("cert_pem", "The same as text."),
    ("key_file", "File with its key, PEM."),
    ("key_pem", "The same as text."),
    ("insecure_skip_verify", "Any certificate is taken."),
    (
        "server_name_override",
        "The name that the certificate must have, in place of that of the address.",
    ),
    (
        "reload_interval",
        "How often files are looked at for changes at most; 0 = with each connection.",
    ),
];

impl TlsOptions {
    /// Reads `tls` of an HTTP client.
    pub fn decode(s: &mut Section<'_, '_>) -> TlsOptions {
        s.describe(INSECURE);
        if s.bool("insecure", false) {
            let why = "has no effect: the endpoint's scheme decides whether TLS is used \
                       (insecure_skip_verify accepts any certificate)";
            s.warn("insecure", why);
        }
        TlsOptions::decode_files(s)
    }

    /// Reads all of `tls` but `insecure`.
    pub(super) fn decode_files(s: &mut Section<'_, '_>) -> TlsOptions {
        s.describe(TLS);
        let tls = TlsOptions {
            ca: decode_pem(s, "ca_file", "ca_pem"),
            include_system_ca_certs_pool: s.bool("include_system_ca_certs_pool", false),
            cert: decode_pem(s, "cert_file", "cert_pem"),
            key: decode_pem(s, "key_file", "key_pem"),
            insecure_skip_verify: s.bool("insecure_skip_verify", false),
            server_name_override: s
                .string_optional("server_name_override")
                .filter(|name| !name.is_empty()),
            handshake: Handshake::decode(s),
            reload_interval: s.duration("reload_interval", Default::default()),
        };
        if tls.cert.is_some() != tls.key.is_some() {
            s.error(
                "a client certificate needs both cert_file (or cert_pem) and key_file (or key_pem)",
            );
        }
        for (option, problem) in tls::text_problems(&tls) {
            s.invalid(option, problem);
        }
        tls
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use rustls::{CipherSuite, NamedGroup};
    use tailwater_pipeline::pem::PemSource;
    use tailwater_pipeline::tls::TlsVersion;

    use super::super::test_server;
    use super::*;
    use crate::test_config::decode_json;

    fn decode(config: Value) -> Result<ClientOptions, String> {
        decode_json(&config, |s| {
            ClientOptions::decode(s, ClientOptions::default())
        })
    }

    #[test]
    fn nothing_written_gives_the_defaults() {
        assert_eq!(decode(json!({})).unwrap(), ClientOptions::default());
    }

    #[test]
    fn every_option_has_its_effect() {
        let pem = std::fs::read_to_string(test_server::pem("client1.pem")).unwrap();
        let got = decode(json!({
            "timeout": "5s", "connect_timeout": "1s", "headers": {"X-A": "b"},
            "proxy_url": "http://p:1", "max_idle_conns": 1, "max_idle_conns_per_host": 2,
            "max_conns_per_host": 3, "idle_conn_timeout": "4s", "disable_keep_alives": true,
            "cookies": {"enabled": true}, "force_attempt_http2": false, "middlewares": [],
            "http2_read_idle_timeout": "6s", "http2_ping_timeout": "7s",
            "read_buffer_size": 10, "write_buffer_size": 10,
            "basic_auth": {"username": "u", "password_file": "/p"},
            "tls": {
                "ca_file": "/ca", "include_system_ca_certs_pool": true, "cert_pem": pem,
                "key_file": "/k", "insecure_skip_verify": true, "server_name_override": "n",
                "min_version": "1.2", "max_version": "1.2",
                "cipher_suites": ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
                "curve_preferences": ["P256"], "reload_interval": "1h",
                "insecure": true,
            },
        }));
        let expect = ClientOptions {
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
            headers: vec![("X-A".into(), "b".into())],
            proxy_url: Some("http://p:1".into()),
            max_idle_conns: 1,
            max_idle_conns_per_host: 2,
            max_conns_per_host: 3,
            idle_conn_timeout: Duration::from_secs(4),
            disable_keep_alives: true,
            cookies: true,
            http2: true,
            http2_read_idle_timeout: Duration::from_secs(6),
            http2_ping_timeout: Duration::from_secs(7),
            auth: AuthOptions::BasicFile {
                username: "u".into(),
                password_file: "/p".into(),
            },
            tls: TlsOptions {
                ca: Some(PemSource::File("/ca".into())),
                include_system_ca_certs_pool: true,
                cert: Some(PemSource::Text(pem)),
                key: Some(PemSource::File("/k".into())),
                insecure_skip_verify: true,
                server_name_override: Some("n".into()),
                handshake: Handshake {
                    min_version: TlsVersion::V12,
                    max_version: TlsVersion::V12,
                    suites: vec![CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256],
                    curves: vec![NamedGroup::secp256r1],
                },
                reload_interval: Duration::from_secs(3600),
            },
        };
        assert_eq!(got.unwrap(), expect);
    }

    /// Guarantee: a section that is there switches cookies on; as in the collector, null does not.
    #[test]
    fn cookies_are_switched_on_by_their_section() {
        for (cookies, expect) in [
            (json!({}), true),
            (json!({"enabled": true}), true),
            (json!({"enabled": false}), false),
            (Value::Null, false),
        ] {
            let got = decode(json!({"cookies": cookies})).unwrap();
            assert_eq!(got.cookies, expect, "{cookies}");
        }
    }

    #[test]
    fn ways_to_authenticate_are_told_apart() {
        for (config, expect) in [
            (
                json!({"bearer_token": "t"}),
                AuthOptions::Bearer { token: "t".into() },
            ),
            (
                json!({"bearer_token_file": "/t"}),
                AuthOptions::BearerFile("/t".into()),
            ),
            (
                json!({"auth": {"authenticator": "oauth2client/a"}}),
                AuthOptions::Extension("oauth2client/a".into()),
            ),
            (
                json!({"basic_auth": {"username": "u", "password": "p"}}),
                AuthOptions::Basic {
                    username: "u".into(),
                    password: "p".into(),
                },
            ),
        ] {
            assert_eq!(decode(config).unwrap().auth, expect);
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let pem = |name: &str| std::fs::read_to_string(test_server::pem(name)).unwrap();
        for (config, part) in [
            (json!({"http2_ping_timeout": 1.5}), "http2_ping_timeout"),
            (json!({"force_attempt_http2": "on"}), "force_attempt_http2"),
            (json!({"cookies": {"enabled": "yes"}}), "cookies"),
            (json!({"middlewares": [{"id": "a"}]}), "`headers` sets"),
            (
                json!({"tls": {"cipher_suites": ["x"]}}),
                "tls::cipher_suites",
            ),
            (
                json!({"tls": {"curve_preferences": ["x"]}}),
                "tls::curve_preferences",
            ),
            (json!({"tls": {"max_version": "1.1"}}), "1.2 is the oldest"),
            (json!({"tls": {"tpm": {"enabled": true}}}), "tls::tpm"),
            (
                json!({"tls": {"min_version": "1.3", "max_version": "1.2"}}),
                "above max_version",
            ),
            (json!({"tls": {"cert_file": "/c"}}), "key_file"),
            (
                json!({"tls": {"ca_file": "/c", "ca_pem": "x"}}),
                "only one of ca_file",
            ),
            (json!({"tls": {"ca_fil": "/c"}}), "ca_file"),
            (json!({"auth": {}}), "authenticator"),
            (json!({"basic_auth": {"username": "u"}}), "password"),
            (
                json!({"bearer_token": "s3cret", "bearer_token_file": "/x"}),
                "only one of auth",
            ),
            (json!({"headers": {"a": [1]}}), "headers"),
            (
                json!({"headers": {"a b": "c"}}),
                "\"a b\": not a header name",
            ),
            (
                json!({"headers": {"Content-Length": "5"}}),
                "cannot be configured",
            ),
            (json!({"headers": {"a": "s3cret\n"}}), "cannot carry"),
            (
                json!({"proxy_url": "socks4://u:s3cret@p:1"}),
                "socks5h:// proxies are supported",
            ),
            (
                json!({"proxy_url": "socks5://:s3cret@p:1"}),
                "1 to 255 bytes",
            ),
            (json!({"proxy_url": "p"}), "proxy_url"),
            (json!({"bearer_token": "s3cret\n"}), "cannot carry"),
            (
                json!({"basic_auth": {"username": "a:b", "password": "s3cret"}}),
                "basic_auth",
            ),
            (json!({"tls": {"ca_pem": "s3cret"}}), "tls::ca_pem"),
            (
                json!({"tls": {"cert_pem": "s3cret", "key_file": "/k"}}),
                "tls::cert_pem",
            ),
            (
                json!({"tls": {"cert_file": "/c", "key_pem": "s3cret"}}),
                "tls::key_pem",
            ),
            (
                json!({"tls": {"cert_pem": pem("client1.pem"), "key_pem": pem("server1.key")}}),
                "does not go with the key",
            ),
            (
                json!({"tls": {"server_name_override": "a b"}}),
                "tls::server_name_override",
            ),
            (json!({"time_out": "1s"}), "timeout"),
        ] {
            let error = decode(config.clone()).expect_err(&config.to_string());
            assert!(
                error.contains(part) && !error.contains("s3cret"),
                "{config}: {error}"
            );
        }
    }

    #[test]
    fn an_endpoint_and_the_compression_are_checked() {
        let endpoint = |url: &str| {
            decode_json(&json!({"endpoint": url}), |s| {
                Endpoint::decode(s, "endpoint")
            })
        };
        assert!(endpoint("http://h:1/x").unwrap().is_some());
        assert!(
            endpoint("h:1")
                .unwrap_err()
                .contains("endpoint: a URL with http://")
        );
        let compression = |v: &str| {
            decode_json(&json!({"compression": v}), |s| {
                decode_fixed_compression(s, "snappy")
            })
        };
        assert!(compression("snappy").is_ok() && compression("none").is_ok());
        assert!(compression("gzip").unwrap_err().contains("snappy"));
        for (level, is_fine) in [(0, true), (-1, true), (1, false)] {
            let config = json!({"compression_params": {"level": level}});
            let got = decode_json(&config, |s| decode_fixed_compression(s, "snappy"));
            assert_eq!(got.is_ok(), is_fine, "{level}: {got:?}");
        }
    }
}
