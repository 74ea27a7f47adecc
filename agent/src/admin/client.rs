//! A small HTTP client for the admin API of an agent on this machine: one request, one answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, HOST, IF_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// As long as the agent may take.
const TIMEOUT: Duration = Duration::from_secs(300);
/// To get a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where an agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A socket in the file system.
    Socket(PathBuf),
    /// `host:port`, and the file with the token.
    Endpoint(String, PathBuf),
}

impl Place {
    /// `http://host:port`.
    ///
    /// # Errors
    /// It is something else.
    pub fn endpoint(url: &str, token_file: PathBuf) -> Result<Place> {
        let address = url.strip_prefix("http://").map(|a| a.trim_end_matches('/'));
        match address {
            Some(address) if address.contains(':') && !address.contains('/') => {
                Ok(Place::Endpoint(address.to_owned(), token_file))
            }
            _ => bail!("{url:?} is no address of an agent; write http://HOST:PORT"),
        }
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// Only if this generation is in force.
    pub if_generation: Option<u64>,
    /// Body.
    pub body: Vec<u8>,
}

impl<'a> Ask<'a> {
    /// A look at `path`.
    pub fn get(path: &'a str) -> Ask<'a> {
        Ask {
            method: Method::GET,
            path,
            if_generation: None,
            body: Vec::new(),
        }
    }
}

/// What the agent said.
pub struct Said {
    /// Status.
    pub status: StatusCode,
    /// The body, which is always JSON here.
    pub body: Value,
}

/// An answer as it came.
pub struct Fetched {
    /// Status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

/// Asks the agent at `place`.
///
/// # Errors
/// There is no connection or no answer. An answer that is a refusal is no error.
pub fn ask(place: &Place, ask: Ask<'_>) -> Result<Said> {
    said(fetch(place, ask)?)
}

/// As [`ask`], for whatever is answered.
///
/// # Errors
/// As [`ask`].
pub fn fetch(place: &Place, ask: Ask<'_>) -> Result<Fetched> {
    runtime()?.block_on(in_time(async { collect(request(place, ask).await?).await }))
}

fn said(Fetched { status, body }: Fetched) -> Result<Said> {
    let body = serde_json::from_slice(&body)
        .with_context(|| format!("the answer ({status}) is not that of an agent"))?;
    Ok(Said { status, body })
}

/// How an answer ended that came line by line.
pub enum Followed {
    /// There were no lines: a refusal.
    Refused(Said),
    /// By the agent, or whoever took the lines.
    Ended,
    /// The agent or the connection has gone.
    Broken,
}

/// What becomes of an answer that comes line by line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follow {
    /// It goes on.
    On,
    /// That is enough.
    Enough,
}

/// How long the next line is waited for when SIGINT said that it is enough.
const LAST_LINE_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks for an answer that comes line by line, and hands each to `line`, with whether SIGINT came, which
/// ends it within two seconds.
///
/// # Errors
/// There is no connection or no answer, or `line` failed.
pub fn follow(
    place: &Place,
    path: &str,
    line: &mut dyn FnMut(&[u8], bool) -> Result<Follow>,
) -> Result<Followed> {
    runtime()?.block_on(async {
        let response = in_time(request(place, Ask::get(path))).await?;
        if !response.status().is_success() {
            return Ok(Followed::Refused(said(in_time(collect(response)).await?)?));
        }
        let mut body = response.into_body();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (mut rest, mut until) = (Vec::new(), None);
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                _ = interrupt.recv() => {
                    if until.is_some() {
                        return Ok(Followed::Ended);
                    }
                    until = Some(tokio::time::Instant::now() + LAST_LINE_TIMEOUT);
                    continue;
                }
                () = sleep_until(until) => return Ok(Followed::Ended),
            };
            let data = match frame {
                None => return Ok(Followed::Ended),
                Some(Err(_)) => return Ok(Followed::Broken),
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let text: Vec<u8> = rest.drain(..=end).collect();
                if line(&text[..end], until.is_some())? == Follow::Enough {
                    return Ok(Followed::Ended);
                }
            }
            if rest.len() > ANSWER_BYTES_MAX {
                bail!("the answer has a line that does not end");
            }
        }
    })
}

/// Never, if there is no time.
async fn sleep_until(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

async fn in_time<T>(asking: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| anyhow!("no answer within {} s", TIMEOUT.as_secs());
    tokio::time::timeout(TIMEOUT, asking).await.map_err(late)?
}

async fn request(place: &Place, ask: Ask<'_>) -> Result<Response<Incoming>> {
    match place {
        Place::Socket(path) => {
            let stream = connect(UnixStream::connect(path)).await.with_context(|| {
                format!(
                    "no agent at the socket {}; is it running, with service::admin::socket?",
                    path.display()
                )
            })?;
            exchange(stream, "localhost", None, ask).await
        }
        Place::Endpoint(address, token_file) => {
            let token = read_token(token_file)?;
            let stream = connect(TcpStream::connect(address))
                .await
                .with_context(|| {
                    format!("no agent at {address}; is it running, with service::admin::endpoint?")
                })?;
            exchange(stream, address, Some(&token), ask).await
        }
    }
}

fn read_token(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the token in {}", path.display()))?;
    Ok(text.trim().to_owned())
}

async fn connect<S>(connecting: impl Future<Output = std::io::Result<S>>) -> Result<S> {
    Ok(tokio::time::timeout(CONNECT_TIMEOUT, connecting).await??)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    token: Option<&str>,
    ask: Ask<'_>,
) -> Result<Response<Incoming>> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender; what goes wrong is seen by who waits for the answer.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let mut request = Request::builder()
        .method(ask.method)
        .uri(ask.path)
        .header(HOST, host);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    if let Some(generation) = ask.if_generation {
        request = request.header(IF_MATCH, format!("\"{generation}\""));
    }
    let request = request.body(Full::new(Bytes::from(ask.body)))?;
    sender
        .send_request(request)
        .await
        .context("the agent did not answer")
}

async fn collect(response: Response<Incoming>) -> Result<Fetched> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|e| anyhow!("the answer ended early: {e}"))?;
    let body = body.to_bytes();
    Ok(Fetched { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_strictly() {
        let of = |url| Place::endpoint(url, "t".into());
        let want = Place::Endpoint("127.0.0.1:1".into(), "t".into());
        assert_eq!(of("http://127.0.0.1:1/").unwrap(), want);
        for url in [
            "127.0.0.1:1",
            "https://a:1",
            "http://a",
            "http://a:1/v1",
            "/run/a.sock",
        ] {
            assert!(of(url).is_err(), "{url}");
        }
    }
}
