//! A rotated file and its compressed form, side by side.
//!
//! Who compresses a file removes it when the compressed form is whole, so while both are there that is
//! still being written and the file itself is the one to read. But a power loss may undo the removal
//! and bring the file back without its end, or with NULs where that was: then the compressed form is all
//! that is left of it. It may be torn, too, and each have what the other one lacks.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::super::gzip::Gunzip;
use super::super::logfs::{LogFile, LogFs, Meta};

/// Bytes read or decoded at once.
const STEP_BYTES: usize = 64 << 10;
/// So many answers are kept.
const KEPT_MAX: usize = 1_000;

/// Which of a pair is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ToRead {
    /// The file itself.
    Plain,
    /// Its compressed form.
    Compressed,
    /// Both: each has what the other one lacks.
    Both,
}

/// Pairs that were looked into.
#[derive(Default)]
pub(super) struct Pairs {
    /// Wall time of the start, ns since the epoch: a power loss is earlier, and so are its pairs.
    pub(super) started_ns: i64,
    /// By the path of the compressed form: what both were, and the answer.
    known: HashMap<PathBuf, (Meta, Meta, ToRead)>,
}

impl Pairs {
    /// Which of `plain` and `compressed`, which was made from it, is to be read. Both are looked into for that
    /// once: it happens after power losses only.
    pub(super) fn which(&mut self, fs: &dyn LogFs, plain: &Path, compressed: &Path) -> ToRead {
        let (Ok(torn), Ok(whole)) = (fs.meta(plain), fs.meta(compressed)) else {
            return ToRead::Plain;
        };
        if torn.mtime_ns.max(whole.mtime_ns) >= self.started_ns {
            return ToRead::Plain;
        }
        if let Some((a, b, answer)) = self.known.get(compressed)
            && (*a, *b) == (torn, whole)
        {
            return *answer;
        }
        let looked = || look_into(&*fs.open(compressed)?, &*fs.open(plain)?);
        // What cannot be told now is asked again.
        let Ok(answer) = looked() else {
            return ToRead::Plain;
        };
        if self.known.len() >= KEPT_MAX {
            self.known.clear();
        }
        self.known
            .insert(compressed.to_path_buf(), (torn, whole, answer));
        answer
    }

    /// True if `compressed` is to be read beside its plain file or in place of it, as far as is known by now.
    pub(super) fn is_read(&self, compressed: &Path) -> bool {
        let known = self.known.get(compressed);
        known.is_some_and(|(.., answer)| *answer != ToRead::Plain)
    }
}

/// See [`Pairs::which`]. The compressed form has more if `plain` ends, or goes on with NUL, where the content of
/// that goes on. It may be damaged itself further on, where `plain` has more.
fn look_into(compressed: &dyn LogFile, plain: &dyn LogFile) -> io::Result<ToRead> {
    let mut gunzip = Gunzip::default();
    let (mut input, mut made, mut there) = (Vec::new(), Vec::new(), Vec::new());
    let (mut read, mut offset, mut has_more) = (0, 0, false);
    loop {
        for buf in [&mut input, &mut made, &mut there] {
            buf.clear();
        }
        compressed.read_at(read, STEP_BYTES, &mut input)?;
        let pushed = gunzip.push(&input, &mut made, STEP_BYTES);
        if !has_more {
            plain.read_whole_at(offset, made.len(), &mut there)?;
            let alike = made.iter().zip(&there).take_while(|(a, b)| a == b).count();
            match there.get(alike) {
                _ if alike == made.len() => {}
                None => return Ok(ToRead::Compressed),
                Some(0) => has_more = true,
                Some(_) => return Ok(ToRead::Plain),
            }
        }
        offset += made.len() as u64;
        let is_over = match pushed {
            Ok(used) => {
                read += used as u64;
                input.is_empty() && made.is_empty()
            }
            Err(_) => true,
        };
        if is_over && !has_more {
            return Ok(ToRead::Plain);
        }
        if is_over {
            return Ok(match has_content_from(plain, offset)? {
                true => ToRead::Both,
                false => ToRead::Compressed,
            });
        }
    }
}

/// True if there is something other than NUL in `file` from `offset` on.
fn has_content_from(file: &dyn LogFile, mut offset: u64) -> io::Result<bool> {
    let mut there = Vec::new();
    loop {
        there.clear();
        let n = file.read_at(offset, STEP_BYTES, &mut there)?;
        if n == 0 || there.iter().any(|b| *b != 0) {
            return Ok(n > 0);
        }
        offset += n as u64;
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
    fn to_read(plain: &[u8], compressed: &[u8], started_ns: i64) -> ToRead {
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
        let first = pairs.which(&OsLogFs, &a, &b);
        assert_eq!(first, pairs.which(&OsLogFs, &a, &b), "the second time");
        assert_eq!(first != ToRead::Plain, pairs.is_read(&b));
        first
    }

    #[test]
    fn what_lost_its_end_is_in_its_compressed_form() {
        use ToRead::{Both, Compressed, Plain};
        let hour = 4_600 * 1_000_000_000;
        let lines: Vec<u8> = (0..20_000)
            .flat_map(|n| format!("line {n}\n").into_bytes())
            .collect();
        let whole = packed(&lines);
        let cut = &lines[..lines.len() - 5];
        let mut blank = lines.clone();
        blank[100_000..].fill(0);
        assert_eq!(to_read(cut, &whole, hour), Compressed);
        assert_eq!(to_read(b"", &whole, hour), Compressed);
        assert_eq!(to_read(&blank, &whole, hour), Compressed);
        // It is not being made any more, but was before: it is all there.
        assert_eq!(to_read(&lines, &whole, hour), Plain);
        // Written to since it was compressed.
        let more = [&lines[..], b"late\n"].concat();
        assert_eq!(to_read(&more, &whole, hour), Plain);
        // Broken off: the plain file has more, or less.
        let half = &whole[..whole.len() / 2];
        assert_eq!(to_read(cut, half, hour), Plain);
        assert_eq!(to_read(&lines[..100], half, hour), Compressed);
        // A hole where the other one has content, and content behind its end.
        let mut hole = lines.clone();
        hole[5_000..6_000].fill(0);
        assert_eq!(to_read(&hole, half, hour), Both);
        assert_eq!(to_read(&hole, &whole, hour), Compressed);
        assert_eq!(to_read(cut, &[], hour), Plain);
        // Damaged: what the decoder makes of it is no reason to leave the lines that are there.
        let mut damaged = whole.clone();
        damaged[whole.len() / 2..].fill(0);
        assert_eq!(to_read(cut, &damaged, hour), Plain);
        // Made since the start: whoever makes it removes the other one in a moment.
        assert_eq!(to_read(cut, &whole, 900 * 1_000_000_000), Plain);
    }
}
