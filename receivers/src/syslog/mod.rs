//! The `syslog` receiver: messages of RFC 3164 and RFC 5424 over TCP, TLS and UDP.
//!
//! Nobody is told what was taken. So what came is kept until it is delivered, connections are read only as
//! far as there is room for that, and datagrams without room are dropped and counted.
//!
//! - `config`: its options;
//! - `framing`, `inflow`: from bytes to messages;
//! - `server`: sockets and their connections, on a thread of their own;
//! - `message`, `intake`: messages on their way to the shards;
//! - `source`: the shard's half: records, operators (the first is `syslog_parser`), delivery;
//! - `node`: the parts put together.

pub mod config;
mod framing;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod inflow;
mod intake;
mod message;
mod node;
mod server;
mod source;

#[cfg(test)]
mod tests;

pub use node::{SyslogNode, SyslogSettings, factory};
