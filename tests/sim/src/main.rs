//! `tailwater-sim`: runs seeds; `cargo xtask sim` builds and starts it.

use std::process::ExitCode;
use std::time::Instant;

use tailwater_sim::canary::Whole;
use tailwater_sim::said;
use tailwater_sim::sim::run;
use tailwater_sim::{plan::Plan, run_seeds};

fn number(args: &[String], flag: &str) -> Option<u64> {
    let at = args.iter().position(|a| a == flag)?;
    args.get(at + 1)?.parse().ok()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    // What panics is in the verdict.
    std::panic::set_hook(Box::new(|_| {}));
    let failed = match number(&args, "--trace") {
        Some(seed) => trace(seed),
        None => seeds(
            number(&args, "--start").unwrap_or(0),
            number(&args, "--seeds").unwrap_or(1_000),
            number(&args, "--threads"),
        ),
    };
    ExitCode::from(u8::from(failed))
}

/// Tells the story of a seed. True if something is wrong.
fn trace(seed: u64) -> bool {
    let _said = said::listen();
    let outcome = run(seed, &Whole, true);
    outcome.story.iter().for_each(|l| println!("{l}"));
    println!("{:#?}", Plan::of(seed));
    println!(
        "seed {seed}: {} lines, {} not there any more before they arrived, hash {:016x}",
        outcome.lines, outcome.gone, outcome.hash
    );
    outcome.violations.iter().for_each(|v| println!("{v:?}"));
    !outcome.violations.is_empty()
}

/// Runs seeds. True if something is wrong.
fn seeds(start: u64, seeds: u64, threads: Option<u64>) -> bool {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let threads = threads.unwrap_or(cores).max(1);
    let began = Instant::now();
    let failed = run_seeds(start..start + seeds, threads, &|seed, outcome| {
        let first = &outcome.violations[0];
        println!(
            "seed {seed}: {} wrong, first {first:?}\n  again: cargo xtask sim --trace {seed}",
            outcome.violations.len()
        );
    });
    let rate = seeds as f64 / began.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds from {start} on: {failed} failed; {rate:.0} seeds/s on {threads} threads"
    );
    failed > 0
}
