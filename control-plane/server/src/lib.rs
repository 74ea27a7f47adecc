//! The control plane as a server: agents speak to it by OpAMP, people by HTTP, and changes of the pipeline are
//! rolled out to groups of agents by the machine of `tailwater_control_plane`.
//!
//! ```text
//! agents --OpAMP--> port --> hub <-- fleet <-- driver of each group --> SQLite or PostgreSQL
//! people --HTTP---> api ---> groups -----------^
//! ```
//!
//! [`hub`] knows the agents and has no socket; [`port`] has both transports of OpAMP; [`fleet`] is the port of
//! the rollout's driver to the hub; [`groups`] runs a driver for each group; [`api`] is for people, behind
//! [`access`]; [`listen`] takes connections, within limits. What agents read is in [`sources`], by way of a [`bus`]. [`offers`] signs what is offered, [`authority`] issues
//! certificates to agents, and [`trust`] says for which agent a connection may speak. Of several processes over one
//! database one leads ([`leader`]). [`dry_run`] asks agents whether they would take a pipeline, [`finder`] looks for sample
//! lines at the destination, [`notify`] tells people. [`grafana`] is apart from all of it: a command that brings a Grafana in
//! line.

pub mod access;
pub mod api;
pub mod audit;
pub mod authority;
pub mod bus;
pub mod client;
pub mod configs;
pub mod dry_run;
pub mod finder;
pub mod fleet;
pub mod grafana;
pub mod groups;
pub mod http;
pub mod hub;
pub mod leader;
pub mod listen;
pub mod notify;
pub mod offers;
pub mod port;
pub mod repeated;
pub mod reports;
pub mod secret;
pub mod sign;
pub mod sources;
pub mod tls;
pub mod trust;

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, ms since the epoch of the wall clock.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
