//! What receivers of files tell of the files they read, when somebody asks.
//!
//! Whoever asks waits for the thread that knows: nothing is kept ready, and nothing is counted for it
//! while nobody asks.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Says whether a path is asked for.
pub type PathFilter = Arc<dyn Fn(&Path) -> bool + Send + Sync>;

/// Which files are asked for.
#[derive(Clone)]
pub struct FilesQuery {
    /// Only files whose path or place it takes; all if there is none.
    pub paths: Option<PathFilter>,
    /// Which of them.
    pub part: FilesPart,
    /// So many at most.
    pub limit: usize,
}

/// See [`FilesQuery`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FilesPart {
    /// In the order in which they were found, those behind the file of this number; 0 = from the first on.
    After(u64),
    /// Those that are furthest behind, the furthest first.
    FurthestBehind,
}

impl fmt::Debug for FilesQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FilesQuery { paths, part, limit } = self;
        let paths = if paths.is_some() { "some" } else { "all" };
        write!(f, "FilesQuery({part:?}, {limit} of {paths} paths)")
    }
}

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct FilesPage {
    /// The files.
    pub files: Vec<FileStatus>,
    /// There are more than the limit allowed.
    pub more: bool,
}

/// A file that a receiver reads, at one instant. Numbers are of bytes of content, but `size`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// Its number within one run of the receiver.
    pub no: u64,
    /// The path that its records name.
    pub path: Arc<Path>,
    /// Where it is, if that is another path. What is deleted has none.
    pub place: Option<Arc<Path>>,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// When it was made, ns since the epoch, where the file system knows.
    pub birth_ns: Option<i64>,
    /// How often its content began anew in the same inode.
    pub generation: u64,
    /// Its content is compressed.
    pub compressed: bool,
    /// Bytes on the disk.
    pub size: u64,
    /// Up to here it is read.
    pub read: u64,
    /// Up to here all is delivered, or was given up by a counted decision.
    pub acknowledged: u64,
    /// Bytes that are not delivered. Of a compressed file that is not read to its end: at least.
    pub lag_bytes: u64,
    /// Since when the oldest of them are there, as far as is known.
    pub lag: Option<Duration>,
    /// When it was changed last, ns since the epoch.
    pub changed_ns: i64,
    /// What is done with it.
    pub state: FileState,
    /// Bytes that are not delivered and that only its reader holds: no name leads to it any more.
    pub held_deleted_bytes: u64,
}

/// What is done with a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileState {
    /// It is open, and read as it grows.
    Open,
    /// It is closed to keep within the budget of open files, and opened again when there is something
    /// to read.
    Closed,
    /// It is read when what comes before it is read.
    Waiting,
    /// Its path is another one's, or does not match any more: it is read to its end and let go.
    Rotated,
    /// No name leads to it any more: it is held until all of it is delivered.
    Deleted,
    /// The patterns do not select it any more: it is read as far as it went then, and let go.
    Deselected,
    /// Its content was cut away: it is looked for in copies.
    Cut,
    /// It was read and delivered, and is let go.
    Finished,
}

impl FileState {
    /// All of them.
    pub const ALL: [FileState; 8] = [
        FileState::Open,
        FileState::Closed,
        FileState::Waiting,
        FileState::Rotated,
        FileState::Deleted,
        FileState::Deselected,
        FileState::Cut,
        FileState::Finished,
    ];

    /// Its name for people and for machines.
    pub fn name(self) -> &'static str {
        match self {
            FileState::Open => "open",
            FileState::Closed => "closed",
            FileState::Waiting => "waiting for the one before it",
            FileState::Rotated => "rotated",
            FileState::Deleted => "deleted",
            FileState::Deselected => "not selected",
            FileState::Cut => "looked for in copies",
            FileState::Finished => "finished",
        }
    }
}

/// Gets the answer.
pub type FilesAnswer = Box<dyn FnOnce(FilesPage) + Send>;

/// Where a receiver of files is asked.
pub trait TailedFiles: Send + Sync + fmt::Debug {
    /// Asks, from any thread, without waiting. The receiver's own thread answers in its time, perhaps
    /// after a look at all files. `answer` is dropped if the receiver does not run, or too many ask.
    fn ask(&self, query: FilesQuery, answer: FilesAnswer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_state_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = FileState::ALL.iter().map(|s| s.name()).collect();
        assert_eq!(names.len(), FileState::ALL.len());
    }
}
