//! Tunnels through SOCKS 5 proxies (RFC 1928), with a user name and password (RFC 1929) or without.
//!
//! Names are given to the proxy as they are: it resolves them, as with Go programs, for which `socks5` and
//! `socks5h` mean the same.

use std::fmt;
use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::endpoint::Endpoint;

/// The port of a proxy whose URL names none.
pub(super) const PORT: u16 = 1080;

const VERSION: u8 = 5;
const CONNECT: u8 = 1;
/// Ways to say who one is.
const NO_LOGIN: u8 = 0;
const WITH_LOGIN: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;
/// The version of the exchange of RFC 1929.
const LOGIN_VERSION: u8 = 1;
/// Kinds of addresses.
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
/// Names, users and passwords have a length of one byte.
const TEXT_BYTES_MAX: usize = 255;

/// Who we are.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    user: String,
    password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login([REDACTED])")
    }
}

impl Login {
    /// A user and its password, which may be empty.
    ///
    /// # Errors
    /// They do not fit into what is sent.
    pub fn new(user: String, password: String) -> Result<Login, String> {
        if user.is_empty() || user.len() > TEXT_BYTES_MAX || password.len() > TEXT_BYTES_MAX {
            return Err(format!(
                "the user of a SOCKS proxy must have 1 to {TEXT_BYTES_MAX} bytes, its password at most as many \
                 (RFC 1929)"
            ));
        }
        Ok(Login { user, password })
    }
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocksError {
    /// The connection to the proxy broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What answers is no proxy of this kind.
    #[error("the proxy does not speak SOCKS 5: it began its answer with {0}")]
    Version(u8),
    /// It wants to know who we are, or in another way.
    #[error(
        "the proxy accepts none of the offered ways to log in (proxy_url may hold a user and password)"
    )]
    NoMethod,
    /// It chose what was not offered.
    #[error("the proxy chose a way to log in that was not offered: {0}")]
    Method(u8),
    /// User or password are wrong.
    #[error("the proxy refused the user or password")]
    Login,
    /// It did not connect.
    #[error("the proxy answered {0}: {text}", text = reply_text(*.0))]
    Reply(u8),
    /// Its answer cannot be understood.
    #[error("the proxy answered with an unknown kind of address: {0}")]
    Address(u8),
    /// No request can carry the name.
    #[error("the name of the destination is longer than {TEXT_BYTES_MAX} bytes")]
    Name,
}

/// RFC 1928, 6.
fn reply_text(code: u8) -> &'static str {
    match code {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "time to live expired",
        7 => "command not supported",
        8 => "kind of address not supported",
        _ => "unknown reason",
    }
}

/// Asks the proxy at the other end of `stream` for a connection to `target`.
///
/// # Errors
/// See [`SocksError`].
pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: &Endpoint,
    login: Option<&Login>,
) -> Result<(), SocksError> {
    let request = request(target)?;
    let offer: &[u8] = match login {
        None => &[VERSION, 1, NO_LOGIN],
        Some(_) => &[VERSION, 2, NO_LOGIN, WITH_LOGIN],
    };
    stream.write_all(offer).await?;
    let [version, method] = read(stream).await?;
    of_version(version)?;
    match (method, login) {
        (NO_LOGIN, _) => {}
        (WITH_LOGIN, Some(login)) => log_in(stream, login).await?,
        (NONE_ACCEPTABLE, _) => return Err(SocksError::NoMethod),
        (other, _) => return Err(SocksError::Method(other)),
    }
    stream.write_all(&request).await?;
    let [version, reply, _, kind] = read(stream).await?;
    of_version(version)?;
    if reply != 0 {
        return Err(SocksError::Reply(reply));
    }
    // The proxy's own address, to the byte: what follows belongs to the tunnel.
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(stream.read_u8().await?),
        other => return Err(SocksError::Address(other)),
    };
    let mut address = [0; TEXT_BYTES_MAX + 2];
    stream.read_exact(&mut address[..length + 2]).await?;
    Ok(())
}

fn of_version(version: u8) -> Result<(), SocksError> {
    (version == VERSION)
        .then_some(())
        .ok_or(SocksError::Version(version))
}

async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    login: &Login,
) -> Result<(), SocksError> {
    let mut said = vec![LOGIN_VERSION];
    put_text(&mut said, &login.user);
    put_text(&mut said, &login.password);
    stream.write_all(&said).await?;
    let [_, status] = read(stream).await?;
    (status == 0).then_some(()).ok_or(SocksError::Login)
}

fn request(target: &Endpoint) -> Result<Vec<u8>, SocksError> {
    let mut request = vec![VERSION, CONNECT, 0];
    match target.host.parse() {
        Ok(IpAddr::V4(ip)) => {
            request.push(IPV4);
            request.extend_from_slice(&ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            request.push(IPV6);
            request.extend_from_slice(&ip.octets());
        }
        Err(_) if target.host.len() > TEXT_BYTES_MAX => return Err(SocksError::Name),
        Err(_) => {
            request.push(NAME);
            put_text(&mut request, &target.host);
        }
    }
    request.extend_from_slice(&target.port.to_be_bytes());
    Ok(request)
}

/// A text of at most [`TEXT_BYTES_MAX`], after its length.
fn put_text(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= TEXT_BYTES_MAX);
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

async fn read<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
