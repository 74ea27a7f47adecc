//! Everything that continuous integration does, runnable by hand: `cargo xtask help`.

mod check;
mod faults;
mod fuzz;
mod image;
mod peers;
mod reference;
mod run;
mod soak;
mod supply;
mod temporal;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tailwater's development commands.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// All tests, as continuous integration runs them. Says what it needs and what it skipped.
    Test {
        /// Leave out what takes minutes (release build, end-to-end tests).
        #[arg(long)]
        quick: bool,
    },
    /// The rules of the repository: dependency direction, paths named in the docs, lints of text.
    Check,
    /// Writes the pages of docs/components and the schema of docs/schema from the code.
    Docs,
    /// Runs behaviour vectors and whole configurations; a row per case.
    Conformance {
        /// Folder of vectors; defaults to `../shared/data/vectors`, else the ones kept here.
        #[arg(long)]
        vectors: Option<String>,
        /// Folder of whole configurations; defaults to `../shared/data/configs`.
        #[arg(long)]
        configs: Option<String>,
    },
    /// Kills the agent at random moments, under rotation and a failing sink.
    Kill9 {
        /// Number of kills.
        #[arg(long, default_value_t = 1000)]
        kills: u32,
        /// Seed of the random moments.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Runs the fault matrix on the release binary and writes docs/FAULTS.md.
    Faults {
        /// The long forms: hours in all.
        #[arg(long)]
        long: bool,
        /// Only these rows, e.g. `3,12`; the results of the others stay as they are.
        #[arg(long, value_delimiter = ',')]
        rows: Vec<u64>,
        /// This binary instead of a fresh release build.
        #[arg(long)]
        bin: Option<PathBuf>,
    },
    /// The driver of rollouts over Temporal (`control-plane/temporal`, a workspace of its own): format, lints, and its tests
    /// against a dev server of Temporal, which is found or downloaded.
    Temporal,
    /// Builds a static release binary, makes the image of `deploy/docker` of it, and runs that on a Docker Engine; needs
    /// root and `dockerd`.
    Image {
        /// This static binary instead of a fresh build.
        #[arg(long)]
        bin: Option<PathBuf>,
    },
    /// Many logs rotated all the time and a sink that fails, for an hour: nothing may be lost or
    /// grow. From 60 minutes on the record is kept in docs/faults, else in target/soak.
    Soak {
        /// How long lines are written.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
        /// Arguments for the soak, see `cargo xtask soak -- --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Runs the agent in one thread, in a world that a seed decides; each seed is one run.
    Sim {
        /// Number of seeds.
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        start: u64,
        /// Threads; all cores by default.
        #[arg(long)]
        threads: Option<u64>,
        /// Tells what happens in this seed instead.
        #[arg(long)]
        trace: Option<u64>,
    },
    /// Runs rollouts over a fleet of 200 agents in a world that a seed decides; each seed is one run.
    Rollouts {
        /// Number of seeds.
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        start: u64,
        /// Threads; all cores by default.
        #[arg(long)]
        threads: Option<usize>,
    },
    /// Looks for inputs that break what the fuzz targets demand; needs a nightly toolchain.
    Fuzz {
        /// How long each target runs.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
        minutes: u32,
        /// The targets, by the names in fuzz/fuzz_targets; all if none is named.
        targets: Vec<String>,
    },
    /// Throughput on files it generates, as ratios; without arguments also idle files, the time to
    /// the first line and a backlog in little memory.
    Bench {
        /// Arguments for the benchmark, see `cargo xtask bench -- --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Test { quick } => test::test(quick),
        Command::Check => check::check(),
        Command::Docs => reference::write(),
        Command::Conformance { vectors, configs } => test::conformance(vectors, configs),
        Command::Kill9 { kills, seed } => test::kill9(kills, seed),
        Command::Faults { long, rows, bin } => faults::faults(long, &rows, bin),
        Command::Temporal => temporal::temporal(),
        Command::Image { bin } => image::image(bin),
        Command::Soak { minutes, args } => soak::soak(minutes, &args),
        Command::Sim {
            seeds,
            start,
            threads,
            trace,
        } => test::sim(seeds, start, threads, trace),
        Command::Rollouts {
            seeds,
            start,
            threads,
        } => test::rollouts(seeds, start, threads),
        Command::Fuzz { minutes, targets } => fuzz::fuzz(minutes, &targets),
        Command::Bench { args } => test::bench(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}
