//! Requests over HTTP: each message is one, its answer is the server's.

use std::io::{Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, RETRY_AFTER,
};
use hyper::{Method, StatusCode};
use prost::Message;
use tailwater_exporters::client::{Endpoint, HttpClient, retry_after};
use tailwater_exporters::delivery::Reply;
use tailwater_opamp::InstanceUid;
use tailwater_opamp::proto::{AgentToServer, ServerToAgent};

use super::{Trouble, UID_HEADER, too_large};

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
/// Smaller messages gain nothing by compression.
const COMPRESSED_FROM: usize = 1024;
/// What of an answer that is none is shown.
const SHOWN_CHARS: usize = 200;

/// See the module's documentation.
pub struct HttpLink {
    client: HttpClient,
    endpoint: Endpoint,
    bytes_max: usize,
    /// The answer to the newest message.
    pub answer: Option<ServerToAgent>,
}

impl HttpLink {
    /// Requests to `endpoint`.
    pub fn new(client: HttpClient, endpoint: Endpoint, bytes_max: usize) -> HttpLink {
        HttpLink {
            client,
            endpoint,
            bytes_max,
            answer: None,
        }
    }

    /// Sends a message and waits for its answer.
    pub async fn send(&mut self, message: &AgentToServer) -> Result<(), Trouble> {
        let mut body = message.encode_to_vec();
        if body.len() > self.bytes_max {
            return Err(Trouble::TooLarge(too_large(
                "a message",
                body.len(),
                self.bytes_max,
            )));
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, PROTOBUF);
        headers.insert(ACCEPT_ENCODING, GZIP);
        let uid = InstanceUid::from_bytes(&message.instance_uid);
        if let Some(Ok(uid)) = uid.map(|u| HeaderValue::from_str(&u.to_string())) {
            headers.insert(HeaderName::from_static(UID_HEADER), uid);
        }
        if body.len() >= COMPRESSED_FROM {
            body = compressed(&body).map_err(|e| Trouble::Lost(e.to_string()))?;
            headers.insert(CONTENT_ENCODING, GZIP);
        }
        headers.insert(CONTENT_LENGTH, body.len().into());
        let body = vec![Bytes::from(body)];
        let sent = self
            .client
            .send(Method::POST, &self.endpoint, &headers, body)
            .await;
        let reply = sent.map_err(|e| Trouble::Lost(e.message))?;
        self.answer = Some(self.judge(reply)?);
        Ok(())
    }

    fn judge(&self, reply: Reply) -> Result<ServerToAgent, Trouble> {
        let from = &self.endpoint;
        match reply.status {
            StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let text = format!("{from} answered {}", reply.status);
                return Err(Trouble::Throttled(asked(&reply.headers), text));
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                let text = format!(
                    "{from} answered {}: the message is not sent again",
                    reply.status
                );
                return Err(Trouble::TooLarge(text));
            }
            status => return Err(Trouble::Lost(unexpected(from, status, &reply.body))),
        }
        let larger = || {
            let max = self.bytes_max;
            Trouble::Lost(format!(
                "{from}: an answer is larger than message_bytes_max ({max}); it is left out"
            ))
        };
        if reply.truncated {
            return Err(larger());
        }
        let encoding = reply.headers.get(CONTENT_ENCODING);
        let body = match encoding.map(HeaderValue::as_bytes) {
            None | Some(b"identity") => reply.body.to_vec(),
            Some(b"gzip") => inflated(&reply.body, self.bytes_max)
                .map_err(|e| Trouble::Lost(format!("{from}: broken gzip: {e}")))?
                .ok_or_else(larger)?,
            Some(_) => {
                let text =
                    format!("{from}: an answer in a Content-Encoding that was not asked for");
                return Err(Trouble::Lost(text));
            }
        };
        let decoded = ServerToAgent::decode(body.as_slice());
        decoded.map_err(|e| Trouble::Lost(format!("{from}: the answer is no ServerToAgent: {e}")))
    }
}

/// What to say of an answer with another status.
pub fn unexpected(from: &Endpoint, status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let shown: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN_CHARS)
        .collect();
    match shown.trim() {
        "" => format!("{from} answered {status}"),
        shown => format!("{from} answered {status}: {shown}"),
    }
}

/// The wait that an answer asks for.
pub fn asked(headers: &HeaderMap) -> Option<std::time::Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    retry_after(value, i64::try_from(now.as_nanos()).ok()?)
}

fn compressed(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// At most `bytes_max` bytes; none if there are more.
fn inflated(bytes: &[u8], bytes_max: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    let limit = (bytes_max as u64).saturating_add(1);
    MultiGzDecoder::new(bytes)
        .take(limit)
        .read_to_end(&mut out)?;
    Ok((out.len() <= bytes_max).then_some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inflated_is_bounded() {
        let bytes = vec![7; 5000];
        let packed = compressed(&bytes).unwrap();
        assert_eq!(inflated(&packed, 5000).unwrap(), Some(bytes));
        assert_eq!(inflated(&packed, 4999).unwrap(), None);
        assert!(inflated(&packed[1..], 5000).is_err());
    }
}
