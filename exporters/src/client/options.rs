//! Options of a client, as the collector's `confighttp` and `configtls` name them.

use std::fmt;
use std::time::Duration;

use tailwater_pipeline::pem::PemSource;
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::tls::Handshake;

use super::auth::AuthOptions;
use super::http2::Ping;
use super::proxy;

/// `tls` of a client.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsOptions {
    /// `ca_file` or `ca_pem`: whom to trust instead of the system's certificate authorities.
    pub ca: Option<PemSource>,
    /// `include_system_ca_certs_pool`: trust them besides `ca`.
    pub include_system_ca_certs_pool: bool,
    /// `cert_file` or `cert_pem`: our certificate chain for mutual TLS. Needs `key`.
    pub cert: Option<PemSource>,
    /// `key_file` or `key_pem`. Needs `cert`.
    pub key: Option<PemSource>,
    /// `insecure_skip_verify`: accept any certificate. Default false.
    pub insecure_skip_verify: bool,
    /// `server_name_override`: name to send and to verify instead of the endpoint's host.
    pub server_name_override: Option<String>,
    /// Versions, suites and curves.
    pub handshake: Handshake,
    /// `reload_interval`: how often files are looked at for changes at most; zero (the default) =
    /// whenever a connection is opened.
    pub reload_interval: Duration,
}

/// Options of one client.
#[derive(Clone, PartialEq)]
pub struct ClientOptions {
    /// Limit for a whole attempt, from connecting to the end of the answer; zero = none.
    /// Default 30 s.
    pub timeout: Duration,
    /// Limit for opening a connection: name, TCP, proxy and TLS. Default 10 s.
    pub connect_timeout: Duration,
    /// Headers of every request. They win over the exporter's own.
    pub headers: Vec<(String, String)>,
    /// `tls`.
    pub tls: TlsOptions,
    /// `proxy_url`: the proxy for all requests. Without it, the environment decides.
    pub proxy_url: Option<String>,
    /// Who we are.
    pub auth: AuthOptions,
    /// Idle connections kept over all hosts; 0 = no limit. Default 100.
    pub max_idle_conns: usize,
    /// Idle connections kept per host; 0 = no limit but `max_idle_conns`. Default 0.
    pub max_idle_conns_per_host: usize,
    /// Connections per host, idle or not; 0 = no limit. Default 0.
    pub max_conns_per_host: usize,
    /// When idle connections are closed; zero = never. Default 90 s.
    pub idle_conn_timeout: Duration,
    /// One connection per request.
    pub disable_keep_alives: bool,
    /// `cookies`: what servers set is sent back to them. Default false.
    pub cookies: bool,
    /// `force_attempt_http2`: HTTP/2 with servers that choose it while TLS is made. Default true.
    pub http2: bool,
    /// `http2_read_idle_timeout`: an HTTP/2 connection over which nothing came for so long is asked for a
    /// sign; zero (the default) = never.
    pub http2_read_idle_timeout: Duration,
    /// `http2_ping_timeout`: how long the sign is waited for. Default 15 s.
    pub http2_ping_timeout: Duration,
}

impl ClientOptions {
    /// Those on which connections depend; all others as they are by default.
    pub(super) fn of_connections(&self) -> ClientOptions {
        let usual = ClientOptions::default();
        ClientOptions {
            timeout: usual.timeout,
            headers: usual.headers,
            auth: usual.auth,
            cookies: usual.cookies,
            ..self.clone()
        }
    }

    /// How quiet HTTP/2 connections are looked after.
    pub(super) fn http2_ping(&self) -> Option<Ping> {
        let ping = Ping {
            after: self.http2_read_idle_timeout,
            timeout: self.http2_ping_timeout,
            while_idle: true,
        };
        (!ping.after.is_zero()).then_some(ping)
    }

    /// Adds the files that are read while connections and requests are made, and the proxy.
    pub fn reach(&self, reach: &mut Reach) {
        let proxy = self.proxy_url.as_deref();
        if let Some(Ok(proxy)) = proxy.map(|url| proxy::parse("proxy_url", url)) {
            reach.connects_to(proxy.server.host_port());
        }
        let pem = [&self.tls.ca, &self.tls.cert, &self.tls.key];
        for source in pem.into_iter().flatten() {
            if let PemSource::File(path) = source {
                reach.reads_file(path);
            }
        }
        match &self.auth {
            AuthOptions::BasicFile {
                password_file: path,
                ..
            }
            | AuthOptions::BearerFile(path) => reach.reads_file(path),
            AuthOptions::None
            | AuthOptions::Extension(_)
            | AuthOptions::Basic { .. }
            | AuthOptions::Bearer { .. } => {}
        }
    }
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            headers: Vec::new(),
            tls: TlsOptions::default(),
            proxy_url: None,
            auth: AuthOptions::None,
            max_idle_conns: 100,
            max_idle_conns_per_host: 0,
            max_conns_per_host: 0,
            idle_conn_timeout: Duration::from_secs(90),
            disable_keep_alives: false,
            cookies: false,
            http2: true,
            http2_read_idle_timeout: Duration::ZERO,
            http2_ping_timeout: Duration::from_secs(15),
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ClientOptions")
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("headers (values redacted)", &headers)
            .field("tls", &self.tls)
            .field("proxy", &self.proxy_url.as_ref().map(|_| "[REDACTED]"))
            .field("auth", &self.auth)
            .field("max_idle_conns", &self.max_idle_conns)
            .field("max_idle_conns_per_host", &self.max_idle_conns_per_host)
            .field("max_conns_per_host", &self.max_conns_per_host)
            .field("idle_conn_timeout", &self.idle_conn_timeout)
            .field("disable_keep_alives", &self.disable_keep_alives)
            .field("cookies", &self.cookies)
            .field("http2", &self.http2)
            .field("http2_read_idle_timeout", &self.http2_read_idle_timeout)
            .field("http2_ping_timeout", &self.http2_ping_timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_secret() {
        let options = ClientOptions {
            headers: vec![("X-Key".into(), "s3cret".into())],
            proxy_url: Some("http://u:s3cret@proxy".into()),
            auth: AuthOptions::Bearer {
                token: "s3cret".into(),
            },
            tls: TlsOptions {
                key: Some(PemSource::Text("s3cret".into())),
                ..TlsOptions::default()
            },
            ..ClientOptions::default()
        };
        let text = format!("{options:?}");
        assert!(text.contains("X-Key") && !text.contains("s3cret"), "{text}");
    }
}
