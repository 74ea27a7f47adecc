//! What `convert` writes is valid.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tailwater"))
        .args(args)
        .output()
        .expect("the binary was built for this test")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn fixtures(of: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../convert/tests/fixtures");
    let entries = fs::read_dir(dir.join(of)).expect("fixtures");
    let paths = entries.map(|e| e.expect("an entry").path());
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    paths
        .filter(|path| {
            let name = name(path).unwrap_or_default();
            !name.ends_with(".golden.yaml") && name != "parsers.conf"
        })
        .collect()
}

/// Guarantee: whatever is converted is a valid configuration, but for components that this build does not have,
/// of which each is named.
#[test]
fn what_is_written_is_valid() {
    let components = text(&run(&["components"]).stdout);
    let mut whole = 0;
    for of in ["promtail", "fluent-bit"] {
        for path in fixtures(of) {
            let name = path.display().to_string();
            let out = run(&["convert", "--from", of, &name]);
            assert!(out.status.success(), "{name}: {}", text(&out.stderr));
            let yaml = text(&out.stdout);
            let checked = run(&["validate", "--config", &format!("yaml:{yaml}")]);
            let said = text(&checked.stderr);
            let mistakes = said
                .lines()
                .filter(|l| !l.starts_with("warning:") && !l.starts_with("error:"));
            for line in mistakes {
                let kind = line.split("unknown type: \"").nth(1);
                let kind = kind.and_then(|rest| rest.split('"').next());
                let kind = kind.unwrap_or_else(|| panic!("{name}: {line}\n{yaml}"));
                let section = line.split("::").next().unwrap_or_default();
                let section = section.rsplit([' ', ':']).next().unwrap_or_default();
                let of_section = components.split(&format!("{section}:\n")).nth(1);
                let of_section = of_section.unwrap_or_default();
                let listed = of_section
                    .lines()
                    .take_while(|l| l.starts_with(' '))
                    .any(|l| l == format!("  - name: {kind}"));
                assert!(!listed, "{name}: {line}");
            }
            whole += usize::from(checked.status.success());
        }
    }
    assert!(whole >= 5, "only {whole} were valid as a whole");
}

#[test]
fn an_output_is_a_new_file_and_a_mistake_is_named() {
    let dir = std::env::temp_dir().join(format!("tailwater-convert-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    let (from, to) = (dir.join("promtail.yaml"), dir.join("agent.yaml"));
    fs::write(
        &from,
        "scrape_configs: []\nclients: [{url: 'http://l/x'}]\n",
    )
    .expect("a file");
    let (from, to) = (from.display().to_string(), to.display().to_string());
    let convert = |from: &str| run(&["convert", "--from", "promtail", from, "--output", &to]);
    let out = convert(&from);
    assert!(out.status.success() && out.stdout.is_empty());
    let checked = run(&["validate", "--config", &to]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let again = convert(&from);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("agent.yaml"));
    fs::write(&from, "a: [\n").expect("a file");
    let broken = run(&["convert", "--from", "promtail", &from]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(
        text(&broken.stderr).contains("promtail.yaml:"),
        "{}",
        text(&broken.stderr)
    );
    fs::remove_dir_all(&dir).expect("it is there");
}
