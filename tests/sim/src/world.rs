//! Everything outside of the agent that it can touch: disk, writers, rotation, news, time.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tailwater_pipeline::clock::{Clock, Mono, SimClock};
use tailwater_receivers::filelog::watch::WatchEvent;

use crate::dice::{Dice, chance};
use crate::disk::{Disk, Event, Node};
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::said;
use crate::writers::{Log, LogPlan, Style};

/// Where the logs are, or the links to them.
pub const LOG_DIR: &str = "/var/log/app";
/// Where the logs are if there are links.
pub const TARGET_DIR: &str = "/var/log/pods";
/// Where the positions are.
pub const STATE_DIR: &str = "/var/lib/tailwater/checkpoints";
/// The wall time at the beginning, ns.
pub const START_NS: i64 = 1_767_225_600_000_000_000;

/// What goes wrong with the disk now, each per thousand calls.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct DiskFaults {
    /// Reading a log fails with `EIO`.
    pub read: u64,
    /// A read gives less than there is.
    pub short: u64,
    /// Opening or looking at a log fails with `EACCES`, `EIO` or `EMFILE`.
    pub open: u64,
    /// Listing a directory fails, maybe in the middle.
    pub list: u64,
    /// Appending to, renaming in or synchronising the state fails.
    pub state: u64,
}

/// The simulated inotify.
#[derive(Default)]
pub struct Newsroom {
    /// Directories that are watched.
    pub dirs: BTreeSet<PathBuf>,
    /// News under way, with the time at which they arrive.
    pub queue: VecDeque<(Mono, WatchEvent)>,
    /// A directory was watched after it had been listed.
    pub rescan: bool,
    /// News that are lost without a word, per thousand.
    pub lost: u64,
    /// News arrive up to this much later.
    pub delay_max: Duration,
    /// More than this many under way are replaced by one request to look.
    pub queue_max: usize,
}

/// What happened, for people and as a number that two runs of a seed share.
#[derive(Default)]
pub struct Trace {
    /// Hash of everything told so far.
    pub hash: u64,
    /// The story, if it is wanted.
    pub story: Option<Vec<String>>,
}

impl Trace {
    /// Tells that something happened.
    pub fn tell(&mut self, at: Mono, what: &str, text: impl FnOnce() -> String) {
        let mut hash = self.hash ^ at.0;
        for b in what.bytes() {
            hash = (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        self.hash = hash.rotate_left(17);
        if let Some(story) = &mut self.story {
            let said = said::take().into_iter();
            story.extend(said.map(|text| format!("{:>12} said      {text}", "")));
            story.push(format!(
                "{:>10.3}ms {what:<9} {}",
                at.0 as f64 / 1e6,
                text()
            ));
        }
    }

    /// Adds numbers to the hash.
    pub fn mix(&mut self, numbers: &[u64]) {
        for n in numbers {
            self.hash = (self.hash ^ n)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(23);
        }
    }
}

/// See the module's documentation.
pub struct World {
    /// What decides.
    pub dice: Dice,
    /// Time.
    pub clock: Arc<SimClock>,
    /// The disk.
    pub disk: Disk,
    /// Log files with their writers.
    pub logs: Vec<Log>,
    /// Who knows what was written.
    pub oracle: Oracle,
    /// Number of the agent's life; file handles of earlier ones are dead.
    pub boot: u64,
    /// The agent was killed in the middle of a call: nothing works for it any more.
    pub dead: bool,
    /// Calls left until that happens.
    pub calls_left: Option<u64>,
    /// Chance that somebody acts in the middle of a call of the agent, per thousand.
    pub interference: u64,
    /// What goes wrong with the disk.
    pub faults: DiskFaults,
    /// News of changes.
    pub news: Newsroom,
    /// Nothing goes wrong any more.
    pub calm: bool,
    /// What happened.
    pub trace: Trace,
    next_handle: u64,
}

/// A world that several hold.
#[derive(Clone)]
pub struct SharedWorld(pub Arc<Mutex<World>>);

impl SharedWorld {
    /// The world; only one thread is ever in it.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    /// The world of a plan.
    pub fn new(plan: &Plan, seed: u64, tell: bool) -> World {
        let clock = Arc::new(SimClock::new(START_NS));
        let mut disk = Disk::new(plan.journal);
        disk.now_ns = START_NS;
        disk.no_birth = plan.no_birth;
        let dirs = ["/var", "/var/log", LOG_DIR, TARGET_DIR, "/var/lib"];
        let of_links = plan.logs.iter().filter(|l| l.link.is_some());
        let targets = of_links.filter_map(|l| l.path.parent());
        for dir in dirs.iter().map(Path::new).chain(targets) {
            // The tree is empty but for these.
            let _ = disk.create(dir, Node::Dir);
        }
        disk.commit_all();
        disk.events.clear();
        let mut world = World {
            dice: Dice::new(seed),
            clock,
            disk,
            logs: Vec::new(),
            oracle: Oracle::default(),
            boot: 0,
            dead: false,
            calls_left: None,
            interference: plan.interference,
            faults: DiskFaults::default(),
            news: Newsroom {
                queue_max: 64,
                ..Newsroom::default()
            },
            calm: false,
            trace: Trace::default(),
            next_handle: 1,
        };
        world.trace.story = tell.then(Vec::new);
        // What copytruncate leaves in a copy is read after what is new in the original, and a file
        // that cannot be read holds nobody up.
        // Without birth times, a closed file is told from its compressed copy and from another one
        // with its inode by content alone.
        let confused = plan.no_birth && plan.open_files_max < 16;
        let unordered = |l: &&LogPlan| match l.style {
            Style::CopyTruncate => true,
            Style::Compressed => plan.disk_faults || confused,
            _ => plan.disk_faults,
        };
        let unordered = plan.logs.iter().filter(unordered);
        world.oracle.unordered = unordered.map(|l| l.writer).collect();
        let repeating = |l: &&LogPlan| plan.no_birth && l.style == Style::Compressed;
        let repeating = plan.logs.iter().filter(repeating);
        world.oracle.repeating = repeating.map(|l| l.writer).collect();
        world.oracle.pieces_apart = plan.disk_faults;
        world.oracle.hidden_excused = !plan.verified && plan.limits.rate && !plan.limits.rate_known;
        world.logs = plan.logs.iter().map(|l| Log::new(l.clone())).collect();
        world
    }

    /// Monotonic time.
    pub fn now(&self) -> Mono {
        self.clock.now()
    }

    /// Moves time.
    pub fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.disk.now_ns = self.clock.wall_ns();
    }

    /// A number for an open file.
    pub fn handle(&mut self) -> u64 {
        self.next_handle += 1;
        self.next_handle
    }

    /// Tells that something happened.
    pub fn tell(&mut self, what: &str, text: impl FnOnce() -> String) {
        let now = self.now();
        self.trace.tell(now, what, text);
    }

    /// What the disk did: news for the agent, and content that is gone.
    pub fn settle(&mut self) {
        if !self.disk.destroyed.is_empty() {
            let content = std::mem::take(&mut self.disk.destroyed);
            self.oracle
                .destroyed(&content, &self.disk, self.clock.now());
        }
        if self.disk.events.is_empty() {
            return;
        }
        let now = self.now();
        for (path, event) in std::mem::take(&mut self.disk.events) {
            let is_watched = path
                .parent()
                .is_some_and(|dir| self.news.dirs.contains(dir));
            if !is_watched || chance(&mut self.dice.news, self.news.lost) {
                continue;
            }
            let event = match event {
                Event::Modified => WatchEvent::Modified(path),
                Event::Appeared => WatchEvent::Appeared(path),
                Event::Gone => WatchEvent::Gone(path),
            };
            if event_is_queued(&self.news.queue, &event) {
                continue;
            }
            let delay = self
                .dice
                .news
                .below(self.news.delay_max.as_nanos() as u64 + 1);
            let last = self.news.queue.back().map_or(Mono(0), |q| q.0);
            let at = now.after(Duration::from_nanos(delay)).max(last);
            self.news.queue.push_back((at, event));
            if self.news.queue.len() > self.news.queue_max {
                self.news.queue.clear();
                self.news.queue.push_back((now, WatchEvent::Rescan));
                self.tell("overflow", String::new);
            }
        }
    }

    /// One step of one of the writers and rotators; false if none has anything to do.
    pub fn act(&mut self) -> bool {
        if self.logs.is_empty() {
            return false;
        }
        let i = self.dice.writers.below(self.logs.len() as u64) as usize;
        let mut log = std::mem::take(&mut self.logs[i]);
        let acted = log.act(self);
        self.logs[i] = log;
        self.settle();
        acted
    }

    /// Whatever has to be done by now, such as the second half of a line.
    pub fn act_due(&mut self) {
        for i in 0..self.logs.len() {
            let mut log = std::mem::take(&mut self.logs[i]);
            log.act_due(self);
            self.logs[i] = log;
        }
        self.settle();
    }

    /// When [`World::act_due`] has something to do.
    pub fn act_at(&self) -> Option<Mono> {
        self.logs.iter().filter_map(Log::due_at).min()
    }

    /// Called by the agent's calls: the agent may be dead, others may be quicker.
    pub fn enter(&mut self, boot: u64) -> bool {
        if let Some(left) = &mut self.calls_left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.dead = true;
                self.calls_left = None;
                self.tell("killed", || "in the middle of a call".into());
            }
        }
        if self.dead || boot != self.boot {
            return false;
        }
        if chance(&mut self.dice.inside, self.interference) {
            self.act();
        }
        true
    }

    /// The agent's process is gone: nothing of it has a file open.
    pub fn end_boot(&mut self) {
        self.boot += 1;
        self.oracle.fresh.clear();
        (self.dead, self.calls_left) = (false, None);
        self.disk.close_all(false);
        self.news.dirs.clear();
        self.news.queue.clear();
        self.news.rescan = false;
        self.settle();
    }

    /// The power fails: everything that ran is gone.
    pub fn power_cut(&mut self) {
        let before: Vec<Vec<u8>> = self.disk.inodes.iter().map(|i| i.data.clone()).collect();
        self.disk.close_all(true);
        self.disk.power_cut(&mut self.dice.power);
        let now = self.clock.now();
        for log in &mut self.logs {
            log.power_cut(now);
            if log.plan.style == Style::Delete {
                // What was deleted may be back, and is read after what came later.
                self.oracle.unordered.insert(log.plan.writer);
            }
        }
        self.oracle.power_cut(&mut self.disk, &before, now);
        self.end_boot();
    }

    /// What the kernel does by itself: content and names reach the disk.
    pub fn write_back(&mut self) {
        if self.dice.power.below(2) == 0 {
            self.disk.commit_all();
        }
        for uid in 0..self.disk.inodes.len() {
            if !self.disk.inodes[uid].freed && self.dice.power.below(2) == 0 {
                self.disk.write_back(uid);
            }
        }
    }
}

fn event_is_queued(queue: &VecDeque<(Mono, WatchEvent)>, event: &WatchEvent) -> bool {
    // Equal news in a row are one.
    matches!(event, WatchEvent::Modified(_)) && queue.back().is_some_and(|(_, e)| e == event)
}
