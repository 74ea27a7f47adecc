//! Extensions: what serves the agent but touches no record.

pub mod basicauth;
pub mod bearertokenauth;
pub mod file_storage;
pub mod headers_setter;
pub mod health_check;
pub mod htpasswd;
pub mod opamp;
pub mod watched;
pub mod zpages;
