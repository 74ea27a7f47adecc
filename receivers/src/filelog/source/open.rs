//! Which files are open: no more than the budget allows.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tailwater_pipeline::clock::Mono;

use super::super::catalog::FileNo;
use super::{Feedback, FileSource, MISSING_PAUSE};

/// A closed file that is not where it was is given up after this time if the catalog does not tell what
/// became of it.
const MISSING_MAX: Duration = Duration::from_secs(60);

impl FileSource {
    /// Closes files at rest while more descriptors are open than the budget allows.
    pub(super) fn keep_budget(&mut self) {
        let (mut held, mut seen) = (Vec::new(), HashSet::new());
        while self.is_crowded() {
            let Some((no, at)) = self.at_rest.pop_front() else {
                break;
            };
            let Some(tail) = self.tails.get_mut(&no) else {
                continue;
            };
            let stale = tail.active_at != at || tail.file.is_none();
            if stale || !tail.is_at_rest() || tail.gone_since.is_some() {
                continue;
            }
            if self.p.cutter.holds(no) {
                // No turn of it comes when the line is passed on.
                if seen.insert(no) {
                    held.push((no, at));
                }
                continue;
            }
            tail.close();
            self.one_less_open();
        }
        for entry in held.into_iter().rev() {
            self.at_rest.push_front(entry);
        }
    }

    /// True if files at rest are to be closed.
    pub(super) fn is_crowded(&self) -> bool {
        let s = &self.p.settings;
        let needed = usize::from(!self.wait_to_open.is_empty());
        self.open + needed > s.open_files_max
    }

    pub(super) fn one_more_open(&mut self) {
        self.open += 1;
        self.p.settings.open_files.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn one_less_open(&mut self) {
        self.open -= 1;
        self.p.settings.open_files.fetch_sub(1, Ordering::AcqRel);
    }

    /// Has a turn of the first of those that wait to be opened, as long as there is room for it. Some
    /// that waited are open, finished, or need no descriptor by now: those hold nobody up.
    pub(super) fn use_room(&mut self) {
        if !self.wait_to_open.is_empty() {
            // What had to stay open for a line that was held need not any more, and has no turn of its own.
            self.keep_budget();
        }
        while self.open < self.p.settings.open_files_max
            && let Some(no) = self.wait_to_open.pop_front()
        {
            let Some(tail) = self.tails.get_mut(&no) else {
                continue;
            };
            tail.waits_to_open = false;
            if tail.file.is_none() && !tail.queued {
                return self.queue(no);
            }
        }
    }

    /// Opens a file that is closed. False if it is gone.
    pub(super) fn reopen(&mut self, no: FileNo, now: Mono) -> std::io::Result<bool> {
        let Some(tail) = self.tails.get_mut(&no) else {
            return Ok(false);
        };
        if tail.file.is_some() {
            return Ok(true);
        }
        if !tail.reopen(&*self.p.fs)? {
            let since = *tail.missing_since.get_or_insert(now);
            if !tail.vanished && now.since(since) < MISSING_MAX {
                // The catalog finds out where it is, and tells.
                let _ = self.p.feedback.send(Feedback::Missing(no));
                let again = now.after(MISSING_PAUSE);
                tail.retry_at = Some(again);
                self.look_again(no, again);
                return Ok(false);
            }
            tail.gone_since.get_or_insert(now);
            // Its place was taken while it was closed. It was at rest, so nothing of it is left,
            // unless it was never opened for want of descriptors.
            let unread = tail.unread_of_closed();
            if unread > 0 {
                self.p.files.files_abandoned_bytes.inc_by(unread);
                tracing::error!(
                    path = %tail.path.display(), bytes = unread,
                    "the file was gone before it could be opened: too many files are open"
                );
            }
            return Ok(false);
        }
        self.one_more_open();
        Ok(true)
    }
}
