//! Requests to the API: a connection each, as an agent makes few of them and most last for minutes.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tailwater_config::ProcessEnvironment;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::access::{Access, AccessError, Target};
use crate::model::Status;
use crate::tls;

/// How long a connection may take to be made, and an answer to begin.
const BEGIN_MAX: Duration = Duration::from_secs(30);
/// How long an answer may stand still. Servers send nothing on watches for minutes.
const PIECE_MAX: Duration = Duration::from_secs(30);
/// The longest answer that is taken as a whole. A list of 250 pods has some 5 MiB.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// The longest explanation of a refusal.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// How objects are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// As they are.
    Whole,
    /// Their metadata alone. Servers that do not know of this send them whole.
    Metadata,
}

impl Form {
    fn accept(self, list: bool) -> String {
        let kind = match list {
            true => "PartialObjectMetadataList",
            false => "PartialObjectMetadata",
        };
        match self {
            Form::Whole => "application/json".into(),
            Form::Metadata => {
                format!("application/json;as={kind};g=meta.k8s.io;v=v1,application/json")
            }
        }
    }
}

/// Why there is no answer that is of use.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// It is not known where the API is.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// There is no connection to be had.
    #[error("cannot connect to the API server at {server}: {problem}")]
    Connect {
        /// `host:port`.
        server: String,
        /// What is wrong.
        problem: String,
    },
    /// The conversation broke off.
    #[error("the connection to the API server: {0}")]
    Http(#[from] hyper::Error),
    /// The server refused.
    #[error("the API server answers {code} to {path}: {message}")]
    Refused {
        /// What was asked.
        path: String,
        /// The status of HTTP, or in a watch that of the event.
        code: u16,
        /// Its reason.
        message: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// What it says is not what it should be.
    #[error("the API server's answer to {path} is not understood: {problem}")]
    Answer {
        /// What was asked.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// It takes too long.
    #[error("the API server does not answer {0}")]
    Timeout(String),
}

impl ApiError {
    /// What was asked for is too old to go on from there (410).
    pub fn is_gone(&self) -> bool {
        matches!(self, ApiError::Refused { code: 410, .. })
    }

    /// One may not ask for it, or there is nothing of the kind (401, 403, 404). Asking again helps only once somebody
    /// changed that.
    pub fn is_denied(&self) -> bool {
        matches!(
            self,
            ApiError::Refused {
                code: 401 | 403 | 404,
                ..
            }
        )
    }

    /// How long the server asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ApiError::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn answer(path: &str, problem: impl ToString) -> ApiError {
        ApiError::Answer {
            path: without_query(path).to_owned(),
            problem: problem.to_string(),
        }
    }
}

fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}

/// Asks the API. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    access: Arc<Access>,
    user_agent: Arc<str>,
}

/// An answer that has begun. The connection ends with it.
pub(crate) struct Answer {
    response: Response<Incoming>,
    path: String,
    connection: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Answer {
    /// The next piece, for which is waited at most so long; none at the end.
    pub async fn piece(&mut self, wait: Duration) -> Result<Option<Bytes>, ApiError> {
        loop {
            let frame = tokio::time::timeout(wait, self.response.frame()).await;
            let Some(frame) = frame.map_err(|_| ApiError::Timeout(self.path.clone()))? else {
                return Ok(None);
            };
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
    }

    async fn whole(&mut self, max: usize) -> Result<Vec<u8>, ApiError> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece(PIECE_MAX).await? {
            if body.len() + piece.len() > max {
                let problem = format!("longer than {max} bytes; narrow it down with a filter");
                return Err(ApiError::answer(&self.path, problem));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

impl Client {
    /// A client; nothing is looked at before the first request.
    pub fn new(access: Access, user_agent: &str) -> Client {
        Client {
            access: Arc::new(access),
            user_agent: user_agent.into(),
        }
    }

    /// An object, by its path, as `/api/v1/nodes/n1`. To be called on a runtime.
    ///
    /// # Errors
    /// It is not to be had.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, form: Form) -> Result<T, ApiError> {
        self.decoded(path, form.accept(false)).await
    }

    /// A list.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        form: Form,
    ) -> Result<T, ApiError> {
        self.decoded(path, form.accept(true)).await
    }

    async fn decoded<T: DeserializeOwned>(
        &self,
        path: &str,
        accept: String,
    ) -> Result<T, ApiError> {
        let mut answer = self.begin(path, accept).await?;
        let body = answer.whole(ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&body).map_err(|e| ApiError::answer(path, e))
    }

    /// A stream of events.
    pub(crate) async fn watch(&self, path: &str, form: Form) -> Result<Answer, ApiError> {
        self.begin(path, form.accept(false)).await
    }

    async fn begin(&self, path: &str, accept: String) -> Result<Answer, ApiError> {
        let begun = tokio::time::timeout(BEGIN_MAX, self.send(path, accept)).await;
        let late = |_| ApiError::Timeout(without_query(path).to_owned());
        let mut answer = begun.map_err(late)??;
        if answer.response.status().is_success() {
            return Ok(answer);
        }
        let code = answer.response.status().as_u16();
        let retry_after = answer.response.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|v| v.to_str().ok()?.trim().parse().ok());
        let body = answer.whole(REFUSAL_BYTES_MAX).await.unwrap_or_default();
        Err(ApiError::Refused {
            path: without_query(path).to_owned(),
            code,
            message: message(&body),
            retry_after: retry_after.map(Duration::from_secs),
        })
    }

    async fn send(&self, path: &str, accept: String) -> Result<Answer, ApiError> {
        let target = self.access.target(&ProcessEnvironment)?;
        let host = match target.host.contains(':') {
            true => format!("[{}]:{}", target.host, target.port),
            false => format!("{}:{}", target.host, target.port),
        };
        let failed = |problem: String| ApiError::Connect {
            server: host.clone(),
            problem,
        };
        let mut request = Request::get(format!("{}{path}", target.base))
            .header(HOST, &host)
            .header(USER_AGENT, &*self.user_agent)
            .header(ACCEPT, accept);
        if let Some(secret) = &target.authorization {
            request = request.header(AUTHORIZATION, secret.expose());
        }
        let request = request.body(Empty::<Bytes>::new());
        let request = request.map_err(|e| failed(format!("no request can be made: {e}")))?;
        let stream = TcpStream::connect((&*target.host, target.port)).await;
        let stream = stream.map_err(|e| failed(e.to_string()))?;
        let (response, connection) = match target.tls {
            false => exchange(stream, request).await?,
            true => {
                let stream = secured(&target, stream).await.map_err(failed)?;
                exchange(stream, request).await?
            }
        };
        Ok(Answer {
            response,
            path: without_query(path).to_owned(),
            connection,
        })
    }
}

async fn secured(
    target: &Target,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let config = Arc::new(tls::config(target)?);
    let name = tls::server_name(target)?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    connected.map_err(|e| e.to_string())
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<Empty<Bytes>>,
) -> Result<(Response<Incoming>, JoinHandle<()>), hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(async move {
        // What goes wrong is seen by whoever reads the answer.
        let _ = connection.await;
    });
    match sender.send_request(request).await {
        Ok(response) => Ok((response, connection)),
        Err(error) => {
            connection.abort();
            Err(error)
        }
    }
}

/// Why it was refused: the message of a `Status`, or the beginning of whatever was sent.
fn message(body: &[u8]) -> String {
    let status: Status = serde_json::from_slice(body).unwrap_or_default();
    if !status.message.is_empty() {
        return status.message.chars().take(500).collect();
    }
    let text = String::from_utf8_lossy(body);
    match text.trim() {
        "" => "no reason given".into(),
        text => text.chars().take(200).collect(),
    }
}
