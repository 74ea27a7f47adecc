//! What arrives of containers at a stand-in for Loki, held against what they wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tailwater_testkit::entry::EntryRef;
use tailwater_testkit::loki::behaviour::LokiBehaviour;
use tailwater_testkit::loki::{FakeLoki, LokiOptions};
use tailwater_testkit::tempdir::TempDir;
use tailwater_testkit::time::system_unix_nanos;

use super::Engine;
use crate::agent::Agent;
use crate::rig::tail;
use crate::wait;

/// Many containers start and end within a test.
pub const BOUND: Duration = Duration::from_secs(120);

/// A line of the writer: `NAME NUMBER UNIX_NS`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Written {
    /// Of the container.
    pub name: String,
    /// From 0 with each start of the container.
    pub number: u64,
    /// When, ns since the epoch.
    pub unix_ns: i64,
}

impl Written {
    /// The line of this text; none if it is none of the writer.
    pub fn parse(text: &str) -> Option<Written> {
        let mut words = text.split_whitespace();
        Some(Written {
            name: words.next()?.to_owned(),
            number: words.next()?.parse().ok()?,
            unix_ns: words.next()?.parse().ok()?,
        })
    }
}

/// What is known of a line that arrived.
#[derive(Debug)]
struct Line {
    /// Identities that differ are lines that Loki shows twice.
    identities: Vec<u64>,
    labels: String,
    /// From when it was written.
    delay: Duration,
    /// From when the Engine had it, by the time that it gave it.
    since_engine: Duration,
}

#[derive(Default)]
struct Arrived {
    lines: BTreeMap<Written, Line>,
    /// What no writer wrote.
    strange: Vec<String>,
}

/// A stand-in for Loki that sees what containers wrote, and the directories of an agent that sends to it.
pub struct Sink {
    loki: FakeLoki,
    arrived: Arc<Mutex<Arrived>>,
    dir: TempDir,
}

impl Sink {
    /// One that takes everything.
    ///
    /// # Panics
    /// When there is no port, or no directory.
    pub fn new(label: &str) -> Sink {
        let arrived: Arc<Mutex<Arrived>> = Arc::default();
        let seen = arrived.clone();
        let on_entry =
            move |entry: &EntryRef<'_>| take(&mut seen.lock().expect("not poisoned"), entry);
        let options = LokiOptions {
            behaviour: LokiBehaviour::permissive(),
            on_entry: Some(Arc::new(on_entry)),
            ..LokiOptions::default()
        };
        Sink {
            loki: FakeLoki::start(options).expect("a server"),
            arrived,
            dir: TempDir::new(label).expect("a directory"),
        }
    }

    /// Where it is pushed to.
    pub fn loki(&self) -> &FakeLoki {
        &self.loki
    }

    /// A path beside the agent's state and log.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.join(name)
    }

    /// Starts `up` for the containers of an Engine, in a mode of discovery.
    pub fn up(&self, engine: &Engine, mode: &str) -> Agent {
        let (socket, url) = (engine.socket().display().to_string(), self.loki.url());
        let args = ["--docker", &socket, "--loki", &url, "--discovery", mode];
        Agent::up(&args, &self.dir.join("state"), self.dir.path())
    }

    fn arrived(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().expect("not poisoned")
    }

    /// Waits until the lines with numbers below `lines` of each of these are there.
    ///
    /// # Panics
    /// When that takes longer than [`BOUND`].
    pub fn expect(&self, names: &[&str], lines: u64, agent: &Agent) {
        let missing = || -> Vec<String> {
            let arrived = self.arrived();
            let of = |name: &str| -> usize {
                let own = arrived.lines.keys().filter(|w| w.name == name);
                let numbers: BTreeSet<u64> = own.map(|w| w.number).collect();
                numbers.range(..lines).count()
            };
            let all = names.iter().map(|name| (name, of(name)));
            let short = all.filter(|(_, n)| (*n as u64) < lines);
            short
                .map(|(name, n)| format!("{name}: {n} of {lines}"))
                .collect()
        };
        let done = wait::within(BOUND, || missing().is_empty());
        assert!(done, "{:?}\n{}", missing(), tail(&agent.log()));
    }

    /// Waits until each of these lines is there.
    ///
    /// # Panics
    /// When that takes longer than [`BOUND`].
    pub fn expect_all(&self, written: &[Written], agent: &Agent) {
        let missing = || -> Vec<Written> {
            let arrived = self.arrived();
            let is_missing = |w: &&Written| !arrived.lines.contains_key(w);
            written.iter().filter(is_missing).cloned().collect()
        };
        let done = wait::within(BOUND, || missing().is_empty());
        let missing = missing();
        assert!(
            done,
            "{} of {} lines are missing, such as {:?}\n{}",
            missing.len(),
            written.len(),
            &missing[..missing.len().min(5)],
            tail(&agent.log())
        );
    }

    /// Each line is once in Loki, with the labels of its container, and nothing else is there.
    ///
    /// # Panics
    /// When it is otherwise.
    pub fn assert_once(&self) {
        let arrived = self.arrived();
        assert!(arrived.strange.is_empty(), "{:?}", arrived.strange);
        for (written, line) in &arrived.lines {
            assert_eq!(line.identities.len(), 1, "{written:?}: shown twice");
            let label = format!("container=\"{}\"", written.name);
            assert!(line.labels.contains(&label), "{written:?}: {}", line.labels);
            assert!(line.labels.contains("stream=\"stdout\""), "{}", line.labels);
            assert!(line.labels.contains("image=\"writer\""), "{}", line.labels);
        }
    }

    /// How many lines are there.
    pub fn lines(&self) -> usize {
        self.arrived().lines.len()
    }

    /// From the writing of the first line of each container to its arrival, sorted.
    pub fn first_delays(&self) -> Vec<Duration> {
        self.delays(|w| w.number == 0)
    }

    /// From the writing of each line to its arrival, sorted.
    pub fn all_delays(&self) -> Vec<Duration> {
        self.delays(|_| true)
    }

    /// From when the Engine took each line from its container to its arrival, sorted.
    pub fn delays_since_engine(&self) -> Vec<Duration> {
        let arrived = self.arrived();
        let mut delays: Vec<_> = arrived.lines.values().map(|l| l.since_engine).collect();
        delays.sort();
        delays
    }

    /// Of the lines that took longer than `limit`: how many there are of how many containers, and when the first and the last one
    /// were written, s after the first line of all. For people.
    pub fn slower_than(&self, limit: Duration) -> String {
        let arrived = self.arrived();
        let begin = arrived.lines.keys().map(|w| w.unix_ns).min().unwrap_or(0);
        let slow = arrived.lines.iter().filter(|(_, l)| l.delay > limit);
        let slow: Vec<&Written> = slow.map(|(w, _)| w).collect();
        let names: BTreeSet<&str> = slow.iter().map(|w| w.name.as_str()).collect();
        let at = |ns: Option<i64>| ns.map_or(0.0, |ns| (ns - begin) as f64 / 1e9);
        let (first, last) = (
            at(slow.iter().map(|w| w.unix_ns).min()),
            at(slow.iter().map(|w| w.unix_ns).max()),
        );
        let (lines, names) = (slow.len(), names.len());
        format!(
            "{lines} lines of {names} containers, written {first:.1} s to {last:.1} s after the first of all"
        )
    }

    fn delays(&self, of: impl Fn(&Written) -> bool) -> Vec<Duration> {
        let arrived = self.arrived();
        let wanted = arrived.lines.iter().filter(|(w, _)| of(w));
        let mut delays: Vec<_> = wanted.map(|(_, line)| line.delay).collect();
        delays.sort();
        delays
    }
}

/// Median, 99th percentile and maximum of durations that are sorted, for people.
pub fn spread(sorted: &[Duration]) -> String {
    // The nearest rank: the smallest one that so many of a hundred are not above.
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    };
    let [median, p99, longest] = [50, 99, 100].map(at);
    format!(
        "median {median:.3?}, p99 {p99:.3?}, longest {longest:.3?} of {}",
        sorted.len()
    )
}

fn take(arrived: &mut Arrived, entry: &EntryRef<'_>) {
    let text = String::from_utf8_lossy(entry.line);
    let Some(written) = Written::parse(&text) else {
        arrived.strange.push(text.into_owned());
        return;
    };
    let now = system_unix_nanos();
    let since = |unix_ns: i64| Duration::from_nanos((now - unix_ns).max(0).unsigned_abs());
    let delay = since(written.unix_ns);
    let new = || Line {
        identities: Vec::new(),
        labels: entry.labels.to_owned(),
        delay,
        since_engine: since(entry.ts_ns),
    };
    let line = arrived.lines.entry(written).or_insert_with(new);
    let identity = entry.identity_hash();
    if !line.identities.contains(&identity) {
        line.identities.push(identity);
    }
}
