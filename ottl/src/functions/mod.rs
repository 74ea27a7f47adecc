//! Converters: what they are called, what they take, and what they do.

mod format;
mod grok;
mod hashes;
mod ids;
mod lists;
mod parsing;
mod texts;
mod times;
mod types;
mod urls;
mod xml;

use std::borrow::Cow;
use std::net::IpAddr;

use regex::bytes::Regex;
use tailwater_golang::strptime::{Layout, Zone};
use tailwater_pdata::{Map, Value};

use crate::error::Fault;
use crate::expr::Expr;
use crate::field::{Context, Kind};
use crate::scene::Cx;
use crate::value::Val;

/// What a converter does with its arguments.
pub(crate) type Run = for<'a> fn(&'a [Arg], &Cx<'a>) -> Result<Val<'a>, Fault>;

/// What a converter makes of its arguments when they are compiled; what is wrong with them.
pub(crate) type Prepare = fn(&mut [Arg]) -> Result<(), String>;

/// An argument, ready for use.
#[derive(Clone, Debug)]
pub(crate) enum Arg {
    /// An optional one that is not given.
    Absent,
    Value(Expr),
    Values(Box<[Expr]>),
    Text(Box<str>),
    Texts(Box<[Box<str>]>),
    Int(i64),
    Number(f64),
    Bool(bool),
    Pattern(Regex),
    Layout(Box<Layout>, Box<Zone>),
    Zone(Box<Zone>),
    Networks(Box<[(IpAddr, u8)]>),
    Grok(Box<grok::Grok>),
    /// A converter of text to text.
    Function(&'static Function),
}

/// What an argument has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Takes {
    /// An expression of that kind.
    Value(Kind),
    /// A list, written as such, of expressions.
    Values,
    /// A path that is changed, to a value of that kind.
    Target(Kind),
    /// A string, written as such.
    Text,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// A list of strings, written as such.
    Texts,
    /// A whole number, written as such.
    Int,
    /// A number, written as such.
    Number,
    /// `true` or `false`.
    Bool,
    /// A regular expression.
    Pattern,
    /// One with a named group.
    NamedPattern,
    /// A layout of times.
    Layout,
    /// The name of a time zone.
    Zone,
    /// A language tag; English alone is known.
    Locale,
    /// Networks as `10.0.0.0/8`.
    Networks,
    /// A glob pattern.
    Glob,
    /// The name of a converter of text to text.
    Function,
    /// A string with one `%s`.
    Frame,
}

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Param {
    pub name: &'static str,
    pub takes: Takes,
    pub optional: bool,
}

pub(crate) const fn p(name: &'static str, takes: Takes) -> Param {
    Param {
        name,
        takes,
        optional: false,
    }
}

pub(crate) const fn opt(name: &'static str, takes: Takes) -> Param {
    Param {
        name,
        takes,
        optional: true,
    }
}

/// A converter.
#[derive(Debug)]
pub(crate) struct Function {
    pub name: &'static str,
    pub params: &'static [Param],
    pub returns: Kind,
    pub run: Run,
    /// The same arguments always give the same.
    pub pure: bool,
    /// Makes of arguments what can be made of them only together, when they are compiled.
    pub prepare: Option<Prepare>,
    /// The only context it can stand in, if there is one.
    pub context: Option<Context>,
}

pub(crate) const fn f(
    name: &'static str,
    params: &'static [Param],
    returns: Kind,
    run: Run,
) -> Function {
    Function {
        name,
        params,
        returns,
        run,
        pure: true,
        prepare: None,
        context: None,
    }
}

/// Every converter, by group.
const GROUPS: [&[Function]; 10] = [
    types::FUNCTIONS,
    texts::FUNCTIONS,
    format::FUNCTIONS,
    hashes::FUNCTIONS,
    ids::FUNCTIONS,
    times::FUNCTIONS,
    parsing::FUNCTIONS,
    lists::FUNCTIONS,
    xml::FUNCTIONS,
    urls::FUNCTIONS,
];

/// Converters of the collector that are not built.
pub const NOT_BUILT: &[&str] = &[
    "All",
    "Any",
    "ConvertAttributesToElementsXML",
    "ConvertTextToElementsXML",
    "Filter",
    "Find",
    "GetXML",
    "InsertXML",
    "MapEach",
    "MapKeys",
    "ParseCEF",
    "ParseCLF",
    "ParseELF",
    "ParseLEEF",
    "ProfileID",
    "Reduce",
    "RemoveXML",
    "UserAgent",
    "When",
];

pub(crate) fn all() -> impl Iterator<Item = &'static Function> {
    GROUPS.into_iter().flatten()
}

pub(crate) use parsing::network;

/// Whether a converter makes text of one text, so that it can be the argument of an editor.
pub(crate) fn maps_text(function: &Function) -> bool {
    let one = |p: &Param| matches!(p.takes, Takes::Value(Kind::Text | Kind::Any));
    let (first, rest) = match function.params.split_first() {
        Some((first, rest)) => (one(first), rest),
        None => (false, &[][..]),
    };
    first && rest.iter().all(|p| p.optional) && function.returns == Kind::Text
}

/// A glob pattern as a regular expression for whole texts: `*` is any text, `?` any character, `[...]` a
/// class, `{a,b}` one of several.
pub(crate) fn glob(pattern: &str) -> Option<Regex> {
    let mut out = String::from("(?s)^(?:");
    let mut chars = pattern.chars().peekable();
    let (mut braces, mut in_class) = (0usize, false);
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push_str(&regex::escape(chars.next()?.encode_utf8(&mut [0; 4]))),
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '-' if in_class => out.push('-'),
            _ if in_class => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            '*' => {
                while chars.next_if_eq(&'*').is_some() {}
                out.push_str(".*");
            }
            '?' => out.push('.'),
            '[' => {
                in_class = true;
                out.push('[');
                if chars.next_if(|c| matches!(c, '!' | '^')).is_some() {
                    out.push('^');
                }
            }
            '{' => {
                braces += 1;
                out.push_str("(?:");
            }
            '}' if braces > 0 => {
                braces -= 1;
                out.push(')');
            }
            ',' if braces > 0 => out.push('|'),
            _ => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out.push_str(")$");
    if in_class || braces > 0 {
        return None;
    }
    Regex::new(&out).ok()
}

pub(crate) fn find(name: &str) -> Option<&'static Function> {
    all().find(|f| f.name == name)
}

/// Reads arguments while a converter is carried out. What the compiler made of them is what is here.
pub(crate) fn val<'a>(args: &'a [Arg], i: usize, cx: &Cx<'a>) -> Result<Val<'a>, Fault> {
    match args.get(i) {
        Some(Arg::Value(expr)) => expr.eval(cx),
        _ => Ok(Val::Nil),
    }
}

fn wrong(place: &'static str, wanted: &'static str, found: &Val<'_>) -> Fault {
    Fault::Kind {
        place,
        wanted,
        found: found.kind(),
    }
}

/// Text; nothing else will do.
pub(crate) fn text<'a>(
    place: &'static str,
    args: &'a [Arg],
    i: usize,
    cx: &Cx<'a>,
) -> Result<Cow<'a, [u8]>, Fault> {
    match val(args, i, cx)? {
        Val::Str(text) => Ok(text),
        other => Err(wrong(place, "text", &other)),
    }
}

pub(crate) fn int(place: &'static str, args: &[Arg], i: usize, cx: &Cx<'_>) -> Result<i64, Fault> {
    match args.get(i) {
        Some(Arg::Value(expr)) => match expr.eval(cx)? {
            Val::Int(n) => Ok(n),
            other => Err(wrong(place, "an integer", &other)),
        },
        _ => Err(wrong(place, "an integer", &Val::Nil)),
    }
}

pub(crate) fn time(place: &'static str, args: &[Arg], i: usize, cx: &Cx<'_>) -> Result<i64, Fault> {
    match args.get(i) {
        Some(Arg::Value(expr)) => match expr.eval(cx)? {
            Val::Time(ns) => Ok(ns),
            other => Err(wrong(place, "a time", &other)),
        },
        _ => Err(wrong(place, "a time", &Val::Nil)),
    }
}

pub(crate) fn duration(
    place: &'static str,
    args: &[Arg],
    i: usize,
    cx: &Cx<'_>,
) -> Result<i64, Fault> {
    match args.get(i) {
        Some(Arg::Value(expr)) => match expr.eval(cx)? {
            Val::Duration(ns) => Ok(ns),
            other => Err(wrong(place, "a duration", &other)),
        },
        _ => Err(wrong(place, "a duration", &Val::Nil)),
    }
}

pub(crate) fn map<'a>(
    place: &'static str,
    args: &'a [Arg],
    i: usize,
    cx: &Cx<'a>,
) -> Result<Cow<'a, Map>, Fault> {
    match val(args, i, cx)? {
        Val::Map(map) => Ok(map),
        other => Err(wrong(place, "a map", &other)),
    }
}

pub(crate) fn list<'a>(
    place: &'static str,
    args: &'a [Arg],
    i: usize,
    cx: &Cx<'a>,
) -> Result<Cow<'a, [Value]>, Fault> {
    match val(args, i, cx)? {
        Val::List(list) => Ok(list),
        other => Err(wrong(place, "a list", &other)),
    }
}

/// A literal string, or `default` if none is given.
pub(crate) fn literal<'a>(args: &'a [Arg], i: usize, default: &'a str) -> &'a str {
    match args.get(i) {
        Some(Arg::Text(text)) => text,
        _ => default,
    }
}

/// A literal truth, or `default` if none is given.
pub(crate) fn flag(args: &[Arg], i: usize, default: bool) -> bool {
    match args.get(i) {
        Some(Arg::Bool(b)) => *b,
        _ => default,
    }
}

/// A value as text, as functions that take anything see it; nil has none.
pub(crate) fn as_text<'a>(val: Val<'a>) -> Option<Cow<'a, [u8]>> {
    let owned = |text: String| Some(Cow::Owned(text.into_bytes()));
    match val {
        Val::Nil => None,
        Val::Str(text) => Some(text),
        Val::Bytes(bytes) => owned(hex(&bytes)),
        Val::Double(d) => owned(plain_double(d)),
        Val::Time(ns) => owned(times::rfc3339(ns)),
        Val::Duration(ns) => owned(tailwater_config::format_duration(ns)),
        other => {
            let mut out = Vec::new();
            if let Some(value) = other.as_value() {
                value.write_string(&mut out);
            }
            Some(Cow::Owned(out))
        }
    }
}

/// A double without an exponent, as short as it can be.
pub(crate) fn plain_double(d: f64) -> String {
    match d {
        f64::INFINITY => "+Inf".into(),
        f64::NEG_INFINITY => "-Inf".into(),
        d => format!("{d}"),
    }
}

/// Two digits for each byte, lower-case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

/// The bytes that hexadecimal digits write.
pub(crate) fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    };
    text.chunks(2).map(byte).collect()
}
