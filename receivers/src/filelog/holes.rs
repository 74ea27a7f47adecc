//! Holes: parts of a file that were never written and read as NUL, as a truncation leaves behind
//! when the writer keeps its offset.

use std::io;

use super::logfs::LogFile;

/// A hole that is longer is skipped in several turns.
pub const HOLE_BYTES_MAX: u64 = 1 << 30;
/// Of a hole, so much is looked at, in so many places from its beginning to its end. File systems are
/// known to have told of holes where something had just been written (ZFS until 2.2.2). More places
/// would have the kernel fill its cache with what is not there.
const SAMPLE_BYTES: u64 = 4096;
const SAMPLES: u64 = 64;

/// Bytes of the hole that begins at `from` or before; 0 if there is none, or if the file system
/// does not tell. A hole at the end of the file ends `keep` bytes before it, for it may still be
/// filled.
///
/// # Errors
/// What the file cannot be read with.
pub fn hole_bytes(file: &dyn LogFile, from: u64, keep: u64) -> io::Result<u64> {
    let end = match file.next_data(from)? {
        Some(data) => data,
        None => file.meta()?.size.saturating_sub(keep),
    };
    let end = end.min(from.saturating_add(HOLE_BYTES_MAX));
    let bytes = end.saturating_sub(from);
    if bytes == 0 {
        return Ok(0);
    }
    let length = bytes.min(SAMPLE_BYTES);
    let mut sample = Vec::with_capacity(length as usize);
    for i in 0..SAMPLES {
        sample.clear();
        let at = from + (bytes - length) * i / (SAMPLES - 1);
        file.read_at(at, length as usize, &mut sample)?;
        if sample.iter().any(|b| *b != 0) {
            return Ok(0);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};
    use std::sync::Arc;

    use super::super::logfs::{LogFs, Meta, OsLogFs};
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A file system that calls everything a hole.
    struct Liar(Box<dyn LogFile>);

    impl LogFile for Liar {
        fn read_at(&self, offset: u64, max: usize, buf: &mut Vec<u8>) -> io::Result<usize> {
            self.0.read_at(offset, max, buf)
        }
        fn next_data(&self, _from: u64) -> io::Result<Option<u64>> {
            Ok(None)
        }
        fn meta(&self) -> io::Result<Meta> {
            self.0.meta()
        }
        fn forget_pages(&self) -> io::Result<()> {
            Ok(())
        }
        fn try_lock_shared(&self) -> io::Result<bool> {
            Ok(true)
        }
        fn unlock(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_hole_ends_where_something_is_written() {
        let mut written = tempfile::NamedTempFile::new().unwrap();
        written.write_all(b"one\n").unwrap();
        written.seek(SeekFrom::Start(8 * MIB)).unwrap();
        written.write_all(b"two\n").unwrap();
        let file = OsLogFs.open(written.path()).unwrap();
        assert_eq!(hole_bytes(&*file, 0, 0).unwrap(), 0);
        let hole = hole_bytes(&*file, MIB, 0).unwrap();
        // Some file systems do not tell of holes.
        assert!([0, 7 * MIB].contains(&hole), "{hole}");
        assert_eq!(hole_bytes(&*file, 8 * MIB, 0).unwrap(), 0);
        written.as_file().set_len(20 * MIB).unwrap();
        let hole = hole_bytes(&*file, 9 * MIB, MIB).unwrap();
        assert!([0, 10 * MIB].contains(&hole), "{hole}");
        let hole = hole_bytes(&*file, 19 * MIB + 1, MIB).unwrap();
        assert_eq!(hole, 0, "it may still be filled");
        let shared: Arc<dyn LogFile> = Arc::from(file);
        let same = hole_bytes(&shared, MIB, 0).unwrap();
        assert_eq!(
            same,
            hole_bytes(&*shared, MIB, 0).unwrap(),
            "several look at the file"
        );
    }

    #[test]
    fn a_hole_that_is_none_is_not_believed() {
        let mut written = tempfile::NamedTempFile::new().unwrap();
        written.write_all(&vec![0; 3 * MIB as usize]).unwrap();
        written.write_all(&vec![b'x'; MIB as usize]).unwrap();
        let liar = Liar(OsLogFs.open(written.path()).unwrap());
        assert_eq!(hole_bytes(&liar, 0, 0).unwrap(), 0);
        assert_eq!(hole_bytes(&liar, 0, MIB).unwrap(), 3 * MIB);
        written.seek(SeekFrom::Start(3 * MIB - 10)).unwrap();
        written.write_all(b"the newest").unwrap();
        assert_eq!(hole_bytes(&liar, 0, MIB).unwrap(), 0);
    }
}
