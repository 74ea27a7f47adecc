//! Settings that change while files are read, and what that means for those which they do not select.

use tailwater_pipeline::clock::Mono;

use super::super::catalog::{FileNo, NewSettings};
use super::super::tail::Hold;
use super::FileSource;

impl FileSource {
    /// Goes on with other settings. Each file has a turn: when it is looked at again depends on them.
    pub(super) fn take_over(&mut self, next: NewSettings) {
        let NewSettings {
            settings,
            fs,
            chains: (chain, header_chain),
        } = next;
        self.p
            .cutter
            .change(settings.clone(), fs.clone(), chain, header_chain);
        (self.p.settings, self.p.fs) = (settings, fs);
        let mut files: Vec<FileNo> = self.tails.keys().copied().collect();
        files.sort_unstable();
        files.into_iter().for_each(|no| self.queue(no));
    }

    /// A file is not selected any more.
    pub(super) fn end_here(&mut self, no: FileNo, now: Mono) {
        if let Some(tail) = self.tails.get_mut(&no) {
            tail.end_here(now);
        }
        self.queue(no);
    }

    /// A file is selected (again): it is read on.
    pub(super) fn go_on(&mut self, no: FileNo) {
        if let Some(tail) = self.tails.get_mut(&no)
            && tail.until.take().is_some()
        {
            if tail.hold == Hold::LetGo {
                tail.hold = Hold::None;
            }
            tail.at_end = false;
            self.queue(no);
        }
    }

    /// Lets a closed file go that is not selected any more and cannot be opened, by the new settings
    /// perhaps.
    pub(super) fn abandon_closed(&mut self, no: FileNo) {
        if let Some(tail) = self.tails.get(&no)
            && tail.unread_of_closed() > 0
        {
            let unread = tail.unread_of_closed();
            self.p.files.files_abandoned_bytes.inc_by(unread);
            tracing::error!(
                path = %tail.path.display(), bytes = unread,
                "a file that is not selected any more cannot be opened; what was not read of it is given up"
            );
        }
        self.finish(no);
    }
}
