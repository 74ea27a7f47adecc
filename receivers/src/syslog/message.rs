//! Messages on their way from a socket to a shard.

use std::net::SocketAddr;

use bytes::Bytes;
use tailwater_pdata::{Column, LogsBatch, Slice, Text, Times, Value};

use super::config::TextOptions;
use crate::input::charset::{Charset, raw_bodies};
use crate::input::constants::Constants;
use crate::input::frame::Token;

/// What a message takes besides its text, about: its columns, and those of the copy that is kept until it
/// is delivered.
const ROW_BYTES: usize = 256;
/// What some messages that came together take besides.
const CHUNK_BYTES: usize = 1 << 10;

/// How messages came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// Over a connection.
    Tcp,
    /// Each in a datagram.
    Udp,
}

impl Transport {
    /// The value of the label `transport`.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }

    /// The value of `net.transport`.
    fn attribute(self) -> &'static str {
        match self {
            Transport::Tcp => "IP.TCP",
            Transport::Udp => "IP.UDP",
        }
    }
}

/// Who sent messages.
#[derive(Clone, Debug)]
pub enum Senders {
    /// All of them.
    One(SocketAddr),
    /// Each of them.
    Each(Vec<SocketAddr>),
}

/// Messages that came together.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// What came.
    pub text: Bytes,
    /// Where the messages are in it; never none.
    pub tokens: Vec<Token>,
    /// Who sent them.
    pub senders: Senders,
    /// Where they came in, if that is known.
    pub local: Option<SocketAddr>,
    /// How they came.
    pub transport: Transport,
    /// Tells their log from others: a number of the connection, or of the socket.
    pub log: u64,
    /// When they came, in ns since the epoch.
    pub seen_ns: i64,
}

impl Chunk {
    /// Bytes of memory that it takes until it is delivered, about.
    pub fn cost_bytes(&self) -> usize {
        self.text.len() + self.tokens.len() * ROW_BYTES + CHUNK_BYTES
    }

    /// The records of the messages. `repaired` counts those with bytes that are no characters.
    pub fn records(
        &self,
        options: TextOptions,
        constants: &Constants,
        repaired: &mut u64,
    ) -> LogsBatch {
        let mut text = Text::new(self.text.clone());
        let charset = options.charset;
        let slices = charset.slices(&mut text, 0, &self.tokens, false, repaired);
        let mut batch = LogsBatch::from_slices(text, slices);
        if charset == Charset::Nop {
            raw_bodies(&mut batch);
        }
        batch.observed = Times::Const(self.seen_ns);
        constants.add_to(&mut batch, None);
        if options.add_attributes {
            self.add_attributes(&mut batch);
        }
        batch
    }

    /// What the collector says of both ends. It looks up names of addresses; here the addresses stand for
    /// them.
    fn add_attributes(&self, batch: &mut LogsBatch) {
        let mut constant = |key: &str, value: &str| {
            let column = Column::Const(Value::str(value));
            batch.attributes.set(key, column);
        };
        constant("net.transport", self.transport.attribute());
        if let Some(local) = self.local {
            let ip = local.ip().to_canonical().to_string();
            constant("net.host.ip", &ip);
            constant("net.host.port", &local.port().to_string());
            constant("net.host.name", &ip);
        }
        match &self.senders {
            Senders::One(peer) => {
                let ip = peer.ip().to_canonical().to_string();
                constant("net.peer.ip", &ip);
                constant("net.peer.port", &peer.port().to_string());
                constant("net.peer.name", &ip);
            }
            Senders::Each(peers) => {
                let texts = |batch: &mut LogsBatch, text: fn(&SocketAddr) -> String| {
                    let mut last: Option<(SocketAddr, Slice)> = None;
                    let slices = peers.iter().map(|peer| match last {
                        // Mostly many of one sender come together.
                        Some((same, slice)) if same == *peer => slice,
                        _ => {
                            let slice = batch.text.push(text(peer).as_bytes());
                            last = Some((*peer, slice));
                            slice
                        }
                    });
                    slices.collect::<Vec<_>>()
                };
                let ips = texts(batch, |peer| peer.ip().to_canonical().to_string());
                let ports = texts(batch, |peer| peer.port().to_string());
                let columns = &mut batch.attributes;
                columns.set("net.peer.ip", Column::Slices(ips.clone()));
                columns.set("net.peer.port", Column::Slices(ports));
                columns.set("net.peer.name", Column::Slices(ips));
            }
        }
    }
}
