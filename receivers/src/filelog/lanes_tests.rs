use super::*;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tailwater_pipeline::checkpoint::{CheckpointStore, StoreOptions, WriterCore, WriterOptions};
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::fs::SimFs;

use super::super::saver::Saver;

/// A store on a simulated disk, and the agents that used it.
struct Rig {
    fs: Arc<SimFs>,
    core: WriterCore,
    store: CheckpointHandle,
    wall_ns: i64,
}

const RECEIVER: &str = "file_log/pods";

fn file(ino: u64) -> FileId {
    FileId {
        dev: 1,
        ino,
        birth_ns: 1,
    }
}

fn at(ino: u64, offset: u64, seen_ns: i64) -> Position {
    Position {
        id: file(ino),
        offset,
        seen_ns,
        ..Position::default()
    }
}

fn open(fs: &Arc<SimFs>) -> (WriterCore, CheckpointHandle) {
    let opened = CheckpointStore::open(fs.clone(), Path::new("/state"), StoreOptions::default());
    WriterCore::new(opened.unwrap().0, WriterOptions::default())
}

impl Rig {
    fn new() -> Rig {
        Rig::on(SimFs::new(0))
    }

    fn on(fs: SimFs) -> Rig {
        let fs = Arc::new(fs);
        let (core, store) = open(&fs);
        Rig {
            fs,
            core,
            store,
            wall_ns: 1,
        }
    }

    /// Starts with these exporters; what each lane finds, as `ino:offset`.
    fn start(&mut self, exporters: &[&str]) -> Vec<String> {
        let lanes = Lanes::new(exporters.iter().map(|e| Arc::from(*e)).collect());
        lanes.arrange(&self.store, RECEIVER, self.wall_ns).unwrap();
        let found = |lane| {
            let stored = Saver::load(&self.store, &self.namespace(exporters, lane));
            let stored = stored.iter().map(|p| format!("{}:{}", p.id.ino, p.offset));
            format!(
                "{} {}",
                exporters[lane],
                stored.collect::<Vec<_>>().join(" ")
            )
        };
        (0..exporters.len()).map(found).collect()
    }

    /// Lanes to these exporters come and go while the agent runs: those of `running`, with the namespaces
    /// that they have, go on. What the new ones find.
    fn change(&mut self, running: &mut Running, exporters: &[&str]) -> Vec<String> {
        let lanes = Lanes::new(exporters.iter().map(|e| Arc::from(*e)).collect());
        let mut next = Running {
            lanes,
            namespaces: Vec::new(),
        };
        for (i, exporter) in exporters.iter().enumerate() {
            let known = running.namespaces.iter().find(|(e, _)| e == exporter);
            if let Some((_, namespace)) = known {
                let namespace: Arc<str> = namespace.as_str().into();
                next.lanes.succeed(&running.lanes, i, &namespace, true);
            }
            let namespace = match known {
                Some((_, namespace)) => namespace.clone(),
                None => next.lanes.namespace(RECEIVER, i),
            };
            next.namespaces.push((exporter.to_string(), namespace));
        }
        next.lanes.note_gone(&self.store, RECEIVER).unwrap();
        let is_new = |(e, _): &&(String, String)| !running.namespaces.iter().any(|(r, _)| r == e);
        let new: Vec<_> = next.namespaces.iter().filter(is_new).collect();
        if !new.is_empty() {
            let arranged = next.lanes.arrange(&self.store, RECEIVER, self.wall_ns);
            arranged.unwrap();
        }
        let found = new.iter().map(|(e, namespace)| {
            let stored = Saver::load(&self.store, namespace);
            let stored = stored.iter().map(|p| format!("{}:{}", p.id.ino, p.offset));
            format!("{e} {}", stored.collect::<Vec<_>>().join(" "))
        });
        let found = found.collect();
        *running = next;
        found
    }

    /// As after [`Rig::start`].
    fn running(&self, exporters: &[&str]) -> Running {
        let lanes = Lanes::new(exporters.iter().map(|e| Arc::from(*e)).collect());
        lanes.arrange(&self.store, RECEIVER, self.wall_ns).unwrap();
        let each = exporters.iter().enumerate();
        let namespaces = each.map(|(i, e)| (e.to_string(), lanes.namespace(RECEIVER, i)));
        Running {
            namespaces: namespaces.collect(),
            lanes,
        }
    }

    /// A lane that runs has delivered file 7 up to `offset`.
    fn moved(&self, running: &Running, exporter: &str, offset: u64) {
        let mut lanes = running.namespaces.iter();
        let (_, namespace) = lanes.find(|(e, _)| e == exporter).unwrap();
        Saver::store(&self.store, namespace, &at(7, offset, self.wall_ns));
    }

    fn namespace(&self, exporters: &[&str], lane: usize) -> String {
        let lanes = Lanes::new(exporters.iter().map(|e| Arc::from(*e)).collect());
        lanes.namespace(RECEIVER, lane)
    }

    /// A lane of these has delivered a file up to `offset`.
    fn delivered(&mut self, exporters: &[&str], lane: usize, ino: u64, offset: u64) {
        let position = at(ino, offset, self.wall_ns);
        let namespace = self.namespace(exporters, lane);
        Saver::store(&self.store, &namespace, &position);
    }

    /// Stops the agent and starts another one on the same disk.
    fn reopen(mut self) -> Rig {
        drop(self.core.finish(Mono(0)));
        (self.core, self.store) = open(&self.fs);
        self
    }
}

/// Lanes of an agent that runs.
struct Running {
    lanes: Lanes,
    namespaces: Vec<(String, String)>,
}

const ONE: &[&str] = &["loki"];
const TWO: &[&str] = &["loki", "loki/b"];

/// Guarantee: one exporter has the keys it always had, whatever it is called.
#[test]
fn one_exporter_uses_the_positions_of_the_receiver() {
    let mut rig = Rig::new();
    assert_eq!(rig.start(ONE), ["loki "]);
    rig.delivered(ONE, 0, 7, 100);
    let key = at(7, 0, 0).key(RECEIVER);
    assert_eq!(rig.store.get(&key).unwrap().offset, 100);
    let mut rig = rig.reopen();
    assert_eq!(rig.start(&["other"]), ["other 7:100"]);
    assert_eq!(rig.store.stats().keys, 1, "no marks, no copies");
}

/// Guarantee: a second exporter begins where the receiver is, the first one goes on; each moves by
/// itself, over restarts; back to one, it goes on where that one was.
#[test]
fn from_one_to_two_and_back() {
    let mut rig = Rig::new();
    rig.start(ONE);
    rig.delivered(ONE, 0, 7, 100);
    rig.delivered(ONE, 0, 8, 50);
    let mut rig = rig.reopen();
    assert_eq!(rig.start(TWO), ["loki 7:100 8:50", "loki/b 7:100 8:50"]);
    rig.delivered(TWO, 0, 7, 900);
    rig.delivered(TWO, 1, 8, 60);
    let mut rig = rig.reopen();
    assert_eq!(rig.start(TWO), ["loki 7:900 8:50", "loki/b 7:100 8:60"]);
    let mut rig = rig.reopen();
    assert_eq!(rig.start(&["loki/b"]), ["loki/b 7:100 8:60"]);
    let owners: Vec<_> = rig
        .store
        .with_prefix(b"")
        .iter()
        .map(|(key, _)| Owner::of(key).to_string())
        .collect();
    let kept = "filelog/pods to loki (kept)";
    assert_eq!(owners, ["filelog/pods", "filelog/pods", kept, kept, kept]);
}

/// Guarantee: an exporter that comes back goes on where it was, for a week.
#[test]
fn an_exporter_that_comes_back_goes_on() {
    for (days, expect) in [(6, "loki/b 7:100"), (8, "loki/b 7:900")] {
        let mut rig = Rig::new();
        rig.start(TWO);
        rig.delivered(TWO, 0, 7, 800);
        rig.delivered(TWO, 1, 7, 100);
        let mut rig = rig.reopen();
        // It may have been idle for long before it was removed.
        rig.wall_ns = Duration::from_secs(30 * 86_400).as_nanos() as i64;
        rig.start(ONE);
        rig.delivered(ONE, 0, 7, 900);
        let mut rig = rig.reopen();
        rig.wall_ns += Duration::from_secs(days * 86_400).as_nanos() as i64;
        rig.start(ONE);
        let mut rig = rig.reopen();
        assert_eq!(rig.start(TWO), ["loki 7:900", expect], "{days} days");
    }
}

/// Guarantee: also where it comes back alone, behind the one that it takes turns with.
#[test]
fn an_exporter_that_comes_back_alone_goes_on() {
    let mut rig = Rig::new();
    rig.start(TWO);
    rig.delivered(TWO, 0, 7, 800);
    rig.delivered(TWO, 1, 7, 100);
    let mut rig = rig.reopen();
    rig.start(ONE);
    rig.delivered(ONE, 0, 7, 900);
    rig.delivered(ONE, 0, 8, 900);
    let mut rig = rig.reopen();
    assert_eq!(rig.start(&["loki/b"]), ["loki/b 7:100"]);
    let mut rig = rig.reopen();
    assert_eq!(rig.start(&["loki/b"]), ["loki/b 7:100"]);
}

/// Guarantee: a new exporter begins where the furthest of the others is; but where it takes the
/// place of one, nothing of that one's is left out.
#[test]
fn a_new_exporter_gets_what_comes_and_a_renamed_one_all_that_is_left() {
    let two = || {
        let mut rig = Rig::new();
        rig.start(TWO);
        for (lane, offset) in [(0, 100), (1, 900)] {
            for ino in [7, 8] {
                rig.delivered(TWO, lane, ino, offset);
            }
        }
        rig.reopen()
    };
    let cases: [(&[&str], &[&str]); 4] = [
        (
            &["loki", "loki/b", "new"],
            &["loki 7:100 8:100", "loki/b 7:900 8:900", "new 7:900 8:900"],
        ),
        (
            &["loki/b", "new"],
            &["loki/b 7:900 8:900", "new 7:100 8:100"],
        ),
        (&["new"], &["new 7:100 8:100"]),
        (
            &["new/1", "new/2"],
            &["new/1 7:100 8:100", "new/2 7:100 8:100"],
        ),
    ];
    for (exporters, expect) in cases {
        let mut rig = two();
        assert_eq!(rig.start(exporters), expect);
        let mut rig = rig.reopen();
        assert_eq!(rig.start(exporters), expect, "and so at the next start");
    }
}

/// Guarantee: a lane without a position is not taken for a new one: what another lane delivered
/// before it saved anything is not passed over.
#[test]
fn a_lane_without_positions_is_none_that_is_new() {
    let mut rig = Rig::new();
    rig.start(TWO);
    rig.delivered(TWO, 0, 7, 100);
    let mut rig = rig.reopen();
    assert_eq!(rig.start(TWO), ["loki 7:100", "loki/b "]);
}

/// Guarantee: what is imported goes to all lanes.
#[test]
fn an_import_finds_the_sets_in_use() {
    let mut rig = Rig::new();
    let in_use = |rig: &Rig| {
        let keys = rig.store.with_prefix(b"");
        namespaces_in_use(keys.iter().map(|(key, _)| &**key), RECEIVER)
    };
    assert_eq!(in_use(&rig), ["filelog/pods"]);
    rig.start(TWO);
    let lanes = ["filelog/pods\u{1}loki", "filelog/pods\u{1}loki/b"];
    assert_eq!(in_use(&rig), lanes);
    rig.start(ONE);
    assert_eq!(in_use(&rig), ["filelog/pods"], "what is kept is not in use");
}

/// Guarantee: whatever the disk has of an arrangement that a crash cut off, the next start has all
/// positions, none further than where it was.
#[test]
fn a_crash_while_sets_are_arranged_loses_no_position() {
    let from_to: [(&[&str], &[&str]); 5] = [
        (ONE, TWO),
        (TWO, ONE),
        (TWO, &["loki/b"]),
        (TWO, &["new"]),
        (TWO, &["loki", "new"]),
    ];
    for (from, to) in from_to {
        let prepare = |seed| {
            let mut rig = Rig::on(SimFs::new(seed));
            rig.start(from);
            for lane in 0..from.len() {
                for ino in 0..20 {
                    rig.delivered(from, lane, ino, 100 + lane as u64);
                }
            }
            let mut rig = rig.reopen();
            // The first commit replaces everything in one step; what is tested comes after it.
            let other: [(&[u8], _); 1] = [(b"other", Checkpoint::default())];
            rig.store.put_durable(other, None).unwrap();
            rig.core.step(Mono(1));
            rig
        };
        let expect = prepare(0).start(to);
        let mut found = BTreeSet::new();
        for seed in 0..120 {
            let mut rig = prepare(seed);
            rig.start(to);
            let Rig {
                fs, core, wall_ns, ..
            } = rig;
            fs.halt_at(fs.operations() + seed / 4 % 3);
            drop(core.finish(Mono(0)));
            fs.crash(seed);
            let (core, store) = open(&fs);
            found.insert(store.stats().keys);
            let mut rig = Rig {
                fs,
                core,
                store,
                wall_ns,
            };
            assert_eq!(rig.start(to), expect, "{from:?} to {to:?}, {seed}");
        }
        assert_eq!(
            found.len(),
            2,
            "before, after, and nothing between: {found:?}"
        );
    }
}

/// Guarantee: lanes that come while others run begin where they would at a start; those that run are
/// not touched; and the next start finds the positions of all, whatever it is configured for.
#[test]
fn lanes_that_come_and_go_are_found_at_the_next_start() {
    let cases: [(&[&str], &[&str]); 6] = [
        (&["a", "b"], &["a 7:150", "b 7:900"]),
        // Each alone goes on where it was itself.
        (&["a"], &["a 7:150"]),
        (&["b"], &["b 7:900"]),
        (&["b", "c"], &["b 7:900", "c 7:150"]),
        (&["c"], &["c 7:150"]),
        (&["a", "b", "c"], &["a 7:150", "b 7:900", "c 7:900"]),
    ];
    for (exporters, want) in cases {
        let mut rig = Rig::new();
        let mut running = rig.running(&["a"]);
        rig.moved(&running, "a", 100);
        assert_eq!(rig.change(&mut running, &["a", "b"]), ["b 7:100"]);
        rig.moved(&running, "a", 150);
        rig.moved(&running, "b", 900);
        let mut rig = rig.reopen();
        assert_eq!(rig.start(exporters), want);
        let mut rig = rig.reopen();
        assert_eq!(rig.start(exporters), want, "and so at the start after it");
    }
}

/// Guarantee: one that was removed while the agent ran is none that others take the place of later; it
/// goes on where it was when it comes back, while the agent runs or after a start.
#[test]
fn a_lane_that_was_removed_goes_on_when_it_is_back() {
    for restart in [false, true] {
        let mut rig = Rig::new();
        let mut running = rig.running(&["a"]);
        rig.moved(&running, "a", 100);
        rig.change(&mut running, &["a", "b"]);
        rig.moved(&running, "a", 500);
        let went = running.namespaces.clone();
        assert_eq!(rig.change(&mut running, &["a"]), [""; 0]);
        // What it had under way when it went.
        Saver::store(&rig.store, &went[1].1, &at(7, 110, 1));
        assert_eq!(rig.change(&mut running, &["a", "c"]), ["c 7:500"]);
        if restart {
            let mut rig = rig.reopen();
            assert_eq!(rig.start(&["a", "c"]), ["a 7:500", "c 7:500"]);
            let mut rig = rig.reopen();
            assert_eq!(rig.start(&["a", "b"]), ["a 7:500", "b 7:110"]);
        } else {
            assert_eq!(rig.change(&mut running, &["a", "b", "c"]), ["b 7:110"]);
            // The first one, which has the positions of the receiver itself, goes and comes.
            assert_eq!(rig.change(&mut running, &["b", "c"]), [""; 0]);
            assert_eq!(rig.change(&mut running, &["a", "b"]), ["a 7:500"]);
            rig.moved(&running, "a", 600);
            let mut rig = rig.reopen();
            assert_eq!(rig.start(&["b"]), ["b 7:110"]);
            let mut rig = rig.reopen();
            assert_eq!(rig.start(&["a", "b"]), ["a 7:600", "b 7:110"]);
        }
    }
}

/// Guarantee: one that takes the place of another begins where that was, though both were told of at once.
#[test]
fn a_lane_takes_the_place_of_one_that_goes_with_the_same_change() {
    let mut rig = Rig::new();
    let mut running = rig.running(&["a", "b"]);
    rig.moved(&running, "a", 500);
    rig.moved(&running, "b", 100);
    assert_eq!(rig.change(&mut running, &["a", "c"]), ["c 7:100"]);
}
