//! `cargo xtask faults`: runs the rows of the fault matrix and writes what they reached.
//!
//! The newest result of each row is kept in docs/faults/results.jsonl, in its cheap and its long
//! form, with its date, commit and machine; docs/FAULTS.md is made from that file alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::{root, step};
use crate::test::{e2e, release_binary};

/// The last row that the tests are to have; the one after it is the simulation.
const ROWS: u64 = 36;

/// What a result is known by: row, fault, long or not.
type Key = (u64, String, bool);

/// Runs the rows (all of them if none is named) and writes the table.
pub fn faults(long: bool, rows: &[u64], bin: Option<PathBuf>) -> Result<()> {
    // Of its own: a long run may go on beside others.
    let out = root().join(format!("target/faults-{}.jsonl", std::process::id()));
    let commit = commit()?;
    let given = bin.is_some();
    let bin = match bin {
        Some(bin) => std::path::absolute(bin)?,
        None => release_binary()?,
    };
    let mut tests = e2e("test");
    tests.args(["--test", "faults", "--", "--show-output"]);
    tests.args(rows.iter().map(|row| format!("row_{row:02}_")));
    tests.env("TAILWATER_BIN", &bin);
    tests.env("TAILWATER_FAULTS_OUT", &out);
    tests.env("TAILWATER_FAULTS_LONG", if long { "1" } else { "0" });
    let ran = step("the fault matrix", &mut tests);
    let kept = root().join("docs/faults/results.jsonl");
    let results = merge(&kept, &out, &commit, given)?;
    fs::create_dir_all(root().join("docs/faults"))?;
    let mut lines = String::new();
    for result in results.values() {
        writeln!(lines, "{result}")?;
    }
    fs::write(&kept, lines)?;
    if out.exists() {
        fs::remove_file(&out)?;
    }
    let soak = fs::read_to_string(root().join("docs/faults/soak.md")).unwrap_or_default();
    fs::write(root().join("docs/FAULTS.md"), document(&results, &soak)?)?;
    println!("wrote docs/FAULTS.md");
    ran
}

/// The results kept so far, with those of this run in the place of their like.
fn merge(kept: &Path, run: &Path, commit: &str, given: bool) -> Result<BTreeMap<Key, Value>> {
    let mut results = BTreeMap::new();
    for result in read(kept)? {
        results.insert(key(&result), result);
    }
    let (date, machine) = (date()?, machine());
    for mut result in read(run)? {
        result["date"] = date.clone().into();
        result["commit"] = commit.into();
        result["machine"] = machine.clone().into();
        let binary = if given { "as given" } else { "release" };
        result["binary"] = binary.into();
        results.insert(key(&result), result);
    }
    Ok(results)
}

fn read(path: &Path) -> Result<Vec<Value>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let lines = fs::read_to_string(path)?;
    let parse = |line| serde_json::from_str(line).with_context(|| path.display().to_string());
    lines.lines().map(parse).collect()
}

fn key(result: &Value) -> Key {
    let fault = text(result, "fault");
    let row = result["row"].as_u64().unwrap_or_default();
    (row, fault, result["long"] == true)
}

fn text(result: &Value, field: &str) -> String {
    result[field].as_str().unwrap_or_default().to_owned()
}

fn date() -> Result<String> {
    said("date", &["-u", "+%Y-%m-%d"])
}

/// The commit that was tested, and whether there were changes beside it.
pub fn commit() -> Result<String> {
    let head = said("git", &["rev-parse", "--short=9", "HEAD"])?;
    let changes = said("git", &["status", "--porcelain", "--untracked-files=no"])?;
    Ok(match changes.is_empty() {
        true => head,
        false => format!("{head} with changes"),
    })
}

fn said(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .current_dir(root())
        .output();
    let output = output.with_context(|| program.to_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel: Vec<&str> = kernel.trim().splitn(3, '.').take(2).collect();
    format!("{cores} cores of {model}, Linux {}", kernel.join("."))
}

/// The whole document.
fn document(results: &BTreeMap<Key, Value>, soak: &str) -> Result<String> {
    let mut out = String::from(
        "# Faults\n\n\
         What users meet, done on purpose to the release binary. Written by `cargo xtask faults` from its runs; do not\n\
         edit. A row is held if each of its bounds was met. That nothing is lost, shown twice or wrongly accounted for is\n\
         asserted by each test of it (`tests/faults`); times and rates are told, and depend on the machine and on what else\n\
         it did. Lines marked long are of `cargo xtask faults --long`.\n\n",
    );
    let mut runs: Vec<String> = results.values().map(run_of).collect();
    runs.sort();
    runs.dedup();
    out += "| row | fault | how it is shown | bound | reached | held | run |\n|---|---|---|---|---|---|---|\n";
    for row in 1..=ROWS {
        let mut has = false;
        for ((_, fault, long), result) in results.range((row, String::new(), false)..) {
            if result["row"].as_u64() != Some(row) {
                break;
            }
            has = true;
            let run = runs
                .iter()
                .position(|r| *r == run_of(result))
                .unwrap_or_default()
                + 1;
            let cell = |field: &str| text(result, field).replace('|', "\\|");
            let seconds = result["seconds"].as_f64().unwrap_or_default();
            let why = cell("why");
            let held = match text(result, "held").as_str() {
                "true" if why.is_empty() => "yes".to_owned(),
                "true" => format!("yes ({why})"),
                "false" => format!("**no**: {why}"),
                other => format!("{other}: {why}"),
            };
            let long = if *long { " (long)" } else { "" };
            writeln!(
                out,
                "| {row} | {fault}{long} | {} | {} | {} | {held} | [{run}], {seconds:.0} s |",
                cell("how"),
                cell("pass"),
                cell("reached"),
            )?;
        }
        if !has {
            writeln!(out, "| {row} | | | | | no result recorded | |")?;
        }
    }
    out += "\nRow 37, everything at once and at random, is the simulation: see [TESTING.md](TESTING.md).\n\n## Runs\n\n\
             A release binary is a fresh build; one as given was named by `--bin`, and may be built without link-time optimisation.\n\n";
    for (i, run) in runs.iter().enumerate() {
        writeln!(out, "- [{}] {run}", i + 1)?;
    }
    if !soak.is_empty() {
        write!(out, "\n{soak}")?;
    }
    Ok(out)
}

fn run_of(result: &Value) -> String {
    format!(
        "{}, commit {}, {} binary, {}",
        text(result, "date"),
        text(result, "commit"),
        text(result, "binary"),
        text(result, "machine")
    )
}
