//! Identifiers that are made: at random, of a time, of what a flow of packets has in common.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::error::Fault;
use crate::field::Kind;
use crate::scene::Cx;
use crate::value::Val;

use super::{Arg, Function, Takes, f, hex, int, opt, p, text};

const TEXT: Takes = Takes::Value(Kind::Text);
const INT: Takes = Takes::Value(Kind::Int);

pub(super) const FUNCTIONS: &[Function] = &[
    // Each call makes another one.
    Function {
        pure: false,
        ..f("UUID", &[], Kind::Text, uuid)
    },
    Function {
        pure: false,
        ..f("UUIDv7", &[], Kind::Text, uuid_7)
    },
    f(
        "CommunityID",
        &[
            p("source_ip", TEXT),
            p("source_port", INT),
            p("destination_ip", TEXT),
            p("destination_port", INT),
            opt("protocol", TEXT),
            opt("seed", INT),
        ],
        Kind::Text,
        community_id,
    ),
];

type Done<'a> = Result<Val<'a>, Fault>;

fn random(place: &'static str) -> Result<[u8; 16], Fault> {
    let mut bytes = [0; 16];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|_| Fault::failed(place, "the system gives no random numbers"))?;
    Ok(bytes)
}

/// The text of a UUID of RFC 9562 with version and variant set.
fn uuid_text(mut bytes: [u8; 16], version: u8) -> Val<'static> {
    bytes[6] = bytes[6] & 0x0f | version << 4;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex(&bytes);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| &digits[range]);
    Val::text(parts.join("-"))
}

fn uuid<'a>(_: &'a [Arg], _: &Cx<'a>) -> Done<'a> {
    Ok(uuid_text(random("UUID")?, 4))
}

/// One that begins with the time, in ms.
fn uuid_7<'a>(_: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    let mut bytes = random("UUIDv7")?;
    let ms = cx.now_ns.div_euclid(1_000_000).to_be_bytes();
    bytes[..6].copy_from_slice(&ms[2..]);
    Ok(uuid_text(bytes, 7))
}

/// Protocols by their numbers of IANA.
const PROTOCOLS: [(&str, u8); 6] = [
    ("ICMP", 1),
    ("TCP", 6),
    ("UDP", 17),
    ("RSVP", 46),
    ("ICMP6", 58),
    ("SCTP", 132),
];

/// The Community ID of version 1: the same for both directions of a flow.
fn community_id<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Done<'a> {
    const PLACE: &str = "CommunityID";
    let address = |i: usize| {
        let text = text(PLACE, args, i, cx)?;
        let address = std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok());
        let address: IpAddr = address.ok_or_else(|| Fault::failed(PLACE, "no IP address"))?;
        Ok(match address.to_canonical() {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        })
    };
    let port = |i: usize| {
        let port = u16::try_from(int(PLACE, args, i, cx)?).ok();
        let port = port.filter(|port| *port > 0);
        port.ok_or_else(|| Fault::failed(PLACE, "a port is 1 to 65535"))
    };
    let mut ends = [(address(0)?, port(1)?), (address(2)?, port(3)?)];
    // Shorter addresses first, then smaller ones, then smaller ports.
    ends.sort_by(|(a, p), (b, q)| (a.len(), a, p).cmp(&(b.len(), b, q)));
    let protocol = match args.get(4) {
        Some(Arg::Value(_)) => {
            let name = text(PLACE, args, 4, cx)?;
            let found = PROTOCOLS.iter().find(|(n, _)| n.as_bytes() == &*name);
            found
                .ok_or_else(|| Fault::failed(PLACE, "the protocol is not known"))?
                .1
        }
        _ => 6,
    };
    let seed = match args.get(5) {
        Some(Arg::Value(_)) => u16::try_from(int(PLACE, args, 5, cx)?)
            .map_err(|_| Fault::failed(PLACE, "a seed is 0 to 65535"))?,
        _ => 0,
    };
    let [(first, first_port), (second, second_port)] = ends;
    let mut hash = Sha1::new();
    hash.update(seed.to_be_bytes());
    hash.update(&first);
    hash.update(&second);
    hash.update([protocol, 0]);
    hash.update(first_port.to_be_bytes());
    hash.update(second_port.to_be_bytes());
    Ok(Val::text(format!("1:{}", STANDARD.encode(hash.finalize()))))
}
