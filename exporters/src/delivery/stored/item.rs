//! A request as it is stored.
//!
//! ```text
//! version    1 byte: 1
//! items      varint
//! tenant     varint: 0, or 1 + bytes of UTF-8, then these
//! lanes      varint: how many, then 8 bytes each, little endian
//! headers    varint: how many, then for each: varint bytes of name, name, varint bytes of value, value
//! body       the rest
//! ```
//!
//! Varints are those of protobuf. Whether the bytes are the ones that were written is the queue's
//! business.

use std::sync::Arc;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::super::request::{Acks, OutgoingRequest};

const VERSION: u8 = 1;

/// What stands in front of the body of a stored request.
pub(super) fn head(request: &OutgoingRequest<Acks>) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_varint(&mut out, request.items);
    match &request.tenant {
        None => put_varint(&mut out, 0),
        Some(tenant) => {
            put_varint(&mut out, tenant.len() as u64 + 1);
            out.extend_from_slice(tenant.as_bytes());
        }
    }
    put_varint(&mut out, request.lanes.len() as u64);
    for lane in &request.lanes {
        out.extend_from_slice(&lane.to_le_bytes());
    }
    put_varint(&mut out, request.headers.len() as u64);
    for (name, value) in request.headers.iter() {
        for part in [name.as_str().as_bytes(), value.as_bytes()] {
            put_varint(&mut out, part.len() as u64);
            out.extend_from_slice(part);
        }
    }
    out
}

struct Parts<'a> {
    items: u64,
    tenant: Option<Arc<str>>,
    lanes: Vec<u64>,
    headers: Arc<HeaderMap>,
    body: &'a [u8],
}

/// Makes requests of stored ones.
#[derive(Default)]
pub(super) struct Reader {
    /// The headers of the last request, and the bytes they were made of: mostly all are the same.
    known: Option<(Vec<u8>, Arc<HeaderMap>)>,
}

impl Reader {
    /// The request, with `duty`; the duty alone if it is none.
    pub fn read(&mut self, item: &[u8], duty: Acks) -> Result<OutgoingRequest<Acks>, Acks> {
        let Some(p) = self.parts(item) else {
            return Err(duty);
        };
        let body = vec![Bytes::copy_from_slice(p.body)];
        Ok(OutgoingRequest::new(
            body, p.headers, p.tenant, p.lanes, p.items, duty,
        ))
    }

    fn parts<'a>(&mut self, item: &'a [u8]) -> Option<Parts<'a>> {
        let mut rest = item.strip_prefix(&[VERSION])?;
        let items = varint(&mut rest)?;
        let tenant = match varint(&mut rest)? {
            0 => None,
            n => Some(std::str::from_utf8(take(&mut rest, n - 1)?).ok()?.into()),
        };
        let lanes = varint(&mut rest)?;
        let lanes = take(&mut rest, lanes.checked_mul(8)?)?;
        let lanes = lanes.chunks_exact(8).map(|b| {
            let b = <[u8; 8]>::try_from(b).unwrap_or_default();
            u64::from_le_bytes(b)
        });
        let before = rest;
        let n = varint(&mut rest)?;
        let mut pairs = Vec::new();
        for _ in 0..n {
            let length = varint(&mut rest)?;
            let name = take(&mut rest, length)?;
            let length = varint(&mut rest)?;
            pairs.push((name, take(&mut rest, length)?));
        }
        let raw = &before[..before.len() - rest.len()];
        let headers = match &self.known {
            Some((known, headers)) if known == raw => headers.clone(),
            _ => {
                let mut map = HeaderMap::new();
                for (name, value) in pairs {
                    let name = HeaderName::from_bytes(name).ok()?;
                    map.append(name, HeaderValue::from_bytes(value).ok()?);
                }
                let headers = Arc::new(map);
                self.known = Some((raw.to_vec(), headers.clone()));
                headers
            }
        };
        Some(Parts {
            items,
            tenant,
            lanes: lanes.collect(),
            headers,
            body: rest,
        })
    }
}

/// Records in a stored request; 0 if it is none.
pub(super) fn items(item: &[u8]) -> u64 {
    let rest = item.strip_prefix(&[VERSION]);
    rest.and_then(|mut rest| varint(&mut rest)).unwrap_or(0)
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], n: u64) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(usize::try_from(n).ok()?)?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(tenant: Option<&str>) -> OutgoingRequest<Acks> {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("a/b"));
        headers.insert("x", HeaderValue::from_static(""));
        OutgoingRequest::new(
            vec![Bytes::from_static(b"bo"), Bytes::from_static(b"dy")],
            Arc::new(headers),
            tenant.map(Arc::from),
            vec![u64::MAX, 0],
            300,
            Acks::new(),
        )
    }

    fn stored(request: &OutgoingRequest<Acks>) -> Vec<u8> {
        let mut item = head(request);
        request.body.iter().for_each(|c| item.extend_from_slice(c));
        item
    }

    #[test]
    fn a_request_comes_back_as_it_was() {
        let mut reader = Reader::default();
        for tenant in [None, Some(""), Some("t\u{e9}")] {
            let before = request(tenant);
            let item = stored(&before);
            assert_eq!(items(&item), 300);
            let after = reader.read(&item, Acks::new()).unwrap();
            assert_eq!(after.body.concat(), b"body");
            assert_eq!(after.headers, before.headers);
            let rest = |r: &OutgoingRequest<Acks>| (r.tenant.clone(), r.lanes.clone(), r.items);
            assert_eq!(rest(&after), rest(&before));
        }
    }

    #[test]
    fn what_is_cut_or_of_another_version_is_no_request() {
        let item = stored(&request(Some("t")));
        let mut reader = Reader::default();
        for end in 0..item.len() - b"body".len() {
            assert!(reader.read(&item[..end], Acks::new()).is_err(), "{end}");
        }
        let mut newer = item;
        newer[0] = 2;
        assert!(reader.read(&newer, Acks::new()).is_err());
    }
}
