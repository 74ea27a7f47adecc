//! Rotated files beside logs: their order, and how often they are looked at.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::super::logfs::{Entry, Kind, LogFile, OsLogFs, Owner};
use super::*;

fn order(base: &str, names: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    for name in names {
        std::fs::write(dir.path().join(name), name).expect("written");
    }
    let mut listings = Listings::default();
    let found = listings.of(
        &OsLogFs,
        &dir.path().join(base),
        Mono::default(),
        true,
        &|_| Stays::Perhaps,
    );
    assert!(found.stable);
    let name = |s: Sibling| s.path.file_name().unwrap().to_string_lossy().into_owned();
    found.files.into_iter().map(name).collect()
}

#[test]
fn generations_stand_in_the_order_of_their_names() {
    for (base, names, want) in [
        (
            "a.log",
            &["a.log", "a.log.2.gz", "a.log.10", "a.log.1", "b.log.3"][..],
            &["a.log.10", "a.log.2.gz", "a.log.1"][..],
        ),
        (
            "0.log",
            &[
                "0.log.20240102-000000",
                "0.log.20240101-000000.gz",
                "0.log.20240103-000000",
            ],
            &[
                "0.log.20240101-000000.gz",
                "0.log.20240102-000000",
                "0.log.20240103-000000",
            ],
        ),
        // Of two forms of one file the compressed one is not complete.
        ("a", &["a.1", "a.1.gz", "a.2.gz"], &["a.2.gz", "a.1"]),
    ] {
        assert_eq!(order(base, names), want, "{base}");
    }
}

#[test]
fn many_questions_about_one_directory_get_the_answers_of_few() {
    let names: Vec<String> = (0..40)
        .flat_map(|i| [format!("l{i}.log"), format!("l{i}.log.1")])
        .collect();
    let dir = tempfile::tempdir().expect("a directory");
    for name in &names {
        std::fs::write(dir.path().join(name), name).expect("written");
    }
    let mut listings = Listings::default();
    for i in 0..40 {
        let base = dir.path().join(format!("l{i}.log"));
        let found = listings.of(&OsLogFs, &base, Mono::default(), true, &|_| Stays::Perhaps);
        let paths: Vec<_> = found.files.into_iter().map(|s| s.path).collect();
        assert_eq!(paths, [dir.path().join(format!("l{i}.log.1"))]);
    }
}

/// Counts looks at files.
struct CountingFs(AtomicUsize);

impl LogFs for CountingFs {
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        OsLogFs.open(path)
    }
    fn look(&self, path: &Path) -> io::Result<(Kind, Meta)> {
        OsLogFs.look(path)
    }
    fn look_through(&self, path: &Path) -> io::Result<(Kind, Meta)> {
        let looked = OsLogFs.look_through(path)?;
        let is_file = looked.0 == Kind::File;
        self.0.fetch_add(usize::from(is_file), Ordering::Relaxed);
        Ok(looked)
    }
    fn list(&self, dir: &Path, each: &mut dyn FnMut(Entry)) -> io::Result<()> {
        OsLogFs.list(dir, each)
    }
    fn owner(&self, path: &Path) -> io::Result<Owner> {
        OsLogFs.owner(path)
    }
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        OsLogFs.resolve(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsLogFs.remove(path)
    }
}

/// Guarantee: generations that were read are looked at no more, whatever else comes and goes
/// beside them, until something happens to them or another file has their name.
#[test]
fn what_was_read_is_looked_at_again_only_if_something_happens_to_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let base = dir.path().join("a.log");
    let at = |n: u32| dir.path().join(format!("a.log.20240101-{n:06}"));
    let write = |n: u32| std::fs::write(at(n), format!("lines of {n}")).expect("written");
    (1..=9).for_each(write);
    let fs = CountingFs(AtomicUsize::new(0));
    let mut listings = Listings {
        hears: true,
        ..Listings::default()
    };
    let mut now = Mono::default();
    // What is found, whether there are older ones, and how many files were looked at for that.
    let mut of = |whole: bool, listings: &mut Listings| {
        now = now.after(SETTLED);
        listings.refresh(now);
        let found = listings.of(&fs, &base, now, whole, &|_| Stays::Read);
        let paths: Vec<_> = found.files.into_iter().map(|s| s.path).collect();
        (paths, found.has_older, fs.0.swap(0, Ordering::Relaxed))
    };
    let all: Vec<_> = (1..=9).map(at).collect();
    assert_eq!(of(false, &mut listings), (all.clone(), false, 9));
    assert_eq!(of(false, &mut listings).2, 9, "they may be written to");
    assert_eq!(of(false, &mut listings), (all.clone(), false, 0));
    assert_eq!(of(false, &mut listings), (vec![], true, 0));
    assert_eq!(of(true, &mut listings), (all, false, 0), "the whole");
    write(10);
    assert_eq!(of(false, &mut listings), (vec![at(10)], true, 1));
    std::fs::remove_file(at(1)).expect("removed");
    listings.touched(&at(8));
    let (paths, has_older, looks) = of(false, &mut listings);
    assert_eq!(
        (paths, has_older, looks),
        ((8..=10).map(at).collect(), true, 2)
    );
    // The file that has a name is another one.
    write(11);
    std::fs::rename(at(11), at(2)).expect("renamed");
    let (paths, has_older, _) = of(false, &mut listings);
    assert_eq!(paths[0], at(2));
    assert!(!has_older);
    listings.hears = false;
    assert_eq!(of(true, &mut listings).2, 9, "nothing would be told");
}

/// Guarantee: whether a file is among hundreds is told by the inodes they are listed with, not by looking at each of
/// them: where logs rotate all the time, thousands that are gone are asked for.
#[test]
fn a_file_that_is_gone_is_not_looked_for_in_each_of_many() {
    let dir = tempfile::tempdir().expect("a directory");
    let base = dir.path().join("a.log");
    let at = |n: u32| dir.path().join(format!("a.log.20240101-{n:06}"));
    for n in 1..=300 {
        std::fs::write(at(n), "lines").expect("written");
    }
    let fs = CountingFs(AtomicUsize::new(0));
    let there = fs.meta(&at(7)).expect("it is there").id;
    let gone = FileId {
        ino: u64::MAX,
        ..there
    };
    let now = Mono::default();
    let mut listings = Listings::default();
    listings.refresh(now);
    fs.0.store(0, Ordering::Relaxed);
    for _ in 0..50 {
        assert!(!listings.may_hold(&fs, &base, gone, now));
    }
    assert!(listings.may_hold(&fs, &base, there, now));
    let looks = fs.0.load(Ordering::Relaxed);
    assert!(looks <= LEARNT_FROM, "{looks} looks");
    assert_eq!(listings.find(&fs, &base, there, now), Some(at(7)));
    let alone = dir.path().join("b.log");
    assert!(
        !listings.may_hold(&fs, &alone, gone, now),
        "nothing beside it"
    );
}
