//! Deterministic simulation: the production agent in one thread, in a world that a seed decides.
//!
//! What runs is the code that runs in production: the receiver's driver, its sources in their
//! shards, operators and processors, the Loki exporter with its delivery queue and its judge, the
//! checkpoint store and its writer, built from a configuration as the agent builds them. What is
//! simulated is everything around them:
//!
//! - `disk`: inodes and names, and what of them a power cut leaves, on ext4, on xfs, or as far as
//!   POSIX goes; `views` shows it to the agent, with faults;
//! - `writers`, `lines`: who writes logs and rotates them, in steps that anything may come between;
//! - `network`: Loki (the model of `tailwater_testkit`) and the way to it;
//! - `world`: all of it together, with notifications that are late, lost or too many;
//! - `oracle`: knows each line, and what became of it; `cuts`: what power cuts mean for that;
//! - `dice`: random numbers, a stream of its own for each thing that is decided;
//! - `plan`: what a seed stands for; `sim`: the run; `canary`: agents that are broken on purpose.
//!
//! One seed decides everything and gives the same run every time.

pub mod agent;
pub mod canary;
mod cuts;
pub mod dice;
pub mod disk;
pub mod lines;
pub mod network;
pub mod oracle;
pub mod plan;
pub mod said;
pub mod sim;
pub mod views;
pub mod world;
pub mod writers;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::canary::Whole;
use crate::sim::{Outcome, run};

/// Runs seeds on some threads, each seed on one. `tell` is called for each that fails. Returns how
/// many those are.
pub fn run_seeds(seeds: Range<u64>, threads: u64, tell: &(dyn Fn(u64, &Outcome) + Sync)) -> u64 {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run(seed, &Whole, false);
            if !outcome.violations.is_empty() {
                failed.fetch_add(1, Ordering::Relaxed);
                tell(seed, &outcome);
            }
        }
    };
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    failed.into_inner()
}
