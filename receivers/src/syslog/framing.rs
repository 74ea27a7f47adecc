//! Where messages end in what comes over a connection, or in a datagram. Free of I/O.
//!
//! Source: RFC 6587, 3.4 (octet counting, non-transparent framing), and the rules of
//! [`frame`](crate::input::frame) for everything else.
//!
//! INVARIANT: messages depend on the bytes alone and on where a flush happened, not on how the bytes came.
//!
//! INVARIANT: every byte belongs to a message, or is white space or a trailer between two.

use crate::input::frame::{FrameSpec, FrameState, Frames, Input, Token, Trim, Units};

/// Digits that a length may have. A number that is longer is no length.
const DIGITS_MAX: usize = 10;

/// How messages are marked off.
#[derive(Clone, Debug)]
pub enum Framing {
    /// As records of text: by line ends, patterns, or not at all.
    Text(FrameSpec),
    /// Their length stands before them. What begins with no length goes to the end of the line.
    Counted {
        /// Longest message with its length before it, in bytes; longer ones are cut.
        bytes_max: usize,
    },
    /// A byte stands behind each.
    Trailer {
        /// The byte.
        byte: u8,
        /// How characters are made of bytes, so that none is cut.
        units: Units,
        /// White space to remove.
        trim: Trim,
        /// Longest message in bytes; longer ones are cut.
        bytes_max: usize,
    },
    /// All of a datagram is one.
    Whole {
        /// How characters are made of bytes.
        units: Units,
        /// White space to remove.
        trim: Trim,
    },
}

impl Framing {
    /// Whether characters of ASCII are single bytes.
    pub fn is_of_bytes(&self) -> bool {
        match self {
            Framing::Text(spec) => spec.units.size() == 1,
            Framing::Counted { .. } => true,
            Framing::Trailer { units, .. } | Framing::Whole { units, .. } => units.size() == 1,
        }
    }

    /// A buffer of so many bytes is enough to get on.
    pub fn buffer_bytes_max(&self) -> usize {
        match self {
            Framing::Text(spec) => spec.buffer_bytes_max(),
            Framing::Counted { bytes_max } => (*bytes_max).max(DIGITS_MAX + 1),
            Framing::Trailer { bytes_max, .. } => bytes_max + 1,
            Framing::Whole { .. } => usize::from(u16::MAX),
        }
    }
}

/// What has to be known of the bytes before the buffer.
#[derive(Clone, Debug, Default)]
pub struct Framer {
    frame: FrameState,
    searched: usize,
    /// Bytes of a counted message that are still to come behind those that were given out.
    left: usize,
}

impl Framer {
    /// Finds the messages of `buf`, which begins where the last call stopped consuming. Fills `out` anew;
    /// what it says is not consumed has to be offered again with more behind it. A flush gives out what is
    /// there of a message that is not complete.
    pub fn cut(&mut self, framing: &Framing, buf: &[u8], input: Input, out: &mut Frames) {
        if let Framing::Text(spec) = framing {
            spec.frame_on(&mut self.frame, buf, self.searched, input, out);
            self.searched = out.searched;
            // Here NULs at the end are no room that is filled later.
            let left = &buf[out.consumed..];
            if input == Input::Flush && left.iter().all(|b| *b == 0) {
                out.nul_bytes += left.len() as u64;
                out.consumed = buf.len();
                self.searched = 0;
            }
            return;
        }
        *out = Frames {
            tokens: std::mem::take(&mut out.tokens),
            ..Frames::default()
        };
        out.tokens.clear();
        let flush = input == Input::Flush;
        let mut cut = Cut { buf, flush, out };
        match framing {
            Framing::Text(_) => {}
            Framing::Counted { bytes_max } => {
                while cut.counted(&mut self.left, (*bytes_max).max(DIGITS_MAX + 1)) {}
            }
            Framing::Trailer {
                byte,
                units,
                trim,
                bytes_max,
            } => while cut.ended(*byte, *units, *trim, (*bytes_max).max(1)) {},
            Framing::Whole { units, trim } => {
                if flush && !buf.is_empty() {
                    cut.push(buf.len(), buf.len(), *units, *trim, false);
                }
            }
        }
    }
}

/// One call's work; it stands at `out.consumed`.
struct Cut<'a> {
    buf: &'a [u8],
    flush: bool,
    out: &'a mut Frames,
}

/// What a message begins with.
enum Begin {
    /// Its length: digits and a blank, so many bytes; and what it says.
    Length(usize, usize),
    /// More has to be seen.
    Unclear,
    /// No length.
    Other,
}

impl Cut<'_> {
    fn rest(&self) -> &[u8] {
        &self.buf[self.out.consumed..]
    }

    /// Gives out the first `length` bytes of the rest, without white space to trim, and goes on at `next`.
    fn push(&mut self, length: usize, next: usize, units: Units, trim: Trim, cut: bool) {
        let base = self.out.consumed;
        let (from, to) = units.trim(&self.buf[base..base + length], trim);
        self.out.consumed = base + next;
        if from < to {
            self.out.tokens.push(Token {
                from: base as u32,
                index: self.out.records,
                start: (base + from) as u32,
                end: (base + to) as u32,
                next: self.out.consumed as u32,
                cut,
            });
        }
        self.out.records += 1;
    }

    fn push_bytes(&mut self, length: usize, next: usize, cut: bool) {
        self.push(length, next, Units::Bytes, Trim::NONE, cut);
    }

    /// Does one message, or a part of one, with its length before it. False if nothing more can be done
    /// with this buffer. `left` is what is to come of the last one.
    fn counted(&mut self, left: &mut usize, max: usize) -> bool {
        if *left > 0 {
            let there = self.rest().len().min(*left);
            let piece = there.min(max);
            if piece == 0 || (piece < *left && piece < max && !self.flush) {
                return false;
            }
            *left -= piece;
            self.push_bytes(piece, piece, *left > 0);
            return true;
        }
        let blanks = self.rest().iter().take_while(|b| is_between(**b)).count();
        self.out.consumed += blanks;
        let there = self.rest().len();
        match begin(self.rest()) {
            Begin::Length(digits, length) => {
                let whole = digits.saturating_add(length);
                let piece = whole.min(max).min(there);
                if piece < whole.min(max) && !self.flush {
                    return false;
                }
                *left = whole - piece;
                self.push_bytes(piece, piece, *left > 0);
                true
            }
            Begin::Unclear if !self.flush => false,
            Begin::Unclear if there == 0 => false,
            Begin::Unclear | Begin::Other => self.line(max),
        }
    }

    /// What has no length before it: up to the end of the line.
    fn line(&mut self, max: usize) -> bool {
        let view = &self.rest()[..self.rest().len().min(max)];
        let full = view.len() == max;
        match memchr::memchr(b'\n', view) {
            Some(end) => {
                let length = end - usize::from(end > 0 && view[end - 1] == b'\r');
                self.push_bytes(length, end + 1, false);
            }
            None if full || self.flush => {
                let length = view.len();
                self.push_bytes(length, length, full);
            }
            None => return false,
        }
        true
    }

    /// Does one message with `byte` behind it.
    fn ended(&mut self, byte: u8, units: Units, trim: Trim, max: usize) -> bool {
        let rest = self.rest();
        let view = &rest[..rest.len().min(max + 1)];
        match memchr::memchr(byte, view) {
            Some(end) => self.push(end, end + 1, units, trim, false),
            None if view.len() > max => {
                let length = units.floor(view, max);
                self.push(length, length, units, trim, true);
            }
            None if self.flush && !view.is_empty() => {
                let length = view.len();
                self.push(length, length, units, trim, false);
            }
            None => return false,
        }
        true
    }
}

/// What senders put between counted messages although nothing belongs there.
fn is_between(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0)
}

fn begin(rest: &[u8]) -> Begin {
    let digits = rest.iter().take(DIGITS_MAX + 1);
    let digits = digits.take_while(|b| b.is_ascii_digit()).count();
    match (digits, rest.get(digits)) {
        (0, None) => Begin::Unclear,
        (0, _) => Begin::Other,
        _ if rest[0] == b'0' || digits > DIGITS_MAX => Begin::Other,
        (_, None) => Begin::Unclear,
        (_, Some(b' ')) => {
            let value = rest[..digits].iter();
            let value = value.fold(0usize, |n, b| n * 10 + usize::from(b - b'0'));
            Begin::Length(digits + 1, value)
        }
        _ => Begin::Other,
    }
}

/// What framing must do with any bytes, for its tests and for a fuzz target: it panics where that does
/// not hold.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod properties {
    use super::*;

    /// Messages, whether each is followed by more of it, and bytes between them.
    type Found = (Vec<(Vec<u8>, bool)>, Vec<u8>);

    /// Offers `content` in buffers that end at `stops`, and flushes at its end.
    fn run(framing: &Framing, content: &[u8], stops: &[usize]) -> Found {
        let mut stops: Vec<usize> = stops.iter().map(|s| s % (content.len() + 1)).collect();
        stops.sort_unstable();
        let mut calls: Vec<_> = stops.iter().map(|s| (*s, Input::More)).collect();
        // A flush leaves a cut character, which goes with the next one.
        calls.extend([(content.len(), Input::More), (content.len(), Input::Flush)]);
        calls.push((content.len(), Input::Flush));
        let (mut framer, mut out, mut done) = (Framer::default(), Frames::default(), 0);
        let (mut messages, mut between) = (Vec::new(), Vec::new());
        for (stop, input) in calls {
            let buf = &content[done..stop.max(done)];
            framer.cut(framing, buf, input, &mut out);
            let mut at = 0;
            for t in &out.tokens {
                assert!(t.start < t.end && t.end <= t.next && at <= t.start as usize);
                between.extend_from_slice(&buf[at..t.start as usize]);
                messages.push((buf[t.range()].to_vec(), t.cut));
                at = t.end as usize;
            }
            assert!(at <= out.consumed && out.consumed <= buf.len());
            between.extend_from_slice(&buf[at..out.consumed]);
            done += out.consumed;
            assert!(
                content[done..stop.max(done)].len() <= framing.buffer_bytes_max(),
                "a buffer is enough"
            );
        }
        assert_eq!(done, content.len(), "a flush gives out everything");
        (messages, between)
    }

    /// Cut anywhere, the messages are the same, and with what is between them they are the content.
    pub fn any_split(framing: &Framing, content: &[u8], stops: &[usize]) {
        let whole = run(framing, content, &[]);
        assert_eq!(run(framing, content, stops), whole, "{framing:?}");
        let bytes: usize = whole.0.iter().map(|(m, _)| m.len()).sum();
        assert_eq!(bytes + whole.1.len(), content.len());
        let all_between = |b: &u8| is_between(*b);
        assert!(whole.1.iter().all(all_between), "{:?}", whole.1);
    }

    /// The messages of a content.
    #[cfg(test)]
    pub fn messages(framing: &Framing, content: &[u8]) -> Vec<String> {
        let found = run(framing, content, &[]).0.into_iter();
        found
            .map(|(m, cut)| {
                let more = if cut { "+" } else { "" };
                format!("{}{more}", String::from_utf8_lossy(&m))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::properties::{any_split, messages};
    use super::*;
    use crate::input::frame::{Oversize, Split};

    fn counted(bytes_max: usize) -> Framing {
        Framing::Counted { bytes_max }
    }

    fn nul(bytes_max: usize) -> Framing {
        Framing::Trailer {
            byte: 0,
            units: Units::Utf8,
            trim: Trim::default(),
            bytes_max,
        }
    }

    fn lines(max_log_bytes: usize) -> Framing {
        Framing::Text(FrameSpec {
            split: Split::Newline,
            units: Units::Utf8,
            max_log_bytes,
            oversize: Oversize::Split,
            trim: Trim::default(),
        })
    }

    #[test]
    fn messages_with_their_length_before_them() {
        for (content, expect) in [
            ("3 abc4 defg", vec!["3 abc", "4 defg"]),
            // The length says what belongs to it, whatever that is.
            ("5 a\nb\n 2 xy", vec!["5 a\nb\n ", "2 xy"]),
            ("1 a\n1 b\r\n\0 1 c", vec!["1 a", "1 b", "1 c"]),
            ("0 ", vec!["0 "]),
            ("12 short", vec!["12 short+"]),
            ("12", vec!["12"]),
            // Without a length it is a line, and what is behind it is looked at anew.
            ("<13>hello\r\n3 abc", vec!["<13>hello", "3 abc"]),
            ("03 abc\n1 a", vec!["03 abc", "1 a"]),
            ("3abc\n1 a", vec!["3abc", "1 a"]),
            ("12345678901 a\n1 b", vec!["12345678901 a", "1 b"]),
            ("", vec![]),
            (" \n", vec![]),
        ] {
            assert_eq!(messages(&counted(1000), content.as_bytes()), expect);
        }
        let expect = ["20 01234567+", "89012345678+", "9", "1 a"];
        let content = b"20 012345678901234567891 a";
        assert_eq!(messages(&counted(11), content), expect);
        let expect = ["abcdefghijk+", "lm", "1 a"];
        assert_eq!(messages(&counted(11), b"abcdefghijklm\n1 a"), expect);
    }

    #[test]
    fn messages_with_a_byte_behind_them() {
        let expect = ["<1>a\nb", "c"];
        assert_eq!(messages(&nul(100), b"<1>a\nb\0\0 c\n\0"), expect);
        assert_eq!(messages(&nul(100), b"a\0b"), ["a", "b"]);
        assert_eq!(messages(&nul(3), b"abcde\0abc\0"), ["abc+", "de", "abc"]);
        assert_eq!(
            messages(&nul(2), "a\u{e4}b\0".as_bytes()),
            ["a+", "\u{e4}+", "b"]
        );
    }

    #[test]
    fn a_datagram_is_one_message() {
        let whole = |trim| Framing::Whole {
            units: Units::Utf8,
            trim,
        };
        assert_eq!(messages(&whole(Trim::default()), b" a\nb \n"), ["a\nb"]);
        assert_eq!(messages(&whole(Trim::NONE), b" a \n"), [" a \n"]);
        assert_eq!(messages(&whole(Trim::NONE), b""), [""; 0]);
    }

    proptest::proptest! {
        /// Guarantee: however the bytes come, the messages are the same, and nothing is lost between them.
        #[test]
        fn property_messages_do_not_depend_on_how_bytes_come(
            pieces in proptest::collection::vec(
                proptest::prop_oneof![
                    "[0-9]{1,3} ",
                    "<[0-9]{1,3}>[a-z ]{0,9}",
                    "[ \\n\\r\\x00]{1,3}",
                    "\\PC{0,6}",
                ],
                0..24,
            ),
            stops in proptest::collection::vec(0usize..1000, 0..12),
            max in 1usize..60,
        ) {
            let content = pieces.concat().into_bytes();
            any_split(&counted(max), &content, &stops);
            any_split(&nul(max), &content, &stops);
            any_split(&lines(max), &content, &stops);
        }
    }
}
