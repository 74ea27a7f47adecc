//! Files that are compressed with gzip.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::filelog::gzip::{Gunzip, GzipError};
use crate::filelog::gzip_reader::GzipFile;
use crate::filelog::logfs::{FileId, LogFile, Meta};

/// Decompressed bytes that are looked at: data can stand for a thousand times as many.
const CONTENT_BYTES_MAX: usize = 256 << 10;

/// Any bytes as a file: they are decoded to the same content whatever pieces they come in and from
/// wherever it is read, no piece is longer than was asked for, and what was compressed comes back.
///
/// The first bytes: what the rest is (content to compress, or a file), and the size of pieces.
pub fn compressed(data: &[u8]) {
    let Some(([how, size], text)) = data.split_first_chunk() else {
        return;
    };
    let size = usize::from(*size) + 1;
    if how & 1 == 0 {
        check(text, size);
        return;
    }
    let (first, second) = text.split_at(text.len() * usize::from(how >> 4) / 15);
    let padding = vec![0; usize::from(how >> 1 & 7)];
    let file = [gzip(first), padding, gzip(second)].concat();
    let (content, end) = check(&file, size);
    assert_eq!((content, end), (text.to_vec(), None));
    // A file that is still being written holds a part of it.
    let (content, end) = check(&file[..file.len() * (size - 1) / 256], size);
    assert!(text.starts_with(&content) && end.is_none());
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

/// The content of a file and the damage that ends it, the same by every way of reading.
fn check(file: &[u8], size: usize) -> (Vec<u8>, Option<GzipError>) {
    let whole = decode(file, usize::MAX, CONTENT_BYTES_MAX);
    let parts = decode(file, size, size * 7);
    assert_eq!(parts.1, whole.1);
    assert!(
        parts.0 == whole.0,
        "{} and {} bytes",
        parts.0.len(),
        whole.0.len()
    );
    let reader = GzipFile::new(Box::new(Memory(file.to_vec())));
    let len = whole.0.len();
    let ends = [0, 1, size, len / 2, len.saturating_sub(1), len];
    for from in ends
        .into_iter()
        .chain(ends.into_iter().rev())
        .filter(|from| *from <= len)
    {
        let mut out = b"x".to_vec();
        let most = if from == 0 { CONTENT_BYTES_MAX } else { size };
        let most = most.min(CONTENT_BYTES_MAX - from);
        let want = &whole.0[from..len.min(from + most)];
        match reader.read_at(from as u64, most, &mut out) {
            Ok(n) => assert!(
                n <= most && out[1..] == *want && n == want.len(),
                "from {from}"
            ),
            Err(_) => assert!(want.is_empty() && whole.1.is_some() && out == b"x"),
        }
    }
    whole
}

/// Decodes what is there, in pieces, up to the bytes that are looked at.
fn decode(file: &[u8], size: usize, step: usize) -> (Vec<u8>, Option<GzipError>) {
    let (mut gunzip, mut out) = (Gunzip::default(), Vec::new());
    let mut at = 0usize;
    loop {
        let input = &file[at..file.len().min(at.saturating_add(size))];
        let before = out.len();
        let room = step.min(CONTENT_BYTES_MAX - before);
        let pushed = gunzip.push(input, &mut out, room);
        assert!(out.len() - before <= room);
        match pushed {
            Ok(n) => at += n,
            Err(e) => return (out, Some(e)),
        }
        let used_up = at == file.len() && out.len() == before;
        if used_up || out.len() == CONTENT_BYTES_MAX {
            return (out, None);
        }
    }
}

/// A file in memory.
struct Memory(Vec<u8>);

impl LogFile for Memory {
    fn read_at(&self, offset: u64, max: usize, buf: &mut Vec<u8>) -> io::Result<usize> {
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.0.len());
        let to = self.0.len().min(from.saturating_add(max));
        buf.extend_from_slice(&self.0[from..to]);
        Ok(to - from)
    }
    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        Ok(Some(from))
    }
    fn meta(&self) -> io::Result<Meta> {
        Ok(Meta {
            id: FileId::default(),
            size: self.0.len() as u64,
            mtime_ns: 0,
            links: 1,
        })
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
