//! `cargo xtask check`: rules that the compiler does not know.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::reference;
use crate::run::root;
use crate::supply;

/// Which of our crates a crate may depend on (development dependencies excepted). Whatever is not
/// listed here must not exist. Mirrors the picture in docs/ARCHITECTURE.md.
const ALLOWED: &[(&str, &[&str])] = &[
    ("pdata", &[]),
    ("golang", &["pdata"]),
    ("ottl", &["pdata", "golang", "config"]),
    ("config", &[]),
    ("telemetry", &["config"]),
    ("pipeline", &["pdata", "config", "telemetry"]),
    (
        "receivers",
        &["pdata", "golang", "config", "telemetry", "pipeline"],
    ),
    (
        "processors",
        &[
            "pdata",
            "golang",
            "ottl",
            "config",
            "telemetry",
            "pipeline",
            "kubernetes",
        ],
    ),
    ("exporters", &["pdata", "config", "telemetry", "pipeline"]),
    (
        "connectors",
        &["pdata", "ottl", "config", "telemetry", "pipeline"],
    ),
    ("convert", &["config"]),
    ("kubernetes", &["config"]),
    ("opamp", &[]),
    ("control-plane", &["config", "telemetry", "kubernetes"]),
    (
        "control-plane/server",
        &["config", "telemetry", "opamp", "control-plane"],
    ),
    ("testkit", &[]),
    (
        "agent",
        &[
            "pdata",
            "ottl",
            "config",
            "telemetry",
            "pipeline",
            "receivers",
            "processors",
            "exporters",
            "connectors",
            "convert",
            "opamp",
            "control-plane",
            "testkit",
        ],
    ),
];

/// Words that must not appear in a text file of the repository.
const FORBIDDEN: &[(&str, &str)] = &[
    ("/work/", "a path of one machine"),
    ("/root/", "a path of one machine"),
    ("todo!(", "a stub"),
    ("unimplemented!(", "a stub"),
    ("#[ignore", "a test that does not run"),
];

const LINES_MAX: usize = 800;

/// Runs every rule and reports all violations.
pub fn check() -> Result<()> {
    let mut found = Vec::new();
    dependencies(&mut found)?;
    documented_paths(&mut found)?;
    texts(&mut found)?;
    changelog(&mut found)?;
    supply::check(&mut found)?;
    let reference = reference::check(&mut found)?;
    for line in &found {
        println!("{line}");
    }
    if !found.is_empty() {
        bail!("{} violations", found.len());
    }
    println!(
        "check: dependency direction, documented paths, texts, licences and sources are in order"
    );
    println!("check: {reference}");
    Ok(())
}

fn dependencies(found: &mut Vec<String>) -> Result<()> {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    for (name, may) in &allowed {
        let path = root().join(name).join("Cargo.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let normal = text.split("[dev-dependencies]").next().unwrap_or_default();
        for line in normal.lines().filter_map(|l| l.strip_prefix("tailwater-")) {
            let on: String = line
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '-')
                .collect();
            if !may.contains(&on.as_str()) {
                found.push(format!("{name}/Cargo.toml: must not depend on {on}"));
            }
        }
    }
    Ok(())
}

/// Every path that docs/ARCHITECTURE.md names in backticks exists.
fn documented_paths(found: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md"))?;
    for (i, line) in text.lines().enumerate() {
        for name in line.split('`').skip(1).step_by(2) {
            let is_path = name.contains('/')
                && !name.starts_with('/')
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
            if is_path && !root().join(name).exists() {
                found.push(format!(
                    "docs/ARCHITECTURE.md:{}: {name} does not exist",
                    i + 1
                ));
            }
        }
    }
    Ok(())
}

fn texts(found: &mut Vec<String>) -> Result<()> {
    let mut files = Vec::new();
    walk(&root(), &mut files)?;
    for path in files {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let name = path
            .strip_prefix(root())
            .unwrap_or(&path)
            .display()
            .to_string();
        if name == "xtask/src/check.rs" {
            continue;
        }
        let is_rust = name.ends_with(".rs");
        if is_rust && text.lines().count() > LINES_MAX {
            found.push(format!("{name}: more than {LINES_MAX} lines"));
        }
        for (i, line) in text.lines().enumerate() {
            for (word, why) in FORBIDDEN {
                if line.contains(word) {
                    found.push(format!("{name}:{}: {word} ({why})", i + 1));
                }
            }
        }
    }
    Ok(())
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            if !matches!(name, "target" | ".git" | "golden" | "vectors" | "corpus") {
                walk(&path, files)?;
            }
        } else if ["rs", "md", "toml", "yaml", "yml", "sh"]
            .iter()
            .any(|e| name.ends_with(e))
        {
            files.push(path);
        }
    }
    Ok(())
}

fn changelog(found: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(root().join("CHANGELOG.md"))?;
    if !text.contains("## [Unreleased]") {
        found.push("CHANGELOG.md: no section [Unreleased]".into());
    }
    Ok(())
}
