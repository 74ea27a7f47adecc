//! Lines of containers as far as cutting has to know them: where a line is not complete, because
//! the runtime has split it.

use crate::input::frame::Frames;

/// Trims blanks at the end of lines, except of those that go on in the next line.
pub fn trim_complete_lines(frames: &mut Frames, content: &[u8]) {
    let is_blank = |b: u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
    let mut emptied = false;
    for t in &mut frames.tokens {
        let line = &content[t.range()];
        if !line.last().is_some_and(|b| is_blank(*b)) || is_partial(line) {
            continue;
        }
        let kept = line
            .iter()
            .rposition(|b| !is_blank(*b))
            .map_or(0, |i| i + 1);
        t.end = t.start + kept as u32;
        emptied |= kept == 0;
    }
    if emptied {
        frames.tokens.retain(|t| t.start < t.end);
    }
}

/// Lines at the end of a buffer that are looked at for [`end_at_whole_line`].
const LAST_LINES: usize = 64;

/// Leaves lines at the end of a buffer for the next one if they are parts of a container line
/// that is not complete, so that the position behind what is consumed is one at which nothing is
/// held back. True if it did. Where lines are so long that this would leave all of them, nothing is
/// consumed if the buffer `may_grow`; else they are taken as they are and joined by the operator.
pub fn end_at_whole_line(frames: &mut Frames, content: &[u8], may_grow: bool) -> bool {
    if frames.nul_bytes + frames.truncated_bytes > 0 {
        return false;
    }
    let from = frames.tokens.len().saturating_sub(LAST_LINES);
    let (mut open, mut whole) = ([false; 2], from);
    for (i, t) in frames.tokens.iter().enumerate().skip(from) {
        if let Some((stream, partial)) = container_part(&content[t.range()]) {
            open[stream] = partial;
        }
        if open == [false; 2] && !t.cut {
            whole = i + 1;
        }
    }
    if open == [false; 2] || (whole == from && from > 0) {
        return false;
    }
    match whole.checked_sub(1).map(|last| frames.tokens[last]) {
        Some(last) => {
            frames.consumed = last.next as usize;
            frames.records = last.index + 1;
        }
        None if may_grow => (frames.consumed, frames.records) = (0, 0),
        None => return false,
    }
    frames.tokens.truncate(whole);
    (frames.searched, frames.unfinished) = (0, 0);
    true
}

/// Stream (0 = stdout, 1 = stderr) of a container line and whether it goes on in the next one of
/// the stream. Only tells where a buffer had better end; the operator decides by itself.
fn container_part(line: &[u8]) -> Option<(usize, bool)> {
    if line.first() == Some(&b'{') {
        // Docker cuts at 16 KiB; only the last part has a line end, escaped, before its quote.
        let stderr = memchr::memmem::rfind(line, b"\"stream\":\"stderr\"").is_some();
        let ends = line.len() < 16 << 10 || memchr::memmem::rfind(line, b"\\n\",").is_some();
        return Some((usize::from(stderr), !ends));
    }
    let mut words = line.splitn(4, |b| *b == b' ').skip(1);
    let stream = match words.next()? {
        b"stdout" => 0,
        b"stderr" => 1,
        _ => return None,
    };
    let tag = words.next()?;
    Some((stream, tag == b"P" || tag.starts_with(b"P:")))
}

/// True for a CRI line with the tag `P`: `<time> stdout P <text>`.
fn is_partial(line: &[u8]) -> bool {
    line.first() != Some(&b'{') && container_part(line).is_some_and(|(_, partial)| partial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::frame::Token;

    #[test]
    fn a_buffer_ends_where_no_container_line_is_open() {
        let (p, f) = ("T stdout P a\n", "T stdout F b\n");
        let (pe, fe) = ("T stderr P c\n", "T stderr F d\n");
        let docker = |log: &str| format!("{{\"log\":\"{log}\",\"stream\":\"stdout\"}}\n");
        let (dp, df) = (docker(&"x".repeat(17 << 10)), docker("x\\n"));
        for (lines, want) in [
            (vec![f, f], 2),
            (vec![f, p], 1),
            (vec![p, p, f, p, p], 3),
            // The other stream is open where this one begins.
            (vec![f, pe, p, fe, f, p], 5),
            (vec![f, pe, p, f, p], 1),
            (vec![f, "no container line\n", p, "nor this\n"], 2),
            (vec![&df, &dp], 1),
            (vec![&df, &dp, &df], 3),
        ] {
            let content = lines.concat();
            let mut frames = Frames::default();
            let mut at = 0;
            for (i, line) in lines.iter().enumerate() {
                let end = at + line.len() as u32;
                frames.tokens.push(Token {
                    from: at,
                    index: i as u32,
                    start: at,
                    end: end - 1,
                    next: end,
                    cut: false,
                });
                at = end;
            }
            (frames.consumed, frames.records) = (content.len(), lines.len() as u32);
            let ended = end_at_whole_line(&mut frames, content.as_bytes(), true);
            assert_eq!(
                (frames.tokens.len(), ended),
                (want, want < lines.len()),
                "{lines:?}"
            );
            assert_eq!(frames.records as usize, want);
            assert_eq!(frames.consumed, lines[..want].concat().len());
        }
        for may_grow in [true, false] {
            let mut frames = Frames {
                tokens: vec![Token {
                    from: 0,
                    index: 0,
                    start: 0,
                    end: 12,
                    next: 13,
                    cut: false,
                }],
                consumed: 13,
                ..Frames::default()
            };
            let ended = end_at_whole_line(&mut frames, p.as_bytes(), may_grow);
            assert_eq!((ended, frames.consumed == 0), (may_grow, may_grow));
        }
    }

    #[test]
    fn blanks_at_the_end_stay_only_where_the_line_goes_on() {
        let content = b"2024-01-01T00:00:00Z stdout P a \n2024-01-01T00:00:00Z stdout F b \n  \n";
        let token = |start: u32, end: u32| Token {
            from: start,
            index: 0,
            start,
            end,
            next: end + 1,
            cut: false,
        };
        let mut frames = Frames {
            tokens: vec![token(0, 32), token(33, 65), token(66, 68)],
            ..Frames::default()
        };
        trim_complete_lines(&mut frames, content);
        let texts: Vec<_> = frames.tokens.iter().map(|t| &content[t.range()]).collect();
        assert!(texts[0].ends_with(b" P a "));
        assert!(texts[1].ends_with(b" F b"));
        assert_eq!(texts.len(), 2);
    }
}
