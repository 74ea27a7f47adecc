//! The vectors kept in the crates, by the conformance runner: facts restated from the collector's
//! tests, one JSON file each, with the test they come from in `source`.

use std::path::Path;
use std::process::Command;

/// Runs the vectors of a crate; rows that passed and rows that were not run, for want of a part.
fn run(krate: &str) -> (usize, usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(krate)
        .join("tests/vectors");
    let out = Command::new(env!("CARGO_BIN_EXE_conformance"))
        .arg("--vectors")
        .arg(&folder)
        // No whole configurations: a folder without any.
        .arg("--configs")
        .arg(&folder)
        .output()
        .expect("the runner was built for this test");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{krate}:\n{text}");
    let rows = |word| text.lines().filter(|l| l.starts_with(word)).count();
    (rows("passed "), rows("not run "))
}

/// Guarantees that every vector that is kept holds, and that none is lost.
#[test]
fn the_vectors_kept_in_the_crates_hold() {
    for (krate, vectors, passed_min) in [
        ("config", 5, 5),
        ("processors", 15, 15),
        ("exporters", 6, 6),
        ("receivers", 105, 105),
    ] {
        let (passed, not_run) = run(krate);
        assert_eq!(
            passed + not_run,
            vectors,
            "{krate}: a vector is missing or new"
        );
        assert!(passed >= passed_min, "{krate}: only {passed} passed");
    }
}
