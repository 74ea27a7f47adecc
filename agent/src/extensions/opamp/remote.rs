//! What becomes of a remote configuration: whether it may be taken, and what there is to say of it.

use std::sync::Arc;

use serde_json::{Value, json};
use tailwater_config::SOURCE_BYTES_MAX;
use tailwater_opamp::proto::Status;

use super::settings::Settings;
use super::signature::{self, SIGNATURE_FILE, hex};
use super::store::{Files, Remote, Store};
use crate::admin::handlers::redacted_places;
use crate::commands::check::{Checked, check_offer, mistakes};
use crate::control::Outcome;
use crate::layer::Layer;
use crate::offer::{Offer, Reading};

/// Files of one configuration.
const FILES_MAX: usize = 256;
/// Longest name of a file.
const NAME_BYTES_MAX: usize = 256;
/// How often it is tried to put a configuration into force during which the agent ended.
pub const ATTEMPTS_MAX: u64 = 2;

/// What files may say they are.
const CONTENT_TYPES: [&str; 6] = [
    "",
    "text/yaml",
    "text/x-yaml",
    "application/yaml",
    "application/x-yaml",
    "application/json",
];

/// A configuration that may be tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// What is laid over the local configuration; none if the server offers nothing.
    pub layer: Option<Arc<Layer>>,
    /// Its version, if it has one.
    pub version: Option<u64>,
}

/// Looks at everything that can be judged without the rest of the configuration.
///
/// # Errors
/// All reasons why it is not taken.
pub fn take(files: &Files, settings: &Settings, before: &Remote) -> Result<Taken, Vec<String>> {
    let signature = signature::read(files).map_err(|e| vec![e])?;
    if !settings.keys.is_empty() {
        let verified = signature::verify(files, signature.as_ref(), &settings.keys);
        verified.map_err(|e| vec![e])?;
    }
    let version = signature.map(|s| s.version);
    let mut reasons = Vec::new();
    reasons.extend(too_old(version, files, settings, before));
    let bytes: usize = files.values().map(|f| f.body.len()).sum();
    if files.len() > FILES_MAX || bytes > SOURCE_BYTES_MAX {
        reasons.push(format!(
            "{} files with {bytes} bytes are too much: there may be {FILES_MAX} with {SOURCE_BYTES_MAX}",
            files.len()
        ));
        return Err(reasons);
    }
    let mut layer = Layer::default();
    for (name, file) in files.iter().filter(|(name, _)| *name != SIGNATURE_FILE) {
        match text_of(name, &file.body, &file.content_type) {
            Ok(text) => layer.files.push((name.clone(), text)),
            Err(mut found) => reasons.append(&mut found),
        }
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let layer = (!layer.files.is_empty()).then(|| Arc::new(layer));
    Ok(Taken { layer, version })
}

/// Why an offer is not trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Distrust {
    /// None of the keys signed it.
    Unsigned,
    /// A newer version was in force.
    Outdated,
}

/// Whether an offer that was refused was not trusted, whatever it says.
pub fn distrust(files: &Files, settings: &Settings, before: &Remote) -> Option<Distrust> {
    let signature = signature::read(files).ok();
    let signed = signature.as_ref().map(Option::as_ref);
    let verify = |s| signature::verify(files, s, &settings.keys).is_ok();
    if !settings.keys.is_empty() && !signed.is_some_and(verify) {
        return Some(Distrust::Unsigned);
    }
    let version = signature.flatten().map(|s| s.version);
    too_old(version, files, settings, before).map(|_| Distrust::Outdated)
}

fn too_old(
    version: Option<u64>,
    files: &Files,
    settings: &Settings,
    before: &Remote,
) -> Option<String> {
    let newest = before.version.filter(|_| !settings.allow_older)?;
    let same = before.applied.as_ref() == Some(files);
    match version {
        Some(version) if version > newest || (version == newest && same) => None,
        Some(version) if version == newest => Some(format!(
            "version {version} was in force with other content; a change needs a higher version \
             (remote_config::allow_older_versions takes it)"
        )),
        Some(version) => Some(format!(
            "version {version} is older than {newest}, which was in force \
             (remote_config::allow_older_versions takes it)"
        )),
        None => Some(format!(
            "it has no version, but version {newest} was in force; the version is looked for in the file \
             {SIGNATURE_FILE} (remote_config::allow_older_versions takes it)"
        )),
    }
}

fn text_of(name: &str, body: &[u8], content_type: &str) -> Result<String, Vec<String>> {
    let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
    let refuse = |why: String| Err(vec![format!("file {shown:?}: {why}")]);
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return refuse(format!(
            "a name has at most {NAME_BYTES_MAX} bytes, none of control"
        ));
    }
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !CONTENT_TYPES.contains(&&*essence.to_ascii_lowercase()) {
        let listed = CONTENT_TYPES[1..].join(", ");
        return refuse(format!(
            "its content type is {essence:?}; it must be empty or one of {listed}"
        ));
    }
    let Ok(text) = std::str::from_utf8(body) else {
        return refuse("it is not UTF-8 text".to_owned());
    };
    let hidden = redacted_places(text, &Layer::source_name(name));
    match hidden.is_empty() {
        true => Ok(text.to_owned()),
        false => Err(hidden),
    }
}

/// The local configuration with what was laid over it before the agent ended; or alone, if that is refused
/// now, which the server is told.
pub fn resume(local: Checked, offered: &Offer) -> Checked {
    let Some(settings) = super::running(&local.loaded.file).filter(Settings::takes_layers) else {
        return local;
    };
    let Ok(store) = Store::of_agent() else {
        return local;
    };
    let mut remote = store.remote();
    let Some(files) = remote.applied.clone() else {
        return local;
    };
    // What was in force may be older than what was tried, so versions are not compared.
    let unversioned = Remote::default();
    let checked = take(&files, &settings, &unversioned).and_then(|taken| {
        let offer = offered.with_layer(taken.layer);
        let checked = check_offer(&offer, &Reading::of(&offer));
        checked.map_err(|errors| mistakes(&errors))
    });
    match checked {
        Ok(checked) => checked,
        Err(reasons) => {
            for reason in &reasons {
                tracing::error!(
                    by = "OpAMP",
                    "the remote configuration is refused now: {reason}"
                );
            }
            remote.applied = None;
            if remote.status == Status::Applied as i32 {
                remote.status = Status::Failed as i32;
                remote.error = format!("refused at a start of the agent: {}", reasons.join("\n"));
            }
            if let Err(error) = store.set_remote(&remote) {
                tracing::error!(error);
            }
            local
        }
    }
}

/// What came of a configuration, for the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// Its hash.
    pub hash: Vec<u8>,
    /// In force or not.
    pub status: i32,
    /// What was said about each file, and about the whole under no name.
    pub files: Vec<(Option<String>, Vec<String>)>,
    /// What changed, a line each.
    pub changes: Vec<String>,
}

impl Told {
    /// Of an answer to the wish to put it into force.
    pub fn of(hash: &[u8], files: &Files, outcome: &Outcome) -> Told {
        let (status, changes, reasons) = match outcome {
            Outcome::Applied(changes) => (Status::Applied, changes.clone(), Vec::new()),
            Outcome::Unchanged => (Status::Applied, Vec::new(), Vec::new()),
            Outcome::Refused(reasons) => (Status::Failed, Vec::new(), reasons.clone()),
            // The rest is of requests that offers are not.
            _ => {
                let text = "other requests for a change came in before its turn, each time";
                (Status::Failed, Vec::new(), vec![text.to_owned()])
            }
        };
        let names = files.keys().filter(|n| *n != SIGNATURE_FILE);
        let mut said: Vec<_> = names.map(|n| (Some(n.clone()), Vec::new())).collect();
        let mut of_all = Vec::new();
        for reason in reasons {
            // The longest name that fits: "remote a" is not about the file "".
            let fits = |(name, _): &&mut (Option<String>, Vec<String>)| {
                let source = Layer::source_name(name.as_deref().unwrap_or_default());
                let rest = reason.strip_prefix(&source);
                let file = format!("file {:?}: ", name.as_deref().unwrap_or_default());
                rest.is_some_and(|r| r.starts_with(':')) || reason.starts_with(&file)
            };
            match said.iter_mut().find(fits) {
                Some((_, list)) => list.push(reason),
                None => of_all.push(reason),
            }
        }
        if !of_all.is_empty() {
            said.push((None, of_all));
        }
        Told {
            hash: hash.to_vec(),
            status: status as i32,
            files: said,
            changes,
        }
    }

    /// As the message of our own says it; `nodes` are those that run.
    pub fn to_json(&self, generation: u64, nodes: &Value) -> Value {
        let file = |(name, errors): &(Option<String>, Vec<String>)| json!({"file": name, "errors": errors});
        json!({
            "hash": hex(&self.hash),
            "applied": self.status == Status::Applied as i32,
            "generation": generation,
            "files": self.files.iter().map(file).collect::<Vec<_>>(),
            "changes": self.changes,
            "nodes": nodes,
        })
    }
}

#[cfg(test)]
mod tests;
