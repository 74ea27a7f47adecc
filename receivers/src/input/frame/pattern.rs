//! Records that start or end with a match of a pattern.

use encoding_rs::{UTF_16BE, UTF_16LE};
use regex::bytes::Regex;

use super::{Boundary, FrameState, LOOKAHEAD_BYTES, Units};

/// The leftmost match at or after `from`. At the start of `text` the character before it counts:
/// `^` does not match where a record was split.
fn find(pattern: &Regex, text: &[u8], from: usize, state: FrameState) -> Option<(usize, usize)> {
    let found = pattern.find_at(text, from)?;
    if found.start() > 0 {
        return Some((found.start(), found.end()));
    }
    if let Some(prev) = state.prev {
        let seen = text.len().min(found.end() + LOOKAHEAD_BYTES);
        let mut around = Vec::with_capacity(seen + 1);
        around.push(prev);
        around.extend_from_slice(&text[..seen]);
        if pattern.find_at(&around, 1).is_none_or(|m| m.start() != 1) {
            if text.is_empty() {
                return None;
            }
            let next = pattern.find_at(text, 1)?;
            return Some((next.start(), next.end()));
        }
    }
    Some((0, found.end()))
}

/// The first match at the very start, or else at or after `from`: nothing else is possible.
fn find_from(
    pattern: &Regex,
    text: &[u8],
    from: usize,
    state: FrameState,
) -> Option<(usize, usize)> {
    if from > 0 {
        let window = &text[..text.len().min(LOOKAHEAD_BYTES)];
        let at_start = find(pattern, window, 0, state).is_some_and(|(start, _)| start == 0);
        if !at_start {
            return pattern.find_at(text, from).map(|m| (m.start(), m.end()));
        }
    }
    find(pattern, text, 0, state)
}

/// `line_start_pattern`: a record goes from a match to before the next. Between the start and
/// `from` no record ends.
pub(super) fn line_start(
    pattern: &Regex,
    omit: bool,
    text: &[u8],
    from: usize,
    state: FrameState,
    accept: bool,
) -> Boundary {
    let Some((start, end)) = find_from(pattern, text, from, state) else {
        return Boundary::Missing { start: 0 };
    };
    if end == text.len() && !accept {
        return Boundary::Unclear;
    }
    if start > 0 || state.skipping {
        return Boundary::Found {
            start: 0,
            end: start,
            next: start,
            length: start,
        };
    }
    let content = if omit { end } else { 0 };
    // An empty match must not be found again at the same place.
    let after = end.max(1).max(from);
    let second = (after <= text.len())
        .then(|| pattern.find_at(text, after))
        .flatten();
    match second {
        None => Boundary::Missing { start: content },
        Some(m) if m.end() == text.len() && !accept => Boundary::Unclear,
        // A match of nothing at the end of the text starts no record.
        Some(m) if m.start() == text.len() => Boundary::Missing { start: content },
        Some(m) => {
            let at = m.start();
            Boundary::Found {
                start: content,
                end: at,
                next: at,
                length: at,
            }
        }
    }
}

/// `line_end_pattern`: a record ends with a match. Between the start and `from` none ends.
pub(super) fn line_end(
    pattern: &Regex,
    omit: bool,
    text: &[u8],
    from: usize,
    state: FrameState,
    accept: bool,
) -> Boundary {
    let mut found = match from {
        0 => find(pattern, text, 0, state),
        _ => pattern.find_at(text, from).map(|m| (m.start(), m.end())),
    };
    // A match of nothing at the start ends nothing.
    if found == Some((0, 0)) {
        found = (!text.is_empty())
            .then(|| pattern.find_at(text, 1).map(|m| (m.start(), m.end())))
            .flatten();
    }
    match found {
        None => Boundary::Missing { start: 0 },
        Some((_, end)) if end == text.len() && !accept => Boundary::Unclear,
        Some((start, end)) => {
            let content = if omit { start } else { end };
            Boundary::Found {
                start: 0,
                end: content,
                next: end,
                length: start,
            }
        }
    }
}

/// UTF-16 looked at in one go; doubled until the boundary is found.
const WINDOW_BYTES: usize = 4 << 10;

/// Applies `search` to `view` as text that patterns understand, and gives its answer in bytes of
/// `view`. Anything but UTF-16 is searched as it is.
pub(super) fn decoded(
    view: &[u8],
    units: Units,
    accept: bool,
    search: &dyn Fn(&[u8], bool) -> Boundary,
) -> Boundary {
    let encoding = match units {
        Units::Utf8 | Units::Bytes => return search(view, accept),
        Units::Utf16Le => UTF_16LE,
        Units::Utf16Be => UTF_16BE,
    };
    let mut window = WINDOW_BYTES;
    loop {
        let whole = window >= view.len();
        let part = &view[..units.whole(window.min(view.len()))];
        let (text, _) = encoding.decode_without_bom_handling(part);
        let answer = search(text.as_bytes(), accept && whole);
        if whole || matches!(answer, Boundary::Found { .. }) {
            return map(answer, &text);
        }
        window *= 2;
    }
}

/// Turns offsets into `text` into offsets into the UTF-16 it was decoded from. A unit that is no
/// character became U+FFFD, which is one unit as well.
fn map(answer: Boundary, text: &str) -> Boundary {
    let bytes = |at: usize| {
        let end = (0..=at)
            .rev()
            .find(|i| text.is_char_boundary(*i))
            .unwrap_or(0);
        text[..end]
            .chars()
            .map(|c| c.len_utf16() * 2)
            .sum::<usize>()
    };
    match answer {
        Boundary::Found {
            start,
            end,
            next,
            length,
        } => Boundary::Found {
            start: bytes(start),
            end: bytes(end),
            next: bytes(next),
            length: bytes(length),
        },
        Boundary::Missing { start } => Boundary::Missing {
            start: bytes(start),
        },
        Boundary::Unclear => Boundary::Unclear,
    }
}
