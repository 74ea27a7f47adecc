//! What is written from the code of the agent: the pages of `docs/components`, the schema of `docs/schema`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::run::{cargo, root, step};

const SCHEMA: &str = "docs/schema/tailwater.schema.json";
/// The test of the agent that compares all files, and writes them when it is told to.
const TEST: &str = "reference::tests::written_files_are_those_of_the_code";

/// Writes all of it.
pub fn write() -> Result<()> {
    let mut test = cargo(&["test", "--quiet", "--workspace", "--bin", "tailwater"]);
    test.args(["--", "--exact", TEST]);
    step(
        "write docs/components and docs/schema",
        test.env("TAILWATER_WRITE_DOCS", "1"),
    )
}

/// Compares the schema, in which all options are, with what a binary says that is newer than every source. Without
/// one nothing is compared here, as nothing is built here: the test does it. Gives what was done.
pub fn check(found: &mut Vec<String>) -> Result<String> {
    let Some(binary) = fresh_binary()? else {
        return Ok(format!(
            "{SCHEMA} and docs/components are compared by the tests of the agent: no binary here is newer than the sources"
        ));
    };
    let out = Command::new(&binary)
        .args(["components", "--json-schema"])
        .output()
        .with_context(|| binary.display().to_string())?;
    if !out.status.success() {
        bail!(
            "{} components --json-schema: {}",
            binary.display(),
            out.status
        );
    }
    if fs::read(root().join(SCHEMA)).ok() != Some(out.stdout) {
        found.push(format!(
            "{SCHEMA}: not what the code says; run `cargo xtask docs`"
        ));
    }
    Ok(format!("{SCHEMA} is what {} says", binary.display()))
}

/// A binary of the agent that was built after the last change of a source.
fn fresh_binary() -> Result<Option<PathBuf>> {
    let built =
        ["debug", "release"].map(|profile| root().join("target").join(profile).join("tailwater"));
    let mut changed = SystemTime::UNIX_EPOCH;
    newest(&root(), &mut changed)?;
    let is_fresh = |path: &PathBuf| {
        let time = fs::metadata(path).and_then(|m| m.modified());
        time.is_ok_and(|time| time > changed)
    };
    Ok(built.into_iter().find(is_fresh))
}

/// The time of the last change of what the agent is built from.
fn newest(folder: &Path, changed: &mut SystemTime) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let is_other = [
            "target", ".git", "tests", "xtask", "docs", "benches", "fuzz",
        ];
        if entry.file_type()?.is_dir() {
            if !is_other.iter().any(|other| name == *other) {
                newest(&path, changed)?;
            }
            continue;
        }
        let is_source = path
            .extension()
            .is_some_and(|e| e == "rs" || e == "toml" || e == "yaml");
        if is_source {
            *changed = (*changed).max(entry.metadata()?.modified()?);
        }
    }
    Ok(())
}
