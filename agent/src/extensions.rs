//! Extensions: what serves the agent but touches no record.

pub mod file_storage;
pub mod health_check;
