//! The command line's client of the API.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use hyper::Method;
use hyper::header::AUTHORIZATION;
use serde_json::Value;

use crate::http::Target;

/// The largest answer, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

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
        let target = Target::parse(&self.server);
        let target = target.map_err(|e| anyhow!("{:?}: {e}", self.server))?;
        let mut target = target.trusting(self.ca.clone());
        if let Some(token) = &self.token {
            let set = target.set(AUTHORIZATION, &format!("Bearer {token}"));
            set.map_err(|_| anyhow!("the token holds what a header cannot"))?;
        }
        let body = body.map(|text| ("application/yaml", text));
        let answer = target.ask(method, path, body, ANSWER_BYTES_MAX).await;
        let answer = answer.map_err(|e| anyhow!(e))?;
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        if answer.status.is_success() {
            return Ok(value);
        }
        match value["error"].as_str() {
            Some(text) => bail!("{text}"),
            None => bail!("{target} answered {}", answer.status),
        }
    }
}
