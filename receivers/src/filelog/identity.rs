//! Is this the file we knew? Pure decisions over evidence.
//!
//! Identity is device + inode + birth time, confirmed by content: a hash of the first bytes and a
//! hash of the bytes just before the position that was reached. Content alone never makes two
//! files one while the first still exists: equal headers are common.

use std::collections::HashMap;

use super::hash::stable_hash;
use super::logfs::FileId;

/// How many bytes before a position are hashed to recognise it again: enough for the time that a
/// usual line begins with to be among them.
pub const TRAIL_BYTES: usize = 256;

/// A hash of the first `len` bytes of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// Number of bytes, at most the receiver's `fingerprint_size`.
    pub len: u32,
    /// [`stable_hash`] of them.
    pub hash: u64,
}

impl Head {
    /// The head of a file that begins with `bytes`.
    pub fn of(bytes: &[u8]) -> Head {
        Head {
            len: bytes.len() as u32,
            hash: stable_hash(bytes),
        }
    }

    /// True if a file that begins with `bytes` begins with this head.
    pub fn starts(&self, bytes: &[u8]) -> bool {
        let head = bytes.get(..self.len as usize);
        self.len == 0 || head.is_some_and(|b| stable_hash(b) == self.hash)
    }
}

/// The first bytes of a file, which are compared with the heads of many. Each length is hashed once.
pub struct Heads<'a> {
    bytes: &'a [u8],
    hashes: HashMap<u32, u64>,
}

impl<'a> Heads<'a> {
    /// Those of a file that begins with `bytes`.
    pub fn new(bytes: &'a [u8]) -> Heads<'a> {
        let hashes = HashMap::new();
        Heads { bytes, hashes }
    }

    /// As [`Head::starts`].
    pub fn begin_with(&mut self, head: &Head) -> bool {
        let Some(bytes) = self.bytes.get(..head.len as usize) else {
            return head.len == 0;
        };
        let hash = self.hashes.entry(head.len);
        head.len == 0 || *hash.or_insert_with(|| stable_hash(bytes)) == head.hash
    }

    /// True if the bytes are enough to tell that they are not those of `head`.
    pub fn differ_from(&mut self, head: &Head) -> bool {
        head.len as usize <= self.bytes.len() && !self.begin_with(head)
    }
}

/// A hash of the last bytes before a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trail {
    /// Number of bytes, at most [`TRAIL_BYTES`]; 0 = nothing was read yet.
    pub len: u16,
    /// [`stable_hash`] of them.
    pub hash: u64,
}

impl Trail {
    /// The trail of a position that `bytes` end at.
    pub fn of(bytes: &[u8]) -> Trail {
        let bytes = &bytes[bytes.len().saturating_sub(TRAIL_BYTES)..];
        Trail {
            len: bytes.len() as u16,
            hash: stable_hash(bytes),
        }
    }
}

/// What is remembered of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// The kernel's identity when it was last seen.
    pub id: FileId,
    /// Its first bytes.
    pub head: Head,
    /// The position that was reached.
    pub offset: u64,
    /// The bytes before that position.
    pub trail: Trail,
}

/// What is found now.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The kernel's identity.
    pub id: FileId,
    /// Size in bytes (of the content: decompressed for gzip, if known).
    pub size: u64,
    /// Its first bytes, up to the fingerprint's size.
    pub head: &'a [u8],
}

/// The answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The same file with the same content: go on at the known offset.
    Same,
    /// The same file, cut below the known offset, beginning as before: `on_truncate` decides.
    Shrunk,
    /// The same inode with other content (copytruncate, or truncated and grown again): a new
    /// generation, read from its start.
    Rewritten,
    /// Another file.
    Other,
}

/// Compares a known file with what is found under its inode. `trail` hashes the given number of
/// bytes before an offset of the found file; `None` if they cannot be read.
pub fn judge(
    known: &Known,
    found: &Found<'_>,
    trail: impl FnOnce(u64, u16) -> Option<u64>,
) -> Verdict {
    let (a, b) = (known.id, found.id);
    if (a.dev, a.ino) != (b.dev, b.ino) {
        return Verdict::Other;
    }
    if a.birth_ns != 0 && b.birth_ns != 0 && a.birth_ns != b.birth_ns {
        return Verdict::Other;
    }
    if found.size < known.offset {
        let shorter = (found.head.len() as u32) < known.head.len;
        // Less than the head is left: whether it begins as before cannot be told from the hash.
        let begins_alike = !shorter && known.head.starts(found.head);
        return if begins_alike {
            Verdict::Shrunk
        } else {
            Verdict::Rewritten
        };
    }
    if !known.head.starts(found.head) {
        return Verdict::Rewritten;
    }
    if known.trail.len == 0 {
        return Verdict::Same;
    }
    match trail(known.offset, known.trail.len) {
        Some(hash) if hash == known.trail.hash => Verdict::Same,
        Some(_) => Verdict::Rewritten,
        // Unreadable just now says nothing about the content.
        None => Verdict::Same,
    }
}

/// How sure it is that a file holds the content that a position was reached in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Likeness {
    /// It does not, or nothing says so.
    None,
    /// It begins alike; nothing was read that could tell more.
    Begins,
    /// What was read is there, up to the position.
    Holds,
}

/// Whether `found`, under another inode, holds the content that `known` was read from: a copy made
/// by copytruncate, a file moved between file systems, or (decompressed) a compressed sibling.
/// The caller makes sure that the original no longer holds it and that the names are related.
pub fn likeness(
    known: &Known,
    found: &Found<'_>,
    trail: impl FnOnce(u64, u16) -> Option<u64>,
) -> Likeness {
    if known.head.len == 0 || !known.head.starts(found.head) || found.size < known.offset {
        return Likeness::None;
    }
    if known.trail.len == 0 {
        return Likeness::Begins;
    }
    match trail(known.offset, known.trail.len) {
        Some(hash) if hash != known.trail.hash => Likeness::None,
        None => Likeness::None,
        Some(_) => Likeness::Holds,
    }
}

/// True if `name` looks like what rotation makes of a file called `base`: `app.log` becomes
/// `app.log.1`, `app.log-20240101`, `app.log.2.gz`, `0.log.20240102-150405`, `app-2024.log`,
/// `app.1.log`.
pub fn is_rotated_name(base: &str, name: &str) -> bool {
    if name == base || base.is_empty() {
        return false;
    }
    // A name that ends in .tmp is compression at work; its outcome is looked at.
    let name = name.strip_suffix(".gz").unwrap_or(name);
    if name == base {
        return true;
    }
    let is_mark = |c: char| c.is_ascii_digit() || ".-_:TZ".contains(c);
    let is_number = |s: &str| {
        let mut rest = s.chars();
        rest.next().is_some_and(|c| ".-_".contains(c)) && s.len() > 1 && rest.all(is_mark)
    };
    if let Some(rest) = name.strip_prefix(base) {
        return is_number(rest) || matches!(rest, ".old" | ".bak" | ".prev" | "~");
    }
    let Some((stem, extension)) = base.rsplit_once('.') else {
        return false;
    };
    let middle = name
        .strip_prefix(stem)
        .and_then(|r| r.strip_suffix(extension));
    middle
        .and_then(|m| m.strip_suffix('.'))
        .is_some_and(is_number)
}

/// Names that `name` could be a rotated form of, by [`is_rotated_name`]; few, whatever is there.
pub fn rotated_from(name: &str) -> Vec<String> {
    let bare = name.strip_suffix(".gz").unwrap_or(name);
    let extension = bare.rsplit_once('.').map(|(_, e)| e);
    let mut bases = Vec::new();
    for (i, _) in name.match_indices(['.', '-', '_', '~']) {
        let prefix = &name[..i];
        bases.push(prefix.to_owned());
        if let Some(extension) = extension {
            bases.push(format!("{prefix}.{extension}"));
        }
    }
    bases.retain(|base| is_rotated_name(base, name));
    bases.dedup();
    bases
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ino: u64, birth_ns: i64) -> FileId {
        FileId {
            dev: 1,
            ino,
            birth_ns,
        }
    }

    fn known(content: &[u8], offset: usize, id: FileId) -> Known {
        Known {
            id,
            head: Head::of(&content[..content.len().min(16).min(offset.max(1))]),
            offset: offset as u64,
            trail: Trail::of(&content[..offset]),
        }
    }

    fn look(known: &Known, content: &[u8], id: FileId) -> Verdict {
        let head = &content[..content.len().min(16)];
        let found = Found {
            id,
            size: content.len() as u64,
            head,
        };
        judge(known, &found, |offset, len| {
            let end = offset as usize;
            content.get(end - len as usize..end).map(stable_hash)
        })
    }

    #[test]
    fn each_fate_of_a_file_is_told_apart() {
        let old = b"first line\nsecond line\nthird line\n";
        let k = known(old, 23, id(7, 100));
        let grown = [&old[..], b"more\n"].concat();
        let regrown = b"other head\nxecond line\nthird line\nand more\n";
        let same_head = b"first line\nanother text of this length\n";
        for (content, id, want, why) in [
            (&grown[..], id(7, 100), Verdict::Same, "grown"),
            (&old[..], id(7, 0), Verdict::Same, "birth time not known"),
            (&old[..], id(8, 100), Verdict::Other, "another inode"),
            (&old[..], id(7, 101), Verdict::Other, "inode reused"),
            (&old[..20], id(7, 100), Verdict::Shrunk, "cut, begins alike"),
            (b"", id(7, 100), Verdict::Rewritten, "copytruncate"),
            (
                b"new\n",
                id(7, 100),
                Verdict::Rewritten,
                "truncated, little new content",
            ),
            (
                &regrown[..],
                id(7, 100),
                Verdict::Rewritten,
                "regrown with another head",
            ),
            (
                &same_head[..],
                id(7, 100),
                Verdict::Rewritten,
                "regrown with an equal head",
            ),
        ] {
            assert_eq!(look(&k, content, id), want, "{why}");
        }
    }

    #[test]
    fn a_copy_needs_the_whole_evidence() {
        let line = format!("{}\n", "a line that is long enough to tell. ".repeat(40));
        let old = format!("{line}second {line}");
        let known_at = |offset: usize| known(old.as_bytes(), offset, id(7, 1));
        let copy = |k: &Known, c: &str| {
            let c = c.as_bytes();
            let found = Found {
                id: id(9, 2),
                size: c.len() as u64,
                head: &c[..c.len().min(16)],
            };
            likeness(k, &found, |o, l| {
                c.get(o as usize - l as usize..o as usize).map(stable_hash)
            })
        };
        let k = known_at(line.len());
        assert_eq!(copy(&k, &old), Likeness::Holds);
        assert_eq!(copy(&k, &format!("{line}other rest\n")), Likeness::Holds);
        assert_eq!(
            copy(&k, &line[..20]),
            Likeness::None,
            "shorter than what was read"
        );
        assert_eq!(
            copy(&k, &format!("B{}", &old[1..])),
            Likeness::None,
            "begins differently"
        );
        let other_end = format!("{}X\nmore", &line[..line.len() - 2]);
        assert_eq!(
            copy(&k, &other_end),
            Likeness::None,
            "differs before the position"
        );
        // Nothing read yet: only the first bytes can speak.
        assert_eq!(copy(&known_at(0), &old), Likeness::Begins);
        assert_eq!(copy(&known_at(11), &old), Likeness::Holds);
        let headless = Known {
            head: Head::default(),
            ..known_at(0)
        };
        assert_eq!(copy(&headless, &old), Likeness::None);
    }

    #[test]
    fn names_of_rotated_files_are_recognised() {
        for name in [
            "app.log.1",
            "app.log.12.gz",
            "app.log-20240101",
            "app.log.2024-01-02T03:04:05Z",
            "app.log.gz",
            "app-2024-01-02.log",
            "app.1.log",
            "app.log.old",
            "app-20240101.log.gz",
        ] {
            assert!(is_rotated_name("app.log", name), "{name}");
        }
        assert!(is_rotated_name("0.log", "0.log.20240102-150405"));
        assert!(is_rotated_name("messages", "messages-20240101"));
        for name in [
            "app.log",
            "app.logger",
            "app2.log",
            "apple.log",
            "app.log.d",
            "b.log.1",
        ] {
            assert!(!is_rotated_name("app.log", name), "{name}");
        }
    }
}
