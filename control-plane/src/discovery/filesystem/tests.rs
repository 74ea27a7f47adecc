use std::fs;
use std::sync::Arc;

use tailwater_telemetry::metrics::MetricsRegistry;

use super::*;
use crate::bus::{Bus, EmbeddedBus, ReadFrom, Subscription};
use crate::model::Event;
use crate::store::SqliteStore;

fn wall() -> i64 {
    1
}

/// Starts a watch of `dir`; gives what it says, and what ends it.
fn watch(dir: &Path, mode: Mode) -> (Box<dyn Subscription>, Stop, std::thread::JoinHandle<()>) {
    let bus = EmbeddedBus::new(Arc::new(SqliteStore::in_memory().unwrap()), wall);
    let events = bus.subscribe("test", ReadFrom::Event(0)).unwrap();
    let stop = Stop::default();
    let publisher = Publisher::new(Arc::new(bus), Origin::File, wall, 0, stop.clone());
    let metrics = Metrics::new(Arc::new(MetricsRegistry::default()));
    let pattern = Pattern::new(&format!("{}/**/*.log", dir.display())).unwrap();
    let files = Filesystem::new(vec![pattern], mode, publisher, metrics);
    let told = stop.clone();
    let thread = std::thread::spawn(move || files.run(&told));
    (events, stop, thread)
}

/// The next thing that is said of a file: its name, and whether it is there.
fn next(events: &mut dyn Subscription) -> (String, bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        for recorded in events.next(1, Duration::from_secs(1)).unwrap().events {
            let name = |id: &str| id.rsplit('/').next().unwrap().to_owned();
            match &recorded.event {
                Event::Present { source, .. } => return (name(&source.id), true),
                Event::Absent { id, .. } => return (name(id), false),
                _ => {}
            }
        }
    }
    panic!("nothing is said");
}

/// Guarantee: in each mode files are found that are there, that come, also in directories that come with them,
/// and that go; a new file at a path is said again.
#[test]
fn files_come_and_go() {
    for mode in [Mode::SimplePolling, Mode::EventStream, Mode::Hybrid] {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::write(root.join("there.log"), "").unwrap();
        let (mut events, stop, thread) = watch(&root, mode);
        let said = |name: &str, there| (name.to_owned(), there);
        assert_eq!(next(&mut *events), said("there.log", true));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/deep.log"), "").unwrap();
        assert_eq!(next(&mut *events), said("deep.log", true));
        fs::write(root.join("other.txt"), "").unwrap();
        fs::remove_file(root.join("there.log")).unwrap();
        assert_eq!(next(&mut *events), said("there.log", false));
        // The new file is there before the old one is let go, so it cannot have its inode.
        fs::write(root.join("new"), "").unwrap();
        fs::rename(root.join("new"), root.join("a/b/deep.log")).unwrap();
        assert_eq!(next(&mut *events), said("deep.log", true));
        stop.stop();
        thread.join().unwrap();
    }
}

/// Guarantee: a stop does not wait for news.
#[test]
fn it_ends_when_nothing_happens() {
    let dir = tempfile::tempdir().unwrap();
    let (_events, stop, thread) = watch(dir.path(), Mode::EventStream);
    stop.stop();
    let end = Instant::now() + Duration::from_secs(60);
    while !thread.is_finished() {
        assert!(Instant::now() < end, "it goes on");
        std::thread::yield_now();
    }
    thread.join().unwrap();
}
