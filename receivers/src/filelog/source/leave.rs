//! When a file needs no more turns for now, or none at all.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tailwater_pipeline::clock::Mono;

use super::super::catalog::FileNo;
use super::super::position::Position;
use super::super::settled::SettledFiles;
use super::super::tail::Hold;
use super::settle::partners;
use super::{Feedback, FileSource};

/// A file without a path is looked at again after half of the time that it was quiet, but not
/// sooner than this or later than that.
const GONE_PAUSE_MIN: Duration = Duration::from_millis(100);
const GONE_PAUSE_MAX: Duration = Duration::from_secs(8);
/// A file that was renamed is let go after so much quiet where others need its descriptor. News of a
/// late line make it be read on.
const LINGER_CROWDED: Duration = Duration::from_secs(2);

impl FileSource {
    /// After a turn that found nothing more: what to wait for.
    pub(super) fn rest(&mut self, no: FileNo, now: Mono) {
        let s = self.p.settings.clone();
        let Some(tail) = self.tails.get_mut(&no) else {
            return;
        };
        if tail.until.is_some() && tail.is_out_of_reach() {
            return self.abandon_closed(no);
        }
        if let Some(at) = tail.retry_at.filter(|at| *at > now) {
            return self.look_again(no, at);
        }
        if let Some(due) = tail.flush_clock.due_at(s.force_flush_period) {
            let at = Mono::default()
                .after(due)
                .max(now.after(Duration::from_millis(1)));
            self.look_again(no, at);
        }
        let Some(tail) = self.tails.get_mut(&no) else {
            return;
        };
        if let Some(since) = tail.gone_since {
            return self.let_go(no, since, now);
        }
        // Nobody has read an empty file: its writer has only begun.
        let was_read = tail.position.offset > 0 && tail.is_at_rest();
        let delivered = s.delete_after_read && was_read;
        if delivered && s.lanes.all_delivered(s.lane, &tail.position) {
            let _ = self.p.feedback.send(Feedback::Delete(no));
            tail.gone_since = Some(now);
            return self.look_again(no, now.after(s.poll_interval));
        }
        tail.window.rest();
        let idle = now.since(tail.active_at);
        if let Some(interval) = s.probe_interval(idle) {
            let at = now.after(interval);
            self.look_again(no, at);
        }
        let Some(tail) = self.tails.get_mut(&no) else {
            return;
        };
        if tail.file.is_some() && self.open + 64 > s.open_files_max {
            let active_at = tail.active_at;
            self.at_rest.push_back((no, active_at));
            self.keep_budget();
        }
    }

    /// A file whose path is gone: finished when it has been at rest for a while.
    fn let_go(&mut self, no: FileNo, since: Mono, now: Mono) {
        let s = self.p.settings.clone();
        let is_crowded = self.is_crowded();
        let Some(tail) = self.tails.get_mut(&no) else {
            return;
        };
        let meta = tail.file.as_ref().and_then(|f| f.meta().ok());
        let deleted = meta.is_some_and(|m| m.links == 0);
        let quiet = now.since(tail.active_at.max(since));
        let linger = if deleted {
            s.linger_deleted
        } else if tail.left && tail.acked.offset == tail.position.offset {
            Duration::ZERO
        } else if is_crowded && !s.polling.load(Ordering::Acquire) {
            s.linger_renamed.min(LINGER_CROWDED)
        } else {
            s.linger_renamed
        };
        let unread = meta.map_or(0, |m| m.size.saturating_sub(tail.acked.offset));
        if deleted {
            self.held_bytes.insert(no, unread);
        }
        // The newest one over the budget is given up, so that older ones get their time.
        let held = || self.held_bytes.values().sum::<u64>();
        let too_much = deleted && unread > 0 && held() > s.hold_bytes_max;
        let too_old = too_much || deleted && now.since(since) > s.hold_age_max && unread > 0;
        if too_old {
            self.p.files.files_abandoned_bytes.inc_by(unread);
            tracing::error!(
                path = %tail.path.display(), bytes = unread,
                "deleted files are held for longer, or more of them, than deleted_files allows; what was not delivered of this one is given up"
            );
        }
        // A line that is held needs its file.
        let is_done = match tail.until {
            None => tail.is_at_rest() && quiet >= linger,
            Some(_) => tail.is_let_go(s.force_flush_period) && !tail.waits_for_mark,
        };
        let is_done = is_done && !self.p.cutter.holds(no);
        if is_done && tail.until.is_some() && tail.hold == Hold::None {
            tail.hold = Hold::LetGo;
            let left = tail.left(self.p.clock.wall_ns());
            let told = Feedback::LetGo(no, Box::new(left));
            let _ = self.p.feedback.send(told);
            return;
        }
        if tail.file.is_none() || is_done || too_old {
            return self.finish(no);
        }
        // Who still writes to it does so soon; a look at each of many costs.
        let pause = (quiet / 2).min(GONE_PAUSE_MAX);
        let pause = pause.max(s.poll_interval).max(GONE_PAUSE_MIN);
        self.look_again(no, now.after(pause));
    }

    pub(super) fn finish(&mut self, no: FileNo) {
        self.end_owed(no);
        let Some(left) = self.end(no) else {
            return;
        };
        let told = Feedback::Finished(no, Box::new(left));
        let _ = self.p.feedback.send(told);
    }

    /// Lets a file go, wherever it stands.
    pub(super) fn end(&mut self, no: FileNo) -> Option<Position> {
        self.held_bytes.remove(&no);
        let mut tail = self.tails.remove(&no)?;
        self.ended_before(&tail);
        self.p.cutter.closed(no);
        self.p.settings.lanes.gone(tail.position.id);
        let partners = partners(&tail);
        self.settle_account(&mut tail);
        let left = tail.left(self.p.clock.wall_ns());
        self.p.saver.finished(&left);
        tail.shared.finished.store(true, Ordering::Release);
        if tail.file.is_some() {
            self.one_less_open();
        }
        if let Some(files) = self.bits.get_mut(&SettledFiles::bit_of(no)) {
            files.retain(|n| *n != no);
        }
        // They need not wait for it any more.
        partners.into_iter().for_each(|other| self.settle(other));
        Some(left)
    }
}
