//! String literals of Go, as its `strconv` package reads them.

/// The string that the literal `quoted` stands for: `Some(true)` if it is exactly what stands
/// between the quotes, `Some(false)` if it is in `out`, `None` if this is no literal.
///
/// Quotes are `"`, `'` (around one character, or none) and backticks. Bytes that are not UTF-8, also those
/// that escapes make, become U+FFFD.
pub fn unquote(quoted: &[u8], out: &mut Vec<u8>) -> Option<bool> {
    out.clear();
    let (&quote, rest) = quoted.split_first()?;
    let (&last, inner) = rest.split_last()?;
    if quote != last {
        return None;
    }
    let plain = match quote {
        b'`' if inner.contains(&b'`') => return None,
        b'`' if inner.contains(&b'\r') => {
            out.extend(inner.iter().filter(|b| **b != b'\r'));
            false
        }
        b'`' => true,
        b'"' | b'\'' if inner.contains(&b'\n') => return None,
        b'"' if memchr::memchr2(b'\\', b'"', inner).is_none() => true,
        b'"' | b'\'' => {
            let mut rest = inner;
            let mut characters = 0;
            while !rest.is_empty() {
                rest = character(rest, quote, out)?;
                characters += 1;
            }
            // As in the collector, two quotes are no text.
            if quote == b'\'' && characters > 1 {
                return None;
            }
            false
        }
        _ => return None,
    };
    let text = if plain { inner } else { &out[..] };
    if std::str::from_utf8(text).is_ok() {
        return Some(plain);
    }
    let repaired = String::from_utf8_lossy(text).into_owned();
    *out = repaired.into_bytes();
    Some(false)
}

/// Takes one character or escape off `rest`.
fn character<'t>(rest: &'t [u8], quote: u8, out: &mut Vec<u8>) -> Option<&'t [u8]> {
    let (&first, rest) = rest.split_first()?;
    if first == quote {
        return None;
    }
    if first != b'\\' {
        out.push(first);
        if first < 0x80 {
            return Some(rest);
        }
        // The other bytes of the character.
        let length = match first {
            0xc2..=0xdf => 1,
            0xe0..=0xef => 2,
            0xf0..=0xf4 => 3,
            _ => 0,
        };
        let followers = rest.iter().take(length);
        let length = followers.take_while(|b| (0x80..0xc0).contains(*b)).count();
        out.extend_from_slice(&rest[..length]);
        return Some(&rest[length..]);
    }
    let (&escape, rest) = rest.split_first()?;
    let plain = match escape {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'\\' => b'\\',
        b'\'' | b'"' if escape == quote => escape,
        b'x' => {
            out.push(u8::try_from(digits(rest, 2, 16)?).ok()?);
            return Some(&rest[2..]);
        }
        b'u' | b'U' => {
            let length = if escape == b'u' { 4 } else { 8 };
            let c = char::from_u32(digits(rest, length, 16)?)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(&rest[length..]);
        }
        b'0'..=b'7' => {
            let code = u32::from(escape - b'0') * 64 + digits(rest, 2, 8)?;
            out.push(u8::try_from(code).ok()?);
            return Some(&rest[2..]);
        }
        _ => return None,
    };
    out.push(plain);
    Some(rest)
}

/// The number that the first `length` bytes write.
fn digits(text: &[u8], length: usize, base: u32) -> Option<u32> {
    let digit = |n: u32, b: &u8| {
        let digit = char::from(*b).to_digit(base)?;
        n.checked_mul(base)?.checked_add(digit)
    };
    text.get(..length)?.iter().try_fold(0, digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_read_as_go_reads_them() {
        for (quoted, want) in [
            (&br#""val""#[..], Some("val")),
            (br#""""#, Some("")),
            (br#""a\"b\\c\n\t""#, Some("a\"b\\c\n\t")),
            (br#""a'b""#, Some("a'b")),
            (br#""\u00e9\U0001F600\x41\101""#, Some("\u{e9}\u{1f600}AA")),
            (br#""\xff""#, Some("\u{fffd}")),
            (b"`a\\n\"b`", Some("a\\n\"b")),
            (b"`a\r\nb`", Some("a\nb")),
            (b"'a'", Some("a")),
            (b"'\\''", Some("'")),
            ("'\u{e9}'".as_bytes(), Some("\u{e9}")),
            (b"'\\u00e9'", Some("\u{e9}")),
            (b"'ab'", None),
            (b"''", Some("")),
            (b"\"a", None),
            (b"a\"", None),
            (b"\"", None),
            (b"", None),
            (b"val", None),
            (b"\"a\nb\"", None),
            (br#""a"b""#, None),
            (br#""\'""#, None),
            (br#""\q""#, None),
            (br#""\x4""#, None),
            (br#""\ud800""#, None),
            (br#""\400""#, None),
            (b"\"a'", None),
            (b"`a`b`", None),
        ] {
            let mut out = Vec::new();
            let got = unquote(quoted, &mut out).map(|plain| match plain {
                true => quoted[1..quoted.len() - 1].to_vec(),
                false => out,
            });
            let shown = quoted.escape_ascii();
            assert_eq!(got.as_deref(), want.map(str::as_bytes), "{shown}");
        }
    }
}
