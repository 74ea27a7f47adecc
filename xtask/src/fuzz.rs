//! `cargo xtask fuzz`: looks for inputs that break what `fuzz/` demands.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::run::{root, step};

/// What it takes besides the ordinary toolchain.
const NEEDED: &str = "fuzzing needs a nightly toolchain, cargo-fuzz and a C++ compiler: \
                      rustup toolchain install nightly && cargo install cargo-fuzz";

/// Inputs that take longer than this, in seconds, or more memory than this, in MiB, are finds.
const LIMITS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=1024"];

/// Longest inputs: a few reads, and more where a limit is to be passed (Docker cuts at 16 KiB).
fn longest(target: &str) -> &'static str {
    match target {
        "docker_lines" => "-max_len=65536",
        _ => "-max_len=16384",
    }
}

/// Runs each target (all of them if none is named) for so many minutes. New inputs go to
/// `fuzz/target/corpus`, those that break something to `fuzz/artifacts`.
pub fn fuzz(minutes: u32, targets: &[String]) -> Result<()> {
    let works = |args: &[&str]| {
        let mut c = Command::new("rustup");
        c.args(["run", "nightly", "cargo"]).args(args);
        let status = c.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|s| s.success())
    };
    if !works(&["fuzz", "--version"]) {
        bail!("{NEEDED}");
    }
    let all = all_targets()?;
    if let Some(unknown) = targets.iter().find(|t| !all.contains(t)) {
        bail!("there is no target {unknown}; there are {}", all.join(", "));
    }
    let wanted = if targets.is_empty() { &all } else { targets };
    let seconds = format!("-max_total_time={}", u64::from(minutes) * 60);
    for target in wanted {
        let found = format!("fuzz/target/corpus/{target}");
        fs::create_dir_all(root().join(&found)).with_context(|| found.clone())?;
        let mut c = Command::new("rustup");
        c.args(["run", "nightly", "cargo", "fuzz", "run", target, &found])
            .arg(format!("fuzz/corpus/{target}"))
            .args(["--", &seconds, longest(target)])
            .args(LIMITS)
            .current_dir(root());
        step(&format!("fuzz {target}"), &mut c)?;
    }
    Ok(())
}

/// The names of the targets, in order.
fn all_targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}
