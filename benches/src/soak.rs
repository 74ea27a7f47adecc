//! A long run of the agent on many small logs that are rotated all the time, watched from outside.
//!
//! [`load`] writes, [`watch`] looks each second, [`trend`] says what grows, [`plot`] draws, [`record`]
//! tells.

pub mod load;
pub mod plot;
pub mod record;
pub mod sample;
pub mod trend;
pub mod watch;
