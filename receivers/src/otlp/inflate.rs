//! Content encodings of requests: inflated up to a limit, and not a byte further.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// How a body is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// gzip (RFC 1952), also several members.
    Gzip,
    /// Zstandard (RFC 8878), windows of at most 8 MiB.
    Zstd,
    /// zlib (RFC 1950).
    Zlib,
    /// snappy, framed or as one block: its first bytes tell.
    Snappy,
    /// What HTTP calls deflate: zlib, or bare deflate (RFC 1951) as some clients send.
    Deflate,
    /// LZ4 frames.
    Lz4,
}

/// RFC 8878 asks decoders for windows of up to 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// The first chunk of framed snappy. Source: google/snappy, framing_format.txt.
const SNAPPY_FRAMED: &[u8] = b"\xff\x06\x00\x00sNaPpY";
/// A copy of 64 bytes takes three bytes: no block of snappy inflates further.
const SNAPPY_RATIO_MAX: usize = 22;
/// What is inflated between two looks at the limits.
pub const STEP_BYTES: usize = 64 << 10;
/// What is inflated into one piece of memory; small enough for the allocator to use it again at once.
const PIECE_BYTES: usize = 256 << 10;

/// Why a body cannot be inflated.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    /// More comes out of it than is allowed.
    #[error("it inflates to more than {0} bytes")]
    TooLarge(usize),
    /// There is no room for it now.
    #[error("there is no room for what it inflates to")]
    NoRoom,
    /// It is broken.
    #[error("it is not valid {name}: {problem}")]
    Broken {
        /// What it should be.
        name: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl Encoding {
    /// All that change a body.
    pub const ALL: [Encoding; 6] = [
        Encoding::Gzip,
        Encoding::Zstd,
        Encoding::Zlib,
        Encoding::Snappy,
        Encoding::Deflate,
        Encoding::Lz4,
    ];

    /// The encoding of a name as in `Content-Encoding` and `grpc-encoding`.
    pub fn of(name: &str) -> Option<Encoding> {
        Some(match name {
            "" | "identity" | "none" => Encoding::Identity,
            "gzip" | "x-gzip" => Encoding::Gzip,
            "zstd" => Encoding::Zstd,
            "zlib" => Encoding::Zlib,
            "snappy" | "x-snappy-framed" => Encoding::Snappy,
            "deflate" => Encoding::Deflate,
            "lz4" => Encoding::Lz4,
            _ => return None,
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Zstd => "zstd",
            Encoding::Zlib => "zlib",
            Encoding::Snappy => "snappy",
            Encoding::Deflate => "deflate",
            Encoding::Lz4 => "lz4",
        }
    }

    /// Inflates `body` to at most `max` bytes. `room` is asked before each step for its bytes.
    ///
    /// # Errors
    /// It is broken, too large, or `room` has none.
    pub fn inflate(
        self,
        body: Bytes,
        max: usize,
        room: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Bytes, InflateError> {
        let broken = |e: io::Error| InflateError::Broken {
            name: self.name(),
            problem: e.to_string(),
        };
        match self {
            // Nothing is nothing, however it is compressed; some clients send it so.
            _ if body.is_empty() => Ok(body),
            Encoding::Identity if body.len() > max => Err(InflateError::TooLarge(max)),
            Encoding::Identity => Ok(body),
            Encoding::Gzip => self.drain(MultiGzDecoder::new(&body[..]), max, room),
            Encoding::Zlib => self.drain(ZlibDecoder::new(&body[..]), max, room),
            Encoding::Deflate if is_zlib(&body) => Encoding::Zlib.inflate(body, max, room),
            Encoding::Deflate => self.drain(DeflateDecoder::new(&body[..]), max, room),
            Encoding::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(&body[..]);
                if let Ok(decoder) = &mut decoder {
                    decoder
                        .window_log_max(ZSTD_WINDOW_LOG_MAX)
                        .map_err(broken)?;
                }
                self.drain(decoder.map_err(broken)?, max, room)
            }
            Encoding::Lz4 => {
                let decoder = lz4_flex::frame::FrameDecoder::new(&body[..]);
                self.drain(decoder, max, room)
            }
            Encoding::Snappy if body.starts_with(SNAPPY_FRAMED) => {
                self.drain(snap::read::FrameDecoder::new(&body[..]), max, room)
            }
            Encoding::Snappy => snappy_block(&body, max, room),
        }
    }

    fn drain(
        self,
        mut from: impl Read,
        max: usize,
        room: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Bytes, InflateError> {
        // Whole pieces, and the one that grows: one that is as long as all of it would be copied again
        // and again, and take twice the limit.
        let (mut pieces, mut out) = (Vec::new(), Vec::new());
        let mut before = 0;
        loop {
            if !room(STEP_BYTES) {
                return Err(InflateError::NoRoom);
            }
            let step = STEP_BYTES.min(max + 1 - before - out.len());
            let begin = out.len();
            let read = from.by_ref().take(step as u64).read_to_end(&mut out);
            read.map_err(|e| InflateError::Broken {
                name: self.name(),
                problem: e.to_string(),
            })?;
            if before + out.len() > max {
                return Err(InflateError::TooLarge(max));
            }
            if out.len() - begin < step {
                break;
            }
            if out.len() >= PIECE_BYTES {
                before += out.len();
                // What is asked for ahead of the end is no more than a step.
                pieces.push(std::mem::replace(
                    &mut out,
                    Vec::with_capacity(PIECE_BYTES + 1),
                ));
            }
        }
        if pieces.is_empty() {
            return Ok(Bytes::from(out));
        }
        pieces.push(out);
        Ok(Bytes::from(pieces.concat()))
    }
}

/// Whether it begins as zlib does: method 8, and a header that is a multiple of 31 (RFC 1950, 2.2).
fn is_zlib(body: &[u8]) -> bool {
    let [method, flags, ..] = body else {
        return false;
    };
    method & 0x0f == 8 && (u16::from(*method) << 8 | u16::from(*flags)).is_multiple_of(31)
}

fn snappy_block(
    body: &[u8],
    max: usize,
    room: &mut dyn FnMut(usize) -> bool,
) -> Result<Bytes, InflateError> {
    let broken = |problem: String| InflateError::Broken {
        name: Encoding::Snappy.name(),
        problem,
    };
    let length = snap::raw::decompress_len(body).map_err(|e| broken(e.to_string()))?;
    if length > max {
        return Err(InflateError::TooLarge(max));
    }
    if length / SNAPPY_RATIO_MAX > body.len() {
        return Err(broken("it cannot be as long as it says".to_owned()));
    }
    if !room(length) {
        return Err(InflateError::NoRoom);
    }
    let out = snap::raw::Decoder::new().decompress_vec(body);
    out.map(Bytes::from).map_err(|e| broken(e.to_string()))
}

#[cfg(test)]
pub mod tests {
    use std::io::Write;

    use super::*;

    /// A body as a client compresses it.
    pub fn compress(encoding: Encoding, plain: &[u8]) -> Bytes {
        let level = flate2::Compression::default();
        let out = match encoding {
            Encoding::Identity => plain.to_vec(),
            Encoding::Gzip => {
                let mut w = flate2::write::GzEncoder::new(Vec::new(), level);
                w.write_all(plain).unwrap();
                w.finish().unwrap()
            }
            Encoding::Zlib | Encoding::Deflate => {
                let mut w = flate2::write::ZlibEncoder::new(Vec::new(), level);
                w.write_all(plain).unwrap();
                w.finish().unwrap()
            }
            Encoding::Zstd => zstd::encode_all(plain, 1).unwrap(),
            Encoding::Lz4 => {
                let mut w = lz4_flex::frame::FrameEncoder::new(Vec::new());
                w.write_all(plain).unwrap();
                w.finish().unwrap()
            }
            Encoding::Snappy => {
                let mut w = snap::write::FrameEncoder::new(Vec::new());
                w.write_all(plain).unwrap();
                w.into_inner().unwrap()
            }
        };
        Bytes::from(out)
    }

    /// Guarantee: what was compressed comes back, also at the very limit, and is refused one byte
    /// above it; what is cut off or changed is broken, whatever the encoding.
    #[test]
    fn bodies_come_back_up_to_the_limit() {
        for encoding in Encoding::ALL {
            for length in [
                0,
                1,
                STEP_BYTES - 1,
                STEP_BYTES,
                STEP_BYTES + 1,
                300_000,
                PIECE_BYTES,
                3 * PIECE_BYTES + 5,
            ] {
                let plain: Vec<u8> = (0..length).map(|i| (i * i % 251) as u8).collect();
                let body = compress(encoding, &plain);
                let mut any = |_| true;
                let got = encoding.inflate(body.clone(), length, &mut any).unwrap();
                assert_eq!(got, plain, "{encoding:?} of {length}");
                if length == 0 {
                    continue;
                }
                let over = encoding.inflate(body.clone(), length - 1, &mut any);
                assert!(
                    matches!(over, Err(InflateError::TooLarge(_))),
                    "{encoding:?} of {length}: {over:?}"
                );
                let cut = encoding.inflate(body.slice(..body.len() / 2), length, &mut any);
                assert!(
                    !matches!(&cut, Ok(out) if *out == plain),
                    "{encoding:?} of {length}"
                );
            }
        }
    }

    /// Guarantee: of a bomb no more is inflated than the limit and one step, and no room is taken
    /// for more.
    #[test]
    fn bombs_stop_at_the_limit() {
        let plain = vec![0; 4 << 20];
        for encoding in Encoding::ALL {
            let body = compress(encoding, &plain);
            let mut taken = 0;
            let mut room = |bytes| {
                taken += bytes;
                true
            };
            let got = encoding.inflate(body.clone(), 1 << 17, &mut room);
            assert!(
                matches!(got, Err(InflateError::TooLarge(_))),
                "{encoding:?}"
            );
            assert!(taken <= (1 << 17) + 2 * STEP_BYTES, "{encoding:?}: {taken}");
            let mut left = 10;
            let mut little = |_| {
                left -= 1;
                left > 0
            };
            let got = encoding.inflate(body, usize::MAX - 1, &mut little);
            assert!(matches!(got, Err(InflateError::NoRoom)), "{encoding:?}");
        }
    }

    #[test]
    fn variants_are_told_apart() {
        let any = &mut |_: usize| true;
        let block = snap::raw::Encoder::new().compress_vec(b"abc").unwrap();
        let got = Encoding::Snappy.inflate(block.into(), 10, any).unwrap();
        assert_eq!(&got[..], b"abc");
        let level = flate2::Compression::default();
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), level);
        bare.write_all(b"abc").unwrap();
        let bare = bare.finish().unwrap();
        let got = Encoding::Deflate.inflate(bare.into(), 10, any).unwrap();
        assert_eq!(&got[..], b"abc");
        // A block that claims 16 MiB in six bytes.
        let lie = Encoding::Snappy.inflate(b"\x80\x80\x80\x08ab".as_slice().into(), 1 << 30, any);
        assert!(matches!(lie, Err(InflateError::Broken { .. })), "{lie:?}");
        let members = [
            compress(Encoding::Gzip, b"ab"),
            compress(Encoding::Gzip, b"c"),
        ];
        let got = Encoding::Gzip
            .inflate(members.concat().into(), 10, any)
            .unwrap();
        assert_eq!(&got[..], b"abc");
    }
}
