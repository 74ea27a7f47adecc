//! Patterns of paths: `*`, `?`, `[a-z]`, `[!a]`, `{a,b}` and `**`.
//!
//! The syntax is that of the doublestar library the collector uses: `*`, `?` and classes do not
//! match `/`; `**` as a whole component matches any number of directories, inside a component it
//! is `*`; `\` takes the next character literally; names that start with a dot are nothing special.
//!
//! A pattern is cut into components, so that a walk can follow it: see [`Components`].

use std::os::unix::ffi::OsStrExt;
use std::path::{Component as PathComponent, Path, PathBuf};

/// Most alternatives that the braces of one pattern may make.
const ALTERNATIVES_MAX: usize = 1024;
/// Most bytes that they may have in all: compiled they take up to 32 times as much memory.
const EXPANDED_BYTES_MAX: usize = 256 << 10;
/// Longest pattern in bytes.
const PATTERN_BYTES_MAX: usize = 16 << 10;

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// An empty pattern matches nothing.
    #[error("the pattern is empty")]
    Empty,
    /// `[` without `]`.
    #[error("a '[' is not closed")]
    OpenClass,
    /// `{` without `}`.
    #[error("a '{{' is not closed")]
    OpenBrace,
    /// `[b-a]`.
    #[error("a range in '[...]' goes backwards")]
    Backwards,
    /// A backslash at the end.
    #[error("a '\\' at the end escapes nothing")]
    Escape,
    /// Braces multiply.
    #[error("the braces make more than {ALTERNATIVES_MAX} alternatives")]
    TooMany,
    /// Braces multiply long text.
    #[error(
        "the alternatives that the braces make are longer than {EXPANDED_BYTES_MAX} bytes in all"
    )]
    TooLong,
    /// A NUL byte, or longer than 16 KiB.
    #[error("no path can match: the pattern holds a NUL or is longer than 16 KiB")]
    Impossible,
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Glob {
    source: String,
    alternatives: Vec<Components>,
}

/// One alternative of a pattern, by components.
#[derive(Clone, Debug, PartialEq)]
pub struct Components {
    /// The pattern starts with `/`.
    pub absolute: bool,
    /// What each component of a path has to be.
    pub parts: Vec<Part>,
}

/// One component.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Exactly this name.
    Name(Vec<u8>),
    /// A name that matches.
    Match(Vec<Step>),
    /// `**`: any number of directories.
    Any,
}

/// A step of matching a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// This byte.
    Byte(u8),
    /// One character.
    One,
    /// Any characters.
    Many,
    /// One character of, or not of, some ranges.
    Class {
        /// `[!...]` or `[^...]`.
        negated: bool,
        /// Inclusive ranges.
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// See [`GlobError`].
    pub fn new(pattern: &str) -> Result<Glob, GlobError> {
        if pattern.is_empty() {
            return Err(GlobError::Empty);
        }
        if pattern.len() > PATTERN_BYTES_MAX || pattern.contains('\0') {
            return Err(GlobError::Impossible);
        }
        let mut texts = Vec::new();
        expand(pattern, &mut texts)?;
        let alternatives = texts
            .iter()
            .map(|text| Components::parse(text))
            .collect::<Result<_, _>>()?;
        Ok(Glob {
            source: pattern.to_owned(),
            alternatives,
        })
    }

    /// The pattern as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The alternatives that braces make; without braces there is one.
    pub fn alternatives(&self) -> &[Components] {
        &self.alternatives
    }

    /// For each alternative, the deepest directory that all its matches are below: everything before
    /// the first component with a wildcard, and never the last component.
    pub fn roots(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.alternatives.iter().map(Components::root)
    }

    /// True if the whole path matches. `.` components and repeated slashes do not count.
    pub fn matches(&self, path: &Path) -> bool {
        let absolute = path.is_absolute();
        let names: Vec<&[u8]> = path
            .components()
            .filter_map(|c| match c {
                PathComponent::Normal(name) => Some(name.as_bytes()),
                PathComponent::ParentDir => Some(&b".."[..]),
                _ => None,
            })
            .collect();
        let fits = |c: &Components| c.absolute == absolute && matches_parts(&c.parts, &names);
        self.alternatives.iter().any(fits)
    }
}

/// Matches components; like a name with `**` as the star.
fn matches_parts(parts: &[Part], names: &[&[u8]]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        match parts.get(p) {
            Some(Part::Any) => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some(part) if n < names.len() && part.matches(names[n]) => {
                (p, n) = (p + 1, n + 1);
                continue;
            }
            None if n == names.len() => return true,
            _ => {}
        }
        match star {
            Some((at, from)) if from < names.len() => {
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            }
            _ => return false,
        }
    }
}

impl Part {
    /// True if a component with this name fits. `Any` fits every name.
    pub fn matches(&self, name: &[u8]) -> bool {
        match self {
            Part::Name(wanted) => wanted == name,
            Part::Match(steps) => matches_name(steps, name),
            Part::Any => true,
        }
    }
}

/// Matches a name with backtracking to the newest star only, which is enough: at most
/// `steps * name` comparisons.
fn matches_name(steps: &[Step], name: &[u8]) -> bool {
    let (mut s, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        match steps.get(s) {
            Some(Step::Many) => {
                star = Some((s, n));
                s += 1;
                continue;
            }
            Some(step) => {
                if let Some(length) = step.takes(&name[n..]) {
                    (s, n) = (s + 1, n + length);
                    continue;
                }
            }
            None if n == name.len() => return true,
            None => {}
        }
        match star {
            Some((at, from)) if from < name.len() => {
                let from = from + character(&name[from..]).1;
                star = Some((at, from));
                (s, n) = (at + 1, from);
            }
            _ => return false,
        }
    }
}

impl Step {
    /// How many bytes at the start of `rest` the step takes, if it fits.
    fn takes(&self, rest: &[u8]) -> Option<usize> {
        let first = *rest.first()?;
        match self {
            Step::Byte(b) => (*b == first).then_some(1),
            Step::One => Some(character(rest).1),
            Step::Class { negated, ranges } => {
                let (c, length) = character(rest);
                let inside = c.is_some_and(|c| ranges.iter().any(|(a, b)| (*a..=*b).contains(&c)));
                (inside != *negated).then_some(length)
            }
            Step::Many => None,
        }
    }
}

/// The character at the start of a name and its length; a byte that is no UTF-8 stands for itself.
fn character(rest: &[u8]) -> (Option<char>, usize) {
    let seen = &rest[..rest.len().min(4)];
    let valid = match std::str::from_utf8(seen) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&seen[..e.valid_up_to()]).unwrap_or(""),
    };
    valid
        .chars()
        .next()
        .map_or((None, 1), |c| (Some(c), c.len_utf8()))
}

impl Components {
    /// See [`Glob::roots`].
    fn root(&self) -> PathBuf {
        let above = self.parts.split_last().map_or(&[][..], |(_, above)| above);
        let mut root = PathBuf::from(if self.absolute { "/" } else { "." });
        for part in above {
            let Part::Name(name) = part else { break };
            root.push(std::ffi::OsStr::from_bytes(name));
        }
        root
    }

    fn parse(text: &str) -> Result<Components, GlobError> {
        let mut parts: Vec<Part> = Vec::new();
        for piece in pieces(text) {
            match piece {
                "" | "." => {}
                "**" if parts.last() == Some(&Part::Any) => {}
                "**" => parts.push(Part::Any),
                _ => parts.push(part(piece)?),
            }
        }
        Ok(Components {
            absolute: text.starts_with('/'),
            parts,
        })
    }
}

/// Cuts at `/`, which nothing escapes and no class contains.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split('/')
}

fn part(piece: &str) -> Result<Part, GlobError> {
    let mut steps = Vec::new();
    let mut chars = piece.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' if steps.last() == Some(&Step::Many) => {}
            '*' => steps.push(Step::Many),
            '?' => steps.push(Step::One),
            '[' => steps.push(class(&mut chars)?),
            '\\' => push(&mut steps, chars.next().ok_or(GlobError::Escape)?),
            c => push(&mut steps, c),
        }
    }
    let bytes = |s: &Step| {
        if let Step::Byte(b) = s {
            Some(*b)
        } else {
            None
        }
    };
    match steps.iter().map(bytes).collect::<Option<Vec<u8>>>() {
        Some(name) => Ok(Part::Name(name)),
        None => Ok(Part::Match(steps)),
    }
}

fn push(steps: &mut Vec<Step>, c: char) {
    steps.extend(c.encode_utf8(&mut [0; 4]).bytes().map(Step::Byte));
}

/// A class, behind its `[`. A `]` right at its start is a member.
fn class(chars: &mut std::str::Chars<'_>) -> Result<Step, GlobError> {
    let mut ranges = Vec::new();
    let negated = chars.as_str().starts_with(['!', '^']);
    if negated {
        chars.next();
    }
    let mut next = |first: bool| -> Result<Option<char>, GlobError> {
        match chars.next().ok_or(GlobError::OpenClass)? {
            ']' if !first => Ok(None),
            '\\' => chars.next().ok_or(GlobError::OpenClass).map(Some),
            c => Ok(Some(c)),
        }
    };
    let mut pending: Option<char> = None;
    while let Some(c) = next(ranges.is_empty() && pending.is_none())? {
        match (pending.take(), c) {
            (Some(from), '-') => match next(false)? {
                Some(to) if to < from => return Err(GlobError::Backwards),
                Some(to) => ranges.push((from, to)),
                // A minus right before the end is a member.
                None => {
                    ranges.extend([(from, from), ('-', '-')]);
                    return Ok(Step::Class { negated, ranges });
                }
            },
            (before, c) => {
                ranges.extend(before.map(|b| (b, b)));
                pending = Some(c);
            }
        }
    }
    ranges.extend(pending.map(|b| (b, b)));
    Ok(Step::Class { negated, ranges })
}

/// Replaces the first `{a,b}` by each of its alternatives, and goes on with what that gives.
fn expand(pattern: &str, out: &mut Vec<String>) -> Result<(), GlobError> {
    let Some((open, commas, close)) = braces(pattern)? else {
        if out.len() == ALTERNATIVES_MAX {
            return Err(GlobError::TooMany);
        }
        let bytes: usize = out.iter().map(String::len).sum();
        if bytes + pattern.len() > EXPANDED_BYTES_MAX {
            return Err(GlobError::TooLong);
        }
        out.push(pattern.to_owned());
        return Ok(());
    };
    let (before, after) = (&pattern[..open], &pattern[close + 1..]);
    let starts = std::iter::once(open).chain(commas.iter().copied());
    let ends = commas.iter().copied().chain(std::iter::once(close));
    for (start, end) in starts.zip(ends) {
        let mut one = String::with_capacity(pattern.len());
        one.push_str(before);
        one.push_str(&pattern[start + 1..end]);
        one.push_str(after);
        expand(&one, out)?;
    }
    Ok(())
}

/// The first brace outside of classes and escapes: where it opens, its commas, where it closes.
fn braces(pattern: &str) -> Result<Option<(usize, Vec<usize>, usize)>, GlobError> {
    let (mut open, mut commas, mut depth) = (0, Vec::new(), 0usize);
    let mut chars = pattern.char_indices();
    let mut class_from: Option<usize> = None;
    while let Some((at, c)) = chars.next() {
        match (c, class_from) {
            ('\\', _) => {
                chars.next();
            }
            // A bracket right at the start of a class does not close it.
            (']', Some(from)) if !matches!(&pattern[from + 1..at], "" | "!" | "^") => {
                class_from = None;
            }
            (_, Some(_)) => {}
            ('[', None) => class_from = Some(at),
            ('{', None) => {
                if depth == 0 {
                    open = at;
                }
                depth += 1;
            }
            (',', None) if depth == 1 => commas.push(at),
            ('}', None) if depth == 1 => return Ok(Some((open, commas, at))),
            ('}', None) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    if depth > 0 {
        Err(GlobError::OpenBrace)
    } else {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let glob = Glob::new(pattern).unwrap();
        for path in yes {
            assert!(glob.matches(Path::new(path)), "{pattern} must match {path}");
        }
        for path in no {
            assert!(
                !glob.matches(Path::new(path)),
                "{pattern} must not match {path}"
            );
        }
    }

    #[test]
    fn stars_and_marks_stay_within_a_component() {
        check(
            "*.log",
            &["a.log", ".log", ".a.log"],
            &["a.logx", "d/a.log", "/a.log"],
        );
        check(
            "/v/*/a?.log",
            &["/v/x/ab.log", "/v//x/./a\u{e4}.log"],
            &["/v/a1.log", "/v/x/y/a1.log"],
        );
        check("a*b*c", &["abc", "aXbYbZc", "abbc"], &["abcd", "acb"]);
        check("a**.log", &["a.log", "axx.log"], &["a/x.log"]);
    }

    #[test]
    fn two_stars_match_any_number_of_directories() {
        check(
            "/v/**/x.log",
            &["/v/x.log", "/v/a/x.log", "/v/a/b/x.log"],
            &["/x.log", "/v/x.log/y"],
        );
        check(
            "**/b/**/1.log",
            &["b/1.log", "a/b/c/1.log"],
            &["a/1.log", "ab/1.log"],
        );
        check("/v/**", &["/v", "/v/a", "/v/a/b"], &["/w/a"]);
        check("**/**/a/**/b", &["a/b", "x/y/a/a/z/b"], &["b"]);
    }

    #[test]
    fn classes_braces_and_escapes() {
        check("a[0-9].l", &["a0.l"], &["ax.l", "a.l"]);
        check("a[!0-9]", &["ax"], &["a0"]);
        check("a[^b-]", &["ax"], &["a-", "ab"]);
        check("[]a]", &["]", "a"], &["b"]);
        check("[\u{e0}-\u{e9}]x", &["\u{e4}x"], &["ax"]);
        check(
            "/p/{a,b/c}/*.{log,txt}",
            &["/p/a/1.log", "/p/b/c/2.txt"],
            &["/p/b/1.log", "/p/a/1.x"],
        );
        check(
            "{a,{b,c}d}{,e}",
            &["a", "ae", "bd", "cde"],
            &["b", "d", "e"],
        );
        check("a\\*\\{b[{,}]", &["a*{b,", "a*{b{"], &["ax{b,"]);
    }

    #[test]
    fn names_that_are_no_utf8_are_matched_by_bytes() {
        let path = std::ffi::OsStr::from_bytes(b"a\xff\xfe.log");
        assert!(Glob::new("a??.log").unwrap().matches(Path::new(path)));
        assert!(Glob::new("a[!x]*.log").unwrap().matches(Path::new(path)));
    }

    #[test]
    fn bad_patterns_are_refused() {
        let cases = [
            ("", GlobError::Empty),
            ("a[b", GlobError::OpenClass),
            ("a[", GlobError::OpenClass),
            ("{a,b", GlobError::OpenBrace),
            ("[b-a]", GlobError::Backwards),
            ("a\\", GlobError::Escape),
            (
                "{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}",
                GlobError::TooMany,
            ),
            ("a\0b", GlobError::Impossible),
        ];
        for (pattern, want) in cases {
            assert_eq!(Glob::new(pattern).err(), Some(want), "{pattern}");
        }
        let long = "{a,b}".repeat(10) + &"x".repeat(300) + "*";
        assert_eq!(Glob::new(&long).err(), Some(GlobError::TooLong));
        assert!(Glob::new(&long[..150]).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn property_no_pattern_panics(
            pattern in "[a*?{},\\[\\]!^\\\\/-]{0,24}", path in "[a/-]{0,12}",
        ) {
            if let Ok(glob) = Glob::new(&pattern) {
                glob.matches(Path::new(&path));
            }
        }
    }
}
