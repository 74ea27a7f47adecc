//! `convert`: configurations of other agents, written anew.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tailwater_convert::{Converted, Weight, fluent_bit, promtail};

use crate::cli::{ConvertArgs, ConvertFrom, exit};

/// Largest file that is read.
const BYTES_MAX: u64 = 1 << 20;

/// `tailwater convert`.
pub fn convert(args: &ConvertArgs) -> Result<u8> {
    let name = args.file.display().to_string();
    let text = match name.as_str() {
        "-" => read(std::io::stdin().lock())?,
        _ => read_file(&args.file)?,
    };
    let dir = args.file.parent().map(Path::to_owned).unwrap_or_default();
    let converted = match args.from {
        ConvertFrom::Promtail => promtail(&text, &name),
        ConvertFrom::FluentBit => fluent_bit(&text, &name, &|file| include(&dir, file)),
    };
    let converted = converted.map_err(anyhow::Error::msg)?;
    match &args.output {
        None => std::io::stdout().write_all(converted.yaml.as_bytes())?,
        Some(path) => {
            let file = OpenOptions::new().write(true).create_new(true).open(path);
            let mut file = file.with_context(|| format!("cannot make {}", path.display()))?;
            file.write_all(converted.yaml.as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    summary(&converted);
    Ok(exit::OK)
}

/// Says on standard error what is not as it was.
fn summary(converted: &Converted) {
    for weight in [Weight::NoEqual, Weight::Decide, Weight::NotNeeded] {
        let of = || converted.notes.iter().filter(|n| n.weight == weight);
        for note in of() {
            eprintln!("{note}");
        }
    }
    let count = |weight| {
        converted
            .notes
            .iter()
            .filter(|n| n.weight == weight)
            .count()
    };
    eprintln!(
        "{} without an equal, {} to decide, {} not needed",
        count(Weight::NoEqual),
        count(Weight::Decide),
        count(Weight::NotNeeded)
    );
}

fn read(from: impl Read) -> Result<String> {
    let mut text = String::new();
    let bytes = from.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    anyhow::ensure!(
        bytes as u64 <= BYTES_MAX,
        "more than {BYTES_MAX} bytes are no configuration"
    );
    Ok(text)
}

fn read_file(path: &Path) -> Result<String> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    read(file).with_context(|| format!("cannot read {}", path.display()))
}

/// What a configuration includes: a path below its directory, a pattern or not.
fn include(dir: &Path, name: &str) -> Result<String, String> {
    let path = dir.join(name);
    if !name.contains('*') {
        return read_file(&path).map_err(|e| format!("{e:#}"));
    }
    let mut text = String::new();
    for path in matching(&path)? {
        text.push_str(&read_file(&path).map_err(|e| format!("{e:#}"))?);
        text.push('\n');
    }
    Ok(text)
}

/// The files in a directory whose names match the last part of a pattern.
fn matching(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let (dir, name) = (pattern.parent(), pattern.file_name());
    let (Some(dir), Some(name)) = (dir, name.and_then(|n| n.to_str())) else {
        return Err(format!("{} is no pattern", pattern.display()));
    };
    let glob = globset::Glob::new(name).map_err(|e| e.to_string())?;
    let glob = glob.compile_matcher();
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|n| glob.is_match(n)))
        .collect();
    found.sort();
    match found.is_empty() {
        true => Err(format!("no file matches {}", pattern.display())),
        false => Ok(found),
    }
}
