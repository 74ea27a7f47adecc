//! The simulation in the test command: kept seeds, new ones, broken agents, and that a seed is a
//! run.

use tailwater_sim::canary::{Whole, all};
use tailwater_sim::plan::{RELOAD_FROM, SECOND_FROM};
use tailwater_sim::run_seeds;
use tailwater_sim::sim::run;

/// Seeds that are run besides the kept ones.
const SEEDS: u64 = 2_000;

fn threads() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64)
}

/// Guarantee: nothing is decided by anything but the seed.
#[test]
fn one_seed_gives_one_run() {
    for seed in 0..40 {
        let (a, b) = (run(seed, &Whole, false), run(seed, &Whole, false));
        assert_eq!(a.hash, b.hash, "seed {seed}");
        assert_eq!(a.violations, b.violations, "seed {seed}");
    }
}

/// Guarantee: what was found once does not come back.
#[test]
fn kept_seeds_hold() {
    let kept = include_str!("../seeds.txt");
    let lines = kept
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'));
    let mut count = 0;
    for line in lines {
        let (seed, why) = line.split_once(' ').expect("a seed and why it is kept");
        let seed = seed.parse().expect("a number");
        let outcome = run(seed, &Whole, false);
        assert!(
            outcome.violations.is_empty(),
            "seed {seed} ({why}): {:?}",
            outcome.violations
        );
        count += 1;
    }
    assert!(count > 0);
}

/// Guarantee: under kills, power cuts, full and failing disks, rotation at any moment, late and
/// lost news and a Loki that fails in every way, each line that could be read arrives once, in
/// order, with its own time, and everything is caught up when nothing is wrong any more.
#[test]
fn seeds_hold() {
    let failed = run_seeds(0..SEEDS, threads(), &|seed, outcome| {
        println!("seed {seed}: {:?}", outcome.violations);
        println!("  again: cargo xtask sim --trace {seed}");
    });
    assert_eq!(failed, 0, "of {SEEDS} seeds");
}

/// Guarantee: the same for a destination beside one that is down all the time and has lanes of its own.
#[test]
fn seeds_with_a_destination_that_is_down_hold() {
    let seeds = SECOND_FROM..SECOND_FROM + SEEDS / 4;
    let failed = run_seeds(seeds, threads(), &|seed, outcome| {
        println!("seed {seed}: {:?}", outcome.violations);
        println!("  again: cargo xtask sim --trace {seed}");
    });
    assert_eq!(failed, 0, "of {} seeds", SEEDS / 4);
}

/// Guarantee: the same where the configuration changes at any step.
#[test]
fn seeds_with_changes_of_the_configuration_hold() {
    let seeds = RELOAD_FROM..RELOAD_FROM + SEEDS / 4;
    let failed = run_seeds(seeds, threads(), &|seed, outcome| {
        println!("seed {seed}: {:?}", outcome.violations);
        println!("  again: cargo xtask sim --trace {seed}");
    });
    assert_eq!(failed, 0, "of {} seeds", SEEDS / 4);
}

/// Guarantee: an agent that is broken on purpose is caught, or the rest of this proves nothing.
#[test]
fn each_broken_agent_is_caught_within_its_number_of_seeds() {
    for (name, broken, within, from) in all() {
        // By what is broken: the agent as it is holds where this one fails.
        let holds = |seed| run(seed, &Whole, false).violations.is_empty();
        let fails = |seed| !run(seed, &*broken, false).violations.is_empty();
        let caught = (from..from + within).find(|seed| fails(*seed) && holds(*seed));
        match caught {
            Some(seed) => println!("{name}: caught by seed {seed} (of at most {within})"),
            None => panic!("{name}: not caught by {within} seeds"),
        }
    }
}
