//! Messages of RFC 3164, as they are found in the wild: blanks where there should be none, days
//! with a zero before them, no host, tags of up to 48 characters.

use super::{Message, Reader, Span, Stamp, error};
use crate::operators::record_error::RecordError;

const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// Reads the message in `text[from..to]`.
pub(super) fn read(
    text: &[u8],
    from: usize,
    to: usize,
    skip_pri: bool,
) -> Result<Message, RecordError> {
    let mut r = Reader {
        text: &text[..to],
        at: from,
    };
    let priority = r.optional_priority(skip_pri)?;
    blanks(&mut r);
    let time = stamp(&mut r)?;
    r.byte(b' ', "expected a blank behind the time")?;
    blanks(&mut r);
    // A line end may close it.
    let end = to - usize::from(r.text.last() == Some(&b'\n'));
    let text = &text[..end];
    if r.at >= end {
        return Err(error("expected a message", r.at));
    }
    let visible = |b: &u8| matches!(b, b'\t' | b' '..=b'~' | 0x80..);
    if let Some(i) = text[r.at..].iter().position(|b| !visible(b)) {
        return Err(error("a control character in the message", r.at + i));
    }
    let (hostname, at) = hostname(text, r.at);
    let tag = tag(text, at);
    Ok(Message {
        priority,
        time,
        hostname: named(text, hostname),
        appname: named(text, tag.appname),
        proc_id: named(text, tag.proc_id),
        message: Some((tag.message, end)),
        ..Message::default()
    })
}

fn blanks(r: &mut Reader<'_>) {
    while r.peek() == Some(b' ') {
        r.at += 1;
    }
}

/// Nothing if it is empty or `-`.
fn named(text: &[u8], span: Span) -> Span {
    span.filter(|(from, to)| from < to && &text[*from..*to] != b"-")
}

/// `Oct 11 22:14:15`, `Oct  1 22:14:15` or `Oct 01 22:14:15`.
fn stamp(r: &mut Reader<'_>) -> Result<Stamp, RecordError> {
    const WHAT: &str = "expected a time as in Oct 11 22:14:15";
    let start = r.at;
    let month = r.text.get(start..start + 3);
    if !month.is_some_and(|m| MONTHS.contains(&m)) {
        return r.fail(WHAT);
    }
    r.at += 3;
    r.byte(b' ', WHAT)?;
    match r.peek() {
        Some(b' ') => {
            r.at += 1;
            r.number(1, 1, 9, WHAT)?;
        }
        _ => {
            r.number(2, 1, 31, WHAT)?;
        }
    }
    r.byte(b' ', WHAT)?;
    r.time_of_day(WHAT)?;
    Ok(Stamp::Yearless(start, r.at))
}

/// The host, if the first word is one that something follows, and where the rest begins.
fn hostname(text: &[u8], at: usize) -> (Span, usize) {
    let rest = &text[at..];
    let graphic = |b: &&u8| b.is_ascii_graphic() && **b != b':';
    let len = rest.iter().take_while(graphic).count();
    let blanks = rest[len..].iter().take_while(|b| **b == b' ').count();
    if !(1..=255).contains(&len) || blanks == 0 || len + blanks == rest.len() {
        return (None, at);
    }
    (Some((at, at + len)), at + len + blanks)
}

/// What stands before the message.
struct Tag {
    appname: Span,
    proc_id: Span,
    /// Where the message begins.
    message: usize,
}

/// `appname: `, `appname[proc_id]: ` or nothing. A name that a colon or a bracket follows is one also
/// if the rest is another form; then it is part of the message, too.
fn tag(text: &[u8], at: usize) -> Tag {
    let mut tag = Tag {
        appname: None,
        proc_id: None,
        message: at,
    };
    let rest = &text[at..];
    let is_name = |b: &&u8| matches!(b, b'!'..=b'~') && !matches!(b, b':' | b'[');
    let len = rest.iter().take_while(is_name).count();
    let mut next = at + len;
    if !(1..=48).contains(&len) || !matches!(text.get(next), Some(b':' | b'[')) {
        return tag;
    }
    tag.appname = Some((at, next));
    if text[next] == b'[' {
        let content = &text[next + 1..];
        let len = content
            .iter()
            .take_while(|b| !matches!(b, b'[' | b']'))
            .count();
        let close = next + 1 + len;
        if text.get(close) != Some(&b']') {
            return tag;
        }
        tag.proc_id = Some((next + 1, close));
        next = close + 1;
    }
    let rest = &text[next..];
    if rest.starts_with(b": ") && rest.len() > 2 {
        tag.message = next + 2;
    }
    tag
}
