//! Where a database is, as a URL says it, and how it is connected to.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use postgres::config::{Host, SslMode};
use postgres::{Client, Config, NoTls};
use rustls::ClientConfig;

use super::tls;
use crate::percent;

/// How long an attempt to connect may take, unless the URL says it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What was sent is to be acknowledged within this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection over which nothing came is looked at after this time.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// A database. What is shown of it, also by `{:?}`, has no password.
#[derive(Clone)]
pub struct Address {
    config: Config,
    tls: Option<Arc<ClientConfig>>,
    shown: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.shown)
    }
}

/// What a URL says about TLS.
#[derive(Default)]
struct Secure {
    mode: Option<String>,
    root_cert: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Address {
    /// Of a URL, `postgres://user@host:port/database?sslmode=verify-full`, as `libpq` reads it, with a password that it does
    /// not hold itself.
    ///
    /// TLS is used as `sslmode` says: `disable`, or `verify-full` (also called `require`: a certificate is always
    /// checked, and so is its name). Without it, hosts that are not on this machine need TLS. `sslrootcert`, `sslcert` and
    /// `sslkey` name PEM files.
    ///
    /// # Errors
    /// What is wrong with it; for people, without a password.
    pub fn parse(url: &str, password: Option<&str>) -> Result<Address, String> {
        if !["postgres://", "postgresql://"]
            .iter()
            .any(|s| url.starts_with(s))
        {
            return Err("a database is postgres://user@host:port/name".to_owned());
        }
        let (rest, secure) = split(url)?;
        let mut config = Config::from_str(&rest).map_err(|e| said(&e))?;
        if config.get_user().is_none() {
            return Err(
                "the URL of the database names no user: postgres://user@host/name".to_owned(),
            );
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(
                "the URL of the database names no host: postgres://user@host/name".to_owned(),
            );
        }
        if let Some(password) = password {
            if config.get_password().is_some() {
                return Err(
                    "the URL of the database holds a password, and another one is given".to_owned(),
                );
            }
            config.password(password);
        }
        let tls = match is_secure(&secure, &config)? {
            true => Some(crate::tls::client(
                secure.root_cert.as_deref(),
                secure.cert.as_deref().zip(secure.key.as_deref()),
            )?),
            false => None,
        };
        config.ssl_mode(match tls {
            Some(_) => SslMode::Require,
            None => SslMode::Disable,
        });
        if config.get_application_name().is_none() {
            config.application_name("tailwater-control");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        config.tcp_user_timeout(ANSWER_TIMEOUT);
        config.keepalives_idle(KEEPALIVE);
        let shown = shown(&config);
        Ok(Address { config, tls, shown })
    }

    /// With this password, if it has none.
    #[must_use]
    pub fn or_password(mut self, password: &str) -> Address {
        if self.config.get_password().is_none() {
            self.config.password(password);
        }
        self
    }

    /// As whom.
    pub(super) fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    pub(super) fn connect(&self) -> Result<Client, postgres::Error> {
        match &self.tls {
            Some(tls) => self.config.connect(tls::Connect(tls.clone())),
            None => self.config.connect(NoTls),
        }
    }
}

/// The library's message and its cause: it names options, and never their values.
fn said(error: &postgres::Error) -> String {
    use std::error::Error;
    let cause = error.source().map(|s| format!(": {s}"));
    format!(
        "the URL of the database: {error}{}",
        cause.unwrap_or_default()
    )
}

/// What is about TLS, and the URL without it.
fn split(url: &str) -> Result<(String, Secure), String> {
    let Some((base, query)) = url.split_once('?') else {
        return Ok((url.to_owned(), Secure::default()));
    };
    let mut secure = Secure::default();
    let mut others = Vec::new();
    for part in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = percent::decoded(value);
        match name {
            "sslmode" => secure.mode = Some(value),
            "sslrootcert" => {
                secure.root_cert = Some(value.into()).filter(|v| v != Path::new("system"))
            }
            "sslcert" => secure.cert = Some(value.into()),
            "sslkey" => secure.key = Some(value.into()),
            _ => others.push(part),
        }
    }
    if secure.cert.is_some() != secure.key.is_some() {
        return Err("sslcert and sslkey of the database are given together".to_owned());
    }
    let rest = match others.is_empty() {
        true => base.to_owned(),
        false => format!("{base}?{}", others.join("&")),
    };
    Ok((rest, secure))
}

fn is_secure(secure: &Secure, config: &Config) -> Result<bool, String> {
    match secure.mode.as_deref() {
        Some("disable") if secure.root_cert.is_some() || secure.cert.is_some() => Err(
            "sslmode=disable of the database goes with no certificate".to_owned(),
        ),
        Some("disable") => Ok(false),
        Some("require" | "verify-full") => Ok(true),
        Some(mode @ ("allow" | "prefer")) => Err(format!(
            "sslmode={mode} of the database goes on without TLS if somebody in between wants that; \
             say verify-full, or disable"
        )),
        Some("verify-ca") => Err(
            "sslmode=verify-ca of the database does not check for whom the certificate is; say verify-full".to_owned(),
        ),
        Some(other) => Err(format!(
            "sslmode={other} of the database is not known; say verify-full, or disable"
        )),
        None => Ok(secure.root_cert.is_some() || secure.cert.is_some() || !is_here(config)),
    }
}

/// Whether all hosts are on this machine.
fn is_here(config: &Config) -> bool {
    let is_loopback = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let ip = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
            name == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
        }
    };
    config.get_hosts().iter().all(is_loopback)
        && config.get_hostaddrs().iter().all(|ip| ip.is_loopback())
}

fn shown(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |i: usize| ports.get(i).or(ports.first()).copied().unwrap_or(5432);
    let named = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(i, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(i)),
            Host::Unix(path) => format!("{}:{}", path.display(), port(i)),
        });
    let mut hosts: Vec<String> = named.collect();
    if hosts.is_empty() {
        hosts = config
            .get_hostaddrs()
            .iter()
            .map(ToString::to_string)
            .collect();
    }
    let name = config
        .get_dbname()
        .or(config.get_user())
        .unwrap_or_default();
    format!("{name} at {}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls_of(url: &str) -> Result<bool, String> {
        Address::parse(url, None).map(|a| a.tls.is_some())
    }

    /// Guarantee: nothing leaves the machine in the open unless the URL says so.
    #[test]
    fn tls_is_used_wherever_others_could_listen() {
        for (url, wanted) in [
            ("postgres://u@localhost/d", false),
            ("postgres://u@127.0.0.1:5433/d", false),
            ("postgres://u@%2Frun%2Fpostgresql/d", false),
            ("postgres://u@/d?host=/run/postgresql", false),
            ("postgres://u@db.example/d", true),
            ("postgres://u@localhost,db.example/d", true),
            ("postgresql://u@db.example/d?sslmode=disable", false),
            ("postgres://u@127.0.0.1/d?sslmode=require", true),
            (
                "postgres://u@127.0.0.1/d?connect_timeout=3&sslmode=verify-full",
                true,
            ),
        ] {
            assert_eq!(tls_of(url), Ok(wanted), "{url}");
        }
        for (url, why) in [
            ("mysql://u@h/d", "postgres://user@host"),
            ("postgres://h/d", "names no user"),
            ("postgres://u@/d", "names no host"),
            ("postgres://u@h/d?sslmode=prefer", "goes on without TLS"),
            ("postgres://u@h/d?sslmode=verify-ca", "say verify-full"),
            ("postgres://u@h/d?sslmode=x", "not known"),
            ("postgres://u@h/d?sslcert=/a", "together"),
            (
                "postgres://u@h/d?sslmode=disable&sslrootcert=/a",
                "no certificate",
            ),
            (
                "postgres://u@h/d?sslrootcert=/no/such/file.pem",
                "/no/such/file.pem",
            ),
            ("postgres://u@h/d?colour=red", "colour"),
        ] {
            let error = tls_of(url).unwrap_err();
            assert!(error.contains(why), "{url}: {error}");
        }
    }

    /// Guarantee: a password is in nothing that is shown, and comes from one place.
    #[test]
    fn passwords_are_not_shown() {
        for (url, password) in [
            ("postgres://u:s3cret@localhost:5433/d", None),
            ("postgres://u@localhost:5433/d", Some("s3cret")),
        ] {
            let address = Address::parse(url, password).unwrap();
            assert_eq!(address.to_string(), "d at localhost:5433");
            assert!(!format!("{address:?}").contains("s3cret"));
            assert_eq!(address.config.get_password(), Some(&b"s3cret"[..]));
        }
        let url = "postgres://u:s3cret@localhost/d";
        let twice = Address::parse(url, Some("other")).unwrap_err();
        assert!(twice.contains("another one is given"));
        let password = |url| {
            let address = Address::parse(url, None).unwrap().or_password("other");
            address.config.get_password().map(<[u8]>::to_vec)
        };
        assert_eq!(password(url), Some(b"s3cret".to_vec()));
        assert_eq!(
            password("postgres://u@localhost/d"),
            Some(b"other".to_vec())
        );
        for url in [
            "postgres://u:s3cret@localhost:port/d",
            "postgres://u:s3cret@h/d?port=s3cret",
        ] {
            let error = Address::parse(url, None).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
