//! A model of the agent's life on real files: writers write, rotation renames, copies, compresses
//! and deletes, the agent looks, reads, is killed and comes back, in any order. Whatever happened,
//! each line that could be read is delivered, and each delivery of a line carries the same time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{AckSink, Counts, Outcome};

use super::super::logfs::{LogFs, OsLogFs};
use super::super::position::Position;
use super::super::stamp::MARK_AGE_MAX;
use super::super::tail::{Fate, Hold, OnTruncate, Tail};
use super::*;

const HEAD_BYTES: usize = 1000;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Lines are written.
    Write(u8),
    /// The log is renamed and begun anew.
    Rename,
    /// The log is copied and truncated.
    CopyTruncate,
    /// All rotated files but the newest are compressed, or that one too.
    Compress { newest: bool },
    /// The oldest rotated file is deleted, if what is in it was delivered.
    DeleteOldest,
    /// The agent gets a notification of the log's path.
    Notify,
    /// The agent scans.
    Scan,
    /// The agent reads this many bytes at most of each file it has.
    Read(u16),
    /// What was delivered is written to the store.
    Save,
    /// The agent is killed and started again.
    Kill,
    /// Time passes, in tenths of a second.
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..30).prop_map(Step::Write),
        3 => Just(Step::Rename),
        1 => Just(Step::CopyTruncate),
        2 => any::<bool>().prop_map(|newest| Step::Compress { newest }),
        1 => Just(Step::DeleteOldest),
        3 => Just(Step::Notify),
        1 => Just(Step::Scan),
        4 => (1u16..4000).prop_map(Step::Read),
        2 => Just(Step::Save),
        1 => Just(Step::Kill),
        2 => (1u8..30).prop_map(Step::Wait),
    ]
}

/// How a log is rotated.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Way {
    Rename,
    CopyTruncate,
    /// Now this way, now that way: nobody does it, but nothing may be lost even so.
    Mixed,
}

/// How logs are rotated and named, and what every generation begins with.
#[derive(Clone, Debug)]
struct World {
    way: Way,
    dated: bool,
    banner: String,
    pad: usize,
}

fn world() -> impl Strategy<Value = World> {
    let banner = prop_oneof![
        3 => Just(String::new()),
        1 => Just("#banner\n".to_owned()),
        1 => Just(format!("#{}\n", "long banner ".repeat(120))),
    ];
    let way = prop_oneof![
        2 => Just(Way::Rename),
        2 => Just(Way::CopyTruncate),
        1 => Just(Way::Mixed),
    ];
    (way, any::<bool>(), banner, 0usize..200).prop_map(|(way, dated, banner, pad)| World {
        way,
        dated,
        // A copy that is cut short is told by its first bytes alone; so these have to differ.
        banner: match way {
            Way::Rename => banner,
            _ => banner
                .get(..20)
                .map_or(banner.clone(), |b| format!("{b}\n")),
        },
        pad,
    })
}

/// The log, its rotated files, and what was written to them.
struct Files {
    dir: tempfile::TempDir,
    world: World,
    next: u32,
    rotated: Vec<PathBuf>,
    dates: u32,
    readable: BTreeSet<u32>,
}

impl Files {
    fn base(&self) -> PathBuf {
        self.dir.path().join("app.log")
    }

    fn append(&mut self, lines: u8) {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.base())
            .unwrap();
        let mut text = String::new();
        if file.metadata().unwrap().len() == 0 {
            text.push_str(&self.world.banner);
        }
        for _ in 0..lines {
            text += &format!("L{} {}\n", self.next, "x".repeat(self.world.pad));
            self.readable.insert(self.next);
            self.next += 1;
        }
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Makes room for the newest rotated file and says its name.
    fn newest_name(&mut self) -> PathBuf {
        let base = self.base();
        if self.world.dated {
            self.dates += 1;
            return PathBuf::from(format!("{}.20240101-{:06}", base.display(), self.dates));
        }
        let count = self.rotated.len();
        for (i, path) in self.rotated.iter_mut().enumerate() {
            let gz = if path.extension().is_some_and(|e| e == "gz") {
                ".gz"
            } else {
                ""
            };
            let to = PathBuf::from(format!("{}.{}{gz}", base.display(), count - i + 1));
            fs::rename(&*path, &to).unwrap();
            *path = to;
        }
        PathBuf::from(format!("{}.1", base.display()))
    }

    fn rename(&mut self) {
        let name = self.newest_name();
        fs::rename(self.base(), &name).unwrap();
        self.rotated.push(name);
        self.append(0);
    }

    fn copy_truncate(&mut self) {
        let name = self.newest_name();
        fs::copy(self.base(), &name).unwrap();
        fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(self.base())
            .unwrap();
        self.rotated.push(name);
    }

    fn compress(&mut self, newest: bool) {
        let skip = usize::from(!newest);
        let count = self.rotated.len().saturating_sub(skip);
        for path in &mut self.rotated[..count] {
            if path.extension().is_some_and(|e| e == "gz") {
                continue;
            }
            let to = PathBuf::from(format!("{}.gz", path.display()));
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(&fs::read(&*path).unwrap()).unwrap();
            fs::write(&to, gz.finish().unwrap()).unwrap();
            fs::remove_file(&*path).unwrap();
            *path = to;
        }
    }

    fn delete_oldest(&mut self, delivered: &BTreeMap<u32, BTreeSet<i64>>) {
        let Some(oldest) = self.rotated.first() else {
            return;
        };
        let lines = lines_of(&read_any(oldest));
        if lines.iter().all(|l| delivered.contains_key(l)) {
            fs::remove_file(self.rotated.remove(0)).unwrap();
        }
    }
}

fn read_any(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut gz = flate2::read::MultiGzDecoder::new(&bytes[..]);
        std::io::Read::read_to_string(&mut gz, &mut text).unwrap();
        return text;
    }
    String::from_utf8(bytes).unwrap()
}

fn number(line: &str) -> Option<u32> {
    line.strip_prefix('L')?.split(' ').next()?.parse().ok()
}

fn lines_of(text: &str) -> Vec<u32> {
    text.lines().filter_map(number).collect()
}

struct NobodyWaits;

impl AckSink for NobodyWaits {
    fn settled(&self, _key: u64, _outcome: Outcome, _counts: &Counts) {}
}

/// The shards' and the driver's part, with the real catalog and the real tails.
struct Agent {
    catalog: Catalog,
    tails: BTreeMap<FileNo, Tail>,
    /// What a kill leaves.
    stored: HashMap<Vec<u8>, Position>,
    superseded: Vec<Position>,
    /// What the store still has in memory.
    unsaved: HashMap<Vec<u8>, Position>,
    now: Mono,
    wall_ns: i64,
    /// The times that each line was delivered with.
    delivered: BTreeMap<u32, BTreeSet<i64>>,
    /// Files of which the catalog is to be told that they have begun.
    begun: Vec<FileNo>,
}

impl Agent {
    fn catalog(stored: Vec<Position>, base: &Path) -> Catalog {
        let base = base.to_path_buf();
        let rules = Rules {
            head_bytes: HEAD_BYTES,
            from_beginning: true,
            gzip: GzipRule::Never,
            keep_offset: false,
            anew_when_cut: true,
            shards: 1,
            selects: Box::new(move |path| path == base),
            started_ns: wall(),
            open_files: Arc::default(),
            open_files_max: usize::MAX,
        };
        Catalog::new(rules, Arc::new(OsLogFs), stored)
    }

    fn start(base: &Path) -> Agent {
        Agent {
            catalog: Agent::catalog(Vec::new(), base),
            tails: BTreeMap::new(),
            stored: HashMap::new(),
            superseded: Vec::new(),
            unsaved: HashMap::new(),
            now: Mono::default(),
            wall_ns: wall(),
            delivered: BTreeMap::new(),
            begun: Vec::new(),
        }
    }

    fn kill(&mut self, base: &Path) {
        self.tails.clear();
        self.unsaved.clear();
        self.superseded.clear();
        let stored = self.stored.values().cloned().collect();
        self.catalog = Agent::catalog(stored, base);
        self.scan(base);
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.wall_ns += time.as_nanos() as i64;
    }

    fn seen(base: &Path) -> Option<Seen> {
        let meta = OsLogFs.meta(base).ok()?;
        Some(Seen {
            path: base.to_path_buf(),
            meta,
            target: None,
        })
    }

    fn scan(&mut self, base: &Path) {
        let seen = Agent::seen(base).into_iter().collect();
        let actions = self.catalog.scan(seen, self.now);
        self.take(actions);
    }

    fn notify(&mut self, base: &Path, rotated: Option<&PathBuf>) {
        if let Some(path) = rotated {
            self.catalog.appeared_beside(path, self.now);
        }
        if let Some(seen) = Agent::seen(base) {
            let actions = self.catalog.appeared(seen, self.now);
            self.take(actions);
        }
    }

    fn take(&mut self, actions: Vec<(usize, Action)>) {
        for (_, action) in actions {
            match action {
                Action::Open(open) => {
                    let no = open.no;
                    let tail = Tail::new(*open, Arc::new(NobodyWaits), 1 << 16, self.now);
                    self.put(tail.durable(self.wall_ns));
                    self.tails.insert(no, tail);
                }
                Action::Gone(no) => {
                    if let Some(tail) = self.tails.get_mut(&no) {
                        tail.gone_since = Some(self.now);
                    }
                }
                Action::Back(no) => {
                    if let Some(tail) = self.tails.get_mut(&no) {
                        tail.gone_since = None;
                    }
                }
                Action::Renamed(..)
                | Action::Moved(..)
                | Action::Vanished(..)
                | Action::Deselected(..)
                | Action::Reselected(..)
                | Action::LetGo(..)
                | Action::Settings(..)
                | Action::Looked(..)
                | Action::Left(_) => {}
                Action::IsCut(no) => {
                    let tail = self.tails.get_mut(&no).unwrap();
                    match tail.read(HEAD_BYTES, Vec::new()).unwrap() {
                        Ok(_) => self.catalog.uncut(no, self.now),
                        Err(_) => self.cut(no),
                    }
                }
                Action::Copied(no, copy) => {
                    let tail = self.tails.get_mut(&no).unwrap();
                    tail.go_on_in(*copy, self.now);
                    let position = tail.durable(self.wall_ns);
                    self.put(position);
                    self.save();
                }
                Action::Lost(no) => {
                    let tail = self.tails.get_mut(&no).unwrap();
                    tail.lose();
                    let position = tail.durable(self.wall_ns);
                    self.put(position);
                    self.save();
                }
                Action::After(no, _) => {
                    let tail = self.tails.get_mut(&no).unwrap();
                    match tail.hold {
                        Hold::None if tail.position.head.len > 0 => self.begun.push(no),
                        _ => tail.hold = Hold::Ask,
                    }
                }
                Action::Begin(no) => {
                    let tail = self.tails.get_mut(&no).unwrap();
                    tail.hold = Hold::None;
                }
            }
        }
        for p in std::mem::take(&mut self.catalog.to_save) {
            self.put(p);
        }
        for no in std::mem::take(&mut self.begun) {
            let actions = self.catalog.begun(no, self.now);
            self.take(actions);
        }
    }

    fn put(&mut self, p: Position) {
        self.unsaved.insert(p.key(""), p);
    }

    fn save(&mut self) {
        self.stored.extend(self.unsaved.drain());
        // What took their place was saved the last time.
        for p in std::mem::take(&mut self.superseded) {
            self.stored.remove(&p.key(""));
        }
        self.superseded.append(&mut self.catalog.superseded);
    }

    /// One turn of every file; what is read is delivered at once.
    fn read(&mut self, max: usize) {
        for no in self.tails.keys().copied().collect::<Vec<_>>() {
            if self.read_one(no, max) {
                self.finish(no);
            }
        }
        let actions = self.catalog.catch_up(self.now);
        self.take(actions);
    }

    /// The content of a file was cut away.
    fn cut(&mut self, no: FileNo) {
        let tail = self.tails.get_mut(&no).unwrap();
        let Fate::Cut(anew) = tail.reassess(HEAD_BYTES, OnTruncate::Detect).unwrap() else {
            return;
        };
        let cut = CutAway {
            no,
            before: tail.durable(self.wall_ns),
            anew: *anew,
            file: tail.cut().unwrap(),
        };
        let actions = self.catalog.cut(cut, self.now);
        self.take(actions);
    }

    /// The first bytes of content that began anew.
    fn ask(&mut self, no: FileNo) {
        let tail = self.tails.get_mut(&no).unwrap();
        let Ok(chunk) = tail.read(HEAD_BYTES, Vec::new()).unwrap() else {
            return self.cut(no);
        };
        if chunk.buf.len() > chunk.skip {
            tail.advance(&chunk.buf, chunk.skip, 0, HEAD_BYTES);
            tail.hold = Hold::Asked;
            let actions = self.catalog.begun(no, self.now);
            self.take(actions);
        }
    }

    /// True if the file is finished.
    fn read_one(&mut self, no: FileNo, max: usize) -> bool {
        self.wait(Duration::from_millis(1));
        let tail = self.tails.get_mut(&no).unwrap();
        match tail.hold {
            Hold::None => {}
            Hold::Asked | Hold::Cut | Hold::LetGo => return false,
            Hold::Lost => return true,
            Hold::Ask => {
                self.ask(no);
                return false;
            }
        }
        let chunk = match tail.read(max.max(8192), Vec::new()).unwrap() {
            Ok(chunk) => chunk,
            Err(_) => {
                self.cut(no);
                return false;
            }
        };
        tail.at_end = chunk.at_end;
        let content = &chunk.buf[chunk.skip..];
        // Whole lines, about `max` bytes of them.
        let limit = content
            .iter()
            .skip(max.min(content.len()))
            .position(|b| *b == b'\n');
        let limit = limit.map_or(content.len(), |i| max.min(content.len()) + i + 1);
        let Some(end) = content[..limit].iter().rposition(|b| *b == b'\n') else {
            let gone = tail
                .gone_since
                .is_some_and(|at| self.now.since(at).as_secs() >= 60);
            return gone && tail.at_end;
        };
        tail.at_end &= end + 1 == content.len();
        let from = tail.position.offset;
        let lines = content[..=end].to_vec();
        tail.advance(&chunk.buf, chunk.skip, lines.len(), HEAD_BYTES);
        let marks = &tail.position.marks;
        let again = from < tail.replay_until && !marks.is_empty_at(from);
        if !again && marks.is_stale(from, self.wall_ns, MARK_AGE_MAX) {
            tail.position.marks.add(from, self.wall_ns);
            let marked = tail.durable(self.wall_ns);
            self.unsaved.insert(marked.key(""), marked);
            self.save();
        }
        let tail = self.tails.get_mut(&no).unwrap();
        let mut offset = from;
        for line in String::from_utf8(lines).unwrap().split_inclusive('\n') {
            let time = tail.position.marks.time_of(offset).unwrap();
            if let Some(n) = number(line) {
                self.delivered.entry(n).or_default().insert(time);
            }
            offset += line.len() as u64;
        }
        tail.acked = Arc::new(tail.position.clone());
        let durable = tail.durable(self.wall_ns);
        self.put(durable);
        false
    }

    fn finish(&mut self, no: FileNo) {
        let tail = self.tails.remove(&no).unwrap();
        let mut left = tail.durable(self.wall_ns);
        left.complete = !left.overwritten;
        self.put(left.clone());
        self.catalog.finished(no, left);
        tail.shared.finished.store(true, Ordering::Release);
    }
}

fn wall() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_nanos() as i64
}

fn play(world: World, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut files = Files {
        dir: tempfile::tempdir().unwrap(),
        world,
        next: 0,
        rotated: Vec::new(),
        dates: 0,
        readable: BTreeSet::new(),
    };
    let base = files.base();
    files.append(3);
    let mut agent = Agent::start(&base);
    agent.scan(&base);
    agent.save();
    for step in steps {
        match *step {
            Step::Write(lines) => files.append(lines),
            Step::Rename if files.world.way == Way::CopyTruncate => files.copy_truncate(),
            Step::Rename => files.rename(),
            Step::CopyTruncate if files.world.way == Way::Rename => files.rename(),
            Step::CopyTruncate => files.copy_truncate(),
            Step::Compress { newest } => files.compress(newest),
            Step::DeleteOldest => files.delete_oldest(&agent.delivered),
            Step::Notify => agent.notify(&base, files.rotated.last()),
            Step::Scan => agent.scan(&base),
            Step::Read(max) => agent.read(usize::from(max)),
            Step::Save => agent.save(),
            Step::Kill => agent.kill(&base),
            Step::Wait(tenths) => agent.wait(Duration::from_millis(100 * u64::from(tenths))),
        }
    }
    // In the end the agent is left alone for long enough.
    agent.notify(&base, files.rotated.last());
    for _ in 0..80 {
        agent.wait(Duration::from_secs(3));
        agent.scan(&base);
        for _ in 0..3 {
            agent.read(1 << 20);
        }
    }
    let lost: Vec<_> = files
        .readable
        .iter()
        .filter(|l| !agent.delivered.contains_key(l))
        .collect();
    prop_assert!(lost.is_empty(), "lost {lost:?}");
    if files.world.way == Way::Mixed || !files.world.banner.is_empty() {
        // Files that begin alike can be confused while nothing but that is stored of them. Then a
        // kill may show lines twice, but none is lost.
        return Ok(());
    }
    let twice: Vec<_> = agent
        .delivered
        .iter()
        .filter(|(_, t)| t.len() > 1)
        .collect();
    prop_assert!(twice.is_empty(), "shown twice {twice:?}");
    Ok(())
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// Guarantees that rotation in any way, at any moment of the agent's life, costs nothing.
    #[test]
    fn rotation_at_any_moment_loses_and_repeats_nothing(
        world in world(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        play(world, &steps)?;
    }
}

/// Guarantees that a copy that begins as what stands in the log now, and is longer, is read: it is no
/// part of the log, which has not been cut since.
#[test]
fn a_copy_that_begins_as_the_log_is_read() {
    use Step::{Compress, CopyTruncate, Notify, Rename, Write};
    let world = World {
        way: Way::Mixed,
        dated: false,
        banner: "#banner\n".to_owned(),
        pad: 0,
    };
    let older = Compress { newest: false };
    let steps = [
        Rename,
        Rename,
        Notify,
        Write(1),
        CopyTruncate,
        Rename,
        older,
        Notify,
        CopyTruncate,
        Rename,
    ];
    play(world, &steps).unwrap();
}
