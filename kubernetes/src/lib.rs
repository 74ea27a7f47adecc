//! Access to the API of a Kubernetes cluster, as far as an agent on a node needs it: where it is and who
//! one is ([`Access`]), single objects and lists ([`Client`]), and what comes and goes ([`follow`]).
//!
//! It is small on purpose. Objects are decoded to what is used of them ([`model`]); nothing else of them is kept.
//! A list is asked for once, and then only what changes ([`watch`]).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
mod backoff;
pub mod client;
mod kubeconfig;
mod lines;
pub mod model;
mod tls;
pub mod watch;

pub use access::{Access, AccessError, Auth, Target};
pub use client::{ApiError, Client, Form};
pub use watch::{Change, Watch, follow, follow_and_list, poll};
