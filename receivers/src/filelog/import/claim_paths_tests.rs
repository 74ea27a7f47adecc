//! Guarantee: a position of Promtail goes to the generation that it is about, whatever rotation did
//! since, and to none if that is not clear.

use std::fs;
use std::io::Write;
use std::time::SystemTime;

use super::*;
use crate::filelog::logfs::OsLogFs;

fn gz(text: &[u8]) -> Vec<u8> {
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    e.write_all(text).unwrap();
    e.finish().unwrap()
}

fn ns(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as i64
}

fn birth(path: &Path) -> i64 {
    OsLogFs.meta(path).unwrap().id.birth_ns
}

fn set_modified(path: &Path, at_ns: i64) {
    let file = fs::File::options().append(true).open(path).unwrap();
    let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(at_ns as u64);
    file.set_modified(at).unwrap();
}

/// Name of the file and offset, or the reason.
fn told(claim: &Claim) -> Result<(String, u64), String> {
    let name = claim.path.file_name().unwrap().to_string_lossy();
    let position = claim.outcome.as_ref().map_err(Clone::clone)?;
    Ok((name.into_owned(), position.offset))
}

fn ok(name: &str, offset: usize) -> Result<(String, u64), String> {
    Ok((name.to_owned(), offset as u64))
}

fn claims(at: &[(&Path, usize)], saved_ns: i64) -> Vec<Claim> {
    let entry = |(path, offset): &(&Path, usize)| ImportedPosition {
        path: path.to_path_buf(),
        offset: *offset as u64,
    };
    let entries: Vec<ImportedPosition> = at.iter().map(entry).collect();
    claim_positions(&entries, saved_ns, &OsLogFs)
}

fn claim(path: &Path, offset: usize, saved_ns: i64) -> Result<(String, u64), String> {
    told(&claims(&[(path, offset)], saved_ns)[0])
}

fn is_unclear(claim: Result<(String, u64), String>) -> bool {
    claim.is_err_and(|why| why.contains("not clear which"))
}

#[test]
fn promtails_entries_follow_a_file_that_was_rotated_since() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let claim = |offset: usize, saved_ns: i64| claims(&[(&path, offset)], saved_ns).remove(0);
    let missing = told(&claim(3, 0)).unwrap_err();
    assert!(missing.contains("not there"), "{missing}");
    fs::write(&path, "one\ntwo\n").unwrap();
    let saved = birth(&path).max(1);
    assert_eq!(told(&claim(4, saved)), ok("app.log", 4));
    let short = told(&claim(99, saved)).unwrap_err();
    assert!(short.contains("shorter"), "{short}");
    // Renamed; the new file is longer than what was read of the old one.
    fs::rename(&path, dir.path().join("app.log.1")).unwrap();
    while fs::write(&path, "new file, long enough\n").is_ok() && birth(&path) <= saved {
        // The clock of the file system may not have moved on yet.
        fs::remove_file(&path).unwrap();
    }
    let claimed = claim(4, saved);
    assert_eq!(told(&claimed), ok("app.log.1", 4));
    assert_eq!(*claimed.outcome.unwrap().path, path);
    // Compressed: born later, but with the time of its last line.
    let packed = dir.path().join("app.log.1.gz");
    fs::write(&packed, gz(b"one\ntwo\n")).unwrap();
    fs::remove_file(dir.path().join("app.log.1")).unwrap();
    assert_eq!(told(&claim(4, saved)), ok("app.log.1.gz", 4));
    // Two of them, and nothing says which.
    fs::write(dir.path().join("app.log.2"), "000\nmore\n").unwrap();
    let unclear = told(&claim(4, saved)).unwrap_err();
    assert!(unclear.contains("2 rotated files"), "{unclear}");
    // One of them got its last line long before.
    set_modified(&dir.path().join("app.log.2"), 0);
    assert!(ns(SystemTime::now()) > saved);
    assert_eq!(told(&claim(4, saved)), ok("app.log.1.gz", 4));
    assert!(
        told(&claim(4_000, saved))
            .unwrap_err()
            .contains("taken its place")
    );
}

/// A log of a container: generations of 100 lines of one length, of which some are compressed. All
/// files are younger than any time that is asked for, and have the same time of change.
struct Container {
    dir: tempfile::TempDir,
    /// Between two lines.
    step_ns: i64,
}

const LINES: usize = 100;
const NAMES: [&str; 4] = ["0.log.3.gz", "0.log.2.gz", "0.log.1", "0.log"];

impl Container {
    fn new(step_ns: i64, docker: bool) -> Container {
        let dir = tempfile::tempdir().unwrap();
        let container = Container { dir, step_ns };
        for (generation, name) in NAMES.into_iter().enumerate() {
            let numbers = generation * LINES..(generation + 1) * LINES;
            let line = |n| container.line(n, docker);
            let text: String = numbers.map(line).collect();
            let text = text.into_bytes();
            let content = if name.ends_with("gz") {
                gz(&text)
            } else {
                text
            };
            fs::write(container.path(name), content).unwrap();
        }
        container
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// When line `n` was written.
    fn at(&self, n: usize) -> i64 {
        1_700_000_000 * SECOND_NS + n as i64 * self.step_ns
    }

    fn line(&self, n: usize, docker: bool) -> String {
        let at = jiff::Timestamp::from_nanosecond(i128::from(self.at(n))).unwrap();
        if docker {
            format!("{{\"log\":\"line {n:06}\\n\",\"stream\":\"stdout\",\"time\":\"{at:.9}\"}}\n")
        } else {
            format!("{at:.9} stdout F line {n:06}\n")
        }
    }

    /// Where the first `n` lines end: the file that they were read from, and the offset there.
    fn end_of(&self, n: usize, docker: bool) -> (&'static str, usize) {
        let generation = n.saturating_sub(1) / LINES;
        let offset = (n - generation * LINES) * self.line(0, docker).len();
        (NAMES[generation], offset)
    }
}

/// Numbers of lines read: at both ends of each generation, and within.
fn numbers_read() -> impl Iterator<Item = usize> {
    let is_told = |n: &usize| matches!(n % LINES, 0 | 1 | 2 | 50 | 77 | 99);
    (1..NAMES.len() * LINES).filter(is_told)
}

#[test]
fn lines_of_containers_tell_where_reading_stood_whatever_was_compressed_since() {
    for docker in [false, true] {
        let log = Container::new(10 * SECOND_NS, docker);
        for n in numbers_read() {
            let (name, offset) = log.end_of(n, docker);
            // Stopped just behind the newest line, and long after it.
            for saved_ns in [log.at(n - 1) + 1, log.at(n) - 1] {
                let got = claim(&log.path("0.log"), offset, saved_ns);
                assert_eq!(got, ok(name, offset), "{n} lines, docker: {docker}");
            }
        }
        // Nothing was read of the newest generation then.
        let got = claim(&log.path("0.log"), 0, log.at(2 * LINES) - 1);
        assert_eq!(got, ok("0.log.1", 0));
    }
}

#[test]
fn positions_of_a_promtail_that_was_killed_are_behind_and_found_too() {
    let log = Container::new(SECOND_NS, false);
    for n in numbers_read().filter(|n| *n >= 10) {
        let (name, offset) = log.end_of(n, false);
        let got = claim(&log.path("0.log"), offset, log.at(n + 8));
        assert_eq!(got, ok(name, offset), "{n} lines");
    }
}

#[test]
fn where_rotation_is_faster_than_positions_are_saved_only_a_clean_stop_tells() {
    // A generation every five seconds.
    let log = Container::new(SECOND_NS / 20, false);
    let other = Container::new(SECOND_NS / 20, false);
    let (path, other_path) = (log.path("0.log"), other.path("0.log"));
    for n in numbers_read() {
        let (name, offset) = log.end_of(n, false);
        assert_eq!(claim(&path, offset, log.at(n) + 1), ok(name, offset));
        if n >= 200 && n % LINES > 50 {
            let killed = claim(&path, offset, log.at(n) + 2 * SECOND_NS);
            assert!(is_unclear(killed), "{n} lines, two seconds behind");
        }
    }
    // One log shows that it was no clean stop.
    let (name, offset) = log.end_of(250, false);
    let (_, behind) = other.end_of(210, false);
    let both = claims(&[(&path, offset), (&other_path, behind)], log.at(250) + 1);
    assert!(is_unclear(told(&both[0])), "{name}");
    assert!(is_unclear(told(&both[1])));
}

#[test]
fn a_generation_that_is_gone_is_not_taken_for_another_one() {
    let log = Container::new(10 * SECOND_NS, false);
    let (name, offset) = log.end_of(150, false);
    assert_eq!(name, "0.log.2.gz");
    fs::remove_file(log.path(name)).unwrap();
    fs::remove_file(log.path("0.log.3.gz")).unwrap();
    let got = claim(&log.path("0.log"), offset, log.at(150));
    assert!(got.is_err(), "what is left is younger: {got:?}");
    // A place within a line was never the end of what was read.
    let got = claim(&log.path("0.log"), offset + 1, log.at(350));
    assert!(got.is_err(), "{got:?}");
}

#[test]
fn a_file_that_was_there_but_had_not_so_much_then_is_not_the_one() {
    let log = Container::new(10 * SECOND_NS, false);
    // The file at the path is older than the positions by its birth, which tells nothing here.
    let saved_ns = ns(SystemTime::now()) + 100 * SECOND_NS;
    let text = |from_ns: i64| -> String {
        let at = |n: i64| jiff::Timestamp::from_nanosecond(i128::from(from_ns + n * SECOND_NS));
        let line = |n| format!("{:.9} stdout F {n:02}\n", at(n).unwrap());
        (0..40).map(line).collect()
    };
    let (old, new) = (
        text(saved_ns - 20 * SECOND_NS),
        text(saved_ns + 40 * SECOND_NS),
    );
    fs::write(log.path("1.log.1"), &old).unwrap();
    fs::write(log.path("1.log"), new).unwrap();
    let half = old.len() / 2;
    assert_eq!(
        claim(&log.path("1.log"), half, saved_ns),
        ok("1.log.1", half)
    );
}

#[test]
fn times_of_last_change_tell_the_generation_of_lines_that_have_no_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let text = b"0123456\n".repeat(20);
    let hour = |n: i64| (1_700_000_000 + n * 3600) * SECOND_NS;
    // What logrotate leaves: each with the time of its last line.
    for (name, last_change) in [("a.3.gz", 1), ("a.2.gz", 2), ("a.1", 3), ("a", 4)] {
        let content = if name.ends_with("gz") {
            gz(&text)
        } else {
            text.clone()
        };
        fs::write(path(name), content).unwrap();
        set_modified(&path(name), hour(last_change));
    }
    let half = SECOND_NS * 1800;
    assert_eq!(claim(&path("a"), 80, hour(1) + half), ok("a.2.gz", 80));
    assert_eq!(claim(&path("a"), 80, hour(2) + half), ok("a.1", 80));
    // Read to its end, and rotated before anything came.
    assert_eq!(claim(&path("a"), 160, hour(1) + half), ok("a.3.gz", 160));
    // It may be one that is gone.
    assert!(is_unclear(claim(&path("a"), 80, hour(0) + half)));
    // No line begins there.
    assert!(claim(&path("a"), 81, hour(1) + half).is_err());
    // The one that was at the path then is too short; the next one is none to choose.
    fs::write(path("a.2.gz"), gz(b"short\n")).unwrap();
    set_modified(&path("a.2.gz"), hour(2));
    fs::write(path("a.0"), &text).unwrap();
    set_modified(&path("a.0"), hour(3) + half);
    assert!(is_unclear(claim(&path("a"), 80, hour(1) + half)));
}

#[test]
fn a_file_that_was_copied_and_truncated_since_is_not_the_one_that_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("a"), dir.path().join("a.1"));
    fs::write(&path, "one\ntwo\n").unwrap();
    let saved_ns = birth(&path);
    assert_eq!(claim(&path, 4, saved_ns), ok("a", 4));
    while fs::write(&copy, "one\ntwo\n").is_ok() && birth(&copy) <= saved_ns {
        // The clock of the file system may not have moved on yet.
        fs::remove_file(&copy).unwrap();
    }
    fs::write(&path, "new content\nand more\n").unwrap();
    assert_eq!(claim(&path, 4, saved_ns), ok("a.1", 4));
}
