//! Connectors: what stands between pipelines, as an exporter at the end of some and a receiver at the
//! start of others.
//!
//! The engine does the passing on (`tailwater_pipeline::shard`), with the delivery duty, the memory and
//! the back-pressure of what is passed; a connector says what it is called, which signals it takes and gives,
//! which options it has, and, unless everything goes everywhere, which pipeline gets what. It is a module
//! here and one line in the agent's registry.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod count;
pub mod forward;
mod ottl;
pub mod routing;
#[cfg(test)]
mod testing;
