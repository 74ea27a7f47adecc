//! A file that was closed to keep within the budget is opened again, where it is now.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::gzip_reader::GzipFile;
use super::super::logfs::{LogFile, LogFs};
use super::Tail;

impl Tail {
    /// Opens the file again after it was closed to keep within the budget. `Ok(false)` if it is gone,
    /// or another file is at its path now.
    pub fn reopen(&mut self, fs: &dyn LogFs) -> io::Result<bool> {
        if self.file.is_some() {
            return Ok(true);
        }
        if self.is_path_of_another() {
            return Ok(false);
        }
        let file = match fs.open(&self.path) {
            // It was at rest when it was closed: nothing of it is left to read.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        let id = file.meta()?.id;
        let known = self.position.id;
        let same = (id.dev, id.ino) == (known.dev, known.ino)
            && (id.birth_ns == known.birth_ns || id.birth_ns == 0 || known.birth_ns == 0);
        if !same {
            return Ok(false);
        }
        let file: Arc<dyn LogFile> = Arc::from(file);
        self.shared.show(&file);
        self.file = Some(match self.position.gzip {
            true => Box::new(GzipFile::new(Box::new(file))),
            false => Box::new(file),
        });
        self.missing_since = None;
        self.vanished = false;
        self.shared.closed.store(false, Ordering::Release);
        self.at_end = true; // confirm the position at the next read
        Ok(true)
    }

    /// True if what is at its path came after it, and may have got its inode: neither a birth time nor
    /// content would tell.
    fn is_path_of_another(&self) -> bool {
        let tells = self.position.id.birth_ns != 0 || self.position.head.len > 0;
        let is_elsewhere = self.path != self.position.path;
        !tells && self.gone_since.is_some() && !is_elsewhere
    }

    /// Where it is was told anew.
    pub fn is_missing_no_more(&mut self) {
        if self.missing_since.take().is_some() {
            self.retry_at = None;
        }
    }
}
