//! Who may send to us, and who we are to others: what extensions that authenticate are to the
//! components that name them by `auth::authenticator`.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use tailwater_config::{
    ComponentEntry, ComponentId, ComponentKind, ConfigError, ConfigFile, Errors, KeyPath, Node,
    NodeValue,
};

use crate::client::ContextKey;

/// Adds credentials to the requests of an exporter.
pub trait ClientAuth: Send + Sync {
    /// Adds to the headers of one request, or says why that is not possible now.
    fn authenticate(&self, headers: &mut HeaderMap) -> Result<(), String>;

    /// What it wants to know of the client whose data is sent: found among the headers by [`carried`].
    fn reads(&self) -> &[ContextKey] {
        &[]
    }

    /// The extension that adds to the headers after it, by its id.
    fn then(&self) -> Option<&str> {
        None
    }
}

/// In front of names of headers that hold what is known of a client from when a request is made until it
/// is sent, which may be after a restart. They are never sent.
const CARRIED: &str = "x-tailwater-carried-";

fn carried_name(key: &ContextKey) -> Option<HeaderName> {
    let mut name = CARRIED.to_owned();
    for byte in key.to_string().bytes() {
        // Names of attributes may have characters that names of headers may not.
        name.push_str(&format!("{byte:02x}"));
    }
    HeaderName::from_bytes(name.as_bytes()).ok()
}

/// Adds a value of what is known of a client to the headers of a request with its data.
pub fn carry(key: &ContextKey, value: &str, headers: &mut HeaderMap) {
    if let Some(name) = carried_name(key)
        && let Ok(mut value) = HeaderValue::from_bytes(value.as_bytes())
    {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}

/// What is known of the client whose data is in the request with these headers.
pub fn carried<'h>(key: &ContextKey, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
    headers.get(carried_name(key)?)
}

/// Takes out what [`carry`] added: before a request is sent.
pub fn uncarry(headers: &mut HeaderMap) {
    let is = |name: &&HeaderName| name.as_str().starts_with(CARRIED);
    while let Some(name) = headers.keys().find(is).cloned() {
        headers.remove(name);
    }
}

/// Decides whose requests a receiver takes.
pub trait ServerAuth: Send + Sync {
    /// Whether the sender is known to be somebody, told without any work: from memory. False says
    /// nothing yet.
    fn is_known(&self, headers: &HeaderMap) -> bool;

    /// Whether the sender is somebody. Takes up to a tenth of a second where passwords are stored as
    /// slow hashes, so it does not belong on a thread that serves others.
    fn check(&self, headers: &HeaderMap) -> Result<(), Denied>;

    /// What is known of a sender that was not denied: `from_context: auth.NAME` reads it.
    fn attributes(&self, _headers: &HeaderMap) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Why a request is not taken. The text is for the sender and holds no secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denied {
    /// There are no credentials where they are looked for.
    #[error("no credentials")]
    Missing,
    /// The credentials are in a form that is not expected.
    #[error("malformed credentials")]
    Malformed,
    /// The credentials are nobody's.
    #[error("wrong credentials")]
    Wrong,
}

/// The sides of a conversation that something authenticates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Roles {
    /// It can be named by exporters.
    pub client: bool,
    /// It can be named by receivers.
    pub server: bool,
    /// What it adds depends on the client whose data is sent.
    pub reads_clients: bool,
}

/// What an extension offers to the components that name it.
#[derive(Clone, Default)]
pub struct Authenticator {
    /// For exporters.
    pub client: Option<Arc<dyn ClientAuth>>,
    /// For receivers.
    pub server: Option<Arc<dyn ServerAuth>>,
}

/// The extensions that authenticate, by their ids.
#[derive(Clone, Default)]
pub struct Authenticators(Arc<BTreeMap<String, Authenticator>>);

impl FromIterator<(String, Authenticator)> for Authenticators {
    fn from_iter<I: IntoIterator<Item = (String, Authenticator)>>(iter: I) -> Authenticators {
        Authenticators(Arc::new(iter.into_iter().collect()))
    }
}

/// Extensions, one after another.
struct Chain(Vec<Arc<dyn ClientAuth>>, Vec<ContextKey>);

impl ClientAuth for Chain {
    fn authenticate(&self, headers: &mut HeaderMap) -> Result<(), String> {
        self.0.iter().try_for_each(|a| a.authenticate(headers))
    }

    fn reads(&self) -> &[ContextKey] {
        &self.1
    }
}

impl Authenticators {
    /// What adds the credentials of extension `id`, and of those that come after it.
    pub fn client(&self, id: &str) -> Option<Arc<dyn ClientAuth>> {
        let mut chain = vec![self.0.get(id)?.client.clone()?];
        while let Some(next) = chain.last().and_then(|a| a.then()) {
            // More than there are would be a circle.
            if chain.len() > self.0.len() {
                return None;
            }
            chain.push(self.0.get(next)?.client.clone()?);
        }
        if chain.len() == 1 {
            return chain.pop();
        }
        let reads = chain.iter().flat_map(|a| a.reads()).cloned().collect();
        Some(Arc::new(Chain(chain, reads)))
    }

    /// What checks credentials by extension `id`.
    pub fn server(&self, id: &str) -> Option<Arc<dyn ServerAuth>> {
        self.0.get(id)?.server.clone()
    }
}

/// Every `auth::authenticator` of a receiver or an exporter, at any depth, must name an extension
/// that runs and authenticates that side; so must `additional_auth` of an extension. `roles_of` knows the
/// extensions that were decoded; of one that was not, the mistake is reported already. `carries` says
/// whether an exporter keeps apart whose data it sends.
pub(crate) fn check(
    file: &ConfigFile,
    roles_of: impl Fn(&str) -> Option<Roles>,
    carries: impl Fn(&str) -> bool,
    errors: &mut Errors,
) {
    let mut used = Vec::new();
    for e in &file.extensions {
        if let Some(node) = e.node.get(ADDITIONAL) {
            let path = e.path(ComponentKind::Extension).child(ADDITIONAL);
            used.push((ComponentKind::Extension, e, node.clone(), path));
        }
    }
    for (kind, entries) in [
        (ComponentKind::Receiver, &file.receivers),
        (ComponentKind::Exporter, &file.exporters),
    ] {
        for e in entries {
            find(&e.node, &e.path(kind), &mut |node, path| {
                used.push((kind, e, node.clone(), path));
            });
        }
    }
    for (kind, user, node, path) in used {
        // A text that is no id is reported where the component is decoded.
        let Some(id) = node.as_text().and_then(|t| ComponentId::parse(t).ok()) else {
            continue;
        };
        let text = if file.component(ComponentKind::Extension, &id).is_none() {
            format!("extension \"{id}\" is not configured")
        } else if !file.service.extensions.iter().any(|r| r.id == id) {
            format!("extension \"{id}\" does not run; add it to service::extensions")
        } else {
            let Some(roles) = roles_of(&id.to_string()) else {
                continue;
            };
            match kind {
                ComponentKind::Receiver if !roles.server => {
                    format!("extension \"{id}\" does not check the credentials of senders")
                }
                ComponentKind::Exporter | ComponentKind::Extension if !roles.client => {
                    format!("extension \"{id}\" has no credentials to send")
                }
                ComponentKind::Extension if runs_in_circle(file, user) => {
                    format!("runs in a circle: extension \"{id}\" leads back here")
                }
                ComponentKind::Exporter
                    if reads_clients(file, &id, &roles_of) && !carries(&user.id.to_string()) =>
                {
                    format!(
                        "extension \"{id}\" reads what is known of clients (from_context, from_attribute), and \
                         this exporter sends data of several in one request; take the value into an attribute \
                         by a processor with from_context instead"
                    )
                }
                _ => continue,
            }
        };
        errors.push(ConfigError::new(node.span.clone(), path, text));
    }
}

/// The option of an extension that names the one that comes after it.
const ADDITIONAL: &str = "additional_auth";

/// The extensions that `id` leads to, itself first; no more than there are.
fn followed<'f>(file: &'f ConfigFile, id: &ComponentId) -> Vec<&'f ComponentEntry> {
    let mut chain = Vec::new();
    let mut next = file.component(ComponentKind::Extension, id);
    while let Some(entry) = next.filter(|_| chain.len() <= file.extensions.len()) {
        chain.push(entry);
        let id = entry.node.get(ADDITIONAL).and_then(|n| n.as_text());
        let id = id.and_then(|t| ComponentId::parse(t).ok());
        next = id.and_then(|id| file.component(ComponentKind::Extension, &id));
    }
    chain
}

fn runs_in_circle(file: &ConfigFile, entry: &ComponentEntry) -> bool {
    followed(file, &entry.id).len() > file.extensions.len()
}

fn reads_clients(
    file: &ConfigFile,
    id: &ComponentId,
    roles: &impl Fn(&str) -> Option<Roles>,
) -> bool {
    let chain = followed(file, id).into_iter();
    chain
        .filter_map(|e| roles(&e.id.to_string()))
        .any(|roles| roles.reads_clients)
}

/// Calls `found` with each `authenticator` below a key `auth`.
fn find(node: &Node, path: &KeyPath, found: &mut dyn FnMut(&Node, KeyPath)) {
    match &node.value {
        NodeValue::Map(entries) => {
            for (key, child) in entries {
                let at = path.child(&key.text);
                if key.text == "auth"
                    && let Some(id) = child.get("authenticator")
                {
                    found(id, at.child("authenticator"));
                }
                find(child, &at, found);
            }
        }
        NodeValue::List(items) => {
            for (i, item) in items.iter().enumerate() {
                find(item, &path.child(i), found);
            }
        }
        _ => {}
    }
}
