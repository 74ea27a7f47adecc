//! `tailwater-sim`: runs seeds. See `cargo xtask sim --help`.

use std::process::ExitCode;

use tailwater_sim::canary::Whole;
use tailwater_sim::sim::run;

fn number(args: &[String], flag: &str) -> Option<u64> {
    let at = args.iter().position(|a| a == flag)?;
    args.get(at + 1)?.parse().ok()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(seed) = number(&args, "--trace") {
        let outcome = run(seed, &Whole, true);
        outcome.story.iter().for_each(|l| println!("{l}"));
        println!("{:?}", tailwater_sim::plan::Plan::of(seed));
        println!(
            "{} lines, {} gone, hash {:016x}",
            outcome.lines, outcome.gone, outcome.hash
        );
        outcome.violations.iter().for_each(|v| println!("{v:?}"));
        return ExitCode::from(u8::from(!outcome.violations.is_empty()));
    }
    let start = number(&args, "--start").unwrap_or(0);
    let seeds = number(&args, "--seeds").unwrap_or(100);
    let began = std::time::Instant::now();
    let (mut failed, mut lines, mut gone) = (0, 0, 0);
    for seed in start..start + seeds {
        let outcome = run(seed, &Whole, false);
        lines += outcome.lines;
        gone += outcome.gone;
        if !outcome.violations.is_empty() {
            failed += 1;
            println!(
                "seed {seed}: {} wrong: {:?} {:?}",
                outcome.violations.len(),
                outcome.violations[0],
                tailwater_sim::plan::Plan::of(seed).logs.iter().map(|l| l.style).collect::<Vec<_>>()
            );
        }
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds, {failed} failed, {lines} lines, {gone} gone, {:.0} seeds/s",
        seeds as f64 / took
    );
    ExitCode::from(u8::from(failed > 0))
}
