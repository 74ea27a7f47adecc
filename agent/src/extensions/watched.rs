//! Texts in files that are replaced while the agent runs: passwords, tokens.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tailwater_pipeline::pem::FileMark;

/// Largest file that is read.
const BYTES_MAX: u64 = 1 << 20;

/// What is made of a file's text, made anew when the file changes.
pub struct Watched<T> {
    path: PathBuf,
    make: fn(&str) -> Result<T, String>,
    last: Mutex<(Option<FileMark>, Arc<T>)>,
}

impl<T> Watched<T> {
    /// Reads the file for the first time.
    pub fn read(path: &Path, make: fn(&str) -> Result<T, String>) -> Result<Watched<T>, String> {
        let mark = FileMark::of(path);
        let made = text_of(path).and_then(|text| make(&text));
        let made = made.map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Watched {
            path: path.to_owned(),
            make,
            last: Mutex::new((mark, Arc::new(made))),
        })
    }

    /// What the file says now, or the last good version while it cannot be used: files are often
    /// replaced in more than one step.
    pub fn get(&self) -> Arc<T> {
        let mut last = self.last.lock().unwrap_or_else(|e| e.into_inner());
        let mark = FileMark::of(&self.path);
        if mark.is_none() || mark == last.0 {
            return last.1.clone();
        }
        // Looked at once per version, be it good or not.
        last.0 = mark;
        match text_of(&self.path).and_then(|text| (self.make)(&text)) {
            Ok(made) => last.1 = Arc::new(made),
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, error, "a changed file of secrets cannot be used; the version before it counts");
            }
        }
        last.1.clone()
    }
}

fn text_of(path: &Path) -> Result<String, String> {
    let bytes = fs::metadata(path).map_err(|e| e.to_string())?.len();
    if bytes > BYTES_MAX {
        return Err(format!("{bytes} bytes are too much for a file of secrets"));
    }
    fs::read_to_string(path).map_err(|e| e.to_string())
}

/// A text of one line; line ends at its end do not count.
pub fn one_line(text: &str) -> Result<String, String> {
    let line = text.trim_end_matches(['\n', '\r']);
    match line.is_empty() {
        true => Err("it is empty".to_owned()),
        false => Ok(line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_testkit::tempdir::TempDir;

    #[test]
    fn a_new_version_counts_and_a_bad_one_does_not() {
        let dir = TempDir::new("watched").unwrap();
        let path = dir.path().join("secret");
        assert!(Watched::read(&path, one_line).is_err());
        fs::write(&path, "one\n").unwrap();
        let watched = Watched::read(&path, one_line).unwrap();
        assert_eq!(*watched.get(), "one");
        for (content, want) in [("", "one"), ("second\r\n", "second")] {
            let new = dir.path().join("new");
            fs::write(&new, content).unwrap();
            fs::rename(&new, &path).unwrap();
            assert_eq!(*watched.get(), want);
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(*watched.get(), "second");
    }
}
