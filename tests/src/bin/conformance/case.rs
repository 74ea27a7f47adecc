//! One case, its verdict, and the sums.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

/// A vector.
pub struct Case {
    /// Its name.
    pub id: String,
    /// The form of its config, input and expectation.
    pub kind: String,
    /// All of it.
    pub json: Json,
}

/// What became of a case.
pub enum Verdict {
    /// As expected.
    Passed,
    /// Not as expected, and how.
    Failed(String),
    /// Not run, and what it needs.
    NotRun(String),
}

impl From<Result<(), String>> for Verdict {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Verdict::Failed, |()| Verdict::Passed)
    }
}

/// A vector, or the file that is none and why.
type Loaded = Result<Case, (String, String)>;

/// All vectors below a folder, sorted by path. Files without a kind (an index) are left out.
pub fn load(folder: &Path) -> Vec<Loaded> {
    let mut paths = Vec::new();
    collect(folder, &mut paths);
    paths.sort();
    let parse = |path: &PathBuf| -> Result<Option<Case>, String> {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        let json: Json = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let text = |key: &str| json[key].as_str().map(str::to_owned);
        let Some(kind) = text("kind") else {
            return Ok(None);
        };
        let id = text("id").ok_or("a vector without an id")?;
        Ok(Some(Case { id, kind, json }))
    };
    let load = |path: &PathBuf| match parse(path) {
        Ok(case) => case.map(Ok),
        Err(why) => Some(Err((path.display().to_string(), why))),
    };
    paths.iter().filter_map(load).collect()
}

fn collect(folder: &Path, out: &mut Vec<PathBuf>) {
    for item in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = item.path();
        if path.is_dir() {
            collect(&path, out);
        } else if path.extension().is_some_and(|e| e == "json") {
            out.push(path);
        }
    }
}

/// Runs a case; a panic is a failure like any other.
pub fn guarded(run: impl FnOnce() -> Verdict) -> Verdict {
    // The case is not looked at again, so nothing half-changed is seen.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        Verdict::Failed(format!("panicked: {}", panic_text(panic.as_ref())))
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

/// The sums.
#[derive(Default)]
pub struct Tally {
    passed: u32,
    failed: u32,
    not_run: u32,
}

impl Tally {
    /// Counts a verdict and prints its row.
    pub fn add(&mut self, id: &str, verdict: &Verdict) {
        let (count, word, why) = match verdict {
            Verdict::Passed => (&mut self.passed, "passed", ""),
            Verdict::Failed(why) => (&mut self.failed, "FAILED", why.as_str()),
            Verdict::NotRun(why) => (&mut self.not_run, "not run", why.as_str()),
        };
        *count += 1;
        println!(
            "{word:<8} {id}{}{why}",
            if why.is_empty() { "" } else { ": " }
        );
    }

    /// Whether a case failed.
    pub fn has_failures(&self) -> bool {
        self.failed > 0
    }

    /// Whether there was no case at all.
    pub fn is_empty(&self) -> bool {
        self.passed + self.failed + self.not_run == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} not run",
            self.passed, self.failed, self.not_run
        )
    }
}
