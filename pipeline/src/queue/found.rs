//! What a directory holds when a queue is opened.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use super::QueueError;
use super::segment::{self, SegmentId};
use super::settled::{Saved, SavedRead};
use crate::fs::Fs;

/// The files that say what is settled.
pub(super) const SAVED_NAMES: [&str; 2] = ["settled.0", "settled.1"];

/// A file of the queue.
pub(super) struct Segment {
    pub id: SegmentId,
    /// Bytes that may hold frames.
    pub len: u64,
}

/// The segments in `dir`, oldest first.
pub(super) fn find_segments(fs: &dyn Fs, dir: &Path) -> Result<VecDeque<Segment>, QueueError> {
    let names = fs.list(dir).map_err(|e| QueueError::io("list", dir, e))?;
    let ids = names
        .iter()
        .filter_map(|name| SegmentId::of_file_name(name.to_str()?));
    let mut segments = Vec::new();
    for id in ids {
        let path = dir.join(id.file_name());
        let file = fs.open(&path);
        let file = file.map_err(|e| QueueError::io("open", &path, e))?;
        let newer = segment::newer_version(&*file);
        if let Some(found) = newer.map_err(|e| QueueError::io("read", &path, e))? {
            let supported = segment::VERSION;
            return Err(QueueError::Newer {
                path,
                found,
                supported,
            });
        }
        let len = file
            .byte_len()
            .map_err(|e| QueueError::io("look at", &path, e))?;
        segments.push(Segment { id, len });
    }
    segments.sort_by_key(|s| s.id);
    Ok(segments.into())
}

/// The newer of the two states that is whole; nothing is settled if none is.
pub(super) fn newest_saved(fs: &dyn Fs, dir: &Path) -> Result<Saved, QueueError> {
    let mut newest = Saved::default();
    for name in SAVED_NAMES {
        let path = dir.join(name);
        let file = match fs.open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(QueueError::io("open", path, e)),
        };
        let read = file.byte_len().and_then(|len| {
            let mut bytes = vec![0; len.min(1 << 20) as usize];
            let read = segment::read_up_to(&*file, 0, &mut bytes)?;
            bytes.truncate(read);
            Ok(bytes)
        });
        // What cannot be read may be the newer one, so it is not taken for damaged.
        let read = read.map_err(|e| QueueError::io("read", &path, e))?;
        match Saved::decode(&read) {
            SavedRead::Whole(saved) if saved.generation > newest.generation => newest = saved,
            SavedRead::Whole(_) | SavedRead::Damaged => {}
            SavedRead::Newer(found) => {
                let supported = segment::VERSION;
                return Err(QueueError::Newer {
                    path,
                    found,
                    supported,
                });
            }
        }
    }
    Ok(newest)
}
