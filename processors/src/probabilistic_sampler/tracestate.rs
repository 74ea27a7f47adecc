//! The W3C trace state, of which the member `ot` says how a span was sampled.
//!
//! Sources: W3C Trace Context, and "TraceState Handling" of OpenTelemetry's specification. What is
//! accepted, and its limits, are the collector's.

use super::probability::{Invalid, Randomness, Threshold};
use super::sampler::Carried;

const STATE_BYTES_MAX: usize = 1024;
/// The collector takes one fewer than the 32 members of the specification.
const MEMBERS_MAX: usize = 31;
const VALUE_BYTES_MAX: usize = 256;
const KEY_BYTES_MAX: usize = 256;
const TENANT_BYTES_MAX: usize = 241;
const SYSTEM_BYTES_MAX: usize = 14;

/// A trace state that was taken apart.
#[derive(Default)]
pub(super) struct TraceState<'a> {
    /// What is said about sampling.
    pub carried: Carried,
    /// The randomness as it was written.
    randomness: &'a [u8],
    /// The other fields of `ot`.
    fields: Vec<(&'a [u8], &'a [u8])>,
    /// The other members.
    members: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> TraceState<'a> {
    /// Takes `text` apart. An error comes with what could be read.
    pub fn parse(text: &'a [u8]) -> (TraceState<'a>, Result<(), Invalid>) {
        let mut state = TraceState::default();
        let result = match text.len() <= STATE_BYTES_MAX && members(text).all(is_member) {
            true => state.read(text),
            false => Err(Invalid),
        };
        (state, result)
    }

    fn read(&mut self, text: &'a [u8]) -> Result<(), Invalid> {
        let mut result = Ok(());
        for (i, member) in text.split(|b| *b == b',').enumerate() {
            if i >= MEMBERS_MAX {
                return Err(Invalid);
            }
            let Some((key, value)) = cut(trim(member), b'=') else {
                continue;
            };
            if !key_fits(key) {
                result = Err(Invalid);
            } else if key == b"ot" {
                result = self.read_own(value).and(result);
            } else {
                self.members.push((key, value));
            }
        }
        result
    }

    /// Takes the value of `ot` apart.
    fn read_own(&mut self, text: &'a [u8]) -> Result<(), Invalid> {
        self.carried = Carried::default();
        self.fields.clear();
        let fields = || text.split(|b| *b == b';').map(|field| cut(field, b':'));
        let valid = |field: Option<(&[u8], &[u8])>| field.is_some_and(|(k, v)| is_field(k, v));
        if text.len() > VALUE_BYTES_MAX || !fields().all(valid) {
            return Err(Invalid);
        }
        let mut result = Ok(());
        for (key, value) in fields().flatten() {
            match key {
                b"rv" => {
                    let parsed = Randomness::parse(value);
                    self.carried.randomness = parsed.ok();
                    self.randomness = value;
                    result = result.and(parsed.map(|_| ()));
                }
                b"th" => {
                    let parsed = Threshold::parse(value);
                    self.carried.threshold = parsed.ok();
                    result = result.and(parsed.map(|_| ()));
                }
                _ => self.fields.push((key, value)),
            }
        }
        result
    }

    /// Puts it together again, `ot` in front.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let begin = |out: &mut Vec<u8>, field: &[u8]| {
            out.extend_from_slice(if out.len() > start { b";" } else { b"ot=" });
            out.extend_from_slice(field);
            out.push(b':');
        };
        if let Some(randomness) = self.carried.randomness {
            begin(out, b"rv");
            match Randomness::parse(self.randomness) {
                Ok(same) if same == randomness => out.extend_from_slice(self.randomness),
                _ => out.extend_from_slice(&randomness.text()),
            }
        }
        if let Some(threshold) = self.carried.threshold {
            begin(out, b"th");
            threshold.write(out);
        }
        for (key, value) in &self.fields {
            begin(out, key);
            out.extend_from_slice(value);
        }
        for (key, value) in &self.members {
            if out.len() > start {
                out.push(b',');
            }
            out.extend_from_slice(key);
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
}

/// The members of a state that are not empty.
fn members(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = text.split(|b| *b == b',').map(trim);
    all.filter(|member| !member.is_empty())
}

/// Without the blanks that may stand around a member.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// What is before and behind the first `at`.
fn cut(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let i = text.iter().position(|b| *b == at)?;
    Some((&text[..i], &text[i + 1..]))
}

fn is_member(member: &[u8]) -> bool {
    cut(member, b'=').is_some_and(|(key, value)| is_key(key) && is_value(value))
}

/// `name` or `tenant@system`.
fn is_key(key: &[u8]) -> bool {
    let rest = |b: &u8| {
        b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'*' | b'/')
    };
    let letter = |part: &[u8]| part.first().is_some_and(u8::is_ascii_lowercase);
    match cut(key, b'@') {
        Some((tenant, system)) => {
            let first = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            tenant.first().is_some_and(first)
                && letter(system)
                && tenant.iter().all(rest)
                && system.iter().all(rest)
        }
        None => letter(key) && key.iter().all(rest),
    }
}

fn key_fits(key: &[u8]) -> bool {
    let parts_fit = cut(key, b'@').is_none_or(|(tenant, system)| {
        tenant.len() <= TENANT_BYTES_MAX && system.len() <= SYSTEM_BYTES_MAX
    });
    key.len() <= KEY_BYTES_MAX && parts_fit
}

/// Printable but for `,` and `=`, and no blank at the end.
fn is_value(value: &[u8]) -> bool {
    let printable = |b: &u8| matches!(b, b' '..=b'~') && !matches!(b, b',' | b'=');
    value.len() <= VALUE_BYTES_MAX
        && value.last().is_some_and(|b| *b != b' ')
        && value.iter().all(printable)
}

/// A field of `ot`.
fn is_field(key: &[u8], value: &[u8]) -> bool {
    key.first().is_some_and(u8::is_ascii_lowercase)
        && key
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && value
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(text: &str) -> Result<String, String> {
        let (state, result) = TraceState::parse(text.as_bytes());
        let mut out = Vec::new();
        state.write(&mut out);
        let text = String::from_utf8(out).unwrap();
        match result {
            Ok(()) => Ok(text),
            Err(Invalid) => Err(text),
        }
    }

    #[test]
    fn what_is_taken_apart_is_put_together() {
        for (given, expect) in [
            ("", ""),
            ("ot=th:c", "ot=th:c"),
            ("ot=th:c0;rv:aabbccddeeff00", "ot=rv:aabbccddeeff00;th:c"),
            ("ot=rv:AABBCCDDEEFF00", "ot=rv:AABBCCDDEEFF00"),
            ("ot=xx:abc;th:0", "ot=th:0;xx:abc"),
            ("a=1,ot=th:8,t@s=x y", "ot=th:8,a=1,t@s=x y"),
            (" a=1 ,\t, b=2", "a=1,b=2"),
            ("ot=th:8,ot=th:c", "ot=th:c"),
            ("9t@s=v", "9t@s=v"),
        ] {
            assert_eq!(again(given), Ok(expect.into()), "{given:?}");
        }
    }

    #[test]
    fn what_is_no_trace_state_is_an_error_with_what_could_be_read() {
        for (given, expect) in [
            ("ot", ""),
            ("=x", ""),
            ("a=", ""),
            ("A=1", ""),
            ("a=1,b=x=y", ""),
            ("9a=1", ""),
            ("ot=th:z,a=1", "a=1"),
            ("ot=rv:abc;th:8", "ot=th:8"),
            ("ot=TH:8", ""),
            ("ot=th", ""),
            ("ot=th:8;", ""),
            ("ot=th:fffffffffffffff", ""),
            ("a=\u{e4}", ""),
        ] {
            assert_eq!(again(given), Err(expect.into()), "{given:?}");
        }
        let many = |n: usize| vec!["a=1"; n].join(",");
        assert!(again(&many(MEMBERS_MAX)).is_ok());
        assert!(again(&many(MEMBERS_MAX + 1)).is_err());
        assert!(again(&format!("a={}", "x".repeat(257))).is_err());
        assert!(again(&format!("{}=1", "x".repeat(257))).is_err());
        assert!(again(&format!("t@{}=1", "x".repeat(15))).is_err());
        let long = vec![format!("a={}", "x".repeat(200)); 6].join(",");
        assert!(again(&long).is_err());
    }
}
