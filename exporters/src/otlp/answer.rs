//! What is in the bodies of answers: partial success, and errors as `google.rpc.Status`.
//!
//! Formats: `Export*ServiceResponse` of opentelemetry-proto (`partial_success` = 1, in it the number
//! of rejected items = 1 and `error_message` = 2, the same for all signals), and `status.proto` and
//! `error_details.proto` of googleapis (`Status`: `message` = 2, `details` = 3; `Any`: `type_url` = 1,
//! `value` = 2; `RetryInfo`: `retry_delay` = 1; `Duration`: `seconds` = 1, `nanos` = 2).

use std::time::Duration;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Longest text of a server that is shown.
const TEXT_CHARS_MAX: usize = 500;
/// Most details of an error that are looked at.
const DETAILS_MAX: usize = 64;

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The body is not what its type says.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

/// Calls `each` with every field of a message.
fn fields<'a>(mut rest: &'a [u8], mut each: impl FnMut(u64, Field<'a>)) -> Result<(), Broken> {
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut rest)?),
            1 => {
                take(&mut rest, 8)?;
                Field::Fixed
            }
            2 => {
                let length = varint(&mut rest)?;
                let length = usize::try_from(length).map_err(|_| Broken)?;
                Field::Bytes(take(&mut rest, length)?)
            }
            5 => {
                take(&mut rest, 4)?;
                Field::Fixed
            }
            _ => return Err(Broken),
        };
        if tag >> 3 == 0 {
            return Err(Broken);
        }
        each(tag >> 3, field);
    }
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Result<&'a [u8], Broken> {
    let (head, tail) = rest.split_at_checked(n).ok_or(Broken)?;
    *rest = tail;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Broken> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let byte = take(rest, 1)?[0];
        if shift == 63 && byte > 1 {
            return Err(Broken);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Broken)
}

/// Text of a server, for logs: cut, and without control characters.
pub fn shown(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(TEXT_CHARS_MAX).collect()
}

/// What a server that accepted a request says about parts of it that it did not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PartialSuccess {
    /// Items that it rejected.
    pub rejected: i64,
    /// Why, or a warning.
    pub message: String,
}

impl PartialSuccess {
    /// True if nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == PartialSuccess::default()
    }

    /// Reads a response in protobuf form.
    pub fn of_proto(body: &[u8]) -> Result<PartialSuccess, Broken> {
        let mut found = PartialSuccess::default();
        let mut inner = Vec::new();
        fields(body, |number, field| match (number, field) {
            (1, Field::Bytes(b)) => inner.push(b),
            (1, _) => inner.push(&[0xff]),
            _ => {}
        })?;
        for part in inner {
            let mut text = Ok("");
            fields(part, |number, field| match (number, field) {
                (1, Field::Number(n)) => found.rejected = n as i64,
                (2, Field::Bytes(b)) => text = std::str::from_utf8(b).map_err(|_| Broken),
                (1 | 2, _) => text = Err(Broken),
                _ => {}
            })?;
            found.message = shown(text?);
        }
        Ok(found)
    }

    /// Reads a response in JSON form.
    pub fn of_json(body: &[u8]) -> Result<PartialSuccess, Broken> {
        let json: serde_json::Value = serde_json::from_slice(body).map_err(|_| Broken)?;
        let json = json.as_object().ok_or(Broken)?;
        let mut found = PartialSuccess::default();
        let partial = match json.get("partialSuccess") {
            None | Some(serde_json::Value::Null) => return Ok(found),
            Some(partial) => partial.as_object().ok_or(Broken)?,
        };
        for (key, value) in partial {
            match key.as_str() {
                "rejectedLogRecords" | "rejectedDataPoints" | "rejectedSpans" => {
                    let text = value.as_str().and_then(|s| s.parse().ok());
                    found.rejected = value.as_i64().or(text).ok_or(Broken)?;
                }
                "errorMessage" => found.message = shown(value.as_str().ok_or(Broken)?),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// An error as servers describe it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RpcStatus {
    /// For people.
    pub message: String,
    /// The wait that the server asks for; `Some` if it says anything about a wait, be it zero.
    pub retry_delay: Option<Duration>,
}

impl RpcStatus {
    /// Reads the protobuf form.
    pub fn of_proto(body: &[u8]) -> Result<RpcStatus, Broken> {
        let mut status = RpcStatus::default();
        let mut details = Vec::new();
        fields(body, |number, field| match (number, field) {
            (2, Field::Bytes(b)) => status.message = shown(&String::from_utf8_lossy(b)),
            (3, Field::Bytes(b)) if details.len() < DETAILS_MAX => details.push(b),
            _ => {}
        })?;
        for detail in details {
            status.retry_delay = retry_info(detail)?.or(status.retry_delay);
        }
        Ok(status)
    }

    /// Reads the JSON form.
    pub fn of_json(body: &[u8]) -> Option<RpcStatus> {
        let json: serde_json::Value = serde_json::from_slice(body).ok()?;
        Some(RpcStatus {
            message: shown(json.get("message")?.as_str()?),
            retry_delay: None,
        })
    }

    /// Reads the value of a `grpc-status-details-bin` header.
    pub fn of_header(value: &[u8]) -> Option<RpcStatus> {
        let lenient = GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true);
        let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
        RpcStatus::of_proto(&engine.decode(value).ok()?).ok()
    }
}

/// The wait in a detail, if it is about one.
fn retry_info(any: &[u8]) -> Result<Option<Duration>, Broken> {
    let (mut is_it, mut value) = (false, &b""[..]);
    fields(any, |number, field| match (number, field) {
        (1, Field::Bytes(b)) => is_it = b.ends_with(b"/google.rpc.RetryInfo"),
        (2, Field::Bytes(b)) => value = b,
        _ => {}
    })?;
    if !is_it {
        return Ok(None);
    }
    let mut delay = &b""[..];
    fields(value, |number, field| {
        if let (1, Field::Bytes(b)) = (number, field) {
            delay = b;
        }
    })?;
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    fields(delay, |number, field| match (number, field) {
        (1, Field::Number(n)) => seconds = n as i64,
        (2, Field::Number(n)) => nanos = n as i32,
        _ => {}
    })?;
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let nanos = u32::try_from(nanos).unwrap_or(0).min(999_999_999);
    Ok(Some(Duration::new(seconds, nanos)))
}

/// `grpc-message` without its escapes.
pub fn percent_decoded(value: &[u8]) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&b, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        let code = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
        match (b, code) {
            (b'%', Some(code)) => {
                out.push(code);
                rest = &tail[2..];
            }
            _ => {
                out.push(b);
                rest = tail;
            }
        }
    }
    shown(&String::from_utf8_lossy(&out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};

    fn with_delay(delay: &[u8]) -> Vec<u8> {
        let mut info = vec![0x0a, delay.len() as u8];
        info.extend_from_slice(delay);
        let url = b"type.googleapis.com/google.rpc.RetryInfo";
        let mut any = vec![0x0a, url.len() as u8];
        any.extend_from_slice(url);
        any.extend_from_slice(&[0x12, info.len() as u8]);
        any.extend_from_slice(&info);
        let mut status = b"\x08\x0e\x12\x03why\x1a".to_vec();
        status.push(any.len() as u8);
        status.extend_from_slice(&any);
        status
    }

    #[test]
    fn partial_success_in_both_forms() {
        let expect = PartialSuccess {
            rejected: 300,
            message: "old".into(),
        };
        let proto = PartialSuccess::of_proto(b"\x0a\x08\x08\xac\x02\x12\x03old");
        assert_eq!(proto, Ok(expect));
        for json in [
            r#"{"partialSuccess":{"rejectedLogRecords":"300","errorMessage":"old"}}"#,
            r#"{"partialSuccess":{"rejectedSpans":300,"errorMessage":"old"}}"#,
            r#"{"partialSuccess":{"rejectedDataPoints":"300","errorMessage":"old","x":1}}"#,
        ] {
            assert_eq!(
                PartialSuccess::of_json(json.as_bytes()).unwrap().rejected,
                300
            );
        }
        for (proto, json) in [
            (&b""[..], "{}"),
            (b"\x0a\x00", r#"{"partialSuccess":null}"#),
        ] {
            assert!(PartialSuccess::of_proto(proto).unwrap().is_empty());
            assert!(PartialSuccess::of_json(json.as_bytes()).unwrap().is_empty());
        }
    }

    #[test]
    fn what_is_no_response_is_said_to_be_none() {
        for body in [
            &b"<html>"[..],
            b"\x0a\x05\x08",
            b"\x0a\x02\x12\x05",
            b"\x08\x01",
            b"\0\0",
        ] {
            assert_eq!(PartialSuccess::of_proto(body), Err(Broken), "{body:?}");
        }
        for body in ["", "[]", "\"x\"", r#"{"partialSuccess":1}"#] {
            assert_eq!(
                PartialSuccess::of_json(body.as_bytes()),
                Err(Broken),
                "{body}"
            );
        }
    }

    #[test]
    fn a_wait_is_found_among_the_details() {
        let status = with_delay(b"\x08\x03\x10\xe8\x07");
        let found = RpcStatus::of_proto(&status).unwrap();
        assert_eq!(found.message, "why");
        assert_eq!(found.retry_delay, Some(Duration::new(3, 1000)));
        let (padded, bare) = (
            BASE64_STANDARD.encode(&status),
            BASE64_STANDARD_NO_PAD.encode(&status),
        );
        for text in [padded, bare] {
            assert_eq!(RpcStatus::of_header(text.as_bytes()).as_ref(), Some(&found));
        }
        let zero = RpcStatus::of_proto(&with_delay(b"")).unwrap();
        assert_eq!(zero.retry_delay, Some(Duration::ZERO));
        let none = RpcStatus::of_proto(b"\x12\x01a").unwrap();
        assert_eq!(none.retry_delay, None);
    }

    #[test]
    fn a_negative_or_huge_wait_is_harmless() {
        let negative = with_delay(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
        let found = RpcStatus::of_proto(&negative).unwrap();
        assert_eq!(found.retry_delay, Some(Duration::ZERO));
        let huge = with_delay(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x10\xff\xff\xff\xff\x07");
        assert!(RpcStatus::of_proto(&huge).unwrap().retry_delay.is_some());
    }

    #[test]
    fn messages_of_grpc_are_unescaped_and_cut() {
        assert_eq!(percent_decoded(b"100%25 full%0a%zz"), "100% full %zz");
        assert_eq!(percent_decoded(&[b'x'; 9999]).len(), TEXT_CHARS_MAX);
    }
}
