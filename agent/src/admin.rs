//! The admin API: what runs is looked at and changed while it runs.
//!
//! Reads are answered from what the supervisor shows ([`shown`]) and from what is counted anyway;
//! changes are asked of the supervisor, which does them one after the other. No thread that moves data
//! is asked for anything.

pub mod client;
pub mod diagnostics;
pub mod files;
pub mod graph;
pub mod handlers;
mod origin;
mod page;
pub mod server;
pub mod shown;
mod table;
mod tap;
