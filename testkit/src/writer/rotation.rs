//! Rotation: what becomes of the live file and of its predecessors.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{LogWriter, WrittenFile, open};
use crate::time::{NANOS_PER_SECOND, kubelet_suffix};

/// How rotated files are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Naming {
    /// `app.log.1` is the newest, the others move up: logrotate, Docker.
    #[default]
    Numbered,
    /// `0.log.20240102-150405`, a name for good: the kubelet.
    Kubernetes,
}

/// When rotated files are compressed with gzip, to `<name>.gz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compress {
    /// Never, or when the test calls [`LogWriter::compress_rotated`].
    #[default]
    Never,
    /// At once.
    AtOnce,
    /// At the next rotation, so that the newest stays plain: logrotate's `delaycompress`, and
    /// what the kubelet does.
    Delayed,
}

/// What [`LogWriter::rotate`] does with the live file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Renames it, goes on writing to it for a while, then creates a new one.
    RenameCreate {
        /// The names.
        naming: Naming,
        /// Rotated files kept; older ones are deleted.
        keep: usize,
        /// Compression.
        compress: Compress,
        /// Lines written to the old file after its renaming, as by an application that has not
        /// reopened its log yet.
        late_lines: u64,
    },
    /// Copies it, then cuts it to nothing; the descriptor stays. Numbered names.
    CopyTruncate {
        /// Copies kept.
        keep: usize,
        /// Compression of the copies.
        compress: Compress,
        /// Lines written between copying and truncating: they survive only in a reader that was
        /// faster.
        late_lines: u64,
    },
    /// Deletes it and creates a new one.
    DeleteCreate,
}

impl Default for Rotation {
    fn default() -> Self {
        Self::RenameCreate {
            naming: Naming::Numbered,
            keep: 5,
            compress: Compress::Never,
            late_lines: 0,
        }
    }
}

impl Rotation {
    /// The kubelet's way: dated names, compressed one rotation later, `keep` rotated files.
    pub fn kubernetes(keep: usize) -> Self {
        let (naming, compress) = (Naming::Kubernetes, Compress::Delayed);
        Self::RenameCreate {
            naming,
            keep,
            compress,
            late_lines: 0,
        }
    }
}

impl LogWriter {
    /// Rotates the live file; an unfinished line is finished first.
    ///
    /// # Errors
    /// What the file system says. Files keep their places up to the step that failed.
    pub fn rotate(&mut self) -> io::Result<()> {
        self.finish_line()?;
        match self.options.rotation {
            Rotation::RenameCreate {
                naming,
                keep,
                compress,
                late_lines,
            } => self.rename_create(naming, keep, compress, late_lines),
            Rotation::CopyTruncate {
                keep,
                compress,
                late_lines,
            } => self.copy_truncate(keep, compress, late_lines),
            Rotation::DeleteCreate => {
                fs::remove_file(&self.options.path)?;
                self.removed(self.first_seq..self.next_seq);
                self.reopen()
            }
        }
    }

    /// Compresses every rotated file that is still plain, the newest `skip` excepted.
    ///
    /// # Errors
    /// What the file system says.
    pub fn compress_rotated(&mut self, skip: usize) -> io::Result<()> {
        for file in self
            .rotated
            .iter_mut()
            .skip(skip)
            .filter(|file| !file.compressed)
        {
            let target = with_suffix(&file.path, ".gz");
            gzip(&file.path, &target)?;
            file.path = target;
            file.compressed = true;
        }
        Ok(())
    }

    fn rename_create(
        &mut self,
        naming: Naming,
        keep: usize,
        compress: Compress,
        late_lines: u64,
    ) -> io::Result<()> {
        let target = match naming {
            Naming::Numbered => {
                self.move_up(keep)?;
                with_suffix(&self.options.path, ".1")
            }
            Naming::Kubernetes => self.dated_name(),
        };
        fs::rename(&self.options.path, &target)?;
        self.write_lines(late_lines)?;
        let seqs = self.first_seq..self.next_seq;
        self.rotated.push_front(WrittenFile {
            path: target,
            seqs,
            compressed: false,
        });
        self.reopen()?;
        self.compress_as_told(compress)?;
        self.delete_beyond(keep)
    }

    fn copy_truncate(
        &mut self,
        keep: usize,
        compress: Compress,
        late_lines: u64,
    ) -> io::Result<()> {
        self.move_up(keep)?;
        let target = with_suffix(&self.options.path, ".1");
        fs::copy(&self.options.path, &target)?;
        let seqs = self.first_seq..self.next_seq;
        self.rotated.push_front(WrittenFile {
            path: target,
            seqs,
            compressed: false,
        });
        let late = self.write_lines(late_lines)?;
        self.file.set_len(0)?;
        self.removed(late);
        self.first_seq = self.next_seq;
        self.compress_as_told(compress)?;
        self.delete_beyond(keep)
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.options.path, self.options.append)?;
        self.first_seq = self.next_seq;
        Ok(())
    }

    fn compress_as_told(&mut self, compress: Compress) -> io::Result<()> {
        match compress {
            Compress::Never => Ok(()),
            Compress::AtOnce => self.compress_rotated(0),
            Compress::Delayed => self.compress_rotated(1),
        }
    }

    /// Makes `.1` free: `.n` becomes `.n+1`, the oldest first. What would go beyond `keep` is
    /// deleted instead, as logrotate does.
    fn move_up(&mut self, keep: usize) -> io::Result<()> {
        self.delete_beyond(keep.saturating_sub(1))?;
        let live = self.options.path.clone();
        for (place, file) in self.rotated.iter_mut().enumerate().rev() {
            let ending = if file.compressed { ".gz" } else { "" };
            let target = with_suffix(&live, &format!(".{}{ending}", place + 2));
            fs::rename(&file.path, &target)?;
            file.path = target;
        }
        Ok(())
    }

    fn delete_beyond(&mut self, keep: usize) -> io::Result<()> {
        while self.rotated.len() > keep {
            let Some(oldest) = self.rotated.pop_back() else {
                break;
            };
            fs::remove_file(&oldest.path)?;
            self.removed(oldest.seqs);
        }
        Ok(())
    }

    /// A dated name after the time of the newest line; a second rotation within one second takes
    /// the next one, for a name must not repeat.
    fn dated_name(&mut self) -> PathBuf {
        let newest = self.next_seq.saturating_sub(1);
        let seconds = self.formatter.time(newest).div_euclid(NANOS_PER_SECOND);
        let seconds = seconds.max(self.last_suffix_seconds.saturating_add(1));
        self.last_suffix_seconds = seconds;
        let suffix = kubelet_suffix(seconds.saturating_mul(NANOS_PER_SECOND));
        with_suffix(&self.options.path, &format!(".{suffix}"))
    }

    /// The lines that begin in the live file.
    pub fn live_seqs(&self) -> Range<u64> {
        self.first_seq..self.next_seq
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(suffix);
    PathBuf::from(name)
}

/// Compresses by way of a temporary name, so that the `.gz` appears whole, and then removes the
/// original: for a moment both exist, as with the kubelet and logrotate.
fn gzip(source: &Path, target: &Path) -> io::Result<()> {
    let partial = with_suffix(source, ".tmp");
    let mut encoder = GzEncoder::new(File::create(&partial)?, Compression::fast());
    io::copy(&mut File::open(source)?, &mut encoder)?;
    encoder.finish()?;
    fs::rename(&partial, target)?;
    fs::remove_file(source)
}
