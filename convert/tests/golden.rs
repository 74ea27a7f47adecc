//! What is written for configurations as they are found, and that nothing of them is left out in silence.
//!
//! `UPDATE_GOLDEN=1` writes what is expected anew: look at the difference.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use tailwater_convert::{Converted, fluent_bit, promtail};

fn fixtures(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(of)
}

fn convert(of: &str, path: &Path) -> Converted {
    let text = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let converted = match of {
        "promtail" => promtail(&text, name),
        _ => fluent_bit(&text, name, &|file| {
            fs::read_to_string(fixtures(of).join(file)).map_err(|e| e.to_string())
        }),
    };
    converted.unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The configuration, and then the notes as comments.
fn shown(converted: &Converted) -> String {
    let mut text = converted.yaml.clone();
    text.push_str("\n# Said besides:\n");
    for note in &converted.notes {
        text.push_str(&format!("# {note}\n"));
    }
    text
}

fn each(of: &str, check: impl Fn(&Path)) {
    let mut found = 0;
    for entry in fs::read_dir(fixtures(of)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".golden.yaml") || name == "parsers.conf" {
            continue;
        }
        found += 1;
        check(&path);
    }
    assert!(found >= 3, "{of}: {found}");
}

#[test]
fn what_is_written_is_what_was_looked_at() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for of in ["promtail", "fluent-bit"] {
        each(of, |path| {
            let golden = path.with_extension("golden.yaml");
            let text = shown(&convert(of, path));
            if update {
                fs::write(&golden, &text).unwrap();
            }
            let expect = fs::read_to_string(&golden).unwrap_or_default();
            assert_eq!(text, expect, "{}", path.display());
        });
    }
}
