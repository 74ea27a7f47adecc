//! Docker's Engine API over its socket: the four things that are needed of it.
//!
//! Source: the Engine API's description, versions 1.24 to 1.44, in which these are the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

/// The version that is asked for, unless the Engine is older: the oldest one that newer Engines serve.
const VERSION: (u32, u32) = (1, 44);
/// The oldest version that has all that is needed.
const VERSION_MIN: (u32, u32) = (1, 24);
/// How long an answer may take to begin, and to end.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The longest answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// The longest event.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// What the Engine, or the way to it, says.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// It is not there, or may not be asked.
    #[error("no Docker Engine at {path}: {error}")]
    Connect {
        /// The socket.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The conversation broke off.
    #[error("the connection to the Docker Engine: {0}")]
    Http(#[from] hyper::Error),
    /// It refused.
    #[error("the Docker Engine answers {status} to {path}: {message}")]
    Status {
        /// What was asked.
        path: String,
        /// Its answer.
        status: StatusCode,
        /// Its reason.
        message: String,
    },
    /// It is too old.
    #[error("the Docker Engine has version {0} of its API; 1.24 is needed")]
    TooOld(String),
    /// What it says is none of what it may say.
    #[error("the Docker Engine's answer to {0} is not understood: {1}")]
    Answer(String, String),
    /// It takes too long.
    #[error("the Docker Engine does not answer")]
    Timeout,
}

/// An event of a container.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ContainerEvent {
    /// `start`, `die`, `destroy`.
    #[serde(rename = "Action", default)]
    pub action: String,
    /// Of whom.
    #[serde(rename = "Actor", default)]
    pub actor: Actor,
    /// When, ns since the epoch.
    #[serde(rename = "timeNano", default)]
    pub time_ns: i64,
}

/// Of whom an event is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Actor {
    /// The container's id.
    #[serde(rename = "ID", default)]
    pub id: String,
}

/// A container of a list.
#[derive(Clone, Debug, Deserialize)]
pub struct Listed {
    /// Its id.
    #[serde(rename = "Id")]
    pub id: String,
}

/// A container, as far as it is needed.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspected {
    /// Its id.
    pub id: String,
    /// Its name, after a slash.
    #[serde(default)]
    pub name: String,
    /// Where its log is; empty if its driver has no file.
    #[serde(default)]
    pub log_path: String,
    /// What it was made with.
    pub config: InspectedConfig,
    /// What it runs with.
    pub host_config: InspectedHost,
}

/// See [`Inspected`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InspectedConfig {
    /// Its image, as it was named.
    #[serde(default)]
    pub image: String,
    /// Its labels; null if it has none.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

/// See [`Inspected`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InspectedHost {
    /// How it logs.
    pub log_config: LogConfig,
}

/// See [`Inspected`].
#[derive(Clone, Debug, Deserialize)]
pub struct LogConfig {
    /// The logging driver.
    #[serde(rename = "Type", default)]
    pub driver: String,
}

/// The Engine itself, as far as it is needed.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Info {
    /// Below this containers and their logs are.
    #[serde(default)]
    pub docker_root_dir: String,
}

/// An Engine whose version is known.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    version: String,
}

impl Client {
    /// Finds out which version to speak.
    ///
    /// # Errors
    /// The Engine is not there, or too old.
    pub async fn connect(socket: &Path) -> Result<Client, DockerError> {
        let answer = within(send(socket, "/_ping")).await?;
        let named = answer.headers().get("api-version");
        let text = named.and_then(|v| v.to_str().ok()).unwrap_or_default();
        let version = negotiate(text).ok_or_else(|| DockerError::TooOld(text.to_owned()))?;
        Ok(Client {
            socket: socket.to_path_buf(),
            version,
        })
    }

    /// Where it keeps what it has.
    ///
    /// # Errors
    /// It does not say. So of all that follow.
    pub async fn info(&self) -> Result<Info, DockerError> {
        self.get("/info").await
    }

    /// All containers that run.
    ///
    /// # Errors
    /// As [`Client::info`].
    pub async fn list(&self) -> Result<Vec<Listed>, DockerError> {
        self.get("/containers/json").await
    }

    /// One container; none if there is no such any more.
    ///
    /// # Errors
    /// As [`Client::info`].
    pub async fn inspect(&self, id: &str) -> Result<Option<Inspected>, DockerError> {
        match self.get(&format!("/containers/{id}/json")).await {
            Ok(found) => Ok(Some(found)),
            Err(DockerError::Status { status, .. }) if status == StatusCode::NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Events of containers that start and end, from now on or since an instant.
    ///
    /// # Errors
    /// As [`Client::info`].
    pub async fn events(&self, since_ns: Option<i64>) -> Result<Events, DockerError> {
        // {"type":["container"],"event":["start","die","destroy"]}
        const FILTERS: &str = "%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22start%22\
                               %2C%22die%22%2C%22destroy%22%5D%7D";
        let since = since_ns.map(|ns| {
            let (seconds, nanos) = (ns / 1_000_000_000, ns % 1_000_000_000);
            format!("&since={seconds}.{nanos:09}")
        });
        let since = since.unwrap_or_default();
        let path = format!("/v{}/events?filters={FILTERS}{since}", self.version);
        let answer = within(send(&self.socket, &path)).await?;
        let answer = accept(&path, answer).await?;
        Ok(Events {
            body: answer.into_body(),
            buffer: Vec::new(),
        })
    }

    async fn get<T: for<'a> Deserialize<'a>>(&self, path: &str) -> Result<T, DockerError> {
        let path = format!("/v{}{path}", self.version);
        within(async {
            let answer = accept(&path, send(&self.socket, &path).await?).await?;
            let bytes = read(&path, answer.into_body()).await?;
            serde_json::from_slice(&bytes)
                .map_err(|e| DockerError::Answer(path.clone(), e.to_string()))
        })
        .await
    }
}

/// The events of one connection.
pub struct Events {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// The next one; none when the Engine ends the connection.
    ///
    /// # Errors
    /// The connection broke, or something is no event.
    pub async fn next(&mut self) -> Result<Option<ContainerEvent>, DockerError> {
        loop {
            if let Some(event) = self.take()? {
                return Ok(Some(event));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            if let Ok(data) = frame?.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// The first event of what was received, if it is there as a whole.
    fn take(&mut self) -> Result<Option<ContainerEvent>, DockerError> {
        let fail = |text: String| Err(DockerError::Answer("/events".to_owned(), text));
        let mut stream = serde_json::Deserializer::from_slice(&self.buffer).into_iter();
        match stream.next() {
            None => Ok(None),
            Some(Ok(event)) => {
                let taken = stream.byte_offset();
                self.buffer.drain(..taken);
                Ok(Some(event))
            }
            Some(Err(e)) if e.is_eof() && self.buffer.len() <= EVENT_BYTES_MAX => Ok(None),
            Some(Err(e)) => fail(e.to_string()),
        }
    }
}

/// What to speak with an Engine of this version; none if it is too old, or this is no version.
fn negotiate(text: &str) -> Option<String> {
    let (major, minor) = text.split_once('.')?;
    let version = (major.parse().ok()?, minor.parse().ok()?);
    let (major, minor) = VERSION.min(version);
    (version >= VERSION_MIN).then(|| format!("{major}.{minor}"))
}

async fn within<T>(work: impl Future<Output = Result<T, DockerError>>) -> Result<T, DockerError> {
    let done = tokio::time::timeout(ANSWER_MAX, work).await;
    done.unwrap_or(Err(DockerError::Timeout))
}

/// Asks over a connection of its own.
async fn send(socket: &Path, path: &str) -> Result<Response<Incoming>, DockerError> {
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|error| DockerError::Connect {
        path: socket.display().to_string(),
        error,
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the body of the answer.
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", "docker")
        .header(
            "user-agent",
            concat!("tailwater/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::<Bytes>::new())
        .map_err(|e| DockerError::Answer(path.to_owned(), e.to_string()))?;
    Ok(sender.send_request(request).await?)
}

/// The answer, if it is one of success.
async fn accept(path: &str, answer: Response<Incoming>) -> Result<Response<Incoming>, DockerError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = read(path, answer.into_body()).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&body).trim().to_owned();
    let json: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let message = json.as_ref().and_then(|j| j.get("message")?.as_str());
    Err(DockerError::Status {
        path: path.to_owned(),
        status,
        message: message.map_or(text.clone(), str::to_owned),
    })
}

async fn read(path: &str, mut body: Incoming) -> Result<Vec<u8>, DockerError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            let text = format!("more than {ANSWER_BYTES_MAX} bytes");
            return Err(DockerError::Answer(path.to_owned(), text));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_negotiated() {
        for (engine, spoken) in [
            ("1.41", Some("1.41")),
            ("1.24", Some("1.24")),
            ("1.23", None),
            ("1.9", None),
            ("1.52", Some("1.44")),
            ("2.0", Some("1.44")),
            ("", None),
            ("x.y", None),
        ] {
            assert_eq!(negotiate(engine).as_deref(), spoken, "{engine}");
        }
    }
}
