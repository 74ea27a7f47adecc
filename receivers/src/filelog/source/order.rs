//! The generations of a log are read one after the other, whatever comes late to one of them.

use std::sync::atomic::Ordering;

use tailwater_pipeline::clock::Mono;

use super::super::catalog::FileNo;
use super::super::tail::Tail;
use super::{CLOSED_PAUSE, FileSource};

/// So many generations before a file are looked at for what came late to them.
const EARLIER_MAX: usize = 64;

impl FileSource {
    /// True if a file has to wait for one before it. It is looked at again then.
    pub(super) fn waits_for_earlier(&mut self, no: FileNo, now: Mono) -> bool {
        let waiting = self.tails.get(&no).and_then(|t| Some((t, t.after?)));
        let Some((tail, before)) = waiting else {
            return false;
        };
        tail.shared.waits.store(true, Ordering::Release);
        let before_it = self.tails.get(&before).filter(|t| !self.is_due(t, now));
        if let Some(t) = before_it {
            let may_wait_to_open = t.file.is_none() && t.after.is_none();
            if t.wants_last_read(now) || may_wait_to_open {
                self.queue(before);
            }
            self.look_again(no, now.after(CLOSED_PAUSE));
            return true;
        }
        let Some(earlier) = self.grown_before(no, before, now) else {
            self.follows(no, before);
            return false;
        };
        if let Some(tail) = self.tails.get_mut(&no) {
            tail.after = Some(earlier);
        }
        self.followers.entry(earlier).or_insert(no);
        self.queue(earlier);
        self.look_again(no, now.after(CLOSED_PAUSE));
        true
    }

    /// True if what comes after a file may be read.
    fn is_due(&self, t: &Tail, now: Mono) -> bool {
        // What its last write left unfinished is a line of its own soon.
        let flush = self.p.settings.force_flush_period;
        t.is_read_out(now) && !t.waits_for_flush(flush) && !t.waits_for_mark
    }

    /// What comes before `before` may have grown since that was read, as a log does that a generation
    /// was placed behind when it was found late.
    fn grown_before(&self, no: FileNo, before: FileNo, now: Mono) -> Option<FileNo> {
        let mut at = match self.tails.contains_key(&before) {
            true => before,
            false => no,
        };
        for _ in 0..EARLIER_MAX {
            at = self.tails.get(&at)?.predecessor.filter(|n| *n != no)?;
            let tail = self.tails.get(&at)?;
            if tail.gone_since.is_some() && !self.is_due(tail, now) {
                return Some(at);
            }
        }
        None
    }

    /// A file waits no longer for the one before it. Its lines get no earlier times than that gave to
    /// its own, should the clock have been set back.
    fn follows(&mut self, no: FileNo, before: FileNo) {
        let floor = self.tails.get(&before).and_then(|t| t.next_stamp());
        if let Some(tail) = self.tails.get_mut(&no) {
            tail.after = None;
            tail.shared.waits.store(false, Ordering::Release);
            tail.stamps_from = tail.stamps_from.max(floor);
        }
        if self.followers.get(&before) == Some(&no) {
            self.followers.remove(&before);
        }
    }

    /// A file is let go: what comes after it goes by what is known of it until now.
    pub(super) fn ended_before(&mut self, ended: &Tail) {
        let Some(next) = self.followers.get(&ended.no).copied() else {
            return;
        };
        let is_gone = |n: &FileNo| self.tails.get(n).is_some_and(|t| t.gone_since.is_some());
        let earlier = ended.predecessor.filter(|n| *n != next).filter(is_gone);
        if let Some(tail) = self.tails.get_mut(&next) {
            tail.stamps_from = tail.stamps_from.max(ended.next_stamp());
            if tail.predecessor == Some(ended.no) && earlier.is_some() {
                tail.predecessor = earlier;
            }
        }
    }
}
