//! A rotated file and its compressed form, side by side.
//!
//! Who compresses a file removes it when the compressed form is whole, so while both are there that is
//! still being written and the file itself is the one to read. But a power loss may undo the removal
//! and bring the file back without its end, or with NULs where that was: then the compressed form is all
//! that is left of it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::super::gzip::Gunzip;
use super::super::logfs::{LogFile, LogFs, Meta};

/// Bytes read or decoded at once.
const STEP_BYTES: usize = 64 << 10;
/// So many answers are kept.
const KEPT_MAX: usize = 1_000;

/// Pairs that were looked into.
#[derive(Default)]
pub(super) struct Pairs {
    /// Wall time of the start, ns since the epoch: a power loss is earlier, and so are its pairs.
    pub(super) started_ns: i64,
    /// By the path of the compressed form: what both were, and the answer.
    known: HashMap<PathBuf, (Meta, Meta, bool)>,
}

impl Pairs {
    /// True if `compressed` has what `plain`, which it was made from, lacks. Both are read for that once:
    /// it happens after power losses only.
    pub(super) fn is_torn(&mut self, fs: &dyn LogFs, plain: &Path, compressed: &Path) -> bool {
        let (Ok(torn), Ok(whole)) = (fs.meta(plain), fs.meta(compressed)) else {
            return false;
        };
        if torn.mtime_ns.max(whole.mtime_ns) >= self.started_ns {
            return false;
        }
        if let Some((a, b, answer)) = self.known.get(compressed)
            && (*a, *b) == (torn, whole)
        {
            return *answer;
        }
        let looked = || has_more(&*fs.open(compressed)?, &*fs.open(plain)?);
        // What cannot be told now is asked again.
        let Ok(answer) = looked() else {
            return false;
        };
        if self.known.len() >= KEPT_MAX {
            self.known.clear();
        }
        self.known
            .insert(compressed.to_path_buf(), (torn, whole, answer));
        answer
    }

    /// As [`Pairs::is_torn`], as far as it is known by now.
    pub(super) fn is_known_torn(&self, compressed: &Path) -> bool {
        self.known
            .get(compressed)
            .is_some_and(|(.., answer)| *answer)
    }
}

/// True if `plain` ends, or goes on with NUL, where the content of `compressed` goes on. That may be
/// damaged itself further on.
fn has_more(compressed: &dyn LogFile, plain: &dyn LogFile) -> io::Result<bool> {
    let mut gunzip = Gunzip::default();
    let (mut input, mut made, mut there) = (Vec::new(), Vec::new(), Vec::new());
    let (mut read, mut offset) = (0, 0);
    loop {
        for buf in [&mut input, &mut made, &mut there] {
            buf.clear();
        }
        compressed.read_at(read, STEP_BYTES, &mut input)?;
        let pushed = gunzip.push(&input, &mut made, STEP_BYTES);
        plain.read_whole_at(offset, made.len(), &mut there)?;
        let alike = made.iter().zip(&there).take_while(|(a, b)| a == b).count();
        if alike < made.len() {
            return Ok(there.get(alike).is_none_or(|b| *b == 0));
        }
        match pushed {
            Ok(_) if input.is_empty() && made.is_empty() => return Ok(false),
            Ok(used) => read += used as u64,
            Err(_) => return Ok(false),
        }
        offset += made.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::time::{Duration, SystemTime};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::super::logfs::OsLogFs;
    use super::*;

    fn packed(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// The answer for a plain and a compressed file that were written an hour before the start.
    fn is_torn(plain: &[u8], compressed: &[u8], started_ns: i64) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.log.1"), dir.path().join("a.log.1.gz"));
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        for (path, content) in [(&a, plain), (&b, compressed)] {
            fs::write(path, content).unwrap();
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(then).unwrap();
        }
        let mut pairs = Pairs {
            started_ns,
            ..Pairs::default()
        };
        let first = pairs.is_torn(&OsLogFs, &a, &b);
        assert_eq!(first, pairs.is_torn(&OsLogFs, &a, &b), "the second time");
        assert_eq!(first, pairs.is_known_torn(&b));
        first
    }

    #[test]
    fn what_lost_its_end_is_in_its_compressed_form() {
        let hour = 4_600 * 1_000_000_000;
        let lines: Vec<u8> = (0..20_000)
            .flat_map(|n| format!("line {n}\n").into_bytes())
            .collect();
        let whole = packed(&lines);
        let cut = &lines[..lines.len() - 5];
        let mut blank = lines.clone();
        blank[100_000..].fill(0);
        assert!(is_torn(cut, &whole, hour));
        assert!(is_torn(b"", &whole, hour));
        assert!(is_torn(&blank, &whole, hour));
        // It is not being made any more, but was before: it is all there.
        assert!(!is_torn(&lines, &whole, hour));
        // Written to since it was compressed.
        let more = [&lines[..], b"late\n"].concat();
        assert!(!is_torn(&more, &whole, hour));
        // Broken off: the plain file has more, or less.
        let half = &whole[..whole.len() / 2];
        assert!(!is_torn(cut, half, hour));
        assert!(is_torn(&lines[..100], half, hour));
        assert!(!is_torn(cut, &[], hour));
        // Damaged: what the decoder makes of it is no reason to leave the lines that are there.
        let mut damaged = whole.clone();
        damaged[whole.len() / 2..].fill(0);
        assert!(!is_torn(cut, &damaged, hour));
        // Made since the start: whoever makes it removes the other one in a moment.
        assert!(!is_torn(cut, &whole, 900 * 1_000_000_000));
    }
}
