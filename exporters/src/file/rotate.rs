//! The file that is written to, and its rotation.
//!
//! A full file is renamed to `<name>-<time><extension>`, the time as `2006-01-02T15-04-05.000`;
//! these are the names of the library that the collector uses, so that cleaning up works on what
//! either of them left behind.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::options::{FileOptions, RotationOptions};

const NAME_TIME: &str = "%Y-%m-%dT%H-%M-%S.%3f";
const MILLI: i64 = 1_000_000;
const DAY_MILLIS: i64 = 24 * 3600 * 1000;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}: {source}")]
pub struct FileError {
    /// What was tried.
    action: &'static str,
    /// With which file.
    path: String,
    /// What went wrong.
    source: io::Error,
}

impl FileError {
    fn new(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
        let path = path.display().to_string();
        move |source| FileError {
            action,
            path,
            source,
        }
    }
}

/// An open file that is rotated by its size.
pub(super) struct LogFile {
    options: FileOptions,
    file: Option<File>,
    /// Bytes in the file, as far as we know.
    bytes: u64,
    /// Of the line that is being written, the bytes that are in the file.
    line_written: usize,
}

impl LogFile {
    /// Opens the file for the first time: this is where it is emptied if it is to be.
    pub fn open(options: FileOptions) -> Result<LogFile, FileError> {
        let keep = options.append || options.rotation.is_some();
        let mut log = LogFile {
            options,
            file: None,
            bytes: 0,
            line_written: 0,
        };
        log.reopen(!keep)?;
        Ok(log)
    }

    fn reopen(&mut self, empty: bool) -> Result<&mut File, FileError> {
        let path = &self.options.path;
        if self.options.create_directory
            && let Some(directory) = path.parent()
        {
            fs::create_dir_all(directory)
                .map_err(FileError::new("cannot create the directory", directory))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(FileError::new("cannot open", path))?;
        if empty {
            file.set_len(0)
                .map_err(FileError::new("cannot empty", path))?;
        }
        self.bytes = file
            .metadata()
            .map_err(FileError::new("cannot look at", path))?
            .len();
        Ok(self.file.insert(file))
    }

    /// Writes a line, in a new file if the present one is full. After an error, call it again with
    /// the same line: what is in the file already is not written twice.
    pub fn write(&mut self, line: &[u8], wall_ns: i64) -> Result<(), FileError> {
        if self.line_written == 0 {
            self.rotate_if_full(line.len() as u64, wall_ns)?;
        }
        if self.file.is_none() {
            self.reopen(false)?;
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        while self.line_written < line.len() {
            match file.write(&line[self.line_written..]) {
                Ok(n) if n > 0 => {
                    self.line_written += n;
                    self.bytes += n as u64;
                }
                Ok(_) => {
                    let zero = io::Error::from(io::ErrorKind::WriteZero);
                    return Err(FileError::new("cannot write to", &self.options.path)(zero));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(FileError::new("cannot write to", &self.options.path)(e)),
            }
        }
        self.line_written = 0;
        Ok(())
    }

    /// Takes the beginning of a line that will not be completed out of the file.
    pub fn give_up_line(&mut self) {
        let begun = std::mem::take(&mut self.line_written) as u64;
        let Some(file) = &self.file else { return };
        let untouched = file.metadata().is_ok_and(|m| m.len() == self.bytes);
        if begun > 0 && untouched && file.set_len(self.bytes - begun).is_ok() {
            self.bytes -= begun;
        }
    }

    /// Leaves the file as a write that failed half-way does.
    #[cfg(test)]
    pub fn begin_for_test(&mut self, part: &[u8]) {
        let file = self.file.as_mut().expect("open");
        file.write_all(part).expect("written");
        self.line_written = part.len();
        self.bytes += part.len() as u64;
    }

    /// Makes everything written survive a loss of power.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    fn rotate_if_full(&mut self, line: u64, wall_ns: i64) -> Result<(), FileError> {
        let Some(rotation) = &self.options.rotation else {
            return Ok(());
        };
        if self.bytes == 0 || self.bytes + line <= rotation.max_bytes {
            return Ok(());
        }
        let rotation = rotation.clone();
        let path = self.options.path.clone();
        self.sync().map_err(FileError::new("cannot sync", &path))?;
        let backup = free_name(&path, &rotation, wall_ns);
        fs::rename(&path, &backup).map_err(FileError::new("cannot rename", &path))?;
        self.file = None;
        self.reopen(false)?;
        remove_old(&path, &rotation, wall_ns);
        Ok(())
    }
}

/// A backup's name that is not taken.
fn free_name(path: &Path, rotation: &RotationOptions, wall_ns: i64) -> PathBuf {
    let mut millis = wall_ns / MILLI;
    loop {
        let name = backup_name(path, rotation, millis);
        if !name.exists() {
            return name;
        }
        millis += 1;
    }
}

fn zone(rotation: &RotationOptions) -> TimeZone {
    if rotation.localtime {
        TimeZone::system()
    } else {
        TimeZone::UTC
    }
}

/// Name without extension, and extension with its dot.
fn name_parts(path: &Path) -> (String, String) {
    let text = |s: Option<&OsStr>| s.unwrap_or_default().to_string_lossy().into_owned();
    let extension = text(path.extension());
    let dotted = if extension.is_empty() {
        extension
    } else {
        format!(".{extension}")
    };
    (text(path.file_stem()), dotted)
}

fn backup_name(path: &Path, rotation: &RotationOptions, millis: i64) -> PathBuf {
    let time = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH);
    let time = zone(rotation)
        .to_datetime(time)
        .strftime(NAME_TIME)
        .to_string();
    let (stem, extension) = name_parts(path);
    path.with_file_name(format!("{stem}-{time}{extension}"))
}

/// The backups of `path` with the times in their names (ms since the epoch), newest first.
fn backups(path: &Path, rotation: &RotationOptions) -> Vec<(i64, PathBuf)> {
    let directory = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let (stem, extension) = name_parts(path);
    let time_of = |name: &str| {
        let time = name
            .strip_prefix(&stem)?
            .strip_prefix('-')?
            .strip_suffix(&extension)?;
        let time = DateTime::strptime(NAME_TIME, time).ok()?;
        Some(zone(rotation).to_timestamp(time).ok()?.as_millisecond())
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<(i64, PathBuf)> = entries
        .filter_map(|e| Some((time_of(e.file_name().to_str()?)?, e.path())))
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found
}

fn remove_old(path: &Path, rotation: &RotationOptions, wall_ns: i64) {
    let days = i64::try_from(rotation.max_days).unwrap_or(i64::MAX);
    let oldest = (wall_ns / MILLI).saturating_sub(days.saturating_mul(DAY_MILLIS));
    for (i, (millis, backup)) in backups(path, rotation).into_iter().enumerate() {
        let too_many = rotation.max_backups > 0 && i >= rotation.max_backups;
        let too_old = rotation.max_days > 0 && millis < oldest;
        if (too_many || too_old)
            && let Err(e) = fs::remove_file(&backup)
        {
            tracing::warn!(file = %backup.display(), error = %e, "cannot remove an old backup");
        }
    }
}
