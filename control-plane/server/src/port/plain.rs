//! A request for each message.

use std::io::{Read, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use prost::Message;
use tailwater_opamp::proto::{AgentToServer, ServerToAgent};
use tailwater_opamp::{InstanceUid, refusal};

use super::{Port, Speaker, certify, rename, speak_for, text};
use crate::authority::Caller;
use crate::hub::{Counts, Hub};
use crate::now_ms;

/// Smaller answers gain nothing by compression.
const COMPRESSED_FROM: usize = 1024;

/// Why a body is no message.
enum Refused {
    Status(StatusCode, &'static str),
    Message(String),
}

/// Takes the message and gives the answer.
pub(super) async fn answer(
    port: &Arc<Port>,
    request: Request<Incoming>,
    caller: &Caller,
) -> Response<Full<Bytes>> {
    let accepts = request.headers().get(ACCEPT_ENCODING);
    let zips = accepts.is_some_and(|v| v.to_str().is_ok_and(|v| v.contains("gzip")));
    let message = match message_of(port, request).await {
        Ok(message) => message,
        Err(Refused::Status(status, why)) => {
            Counts::add(&port.hub.counts.refused);
            return text(status, why);
        }
        Err(Refused::Message(why)) => {
            Counts::add(&port.hub.counts.refused);
            return encoded(&refusal(&[], &why), zips);
        }
    };
    let Some(uid) = InstanceUid::from_bytes(&message.instance_uid) else {
        Counts::add(&port.hub.counts.refused);
        return encoded(
            &refusal(&message.instance_uid, "instance_uid must be 16 bytes"),
            zips,
        );
    };
    let hub = &port.hub;
    let connection = match speak_for(port, uid, None, caller).await {
        Speaker::This(connection) => connection,
        Speaker::Other => return encoded(&rename(port, uid, message, caller), zips),
        Speaker::Nobody => return encoded(&Hub::full(uid), zips),
        Speaker::Not(why) => return text(StatusCode::FORBIDDEN, why),
    };
    if hub.is_other(uid, &message, now_ms()) {
        return encoded(&rename(port, uid, message, caller), zips);
    }
    let Some(reply) = hub.received(uid, connection, message, now_ms()) else {
        // Two requests of one agent at the same time: the other one is answered.
        return text(
            StatusCode::CONFLICT,
            "another request of this agent is under way\n",
        );
    };
    let mut answer = reply.message;
    if let Some(request) = reply.request {
        match certify(port, uid, request, caller).await {
            Some(Ok(settings)) => answer.connection_settings = Some(settings),
            // With an error, nothing else of an answer counts.
            Some(Err(why)) if is_bare(&answer) => answer = refusal(&uid.0, &why),
            Some(Err(_)) | None => {}
        }
    }
    encoded(&answer, zips)
}

/// Whether an answer asks for nothing.
fn is_bare(answer: &ServerToAgent) -> bool {
    answer.flags == 0 && answer.remote_config.is_none() && answer.custom_message.is_none()
}

async fn message_of(port: &Port, request: Request<Incoming>) -> Result<AgentToServer, Refused> {
    let max = port.limits.message_bytes_max;
    let packed = match request
        .headers()
        .get(CONTENT_ENCODING)
        .map(HeaderValue::as_bytes)
    {
        None | Some(b"identity") => false,
        Some(b"gzip") => true,
        Some(_) => {
            let why = "Content-Encoding must be gzip or identity\n";
            return Err(Refused::Status(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
    };
    let busy = |_| Refused::Status(StatusCode::SERVICE_UNAVAILABLE, "ending\n");
    let _turn = port.bodies.acquire().await.map_err(busy)?;
    let body = Limited::new(request.into_body(), max).collect();
    let body = match tokio::time::timeout(port.limits.message, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(Refused::Status(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too large\n",
            ));
        }
        Ok(Err(_)) => return Err(Refused::Status(StatusCode::BAD_REQUEST, "broken body\n")),
        Err(_) => return Err(Refused::Status(StatusCode::REQUEST_TIMEOUT, "too slow\n")),
    };
    let body = match packed {
        false => body,
        true => match inflated(&body, max) {
            Ok(Some(body)) => body.into(),
            Ok(None) => {
                return Err(Refused::Status(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too large\n",
                ));
            }
            Err(_) => return Err(Refused::Status(StatusCode::BAD_REQUEST, "broken gzip\n")),
        },
    };
    AgentToServer::decode(body).map_err(|e| Refused::Message(format!("no AgentToServer: {e}")))
}

/// At most `max` bytes; none if there are more.
fn inflated(bytes: &[u8], max: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    let limit = (max as u64).saturating_add(1);
    MultiGzDecoder::new(bytes)
        .take(limit)
        .read_to_end(&mut out)?;
    Ok((out.len() <= max).then_some(out))
}

fn encoded(answer: &ServerToAgent, zips: bool) -> Response<Full<Bytes>> {
    let body = answer.encode_to_vec();
    let packed = match zips && body.len() >= COMPRESSED_FROM {
        true => packed(&body).ok(),
        false => None,
    };
    let is_packed = packed.is_some();
    let mut response = Response::new(Full::new(Bytes::from(packed.unwrap_or(body))));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-protobuf"),
    );
    if is_packed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn packed(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inflated_is_bounded() {
        let bytes = vec![7; 5000];
        let small = packed(&bytes).unwrap();
        assert_eq!(inflated(&small, 5000).unwrap(), Some(bytes));
        assert_eq!(inflated(&small, 4999).unwrap(), None);
        assert!(inflated(&small[1..], 5000).is_err());
    }
}
