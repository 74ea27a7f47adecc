//! Decompresses gzip as it grows: pure, without I/O.
//!
//! The format is RFC 1952: members of a header, deflate data (RFC 1951), CRC-32 and length. What
//! is appended later goes on where decoding stopped, inside a member or with a new one, so a file
//! that grows is never decoded twice. Zero bytes between members are padding and are skipped.

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// Longest member header that is accepted, in bytes; names and comments in it have no limit.
const HEADER_BYTES_MAX: usize = 128 << 10;
/// Bytes inflated in one step.
const STEP_BYTES: usize = 32 << 10;

/// What is wrong with the data. Decoding cannot go on; what was given out before is content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GzipError {
    /// Where a member should start there is something else.
    #[error("not gzip data")]
    Magic,
    /// A compression method or flag that RFC 1952 does not define.
    #[error("a gzip header of an unknown kind")]
    Kind,
    /// The header is longer than 128 KiB.
    #[error("a gzip header longer than 128 KiB")]
    LongHeader,
    /// The deflate data are damaged.
    #[error("damaged gzip data")]
    Data,
    /// Checksum or length of a member do not fit its content, which was given out already.
    #[error("a gzip member whose checksum or length is wrong")]
    Checksum,
}

/// True if a file that starts with `head` is gzip.
pub fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b, 8])
}

enum State {
    /// Before or inside a header, of which this much is there.
    Header(Vec<u8>),
    /// Inside the deflate data.
    Body { inflate: Box<Decompress>, crc: Crc },
    /// Inside the eight bytes behind the data.
    Trailer {
        sum: u32,
        length: u32,
        seen: Vec<u8>,
    },
}

/// A decoder of one file.
pub struct Gunzip {
    state: State,
    /// The last step had no room for more: some content may be in the decoder, its input consumed.
    full: bool,
    error: Option<GzipError>,
}

impl Default for Gunzip {
    fn default() -> Gunzip {
        Gunzip {
            state: State::Header(Vec::new()),
            full: false,
            error: None,
        }
    }
}

impl Gunzip {
    /// Decodes `input`, which follows what was consumed before, and appends at most `max` bytes to
    /// `out`. Returns how much of `input` was consumed: all of it, unless `out` got `max` bytes.
    /// Without input it gives out what there was no room for.
    ///
    /// # Errors
    /// See [`GzipError`]; the same one from then on. `out` holds what came before the damage.
    pub fn push(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        max: usize,
    ) -> Result<usize, GzipError> {
        let end = out.len() + max;
        let mut used = 0;
        while self.error.is_none() && (used < input.len() || self.full) {
            if out.len() == end && matches!(self.state, State::Body { .. }) {
                break;
            }
            match self.step(&input[used..], out, end) {
                Ok(n) => used += n,
                Err(e) => self.error = Some(e),
            }
        }
        self.error.map_or(Ok(used), Err)
    }

    /// True between members: what was decoded is complete.
    pub fn is_between_members(&self) -> bool {
        matches!(&self.state, State::Header(seen) if seen.is_empty()) && self.error.is_none()
    }

    /// One step of the state; returns the input it consumed.
    fn step(&mut self, input: &[u8], out: &mut Vec<u8>, end: usize) -> Result<usize, GzipError> {
        match &mut self.state {
            State::Header(seen) => {
                let padding = match seen.is_empty() {
                    true => input.iter().take_while(|b| **b == 0).count(),
                    false => 0,
                };
                if padding > 0 {
                    return Ok(padding);
                }
                let before = seen.len();
                seen.extend_from_slice(&input[..input.len().min(HEADER_BYTES_MAX)]);
                match header_length(seen)? {
                    Some(length) => {
                        let inflate = Box::new(Decompress::new(false));
                        self.state = State::Body {
                            inflate,
                            crc: Crc::new(),
                        };
                        Ok(length - before)
                    }
                    None if seen.len() >= HEADER_BYTES_MAX => Err(GzipError::LongHeader),
                    None => Ok(seen.len() - before),
                }
            }
            State::Body { inflate, crc } => {
                let (from, before) = (out.len(), inflate.total_in());
                let written = inflate.total_out();
                out.resize(end.min(from + STEP_BYTES), 0);
                let status = inflate.decompress(input, &mut out[from..], FlushDecompress::None);
                let made = (inflate.total_out() - written) as usize;
                out.truncate(from + made);
                crc.update(&out[from..]);
                let used = (inflate.total_in() - before) as usize;
                self.full = out.len() == end.min(from + STEP_BYTES);
                match status.map_err(|_| GzipError::Data)? {
                    Status::StreamEnd => {
                        let (sum, length) = (crc.sum(), crc.amount());
                        self.full = false;
                        self.state = State::Trailer {
                            sum,
                            length,
                            seen: Vec::with_capacity(8),
                        };
                        Ok(used)
                    }
                    // Room and input were given, so no progress means that there can be none.
                    _ if used == 0 && made == 0 && !input.is_empty() => Err(GzipError::Data),
                    _ => Ok(used),
                }
            }
            State::Trailer { sum, length, seen } => {
                let used = input.len().min(8 - seen.len());
                seen.extend_from_slice(&input[..used]);
                if let &[a, b, c, d, e, f, g, h] = seen.as_slice() {
                    let fits = u32::from_le_bytes([a, b, c, d]) == *sum
                        && u32::from_le_bytes([e, f, g, h]) == *length;
                    if !fits {
                        return Err(GzipError::Checksum);
                    }
                    self.state = State::Header(Vec::new());
                }
                Ok(used)
            }
        }
    }
}

/// Length of the member header that `bytes` start with; `None` if it is not all there. RFC 1952,
/// section 2.3.
fn header_length(bytes: &[u8]) -> Result<Option<usize>, GzipError> {
    const CRC: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    let magic = [0x1f, 0x8b];
    if !magic.starts_with(&bytes[..bytes.len().min(2)]) {
        return Err(GzipError::Magic);
    }
    if bytes.get(2).is_some_and(|method| *method != 8) {
        return Err(GzipError::Kind);
    }
    let Some(&flags) = bytes.get(3) else {
        return Ok(None);
    };
    if flags & 0xe0 != 0 {
        return Err(GzipError::Kind);
    }
    let mut at = 10;
    if flags & EXTRA != 0 {
        let Some(&[low, high]) = bytes.get(at..at + 2) else {
            return Ok(None);
        };
        at += 2 + usize::from(u16::from_le_bytes([low, high]));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = bytes.get(at..).and_then(|rest| memchr::memchr(0, rest));
            let Some(end) = end else { return Ok(None) };
            at += end + 1;
        }
    }
    if flags & CRC != 0 {
        at += 2;
    }
    Ok((bytes.len() >= at).then_some(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection;
    use proptest::prelude::*;
    use std::io::Write;

    fn member(bytes: &[u8]) -> Vec<u8> {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(bytes).unwrap();
        e.finish().unwrap()
    }

    /// Decodes `input` in pieces, with little room at a time.
    fn decode(input: &[u8], piece: usize, room: usize) -> (Vec<u8>, Result<bool, GzipError>) {
        let (mut g, mut out, mut at) = (Gunzip::default(), Vec::new(), 0);
        while at < input.len() {
            let before = out.len();
            match g.push(&input[at..input.len().min(at + piece)], &mut out, room) {
                Ok(n) => {
                    assert!(n > 0 || out.len() > before, "no progress");
                    at += n;
                }
                Err(e) => return (out, Err(e)),
            }
        }
        (out, Ok(g.is_between_members()))
    }

    #[test]
    fn members_follow_each_other_with_padding_between() {
        let input = [
            member(b"one\n"),
            vec![0; 5],
            member(b""),
            member(b"two\n"),
            vec![0; 3],
        ]
        .concat();
        for (piece, room) in [(1, 1), (7, 3), (1000, 1000)] {
            assert_eq!(
                decode(&input, piece, room),
                (b"one\ntwo\n".to_vec(), Ok(true))
            );
        }
    }

    #[test]
    fn headers_with_all_fields_are_skipped() {
        let plain = member(b"text");
        let mut header = vec![0x1f, 0x8b, 8, 2 | 4 | 8 | 16, 1, 2, 3, 4, 0, 3];
        header.extend_from_slice(&[3, 0, b'x', 0, b'z']);
        header.extend_from_slice(b"name\0comment\0\x12\x34");
        let input = [header, plain[10..].to_vec()].concat();
        for piece in [1, 1000] {
            assert_eq!(decode(&input, piece, 99), (b"text".to_vec(), Ok(true)));
        }
    }

    #[test]
    fn a_cut_member_gives_what_is_there_and_goes_on_when_the_rest_comes() {
        let text: Vec<u8> = (0..9_000u32)
            .flat_map(|i| format!("{i}\n").into_bytes())
            .collect();
        let input = member(&text);
        for cut in [
            0,
            1,
            3,
            9,
            10,
            11,
            input.len() / 2,
            input.len() - 9,
            input.len() - 1,
        ] {
            let (mut g, mut out) = (Gunzip::default(), Vec::new());
            let mut push = |part: &[u8], out: &mut Vec<u8>| {
                let mut at = 0;
                while at < part.len() {
                    at += g.push(&part[at..], out, 1 << 20).unwrap();
                }
                g.is_between_members()
            };
            assert!(push(&input[..cut], &mut out) == (cut == 0));
            assert!(text.starts_with(&out));
            assert!(push(&input[cut..], &mut out) && out == text, "cut at {cut}");
        }
    }

    #[test]
    fn damage_is_named_and_final() {
        let good = member(b"some text that is long enough");
        let check = |change: &dyn Fn(&mut Vec<u8>), want: GzipError| {
            let mut bytes = good.clone();
            change(&mut bytes);
            assert_eq!(decode(&bytes, 5_000, 100).1, Err(want));
        };
        check(&|b| b[0] = b'x', GzipError::Magic);
        check(&|b| b[2] = 7, GzipError::Kind);
        check(&|b| b[3] = 0x80, GzipError::Kind);
        check(&|b| b[10] |= 6, GzipError::Data);
        check(&|b| *b.last_mut().unwrap() ^= 1, GzipError::Checksum);
        check(&|b| b.extend(b"junk"), GzipError::Magic);
        check(
            &|b| *b = [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0][..], &[b'n'; 200_000]].concat(),
            GzipError::LongHeader,
        );
        let (mut g, mut out) = (Gunzip::default(), Vec::new());
        assert_eq!(g.push(b"no", &mut out, 9), Err(GzipError::Magic));
        assert_eq!(g.push(&good, &mut out, 9), Err(GzipError::Magic));
        assert!(!g.is_between_members() && out.is_empty());
    }

    #[test]
    fn a_bomb_takes_no_more_room_than_allowed() {
        let input = member(&vec![0; 1 << 20]);
        let (mut g, mut out) = (Gunzip::default(), Vec::new());
        let n = g.push(&input, &mut out, 1000).unwrap();
        assert!(out.len() == 1000 && n < input.len() && out.capacity() < 100_000);
    }

    #[test]
    fn what_had_no_room_comes_without_more_input() {
        let input = member(&[vec![b'a'; 5_000], b"end".to_vec()].concat());
        let cut = &input[..input.len() - 8];
        for room in [1, 100, 257] {
            let (mut g, mut out, mut at) = (Gunzip::default(), Vec::new(), 0);
            for _ in 0..6_000 {
                at += g.push(&cut[at..], &mut out, room).unwrap();
            }
            assert_eq!((at, out.len()), (cut.len(), 5_003), "room {room}");
        }
    }

    #[test]
    fn magic_bytes_tell_gzip() {
        assert!(is_gzip(&member(b"")));
        for head in [&b""[..], b"\x1f\x8b", b"\x1f\x8b\x07", b"text"] {
            assert!(!is_gzip(head));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn property_any_cut_gives_the_same_and_no_input_panics(
            parts in collection::vec(collection::vec(any::<u8>(), 0..300), 1..4),
            piece in 1usize..200, room in 1usize..200, at in 0usize..2000, flip in any::<u8>(),
        ) {
            let mut input: Vec<u8> = parts.iter().flat_map(|p| member(p)).collect();
            prop_assert_eq!(decode(&input, piece, room), (parts.concat(), Ok(true)));
            let at = at % input.len();
            input[at] ^= flip;
            let _ = decode(&input, piece, room);
        }
    }
}
