//! Patterns of paths.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::filelog::glob::{Components, Glob, Part, Step};

/// Longer ones are not compared with the model, which tries everything.
const MODEL_BYTES_MAX: usize = 24;
/// Most stars in what is compared.
const MODEL_STARS_MAX: usize = 6;

/// The first line is a pattern, the rest a path: patterns are refused or match as a model says that
/// tries every way, and a path whose signs are escaped matches itself and nothing else.
pub fn patterns(data: &[u8]) {
    let at = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let (pattern, path) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    let Ok(pattern) = std::str::from_utf8(pattern) else {
        return;
    };
    if let Ok(glob) = Glob::new(pattern) {
        assert_eq!(glob.source(), pattern);
        assert!((1..=1024).contains(&glob.alternatives().len()));
        let got = glob.matches(Path::new(OsStr::from_bytes(path)));
        let stars = pattern.matches('*').count();
        if path.len() <= MODEL_BYTES_MAX && stars <= MODEL_STARS_MAX {
            let fits = |c: &Components| model(c, path);
            assert_eq!(
                got,
                glob.alternatives().iter().any(fits),
                "{pattern:?} {path:?}"
            );
        }
    }
    itself(path);
}

/// The path as a pattern, its signs escaped.
fn itself(path: &[u8]) {
    let Ok(text) = std::str::from_utf8(path) else {
        return;
    };
    let sign = |c: char| {
        matches!(
            c,
            '*' | '?' | '[' | ']' | '{' | '}' | '\\' | ',' | '!' | '^'
        )
    };
    let mut escaped = String::new();
    for c in text.chars() {
        if sign(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    let Ok(glob) = Glob::new(&escaped) else {
        let refused = text.is_empty() || text.contains('\0') || escaped.len() > 8 << 10;
        return assert!(refused, "{escaped:?}");
    };
    // `.` as a component does not count in a path, and is a name in a pattern.
    if !text.split('/').any(|name| name == ".") {
        assert!(glob.matches(Path::new(text)), "{escaped:?} {text:?}");
        assert!(!glob.matches(Path::new(&format!("{text}x"))), "{escaped:?}");
    }
}

/// Whether `path` fits, by trying everything.
fn model(components: &Components, path: &[u8]) -> bool {
    let absolute = path.first() == Some(&b'/');
    let names = path.split(|b| *b == b'/');
    let names: Vec<&[u8]> = names.filter(|name| !matches!(name, [] | [b'.'])).collect();
    components.absolute == absolute && parts(&components.parts, &names)
}

fn parts(pattern: &[Part], names: &[&[u8]]) -> bool {
    match pattern.split_first() {
        None => names.is_empty(),
        Some((Part::Any, rest)) => (0..=names.len()).any(|n| parts(rest, &names[n..])),
        Some((part, rest)) => names.split_first().is_some_and(|(name, names)| {
            let fits = match part {
                Part::Name(wanted) => wanted == name,
                Part::Match(wanted) => steps(wanted, &characters(name)),
                Part::Any => true,
            };
            fits && parts(rest, names)
        }),
    }
}

fn steps(pattern: &[Step], name: &[&[u8]]) -> bool {
    let Some((step, rest)) = pattern.split_first() else {
        return name.is_empty();
    };
    if *step == Step::Many {
        return (0..=name.len()).any(|n| steps(rest, &name[n..]));
    }
    // A character of several bytes is that many steps in a pattern.
    if let Step::Byte(first) = step {
        let Some((character, name)) = name.split_first() else {
            return false;
        };
        let bytes = character.len();
        let same = character
            .iter()
            .zip(pattern)
            .all(|(b, s)| *s == Step::Byte(*b));
        return character[0] == *first
            && same
            && pattern.len() >= bytes
            && steps(&pattern[bytes..], name);
    }
    name.split_first().is_some_and(|(character, name)| {
        let fits = match step {
            Step::Class { negated, ranges } => {
                let c = std::str::from_utf8(character)
                    .ok()
                    .and_then(|t| t.chars().next());
                let within = |c| ranges.iter().any(|(from, to)| (*from..=*to).contains(&c));
                c.is_some_and(within) != *negated
            }
            _ => true,
        };
        fits && steps(rest, name)
    })
}

/// The characters of a name; a byte that is not of one stands alone.
fn characters(name: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    for chunk in name.utf8_chunks() {
        let text = chunk.valid();
        all.extend(
            text.char_indices()
                .map(|(i, c)| &text.as_bytes()[i..i + c.len_utf8()]),
        );
        all.extend(chunk.invalid().chunks(1));
    }
    all
}
