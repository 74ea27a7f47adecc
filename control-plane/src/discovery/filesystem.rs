//! Finds files that patterns match, and says when they come and go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::walk::{Found, Identity, Pattern, find};
use super::watch::Watch;
use super::{Mode, Publisher, Stop, labels};
use crate::metrics::{Activity, Metrics};
use crate::model::{Descriptor, Format, Origin};

/// What happens within so long of the first news is one look.
const COALESCE: Duration = Duration::from_millis(5);
/// Where nobody tells, it is looked this often.
const BLIND_INTERVAL: Duration = Duration::from_secs(1);
/// The longest wait, so that a stop is noticed.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// A look takes at most this part of the time.
const SHARE: u32 = 10;

/// See the module's documentation.
pub struct Filesystem {
    patterns: Vec<Pattern>,
    mode: Mode,
    publisher: Publisher,
    metrics: Metrics,
    known: BTreeMap<PathBuf, Identity>,
    complained: bool,
}

impl Filesystem {
    /// For these patterns.
    pub fn new(
        patterns: Vec<Pattern>,
        mode: Mode,
        publisher: Publisher,
        metrics: Metrics,
    ) -> Filesystem {
        Filesystem {
            patterns,
            mode,
            publisher,
            metrics,
            known: BTreeMap::new(),
            complained: false,
        }
    }

    /// Looks until it is told to stop.
    pub fn run(mut self, stop: &Stop) {
        let mut watch = self.watch();
        let mut whole_at = Instant::now();
        while !stop.is_set() {
            let begin = Instant::now();
            let whole = begin >= whole_at;
            let mut found = find(&self.patterns);
            // What happened before a directory was watched is seen by another look.
            while let Some(watch) = &mut watch
                && watch.follow(&found.dirs)
            {
                found = find(&self.patterns);
            }
            self.compare(found, whole);
            let took = begin.elapsed();
            if whole {
                let interval = self.mode.poll_interval();
                let never = Duration::from_secs(365 * 24 * 3_600);
                whole_at = begin + interval.unwrap_or(never);
            }
            let blind = watch.as_ref().is_none_or(|w| w.is_partial);
            let next = match blind {
                true => whole_at.min(begin + BLIND_INTERVAL),
                false => whole_at,
            };
            // However much happens, looking is not all that is done.
            if stop.wait(COALESCE.max(took * SHARE).min(BLIND_INTERVAL)) {
                return;
            }
            self.sleep(&watch, next, stop);
        }
    }

    fn watch(&self) -> Option<Watch> {
        if !self.mode.listens() {
            return None;
        }
        match Watch::new() {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(
                    %error, activity = Activity::FilesystemWatch.name(),
                    "there are no notifications; it is looked once a second"
                );
                self.metrics.failed(Activity::FilesystemWatch);
                None
            }
        }
    }

    /// Waits for news, until it is time to look in any case.
    fn sleep(&self, watch: &Option<Watch>, until: Instant, stop: &Stop) {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || stop.is_set() {
                return;
            }
            let wait = left.min(WAIT_MAX);
            match watch {
                Some(watch) if watch.wait(wait) => return,
                Some(_) => {}
                None => {
                    stop.wait(wait);
                }
            }
        }
    }

    /// Says what is new and what is gone since the last look; all of it if `whole`.
    fn compare(&mut self, found: Found, whole: bool) {
        self.metrics.did(Activity::FilesystemWatch);
        if found.too_many && !self.complained {
            self.complained = true;
            tracing::error!(
                activity = Activity::FilesystemWatch.name(),
                "the patterns match too many files; not all of them are tailed"
            );
        }
        // Before anything is said: all of it is of this look.
        let generation = self.publisher.generation();
        for (path, identity) in &found.files {
            if self.known.get(path) != Some(identity) {
                self.appeared(path, *identity, generation);
            }
        }
        let gone: Vec<(PathBuf, Identity)> = self
            .known
            .iter()
            .filter(|(path, _)| !found.files.contains_key(*path))
            .map(|(path, identity)| (path.clone(), *identity))
            .collect();
        for (path, identity) in gone {
            if let Some(path) = path.to_str() {
                let key = key(identity, generation, "gone", path);
                self.publisher.absent(&key, generation, id(path));
            }
        }
        if whole {
            let paths = found.files.keys().filter_map(|p| p.to_str());
            let ids = paths.map(id).collect();
            self.publisher.snapshot(generation, ids);
        }
        self.known = found.files;
    }

    fn appeared(&mut self, path: &Path, identity: Identity, generation: i64) {
        let Some(text) = path.to_str() else {
            let id = format!("file:{}", path.display());
            let reason = "its path is no UTF-8, and cannot be in a configuration";
            self.publisher.unreadable(id, reason.to_owned());
            return;
        };
        let source = Descriptor {
            id: id(text),
            origin: Origin::File,
            paths: vec![text.to_owned()],
            format: Format::Plain,
            labels: labels::of_file(text),
        };
        let key = key(identity, generation, "there", text);
        self.publisher.present(&key, generation, source);
    }
}

fn id(path: &str) -> String {
    format!("file:{path}")
}

fn key(identity: Identity, generation: i64, what: &str, path: &str) -> String {
    let Identity { device, inode } = identity;
    // Links may give one file several paths.
    format!("file/{device}:{inode}/{generation}/{what}/{path}")
}

#[cfg(test)]
mod tests;
