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
//! - `oracle`: knows each line, and what became of it;
//! - `plan`: what a seed stands for; `sim`: the run; `canary`: agents that are broken on purpose.
//!
//! One seed decides everything and gives the same run every time.

pub mod agent;
pub mod canary;
pub mod disk;
pub mod lines;
pub mod network;
pub mod oracle;
pub mod plan;
pub mod sim;
pub mod views;
pub mod world;
pub mod writers;
