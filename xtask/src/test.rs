//! `cargo xtask test` and the longer proofs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::check;
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
/// with other features.
const SELECTED: [&str; 1] = ["--workspace"];

/// The release binary.
const RELEASE: [&str; 6] = [
    "build",
    "--release",
    "--locked",
    "--quiet",
    "-p",
    "tailwater",
];

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
    component("rustfmt", "fmt", &["fmt", "--all", "--check"], &mut skipped)?;
    println!("== xtask check");
    check::check()?;
    advisories(&mut skipped)?;
    // No test until the end-to-end tests minds a clock, so what is optimised is built beside all else.
    let release_build = match quick {
        true => None,
        false => Some(Background::start(
            "build the release binary",
            &mut cargo(&RELEASE),
        )?),
    };
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    component("clippy", "clippy", &clippy, &mut skipped)?;
    step(
        "unit, property and golden tests, simulation",
        cargo(&["test", "--locked"]).args(SELECTED),
    )?;
    match release_build {
        None => skipped.add("end-to-end tests on the release binary", "--quick"),
        Some(building) => {
            let mut build = e2e("test");
            build.args(["--locked", "--no-run", "--test", "e2e", "--test", "faults"]);
            step("build the end-to-end tests", &mut build)?;
            building.wait()?;
            release(&mut skipped)?;
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
fn release(skipped: &mut Skipped) -> Result<()> {
    let threads = 2 * std::thread::available_parallelism().map_or(2, usize::from);
    let mut e2e = e2e("test");
    e2e.args(["--locked", "--test", "e2e", "--test", "faults"]);
    // Without it nobody sees what a test says that passes because it could not run.
    e2e.args(["--", "--show-output"]);
    // They wait for processes more than they compute.
    e2e.args(["--test-threads", &threads.to_string()]);
    // Without it the test that needs it says so.
    for pip in [SDK, SCHEMATHESIS, OPAMP] {
        if let Some(python) = python_with(&pip) {
            e2e.env(pip.variable, python);
        }
    }
    if let Some(modules) = sdk_node() {
        e2e.env("TAILWATER_OTLP_NODE_MODULES", modules);
    }
    browser();
    engine();
    if let Some(axe) = axe() {
        e2e.env("TAILWATER_AXE", axe);
    }
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

/// Tries to have the browser that the status page is tested in, from the distribution. Without it the tests say so.
fn browser() {
    let named = std::env::var_os("TAILWATER_CHROMIUM").is_some();
    let there = |name: &&str| quiet(Command::new(name).arg("--version"));
    if named
        || ["chromium", "chromium-browser", "google-chrome"]
            .iter()
            .any(there)
    {
        return;
    }
    install("chromium");
}

/// Tries to have the Docker Engine whose containers `up` is tested with, from the distribution. Without it the tests say
/// so. They run one of their own.
fn engine() {
    let named = std::env::var_os("TAILWATER_DOCKERD").is_some();
    let there = |name: &str| quiet(Command::new(name).arg("--version"));
    if !(named || there("dockerd") && there("docker")) {
        install("docker.io");
    }
}

/// Tries to install a package of the distribution.
fn install(package: &str) {
    println!("-- {package} is missing, trying to install it");
    let apt = |args: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(["--yes", "--quiet", "-o", "Acquire::http::Timeout=15"]);
        apt.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        quiet(apt.stdin(Stdio::null()))
    };
    let install = ["install", "--no-install-recommends", package];
    // In a fresh container there are no lists of packages yet.
    let _ = apt(&install) || (apt(&["update"]) && apt(&install));
}

/// The rules of accessibility that the status page is held against: the file that `TAILWATER_AXE` names, or that of
/// the package axe-core below `target`, which is fetched once where that is possible.
fn axe() -> Option<PathBuf> {
    if let Some(own) = std::env::var_os("TAILWATER_AXE") {
        return Some(own.into());
    }
    let dir = root().join("target/axe");
    let file = dir.join("node_modules/axe-core/axe.min.js");
    if !file.is_file() && quiet(Command::new("npm").arg("--version")) {
        println!("-- axe-core is missing, trying to install it");
        if std::fs::create_dir_all(&dir).is_ok() {
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--fetch-retries=1"]);
            quiet(npm.arg("--prefix").arg(&dir).arg("axe-core@4"));
        }
    }
    file.is_file().then_some(file)
}

/// What comes from `pip`.
struct Pip {
    /// What it is, for people.
    what: &'static str,
    /// Names a Python that has it.
    variable: &'static str,
    /// Where one is made below `target`.
    dir: &'static str,
    packages: &'static [&'static str],
    /// Succeeds where it is.
    import: &'static str,
}

/// A sender that is not ours.
const SDK: Pip = Pip {
    what: "the OpenTelemetry SDK for Python",
    variable: "TAILWATER_OTLP_PYTHON",
    dir: "otlp-sdk",
    packages: &[
        "opentelemetry-sdk",
        "opentelemetry-exporter-otlp-proto-grpc",
        "opentelemetry-exporter-otlp-proto-http",
    ],
    import: "import grpc, opentelemetry.sdk, opentelemetry.exporter.otlp.proto.http",
};

/// What holds the description of the admin API against the agent.
const SCHEMATHESIS: Pip = Pip {
    what: "schemathesis",
    variable: "TAILWATER_SCHEMATHESIS_PYTHON",
    dir: "schemathesis",
    packages: &["schemathesis==4.32.5"],
    import: "import importlib.metadata as m; assert m.version('schemathesis') == '4.32.5'",
};

/// Messages of OpAMP that are not ours.
const OPAMP: Pip = Pip {
    what: "the OpAMP client of OpenTelemetry for Python",
    variable: "TAILWATER_OPAMP_PYTHON",
    dir: "opamp-python",
    packages: &["opentelemetry-opamp-client"],
    import: "from opentelemetry._opamp.proto import opamp_pb2",
};

/// A Python that has it: the one that its variable names, or one below `target` that is made once where
/// that is possible.
fn python_with(pip: &Pip) -> Option<PathBuf> {
    if let Some(own) = std::env::var_os(pip.variable) {
        return Some(own.into());
    }
    let dir = root().join("target").join(pip.dir);
    let python = dir.join("bin/python");
    let works = || quiet(Command::new(&python).args(["-c", pip.import]));
    if !works() {
        println!("-- {} is missing, trying to install it", pip.what);
        let made = quiet(Command::new("python3").args(["-m", "venv"]).arg(&dir));
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--timeout", "15", "--retries", "1"]);
        if made {
            quiet(install.args(pip.packages));
        }
    }
    works().then_some(python)
}

/// What the SDK for Node.js consists of, for `npm`.
const SDK_NODE: [&str; 13] = [
    "@opentelemetry/resources@2",
    "@opentelemetry/sdk-trace-base@2",
    "@opentelemetry/sdk-metrics@2",
    "@opentelemetry/sdk-logs@0.223",
    "@opentelemetry/exporter-logs-otlp-grpc@0.223",
    "@opentelemetry/exporter-logs-otlp-http@0.223",
    "@opentelemetry/exporter-logs-otlp-proto@0.223",
    "@opentelemetry/exporter-metrics-otlp-grpc@0.223",
    "@opentelemetry/exporter-metrics-otlp-http@0.223",
    "@opentelemetry/exporter-metrics-otlp-proto@0.223",
    "@opentelemetry/exporter-trace-otlp-grpc@0.223",
    "@opentelemetry/exporter-trace-otlp-http@0.223",
    "@opentelemetry/exporter-trace-otlp-proto@0.223",
];

/// A `node_modules` with the OpenTelemetry SDK for Node.js: the one that `TAILWATER_OTLP_NODE_MODULES`
/// names, or one below `target` that is made once where that is possible.
fn sdk_node() -> Option<PathBuf> {
    if let Some(own) = std::env::var_os("TAILWATER_OTLP_NODE_MODULES") {
        return Some(own.into());
    }
    let dir = root().join("target/otlp-sdk-node");
    let modules = dir.join("node_modules");
    let works = || {
        let import = "require('@opentelemetry/sdk-logs');\
                      require('@opentelemetry/exporter-trace-otlp-grpc');\
                      require('@opentelemetry/exporter-metrics-otlp-proto')";
        quiet(
            Command::new("node")
                .args(["-e", import])
                .env("NODE_PATH", &modules),
        )
    };
    if !works() && quiet(Command::new("npm").arg("--version")) {
        println!("-- the OpenTelemetry SDK for Node.js is missing, trying to install it");
        if std::fs::create_dir_all(&dir).is_ok() {
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--fetch-retries=1"]);
            quiet(npm.arg("--prefix").arg(&dir).args(SDK_NODE));
        }
    }
    works().then_some(modules)
}

/// Whether a command succeeds; what it says is not shown.
fn quiet(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|s| s.success())
}

/// Known faults of what we depend on. Neither the tool nor its database, a git repository, is part
/// of the toolchain, and building the tool takes minutes; where both are there they are used.
fn advisories(skipped: &mut Skipped) -> Result<()> {
    let what = "known faults of dependencies";
    let quiet = |args: &[&str]| {
        let status = cargo(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|s| s.success())
    };
    if !quiet(&["deny", "--version"]) {
        skipped.add(
            what,
            "cargo-deny is not installed (cargo install --locked cargo-deny)",
        );
        return Ok(());
    }
    if !quiet(&["deny", "fetch", "db"]) {
        skipped.add(what, "cargo-deny cannot fetch its database");
        return Ok(());
    }
    let check = ["deny", "check", "--disable-fetch", "advisories"];
    step(what, &mut cargo(&check))
}

/// Runs a cargo component, installing it when rustup may.
fn component(name: &str, probe: &str, args: &[&str], skipped: &mut Skipped) -> Result<()> {
    let works = || {
        let quiet = cargo(&[probe, "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        quiet.is_ok_and(|s| s.success())
    };
    if !works() {
        println!("-- {name} is missing, trying to install it");
        let _ = Command::new("rustup")
            .args(["component", "add", name])
            .status();
    }
    if !works() {
        skipped.add(name, "not installed and rustup could not add it");
        return Ok(());
    }
    step(&format!("cargo {}", args[0]), &mut cargo(args))
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
