//! The clients that network exporters share, configured under the collector's names: HTTP
//! ([`HttpClient`]) and gRPC ([`GrpcClient`]); both with TLS, proxies, authentication and limits.
//!
//! One client belongs to one exporter. It runs on the agent's socket runtime and never blocks it
//! for longer than it takes to `stat` a few certificate files per new connection. Every address of
//! a name is tried, and a connection is left when its name has moved; certificate and secret files are
//! read again when they change. Requests over TLS go over one HTTP/2 connection where the server
//! chooses that, all others over a pool of HTTP/1.1 connections.

mod auth;
mod body;
mod config;
mod connect;
mod cookies;
mod endpoint;
mod expiry;
mod grpc;
mod grpc_options;
mod http;
mod http2;
pub(crate) mod http_date;
mod http_shared;
mod names;
mod options;
mod pool;
mod proxy;
mod socks;
mod tls;
mod upgrade;

#[cfg(test)]
mod delivery_tests;
#[cfg(test)]
mod grpc_tests;
#[cfg(test)]
mod http2_tests;
#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod kept_tests;
#[cfg(test)]
mod names_tests;
#[cfg(test)]
mod socks_tests;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tls_tests;

pub use auth::AuthOptions;
pub use config::decode_fixed_compression;
pub use endpoint::{Endpoint, EndpointError};
pub use expiry::{Expiry, validity};
pub use grpc::{GRPC_ENCODING, GrpcClient, GrpcParts, GrpcSender, MESSAGE_BYTES_MAX, message};
pub use grpc_options::{Balancer, GrpcOptions, Keepalive};
pub use http::{ClientParts, HttpClient, HttpSender, RESPONSE_BYTES_MAX};
pub use http_date::retry_after;
pub use names::{Resolver, SystemResolver};
pub use options::{ClientOptions, TlsOptions};
pub use proxy::{ProxyEnv, ProxyError};
pub use tls::TlsError;
pub use upgrade::{Stream, Upgrade};

/// Our name, as servers are told it.
fn user_agent() -> String {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    format!("Tailwater/{} ({os}/{arch})", env!("CARGO_PKG_VERSION"))
}

/// Why a client cannot be built from its options.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The endpoint is not a usable URL.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A certificate, key or TLS setting does not work.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The proxy cannot be used.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// A header cannot be sent.
    #[error("header {name:?}: {problem}")]
    Header {
        /// The header's name as configured.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A secret cannot be read or used.
    #[error("{0}")]
    Auth(String),
}
