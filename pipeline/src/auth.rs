//! Who may send to us, and who we are to others: what extensions that authenticate are to the
//! components that name them by `auth::authenticator`.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use tailwater_config::{
    ComponentId, ComponentKind, ConfigError, ConfigFile, Errors, KeyPath, Node, NodeValue,
};

/// Adds credentials to the requests of an exporter.
pub trait ClientAuth: Send + Sync {
    /// Adds to the headers of one request, or says why that is not possible now.
    fn authenticate(&self, headers: &mut HeaderMap) -> Result<(), String>;
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

impl Authenticators {
    /// What adds the credentials of extension `id`.
    pub fn client(&self, id: &str) -> Option<Arc<dyn ClientAuth>> {
        self.0.get(id)?.client.clone()
    }

    /// What checks credentials by extension `id`.
    pub fn server(&self, id: &str) -> Option<Arc<dyn ServerAuth>> {
        self.0.get(id)?.server.clone()
    }
}

/// Every `auth::authenticator` of a receiver or an exporter, at any depth, must name an extension
/// that runs and authenticates that side. `roles` knows the extensions that were decoded; of one
/// that was not, the mistake is reported already.
pub(crate) fn check(file: &ConfigFile, roles: impl Fn(&str) -> Option<Roles>, errors: &mut Errors) {
    let mut used = Vec::new();
    for (kind, entries) in [
        (ComponentKind::Receiver, &file.receivers),
        (ComponentKind::Exporter, &file.exporters),
    ] {
        for e in entries {
            find(&e.node, &e.path(kind), &mut |node, path| {
                used.push((kind, node.clone(), path));
            });
        }
    }
    for (kind, node, path) in used {
        // A text that is no id is reported where the component is decoded.
        let Some(id) = node.as_text().and_then(|t| ComponentId::parse(t).ok()) else {
            continue;
        };
        let text = if file.component(ComponentKind::Extension, &id).is_none() {
            format!("extension \"{id}\" is not configured")
        } else if !file.service.extensions.iter().any(|r| r.id == id) {
            format!("extension \"{id}\" does not run; add it to service::extensions")
        } else {
            let Some(roles) = roles(&id.to_string()) else {
                continue;
            };
            match kind {
                ComponentKind::Receiver if !roles.server => {
                    format!("extension \"{id}\" does not check the credentials of senders")
                }
                ComponentKind::Exporter if !roles.client => {
                    format!("extension \"{id}\" has no credentials to send")
                }
                _ => continue,
            }
        };
        errors.push(ConfigError::new(node.span.clone(), path, text));
    }
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
