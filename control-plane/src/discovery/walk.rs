//! Which files a pattern matches now, and which directories say so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// Deepest nesting that `**` follows.
const DEPTH_MAX: usize = 64;
/// Most files that are sources.
const FILES_MAX: usize = 100_000;

/// A pattern of absolute paths: `*`, `?`, `[...]`, `{a,b}`, and `**` for any directories.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    matcher: GlobMatcher,
    /// The deepest directory that all matches are below.
    root: PathBuf,
    /// How far below it they are; none = any.
    depth: Option<usize>,
}

/// True if there is something in a path that makes it a pattern.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

impl Pattern {
    /// Compiles it.
    ///
    /// # Errors
    /// It is none, or not absolute; the text says so.
    pub fn new(text: &str) -> Result<Pattern, String> {
        if !text.starts_with('/') {
            return Err(format!("{text:?} is not absolute"));
        }
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        let matcher = glob.map_err(|e| e.to_string())?.compile_matcher();
        let names: Vec<&str> = text.split('/').filter(|n| !n.is_empty()).collect();
        let plain = names.iter().take_while(|n| !is_pattern(n)).count();
        let plain = plain.min(names.len().saturating_sub(1));
        // A brace may hold a slash: then any depth is possible.
        let is_deep = text.contains("**") || text.contains('{');
        let root = names[..plain]
            .iter()
            .fold(PathBuf::from("/"), |p, n| p.join(n));
        Ok(Pattern {
            text: text.to_owned(),
            matcher,
            root,
            depth: (!is_deep).then_some(names.len() - plain),
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The directory below which it may match.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// Which file is at a path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Identity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Regular files that match, by path.
    pub files: BTreeMap<PathBuf, Identity>,
    /// Directories in which a new name may change this.
    pub dirs: BTreeSet<PathBuf>,
    /// There were more than are taken.
    pub too_many: bool,
}

/// Looks for what patterns match. What cannot be looked at is not found.
pub fn find(patterns: &[Pattern]) -> Found {
    let mut found = Found::default();
    for pattern in patterns {
        match pattern.root.is_dir() {
            true => {
                let depth = pattern.depth.unwrap_or(DEPTH_MAX);
                descend(pattern, &pattern.root, depth, &mut found);
            }
            // Until it is made, the directory that is there says so.
            false => {
                let there = pattern.root.ancestors().find(|dir| dir.is_dir());
                found.dirs.extend(there.map(Path::to_path_buf));
            }
        }
    }
    found
}

fn descend(pattern: &Pattern, dir: &Path, depth: usize, found: &mut Found) {
    found.dirs.insert(dir.to_path_buf());
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        let Ok(kind) = kind else { continue };
        // Links to directories are not followed: a loop of them would never end.
        if kind.is_dir() {
            if depth > 1 && path.components().all(|c| c != Component::ParentDir) {
                descend(pattern, &path, depth - 1, found);
            }
        } else if pattern.matcher.is_match(&path)
            && let Ok(meta) = fs::metadata(&path)
            && meta.is_file()
        {
            if found.files.len() >= FILES_MAX {
                found.too_many = true;
                return;
            }
            let identity = Identity {
                device: meta.dev(),
                inode: meta.ino(),
            };
            found.files.insert(path, identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: just what a pattern says is found, at its depth, and the directories that can change that
    /// are known, those that do not exist yet by one above them.
    #[test]
    fn patterns_find_what_they_say() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        for name in ["x.log", "a/y.log", "a/b/z.log", "a/b/c/w.log", "a/n.txt"] {
            fs::write(root.join(name), "").unwrap();
        }
        let names = |text: &str| {
            let pattern = Pattern::new(&format!("{}/{text}", root.display())).unwrap();
            let found = find(&[pattern]);
            let name = |p: &PathBuf| p.strip_prefix(&root).unwrap().display().to_string();
            let files: Vec<_> = found.files.keys().map(name).collect();
            let dirs: Vec<_> = found.dirs.iter().map(name).collect();
            (files.join(" "), dirs.join(" "))
        };
        assert_eq!(names("*.log"), ("x.log".into(), "".into()));
        assert_eq!(names("a/*.log"), ("a/y.log".into(), "a".into()));
        assert_eq!(names("*/b/*.log").0, "a/b/z.log");
        assert_eq!(names("**/*.log").0, "a/b/c/w.log a/b/z.log a/y.log x.log");
        assert_eq!(names("a/{b/z,y}.log").0, "a/b/z.log a/y.log");
        assert_eq!(names("later/still/*.log"), ("".into(), "".into()));
        assert!(Pattern::new("a/*.log").is_err());
        assert!(Pattern::new("/a/[").is_err());
    }
}
