//! What writers write: every line says who wrote it and which of theirs it is, and everything else
//! in it follows from that. So a line that arrives can be checked to the byte.

use std::sync::LazyLock;
use std::time::Duration;

use tailwater_testkit::time::rfc3339_nanos;

use crate::world::START_NS;

/// A line: the writer's number, and the line's among those of the writer.
pub type LineId = (u16, u32);

/// Writers of a run at most.
pub const WRITERS: u16 = 4;
/// Lines of a writer at most.
pub const LINES: u32 = 200;
/// Loki's window: what is this much older than the newest of its stream is refused.
pub const WINDOW: Duration = Duration::from_secs(3_600);

/// How a writer writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The text alone.
    Plain,
    /// As a container runtime: time, stream, `P` or `F`, text. Some lines are split.
    Cri,
    /// The same; some lines, and runs of them, carry times of hours ago.
    OldCri,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 3] = [Format::Plain, Format::Cri, Format::OldCri];

    /// True for those of container runtimes.
    pub fn is_cri(self) -> bool {
        self != Format::Plain
    }
}

/// A line as it is written and as it arrives. The same in every run, so it is made once.
#[derive(Debug)]
pub struct Written {
    /// The lines of the file, without line ends: one, or two if it is split.
    pub physical: Vec<Vec<u8>>,
    /// The text as it has to arrive.
    pub text: Vec<u8>,
    /// The time that it carries, ns.
    pub time_ns: i64,
}

static WRITTEN: LazyLock<Vec<Written>> = LazyLock::new(|| {
    let ids = (0..WRITERS).flat_map(|w| (0..LINES).map(move |seq| (w, seq)));
    let each = |format| ids.clone().map(move |id| make(id, format));
    Format::ALL.into_iter().flat_map(each).collect()
});

/// The line, if there can be one.
pub fn written((writer, seq): LineId, format: Format) -> Option<&'static Written> {
    if writer >= WRITERS || seq >= LINES {
        return None;
    }
    let of_writer = format as usize * usize::from(WRITERS) + usize::from(writer);
    WRITTEN.get(of_writer * LINES as usize + seq as usize)
}

fn hash(id: LineId, salt: u64) -> u64 {
    let mut h = (u64::from(id.0) << 32 | u64::from(id.1)) ^ salt.wrapping_mul(0x9E37_79B9);
    for _ in 0..3 {
        h = h.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        h ^= h >> 29;
    }
    h
}

fn pad(id: LineId, salt: u64) -> String {
    // Mostly short, now and then longer than a read.
    let len = match hash(id, salt) % 64 {
        0 => 3_000 + hash(id, salt + 1) % 2_500,
        1..8 => 300 + hash(id, salt + 1) % 500,
        _ => hash(id, salt + 1) % 120,
    };
    let letter = |i: u64| char::from(b'a' + (hash(id, salt + 9 + i / 8) >> (i % 8 * 4) & 15) as u8);
    (0..len).map(letter).collect()
}

fn name((writer, seq): LineId) -> String {
    format!("w{writer} {seq:06}")
}

/// The pieces of the text: one, or two if the line is split.
fn pieces(id: LineId, format: Format) -> Vec<String> {
    let first = format!("{} {}.", name(id), pad(id, 1));
    if format.is_cri() && hash(id, 7).is_multiple_of(6) {
        return vec![first, format!("#{} {}.", name(id), pad(id, 2))];
    }
    vec![first]
}

fn time_ns((writer, seq): LineId, format: Format) -> i64 {
    let time = START_NS + i64::from(writer) * 1_000 + i64::from(seq) * 3_000_037;
    // Alone, or several in a row.
    let is_old = hash((writer, seq), 3).is_multiple_of(9) || seq % 32 > 29;
    if format != Format::OldCri || !is_old {
        return time;
    }
    let back = WINDOW.as_nanos() as u64 + hash((writer, seq), 4) % (2 * WINDOW.as_nanos() as u64);
    time - back as i64
}

fn make(id: LineId, format: Format) -> Written {
    let pieces = pieces(id, format);
    let last = pieces.len() - 1;
    let line = |(i, piece): (usize, &String)| match format {
        Format::Plain => piece.clone().into_bytes(),
        Format::Cri | Format::OldCri => {
            let tag = if i == last { 'F' } else { 'P' };
            let time = rfc3339_nanos(time_ns(id, format));
            format!("{time} stdout {tag} {piece}").into_bytes()
        }
    };
    Written {
        physical: pieces.iter().enumerate().map(line).collect(),
        text: pieces.concat().into_bytes(),
        time_ns: time_ns(id, format),
    }
}

/// The line that `bytes` begin to be, as text or as a piece of it.
pub fn id_of(bytes: &[u8]) -> Option<(LineId, usize)> {
    let (piece, text) = match bytes.strip_prefix(b"#") {
        Some(rest) => (1, rest),
        None => (0, bytes),
    };
    let rest = text.strip_prefix(b"w")?;
    // Five digits are the most that a writer's number has.
    let space = rest.iter().take(6).position(|b| *b == b' ')?;
    let digits = |bytes| std::str::from_utf8(bytes).ok();
    let writer = digits(&rest[..space])?;
    let seq = digits(rest.get(space + 1..space + 7)?)?;
    Some(((writer.parse().ok()?, seq.parse().ok()?), piece))
}

/// The line that a line of a file is a piece of, if it is whole, and the ways in which it may have
/// been written.
pub fn physical_id(bytes: &[u8]) -> Option<(LineId, usize)> {
    let is = |(id, piece): (LineId, usize), format| {
        let line = written(id, format).and_then(|w| w.physical.get(piece));
        line.is_some_and(|l| l == bytes)
    };
    if let Some(found) = id_of(bytes) {
        return is(found, Format::Plain).then_some(found);
    }
    let found = id_of(bytes.splitn(4, |b| *b == b' ').nth(3)?)?;
    (is(found, Format::Cri) || is(found, Format::OldCri)).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_again_and_damage_is_not() {
        let (mut split, mut old) = (0, 0);
        for seq in 0..LINES {
            for format in Format::ALL {
                let id = (3, seq);
                let line = written(id, format).expect("there");
                split += line.physical.len() - 1;
                old += i32::from(line.time_ns < START_NS);
                for (i, physical) in line.physical.iter().enumerate() {
                    assert_eq!(physical_id(physical), Some((id, i)));
                    assert_eq!(physical_id(&physical[..physical.len() - 1]), None);
                }
                assert_eq!(id_of(&line.text), Some((id, 0)));
            }
        }
        assert!(split > 10 && old > 10);
        assert!(written((0, LINES), Format::Plain).is_none());
    }
}
