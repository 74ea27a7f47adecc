//! `conformance [--vectors DIR] [--configs DIR]`: runs behaviour vectors and whole configurations.
//!
//! A vector is one JSON file that restates the facts of one case: settings, input, expected
//! values (its `README.md` explains the fields). Each is run with the real crates, or with the
//! release binary where a whole receiver is needed. A row per case is printed, then the sums; the
//! exit code is 1 if a case failed. What needs a part that this build does not have is `not run`
//! and names it.
//!
//! Without the options, `../shared/data` beside the workspace is used if it exists, and else the
//! vectors kept in the crates.

mod case;
mod confmap;
mod filelog;
mod files;
mod kubernetes;
mod loki;
mod names;
mod operators;
mod processors;
mod records;
mod whole;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use case::{Case, Tally, Verdict, guarded};

const USAGE: &str = "usage: conformance [--vectors DIR] [--configs DIR]";

fn main() -> ExitCode {
    let (vectors, configs) = match arguments(std::env::args().skip(1)) {
        Ok(folders) => folders,
        Err(message) => {
            eprintln!("error: {message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut tally = Tally::default();
    for folder in &vectors {
        for case in case::load(folder) {
            match case {
                Ok(case) => tally.add(&case.id, &guarded(|| run(&case))),
                Err((path, why)) => tally.add(&path, &Verdict::Failed(why)),
            }
        }
    }
    for folder in configs.iter().filter(|folder| folder.is_dir()) {
        whole::run(folder, &mut tally);
    }
    println!("{tally}");
    if tally.is_empty() {
        eprintln!("error: nothing was found to run");
        return ExitCode::FAILURE;
    }
    if tally.has_failures() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Runs a case by its kind.
fn run(case: &Case) -> Verdict {
    match case.kind.as_str() {
        "operators" => operators::run(case),
        "confmap" => confmap::run(case),
        "processor" => processors::run(case),
        "batch" => processors::run_batch(case),
        "loki" => loki::run(case),
        "loki_line" => loki::run_line(case),
        "split" => files::run_split(case),
        "match" => files::run_match(case),
        "filelog" | "rotation" => filelog::run(case),
        "prom_name" => names::run(case),
        "k8s_attributes" => kubernetes::run(case),
        kind => Verdict::NotRun(format!("needs {}", part_for(kind))),
    }
}

/// The part a kind of case is about, for kinds that no part of this build answers to.
fn part_for(kind: &str) -> String {
    let part = match kind {
        "grouping" => "automatic detection of stack traces",
        "batch_split" => "batches of metrics and traces",
        _ => return format!("a runner for the kind {kind:?}"),
    };
    part.to_owned()
}

type Folders = (Vec<PathBuf>, Vec<PathBuf>);

fn arguments(mut args: impl Iterator<Item = String>) -> Result<Folders, String> {
    let (mut vectors, mut configs) = (None, None);
    while let Some(arg) = args.next() {
        let slot = match arg.as_str() {
            "--vectors" => &mut vectors,
            "--configs" => &mut configs,
            _ => return Err(format!("unknown argument {arg:?}")),
        };
        let folder = PathBuf::from(args.next().ok_or(format!("{arg} needs a folder"))?);
        if !folder.is_dir() {
            return Err(format!("{} is not a folder", folder.display()));
        }
        *slot = Some(folder);
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let shared = workspace.join("../shared/data");
    let kept = ["config", "receivers", "processors", "exporters"];
    let vectors = match vectors {
        Some(folder) => vec![folder],
        None if shared.join("vectors").is_dir() => vec![shared.join("vectors")],
        None => kept
            .iter()
            .map(|c| workspace.join(c).join("tests/vectors"))
            .collect(),
    };
    Ok((vectors, vec![configs.unwrap_or(shared.join("configs"))]))
}
