//! Each way that a rollout can go, one test each.

mod back;
mod bench;
mod forth;

use bench::{Bench, Reaction, bench, digest, stage};
