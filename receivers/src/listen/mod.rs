//! Sockets that receivers listen at: their addresses, TLS, and what is said of those that others reach.

mod bind;
mod door;
mod endpoint;
mod tls;
mod tls_options;

pub use bind::{Bound, Datagrams, Socket};
pub use door::{Carrier, Door};
pub use endpoint::{Endpoint, Family, Listen};
pub use tls::TlsSource;
pub use tls_options::TlsOptions;
