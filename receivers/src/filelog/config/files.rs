//! `files`: files that are named one by one, each with a resource of its own (our own option).
//!
//! It is for whoever knows what writes a file, as a control plane does of containers: what belongs to one
//! file then needs no receiver of its own, and no pattern that would have to find it again in the path.

use std::collections::HashSet;
use std::path::PathBuf;

use tailwater_config::Section;

use super::super::glob::Glob;

/// One file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedFile {
    /// Its path; absolute, and no pattern.
    pub path: PathBuf,
    /// Attributes of the resource of its records, over those of `resource`; texts as they are.
    pub resource: Vec<(String, String)>,
}

/// Decodes the list; none if the option is not there. With each file the pattern that selects just it.
pub(super) fn decode(s: &mut Section<'_, '_>) -> Option<Vec<(NamedFile, Glob)>> {
    let mut known = HashSet::new();
    let files = s.section_list("files", |s| {
        let resource = s.string_map("resource").unwrap_or_default();
        let path = s.string_required("path")?;
        if !path.starts_with('/') {
            s.invalid("path", format!("{path:?} is not absolute"));
            return None;
        }
        if !known.insert(path.clone()) {
            s.invalid("path", format!("{path:?} is named twice"));
            return None;
        }
        match Glob::new(&literal(&path)) {
            Ok(glob) => {
                let path = PathBuf::from(path);
                Some((NamedFile { path, resource }, glob))
            }
            Err(e) => {
                s.invalid("path", format!("{path:?} cannot be a path: {e}"));
                None
            }
        }
    })?;
    Some(files.into_iter().flatten().collect())
}

/// The pattern that matches this text alone.
fn literal(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | ',' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Guarantee: a path is matched by its pattern, and nothing else is, whatever is in it.
    #[test]
    fn a_pattern_of_a_path_matches_it_alone() {
        for path in [
            "/var/log/a.log",
            "/a*b?c/[x].log",
            "/{a,b}/c",
            "/a\\b/c",
            "/a!b/^c-d",
            "/ä ö/ß",
        ] {
            let glob = Glob::new(&literal(path)).unwrap();
            assert!(glob.matches(Path::new(path)), "{path}");
            assert_eq!(glob.alternatives().len(), 1, "{path}");
        }
        let star = Glob::new(&literal("/a*/b")).unwrap();
        assert!(!star.matches(Path::new("/ax/b")));
        let braces = Glob::new(&literal("/{a,b}")).unwrap();
        assert!(!braces.matches(Path::new("/a")));
    }
}
