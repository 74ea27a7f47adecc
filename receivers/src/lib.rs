//! Receivers: where records come from.

pub mod filelog;
pub mod input;
pub mod journald;
pub mod listen;
pub mod loki;
pub mod nop;
pub mod operators;
pub mod otlp;
pub mod probe;
pub mod server;
pub mod syslog;

#[cfg(test)]
mod testing;
