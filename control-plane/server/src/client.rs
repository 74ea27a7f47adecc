//! The command line's client of the API.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use hyper::Method;
use serde_json::Value;

use crate::http::{Body, Server};

/// A request may take so long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Whom to ask, as whom.
#[derive(Clone, Debug)]
pub struct Client {
    /// `http://host:port` or `https://host:port`.
    pub server: String,
    /// Given with each request.
    pub token: Option<String>,
    /// Whom to trust instead of the system's authorities.
    pub ca: Option<PathBuf>,
}

impl Client {
    /// Asks, and gives the answer.
    ///
    /// # Errors
    /// There is no answer, or it is a refusal; for people.
    pub async fn ask(&self, method: Method, path: &str, body: Option<String>) -> Result<Value> {
        let server = Server {
            url: self.server.clone(),
            token: self.token.clone(),
            ca: self.ca.clone(),
            timeout: TIMEOUT,
        };
        let body = body.map(|text| Body {
            kind: "application/yaml",
            text,
        });
        let answer = server.exchange(method, path, body).await?;
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        if answer.status.is_success() {
            return Ok(value);
        }
        match value["error"].as_str() {
            Some(text) => bail!("{text}"),
            None => bail!("{} answered {}", self.server, answer.status),
        }
    }
}
