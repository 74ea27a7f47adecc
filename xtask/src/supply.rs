//! What the workspace is built from: licences, sources and versions of every dependency on Linux,
//! by the rules in `deny.toml`.
//!
//! The rules are those of cargo-deny, and it reads the same file. They are checked here as well
//! because building it takes longer than all other checks together. Licence expressions are those
//! of SPDX 2.3, annex D.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{cargo, root};

/// Where the agent runs.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// Where crates may come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The parts of `deny.toml` that are checked here.
#[derive(Debug, Default, PartialEq)]
struct Rules {
    /// `licenses.allow`.
    licences: Vec<String>,
    /// `bans.skip`: `name@version` of crates that may be there besides another version.
    skip: Vec<String>,
}

impl Rules {
    /// Reads the two lists: one value per line, as the file is written.
    fn read(text: &str) -> Rules {
        let mut rules = Rules::default();
        let mut list = None;
        for line in text.lines().map(str::trim) {
            let value = line.split('"').nth(1).map(str::to_owned);
            match line {
                "allow = [" => list = Some(&mut rules.licences),
                "skip = [" => list = Some(&mut rules.skip),
                "]" => list = None,
                _ => {
                    if let (Some(list), Some(value)) = (&mut list, value) {
                        list.push(value);
                    }
                }
            }
        }
        rules
    }
}

/// Adds what is against the rules.
pub fn check(found: &mut Vec<String>) -> Result<()> {
    let rules = Rules::read(&fs::read_to_string(root().join("deny.toml"))?);
    if rules.licences.is_empty() {
        bail!("deny.toml: no list of licences that could be read");
    }
    let args = [
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--all-features",
    ];
    let output = cargo(&args)
        .args(["--filter-platform", PLATFORM])
        .output()?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let metadata = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    found.extend(problems(&metadata, &rules));
    Ok(())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

/// What is against the rules in the output of `cargo metadata`.
fn problems(metadata: &Value, rules: &Rules) -> Vec<String> {
    let mut found = Vec::new();
    // Crates of other platforms are listed, but not resolved.
    let used: BTreeSet<&str> = list(&metadata["resolve"], "nodes")
        .map(|n| text(n, "id"))
        .collect();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in list(metadata, "packages").filter(|p| used.contains(text(p, "id"))) {
        let (name, version) = (text(package, "name"), text(package, "version"));
        versions.entry(name).or_default().push(version);
        let licence = text(package, "license");
        if !is_allowed(licence, &rules.licences) {
            found.push(format!(
                "{name} {version}: its licence {licence:?} is not in deny.toml"
            ));
        }
        match package["source"].as_str() {
            None => found.extend(wildcards(package)),
            Some(REGISTRY) => {}
            Some(other) => found.push(format!("{name} {version}: comes from {other}")),
        }
    }
    let mut skipped = BTreeSet::new();
    for (name, mut versions) in versions {
        versions.retain(|version| {
            let skip = rules.skip.iter().find(|s| fits(s, name, version));
            skipped.extend(skip);
            skip.is_none()
        });
        if versions.len() > 1 {
            let versions = versions.join(" and ");
            found.push(format!(
                "{name}: versions {versions}; deny.toml names no reason"
            ));
        }
    }
    for skip in rules.skip.iter().filter(|s| !skipped.contains(s)) {
        found.push(format!("deny.toml: {skip} is not there any more"));
    }
    found
}

/// Dependencies of one of our crates that take any version.
fn wildcards(package: &Value) -> Vec<String> {
    let any = |d: &&Value| text(d, "req") == "*" && d["path"].is_null();
    let say = |d: &Value| {
        format!(
            "{}: any version of {}",
            text(package, "name"),
            text(d, "name")
        )
    };
    list(package, "dependencies").filter(any).map(say).collect()
}

/// Whether `skip` is `name@version`, with as much of the version as it gives.
fn fits(skip: &str, name: &str, version: &str) -> bool {
    let Some((skipped, wanted)) = skip.split_once('@') else {
        return skip == name;
    };
    skipped == name
        && version
            .strip_prefix(wanted)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether an expression can be met with the licences `allowed`. `/` is an old spelling of OR.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    either(&words, &mut at, allowed) && at == words.len()
}

fn either(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut met = both(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= both(words, at, allowed);
    }
    met
}

fn both(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut met = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, allowed);
    }
    met
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let Some(&word) = words.get(*at) else {
        return false;
    };
    *at += 1;
    if word == "(" {
        let met = either(words, at, allowed);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return met && closed;
    }
    let mut licence = word.to_owned();
    if let (Some(&"WITH"), Some(exception)) = (words.get(*at), words.get(*at + 1)) {
        licence = format!("{word} WITH {exception}");
        *at += 2;
    }
    allowed.contains(&licence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn licence_expressions_are_met_or_not() {
        let allowed = ["MIT", "ISC", "Apache-2.0", "BSD-3-Clause"].map(str::to_owned);
        for (expression, want) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("", false),
            ("MIT OR GPL-3.0", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND GPL-3.0", false),
            ("MIT AND ISC", true),
            ("(GPL-3.0 OR MIT) AND BSD-3-Clause", true),
            ("(GPL-3.0 OR MIT) AND LGPL-2.1", false),
            ("GPL-3.0 OR MIT AND LGPL-2.1", false),
            ("Apache-2.0 WITH LLVM-exception", false),
            ("Apache-2.0 WITH LLVM-exception OR MIT", true),
            ("(MIT", false),
            ("MIT)", false),
            ("MIT ISC", false),
        ] {
            assert_eq!(is_allowed(expression, &allowed), want, "{expression}");
        }
    }

    #[test]
    fn the_rules_are_read_as_the_file_is_written() {
        let text = "[licenses]\nallow = [\n  \"MIT\",\n  \"ISC\",\n]\n[bans]\nskip = [\n  \
                    { crate = \"syn@2\", reason = \"why\" },\n]\nunknown = \"deny\"\n";
        let want = Rules {
            licences: vec!["MIT".into(), "ISC".into()],
            skip: vec!["syn@2".into()],
        };
        assert_eq!(Rules::read(text), want);
    }

    #[test]
    fn whatever_is_against_the_rules_is_found() {
        let package = |name: &str, version: &str, licence: &str, source: &str| {
            json!({"id": format!("{name}{version}"), "name": name, "version": version,
                "license": licence, "source": source, "dependencies": []})
        };
        let packages = [
            package("good", "1.0.0", "MIT", REGISTRY),
            package("viral", "1.0.0", "GPL-3.0", REGISTRY),
            package("forked", "1.0.0", "MIT", "git+https://example.com/forked"),
            package("twice", "1.0.0", "MIT", REGISTRY),
            package("twice", "2.0.0", "MIT", REGISTRY),
            package("known", "0.2.9", "MIT", REGISTRY),
            package("known", "0.4.0", "MIT", REGISTRY),
            package("windows", "1.0.0", "GPL-3.0", REGISTRY),
            json!({"id": "own", "name": "own", "version": "0.1.0", "license": "MIT", "source": null,
            "dependencies": [
                {"name": "loose", "req": "*"}, {"name": "sibling", "req": "*", "path": "/x"},
            ]}),
        ];
        let nodes: Vec<Value> = packages
            .iter()
            .filter(|p| p["name"] != "windows")
            .map(|p| json!({"id": p["id"]}))
            .collect();
        let metadata = json!({"packages": packages, "resolve": {"nodes": nodes}});
        let rules = Rules {
            licences: vec!["MIT".into()],
            skip: vec!["known@0.2".into(), "gone@1".into()],
        };
        let found = problems(&metadata, &rules);
        let about = ["viral", "forked", "own", "twice", "gone"];
        assert_eq!(found.len(), about.len(), "{found:?}");
        for (text, name) in found.iter().zip(about) {
            assert!(text.contains(name), "{name}: {text}");
        }
    }
}
