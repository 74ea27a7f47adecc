//! Numbers of cards, accounts, persons and telephones.

use std::ops::Range;

/// Whether a byte could be a part of the same word.
pub(super) fn is_word(byte: Option<&u8>) -> bool {
    byte.is_some_and(u8::is_ascii_alphanumeric)
}

fn before(text: &[u8], at: usize) -> Option<&u8> {
    at.checked_sub(1).and_then(|i| text.get(i))
}

/// Digits of a card number at most (ISO/IEC 7812).
const CARD_MAX: usize = 19;

/// The first card number from `from` on: 12 to 19 digits that begin as an issuer's do, have a length that the issuer
/// uses, and pass Luhn's check. The digits stand together, or in the groups that are printed on cards, with a
/// space or a hyphen between them: four by four, or 4-6-4 and 4-6-5.
pub(super) fn card(text: &[u8], from: usize) -> Option<Range<usize>> {
    let mut at = from;
    while at < text.len() {
        if !text[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let run = digits(text, at);
        let fraction = before(text, at) == Some(&b'.')
            && is_digit(at.checked_sub(2).and_then(|i| text.get(i)));
        if !is_word(before(text, at))
            && !fraction
            && let Some(end) = card_at(text, at, run)
        {
            return Some(at..end);
        }
        at += run;
    }
    None
}

fn is_digit(byte: Option<&u8>) -> bool {
    byte.is_some_and(u8::is_ascii_digit)
}

/// Number of digits from `at` on.
fn digits(text: &[u8], at: usize) -> usize {
    text[at..].iter().take_while(|b| b.is_ascii_digit()).count()
}

/// Groups of digits as cards show them, the longest first.
const PRINTED: [&[usize]; 4] = [&[4, 4, 4, 4, 3], &[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4]];

/// The end of the longest card number that begins at `at`, where `run` digits stand together.
fn card_at(text: &[u8], at: usize, run: usize) -> Option<usize> {
    let together: [&[usize]; 1] = [&[run]];
    let shapes = match run {
        4 => &PRINTED[..],
        _ => &together[..],
    };
    shapes.iter().find_map(|groups| {
        let mut number = [0; CARD_MAX];
        let (end, length) = read_groups(text, at, groups, &mut number)?;
        (!is_word(text.get(end)) && is_card(&number[..length])).then_some(end)
    })
}

/// Reads groups of digits with the same separator between them; gives their end and how many digits they are.
fn read_groups(
    text: &[u8],
    at: usize,
    groups: &[usize],
    number: &mut [u8; CARD_MAX],
) -> Option<(usize, usize)> {
    let (mut end, mut length) = (at, 0);
    let mut separator = None;
    for group in groups {
        if end > at {
            let byte = *text.get(end)?;
            if byte != *separator.get_or_insert(byte) || !matches!(byte, b' ' | b'-') {
                return None;
            }
            end += 1;
        }
        if digits(text, end) != *group {
            return None;
        }
        let room = number.get_mut(length..length + group)?;
        room.copy_from_slice(&text[end..end + group]);
        length += group;
        end += group;
    }
    Some((end, length))
}

fn is_card(number: &[u8]) -> bool {
    is_issued(number) && luhn(number)
}

/// Whether a number begins and is as long as those that are in use: ISO/IEC 7812, with the ranges that the
/// schemes publish.
fn is_issued(number: &[u8]) -> bool {
    let Some(begin) = number.get(..4) else {
        return false;
    };
    let begin = begin
        .iter()
        .fold(0u32, |n, digit| n * 10 + u32::from(digit - b'0'));
    let length = number.len();
    match begin {
        4000..=4999 => matches!(length, 13 | 16 | 19),
        5100..=5599 | 2221..=2720 => length == 16,
        3400..=3499 | 3700..=3799 => length == 15,
        3000..=3059 | 3095 | 3600..=3699 | 3800..=3999 => (14..=19).contains(&length),
        6011 | 6440..=6599 | 3528..=3589 | 6200..=6299 | 8100..=8199 | 2200..=2204 => {
            (16..=19).contains(&length)
        }
        6000..=6099 | 5080..=5089 | 8200..=8299 => length == 16,
        5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763 => (12..=19).contains(&length),
        _ => false,
    }
}

/// Luhn's check (ISO/IEC 7812-1, annex B): from the right, every other digit is doubled.
fn luhn(number: &[u8]) -> bool {
    let value = |(i, digit): (usize, &u8)| {
        let n = u32::from(digit - b'0');
        match i % 2 {
            1 if n > 4 => 2 * n - 9,
            1 => 2 * n,
            _ => n,
        }
    };
    let sum: u32 = number.iter().rev().enumerate().map(value).sum();
    sum.is_multiple_of(10)
}

/// Characters of an IBAN, ISO 13616: two letters, two check digits, and up to 30 more.
const IBAN: std::ops::RangeInclusive<usize> = 15..=34;

/// The first IBAN from `from` on, in capital letters, whose check digits are right. There may be spaces between
/// groups of four.
pub(super) fn iban(text: &[u8], from: usize) -> Option<Range<usize>> {
    let mut at = from;
    while at + 4 <= text.len() {
        let [a, b, c, d] = [text[at], text[at + 1], text[at + 2], text[at + 3]];
        let begins = a.is_ascii_uppercase()
            && b.is_ascii_uppercase()
            && c.is_ascii_digit()
            && d.is_ascii_digit();
        if begins
            && !is_word(before(text, at))
            && let Some(end) = iban_at(text, at)
        {
            return Some(at..end);
        }
        at += 1;
    }
    None
}

/// The end of the longest IBAN that begins at `at`.
fn iban_at(text: &[u8], at: usize) -> Option<usize> {
    let mut characters = [0u8; 34];
    let (mut length, mut end) = (0, at);
    let mut best = None;
    let spaced = text.get(at + 4) == Some(&b' ');
    while length < characters.len() {
        if spaced && length > 0 && length % 4 == 0 && text.get(end) == Some(&b' ') {
            end += 1;
        }
        let Some(byte) = text.get(end).copied() else {
            break;
        };
        if !byte.is_ascii_uppercase() && !byte.is_ascii_digit() {
            break;
        }
        characters[length] = byte;
        length += 1;
        end += 1;
        let whole = IBAN.contains(&length) && !is_word(text.get(end));
        if whole && iban_checks(&characters[..length]) {
            best = Some(end);
        }
    }
    best
}

/// ISO 7064, MOD 97-10: the first four characters go to the end, letters count from 10 on, and the number
/// that this is leaves 1.
fn iban_checks(characters: &[u8]) -> bool {
    let (begin, rest) = characters.split_at(4);
    let rest = rest.iter().chain(begin);
    let remainder = rest.fold(0u32, |n, c| match c {
        b'0'..=b'9' => (n * 10 + u32::from(c - b'0')) % 97,
        _ => (n * 100 + u32::from(c - b'A') + 10) % 97,
    });
    remainder == 1
}

/// Numbers of the social security of the United States that are never given out begin with 000, 666 or 9, or have
/// nothing but zeros in a group.
pub(super) fn is_ssn(text: &[u8], range: &Range<usize>) -> bool {
    let number = &text[range.clone()];
    let area = &number[..3];
    area != b"000"
        && area != b"666"
        && area[0] != b'9'
        && &number[4..6] != b"00"
        && &number[7..] != b"0000"
        && before(text, range.start) != Some(&b'-')
        && text.get(range.end) != Some(&b'-')
}

/// A plus behind a letter, a digit or another plus begins no number.
pub(super) fn is_phone(text: &[u8], range: &Range<usize>) -> bool {
    let before = before(text, range.start);
    !is_word(before) && before != Some(&b'+')
}
