//! Guarantee: an imported entry goes to the file it is about, wherever rotation has put it, and to
//! none if that is not clear.

use std::fs;
use std::io::Write;
use std::time::Duration;

use super::*;
use crate::filelog::glob::Glob;
use crate::filelog::logfs::OsLogFs;

fn finder(dir: &Path, pattern: &str) -> Discovery {
    Discovery {
        include: vec![Glob::new(dir.join(pattern).to_str().unwrap()).unwrap()],
        exclude: Vec::new(),
        exclude_older_than: Duration::ZERO,
        ordering: None,
    }
}

fn entry(first_bytes: &str, offset: u64) -> ImportedOffset {
    ImportedOffset {
        fingerprint_first_bytes: first_bytes.into(),
        offset,
        ..ImportedOffset::default()
    }
}

fn gz(text: &[u8]) -> Vec<u8> {
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    e.write_all(text).unwrap();
    e.finish().unwrap()
}

/// Name of the file and offset, or the reason.
fn told(claim: &Claim) -> Result<(String, u64), String> {
    let name = claim
        .path
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let position = claim.outcome.as_ref().map_err(Clone::clone)?;
    Ok((name, position.offset))
}

fn ok(name: &str, offset: u64) -> Result<(String, u64), String> {
    Ok((name.to_owned(), offset))
}

#[test]
fn the_collectors_entries_are_found_among_files_and_rotated_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).unwrap();
    write("app.log", b"third generation\n");
    write("app.log.1", b"second generation\nmore\n");
    write("app.log.2.gz", &gz(b"first generation\nmore\n"));
    write("other.log", b"other\n");
    std::os::unix::fs::symlink(dir.path().join("other.log"), dir.path().join("a_link.log"))
        .unwrap();
    let entries = [
        entry("second gen", 18),
        entry("first gen", 17),
        entry("other", 6),
        entry("never seen", 5),
        entry("third generation\n", 99),
    ];
    let claims = claim_offsets(&entries, &finder(dir.path(), "*.log"), &OsLogFs);
    let got: Vec<_> = claims.iter().map(told).collect();
    assert_eq!(
        got[..3],
        [
            ok("app.log.1", 18),
            ok("app.log.2.gz", 17),
            ok("a_link.log", 6)
        ]
    );
    assert!(
        got[3].as_ref().unwrap_err().contains("no file begins"),
        "{got:?}"
    );
    assert!(got[4].as_ref().unwrap_err().contains("shorter"), "{got:?}");
    let second = claims[0].outcome.as_ref().unwrap();
    assert_eq!(*second.path, dir.path().join("app.log"), "the live name");
    assert!(claims[1].outcome.as_ref().unwrap().gzip);
}

#[test]
fn the_more_that_is_known_of_a_file_the_sooner_it_is_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("a.log", "same start, a\n");
    write("b.log", "same start, b\n");
    let entries = [entry("same", 5), entry("same start, b", 14)];
    let claims = claim_offsets(&entries, &finder(dir.path(), "*.log"), &OsLogFs);
    assert_eq!(told(&claims[0]), ok("a.log", 5), "the other is taken");
    assert_eq!(told(&claims[1]), ok("b.log", 14));
    // Nothing tells them apart, until the entry has a name.
    let mut one = entry("same start", 5);
    let unclear = claim_offsets(&[one.clone()], &finder(dir.path(), "*.log"), &OsLogFs);
    assert!(
        told(&unclear[0])
            .unwrap_err()
            .contains("2 files begin alike")
    );
    one.attributes
        .insert("log.file.name".into(), "b.log".into());
    let named = claim_offsets(&[one], &finder(dir.path(), "*.log"), &OsLogFs);
    assert_eq!(told(&named[0]), ok("b.log", 5));
}

#[test]
fn all_that_the_collector_knew_of_a_file_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let packed = gz(b"#app=x\nline\n");
    fs::write(dir.path().join("a.log"), &packed).unwrap();
    let entry = ImportedOffset {
        record_number: 7,
        header_done: true,
        skips_line: true,
        // The collector counts compressed bytes of what it reads as gzip.
        file_type: ".gz".into(),
        attributes: serde_json::from_str(r#"{"log.file.name":"a.log","app":"x","n":1}"#).unwrap(),
        ..entry("#app", packed.len() as u64)
    };
    let claims = claim_offsets(&[entry], &finder(dir.path(), "*.log"), &OsLogFs);
    let position = claims[0].outcome.as_ref().unwrap();
    assert_eq!(
        (position.offset, position.records, position.gzip),
        (12, 7, true)
    );
    let header = [("app", "x"), ("n", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(
        (&position.header[..], position.header_done),
        (&header[..], true)
    );
    assert_eq!(position.frame, FrameState::in_skipped_line().encode());
}

#[test]
fn damaged_gzip_is_a_reason_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let mut packed = gz(&b"some text\n".repeat(10_000));
    let middle = packed.len() / 2;
    packed[middle..].fill(0xff);
    fs::write(dir.path().join("a.log"), &packed).unwrap();
    let entry = ImportedOffset {
        file_type: ".gz".into(),
        ..entry("some", packed.len() as u64)
    };
    let claims = claim_offsets(&[entry], &finder(dir.path(), "*.log"), &OsLogFs);
    assert!(told(&claims[0]).is_err());
}

#[test]
fn reads_are_bounded_and_of_files_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    fs::write(&path, vec![b'x'; 3 << 20]).unwrap();
    assert_eq!(
        read_bounded(&path, 4 << 20, &OsLogFs).unwrap().len(),
        3 << 20
    );
    let large = read_bounded(&path, 1 << 20, &OsLogFs).unwrap_err();
    assert!(large.to_string().contains("at most 1048576"), "{large}");
    for other in ["/dev/zero", "/"] {
        let error = read_bounded(Path::new(other), 99, &OsLogFs).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
}
