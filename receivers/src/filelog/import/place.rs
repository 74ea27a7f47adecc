//! What the lines around a place in a log tell about when it was the end of what was read.

use std::io;

use crate::filelog::logfs::LogFile;
use crate::operators::written_at;

/// Bytes that are looked at before and behind a place. Longer lines tell nothing.
const AROUND_BYTES: usize = 64 << 10;

/// See the module's documentation. Times are those that container runtimes put before lines, in ns
/// since the epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// A line begins here.
    pub is_line_start: bool,
    /// When the line before it was written.
    pub before_ns: Option<i64>,
    pub after: After,
}

/// What is behind a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    /// A line that was written then.
    Written(i64),
    /// A line that does not tell.
    Unknown,
    /// Nothing.
    End,
}

impl Place {
    /// The place at `offset` of a file that has at least as much.
    pub fn at(file: &dyn LogFile, offset: u64) -> io::Result<Place> {
        let from = offset.saturating_sub(AROUND_BYTES as u64);
        let back = (offset - from) as usize;
        let (want, mut bytes) = (back + AROUND_BYTES, Vec::new());
        while bytes.len() < want {
            let at = from + bytes.len() as u64;
            if file.read_at(at, want - bytes.len(), &mut bytes)? == 0 {
                break;
            }
        }
        let (before, after) = bytes.split_at(back.min(bytes.len()));
        // Also at the end of a line in UTF-16.
        let is_line_start = offset == 0 || before.ends_with(b"\n") || before.ends_with(b"\n\0");
        let mut lines = before.rsplit(|b| *b == b'\n');
        let line = lines.next().filter(|rest| rest.is_empty());
        let line = line.and_then(|_| lines.next());
        // The first one may lack its beginning.
        let is_whole = from == 0 || lines.next().is_some();
        Ok(Place {
            is_line_start,
            before_ns: line.filter(|_| is_whole).and_then(written_at),
            after: match after.split(|b| *b == b'\n').next() {
                Some(line) if !after.is_empty() => {
                    written_at(line).map_or(After::Unknown, After::Written)
                }
                _ => After::End,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filelog::logfs::{LogFs, OsLogFs};

    fn place(content: &[u8], offset: usize) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, content).unwrap();
        Place::at(&*OsLogFs.open(&path).unwrap(), offset as u64).unwrap()
    }

    #[test]
    fn the_lines_around_a_place_are_read() {
        let line =
            |second: u8, text: &str| format!("1970-01-01T00:00:{second:02}Z stdout F {text}\n");
        let second = 1_000_000_000;
        let text = line(1, "a") + &line(2, "b") + &line(3, &"x".repeat(200_000)) + &line(4, "c");
        let len = line(1, "a").len();
        for (offset, before_ns, after) in [
            (0, None, After::Written(second)),
            (len, Some(second), After::Written(2 * second)),
            (2 * len, Some(2 * second), After::Written(3 * second)),
            // The line before is too long to be looked at.
            (text.len() - len, None, After::Written(4 * second)),
            (text.len(), Some(4 * second), After::End),
        ] {
            let want = Place {
                is_line_start: true,
                before_ns,
                after,
            };
            assert_eq!(place(text.as_bytes(), offset), want, "at {offset}");
        }
        let within = place(text.as_bytes(), len + 3);
        assert_eq!((within.is_line_start, within.before_ns), (false, None));
        let other = place(b"some\ntext", 5);
        assert_eq!((other.is_line_start, other.after), (true, After::Unknown));
        assert!(place(b"a\0\n\0b\0", 4).is_line_start);
        assert_eq!(place(b"", 0).after, After::End);
    }
}
