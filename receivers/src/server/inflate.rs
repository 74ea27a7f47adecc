//! Content encodings of requests: inflated up to a limit, and not a byte further.

use std::cell::Cell;
use std::io::{self, BufRead, Read};

use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

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
/// What is inflated and kept of any body. Of one that grows beyond it too well to be true no more is kept
/// before it is known how long it gets.
const KEPT_BYTES: usize = 512 << 10;
/// What grows to more than so many times its bytes is too good to be true: telemetry compresses to a tenth or
/// twentieth, bombs to a thousandth.
const RATIO_SUSPECT: usize = 64;
/// The same of snappy, which cannot do better than [`SNAPPY_RATIO_MAX`].
const SNAPPY_RATIO_SUSPECT: usize = 16;

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
        match self {
            Encoding::Identity if body.len() > max => Err(InflateError::TooLarge(max)),
            Encoding::Identity => Ok(body),
            _ => self.inflate_pieces(&[body], max, room),
        }
    }

    /// The same of a body in pieces.
    ///
    /// # Errors
    /// As [`Encoding::inflate`].
    pub fn inflate_pieces(
        self,
        body: &[Bytes],
        max: usize,
        room: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Bytes, InflateError> {
        let Some(first) = body.iter().find(|piece| !piece.is_empty()) else {
            // Nothing is nothing, however it is compressed; some clients send it so.
            return Ok(Bytes::new());
        };
        match self {
            Encoding::Snappy if !first.starts_with(SNAPPY_FRAMED) => match body {
                [whole] => snappy_block(whole, max, room),
                several => snappy_block(&several.concat(), max, room),
            },
            Encoding::Deflate if is_zlib(first) => Encoding::Zlib.drain(body, max, room),
            _ => self.drain(body, max, room),
        }
    }

    /// Whether the begin of a body is enough to inflate to more than `max`; keeps nothing of it.
    pub fn exceeds(self, begin: &[Bytes], max: usize) -> bool {
        let first = begin.first().map_or(&[][..], |first| first);
        let encoding = match self {
            Encoding::Snappy if !first.starts_with(SNAPPY_FRAMED) => {
                return snap::raw::decompress_len(first).is_ok_and(|length| length > max);
            }
            Encoding::Deflate if is_zlib(first) => Encoding::Zlib,
            other => other,
        };
        let taken = Cell::new(0);
        let from = encoding.open(Input::new(begin, &taken));
        let measured = from.map(|from| encoding.measure(from, 0, max));
        matches!(measured, Ok(Err(InflateError::TooLarge(_))))
    }

    /// What comes out of `input`.
    fn open<'i>(self, input: Input<'i>) -> io::Result<Box<dyn Read + 'i>> {
        Ok(match self {
            Encoding::Identity => Box::new(input),
            Encoding::Gzip => Box::new(MultiGzDecoder::new(input)),
            Encoding::Zlib => Box::new(ZlibDecoder::new(input)),
            Encoding::Deflate => Box::new(DeflateDecoder::new(input)),
            Encoding::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
            Encoding::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(input)),
            Encoding::Snappy => Box::new(snap::read::FrameDecoder::new(input)),
        })
    }

    fn drain(
        self,
        body: &[Bytes],
        max: usize,
        room: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Bytes, InflateError> {
        let broken = |e| self.broken(e);
        let ratio_suspect = match self {
            Encoding::Snappy => SNAPPY_RATIO_SUSPECT,
            _ => RATIO_SUSPECT,
        };
        let taken = Cell::new(0);
        let mut from = self.open(Input::new(body, &taken)).map_err(broken)?;
        // Whole pieces, and the one that grows: one that is as long as all of it would be copied again
        // and again, and take twice the limit.
        let (mut pieces, mut out) = (Vec::new(), Vec::new());
        let (mut before, mut asked) = (0, 0);
        loop {
            if !room(STEP_BYTES) {
                return Err(InflateError::NoRoom);
            }
            asked += STEP_BYTES;
            let step = STEP_BYTES.min(max + 1 - before - out.len());
            let begin = out.len();
            let read = from.by_ref().take(step as u64).read_to_end(&mut out);
            read.map_err(broken)?;
            let have = before + out.len();
            if have > max {
                return Err(InflateError::TooLarge(max));
            }
            if out.len() - begin < step {
                break;
            }
            if have >= KEPT_BYTES && have / ratio_suspect > taken.get() {
                drop((pieces, out));
                let length = self.measure(from, have, max)?;
                return self.exactly(body, length, asked, room);
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

    /// How long all becomes of which `have` bytes came before; keeps none of it.
    fn measure(
        self,
        mut from: Box<dyn Read + '_>,
        mut have: usize,
        max: usize,
    ) -> Result<usize, InflateError> {
        let mut scratch = [0; 16 << 10];
        loop {
            match from.read(&mut scratch) {
                Ok(0) => return Ok(have),
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.broken(e)),
            }
            if have > max {
                return Err(InflateError::TooLarge(max));
            }
        }
    }

    /// Inflates what is known to become `length` bytes long. Room for `asked` of them is there.
    fn exactly(
        self,
        body: &[Bytes],
        length: usize,
        asked: usize,
        room: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Bytes, InflateError> {
        if !room(length.saturating_sub(asked)) {
            return Err(InflateError::NoRoom);
        }
        let taken = Cell::new(0);
        let mut out = vec![0; length];
        let from = self.open(Input::new(body, &taken));
        let read = from.and_then(|mut from| from.read_exact(&mut out));
        read.map_err(|e| self.broken(e))?;
        Ok(Bytes::from(out))
    }

    fn broken(self, e: io::Error) -> InflateError {
        InflateError::Broken {
            name: self.name(),
            problem: e.to_string(),
        }
    }
}

/// A body that tells how many of its bytes were taken.
struct Input<'i> {
    pieces: &'i [Bytes],
    /// Bytes of the first piece that were taken.
    at: usize,
    taken: &'i Cell<usize>,
}

impl<'i> Input<'i> {
    fn new(pieces: &'i [Bytes], taken: &'i Cell<usize>) -> Input<'i> {
        Input {
            pieces,
            at: 0,
            taken,
        }
    }
}

impl Read for Input<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Input<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while let Some((first, rest)) = self.pieces.split_first() {
            if self.at < first.len() {
                return Ok(&first[self.at..]);
            }
            (self.pieces, self.at) = (rest, 0);
        }
        Ok(&[])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
        self.taken.set(self.taken.get() + n);
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
            let mut left = 10 * STEP_BYTES;
            let mut little = |bytes| {
                let fits = bytes < left;
                left -= if fits { bytes } else { 0 };
                fits
            };
            let got = encoding.inflate(body, usize::MAX - 1, &mut little);
            assert!(matches!(got, Err(InflateError::NoRoom)), "{encoding:?}");
        }
    }

    /// Guarantee: what grows a thousandfold comes back all the same, up to the very limit, and takes room once.
    #[test]
    fn what_compresses_too_well_comes_back() {
        for encoding in Encoding::ALL {
            for length in [
                KEPT_BYTES - 1,
                KEPT_BYTES,
                KEPT_BYTES + 1,
                3 * KEPT_BYTES + 5,
            ] {
                let plain: Vec<u8> = (0..length).map(|i| (i / 100_000) as u8).collect();
                let body = compress(encoding, &plain);
                let mut taken = 0;
                let mut room = |bytes| {
                    taken += bytes;
                    true
                };
                let got = encoding.inflate(body.clone(), length, &mut room).unwrap();
                assert_eq!(got, plain, "{encoding:?} of {length}");
                assert!(taken <= length + STEP_BYTES, "{encoding:?}: {taken}");
                let over = encoding.inflate(body.clone(), length - 1, &mut |_| true);
                assert!(
                    matches!(over, Err(InflateError::TooLarge(_))),
                    "{encoding:?} of {length}: {over:?}"
                );
                assert!(
                    encoding.exceeds(std::slice::from_ref(&body), length - 1),
                    "{encoding:?}"
                );
                assert!(
                    !encoding.exceeds(std::slice::from_ref(&body), length),
                    "{encoding:?}"
                );
                let cut = encoding.inflate(body.slice(..body.len() - 9), length, &mut |_| true);
                assert!(
                    !matches!(&cut, Ok(out) if *out == plain) || encoding == Encoding::Lz4,
                    "{encoding:?} of {length}"
                );
            }
        }
    }

    /// Guarantee: where a body is cut into pieces makes no difference.
    #[test]
    fn pieces_are_one_body() {
        let plain: Vec<u8> = (0..300_000u64).map(|i| (i * i % 251) as u8).collect();
        let block = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        let bodies = Encoding::ALL.map(|e| (e, compress(e, &plain)));
        for (encoding, body) in bodies.into_iter().chain([(Encoding::Snappy, block.into())]) {
            for length in [11, 4096, body.len()] {
                let pieces: Vec<Bytes> = body.chunks(length).map(Bytes::copy_from_slice).collect();
                let got = encoding.inflate_pieces(&pieces, plain.len(), &mut |_| true);
                assert_eq!(got.unwrap(), plain, "{encoding:?} in {length}");
            }
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
