//! A configuration that is offered: where it comes from, and what was read there.
//!
//! What was read is kept, so that a generation can be put into force again although its files have
//! changed since. Values of variables are not kept: they may be secrets.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tailwater_config::{Environment, ProcessEnvironment, Source};

use crate::layer::Layer;
use crate::watch::{Seen, look_at};

/// Files that were read, by name.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offer {
    /// Laid over each other in this order.
    pub sources: Vec<Source>,
    /// `--set`.
    pub sets: Vec<String>,
    /// `--feature-gates`.
    pub gates: Vec<String>,
    /// What a control plane lays over the sources.
    pub layer: Option<Arc<Layer>>,
    /// What was read of them, if they are not to be read again.
    pub files: Option<Files>,
}

impl Offer {
    /// What a whole configuration as text, with the `--set` of the command line over it, offers.
    pub fn text(&self, yaml: &str) -> Offer {
        self.of(vec![Source::Yaml(yaml.to_owned())])
    }

    /// What these offer, with the `--set` of the command line over them.
    pub fn of(&self, sources: Vec<Source>) -> Offer {
        Offer {
            sources,
            sets: self.sets.clone(),
            ..Offer::default()
        }
    }

    /// The same with this over it, or with nothing.
    pub fn with_layer(&self, layer: Option<Arc<Layer>>) -> Offer {
        Offer {
            layer,
            ..self.clone()
        }
    }

    /// The same as it was read.
    pub fn as_read(&self, files: Files) -> Offer {
        Offer {
            files: Some(files),
            ..self.clone()
        }
    }

    /// Keeps it in a file that only its owner may read, whole or not at all.
    ///
    /// # Errors
    /// What the system says.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        keep(path, self.to_json().to_string().as_bytes())
    }

    /// Everything but `--feature-gates`, for a file. Variables are there by name.
    pub fn to_json(&self) -> Value {
        let source = |s: &Source| match s {
            Source::File(path) => json!({"file": path.to_string_lossy()}),
            Source::Variable(name) => json!({"env": name}),
            Source::Yaml(text) | Source::Named { text, .. } => json!({"yaml": text}),
        };
        let file = |(path, bytes): (&PathBuf, &Vec<u8>)| {
            json!([path.to_string_lossy(), String::from_utf8_lossy(bytes)])
        };
        json!({
            "sources": self.sources.iter().map(source).collect::<Vec<_>>(),
            "sets": self.sets,
            "layer": self.layer.as_ref().map(|l| l.to_json()),
            "files": self.files.iter().flatten().map(file).collect::<Vec<_>>(),
        })
    }

    /// Reads what was saved. None if there is nothing, or nothing that can be read.
    pub fn saved(path: &Path) -> Option<Offer> {
        Offer::from_json(&serde_json::from_slice(&fs::read(path).ok()?).ok()?)
    }

    /// What [`Offer::to_json`] gave. None if it is something else.
    pub fn from_json(value: &Value) -> Option<Offer> {
        let text = |v: &Value| v.as_str().map(str::to_owned);
        let source = |v: &Value| {
            let (kind, text) = v.as_object()?.iter().next()?;
            let text = text.as_str()?.to_owned();
            match &**kind {
                "file" => Some(Source::File(text.into())),
                "env" => Some(Source::Variable(text)),
                _ => Some(Source::Yaml(text)),
            }
        };
        let file = |v: &Value| {
            let (path, content) = (text(v.get(0)?)?, text(v.get(1)?)?);
            Some((PathBuf::from(path), content.into_bytes()))
        };
        let list = |key: &str| value.get(key).and_then(Value::as_array);
        Some(Offer {
            sources: list("sources")?.iter().map(source).collect::<Option<_>>()?,
            sets: list("sets")?.iter().map(text).collect::<Option<_>>()?,
            gates: Vec::new(),
            layer: value.get("layer").and_then(Layer::from_json).map(Arc::new),
            files: Some(list("files")?.iter().map(file).collect::<Option<_>>()?),
        })
    }
}

/// Writes a file that only its owner may read, whole or not at all, whatever happens to the machine; its
/// directory is made if it is missing.
///
/// # Errors
/// What the system says.
pub fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut out = options.open(&new)?;
    out.write_all(bytes)?;
    out.sync_data()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// The process's environment, which keeps what was read; or gives what was read before.
pub struct Reading<'a> {
    before: Option<&'a Files>,
    read: RefCell<Files>,
    seen: RefCell<Vec<(PathBuf, Seen)>>,
}

impl<'a> Reading<'a> {
    /// The environment in which `offer` is read.
    pub fn of(offer: &'a Offer) -> Reading<'a> {
        Reading {
            before: offer.files.as_ref(),
            read: RefCell::default(),
            seen: RefCell::default(),
        }
    }

    /// What was read.
    pub fn files(&self) -> Files {
        self.read.borrow().clone()
    }

    /// How the files were that were to be read.
    pub fn seen(self) -> Vec<(PathBuf, Seen)> {
        self.seen.into_inner()
    }
}

impl Environment for Reading<'_> {
    fn variable(&self, name: &str) -> Option<OsString> {
        ProcessEnvironment.variable(name)
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let known = self.read.borrow().get(path).cloned();
        let bytes = match (self.before, known) {
            (_, Some(known)) => return Ok(known),
            (Some(before), None) => {
                let known = before.get(path).cloned();
                known.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?
            }
            (None, None) => {
                // Before it is read: what is written meanwhile is seen later.
                self.seen
                    .borrow_mut()
                    .push((path.to_owned(), look_at(path)));
                ProcessEnvironment.read_file(path)?
            }
        };
        self.read
            .borrow_mut()
            .insert(path.to_owned(), bytes.clone());
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_testkit::tempdir::TempDir;

    /// Guarantee: what was read is the same after files changed, and after a restart; nobody else may
    /// read it.
    #[test]
    fn what_was_read_can_be_read_again() {
        use std::os::unix::fs::PermissionsExt;
        let dir = TempDir::new("offer").unwrap();
        let path = dir.join("a.yaml");
        fs::write(&path, "a: 1").unwrap();
        let offer = Offer {
            sources: vec![Source::File(path.clone()), Source::Yaml("b: 2".into())],
            sets: vec!["c=3".into()],
            layer: Some(Arc::new(Layer {
                files: vec![("d.yaml".into(), "d: 4".into())],
            })),
            ..Offer::default()
        };
        let reading = Reading::of(&offer);
        assert_eq!(reading.read_file(&path).unwrap(), b"a: 1");
        let kept = offer.as_read(reading.files());
        fs::write(&path, "a: 2").unwrap();
        assert_eq!(Reading::of(&offer).read_file(&path).unwrap(), b"a: 2");
        assert_eq!(Reading::of(&kept).read_file(&path).unwrap(), b"a: 1");
        assert!(
            Reading::of(&kept)
                .read_file(Path::new("/etc/hosts"))
                .is_err()
        );
        let file = dir.join("state/kept.json");
        assert_eq!(Offer::saved(&file), None);
        kept.save(&file).unwrap();
        assert_eq!(Offer::saved(&file), Some(kept));
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&file, "{").unwrap();
        assert_eq!(Offer::saved(&file), None);
    }
}
