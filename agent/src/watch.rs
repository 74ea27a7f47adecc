//! `--watch`: what the command line names is read again when its files change.
//!
//! Files are looked at twice a second, links followed: a name replaced at once, a link that leads
//! elsewhere (as Kubernetes replaces a ConfigMap) and a file written over are all seen, on every file
//! system. What was found is taken when it is the same at two looks, so that half a file is not.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::commands::run::reread;
use crate::control::Control;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The files that were read at the newest attempt, as they were then.
pub type Watched = Arc<Mutex<Vec<(PathBuf, Seen)>>>;

/// What tells one content of a file from another without reading it. None: there is none.
pub type Seen = Option<(u64, u64, u64, i64, i64)>;

/// How the file at `path` is now.
pub fn look_at(path: &Path) -> Seen {
    let m = fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec()))
}

/// Decides when to read again.
#[derive(Default)]
struct Looks {
    last: Vec<(PathBuf, Seen)>,
    asked: Vec<(PathBuf, Seen)>,
}

impl Looks {
    /// True if files differ from what was read and are the same as at the look before; once for each
    /// state.
    fn look(&mut self, read: &[(PathBuf, Seen)], now: Vec<(PathBuf, Seen)>) -> bool {
        let steady = now == self.last;
        let whole = now.iter().all(|(_, seen)| seen.is_some());
        let ask = now != read && steady && whole && now != self.asked;
        if ask {
            self.asked.clone_from(&now);
        }
        self.last = now;
        ask
    }
}

/// Starts looking at `watched`.
///
/// # Errors
/// There is no thread.
pub fn watch(watched: Watched, control: Control) -> std::io::Result<()> {
    let run = move || {
        let mut looks = Looks::default();
        loop {
            let read = watched.lock().unwrap_or_else(|e| e.into_inner()).clone();
            let now = read.iter().map(|(path, _)| (path.clone(), look_at(path)));
            if looks.look(&read, now.collect()) {
                control.ask(reread("--watch"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    };
    let thread = std::thread::Builder::new().name("watch-config".into());
    thread.spawn(run).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: i64) -> Vec<(PathBuf, Seen)> {
        vec![("a".into(), Some((1, 1, 1, time, 0)))]
    }

    /// Guarantee: a change is taken once, when it is over; what is gone for a moment is waited for.
    #[test]
    fn a_change_is_taken_once_and_whole() {
        let mut looks = Looks::default();
        let gone = vec![(PathBuf::from("a"), None)];
        let read = at(1);
        assert!(!looks.look(&read, at(1)));
        assert!(!looks.look(&read, at(1)));
        assert!(!looks.look(&read, at(2)), "it may be half written");
        assert!(!looks.look(&read, at(3)));
        assert!(looks.look(&read, at(3)));
        assert!(!looks.look(&read, at(3)), "it was asked for");
        let read = at(3);
        assert!(!looks.look(&read, gone.clone()));
        assert!(!looks.look(&read, gone));
        assert!(!looks.look(&read, at(4)));
        assert!(looks.look(&read, at(4)));
    }
}
