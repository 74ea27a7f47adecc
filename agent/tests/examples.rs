//! What is shown to users is valid: the files of `examples/` and the configurations in the
//! documents.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Validates `source`; gives what was printed if there is a mistake or a warning.
fn validate(source: &str) -> Result<(), String> {
    let out = Command::new(env!("CARGO_BIN_EXE_tailwater"))
        .args(["validate", "--config", source])
        .output()
        .expect("the binary was built for this test");
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    if out.status.success() && text.is_empty() {
        return Ok(());
    }
    Err(format!("{}\n{text}", out.status))
}

#[test]
fn every_example_is_valid_without_a_warning() {
    let dir = fs::read_dir(root().join("examples")).expect("examples/");
    let mut found = 0;
    for entry in dir {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        found += 1;
        let name = path.display().to_string();
        validate(&name).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    assert!(found >= 5, "only {found} examples");
}

#[test]
fn the_configuration_in_the_readme_is_valid_without_a_warning() {
    let text = fs::read_to_string(root().join("README.md")).expect("README.md");
    let blocks = text.split("```yaml\n").skip(1);
    let mut found = 0;
    for block in blocks.filter_map(|b| b.split("```").next()) {
        found += 1;
        validate(&format!("yaml:{block}")).unwrap_or_else(|e| panic!("{block}: {e}"));
    }
    assert_eq!(found, 1);
}

#[test]
fn a_misspelt_option_in_an_example_would_be_noticed() {
    let path = root().join("examples/plain-files.yaml");
    let text = fs::read_to_string(path).expect("the example");
    let wrong = text.replace("include_file_path", "include_file_pth");
    let e = validate(&format!("yaml:{wrong}")).expect_err("not valid");
    assert!(e.contains("include_file_path"), "no suggestion: {e}");
}
