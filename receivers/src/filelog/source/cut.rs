//! A file whose content is cut away under its reader, as copytruncate does.
//!
//! The shard notices; what becomes of the old content and what is read before the new one is the
//! catalog's to say. The reader of the old content goes on in its copy, as it would in a file that
//! was renamed; the new content is a file of its own.

use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{DropReason, Outcome};
use tailwater_telemetry::metrics::Amount;

use super::super::catalog::{CutAway, FileNo};
use super::super::identity::TRAIL_BYTES;
use super::super::tail::{ContentCopy, Fate, Hold, OnTruncate};
use super::{Feedback, FileSource, Turn};

impl FileSource {
    /// The bytes under a file's position are not what they were.
    pub(super) fn reassess(&mut self, no: FileNo) -> std::io::Result<()> {
        let Some(tail) = self.tails.get_mut(&no) else {
            return Ok(());
        };
        let s = &self.p.settings;
        if s.on_truncate == OnTruncate::Ignore && !tail.window.is_empty() {
            // Other content is taken for the continuation: what is under way cannot be read again
            // from then on. Delivery queues the file again.
            tail.at_end = true;
            return Ok(());
        }
        let anew = match tail.reassess(s.head_bytes, s.on_truncate)? {
            Fate::Cut(anew) => anew,
            // Where other content is taken for the old one, reading goes on in it.
            Fate::Kept => {
                tail.at_end = false;
                return Ok(());
            }
            Fate::Same | Fate::Held => {
                tail.reached_end(self.p.clock.now());
                return Ok(());
            }
        };
        let before = tail.durable(self.p.clock.wall_ns());
        let Some(file) = tail.cut() else {
            return Err(std::io::Error::other("the file is closed"));
        };
        self.p.files.files_truncated.inc();
        tracing::info!(
            path = %tail.path.display(), delivered = before.offset, read = tail.position.offset,
            "the file was truncated; what is left of its content is looked for in its copies"
        );
        self.one_less_open();
        let cut = CutAway {
            no,
            before,
            anew: *anew,
            file,
        };
        let _ = self.p.feedback.send(Feedback::Cut(Box::new(cut)));
        Ok(())
    }

    /// The catalog saw other content in a file than was read.
    pub(super) fn confirm_cut(&mut self, no: FileNo, now: Mono) {
        let head_bytes = self.p.settings.head_bytes;
        let buf = self.pool.take(head_bytes + TRAIL_BYTES);
        let Some(tail) = self.tails.get_mut(&no) else {
            return;
        };
        if matches!(tail.hold, Hold::Cut | Hold::Lost) {
            return;
        }
        if tail.file.is_none() {
            // It is found out when it is opened.
            let _ = self.p.feedback.send(Feedback::Uncut(no));
            return self.queue(no);
        }
        let looked = match tail.read(head_bytes, buf) {
            Ok(Err(buf)) => {
                self.pool.put(buf);
                self.reassess(no)
            }
            Ok(Ok(chunk)) => {
                self.pool.put(chunk.buf);
                Ok(())
            }
            Err(e) => Err(e),
        };
        if let Err(e) = looked {
            self.failed(no, &e, now);
        }
        if self.tails.get(&no).is_some_and(|t| t.hold != Hold::Cut) {
            let _ = self.p.feedback.send(Feedback::Uncut(no));
            self.queue(no);
        }
    }

    /// What is left of the content of a file is in a copy.
    pub(super) fn go_on_in(&mut self, no: FileNo, copy: ContentCopy, now: Mono) {
        let Some(tail) = self.tails.get_mut(&no) else {
            return;
        };
        let matched = copy.matched;
        let was_open = tail.file.is_some();
        tail.go_on_in(copy, now);
        if matched {
            self.p.cutter.opened(tail);
        }
        // At once: the new content takes the place of the old one under its identity, and a time
        // mark of the new content is on disk before anything else is.
        let position = tail.durable(self.p.clock.wall_ns());
        self.p.saver.save_durably(&position);
        if !was_open {
            self.one_more_open();
        }
        self.queue(no);
    }

    /// There is no copy of what a file held.
    pub(super) fn lose(&mut self, no: FileNo) {
        let Some(tail) = self.tails.get_mut(&no) else {
            return;
        };
        tail.lose();
        let unread = tail.unread_of_closed();
        if unread > 0 {
            self.p.files.files_truncated_bytes.inc_by(unread);
        }
        tracing::info!(
            path = %tail.path.display(), offset = tail.position.offset, unread,
            "no copy of what was truncated was found"
        );
        let position = tail.durable(self.p.clock.wall_ns());
        self.p.saver.save_durably(&position);
        let others = self.p.cutter.moved(tail);
        for other in others {
            self.rewind(other, Outcome::Retry);
            self.queue(other);
        }
        self.queue(no);
    }

    /// Lets a file go of which nothing more can be read, when what is under way is settled.
    pub(super) fn end_lost(&mut self, no: FileNo) {
        let Some(tail) = self.tails.get_mut(&no) else {
            return;
        };
        if tail.window.is_empty() && !tail.waits_for_mark {
            self.finish(no);
        }
    }

    /// Asks for generations before the content that is in the file now, when its first bytes are
    /// there: it may have been cut more than once since the catalog looked.
    pub(super) fn ask(&mut self, no: FileNo, now: Mono) -> std::io::Result<Turn> {
        if !self.reopen(no, now)? {
            return Ok(Turn::Rest);
        }
        let head_bytes = self.p.settings.head_bytes;
        let buf = self.pool.take(head_bytes + TRAIL_BYTES);
        let Some(tail) = self.tails.get_mut(&no) else {
            return Ok(Turn::Rest);
        };
        let chunk = match tail.read(head_bytes, buf)? {
            Ok(chunk) => chunk,
            Err(buf) => {
                self.pool.put(buf);
                self.reassess(no)?;
                return Ok(Turn::Blocked);
            }
        };
        tail.failures = 0;
        tail.retry_at = None;
        let turn = if chunk.buf.len() == chunk.skip {
            tail.reached_end(now);
            Turn::Rest
        } else {
            tail.at_end = false;
            tail.active_at = now;
            tail.advance(&chunk.buf, chunk.skip, 0, head_bytes);
            tail.hold = Hold::Asked;
            let _ = self.p.feedback.send(Feedback::Begun(no));
            Turn::Blocked
        };
        self.pool.put(chunk.buf);
        Ok(turn)
    }

    /// Another generation comes before the content of a file, of which nothing was read.
    pub(super) fn wait_for(&mut self, no: FileNo, before: FileNo, now: Mono) {
        let Some(tail) = self.tails.get_mut(&no) else {
            return;
        };
        tail.after = Some(before);
        tail.predecessor = Some(before);
        let is_unread = tail.position.offset == 0 && tail.position.head.len == 0;
        match tail.hold {
            Hold::Asked => tail.hold = Hold::Ask,
            // The first bytes of it are news to the catalog, too.
            Hold::None if is_unread => tail.hold = Hold::Ask,
            Hold::None => _ = self.p.feedback.send(Feedback::Begun(no)),
            Hold::Ask | Hold::Cut | Hold::Lost | Hold::LetGo => {}
        }
        self.follow(no, before, now);
        self.queue(no);
    }

    /// Nothing comes before the content of a file.
    pub(super) fn begin(&mut self, no: FileNo) {
        if let Some(tail) = self.tails.get_mut(&no)
            && tail.hold == Hold::Asked
        {
            tail.hold = Hold::None;
        }
        self.queue(no);
    }

    /// Records that were under way, were handed back and are in no file any more.
    pub(super) fn end_owed(&mut self, no: FileNo) {
        if let Some(tail) = self.tails.get_mut(&no)
            && (tail.copy_end.is_some() || tail.hold == Hold::Lost)
        {
            let (records, bytes) = std::mem::take(&mut tail.owed);
            let owed = Amount::new(records, bytes);
            self.p
                .accounting
                .owed_lost(DropReason::Truncated as usize, owed);
        }
    }
}
