//! Compression of request bodies, and back.
//!
//! Names and formats are the collector's: `deflate` and `zlib` both are zlib streams (RFC 1950);
//! over HTTP `snappy` is one raw block and `x-snappy-framed` the stream format, while gRPC knows the
//! stream format only, as `snappy`; `lz4` is the frame format.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::Compression as Level;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

/// The level of zstd where none is configured: the collector's is its fastest, which is nearest to
/// this one.
const ZSTD_LEVEL_DEFAULT: i32 = 1;
/// Levels above take more memory than a body is worth.
const ZSTD_LEVEL_MAX: i64 = 19;

/// How bodies are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Not at all.
    None,
    /// `gzip`, with a level of 0 to 9.
    Gzip(u32),
    /// `zlib` and `deflate`, with the name that is sent and a level of 0 to 9.
    Zlib(&'static str, u32),
    /// A raw block.
    SnappyBlock,
    /// The stream format, with the name that is sent.
    SnappyFramed(&'static str),
    /// `zstd`, with a level of 1 to 19.
    Zstd(i32),
    /// `lz4`.
    Lz4,
}

impl Compression {
    /// The compression called `name` over HTTP; `level` as in `compression_params`, 0 is the
    /// default. The error says what is wrong with the level.
    pub fn http(name: &str, level: i64) -> Result<Compression, &'static str> {
        Ok(match name {
            "gzip" => Compression::Gzip(deflate_level(level)?),
            "zlib" => Compression::Zlib("zlib", deflate_level(level)?),
            "deflate" => Compression::Zlib("deflate", deflate_level(level)?),
            "zstd" => Compression::Zstd(zstd_level(level)),
            _ if level != 0 => return Err("this compression has no levels"),
            "snappy" => Compression::SnappyBlock,
            "x-snappy-framed" => Compression::SnappyFramed("x-snappy-framed"),
            "lz4" => Compression::Lz4,
            _ => Compression::None,
        })
    }

    /// The compression called `name` over gRPC.
    pub fn grpc(name: &str) -> Compression {
        match name {
            "gzip" => Compression::Gzip(Level::default().level()),
            "zstd" => Compression::Zstd(ZSTD_LEVEL_DEFAULT),
            "snappy" => Compression::SnappyFramed("snappy"),
            _ => Compression::None,
        }
    }

    /// What a header calls it; `None` for none.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Compression::None => None,
            Compression::Gzip(_) => Some("gzip"),
            Compression::Zlib(name, _) | Compression::SnappyFramed(name) => Some(name),
            Compression::SnappyBlock => Some("snappy"),
            Compression::Zstd(_) => Some("zstd"),
            Compression::Lz4 => Some("lz4"),
        }
    }

    /// Compresses a body. Chunks that need no compression are passed on as they are.
    pub fn compress(self, chunks: Vec<Bytes>) -> io::Result<Vec<Bytes>> {
        let length = chunks.iter().map(Bytes::len).sum::<usize>();
        let out = Vec::with_capacity(length / 4 + 64);
        let out = match self {
            Compression::None => return Ok(chunks),
            Compression::Gzip(level) => {
                let mut w = GzEncoder::new(out, Level::new(level));
                write_all(&mut w, &chunks)?;
                w.finish()?
            }
            Compression::Zlib(_, level) => {
                let mut w = ZlibEncoder::new(out, Level::new(level));
                write_all(&mut w, &chunks)?;
                w.finish()?
            }
            Compression::SnappyFramed(_) => {
                let mut w = snap::write::FrameEncoder::new(out);
                write_all(&mut w, &chunks)?;
                w.into_inner()
                    .map_err(|e| io::Error::other(e.to_string()))?
            }
            Compression::SnappyBlock => {
                let whole = in_one_piece(chunks);
                let made = snap::raw::Encoder::new().compress_vec(&whole);
                made.map_err(io::Error::other)?
            }
            Compression::Zstd(level) => {
                let mut w = zstd::stream::write::Encoder::new(out, level)?;
                write_all(&mut w, &chunks)?;
                w.finish()?
            }
            Compression::Lz4 => {
                let mut w = lz4_flex::frame::FrameEncoder::new(out);
                write_all(&mut w, &chunks)?;
                w.finish().map_err(io::Error::other)?
            }
        };
        Ok(vec![Bytes::from(out)])
    }
}

fn deflate_level(level: i64) -> Result<u32, &'static str> {
    match level {
        -1 | 0 => Ok(Level::default().level()),
        1..=9 => Ok(level as u32),
        -2 => Err("Huffman coding alone (-2) is not supported; levels are 1 to 9"),
        _ => Err("levels are 1 to 9, and -1 or 0 for the default"),
    }
}

/// Any level is taken, as in the collector.
fn zstd_level(level: i64) -> i32 {
    match level {
        0 | -1 => ZSTD_LEVEL_DEFAULT,
        level => level.clamp(1, ZSTD_LEVEL_MAX) as i32,
    }
}

fn write_all(w: &mut impl Write, chunks: &[Bytes]) -> io::Result<()> {
    chunks.iter().try_for_each(|c| w.write_all(c))
}

/// Chunks as one; copies if they are several.
pub fn in_one_piece(chunks: Vec<Bytes>) -> Bytes {
    match <[Bytes; 1]>::try_from(chunks) {
        Ok([one]) => one,
        Err(several) => several.concat().into(),
    }
}

/// What was compressed in the way that a header calls `name`, at most `max` bytes.
pub fn decompress(name: &str, body: &[u8], max: usize) -> io::Result<Bytes> {
    match name {
        "gzip" => read_up_to(MultiGzDecoder::new(body), max),
        "zlib" | "deflate" => read_up_to(ZlibDecoder::new(body), max),
        "zstd" => read_up_to(zstd::stream::read::Decoder::with_buffer(body)?, max),
        "lz4" => read_up_to(lz4_flex::frame::FrameDecoder::new(body), max),
        // A stream begins with a chunk of its own kind, which no block begins with: it would be
        // the length 0x6ff of something that starts with a copy.
        "snappy" | "x-snappy-framed" if body.starts_with(b"\xff\x06\x00\x00sNaPpY") => {
            read_up_to(snap::read::FrameDecoder::new(body), max)
        }
        "snappy" => {
            let length = snap::raw::decompress_len(body).map_err(io::Error::other)?;
            if length > max {
                return Err(too_long(max));
            }
            let made = snap::raw::Decoder::new().decompress_vec(body);
            made.map(Bytes::from).map_err(io::Error::other)
        }
        other => Err(io::Error::other(format!("unknown compression {other:?}"))),
    }
}

fn read_up_to(from: impl Read, max: usize) -> io::Result<Bytes> {
    let mut out = Vec::new();
    from.take(max as u64 + 1).read_to_end(&mut out)?;
    match out.len() > max {
        true => Err(too_long(max)),
        false => Ok(out.into()),
    }
}

fn too_long(max: usize) -> io::Error {
    io::Error::other(format!("longer than {max} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTP: [&str; 8] = [
        "gzip",
        "zlib",
        "deflate",
        "zstd",
        "snappy",
        "x-snappy-framed",
        "lz4",
        "none",
    ];

    fn chunks() -> Vec<Bytes> {
        let text = b"one line like another one; ".repeat(5000);
        let text = Bytes::from(text);
        vec![
            text.slice(..7),
            text.slice(7..100_000),
            text.slice(100_000..),
        ]
    }

    #[test]
    fn every_compression_comes_back_and_is_bounded() {
        let whole = in_one_piece(chunks());
        let grpc = ["gzip", "zstd", "snappy"].map(Compression::grpc);
        let http = HTTP.map(|name| Compression::http(name, 0).unwrap());
        for c in grpc.into_iter().chain(http) {
            let made = in_one_piece(c.compress(chunks()).unwrap());
            let Some(name) = c.name() else {
                assert_eq!(made, whole);
                continue;
            };
            assert!(made.len() < whole.len() / 4, "{c:?}");
            assert_eq!(
                decompress(name, &made, whole.len()).unwrap(),
                whole,
                "{c:?}"
            );
            assert!(decompress(name, &made, whole.len() - 1).is_err(), "{c:?}");
            assert!(
                decompress(name, &made[..made.len() / 2], 1 << 30).is_err(),
                "{c:?}"
            );
        }
    }

    #[test]
    fn chunks_that_are_not_compressed_are_not_copied() {
        let before = chunks();
        let after = Compression::None.compress(before.clone()).unwrap();
        let at = |list: &[Bytes]| list.iter().map(|c| c.as_ptr()).collect::<Vec<_>>();
        assert_eq!(at(&before), at(&after));
    }

    #[test]
    fn levels_are_checked_as_the_collector_does() {
        for (name, level, ok) in [
            ("gzip", 9, true),
            ("gzip", -1, true),
            ("gzip", 10, false),
            ("deflate", -2, false),
            ("zstd", 99, true),
            ("snappy", 1, false),
            ("lz4", 1, false),
            ("none", 1, false),
        ] {
            assert_eq!(Compression::http(name, level).is_ok(), ok, "{name} {level}");
        }
        assert_eq!(Compression::http("zstd", 99), Ok(Compression::Zstd(19)));
    }
}
