//! What a control plane lays over the local configuration, and how far it may go.
//!
//! The local configuration is read first and must be good by itself. It says whether a layer is taken at
//! all, and what it may name: files and servers that the local configuration does not use itself must be
//! allowed by it, and so must all variables and files whose content a layer takes over: it could put them where
//! they are shown. What decides about that (the extension that brings the layer, the admin API, the
//! sandbox) no layer can change. `--set` of the command line lies over everything.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tailwater_config::{
    ComponentEntry, ComponentKind, ConfigError, Environment, Errors, KeyPath, Loaded, Node,
    NodeValue, Source, resolve, to_json,
};
use tailwater_pipeline::reach::{Place, Reach, Use};

use crate::commands::check::{Checked, check_sources};
use crate::extensions::opamp;
use crate::offer::{Offer, Reading};
use crate::sandbox;
use crate::storages;

/// Files of a control plane, laid over each other in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// Name and text of each.
    pub files: Vec<(String, String)>,
}

impl Layer {
    /// As JSON, for files of the agent's own.
    pub fn to_json(&self) -> Value {
        let file = |(name, text): &(String, String)| json!([name, text]);
        self.files.iter().map(file).collect()
    }

    /// What [`Layer::to_json`] gave.
    pub fn from_json(value: &Value) -> Option<Layer> {
        let text = |v: Option<&Value>| v?.as_str().map(str::to_owned);
        let file = |v: &Value| Some((text(v.get(0))?, text(v.get(1))?));
        let files = value.as_array()?.iter().map(file).collect::<Option<_>>()?;
        Some(Layer { files })
    }

    /// What a file is called in messages.
    pub fn source_name(file: &str) -> String {
        match file {
            "" => "remote".to_owned(),
            name => format!("remote {name}"),
        }
    }

    fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        self.files.iter().map(|(name, text)| Source::Named {
            name: Layer::source_name(name),
            text: text.clone(),
        })
    }
}

/// What a layer may name besides what the local configuration names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Files and directories that may be read, with all below them.
    pub read: Vec<PathBuf>,
    /// Those that may be written besides.
    pub write: Vec<PathBuf>,
    /// Servers, as `host:port`; a host may begin with `*.`, a port may be `*`.
    pub servers: Vec<String>,
    /// Variables of the environment.
    pub variables: Vec<String>,
}

impl Rules {
    /// Whether a server, as `host:port`, is one of them.
    pub fn allows_server(&self, server: &str) -> bool {
        let wanted = server.to_ascii_lowercase();
        self.servers.iter().any(|rule| {
            let rule = rule.to_ascii_lowercase();
            match (rule.rsplit_once(':'), wanted.rsplit_once(':')) {
                (Some((host, port)), Some((to, at))) => {
                    let below = host.strip_prefix('*').filter(|h| h.starts_with('.'));
                    let fits = below.map_or(host == to, |end| to.ends_with(end));
                    fits && (port == "*" || port == at)
                }
                _ => rule == wanted,
            }
        })
    }
}

/// Reads and checks an offer with a layer: the local configuration alone, then with the layer over it. Where
/// the local one takes no layer, it is left out.
///
/// # Errors
/// All mistakes of the local configuration; else all of the whole; else all that the layer may not.
pub fn check_layered(
    offer: &Offer,
    layer: &Arc<Layer>,
    reading: &Reading<'_>,
) -> Result<Checked, Errors> {
    let own = Recording {
        reading,
        names: RefCell::default(),
        files: RefCell::default(),
    };
    let local = check_sources(&offer.sources, &offer.sets, &offer.gates, &own)?;
    let Some(settings) = opamp::running(&local.loaded.file).filter(|s| s.takes_layers()) else {
        return Ok(local);
    };
    // By itself first: what it asks for is not what the local configuration asks for.
    let layers: Vec<Source> = layer.sources().collect();
    let alone = Confined {
        reading,
        names: BTreeSet::new(),
        files: BTreeSet::new(),
        rules: &settings.rules,
        refused: RefCell::default(),
    };
    // Mistakes are found again in the whole.
    let _ = resolve(&layers, &[], &alone);
    let refused = alone.refused.into_inner();
    if !refused.is_empty() {
        return Err(errors_of(refused));
    }
    let confined = Confined {
        reading,
        names: own.names.into_inner(),
        files: own.files.into_inner(),
        rules: &settings.rules,
        refused: RefCell::default(),
    };
    let mut sources = offer.sources.clone();
    sources.extend(layers);
    sources.extend(extensions_too(layer, &local, &confined));
    let whole = check_sources(&sources, &offer.sets, &offer.gates, &confined);
    let mut refused = confined.refused.into_inner();
    if refused.is_empty() {
        let whole = whole?;
        kept(&local.loaded, &whole.loaded, &mut refused);
        within(&local, &whole, &settings.rules, &mut refused);
        if refused.is_empty() {
            return Ok(whole);
        }
    }
    Err(errors_of(refused))
}

fn errors_of(refused: Vec<String>) -> Errors {
    let mut errors = Errors::new();
    for text in refused {
        errors.push(ConfigError::new(None, KeyPath::root(), text));
    }
    errors
}

/// A list of extensions in a layer takes the place of the local one; the one that brings the layer stays
/// in it.
fn extensions_too(layer: &Layer, local: &Checked, env: &dyn Environment) -> Option<Source> {
    let named = |source: Source| {
        let tree = source.read(env).ok()?;
        let list = tree.get("service")?.get("extensions")?;
        match &list.value {
            NodeValue::List(items) => {
                let text = |item: &Node| item.as_text().map(str::to_owned);
                Some(items.iter().filter_map(text).collect::<Vec<_>>())
            }
            NodeValue::Null => Some(Vec::new()),
            _ => None,
        }
    };
    let mut list = layer.sources().filter_map(named).last()?;
    let running = &local.loaded.file.service.extensions;
    let own = running.iter().filter(|r| opamp::is(&r.id));
    let missing = own.map(|r| r.id.to_string());
    let missing: Vec<String> = missing.filter(|id| !list.contains(id)).collect();
    list.extend(missing);
    let tree = json!({"service": {"extensions": list}});
    Some(Source::Yaml(tree.to_string()))
}

/// What a layer must leave as it is.
fn kept(local: &Loaded, whole: &Loaded, refused: &mut Vec<String>) {
    let mut differs = |what: String, before: Option<&Node>, after: Option<&Node>| {
        if before.map(to_json) != after.map(to_json) {
            refused.push(format!(
                "{what} cannot be changed by a remote configuration"
            ));
        }
    };
    for key in ["admin", "sandbox", "workers"] {
        let of = |loaded: &'_ Loaded| -> Option<Node> {
            loaded.root.get("service").and_then(|s| s.get(key)).cloned()
        };
        let (before, after) = (of(local), of(whole));
        differs(format!("service::{key}"), before.as_ref(), after.as_ref());
    }
    let ids = [local, whole].into_iter().flat_map(|l| &l.file.extensions);
    let ids: BTreeSet<_> = ids.map(|e| &e.id).filter(|id| opamp::is(id)).collect();
    for id in ids {
        let of = |loaded: &Loaded| -> Option<Node> {
            let entry = loaded.file.component(ComponentKind::Extension, id);
            entry.map(|e: &ComponentEntry| e.node.clone())
        };
        let (before, after) = (of(local), of(whole));
        differs(format!("extensions::{id}"), before.as_ref(), after.as_ref());
    }
    let runs = |loaded: &Loaded| {
        let all = loaded.file.service.extensions.iter();
        let own = all.filter(|r| opamp::is(&r.id)).map(|r| r.id.to_string());
        own.collect::<Vec<_>>()
    };
    if runs(local) != runs(whole) {
        refused.push(
            "service::extensions: opamp cannot be removed or added by a remote configuration"
                .to_owned(),
        );
    }
}

/// What a layer may reach.
fn within(local: &Checked, whole: &Checked, rules: &Rules, refused: &mut Vec<String>) {
    let (before, after) = (sandbox::reach(local), sandbox::reach(whole));
    let allowed = |paths: &[PathBuf], usage| {
        let place = move |path: &PathBuf| Place {
            path: path.clone(),
            usage,
            create_mode: None,
        };
        paths.iter().map(place).collect::<Vec<_>>()
    };
    let mut rules_too = allowed(&rules.read, Use::Read);
    rules_too.extend(allowed(&rules.write, Use::Write));
    rules_too.extend(own_store());
    let mut check = |before: &[Place], after: &[Place]| {
        for place in after {
            let mut known = before.iter().chain(&rules_too);
            if !known.any(|k| covers(k, place)) {
                let (doing, list) = match place.usage {
                    Use::Execute => {
                        refused.push(format!(
                            "a remote configuration runs {}, which the local one does not",
                            place.path.display()
                        ));
                        continue;
                    }
                    Use::Read => ("reads", "allow_read"),
                    Use::ReadAndDelete => ("reads and deletes in", "allow_write"),
                    Use::Write => ("writes in", "allow_write"),
                    Use::Listen => ("listens in", "allow_write"),
                };
                refused.push(format!(
                    "a remote configuration {doing} {}, which the local one does not; to allow it, add it \
                     to {list} of extensions::opamp::remote_config",
                    place.path.display()
                ));
            }
        }
    };
    check(&before.logs, &after.logs);
    check(&before.places, &after.places);
    for server in servers(&after).difference(&servers(&before)) {
        if !rules.allows_server(server) {
            refused.push(format!(
                "a remote configuration sends to {server}, which the local one does not; to allow it, add \
                 it to allow_endpoints of extensions::opamp::remote_config"
            ));
        }
    }
}

fn servers(reach: &Reach) -> BTreeSet<String> {
    reach
        .servers
        .iter()
        .map(|s| s.to_ascii_lowercase())
        .collect()
}

/// The agent's own store of positions, which receivers without a `storage` use.
fn own_store() -> Option<Place> {
    let path = storages::own_directory().ok()?;
    Some(Place {
        path,
        usage: Use::Write,
        create_mode: None,
    })
}

/// Whether who may use `known` may use `place`.
fn covers(known: &Place, place: &Place) -> bool {
    let usage = match (known.usage, place.usage) {
        // What may be written is not to be run.
        (Use::Write, wanted) => wanted != Use::Execute,
        (Use::ReadAndDelete | Use::Execute, Use::Read) => true,
        (usage, wanted) => usage == wanted,
    };
    usage && below(&place.path, &known.path)
}

/// Whether a path is another one or below it, by where both really are.
fn below(path: &Path, dir: &Path) -> bool {
    match (real(path), real(dir)) {
        (Some(path), Some(dir)) => path.starts_with(dir),
        _ => false,
    }
}

/// Where a path leads: links of the part that exists are followed. None if the rest climbs.
fn real(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    for known in path.ancestors() {
        if let Ok(there) = known.canonicalize() {
            let rest = path.strip_prefix(known).ok()?;
            let climbs = rest.components().any(|c| c == Component::ParentDir);
            return (!climbs).then(|| there.join(rest));
        }
    }
    None
}

/// Keeps what the local configuration asks for.
struct Recording<'a> {
    reading: &'a Reading<'a>,
    names: RefCell<BTreeSet<String>>,
    files: RefCell<BTreeSet<PathBuf>>,
}

impl Environment for Recording<'_> {
    fn variable(&self, name: &str) -> Option<OsString> {
        self.names.borrow_mut().insert(name.to_owned());
        self.reading.variable(name)
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.borrow_mut().insert(path.to_owned());
        self.reading.read_file(path)
    }
}

/// Gives what the local configuration asked for, and what is allowed.
struct Confined<'a> {
    reading: &'a Reading<'a>,
    names: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
    rules: &'a Rules,
    refused: RefCell<Vec<String>>,
}

impl Confined<'_> {
    fn refuse(&self, text: String) {
        let mut refused = self.refused.borrow_mut();
        if !refused.contains(&text) {
            refused.push(text);
        }
    }
}

impl Environment for Confined<'_> {
    fn variable(&self, name: &str) -> Option<OsString> {
        if self.names.contains(name) || self.rules.variables.iter().any(|v| v == name) {
            return self.reading.variable(name);
        }
        self.refuse(format!(
            "a remote configuration uses the variable {name:?}; to allow it, add it to allow_variables of \
             extensions::opamp::remote_config"
        ));
        None
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let listed = self.rules.read.iter().chain(&self.rules.write);
        if self.files.contains(path) || listed.into_iter().any(|dir| below(path, dir)) {
            return self.reading.read_file(path);
        }
        self.refuse(format!(
            "a remote configuration takes over the file {}; to allow it, add it to allow_read of \
             extensions::opamp::remote_config",
            path.display()
        ));
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

#[cfg(test)]
mod tests;
