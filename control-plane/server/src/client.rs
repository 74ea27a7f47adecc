//! The command line's client of the API.

use anyhow::{Result, bail};
use hyper::Method;
use serde_json::Value;

use crate::http::Target;

/// The largest answer, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Of one server.
#[derive(Clone, Debug)]
pub struct Client(Target);

impl Client {
    /// For the API there.
    pub fn new(server: Target) -> Client {
        Client(server)
    }

    /// Asks, and gives the answer.
    ///
    /// # Errors
    /// There is no answer, or it is a refusal; for people.
    pub async fn ask(&self, method: Method, path: &str, body: Option<String>) -> Result<Value> {
        let Client(server) = self;
        let body = body.map(|text| ("application/yaml", text));
        let answer = server.ask(method, path, body, ANSWER_BYTES_MAX).await?;
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        if answer.status.is_success() {
            return Ok(value);
        }
        match value["error"].as_str() {
            Some(text) => bail!("{text}"),
            None => bail!("{server} answered {}", answer.status),
        }
    }
}
