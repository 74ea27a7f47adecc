//! What writers write: every line says who wrote it and which of theirs it is, and everything else
//! in it follows from that. So a line that arrives can be checked to the byte.

use tailwater_testkit::time::rfc3339_nanos;

use crate::world::START_NS;

/// A line: the writer's number, and the line's among those of the writer.
pub type LineId = (u16, u32);

/// How a writer writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The text alone.
    Plain,
    /// As a container runtime: time, stream, `P` or `F`, text. Some lines are split.
    Cri,
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
    if format == Format::Cri && hash(id, 7).is_multiple_of(6) {
        return vec![first, format!("#{} {}.", name(id), pad(id, 2))];
    }
    vec![first]
}

/// The text as it has to arrive.
pub fn text(id: LineId, format: Format) -> String {
    pieces(id, format).concat()
}

/// The time that a container line carries, ns.
pub fn time_ns((writer, seq): LineId) -> i64 {
    START_NS + i64::from(writer) * 1_000 + i64::from(seq) * 3_000_037
}

/// The lines of the file that it is written as, without line ends.
pub fn physical(id: LineId, format: Format) -> Vec<Vec<u8>> {
    let pieces = pieces(id, format);
    let last = pieces.len() - 1;
    let line = |(i, piece): (usize, String)| match format {
        Format::Plain => piece.into_bytes(),
        Format::Cri => {
            let tag = if i == last { 'F' } else { 'P' };
            let time = rfc3339_nanos(time_ns(id));
            format!("{time} stdout {tag} {piece}").into_bytes()
        }
    };
    pieces.into_iter().enumerate().map(line).collect()
}

/// The line that `bytes` begin to be, as text or as a piece of it.
pub fn id_of(bytes: &[u8]) -> Option<(LineId, usize)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (piece, text) = match text.strip_prefix('#') {
        Some(rest) => (1, rest),
        None => (0, text),
    };
    let (writer, rest) = text.strip_prefix('w')?.split_once(' ')?;
    let seq = rest.get(..6)?;
    Some(((writer.parse().ok()?, seq.parse().ok()?), piece))
}

/// The line that a line of a file is a piece of, if it is whole.
pub fn physical_id(bytes: &[u8], format: Format) -> Option<(LineId, usize)> {
    let text = match format {
        Format::Plain => bytes,
        Format::Cri => {
            let mut fields = bytes.splitn(4, |b| *b == b' ');
            fields.nth(3)?
        }
    };
    let (id, piece) = id_of(text)?;
    (physical(id, format).get(piece).map(Vec::as_slice) == Some(bytes)).then_some((id, piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_again_and_damage_is_not() {
        let mut split = 0;
        for seq in 0..200 {
            for format in [Format::Plain, Format::Cri] {
                let id = (3, seq);
                let lines = physical(id, format);
                split += lines.len() - 1;
                for (i, line) in lines.iter().enumerate() {
                    assert_eq!(physical_id(line, format), Some((id, i)));
                    assert_eq!(physical_id(&line[..line.len() - 1], format), None);
                }
                assert_eq!(id_of(text(id, format).as_bytes()), Some((id, 0)));
            }
        }
        assert!(split > 10);
    }
}
