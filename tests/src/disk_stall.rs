//! How long the disk under the tests did not answer: of a machine that is shared, or that still writes out what was
//! built, it may be half a minute, in which nothing that has to be durable can go on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

/// Time between two questions.
const EVERY: Duration = Duration::from_millis(200);

/// Answers that take no longer are usual.
const USUAL: Duration = Duration::from_millis(500);

/// What the questions of this process have shown.
#[derive(Clone, Copy)]
struct Seen {
    /// All that is over.
    total: Duration,
    /// When the question was asked that is not answered yet.
    asked: Option<Instant>,
}

static SEEN: Mutex<Seen> = Mutex::new(Seen {
    total: Duration::ZERO,
    asked: None,
});

fn seen() -> MutexGuard<'static, Seen> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    fn stalled(self) -> Duration {
        let waiting = self.asked.map_or(Duration::ZERO, |asked| asked.elapsed());
        self.total + Some(waiting).filter(|w| *w > USUAL).unwrap_or_default()
    }
}

/// Counts from a moment on.
pub struct Watch(Duration);

impl Watch {
    /// Begins to count; the first in a process begins to ask, until it ends.
    pub fn start() -> Watch {
        static ASKING: Once = Once::new();
        ASKING.call_once(|| {
            let thread = std::thread::Builder::new().name("disk-stall".to_owned());
            // Without it nothing counts as stalled.
            let _ = thread.spawn(|| file().and_then(ask));
        });
        Watch(seen().stalled())
    }

    /// How long the disk has not answered since.
    pub fn stalled(&self) -> Duration {
        seen().stalled().saturating_sub(self.0)
    }
}

/// A file without a name, where the tests have theirs.
fn file() -> io::Result<File> {
    let name = format!("tailwater-disk-stall-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

/// Asks until the disk says no. What grows needs the journal, as new positions do.
fn ask(mut file: File) -> io::Result<()> {
    loop {
        let asked = Instant::now();
        seen().asked = Some(asked);
        let answer = file.write_all(b"?").and_then(|()| file.sync_all());
        let took = asked.elapsed();
        let mut now = seen();
        now.asked = None;
        if took > USUAL {
            now.total += took;
        }
        drop(now);
        answer?;
        std::thread::sleep(EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_answered_counts_when_it_takes_longer_than_usual() {
        let ago = |time| Instant::now().checked_sub(time);
        let seen = |total, asked| Seen { total, asked }.stalled();
        assert_eq!(seen(USUAL, None), USUAL);
        assert_eq!(seen(USUAL, ago(USUAL / 2)), USUAL);
        let long = seen(USUAL, ago(4 * USUAL));
        assert!(long >= 5 * USUAL, "{long:?}");
    }
}
