//! Lines of the container runtime interface: `2024-04-13T07:59:37.505201169Z stdout F message`.
//!
//! Source: the CRI log format of Kubernetes (kubelet, "CRI logging"): time in RFC 3339 with
//! fractional seconds, stream, tags separated by colons with `P` or `F` first, text.

use tailwater_golang::civil::{days_from_civil, days_in_month};

/// When the runtime wrote a line of a container, in ns since the epoch: a line of the runtime
/// interface, or one of Docker's JSON. `None` for anything else.
pub(crate) fn written_at(line: &[u8]) -> Option<i64> {
    let mut reader = HeaderReader::default();
    if line.first() != Some(&b'{') {
        return reader.read(line).ok().map(|header| header.time);
    }
    let line: serde_json::Value = serde_json::from_slice(line).ok()?;
    line.get("log")?.as_str()?;
    let text = line.get("time")?.as_str()?;
    let (time, _, len) = reader.time(text.as_bytes())?;
    (len == text.len()).then_some(time)
}

/// Where a line was written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// The tag of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tag {
    /// `F`: the line ends here.
    Full,
    /// `P`: the line goes on in the next record of the stream.
    Partial,
    /// Anything else; its length. Partial if it begins with `P` and a colon.
    Other { len: usize, partial: bool },
}

/// The header of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// ns since the epoch.
    pub(super) time: i64,
    /// The time ends in `Z`.
    pub(super) utc: bool,
    pub(super) stream: Stream,
    pub(super) tag: Tag,
    /// Where the tag begins.
    pub(super) tag_at: usize,
    /// Where the message begins.
    pub(super) message_at: usize,
}

/// Why a line has no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// It does not have the form.
    Form,
    /// It has, but its time is none.
    Time,
}

/// Reads headers. Remembers the last second: consecutive lines mostly share it.
#[derive(Clone, Debug, Default)]
pub(super) struct HeaderReader {
    second: [u8; 19],
    seconds: i64,
}

impl HeaderReader {
    /// The header of `line`.
    #[inline(always)]
    pub(super) fn read(&mut self, line: &[u8]) -> Result<Header, Refusal> {
        let Some((time, utc, at)) = self.time(line) else {
            return Err(refusal(line));
        };
        let rest = &line[at..];
        let stream = match rest.get(..8) {
            Some(b" stdout ") => Stream::Stdout,
            Some(b" stderr ") => Stream::Stderr,
            _ => return Err(refusal(line)),
        };
        let tag_at = at + 8;
        let (tag, len) = match rest.get(8..10) {
            Some(b"F ") => (Tag::Full, 1),
            Some(b"P ") => (Tag::Partial, 1),
            _ => other_tag(&rest[8..]),
        };
        let end = tag_at + len;
        // The blank between tag and message may be missing when there is no message.
        let message_at = end + usize::from(line.get(end) == Some(&b' '));
        Ok(Header {
            time,
            utc,
            stream,
            tag,
            tag_at,
            message_at,
        })
    }

    /// The time `text` begins with: ns since the epoch, whether it ends in `Z`, its length.
    #[inline(always)]
    pub(super) fn time(&mut self, text: &[u8]) -> Option<(i64, bool, usize)> {
        let second: &[u8; 19] = text.first_chunk()?;
        if *second != self.second {
            self.seconds = seconds(second)?;
            self.second = *second;
        }
        let (ns, len) = fraction(&text[19..])?;
        let (offset, utc, zone_len) = zone(&text[19 + len..])?;
        let whole = (self.seconds - offset).checked_mul(1_000_000_000)?;
        Some((whole.checked_add(i64::from(ns))?, utc, 19 + len + zone_len))
    }
}

#[cold]
fn other_tag(rest: &[u8]) -> (Tag, usize) {
    let len = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    let tag = match &rest[..len] {
        b"F" => Tag::Full,
        b"P" => Tag::Partial,
        tag => Tag::Other {
            len,
            partial: tag.starts_with(b"P:"),
        },
    };
    (tag, len)
}

/// Tells a line of another form from one whose time is wrong.
#[cold]
fn refusal(line: &[u8]) -> Refusal {
    let stream = memchr::memchr(b' ', line)
        .filter(|&i| i > 0)
        .map(|i| &line[i..]);
    match stream {
        Some(s) if s.starts_with(b" stdout ") || s.starts_with(b" stderr ") => Refusal::Time,
        _ => Refusal::Form,
    }
}

fn digit(b: u8) -> u32 {
    u32::from(b.wrapping_sub(b'0'))
}

/// Seconds since the epoch of `2024-04-13T07:59:37`, taken as UTC.
fn seconds(t: &[u8; 19]) -> Option<i64> {
    let mut wrong = 0;
    let mut two = |at: usize| {
        let (tens, ones) = (digit(t[at]), digit(t[at + 1]));
        wrong |= u32::from(tens > 9) | u32::from(ones > 9);
        tens * 10 + ones
    };
    let (century, year, month, day) = (two(0), two(2), two(5), two(8));
    let (hour, minute, second) = (two(11), two(14), two(17));
    let separators = [t[4], t[7], t[10], t[13], t[16]] == *b"--T::";
    if wrong != 0 || !separators || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let year = i64::from(century * 100 + year);
    if !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let of_day = i64::from(hour * 3600 + minute * 60 + second);
    Some(days_from_civil(year, month, day) * 86_400 + of_day)
}

/// ns and length of `.505201169`, or nothing. Digits beyond ns are cut off.
#[inline(always)]
fn fraction(text: &[u8]) -> Option<(u32, usize)> {
    if text.first() != Some(&b'.') {
        return Some((0, 0));
    }
    // Nine digits, what containerd and CRI-O write: eight in one word.
    if let Some(eight) = text[1..].first_chunk::<8>()
        && let Some(eight) = eight_digits(u64::from_le_bytes(*eight))
        && let [last, after] = *text.get(9..11).unwrap_or_default()
        && digit(last) <= 9
        && !after.is_ascii_digit()
    {
        return Some((eight * 10 + digit(last), 10));
    }
    let digits = text[1..].iter().take_while(|b| b.is_ascii_digit()).count();
    let ns = (0..9).fold(0, |ns, i| {
        ns * 10 + if i < digits { digit(text[1 + i]) } else { 0 }
    });
    (digits > 0).then_some((ns, 1 + digits))
}

/// The number that eight digits in a little-endian word stand for, all at once: pairs, then fours,
/// then eight.
#[inline(always)]
fn eight_digits(v: u64) -> Option<u32> {
    let digits = v.wrapping_sub(0x3030_3030_3030_3030);
    if (v.wrapping_add(0x4646_4646_4646_4646) | digits) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let high = (pairs & 0x0000_00FF_0000_00FF).wrapping_mul(0x000F_4240_0000_0064);
    let low = ((pairs >> 16) & 0x0000_00FF_0000_00FF).wrapping_mul(0x0000_2710_0000_0001);
    Some((high.wrapping_add(low) >> 32) as u32)
}

/// Seconds east of UTC, whether it is `Z`, and its length.
#[inline(always)]
fn zone(text: &[u8]) -> Option<(i64, bool, usize)> {
    let sign = match text.first()? {
        b'Z' => return Some((0, true, 1)),
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let &[_, a, b, b':', c, d] = text.first_chunk::<6>()? else {
        return None;
    };
    let (a, b, c, d) = (digit(a), digit(b), digit(c), digit(d));
    let (hours, minutes) = (a * 10 + b, c * 10 + d);
    if a.max(b).max(c).max(d) > 9 || hours > 24 || minutes > 59 {
        return None;
    }
    Some((sign * i64::from(hours * 3600 + minutes * 60), false, 6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_of_containers_say_when_they_were_written_and_others_do_not() {
        let text = "2024-04-13T07:59:37.5Z";
        let want = Some(1_712_995_177_500_000_000);
        for (line, want) in [
            (format!("{text} stdout F x"), want),
            (
                format!(r#"{{"log":"x\n","stream":"stdout","time":"{text}"}}"#),
                want,
            ),
            (format!(r#"{{"log":"x\n","time":"{text}!"}}"#), None),
            (format!(r#"{{"msg":"x","time":"{text}"}}"#), None),
            (format!("{text} something else"), None),
            (format!(r#"{{"log":"x","time":"{text}""#), None),
            (String::new(), None),
        ] {
            assert_eq!(written_at(line.as_bytes()), want, "{line}");
        }
    }

    #[test]
    fn headers_are_read_and_what_is_none_is_refused() {
        let mut r = HeaderReader::default();
        for (line, tag, stream, message) in [
            (
                "2024-04-13T07:59:37.505201169Z stdout F hi there",
                Tag::Full,
                Stream::Stdout,
                "hi there",
            ),
            (
                "2024-04-13T07:59:37.5Z stderr P  a ",
                Tag::Partial,
                Stream::Stderr,
                " a ",
            ),
            (
                "2024-04-13T07:59:37Z stdout F",
                Tag::Full,
                Stream::Stdout,
                "",
            ),
            (
                "2024-04-13T07:59:37Z stdout F ",
                Tag::Full,
                Stream::Stdout,
                "",
            ),
            (
                "2024-04-13T07:59:37-10:00 stdout P:x y",
                Tag::Other {
                    len: 3,
                    partial: true,
                },
                Stream::Stdout,
                "y",
            ),
            (
                "2024-04-13T07:59:37+01:30 stdout F:x",
                Tag::Other {
                    len: 3,
                    partial: false,
                },
                Stream::Stdout,
                "",
            ),
        ] {
            let h = r
                .read(line.as_bytes())
                .unwrap_or_else(|e| panic!("{line}: {e:?}"));
            assert_eq!(
                (h.tag, h.stream, &line[h.message_at..]),
                (tag, stream, message),
                "{line}"
            );
        }
        for (line, want) in [
            ("", Refusal::Form),
            ("hello", Refusal::Form),
            ("2024-04-13T07:59:37Z", Refusal::Form),
            ("2024-04-13T07:59:37Z stdin F x", Refusal::Form),
            (" stdout F x", Refusal::Form),
            ("2024-04-13T07:59:3xZ stdout F x", Refusal::Time),
            ("2024-02-30T07:59:37Z stdout F x", Refusal::Time),
            ("2024-04-13T07:59:37.Z stdout F x", Refusal::Time),
            ("2024-04-13T07:59:37 stdout F x", Refusal::Time),
            ("2024-04-13T07:59:37+1:00 stdout F x", Refusal::Time),
            ("now stdout F x", Refusal::Time),
        ] {
            assert_eq!(r.read(line.as_bytes()), Err(want), "{line}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Times are read as jiff reads them, with and without the second cached.
        #[test]
        fn times_agree_with_jiff(
            seconds in -5_000_000_000i64..9_000_000_000,
            ns in 0i64..1_000_000_000,
            digits in 0usize..=9,
            minutes in prop::option::of(-14i64 * 60..14 * 60),
        ) {
            let local = jiff::Timestamp::new(seconds, 0).expect("valid here");
            let mut text = local.strftime("%Y-%m-%dT%H:%M:%S").to_string();
            if digits > 0 {
                text += &format!(".{}", &format!("{ns:09}")[..digits]);
            }
            match minutes {
                None => text.push('Z'),
                Some(m) => {
                    let sign = if m < 0 { '-' } else { '+' };
                    text += &format!("{sign}{:02}:{:02}", m.abs() / 60, m.abs() % 60);
                }
            }
            let want: jiff::Timestamp = text.parse().expect("valid here");
            let want = i64::try_from(want.as_nanosecond()).expect("valid here");
            let mut r = HeaderReader::default();
            for _ in 0..2 {
                prop_assert_eq!(r.time(text.as_bytes()), Some((want, minutes.is_none(), text.len())));
            }
        }

        /// No bytes make it panic.
        #[test]
        fn any_line_is_read_or_refused(line in "[-0-9T:.Z+ ]{0,40}(stdout|stderr)?[ PF:]{0,3}.{0,4}") {
            let _ = HeaderReader::default().read(line.as_bytes());
        }
    }
}
