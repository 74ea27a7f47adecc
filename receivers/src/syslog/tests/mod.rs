//! The receiver with its sockets and a shard, and its options.

mod config;
mod stand;
mod tcp;
mod udp;
