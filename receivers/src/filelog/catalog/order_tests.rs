//! The order of generations when rotation goes on while the catalog looks: a file system does
//! something at a chosen moment, as a writer would.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tailwater_pipeline::clock::Mono;

use super::super::identity::Head;
use super::super::logfs::{Entry, Kind, LogFile, LogFs, Meta, OsLogFs, Owner};
use super::super::stamp::Marks;
use super::*;

/// The call before which something happens, once.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Moment {
    Open(&'static str),
    Names,
}

type Deed = Box<dyn FnOnce(&Path) + Send>;

#[derive(Clone)]
struct BusyFs {
    dir: PathBuf,
    deed: Arc<Mutex<Option<(Moment, Deed)>>>,
}

impl BusyFs {
    fn plan(&self, moment: Moment, deed: impl FnOnce(&Path) + Send + 'static) {
        *self.deed.lock().unwrap() = Some((moment, Box::new(deed)));
    }

    fn act(&self, now: impl Fn(Moment) -> bool) {
        let due = self.deed.lock().unwrap().take_if(|(m, _)| now(*m));
        if let Some((_, deed)) = due {
            deed(&self.dir);
        }
    }
}

impl LogFs for BusyFs {
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        self.act(|m| matches!(m, Moment::Open(name) if path.ends_with(name)));
        OsLogFs.open(path)
    }
    fn look(&self, path: &Path) -> io::Result<(Kind, Meta)> {
        OsLogFs.look(path)
    }
    fn look_through(&self, path: &Path) -> io::Result<(Kind, Meta)> {
        OsLogFs.look_through(path)
    }
    fn owner(&self, path: &Path) -> io::Result<Owner> {
        OsLogFs.owner(path)
    }
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        OsLogFs.resolve(path)
    }
    fn list(&self, dir: &Path, each: &mut dyn FnMut(Entry)) -> io::Result<()> {
        let listed = OsLogFs.list(dir, each);
        self.act(|m| m == Moment::Names);
        listed
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsLogFs.remove(path)
    }
}

/// Renames the log to its `n`-th generation and begins the next one.
fn rotate(dir: &Path, n: u32) {
    fs::rename(dir.join("app.log"), dir.join(generation(n))).unwrap();
    fs::write(dir.join("app.log"), format!("lines of {}\n", n + 1)).unwrap();
}

fn generation(n: u32) -> String {
    format!("app.log.20240101-{n:06}")
}

fn compress(dir: &Path, n: u32) {
    let (plain, gz) = (
        dir.join(generation(n)),
        dir.join(format!("{}.gz", generation(n))),
    );
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut encoder, &fs::read(&plain).unwrap()).unwrap();
    fs::write(gz, encoder.finish().unwrap()).unwrap();
    fs::remove_file(plain).unwrap();
}

/// Has the files open that are to be read, and reads none.
#[derive(Default)]
struct Reader {
    files: Vec<OpenFile>,
}

impl Reader {
    /// Which generations are opened, in the order in which they are to be read.
    fn opened(&mut self, actions: Vec<(usize, Action)>) -> Vec<String> {
        let mut texts = Vec::new();
        for (_, action) in actions {
            if let Action::Open(open) = action {
                let last = self.files.last().map(|f| f.no);
                assert_eq!(open.after, last, "read after the one opened before it");
                let mut text = Vec::new();
                let file = open.file.as_ref().expect("few files are open");
                file.read_at(0, 100, &mut text).unwrap();
                texts.push(String::from_utf8(text).unwrap().trim().to_owned());
                self.files.push(*open);
            }
        }
        texts
    }
}

/// A catalog of the log at `base` that knows nothing yet.
fn catalog(base: &Path, fs: Arc<dyn LogFs>) -> Catalog {
    let selected = base.to_path_buf();
    let rules = Rules {
        head_bytes: 1000,
        from_beginning: true,
        gzip: GzipRule::Never,
        shards: 1,
        selects: Box::new(move |path| path == selected),
        started_ns: 0,
        open_files: Arc::default(),
        open_files_max: usize::MAX,
        keep_offset: false,
        anew_when_cut: true,
    };
    Catalog::new(rules, fs, Vec::new())
}

/// What a catalog that starts with `stored` opens, of logs at `base`.
fn opened_after_start(base: &Path, stored: Vec<Position>) -> Vec<String> {
    let mut catalog = Catalog {
        memory: Memory::new(stored, |_| false),
        had_stored: true,
        ..catalog(base, Arc::new(OsLogFs))
    };
    let seen = Seen {
        path: base.into(),
        meta: OsLogFs.meta(base).unwrap(),
        target: None,
    };
    Reader::default().opened(catalog.scan(vec![seen], Mono::default()))
}

/// Guarantee: what was given up for want of room is looked after a part at a time, each once, so that whatever else
/// the catalog has to do, ending included, waits for little; and the position of a file that is there is not for the
/// taking.
#[test]
fn positions_given_up_are_looked_after_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("app.log");
    fs::write(dir.path().join(generation(1)), "lines\n").unwrap();
    let there = OsLogFs.meta(&dir.path().join(generation(1))).unwrap().id;
    let position = |ino: u64| Position {
        id: FileId { ino, ..there },
        path: (*base).into(),
        complete: true,
        ..Position::default()
    };
    let mut catalog = catalog(&base, Arc::new(OsLogFs));
    catalog.look_around(Mono::default());
    // One that was read as the log, and is beside it now.
    catalog.memory.evicted = vec![position(there.ino)];
    let many = (u64::MAX - 4_999)..=u64::MAX;
    catalog.memory.evicted.extend(many.clone().map(position));
    let (mut gone, mut others, mut parts) = (Vec::new(), 0, 0);
    while catalog.evicted() > 0 {
        let (some, rest) = catalog.take_evicted();
        assert!((1..1_000).contains(&(some.len() + rest)));
        gone.extend(some.into_iter().map(|p| p.id.ino));
        (others, parts) = (others + rest, parts + 1);
    }
    gone.sort_unstable();
    assert_eq!((gone, others), (many.collect(), 1));
    assert!(parts > 5);
}

/// A log whose first generation is being read; generations up to the `n`-th came and went since.
/// Then `deed` is done at `moment` while the catalog looks. Returns what it opens.
fn looks(n: u32, moment: Moment, deed: impl FnOnce(&Path) + Send + 'static) -> Vec<String> {
    looks_with(n, |fs| fs.plan(moment, deed))
}

fn looks_with(n: u32, plan: impl FnOnce(&BusyFs)) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("app.log");
    fs::write(&base, "lines of 1\n").unwrap();
    let fs = BusyFs {
        dir: dir.path().to_path_buf(),
        deed: Arc::default(),
    };
    let mut catalog = catalog(&base, Arc::new(fs.clone()));
    let seen = |path: &Path| Seen {
        path: path.to_path_buf(),
        meta: OsLogFs.meta(path).unwrap(),
        target: None,
    };
    let mut reader = Reader::default();
    let now = Mono::default();
    let first = reader.opened(catalog.scan(vec![seen(&base)], now));
    assert_eq!(first, ["lines of 1"]);
    (1..n).for_each(|i| rotate(dir.path(), i));
    plan(&fs);
    let now = now.after(std::time::Duration::from_millis(10));
    let mut all = reader.opened(catalog.appeared(seen(&base), now));
    assert!(fs.deed.lock().unwrap().is_none(), "it happened");
    for _ in 0..20 {
        let at = catalog.deadline().unwrap_or(now);
        all.extend(reader.opened(catalog.catch_up(at)));
    }
    all
}

/// Guarantee: a generation that is compressed at the moment it is looked at is read in its turn,
/// not after the ones that came later.
#[test]
fn a_generation_that_vanishes_while_it_is_looked_at_keeps_its_turn() {
    let order = looks(4, Moment::Open("app.log.20240101-000002"), |dir| {
        compress(dir, 2)
    });
    assert_eq!(order, ["lines of 2", "lines of 3", "lines of 4"]);
}

/// Guarantee: the same while every look finds something new to open and something that vanishes.
#[test]
fn rotation_that_outruns_the_looks_keeps_the_order() {
    fn again(fs: &BusyFs, n: u32) {
        let next = fs.clone();
        let name: &'static str = generation(n).leak();
        fs.plan(Moment::Open(name), move |dir| {
            compress(dir, n);
            if n < 5 {
                again(&next, n + 1);
            }
        });
    }
    let order = looks_with(8, |fs| again(fs, 2));
    let want: Vec<String> = (2..=8).map(|n| format!("lines of {n}")).collect();
    assert_eq!(order, want);
}

/// Guarantee: what rotation does between the look at the directory and the opening of the log makes
/// no generation come after its successor.
#[test]
fn rotations_while_the_log_is_opened_keep_the_order() {
    for moment in [Moment::Names, Moment::Open("app.log")] {
        let order = looks(2, moment, |dir| (2..4).for_each(|n| rotate(dir, n)));
        let want = ["lines of 2", "lines of 3", "lines of 4"];
        assert_eq!(order, want, "{moment:?}");
    }
}

/// Guarantee: a file that waits for its turn, was empty when it was opened, and has been compressed
/// meanwhile does not keep what came after it from being told from it.
#[test]
fn generations_after_one_that_waits_unread_keep_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("app.log");
    fs::write(&base, "lines of 1\n").unwrap();
    let mut catalog = catalog(&base, Arc::new(OsLogFs));
    let seen = || Seen {
        path: base.clone(),
        meta: OsLogFs.meta(&base).unwrap(),
        target: None,
    };
    let mut reader = Reader::default();
    let at = |ms: u64| Mono(ms * 1_000_000);
    let first = reader.opened(catalog.scan(vec![seen()], at(0)));
    assert_eq!(first, ["lines of 1"]);
    rotate(dir.path(), 1);
    fs::write(&base, "").unwrap();
    let second = reader.opened(catalog.appeared(seen(), at(10)));
    assert_eq!(second, [""]);
    fs::write(&base, "lines of 2\n").unwrap();
    (2..5).for_each(|n| rotate(dir.path(), n));
    (1..4).for_each(|n| compress(dir.path(), n));
    let rest = reader.opened(catalog.appeared(seen(), at(20)));
    assert_eq!(rest, ["lines of 3", "lines of 4", "lines of 5"]);
}

/// Guarantee: a compressed file is told from one that waits for its turn and has no name any more, also
/// where both begin alike: what is a copy of it is not opened, what is not has its turn.
#[test]
fn generations_that_begin_alike_keep_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("app.log");
    let write = |n: u32| fs::write(&base, format!("#header\nlines of {n}\n")).unwrap();
    write(1);
    let mut catalog = catalog(&base, Arc::new(OsLogFs));
    let seen = || Seen {
        path: base.clone(),
        meta: OsLogFs.meta(&base).unwrap(),
        target: None,
    };
    let mut reader = Reader::default();
    let at = |ms: u64| Mono(ms * 1_000_000);
    let first = reader.opened(catalog.scan(vec![seen()], at(0)));
    assert_eq!(first, ["#header\nlines of 1"]);
    for n in 1..4 {
        rotate(dir.path(), n);
        write(n + 1);
        compress(dir.path(), n);
    }
    let rest = reader.opened(catalog.appeared(seen(), at(20)));
    let want = (2..5).map(|n| format!("#header\nlines of {n}"));
    assert_eq!(rest, want.collect::<Vec<_>>());
}

/// Guarantee: a log that is rotated before it is seen for the first time is read from its first
/// generation on.
#[test]
fn a_log_that_is_rotated_before_it_is_seen_keeps_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("app.log");
    let mut catalog = catalog(&base, Arc::new(OsLogFs));
    assert!(catalog.scan(Vec::new(), Mono(0)).is_empty());
    fs::write(&base, "lines of 1\n").unwrap();
    rotate(dir.path(), 1);
    let seen = Seen {
        path: base.clone(),
        meta: OsLogFs.meta(&base).unwrap(),
        target: None,
    };
    let now = Mono(10_000_000);
    let mut reader = Reader::default();
    let mut all = reader.opened(catalog.appeared(seen, now));
    all.extend(reader.opened(catalog.catch_up(now)));
    assert_eq!(all, ["lines of 1", "lines of 2"]);
}

/// Guarantee: generations of a log that is read by a link are found where the link leads, under the
/// name that they have there, and news from there are about the log.
#[test]
fn generations_of_a_log_behind_a_link_are_found_where_it_leads() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("pod");
    fs::create_dir(&real).unwrap();
    let (link, target) = (dir.path().join("container.log"), real.join("app.log"));
    fs::write(&target, "lines of 1\n").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let mut catalog = catalog(&link, Arc::new(OsLogFs));
    let seen = || Seen {
        path: link.clone(),
        meta: OsLogFs.meta(&link).unwrap(),
        target: Some(target.clone()),
    };
    let mut reader = Reader::default();
    let at = |ms: u64| Mono(ms * 1_000_000);
    let first = reader.opened(catalog.scan(vec![seen()], at(0)));
    assert_eq!(first, ["lines of 1"]);
    (1..4).for_each(|n| rotate(&real, n));
    assert_eq!(catalog.link_to(&target), Some(link.clone()));
    let rest = reader.opened(catalog.appeared(seen(), at(10)));
    assert_eq!(rest, ["lines of 2", "lines of 3", "lines of 4"]);
    // Renamed and nothing in its place yet: only what is beside it tells.
    fs::rename(&target, real.join(generation(4))).unwrap();
    (5..6).for_each(|n| fs::write(real.join(generation(n)), "lines of 5\n").unwrap());
    catalog.scan(Vec::new(), at(20));
    catalog.appeared_beside(&real.join(generation(5)), at(30));
    let due = catalog.deadline().unwrap();
    assert_eq!(reader.opened(catalog.catch_up(due)), ["lines of 5"]);
}

/// Guarantee: however many generations came while nobody looked, they are read in order, the log last,
/// and few of them are open at once. What is rotated meanwhile keeps its place.
#[test]
fn any_number_of_generations_is_read_before_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("app.log");
    fs::write(&base, "lines of 1\n").unwrap();
    let mut catalog = catalog(&base, Arc::new(OsLogFs));
    let seen = || Seen {
        path: base.clone(),
        meta: OsLogFs.meta(&base).unwrap(),
        target: None,
    };
    let mut reader = Reader::default();
    let mut now = Mono::default();
    let mut all = reader.opened(catalog.scan(vec![seen()], now));
    (1..=300).for_each(|n| rotate(dir.path(), n));
    (1..=300).step_by(7).for_each(|n| compress(dir.path(), n));
    now = now.after(std::time::Duration::from_millis(10));
    all.extend(reader.opened(catalog.appeared(seen(), now)));
    assert_eq!(all.len(), 1 + lineage::OPENED_AT_ONCE);
    for n in 301..303 {
        rotate(dir.path(), n);
        now = now.after(std::time::Duration::from_millis(10));
        all.extend(reader.opened(catalog.appeared(seen(), now)));
    }
    for _ in 0..50 {
        // A part of what is open is read to its end.
        let unread = |f: &&OpenFile| !f.shared.looked_into.load(Ordering::Acquire);
        let open = reader.files.iter().filter(unread);
        open.take(40)
            .for_each(|f| f.shared.looked_into.store(true, Ordering::Release));
        now = now.max(catalog.deadline().unwrap_or(now));
        all.extend(reader.opened(catalog.catch_up(now)));
        let open = reader.files.iter().filter(unread).count();
        assert!(open <= lineage::OPENED_AT_ONCE + 3, "{open} are open");
    }
    let want: Vec<String> = (1..=303).map(|n| format!("lines of {n}")).collect();
    assert_eq!(all, want);
}

/// Guarantee: whatever was read of generations is known of their compressed forms, however many there are.
#[test]
fn any_number_of_compressed_generations_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("app.log");
    fs::write(&base, "lines of 1\n").unwrap();
    let count = 3 * lineage::OPENED_AT_ONCE as u32;
    let mut stored = Vec::new();
    for n in 1..=count {
        rotate(dir.path(), n);
        let path = dir.path().join(generation(n));
        stored.push(Position {
            id: OsLogFs.meta(&path).unwrap().id,
            head: Head::of(&fs::read(&path).unwrap()),
            marks: Marks::from_entries(vec![(0, i64::from(n))]),
            path: base.as_path().into(),
            ..Position::default()
        });
        compress(dir.path(), n);
    }
    let mut catalog = Catalog {
        memory: Memory::new(stored, |_| false),
        had_stored: true,
        ..catalog(&base, Arc::new(OsLogFs))
    };
    let seen = Seen {
        path: base.clone(),
        meta: OsLogFs.meta(&base).unwrap(),
        target: None,
    };
    let mut marks = Vec::new();
    let mut open = |actions: Vec<(usize, Action)>| {
        for (_, action) in actions {
            if let Action::Open(open) = action {
                open.shared.looked_into.store(true, Ordering::Release);
                marks.push(open.position.marks.time_of(0));
            }
        }
    };
    let mut now = Mono::default();
    open(catalog.scan(vec![seen], now));
    for _ in 0..50 {
        now = now.max(catalog.deadline().unwrap_or(now));
        open(catalog.catch_up(now));
    }
    marks.sort_unstable();
    let mut want: Vec<_> = (1..=count).map(|n| Some(i64::from(n))).collect();
    want.insert(0, None);
    assert_eq!(marks, want);
}

/// Guarantee: when a log is rotated twice, nobody waits for late lines of its first file, and all
/// the time at most one file is waited for.
#[test]
fn a_file_is_left_when_its_writer_has_begun_two_others() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("app.log");
    fs::write(&base, "lines of 1\n").unwrap();
    let mut catalog = catalog(&base, Arc::new(OsLogFs));
    let seen = || Seen {
        path: base.clone(),
        meta: OsLogFs.meta(&base).unwrap(),
        target: None,
    };
    let mut now = Mono::default();
    let _ = catalog.scan(vec![seen()], now);
    let mut left = Vec::new();
    for n in 1..=4 {
        rotate(dir.path(), n);
        now = now.after(std::time::Duration::from_millis(10));
        let actions = catalog.appeared(seen(), now);
        left.push(actions.into_iter().find_map(|(_, action)| match action {
            Action::Left(no) => Some(no),
            _ => None,
        }));
    }
    assert_eq!(left, [None, Some(1), Some(2), Some(3)]);
}

/// Guarantee: a rotated file that was read to its end, and is shorter than that now, is read if it was written
/// since: a power loss undid its rename and took its end, and its writer went on in it.
#[test]
fn what_was_written_since_a_file_lost_its_end_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (base, rotated) = (dir.path().join("app.log"), dir.path().join(generation(1)));
    let known = "an old line\n".repeat(20);
    let left = "an old line\nnew\n";
    fs::write(&rotated, left).unwrap();
    fs::write(&base, "the log\n").unwrap();
    let meta = OsLogFs.meta(&rotated).unwrap();
    let complete = |seen_ns| Position {
        id: meta.id,
        path: FilePath::from(base.clone()),
        offset: known.len() as u64,
        head: Head::of(b"an old line\n"),
        complete: true,
        surveyed: true,
        seen_ns,
        ..Position::default()
    };
    let since = opened_after_start(&base, vec![complete(meta.mtime_ns - 1)]);
    assert_eq!(since, [left.trim(), "the log"]);
    // A truncation that was noticed as the last thing that happened to it.
    let before = opened_after_start(&base, vec![complete(meta.mtime_ns)]);
    assert_eq!(before, ["the log"]);
}

/// Guarantee: a compressed file that a power loss tore, so that it ends with zeros, is read as far as it goes.
#[test]
fn a_compressed_file_that_ends_with_zeros_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("app.log");
    let lines: String = (0..2_000)
        .map(|n| format!("line {n} {}\n", n * n))
        .collect();
    fs::write(dir.path().join(generation(1)), &lines).unwrap();
    compress(dir.path(), 1);
    let torn = dir.path().join(format!("{}.gz", generation(1)));
    let mut bytes = fs::read(&torn).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0);
    fs::write(&torn, bytes).unwrap();
    fs::write(&base, "the log\n").unwrap();
    // Of the original it is only known that it was begun.
    let begun = Position {
        id: FileId {
            ino: 1,
            ..OsLogFs.meta(&torn).unwrap().id
        },
        path: FilePath::from(base.clone()),
        head: Head::of(&lines.as_bytes()[..1_000]),
        surveyed: true,
        ..Position::default()
    };
    let opened = opened_after_start(&base, vec![begun]);
    assert_eq!(opened.len(), 2, "{opened:?}");
    assert!(opened[0].starts_with("line 0"), "{opened:?}");
}
