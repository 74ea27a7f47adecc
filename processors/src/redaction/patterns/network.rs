//! Addresses of networks.

use std::net::Ipv6Addr;
use std::ops::Range;

use super::numbers::is_word;

fn byte_before(text: &[u8], at: usize) -> Option<&u8> {
    at.checked_sub(1).and_then(|i| text.get(i))
}

/// The first IPv4 address from `from` on: four numbers up to 255 with dots between them, which are not a
/// part of a longer row of numbers or of a word.
pub(super) fn ipv4(text: &[u8], from: usize) -> Option<Range<usize>> {
    let mut at = from;
    while at < text.len() {
        if !text[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        // All that belongs to this row of numbers.
        let is_row = |b: &&u8| b.is_ascii_alphanumeric() || **b == b'.';
        let mut end = at + text[at..].iter().take_while(is_row).count();
        let next = end;
        while end > at && text[end - 1] == b'.' {
            end -= 1;
        }
        let before = byte_before(text, at);
        let free = !is_word(before) && before != Some(&b'.');
        if free && is_ipv4(&text[at..end]) {
            return Some(at..end);
        }
        at = next.max(at + 1);
    }
    None
}

fn is_ipv4(text: &[u8]) -> bool {
    let mut numbers = 0;
    for number in text.split(|b| *b == b'.') {
        let digits = number.iter().all(u8::is_ascii_digit);
        if !digits || !(1..=3).contains(&number.len()) {
            return false;
        }
        let value = number.iter().fold(0, |n, d| n * 10 + u32::from(d - b'0'));
        if value > 255 {
            return false;
        }
        numbers += 1;
    }
    numbers == 4
}

/// Characters of an IPv6 address at most, and of a port behind it.
const IPV6_MAX: usize = 45 + 6;

/// The first IPv6 address from `from` on, in any form of RFC 4291 that has a digit; a zone behind `%` is
/// not a part of it.
pub(super) fn ipv6(text: &[u8], from: usize) -> Option<Range<usize>> {
    let is_part = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
    let mut at = from;
    while let Some(colon) = text[at..].iter().position(|b| *b == b':') {
        let colon = at + colon;
        let back = text[at..colon].iter().rev();
        let start = colon - back.take_while(|b| is_part(b)).count();
        let end = colon + text[colon..].iter().take_while(|b| is_part(b)).count();
        if let Some(range) = ipv6_in(text, start..end) {
            return Some(range);
        }
        at = end;
    }
    None
}

/// The address that takes all of `range`, but for what cannot be a part of it at its ends.
fn ipv6_in(text: &[u8], mut range: Range<usize>) -> Option<Range<usize>> {
    let colon_from = |at: usize| text[at..range.end].iter().position(|b| *b == b':');
    let begins_word = is_word(byte_before(text, range.start)) && text[range.start] != b':';
    if begins_word {
        // The end of a word, as of `time:2001:db8::1`.
        range.start += colon_from(range.start)? + 1;
    } else if text[range.start..range.end].starts_with(b":")
        && !text[range.start..range.end].starts_with(b"::")
    {
        range.start += 1;
    }
    while range.end > range.start && text[range.end - 1] == b'.' {
        range.end -= 1;
    }
    let slice = &text[range.clone()];
    if slice.ends_with(b":") && !slice.ends_with(b"::") {
        range.end -= 1;
    }
    if is_word(text.get(range.end)) {
        // The beginning of a word; what is in front of it may be one.
        range.end = range.start + text[range.clone()].iter().rposition(|b| *b == b':')?;
    }
    if range.end.saturating_sub(range.start) > IPV6_MAX {
        return None;
    }
    if is_ipv6(&text[range.clone()]) {
        return Some(range);
    }
    // With a port behind it.
    let port = text[range.clone()].iter().rposition(|b| *b == b':')?;
    let shorter = range.start..range.start + port;
    is_ipv6(&text[shorter.clone()]).then_some(shorter)
}

fn is_ipv6(text: &[u8]) -> bool {
    let parsed = std::str::from_utf8(text).map(str::parse::<Ipv6Addr>);
    matches!(parsed, Ok(Ok(_))) && text.iter().any(u8::is_ascii_digit)
}

/// Six pairs that are no part of a longer row of them, as a fingerprint is.
pub(super) fn is_mac(text: &[u8], range: &Range<usize>) -> bool {
    let joins = |b: Option<&u8>| matches!(b, Some(b':' | b'-'));
    let behind = text.get(range.end);
    let continues = joins(behind) && text.get(range.end + 1).is_some_and(u8::is_ascii_hexdigit);
    let before = byte_before(text, range.start);
    let preceded = joins(before)
        && range
            .start
            .checked_sub(2)
            .is_some_and(|i| text[i].is_ascii_hexdigit());
    !continues && !preceded
}
