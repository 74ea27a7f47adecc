//! Receivers: where records come from.

pub mod filelog;
pub mod operators;
pub mod otlp;
