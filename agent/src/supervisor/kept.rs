//! The generations that can be gone back to, in the state directory.
//!
//! A file for each, `generations/NUMBER`: a line with the version of the format and the SHA-256 of what
//! follows, then JSON with what was offered, as it was read (variables by name, so secrets are where they
//! were), and what is shown of it. A file is written whole or not at all and has one owner who may read it.
//! What is damaged, or of a later version, is left out with a line in the log; its number is not used again.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Generation;
use crate::admin::shown::Record;
use crate::offer::{Offer, keep};

/// Generations that can be gone back to.
pub const GENERATIONS_KEPT: usize = 16;
/// What each file begins with.
const MAGIC: &str = "tailwater-generation 1 ";
/// A file that is larger is not ours: a configuration has far less.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Where generations are kept.
#[derive(Clone, Debug)]
pub struct Kept {
    dir: PathBuf,
}

/// What was found.
#[derive(Default)]
pub struct Found {
    /// Those that can be gone back to, the newest one last.
    pub generations: Vec<Generation>,
    /// The highest number that was ever in force; 0 if there is none.
    pub highest: u64,
    /// What could not be used, and why.
    pub skipped: Vec<String>,
}

impl Kept {
    /// In the state directory `state`.
    pub fn below(state: &Path) -> Kept {
        Kept {
            dir: state.join("generations"),
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(number.to_string())
    }

    /// The numbers of the files that there are, in order, and names of what a kill left half written.
    fn list(&self) -> io::Result<(Vec<u64>, Vec<PathBuf>)> {
        let (mut numbers, mut left) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((numbers, left)),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            match name.parse() {
                Ok(number) if name == u64::to_string(&number) => numbers.push(number),
                _ if name.ends_with(".new") => left.push(self.dir.join(name)),
                _ => {}
            }
        }
        numbers.sort_unstable();
        Ok((numbers, left))
    }

    /// Reads what is kept.
    pub fn load(&self) -> Found {
        let mut found = Found::default();
        let numbers = match self.list() {
            Ok((numbers, _)) => numbers,
            Err(error) => {
                let text = format!("{}: {error}", self.dir.display());
                found.skipped.push(text);
                return found;
            }
        };
        found.highest = numbers.last().copied().unwrap_or(0);
        let newest = numbers.len().saturating_sub(GENERATIONS_KEPT);
        for number in &numbers[newest..] {
            let path = self.path(*number);
            match read(&path, *number) {
                Ok(generation) => found.generations.push(generation),
                Err(why) => found.skipped.push(format!("{}: {why}", path.display())),
            }
        }
        found
    }

    /// Keeps one, and lets go of those that are older than the last [`GENERATIONS_KEPT`].
    ///
    /// # Errors
    /// What the system says.
    pub fn save(&self, generation: &Generation) -> io::Result<()> {
        let record = &generation.record;
        let body = json!({
            "number": record.number,
            "unix_ns": record.unix_ns,
            "by": record.by,
            "changes": record.changes,
            "config": &*record.config,
            "offer": generation.offer.to_json(),
        })
        .to_string();
        let text = format!("{MAGIC}{}\n{body}", digest(body.as_bytes()));
        keep(&self.path(record.number), text.as_bytes())?;
        let (numbers, left) = self.list()?;
        let old = numbers.len().saturating_sub(GENERATIONS_KEPT);
        let old = numbers[..old].iter().map(|n| self.path(*n));
        for path in old.chain(left) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// # Errors
/// Why it cannot be used.
fn read(path: &Path, number: u64) -> Result<Generation, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|e| e.to_string())?;
    let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|e| e.to_string())?;
    let (head, body) = text.split_once('\n').ok_or("it is cut off")?;
    let sum = head.strip_prefix(MAGIC).ok_or_else(|| {
        let head: String = head.chars().take(40).collect();
        format!("it begins with {head:?}, not with {MAGIC:?}")
    })?;
    if sum != digest(body.as_bytes()) {
        return Err("it is damaged or cut off".to_owned());
    }
    let value: Value = serde_json::from_str(body).map_err(|e| e.to_string())?;
    let generation = generation(&value).ok_or("something is missing in it")?;
    match generation.record.number == number {
        true => Ok(generation),
        false => Err(format!("it is of generation {}", generation.record.number)),
    }
}

fn generation(value: &Value) -> Option<Generation> {
    let changes = value.get("changes")?.as_array()?.iter();
    let changes = changes.map(|c| c.as_str().map(str::to_owned));
    Some(Generation {
        offer: Offer::from_json(value.get("offer")?)?,
        record: Record {
            number: value.get("number")?.as_u64()?,
            unix_ns: value.get("unix_ns")?.as_i64()?,
            by: value.get("by")?.as_str()?.to_owned().into(),
            changes: changes.collect::<Option<_>>()?,
            config: value.get("config")?.as_str()?.into(),
        },
    })
}

impl Generation {
    /// Whether it is what `offer` offers, and shows the same.
    pub fn is(&self, offer: &Offer, config: &str) -> bool {
        // Gates do nothing and are not kept.
        let same = |a: &Offer, b: &Offer| a.to_json() == b.to_json();
        same(&self.offer, offer) && *self.record.config == *config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tailwater_config::Source;
    use tailwater_testkit::tempdir::TempDir;

    fn generation(number: u64) -> Generation {
        Generation {
            offer: Offer {
                sources: vec![Source::Yaml(format!(
                    "a: {number}\npassword: ${{env:SECRET}}"
                ))],
                sets: vec!["b=1".into()],
                files: Some([("/etc/a.yaml".into(), b"c: d".to_vec())].into()),
                ..Offer::default()
            },
            record: Record {
                number,
                unix_ns: 5,
                by: "SIGHUP".into(),
                changes: vec!["add x".into()],
                config: "a: 1\npassword: '[REDACTED]'".into(),
            },
        }
    }

    fn numbers(found: &Found) -> Vec<u64> {
        found.generations.iter().map(|g| g.record.number).collect()
    }

    /// Guarantee: what was kept comes back as it was, the newest ones, in order, for its owner alone.
    #[test]
    fn what_is_kept_comes_back_within_bounds() {
        let dir = TempDir::new("kept").unwrap();
        let kept = Kept::below(dir.path());
        assert_eq!(kept.load().highest, 0);
        for number in 1..=20 {
            kept.save(&generation(number)).unwrap();
        }
        let found = kept.load();
        assert_eq!(numbers(&found), (5..=20).collect::<Vec<_>>());
        assert_eq!((found.highest, found.skipped.len()), (20, 0));
        assert_eq!(found.generations[15].offer, generation(20).offer);
        assert_eq!(found.generations[15].record, generation(20).record);
        assert!(found.generations[15].is(&generation(20).offer, &generation(20).record.config));
        assert!(!found.generations[15].is(&generation(19).offer, &generation(20).record.config));
        let path = dir.join("generations/20");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&path), mode(&dir.join("generations"))),
            (0o600, 0o700)
        );
        assert!(!fs::read_to_string(path).unwrap().contains("hunter2"));
        assert_eq!(fs::read_dir(dir.join("generations")).unwrap().count(), 16);
    }

    /// Guarantee: a file cut off at any byte, or with any byte changed, is left out and said once; others
    /// are used, and its number is not used again.
    #[test]
    fn what_is_damaged_is_left_out() {
        let dir = TempDir::new("kept-damaged").unwrap();
        let kept = Kept::below(dir.path());
        (1..=3).for_each(|n| kept.save(&generation(n)).unwrap());
        let path = dir.join("generations/3");
        let good = fs::read(&path).unwrap();
        let check = |bytes: &[u8], what: &str| {
            fs::write(&path, bytes).unwrap();
            let found = kept.load();
            assert_eq!((numbers(&found), found.highest), (vec![1, 2], 3), "{what}");
            assert_eq!(found.skipped.len(), 1, "{what}");
            assert!(found.skipped[0].contains("generations/3: "), "{what}");
        };
        for at in 0..good.len() {
            check(&good[..at], &format!("cut at {at}"));
            let mut other = good.clone();
            other[at] ^= 1;
            check(&other, &format!("changed at {at}"));
        }
        let other = fs::read(dir.join("generations/2")).unwrap();
        check(&other, "another one");
        fs::write(dir.join("generations/4.new"), "half").unwrap();
        fs::write(dir.join("generations/04"), "no number of ours").unwrap();
        assert_eq!(kept.load().highest, 3);
        kept.save(&generation(4)).unwrap();
        assert!(!dir.join("generations/4.new").exists());
        assert_eq!(numbers(&kept.load()), [1, 2, 4]);
    }
}
