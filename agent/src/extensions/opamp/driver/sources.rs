//! Our own message of what this agent reads, for a control plane that lists the sources of a fleet. See `docs/OPAMP.md`.
//!
//! What the discovery of `tailwater up` has registered is told as it is in its registry. Other files are told as the
//! receivers have them: a source for each path. They are asked by another thread, and only while a server wants to know.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tailwater_control_plane::discovery::labels;
use tailwater_control_plane::model::{Format, Origin, Source, State};
use tailwater_control_plane::report::{CAPABILITY, Report, Reported, SOURCES_MAX, TYPE};
use tailwater_opamp::proto::CustomMessage;
use tailwater_pipeline::files::{FileState, FileStatus, FilesPage, FilesPart, FilesQuery};
use tokio::task::JoinHandle;

use super::Driver;
use crate::admin::files::Reader;
use crate::lent::Lent;

/// The capability.
pub const SOURCES: &str = CAPABILITY;
/// How often it is looked at what is read.
const INTERVAL: Duration = Duration::from_secs(3);
/// For each file that was found it is as much later: the threads that read are asked.
const INTERVAL_OF_FILE: Duration = Duration::from_millis(3);
/// So often in a row a receiver is not there before its files are taken for gone: while a configuration changes, one takes the
/// place of another.
const SILENT_LOOKS_MAX: u32 = 3;
/// How often it is told how far behind sources are, if nothing else changes for long. What has changed is told soon after how
/// far it is, and then more and more rarely.
const LAG_INTERVAL_MAX: Duration = Duration::from_secs(30);
/// How long receivers have for an answer; a look at all files may be under way.
const PATIENCE: Duration = Duration::from_secs(10);
/// Files of a receiver that are looked at.
const FILES_MAX: usize = 10 * SOURCES_MAX;

/// What was told, and what is being asked.
#[derive(Default)]
pub struct SourcesView {
    asking: Option<JoinHandle<Option<Found>>>,
    next: Duration,
    /// Files as they were seen, by their paths: since when they are in their state, ns since the epoch.
    seen: BTreeMap<String, (State, i64)>,
    told: Option<Report>,
    told_at: Duration,
    /// When it is told again how far behind sources are.
    lag_interval: Duration,
    silent_looks: u32,
}

/// What is there.
struct Found {
    /// Of discovery, if there is one here.
    registered: Vec<Source>,
    files: BTreeMap<String, File>,
    more: bool,
    /// A receiver is not there.
    silent: bool,
}

/// A path that receivers read.
#[derive(Clone, Copy, PartialEq, Debug)]
struct File {
    is_there: bool,
    lag_bytes: u64,
}

impl Driver {
    /// Says what is read when that is another thing, if the server wants to know.
    pub(super) async fn tell_sources(&mut self) {
        if !self.client.is_announced(SOURCES) {
            return;
        }
        let now = self.now();
        match self.sources.asking.take() {
            Some(asking) if asking.is_finished() => {
                // A look that failed is made again.
                if let Ok(Some(found)) = asking.await {
                    self.tell_found(found);
                }
            }
            Some(asking) => self.sources.asking = Some(asking),
            None if now >= self.sources.next => {
                self.sources.next = now + INTERVAL;
                let lent = self.s.lent.clone();
                let asking = tokio::task::spawn_blocking(move || find(&lent));
                self.sources.asking = Some(asking);
            }
            None => {}
        }
    }

    fn tell_found(&mut self, found: Found) {
        let (now, wall_ns) = (self.now(), self.s.clock.wall_ns());
        let view = &mut self.sources;
        let files = u32::try_from(found.files.len()).unwrap_or(u32::MAX);
        view.next = now + INTERVAL.max(INTERVAL_OF_FILE.saturating_mul(files));
        view.silent_looks = match found.silent {
            true => view.silent_looks + 1,
            false => 0,
        };
        if found.silent && view.silent_looks < SILENT_LOOKS_MAX {
            return;
        }
        let report = report(found, &mut view.seen, wall_ns);
        let is_new = view.told.as_ref().is_none_or(|told| told.differs(&report));
        let is_due = now >= view.told_at + view.lag_interval && view.told.as_ref() != Some(&report);
        if !is_new && !is_due {
            return;
        }
        self.client.set_sources(CustomMessage {
            capability: SOURCES.to_owned(),
            r#type: TYPE.to_owned(),
            data: report.to_bytes(),
        });
        (view.told, view.told_at) = (Some(report), now);
        view.lag_interval = match is_new {
            true => INTERVAL,
            false => (2 * view.lag_interval).min(LAG_INTERVAL_MAX),
        };
    }
}

/// Asks everybody; none if somebody does not answer in time.
fn find(lent: &Lent) -> Option<Found> {
    let registered = match lent.registry.get() {
        Some(store) => store.sources().ok()?,
        None => Vec::new(),
    };
    let in_force = lent.shown.get();
    let until = Instant::now() + PATIENCE;
    let (mut files, mut more, mut silent) = (BTreeMap::new(), false, false);
    let asked = in_force.readers.iter().map(ask).collect::<Vec<_>>();
    for told in asked {
        let left = until.saturating_duration_since(Instant::now());
        match told.recv_timeout(left) {
            Ok(page) => {
                more |= page.more;
                merge(&mut files, &page.files);
            }
            Err(RecvTimeoutError::Disconnected) => silent = true,
            Err(RecvTimeoutError::Timeout) => return None,
        }
    }
    Some(Found {
        registered,
        files,
        more,
        silent,
    })
}

fn ask(reader: &Reader) -> Receiver<FilesPage> {
    let (tell, told) = channel();
    let query = FilesQuery {
        paths: None,
        part: FilesPart::After(0),
        limit: FILES_MAX,
    };
    // Nobody waits any more if it fails.
    reader
        .files
        .ask(query, Box::new(move |page| drop(tell.send(page))));
    told
}

/// Adds what one receiver reads for one exporter. Of lanes that read the same, the one that is furthest behind counts.
fn merge(files: &mut BTreeMap<String, File>, rows: &[FileStatus]) {
    let mut own: BTreeMap<&Path, File> = BTreeMap::new();
    for row in rows {
        let is_there = matches!(
            row.state,
            FileState::Open | FileState::Closed | FileState::Waiting
        );
        let is_over = row.lag_bytes == 0 && !is_there;
        if is_over {
            continue;
        }
        let file = own.entry(&row.path).or_insert(File {
            is_there: false,
            lag_bytes: 0,
        });
        file.is_there |= is_there;
        file.lag_bytes = file.lag_bytes.saturating_add(row.lag_bytes);
    }
    for (path, file) in own {
        let known = files
            .entry(path.to_string_lossy().into_owned())
            .or_insert(file);
        known.is_there |= file.is_there;
        known.lag_bytes = known.lag_bytes.max(file.lag_bytes);
    }
}

/// What is told of it. `seen` remembers since when files are as they are.
fn report(mut found: Found, seen: &mut BTreeMap<String, (State, i64)>, wall_ns: i64) -> Report {
    let mut all = Vec::new();
    for source in found.registered {
        let Some(descriptor) = source.descriptor else {
            continue;
        };
        let lags = descriptor.paths.iter().map(|p| found.files.remove(p));
        let lag_bytes = lags.flatten().map(|f| f.lag_bytes).sum();
        if source.state == State::Gone {
            continue;
        }
        all.push(Reported {
            id: source.id,
            kind: source.origin,
            format: descriptor.format,
            paths: descriptor.paths,
            state: source.state,
            generation: source.generation.max(1),
            since_ms: ms(source.since_ns),
            lag_bytes,
            labels: descriptor.labels,
        });
    }
    seen.retain(|path, _| found.files.contains_key(path));
    for (path, file) in found.files {
        let state = match file.is_there {
            true => State::Live,
            false => State::Draining,
        };
        let since = seen.entry(path.clone()).or_insert((state, wall_ns.max(1)));
        if since.0 != state {
            // Whatever the clock does.
            *since = (state, wall_ns.max(since.1.saturating_add(1)));
        }
        all.push(Reported {
            id: format!("file:{path}"),
            kind: Origin::File,
            format: Format::Plain,
            labels: labels::of_file(&path),
            paths: vec![path],
            state,
            generation: since.1,
            since_ms: ms(since.1),
            lag_bytes: file.lag_bytes,
        });
    }
    Report::of(all, u64::from(found.more))
}

fn ms(ns: i64) -> u64 {
    u64::try_from(ns / 1_000_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_control_plane::model::Descriptor;

    fn row(path: &str, state: FileState, lag_bytes: u64) -> FileStatus {
        FileStatus {
            no: 1,
            path: Path::new(path).into(),
            place: None,
            device: 0,
            inode: 0,
            birth_ns: None,
            generation: 0,
            compressed: false,
            size: 0,
            read: 0,
            acknowledged: 0,
            lag_bytes,
            lag: None,
            changed_ns: 0,
            state,
            held_deleted_bytes: 0,
        }
    }

    fn found(rows: &[&[FileStatus]]) -> Found {
        let mut files = BTreeMap::new();
        rows.iter().for_each(|rows| merge(&mut files, rows));
        Found {
            registered: Vec::new(),
            files,
            more: false,
            silent: false,
        }
    }

    /// Guarantee: a path is one source whatever was rotated from it, and as far behind as the lane that is furthest behind;
    /// it drains when no name leads to it, and is not told any more when nothing of it is left.
    #[test]
    fn a_path_is_a_source() {
        let mut seen = BTreeMap::new();
        let rotated = [
            row("/a", FileState::Open, 5),
            row("/a", FileState::Rotated, 7),
            row("/b", FileState::Finished, 0),
        ];
        let behind = [row("/a", FileState::Open, 20)];
        let told = report(found(&[&rotated, &behind]), &mut seen, 1_000_000_000);
        assert_eq!(told.sources.len(), 1);
        let one = &told.sources[0];
        assert_eq!(
            (&*one.id, one.state, one.lag_bytes),
            ("file:/a", State::Live, 20)
        );
        assert_eq!((one.generation, one.since_ms), (1_000_000_000, 1_000));
        assert_eq!(one.labels[labels::FILE], "/a");
        let deleted = [row("/a", FileState::Deleted, 3)];
        let told = report(found(&[&deleted]), &mut seen, 5);
        assert_eq!(told.sources[0].state, State::Draining);
        assert_eq!(told.sources[0].generation, 1_000_000_001);
        let told = report(found(&[&[row("/a", FileState::Deleted, 0)]]), &mut seen, 9);
        assert!(told.sources.is_empty() && seen.is_empty());
    }

    /// Guarantee: what discovery has registered is told as it is there, with how far behind it is, and not as a file besides.
    #[test]
    fn what_is_registered_is_told_as_it_is() {
        let mut found = found(&[&[row("/c.log", FileState::Open, 9)]]);
        let source = |state| Source {
            id: "docker:c".into(),
            origin: Origin::Docker,
            generation: 4,
            described: 4,
            descriptor: Some(Descriptor {
                id: "docker:c".into(),
                origin: Origin::Docker,
                paths: vec!["/c.log".into()],
                format: Format::Docker,
                labels: BTreeMap::from([("service.name".into(), "c".into())]),
            }),
            present: true,
            state,
            since_ns: 2_000_000,
            seen: true,
        };
        found.registered = vec![source(State::Live)];
        let told = report(found, &mut BTreeMap::new(), 1);
        assert_eq!(told.sources.len(), 1);
        let one = &told.sources[0];
        assert_eq!(
            (&*one.id, one.kind, one.lag_bytes),
            ("docker:c", Origin::Docker, 9)
        );
        assert_eq!((one.generation, one.since_ms), (4, 2));
        let gone = Found {
            registered: vec![source(State::Gone)],
            files: BTreeMap::new(),
            more: false,
            silent: false,
        };
        assert!(report(gone, &mut BTreeMap::new(), 1).sources.is_empty());
    }
}
