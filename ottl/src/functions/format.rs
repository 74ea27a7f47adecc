//! `Format`: the verbs of Go's `Sprintf` for the types that records have.

use std::borrow::Cow;
use std::fmt::Write;

use crate::error::Fault;
use crate::field::Kind;
use crate::scene::Cx;
use crate::value::Val;

use super::{Arg, Function, Takes, as_text, f, hex, p, plain_double, text};

pub(super) const FUNCTIONS: &[Function] = &[f(
    "Format",
    &[
        p("format", Takes::Value(Kind::Text)),
        p("vals", Takes::Values),
    ],
    Kind::Text,
    format,
)];

/// Widest field and most digits that a verb may ask for.
const WIDTH_MAX: usize = 1024;

fn format<'a>(args: &'a [Arg], cx: &Cx<'a>) -> Result<Val<'a>, Fault> {
    let layout = text("Format", args, 0, cx)?;
    let layout = String::from_utf8_lossy(&layout);
    let Some(Arg::Values(values)) = args.get(1) else {
        return Ok(Val::text(layout.into_owned()));
    };
    let mut values = values.iter();
    let mut out = String::with_capacity(layout.len() + 16);
    let mut rest = &*layout;
    while let Some(i) = rest.find('%') {
        out.push_str(&rest[..i]);
        let (verb, after) = Verb::read(&rest[i + 1..]);
        rest = after;
        match verb.letter {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(letter) => match values.next() {
                None => {
                    let _ = write!(out, "%!{letter}(MISSING)");
                }
                Some(value) => verb.write(&value.eval(cx)?, letter, &mut out),
            },
        }
        if out.len() > super::texts::MADE_BYTES_MAX {
            return Err(Fault::failed("Format", "the result is too long"));
        }
    }
    out.push_str(rest);
    let mut extra = String::new();
    for value in values {
        let value = value.eval(cx)?;
        let _ = write!(
            extra,
            "{}{}={}",
            if extra.is_empty() { "" } else { ", " },
            go_type(&value),
            plain(&value)
        );
    }
    if !extra.is_empty() {
        let _ = write!(out, "%!(EXTRA {extra})");
    }
    Ok(Val::Str(Cow::Owned(out.into_bytes())))
}

/// What stands behind a `%`.
#[derive(Default)]
struct Verb {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: usize,
    precision: Option<usize>,
    letter: Option<char>,
}

impl Verb {
    /// Reads a verb off the beginning of `text`.
    fn read(text: &str) -> (Verb, &str) {
        let mut verb = Verb::default();
        let mut rest = text;
        let number = |rest: &mut &str| {
            let end = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            let (digits, after) = rest.split_at(end);
            *rest = after;
            digits.parse::<usize>().unwrap_or(0).min(WIDTH_MAX)
        };
        while let Some(flag) = rest.chars().next() {
            match flag {
                '-' => verb.minus = true,
                '+' => verb.plus = true,
                ' ' => verb.space = true,
                '0' => verb.zero = true,
                '#' => verb.sharp = true,
                _ => break,
            }
            rest = &rest[1..];
        }
        verb.width = number(&mut rest);
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            verb.precision = Some(number(&mut rest));
        }
        verb.letter = rest.chars().next();
        let length = verb.letter.map_or(0, char::len_utf8);
        (verb, &rest[length..])
    }

    fn write(&self, value: &Val<'_>, letter: char, out: &mut String) {
        let made = match (value, letter) {
            (Val::Int(i), 'd' | 'v') => self.integer(*i, 10, false),
            (Val::Int(i), 'x') => self.integer(*i, 16, false),
            (Val::Int(i), 'X') => self.integer(*i, 16, true),
            (Val::Int(i), 'o') => self.integer(*i, 8, false),
            (Val::Int(i), 'b') => self.integer(*i, 2, false),
            (Val::Int(i), 'c') => {
                let c = u32::try_from(*i).ok().and_then(char::from_u32);
                c.unwrap_or('\u{fffd}').to_string()
            }
            (Val::Double(d), 'f' | 'F') => {
                self.signed(*d, format!("{:.*}", self.precision.unwrap_or(6), d.abs()))
            }
            (Val::Double(d), 'e') => {
                self.signed(*d, exponent(d.abs(), self.precision.unwrap_or(6)))
            }
            (Val::Double(d), 'g' | 'v') => self.signed(*d, shortest(d.abs())),
            (Val::Bool(b), 't' | 'v') => b.to_string(),
            (Val::Str(_), 's' | 'v') => self.cut(&plain(value)),
            (Val::Str(_), 'q') => format!("{:?}", plain(value)),
            (Val::Str(s) | Val::Bytes(s), 'x') => hex(s),
            (Val::Str(s) | Val::Bytes(s), 'X') => hex(s).to_uppercase(),
            (Val::Nil, 'v') => "<nil>".into(),
            (Val::Nil, _) => format!("%!{letter}(<nil>)"),
            (
                Val::Time(_) | Val::Duration(_) | Val::List(_) | Val::Map(_) | Val::Bytes(_),
                's' | 'v',
            ) => self.cut(&plain(value)),
            _ => format!("%!{letter}({}={})", go_type(value), plain(value)),
        };
        let missing = self.width.saturating_sub(made.chars().count());
        let numeric = matches!(value, Val::Int(_) | Val::Double(_));
        if self.minus {
            out.push_str(&made);
            out.extend(std::iter::repeat_n(' ', missing));
        } else if self.zero && numeric && missing > 0 {
            let signs = usize::from(made.starts_with(['-', '+', ' ']));
            out.push_str(&made[..signs]);
            out.extend(std::iter::repeat_n('0', missing));
            out.push_str(&made[signs..]);
        } else {
            out.extend(std::iter::repeat_n(' ', missing));
            out.push_str(&made);
        }
    }

    /// At most so many characters as the precision says.
    fn cut(&self, text: &str) -> String {
        text.chars()
            .take(self.precision.unwrap_or(usize::MAX))
            .collect()
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        }
    }

    fn signed(&self, d: f64, digits: String) -> String {
        let sign = self.sign(d.is_sign_negative() && !d.is_nan());
        match d {
            d if d.is_nan() => "NaN".into(),
            d if d.is_infinite() => format!("{}Inf", if sign.is_empty() { "+" } else { sign }),
            _ => format!("{sign}{digits}"),
        }
    }

    fn integer(&self, i: i64, base: u32, upper: bool) -> String {
        let mut n = i.unsigned_abs();
        let mut digits = Vec::new();
        loop {
            let digit = char::from_digit((n % u64::from(base)) as u32, base).unwrap_or('0');
            digits.push(if upper {
                digit.to_ascii_uppercase()
            } else {
                digit
            });
            n /= u64::from(base);
            if n == 0 {
                break;
            }
        }
        while digits.len() < self.precision.unwrap_or(0) {
            digits.push('0');
        }
        let prefix = match (self.sharp, base) {
            (true, 16) if upper => "0X",
            (true, 16) => "0x",
            (true, 8) => "0",
            (true, 2) => "0b",
            _ => "",
        };
        let digits: String = digits.into_iter().rev().collect();
        format!("{}{prefix}{digits}", self.sign(i < 0))
    }
}

/// With an exponent of at least two digits, as Go writes it.
fn exponent(d: f64, precision: usize) -> String {
    let text = format!("{d:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// The shortest form that is the same number: with an exponent below 1e-4 and from 1e21 on.
fn shortest(d: f64) -> String {
    if d == 0.0 || (1e-4..1e21).contains(&d) {
        return format!("{d}");
    }
    let text = format!("{d:e}");
    let digits = text.split_once('e').map_or(0, |(mantissa, _)| {
        mantissa
            .split_once('.')
            .map_or(0, |(_, fraction)| fraction.len())
    });
    exponent(d, digits)
}

fn go_type(value: &Val<'_>) -> &'static str {
    match value {
        Val::Nil => "<nil>",
        Val::Bool(_) => "bool",
        Val::Int(_) => "int64",
        Val::Double(_) => "float64",
        Val::Str(_) => "string",
        Val::Bytes(_) => "[]uint8",
        Val::Time(_) => "time.Time",
        Val::Duration(_) => "time.Duration",
        Val::List(_) => "[]interface {}",
        Val::Map(_) => "map[string]interface {}",
    }
}

fn plain(value: &Val<'_>) -> String {
    match value {
        Val::Nil => "<nil>".into(),
        Val::Double(d) => plain_double(*d),
        other => {
            let text = as_text(other.reborrow()).unwrap_or_default();
            String::from_utf8_lossy(&text).into_owned()
        }
    }
}
