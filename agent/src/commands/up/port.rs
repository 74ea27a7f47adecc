//! The agent of this process, as the control plane sees it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tailwater_control_plane::agents::{AgentPort, Answer, FileProgress, Silent};
use tailwater_control_plane::model::Manifest;
use tailwater_pipeline::files::{FilesPart, FilesQuery, PathFilter};

use super::{BY, sources};
use crate::admin::shown::Shown;
use crate::control::{Control, Outcome, Request, Wanted};
use crate::offer::Offer;

/// How long an answer may take: a change waits for nobody, but machines may be slow.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// The same for the files of all receivers.
const FILES_MAX: Duration = Duration::from_secs(10);
/// Rows of one receiver at most.
const ROWS_MAX: usize = 100_000;

/// See the module's documentation.
pub struct InProcess {
    control: Control,
    base: String,
    shown: Arc<Shown>,
    /// What a request to read everything again reads.
    offered: Arc<Mutex<Offer>>,
}

impl InProcess {
    /// Offers go to `control`, with `base` under them.
    pub fn new(
        control: Control,
        base: &str,
        shown: Arc<Shown>,
        offered: Arc<Mutex<Offer>>,
    ) -> InProcess {
        InProcess {
            control,
            base: base.to_owned(),
            shown,
            offered,
        }
    }

    fn ask(&self, targets: &str, dry_run: bool) -> Result<Answer, Silent> {
        let (tell, told) = channel();
        self.control.ask(Request {
            wanted: Wanted::Sources(sources(&self.base, targets)),
            by: BY,
            if_generation: None,
            dry_run,
            answer: Box::new(move |answer| drop(tell.send(answer))),
        });
        let answer = told.recv_timeout(ANSWER_MAX);
        let silent = |text: &str| Err(Silent(text.to_owned()));
        match answer.map(|a| a.outcome) {
            Ok(Outcome::Applied(changes) | Outcome::Planned(changes)) => {
                Ok(Answer::Applied(changes))
            }
            Ok(Outcome::Unchanged) => Ok(Answer::Applied(Vec::new())),
            Ok(Outcome::Refused(reasons)) => Ok(Answer::Refused(reasons)),
            Ok(Outcome::Superseded) => silent("another configuration was asked for meanwhile"),
            Ok(Outcome::Conflict | Outcome::NotKept(_)) => {
                silent("it was asked for something else")
            }
            Err(_) => silent("it ends, or takes too long"),
        }
    }
}

impl AgentPort for InProcess {
    fn offer(&mut self, _: &Manifest, targets: &str) -> Result<Answer, Silent> {
        let answer = self.ask(targets, false)?;
        if let Answer::Applied(_) = answer {
            let mut offered = self.offered.lock().unwrap_or_else(|e| e.into_inner());
            *offered = offered.of(sources(&self.base, targets));
        }
        Ok(answer)
    }

    fn validate(&mut self, targets: &str) -> Result<Answer, Silent> {
        self.ask(targets, true)
    }

    fn states(&mut self, paths: &[&Path]) -> Result<Vec<FileProgress>, Silent> {
        let wanted: HashSet<PathBuf> = paths.iter().map(|p| p.to_path_buf()).collect();
        let filter: PathFilter = Arc::new(move |path: &Path| wanted.contains(path));
        let (tell, told) = channel();
        let in_force = self.shown.get();
        for reader in &in_force.readers {
            let tell = tell.clone();
            let query = FilesQuery {
                paths: Some(filter.clone()),
                part: FilesPart::After(0),
                limit: ROWS_MAX,
            };
            reader
                .files
                .ask(query, Box::new(move |page| drop(tell.send(page))));
        }
        drop(tell);
        let until = Instant::now() + FILES_MAX;
        let mut rows = Vec::new();
        for _ in &in_force.readers {
            let left = until.saturating_duration_since(Instant::now());
            let page = told.recv_timeout(left);
            let page = page.map_err(|_| Silent("a receiver does not say what it reads".into()))?;
            rows.extend(page.files.into_iter().map(|f| FileProgress {
                path: f.path.to_path_buf(),
                lag_bytes: f.lag_bytes,
                read: f.read,
                size: f.size,
            }));
        }
        Ok(rows)
    }
}
