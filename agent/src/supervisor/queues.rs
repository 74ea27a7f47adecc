//! The queues on disk that there were, over restarts: what is left in one that no exporter has is shown
//! whatever took the exporter away, and whether or not its storage is still configured.
//!
//! `queues.json` in the state directory names them: exporter, signal, directory. It is written whole or not
//! at all. A queue that is empty, or gone, is forgotten at the next start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tailwater_pdata::Signal;
use tailwater_pipeline::Stored;
use tailwater_pipeline::fs::OsFs;
use tailwater_pipeline::graph::DiskQueue;
use tailwater_pipeline::queue;

use super::Agent;
use crate::offer::keep;

/// The file below the state directory.
const FILE: &str = "queues.json";

/// Where the queues are kept in mind.
pub(super) struct KnownQueues {
    path: PathBuf,
    /// What the file says, as far as it is known.
    written: Option<Vec<DiskQueue>>,
}

impl KnownQueues {
    /// In the state directory `state`.
    pub fn below(state: &Path) -> KnownQueues {
        KnownQueues {
            path: state.join(FILE),
            written: None,
        }
    }

    /// What was kept.
    ///
    /// # Errors
    /// What the system says, or that it is no list of queues.
    fn load(&mut self) -> io::Result<Vec<DiskQueue>> {
        let text = match fs::read(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read?,
        };
        let value: Value = serde_json::from_slice(&text)?;
        let list = value.as_array().map(|list| list.iter().map(read).collect());
        let queues: Option<Vec<DiskQueue>> = list.unwrap_or_default();
        let queues = queues.ok_or_else(|| io::Error::other("it is no list of queues"))?;
        self.written = Some(queues.clone());
        Ok(queues)
    }

    /// Keeps `queues`, if that is news. One whose directory has no name in UTF-8 is not kept.
    ///
    /// # Errors
    /// What the system says.
    fn save(&mut self, queues: Vec<DiskQueue>) -> io::Result<()> {
        if self.written.as_ref() == Some(&queues) || (self.written.is_none() && queues.is_empty()) {
            return Ok(());
        }
        let list = queues.iter().filter_map(|q| {
            let directory = q.dir.to_str()?;
            let signal = q.signal.as_str();
            Some(json!({"exporter": q.exporter, "signal": signal, "directory": directory}))
        });
        let text = Value::from_iter(list).to_string();
        keep(&self.path, text.as_bytes())?;
        self.written = Some(queues);
        Ok(())
    }
}

fn read(value: &Value) -> Option<DiskQueue> {
    let text = |key: &str| value.get(key)?.as_str();
    let signals = [Signal::Logs, Signal::Metrics, Signal::Traces];
    let signal = text("signal")?;
    Some(DiskQueue {
        dir: text("directory")?.into(),
        exporter: text("exporter")?.to_owned(),
        signal: signals.into_iter().find(|s| s.as_str() == signal)?,
    })
}

impl Agent {
    /// Looks into the queues of before that no exporter has now.
    pub(super) fn find_left_queues(&mut self) {
        let Some(known) = &mut self.queues else {
            return;
        };
        let queues = known.load().unwrap_or_else(|error| {
            let path = known.path.display();
            tracing::warn!(
                %error, %path,
                "which queues on disk there were is not known; what no exporter has of them is not shown"
            );
            Vec::new()
        });
        for queue in queues {
            if self.graph.has_queue(&queue) {
                continue;
            }
            match queue::look(Arc::new(OsFs), &queue.dir) {
                Ok(None) => {}
                Ok(Some(stats)) => {
                    let (requests, bytes) = (stats.items, stats.bytes);
                    self.graph.note_left(queue, Stored { requests, bytes });
                }
                Err(error) => tracing::warn!(
                    exporter = queue.exporter, signal = queue.signal.as_str(), %error,
                    "what is left in the queue on disk of an exporter that is not configured is not known"
                ),
            }
        }
        self.keep_queues();
    }

    /// Keeps in mind which queues there are.
    pub(super) fn keep_queues(&mut self) {
        let queues = self.graph.disk_queues();
        let Some(known) = &mut self.queues else {
            return;
        };
        if let Err(error) = known.save(queues) {
            tracing::warn!(
                %error, path = %known.path.display(),
                "which queues on disk there are could not be kept; what is left in them may not be shown \
                 after a restart"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_testkit::tempdir::TempDir;

    fn queue(exporter: &str) -> DiskQueue {
        DiskQueue {
            dir: PathBuf::from("/var/lib/q").join(exporter),
            exporter: exporter.to_owned(),
            signal: Signal::Traces,
        }
    }

    /// Guarantee: what is kept comes back; it is written when it is news only; what is damaged is an error.
    #[test]
    fn queues_that_are_kept_come_back() {
        let dir = TempDir::new("queues").unwrap();
        let file = dir.join(FILE);
        let mut known = KnownQueues::below(dir.path());
        assert_eq!(known.load().unwrap(), []);
        known.save(Vec::new()).unwrap();
        assert!(!file.exists(), "there is nothing to keep");
        let two = vec![queue("otlp/a"), queue("otlp/b")];
        known.save(two.clone()).unwrap();
        let mut again = KnownQueues::below(dir.path());
        assert_eq!(again.load().unwrap(), two);
        fs::remove_file(&file).unwrap();
        again.save(two).unwrap();
        assert!(!file.exists(), "it is as it was");
        again.save(vec![queue("otlp/b")]).unwrap();
        again.save(Vec::new()).unwrap();
        assert_eq!(known.load().unwrap(), []);
        for bad in [
            "{",
            "[{}]",
            r#"[{"exporter":"a","directory":"/q","signal":"x"}]"#,
        ] {
            fs::write(&file, bad).unwrap();
            assert!(known.load().is_err(), "{bad}");
        }
    }
}
