//! `cargo xtask test` and the longer proofs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::check;
use crate::peers::{self, install, quiet};
use crate::run::{Background, cargo, root, step, step_lines};

/// Steps that were left out, each with the reason.
#[derive(Default)]
struct Skipped(Vec<String>);

impl Skipped {
    fn add(&mut self, what: &str, why: &str) {
        println!("-- skipped: {what}: {why}");
        self.0.push(format!("{what}: {why}"));
    }
}

/// The packages that are built together, always these: of others the crates they share would be built once more,
/// with other features. Without the allocator of what is released, whose own build takes a minute, once for each profile.
const SELECTED: [&str; 2] = ["--workspace", "--no-default-features"];

/// The release binary.
const RELEASE: [&str; 6] = [
    "build",
    "--release",
    "--locked",
    "--quiet",
    "-p",
    "tailwater",
];

/// Tests that run at the same time on a core: processes are what they wait for, more than they compute.
const THREADS_PER_CORE: usize = 4;

/// Builds what needs the release binary with the same features as all else.
const E2E: [&str; 2] = ["--features", "tailwater-tests/e2e"];

/// `cargo` with `command` for the tests that need the release binary.
pub fn e2e(command: &str) -> Command {
    let mut c = cargo(&[command]);
    c.args(SELECTED).args(E2E);
    c
}

/// Everything that continuous integration runs.
pub fn test(quick: bool) -> Result<()> {
    println!("needs: the Rust toolchain (with rustfmt and clippy), a C compiler and make; Linux");
    // The allocator is built with it.
    if !quiet(Command::new("make").arg("--version")) {
        install("make");
    }
    let mut skipped = Skipped::default();
    if available("rustfmt", "fmt", &mut skipped) {
        step("cargo fmt", &mut cargo(&["fmt", "--all", "--check"]))?;
    }
    println!("== xtask check");
    check::check()?;
    advisories(&mut skipped)?;
    // No test until the end-to-end tests minds a clock, so what those need is built, and looked for, beside all else.
    let release_build = match quick {
        true => None,
        false => Some((
            Background::start("build the release binary", &mut cargo(&RELEASE))?,
            std::thread::spawn(peers::find),
        )),
    };
    let linted = available("clippy", "clippy", &mut skipped);
    let mut build = e2e("test");
    build.args([
        "--locked", "--quiet", "--no-run", "--test", "e2e", "--test", "faults",
    ]);
    let mut units = cargo(&["test", "--locked", "--lib", "--bins", "--tests"]);
    units.args(SELECTED);
    if linted {
        lint(&mut build);
        lint(&mut units);
    }
    let e2e_build = match quick {
        true => None,
        false => Some(Background::start("build the end-to-end tests", &mut build)?),
    };
    match peers::postgres() {
        Some(directory) => {
            units.env("TAILWATER_POSTGRES", directory);
        }
        None => skipped.add(
            "tests of the store in PostgreSQL",
            "it is not here, and the distribution's package cannot be had or does not run (TAILWATER_POSTGRES)",
        ),
    }
    match peers::nats() {
        Some(binary) => {
            units.env("TAILWATER_NATS", binary);
        }
        None => skipped.add(
            "tests of the bus over NATS",
            "it is not here, and no package of it can be had or runs (TAILWATER_NATS)",
        ),
    }
    step(
        "lints; unit, property and golden tests, simulation",
        &mut units,
    )?;
    if let Some(building) = e2e_build {
        building.wait()?;
    }
    match release_build {
        None => skipped.add("end-to-end tests on the release binary", "--quick"),
        Some((building, peers)) => {
            building.wait()?;
            // Found none if it panicked, which it has said itself.
            release(peers.join().unwrap_or_default(), linted, &mut skipped)?;
        }
    }
    if skipped.0.is_empty() {
        println!("all steps ran and passed; nothing was skipped");
    } else {
        println!("passed; {} skipped:", skipped.0.len());
        skipped.0.iter().for_each(|s| println!("  {s}"));
    }
    Ok(())
}

/// The proofs that need the release binary.
fn release(peers: Vec<(&'static str, PathBuf)>, linted: bool, skipped: &mut Skipped) -> Result<()> {
    let threads = THREADS_PER_CORE * std::thread::available_parallelism().map_or(2, usize::from);
    let mut e2e = e2e("test");
    e2e.args(["--locked", "--test", "e2e", "--test", "faults"]);
    if linted {
        lint(&mut e2e);
    }
    // Without it nobody sees what a test says that passes because it could not run.
    e2e.args(["--", "--show-output"]);
    e2e.args(["--test-threads", &threads.to_string()]);
    e2e.envs(peers);
    let mut left_out = Vec::new();
    step_lines(
        "end-to-end tests",
        e2e.env("TAILWATER_BIN", binary()),
        |line| left_out.extend(line.strip_prefix("SKIPPED: ").map(str::to_owned)),
    )?;
    for what in left_out {
        let (what, why) = what
            .split_once(": ")
            .unwrap_or((&what, "not possible here"));
        skipped.add(what, why);
    }
    step(
        "demo",
        Command::new(binary()).args(["demo", "--seconds", "3"]),
    )?;
    // Built with the tests beside it.
    let runner = target().join("debug/conformance");
    step("conformance", Command::new(runner).current_dir(root()))?;
    if !root().join("../shared/data").is_dir() {
        skipped.add(
            "third-party vectors and whole configurations",
            "../shared/data is not here (only the vectors kept in the repository ran)",
        );
    }
    Ok(())
}

/// Known faults of what we depend on. Neither the tool nor its database, a git repository, is part
/// of the toolchain, and building the tool takes minutes; where both are there they are used.
fn advisories(skipped: &mut Skipped) -> Result<()> {
    let what = "known faults of dependencies";
    if !quiet(&mut cargo(&["deny", "--version"])) {
        skipped.add(
            what,
            "cargo-deny is not installed (cargo install --locked cargo-deny)",
        );
        return Ok(());
    }
    if !quiet(&mut cargo(&["deny", "fetch", "db"])) {
        skipped.add(what, "cargo-deny cannot fetch its database");
        return Ok(());
    }
    let check = ["deny", "check", "--disable-fetch", "advisories"];
    step(what, &mut cargo(&check))
}

/// Has `command` look at every target of ours with clippy while it compiles it, a warning being an error. `cargo clippy`
/// would compile all that we depend on once more, which is most of what it takes. (Clippy's driver stands in for the compiler
/// and takes its arguments from the environment, as `cargo clippy` itself uses it.)
pub fn lint(command: &mut Command) {
    command.env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver");
    let separator = "__CLIPPY_HACKERY__";
    command.env("CLIPPY_ARGS", format!("-D{separator}warnings{separator}"));
}

/// Whether there is a component of cargo, which is installed when rustup may.
fn available(name: &str, probe: &str, skipped: &mut Skipped) -> bool {
    let works = || quiet(&mut cargo(&[probe, "--version"]));
    if !works() {
        println!("-- {name} is missing, trying to install it");
        let _ = Command::new("rustup")
            .args(["component", "add", name])
            .status();
    }
    if !works() {
        skipped.add(name, "not installed and rustup could not add it");
    }
    works()
}

/// Where the release binary is.
pub fn binary() -> PathBuf {
    target().join("release/tailwater")
}

/// Where `cargo` puts what it builds.
fn target() -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    named.unwrap_or_else(|| root().join("target"))
}

/// Builds the release binary, and says where it is.
pub fn release_binary() -> Result<PathBuf> {
    step(
        "build the release binary",
        &mut cargo(&["build", "--release", "-p", "tailwater"]),
    )?;
    Ok(binary())
}

/// Behaviour vectors and whole configurations.
pub fn conformance(vectors: Option<String>, configs: Option<String>) -> Result<()> {
    let mut c = cargo(&["run", "--quiet", "-p", "tailwater-tests"]);
    c.args(["--bin", "conformance", "--"]);
    for (flag, value) in [("--vectors", vectors), ("--configs", configs)] {
        if let Some(value) = value {
            let path = std::path::absolute(&value).with_context(|| value.clone())?;
            c.arg(flag).arg(path);
        }
    }
    step("conformance", &mut c)
}

/// Random kills of the release binary.
pub fn kill9(kills: u32, seed: u64) -> Result<()> {
    let bin = release_binary()?;
    let mut c = e2e("test");
    c.args(["--test", "faults", "--"]);
    c.args(["kills_at_any_moment", "--nocapture"]);
    c.env("TAILWATER_BIN", bin);
    c.env("TAILWATER_KILLS", kills.to_string())
        .env("TAILWATER_SEED", seed.to_string());
    step("random kills", &mut c)
}

/// Seeds of the simulation, or the story of one.
pub fn sim(seeds: u64, start: u64, threads: Option<u64>, trace: Option<u64>) -> Result<()> {
    let run = [
        "run",
        "--quiet",
        "--profile",
        "sim",
        "-p",
        "tailwater-sim",
        "--",
    ];
    let mut c = cargo(&run);
    match trace {
        Some(seed) => {
            c.arg("--trace").arg(seed.to_string());
        }
        None => {
            c.arg("--seeds").arg(seeds.to_string());
            c.arg("--start").arg(start.to_string());
        }
    }
    if let Some(threads) = threads {
        c.arg("--threads").arg(threads.to_string());
    }
    let status = c.status()?;
    if !status.success() {
        bail!("not every seed held ({status})");
    }
    Ok(())
}

/// Seeds of rollouts over a fleet: the test of the library, with other seeds.
pub fn rollouts(seeds: u64, start: u64, threads: Option<usize>) -> Result<()> {
    let threads = match threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let mut c = cargo(&["test", "--quiet", "--profile", "sim"]);
    c.args(["-p", "tailwater-control-plane", "--lib", "--"]);
    c.args(["rollouts_keep_their_promises", "--nocapture"]);
    c.env("ROLLOUT_SEEDS", format!("{start}..{}", start + seeds))
        .env("ROLLOUT_THREADS", threads.to_string());
    let status = c.status()?;
    if !status.success() {
        bail!("not every seed held ({status})");
    }
    Ok(())
}

/// The end-to-end benchmark; without arguments also what an agent costs that has little to do, and OTLP
/// in and out. `--cases otlp` is the last alone, with its own arguments behind it.
pub fn bench(args: &[String]) -> Result<()> {
    let bin = release_binary()?;
    if let Some(own) = args.strip_prefix(&["--cases".to_owned(), "otlp".to_owned()]) {
        return benchmark("otlp", &bin, own);
    }
    benchmark("e2e", &bin, args)?;
    if args.is_empty() {
        benchmark("idle", &bin, args)?;
        benchmark("otlp", &bin, args)?;
    }
    Ok(())
}

fn benchmark(name: &str, bin: &Path, args: &[String]) -> Result<()> {
    let mut c = cargo(&[
        "run",
        "--release",
        "--quiet",
        "-p",
        "tailwater-benches",
        "--bin",
        name,
        "--",
    ]);
    c.arg("--bin").arg(bin).args(args);
    let status = c.status()?;
    if !status.success() {
        bail!("the benchmark {name} failed ({status})");
    }
    Ok(())
}
