//! What a request is answered with: a code of gRPC, in the forms of both protocols.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use hyper::StatusCode;

/// A code of gRPC. Source: grpc/grpc, doc/statuscodes.md.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Code {
    /// The request is not what the protocol asks for.
    InvalidArgument = 3,
    /// The client's own time limit has passed.
    DeadlineExceeded = 4,
    /// A limit of size.
    ResourceExhausted = 8,
    /// There is no such method, signal or encoding.
    Unimplemented = 12,
    /// It was given up and must not be sent again.
    Internal = 13,
    /// It may be sent again.
    Unavailable = 14,
    /// The sender is not known.
    Unauthenticated = 16,
}

/// An answer that is no success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// What is wrong, for people.
    pub message: String,
    /// When to send it again (`google.rpc.RetryInfo`).
    pub retry_after: Option<Duration>,
}

/// `google.rpc.RetryInfo` in an `Any`. Source: googleapis, google/rpc/error_details.proto.
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// How soon a request that could not be taken or delivered may come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Status {
    /// A status that is not to be sent again.
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status {
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    /// The request may be sent again in a moment.
    pub fn unavailable(message: impl Into<String>) -> Status {
        Status {
            code: Code::Unavailable,
            message: message.into(),
            retry_after: Some(RETRY_AFTER),
        }
    }

    /// The status of HTTP that the collector has for the code.
    pub fn http(&self) -> StatusCode {
        match self.code {
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::DeadlineExceeded | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unimplemented => StatusCode::NOT_FOUND,
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        }
    }

    /// `google.rpc.Status` in protobuf: code 1, message 2, details 3.
    pub fn to_proto(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.message.len() + 64);
        put_varint(&mut out, 1, self.code as u64);
        put_bytes(&mut out, 2, self.message.as_bytes());
        if let Some(after) = self.retry_after {
            // RetryInfo: retry_delay 1, a Duration: seconds 1, nanos 2. Any: type_url 1, value 2.
            let mut delay = Vec::new();
            put_varint(&mut delay, 1, after.as_secs());
            put_varint(&mut delay, 2, u64::from(after.subsec_nanos()));
            let mut info = Vec::new();
            put_bytes(&mut info, 1, &delay);
            let mut any = Vec::new();
            put_bytes(&mut any, 1, RETRY_INFO.as_bytes());
            put_bytes(&mut any, 2, &info);
            put_bytes(&mut out, 3, &any);
        }
        out
    }

    /// `google.rpc.Status` in JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let mut status = serde_json::json!({"code": self.code as u8, "message": self.message});
        if let Some(after) = self.retry_after {
            let delay = match after.subsec_nanos() {
                0 => format!("{}s", after.as_secs()),
                nanos => format!("{}.{nanos:09}s", after.as_secs()),
            };
            status["details"] = serde_json::json!([{"@type": RETRY_INFO, "retryDelay": delay}]);
        }
        status.to_string().into_bytes()
    }

    /// `grpc-message`: percent-encoded but for printable ASCII without the percent sign. Source:
    /// grpc/grpc, doc/PROTOCOL-HTTP2.md.
    pub fn grpc_message(&self) -> String {
        let mut out = String::with_capacity(self.message.len());
        for byte in self.message.bytes() {
            match byte {
                b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
        out
    }

    /// `grpc-status-details-bin`, if there is more to say than code and message.
    pub fn grpc_details(&self) -> Option<String> {
        self.retry_after?;
        Some(BASE64_STANDARD_NO_PAD.encode(self.to_proto()))
    }

    /// `Retry-After` in whole seconds, at least one.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let after = self.retry_after?;
        Some((after.as_millis() as u64).div_ceil(1000).max(1))
    }
}

/// A number; 0 is left out, as protobuf does.
fn put_varint(out: &mut Vec<u8>, field: u8, mut value: u64) {
    if value == 0 {
        return;
    }
    out.push(field << 3);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_the_same_content_in_all_forms() {
        let status = Status::unavailable("no room: 100 % used\n\u{e4}");
        // Written by hand from the definitions of the messages.
        let text = "no room: 100 % used\n\u{e4}".as_bytes();
        let mut expect = vec![0x08, 14, 0x12, text.len() as u8];
        expect.extend_from_slice(text);
        let any = [
            &[0x0a, RETRY_INFO.len() as u8][..],
            RETRY_INFO.as_bytes(),
            &[0x12, 4, 0x0a, 2, 0x08, 1],
        ]
        .concat();
        expect.extend_from_slice(&[0x1a, any.len() as u8]);
        expect.extend_from_slice(&any);
        assert_eq!(status.to_proto(), expect);
        let json: serde_json::Value = serde_json::from_slice(&status.to_json()).unwrap();
        assert_eq!(json["code"], 14);
        assert_eq!(json["details"][0]["retryDelay"], "1s");
        assert_eq!(status.grpc_message(), "no room: 100 %25 used%0A%C3%A4");
        assert_eq!(status.retry_after_seconds(), Some(1));
        let plain = Status::new(Code::InvalidArgument, "x");
        assert_eq!(plain.to_proto(), [0x08, 3, 0x12, 1, b'x']);
        assert_eq!(
            (plain.grpc_details(), plain.retry_after_seconds()),
            (None, None)
        );
        assert_eq!(plain.to_json(), br#"{"code":3,"message":"x"}"#);
    }

    #[test]
    fn long_messages_are_framed_right() {
        let status = Status::new(Code::Internal, "x".repeat(300));
        assert_eq!(status.to_proto()[..5], [0x08, 13, 0x12, 0xac, 0x02]);
    }
}
