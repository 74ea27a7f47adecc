//! Where NATS is, and as whom one is there.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use async_nats::{ConnectOptions, ServerAddr};

use crate::percent::decoded;

/// As whom it connects.
const NAME: &str = "tailwater-control";

/// Servers of one NATS, and how they are spoken to. Shown without user and password.
#[derive(Clone, Default)]
pub struct Address {
    servers: Vec<ServerAddr>,
    credentials: Option<String>,
    authorities: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
    plain: bool,
}

impl Address {
    /// `nats://` or `tls://` URLs of servers of one NATS, with commas between them; user and password, or a token, may be in
    /// front of the host.
    ///
    /// # Errors
    /// They are none; for people, without a password.
    pub fn parse(urls: &str) -> Result<Address, String> {
        let mut servers = Vec::new();
        for (i, url) in urls.split(',').map(str::trim).enumerate() {
            let of = |problem: &str| format!("URL {} of the bus: {problem}", i + 1);
            let has_scheme = ["nats://", "tls://"].iter().any(|s| url.starts_with(s));
            if !has_scheme {
                return Err(of("must begin with nats:// or tls://"));
            }
            // What the library says of it may hold the password.
            let server = ServerAddr::from_str(url).map_err(|_| of("is no URL of a server"))?;
            if server.host().is_empty() {
                return Err(of("names no host"));
            }
            servers.push(server);
        }
        Ok(Address {
            servers,
            ..Address::default()
        })
    }

    /// With the text of a file of credentials (a JWT and the seed of its key), as `nsc` makes them.
    #[must_use]
    pub fn with_credentials(mut self, text: Option<String>) -> Address {
        self.credentials = text;
        self
    }

    /// Trusting the authorities of this PEM file instead of the system's.
    #[must_use]
    pub fn trusting(mut self, file: Option<PathBuf>) -> Address {
        self.authorities = file;
        self
    }

    /// Showing this certificate, whose key is in the other file, PEM.
    #[must_use]
    pub fn showing(mut self, certificate: Option<(PathBuf, PathBuf)>) -> Address {
        self.certificate = certificate;
        self
    }

    /// Whether servers on other machines may be spoken to without TLS.
    #[must_use]
    pub fn plainly(mut self, plain: bool) -> Address {
        self.plain = plain;
        self
    }

    /// The servers.
    pub(super) fn servers(&self) -> Vec<ServerAddr> {
        self.servers.clone()
    }

    /// TLS is needed where one server is on another machine: what is known of a server must not go to another one that only
    /// says that it is the same.
    fn needs_tls(&self) -> bool {
        let is_here = |server: &ServerAddr| {
            let host = server.host();
            let ip = host.parse::<std::net::IpAddr>();
            host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
        };
        let wants = self.servers.iter().any(ServerAddr::tls_required);
        wants || (!self.plain && !self.servers.iter().all(is_here))
    }

    /// How to connect.
    ///
    /// # Errors
    /// Credentials are none; for people.
    pub(super) fn options(&self) -> Result<ConnectOptions, String> {
        let mut options = ConnectOptions::new()
            .name(NAME)
            .require_tls(self.needs_tls());
        if let Some(text) = &self.credentials {
            let credentials = options.credentials(text);
            options = credentials.map_err(|_| "the file of credentials holds none".to_owned())?;
        }
        // The library looks at none of it. Servers that others name are on the same terms.
        let own = self
            .servers
            .iter()
            .find_map(|s| Some((s.username()?, s.password())));
        options = match own.map(|(user, password)| (decoded(user), password.map(decoded))) {
            Some((user, Some(password))) => options.user_and_password(user, password),
            Some((token, None)) => options.token(token),
            None => options,
        };
        if let Some(file) = &self.authorities {
            options = options.add_root_certificates(file.clone());
        }
        if let Some((certificate, key)) = &self.certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        Ok(options)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, server) in self.servers.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let (scheme, host, port) = (server.scheme(), server.host(), server.port());
            match host.contains(':') {
                true => write!(f, "{comma}{scheme}://[{host}]:{port}")?,
                false => write!(f, "{comma}{scheme}://{host}:{port}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(urls: &str) -> Address {
        Address::parse(urls).unwrap()
    }

    /// Guarantee: neither what is shown nor what is said of a mistake holds a password.
    #[test]
    fn addresses_are_read_and_shown_without_secrets() {
        let address = parse("nats://me:s3cret@127.0.0.1:4223, tls://t0ken@[::1]");
        assert_eq!(
            address.to_string(),
            "nats://127.0.0.1:4223,tls://[::1]:4222"
        );
        for bad in [
            "",
            "127.0.0.1",
            "http://me:s3cret@a",
            "nats://me:s3cret@a:port",
            "nats://",
            "nats://a,",
        ] {
            let said = Address::parse(bad).err().unwrap();
            assert!(!said.contains("s3cret"), "{said}");
        }
        let bad = parse("nats://localhost").with_credentials(Some("s3cret".into()));
        assert!(!bad.options().err().unwrap().contains("s3cret"));
    }

    /// Guarantee: nothing goes to another machine without TLS unless somebody says so.
    #[test]
    fn other_machines_need_tls() {
        for here in [
            "nats://127.0.0.1",
            "nats://localhost:1",
            "nats://[::1]:4222",
        ] {
            assert!(!parse(here).needs_tls(), "{here}");
        }
        for elsewhere in ["nats://nats.example", "nats://localhost,nats://10.0.0.1"] {
            assert!(parse(elsewhere).needs_tls());
            assert!(!parse(elsewhere).plainly(true).needs_tls());
        }
        assert!(parse("tls://localhost").plainly(true).needs_tls());
    }
}
