//! A gzip file as a [`LogFile`] whose offsets count decompressed bytes.
//!
//! Reading goes forward and goes on where it stopped when the file has grown. The newest bytes are
//! kept, so that an unfinished line can be read again; going back further decodes from the start
//! once more. Reads of the first bytes, which tell files apart, never disturb the reading position.

use std::io;
use std::sync::{Mutex, PoisonError};

use super::gzip::{Gunzip, GzipError};
use super::logfs::{LogFile, Meta};

/// Decompressed bytes that are kept behind the reading position at least.
const KEEP_BYTES: usize = (1 << 20) + (64 << 10);
/// Compressed bytes read in one go.
const INPUT_BYTES: usize = 64 << 10;
/// Decompressed bytes made in one go.
const STEP_BYTES: usize = 128 << 10;
/// Reads that end before this offset are about identity.
const HEAD_BYTES: u64 = 64 << 10;

/// See the module's documentation.
pub struct GzipFile {
    file: Box<dyn LogFile>,
    main: Mutex<Stream>,
}

/// One pass over the file.
#[derive(Default)]
struct Stream {
    gunzip: Gunzip,
    /// Compressed bytes decoded so far.
    input_offset: u64,
    input: Vec<u8>,
    /// Newest decompressed bytes; they start at `window_from`.
    window: Vec<u8>,
    window_from: u64,
    /// The damage that ends the content was reported.
    told: bool,
}

impl Stream {
    fn end(&self) -> u64 {
        self.window_from + self.window.len() as u64
    }

    /// Decodes one piece more; false if there is no more content for now.
    fn advance(&mut self, file: &dyn LogFile) -> io::Result<bool> {
        if self.window.len() >= 2 * KEEP_BYTES {
            let gone = self.window.len() - KEEP_BYTES;
            self.window.drain(..gone);
            self.window_from += gone as u64;
        }
        self.input.clear();
        file.read_at(self.input_offset, INPUT_BYTES, &mut self.input)?;
        let before = self.window.len();
        // What is not consumed is read again: it is in the page cache.
        match self.gunzip.push(&self.input, &mut self.window, STEP_BYTES) {
            Ok(n) => self.input_offset += n as u64,
            Err(e) => return Err(self.damaged(e, file)),
        }
        Ok(!self.input.is_empty() || self.window.len() > before)
    }

    /// The error for damage. It is logged once as well: a caller that always finds some content
    /// before the damage never gets to see the error.
    fn damaged(&mut self, e: GzipError, file: &dyn LogFile) -> io::Error {
        let place = self.input_offset;
        if !std::mem::replace(&mut self.told, true) {
            let inode = file.meta().map_or(0, |m| m.id.ino);
            tracing::warn!(inode, place, error = %e, "a gzip file is damaged: its content ends");
        }
        let text = format!("{e}, at or behind byte {place} of the file");
        io::Error::new(io::ErrorKind::InvalidData, text)
    }

    /// Appends content from `offset`; everything before is decoded and forgotten.
    fn read(
        &mut self,
        file: &dyn LogFile,
        offset: u64,
        max: usize,
        buf: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let mut done = 0;
        while done < max {
            let at = offset + done as u64;
            if at < self.end() {
                let rest = &self.window[(at - self.window_from) as usize..];
                let n = rest.len().min(max - done);
                buf.extend_from_slice(&rest[..n]);
                done += n;
                continue;
            }
            match self.advance(file) {
                Ok(true) => {}
                Ok(false) => break,
                // Content before the damage comes first.
                Err(e) if done == 0 && at >= self.end() => return Err(e),
                Err(_) if at >= self.end() => break,
                Err(_) => {}
            }
        }
        Ok(done)
    }
}

impl GzipFile {
    /// Reads `file` as gzip.
    pub fn new(file: Box<dyn LogFile>) -> GzipFile {
        GzipFile {
            file,
            main: Mutex::default(),
        }
    }
}

impl LogFile for GzipFile {
    /// # Errors
    /// Of the file below; and `InvalidData` where the content ends with damage. A member that is
    /// cut short is no error: more of it may come.
    fn read_at(&self, offset: u64, max: usize, buf: &mut Vec<u8>) -> io::Result<usize> {
        let mut main = self.main.lock().unwrap_or_else(PoisonError::into_inner);
        if self.file.meta()?.size < main.input_offset {
            // Truncated: what was decoded is of no use any more.
            *main = Stream::default();
        }
        if offset < main.window_from {
            if offset.saturating_add(max as u64) <= HEAD_BYTES {
                return Stream::default().read(&*self.file, offset, max, buf);
            }
            *main = Stream::default();
        }
        main.read(&*self.file, offset, max, buf)
    }

    /// What is compressed has no holes.
    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        Ok(Some(from))
    }

    /// The compressed file's metadata: `size` counts compressed bytes.
    fn meta(&self) -> io::Result<Meta> {
        self.file.meta()
    }

    fn forget_pages(&self) -> io::Result<()> {
        self.file.forget_pages()
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        self.file.try_lock_shared()
    }

    fn unlock(&self) -> io::Result<()> {
        self.file.unlock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filelog::logfs::{LogFs, OsLogFs};
    use std::io::Write;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(bytes).unwrap();
        e.finish().unwrap()
    }

    fn text(lines: u32) -> Vec<u8> {
        (0..lines)
            .flat_map(|i| format!("{i}\n").into_bytes())
            .collect()
    }

    /// Counts compressed bytes read.
    struct Counted(Box<dyn LogFile>, Arc<AtomicU64>);

    impl LogFile for Counted {
        fn read_at(&self, offset: u64, max: usize, buf: &mut Vec<u8>) -> io::Result<usize> {
            let n = self.0.read_at(offset, max, buf)?;
            self.1.fetch_add(n as u64, Ordering::Relaxed);
            Ok(n)
        }
        fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
            Ok(Some(from))
        }
        fn meta(&self) -> io::Result<Meta> {
            self.0.meta()
        }
        fn forget_pages(&self) -> io::Result<()> {
            self.0.forget_pages()
        }
        fn try_lock_shared(&self) -> io::Result<bool> {
            self.0.try_lock_shared()
        }
        fn unlock(&self) -> io::Result<()> {
            self.0.unlock()
        }
    }

    fn open(path: &Path) -> (GzipFile, Arc<AtomicU64>) {
        let count = Arc::new(AtomicU64::new(0));
        (
            GzipFile::new(Box::new(Counted(
                OsLogFs.open(path).unwrap(),
                count.clone(),
            ))),
            count,
        )
    }

    fn read(file: &GzipFile, from: usize, max: usize) -> Vec<u8> {
        let mut buf = Vec::new();
        assert_eq!(file.read_at(from as u64, max, &mut buf).unwrap(), buf.len());
        buf
    }

    fn append(path: &Path, bytes: &[u8]) {
        std::fs::OpenOptions::new()
            .append(true)
            .open(path)
            .unwrap()
            .write_all(bytes)
            .unwrap();
    }

    #[test]
    fn content_is_read_over_members_forward_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gz");
        let all = text(400_000);
        let (first, second) = all.split_at(1_500_000);
        std::fs::write(&path, [gz(first), gz(second)].concat()).unwrap();
        let (file, _) = open(&path);
        assert!(read(&file, 0, 100) == all[..100]);
        assert!(read(&file, 50, 2_600_000) == all[50..2_600_050]);
        assert!(
            read(&file, 2_500_000, 5) == all[2_500_000..2_500_005],
            "within the window"
        );
        assert!(read(&file, 0, 1000) == all[..1000], "the head");
        assert!(read(&file, 2_600_050, 9_999_999) == all[2_600_050..]);
        assert!(
            read(&file, 10, 200_000) == all[10..200_010],
            "far back starts over"
        );
        assert!(read(&file, all.len(), 10).is_empty());
    }

    #[test]
    fn a_growing_file_is_decoded_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gz");
        let all = text(100_000);
        let (first, second) = all.split_at(300_000);
        let tail = gz(second);
        std::fs::write(&path, gz(first)).unwrap();
        let (file, count) = open(&path);
        let mut got = read(&file, 0, 9_999_999);
        assert!(got == first);
        for part in tail.chunks(tail.len() / 10) {
            append(&path, part);
            got.extend(read(&file, got.len(), 9_999_999));
            read(&file, 0, 1000); // looks at the identity
        }
        assert!(got == all);
        let (size, heads) = (file.meta().unwrap().size, 11 * INPUT_BYTES as u64);
        // Every pass may read up to one piece more than it can use.
        assert!(count.load(Ordering::Relaxed) < 3 * size + 2 * heads);
    }

    #[test]
    fn damage_is_an_error_behind_the_content_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gz");
        std::fs::write(&path, [gz(b"good\n"), b"junk".to_vec()].concat()).unwrap();
        let (file, _) = open(&path);
        assert_eq!(read(&file, 0, 100), b"good\n");
        let error = file.read_at(5, 100, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("not gzip data"), "{error}");
        assert_eq!(read(&file, 1, 2), b"oo", "what is good stays readable");
    }

    #[test]
    fn a_file_that_was_truncated_is_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gz");
        std::fs::write(&path, gz(&text(1000))).unwrap();
        let (file, _) = open(&path);
        read(&file, 0, 100_000);
        std::fs::write(&path, gz(b"new\n")).unwrap();
        assert_eq!(read(&file, 0, 100), b"new\n");
    }
}
