//! The receiver on real sockets, with an exporter that a test decides for.

mod fanout;
mod grpc;
mod guard;
mod hostile;
mod http;
mod lifetimes;
mod stand;
mod tls;
