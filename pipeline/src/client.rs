//! Who sent data that was pushed: what is known of a client beside its records. It travels with the
//! duty to answer it (see [`AckToken::client`](crate::AckToken::client)), at no cost per record.

use std::fmt;
use std::net::IpAddr;

use tailwater_config::{ComponentKind, ConfigFile, Errors, KeyPath, Node, NodeValue, Warning};

/// What is known of a client.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// Its address.
    pub address: Option<IpAddr>,
    /// Metadata of its request: headers, names in lower case, each with its values in order.
    metadata: Vec<(Box<str>, Vec<Box<str>>)>,
    /// What the authenticator knows of it.
    auth: Vec<(&'static str, Box<str>)>,
}

/// Names only: values may be secrets.
impl fmt::Debug for ClientInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metadata: Vec<_> = self.metadata.iter().map(|(name, _)| name).collect();
        let auth: Vec<_> = self.auth.iter().map(|(name, _)| name).collect();
        f.debug_struct("ClientInfo")
            .field("address", &self.address)
            .field("metadata", &metadata)
            .field("auth", &auth)
            .finish()
    }
}

impl ClientInfo {
    /// A client at an address.
    pub fn at(address: Option<IpAddr>) -> ClientInfo {
        ClientInfo {
            address,
            ..ClientInfo::default()
        }
    }

    /// Adds a value of a piece of metadata.
    pub fn add_metadata(&mut self, name: &str, value: &str) {
        let name = name.to_ascii_lowercase();
        match self.metadata.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, values)) => values.push(value.into()),
            None => self.metadata.push((name.into(), vec![value.into()])),
        }
    }

    /// Adds what the authenticator knows.
    pub fn add_auth(&mut self, name: &'static str, value: &str) {
        self.auth.push((name, value.into()));
    }

    /// The values of a piece of metadata, whose name is in lower case; none if it was not sent.
    pub fn metadata(&self, name: &str) -> &[Box<str>] {
        let found = self.metadata.iter().find(|(known, _)| **known == *name);
        found.map_or(&[], |(_, values)| values)
    }

    /// All metadata: names and values.
    pub fn all_metadata(&self) -> impl Iterator<Item = (&str, &[Box<str>])> {
        self.metadata
            .iter()
            .map(|(name, values)| (&**name, &values[..]))
    }

    /// What the authenticator knows: names and values.
    pub fn auth(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.auth.iter().map(|(name, value)| (*name, &**value))
    }

    /// Bytes of memory it takes, about.
    pub fn heap_bytes(&self) -> usize {
        let values = |v: &[Box<str>]| v.iter().map(|v| v.len() + 16).sum::<usize>();
        let metadata = self.metadata.iter().map(|(n, v)| n.len() + 40 + values(v));
        metadata.sum::<usize>() + self.auth.iter().map(|(_, v)| v.len() + 32).sum::<usize>()
    }
}

/// A piece of what is known of a client, as the collector's `from_context` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextKey {
    /// `metadata.NAME`, and any name without such a word in front.
    Metadata(Box<str>),
    /// `auth.NAME`.
    Auth(Box<str>),
    /// `client.address`.
    Address,
}

impl fmt::Display for ContextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContextKey::Metadata(name) => write!(f, "metadata.{name}"),
            ContextKey::Auth(name) => write!(f, "auth.{name}"),
            ContextKey::Address => f.write_str("client.address"),
        }
    }
}

impl ContextKey {
    /// What `text` names.
    pub fn parse(text: &str) -> ContextKey {
        match text.split_once('.') {
            Some(("auth", name)) => ContextKey::Auth(name.into()),
            Some(("client", "address")) => ContextKey::Address,
            Some(("metadata", name)) => ContextKey::Metadata(name.to_ascii_lowercase().into()),
            _ => ContextKey::Metadata(text.to_ascii_lowercase().into()),
        }
    }

    /// Its value for a client. Several values of metadata are joined by `;`.
    pub fn of(&self, client: &ClientInfo) -> Option<String> {
        match self {
            ContextKey::Metadata(name) => match client.metadata(name) {
                [] => None,
                values => Some(values.join(";")),
            },
            ContextKey::Auth(name) => {
                let mut known = client.auth();
                let found = known.find(|(key, _)| *key == &**name);
                found.map(|(_, value)| value.to_owned())
            }
            ContextKey::Address => client.address.map(|ip| ip.to_string()),
        }
    }
}

/// Warns of processors, connectors, exporters and extensions that read metadata of clients while no receiver keeps any.
pub(crate) fn check(file: &ConfigFile, errors: &mut Errors) {
    let receivers = file.receivers.iter();
    let mut kept = false;
    for receiver in receivers {
        let path = receiver.path(ComponentKind::Receiver);
        walk(&receiver.node, &path, &mut |key, node, _| {
            let on = matches!(node.value, NodeValue::Bool(true));
            kept |= key == "include_metadata" && on;
        });
    }
    if kept {
        return;
    }
    let processors = file
        .processors
        .iter()
        .map(|p| (p, ComponentKind::Processor));
    let exporters = file.exporters.iter().map(|e| (e, ComponentKind::Exporter));
    let connectors = file.connectors.iter();
    let connectors = connectors.map(|c| (c, ComponentKind::Connector));
    let extensions = file.extensions.iter();
    let extensions = extensions.map(|e| (e, ComponentKind::Extension));
    let all = processors.chain(exporters).chain(connectors);
    for (component, kind) in all.chain(extensions) {
        let path = component.path(kind);
        walk(&component.node, &path, &mut |key, node, path| {
            let reads = match (key, &node.value) {
                ("metadata_keys", NodeValue::List(keys)) => !keys.is_empty(),
                ("from_context", NodeValue::Str(text)) => {
                    matches!(ContextKey::parse(text), ContextKey::Metadata(_))
                }
                // Of a routing table.
                ("condition", NodeValue::Str(text)) => text.trim_start().starts_with("request["),
                _ => false,
            };
            if reads {
                errors.warn(Warning {
                    span: Some(node.span.clone()),
                    path: path.clone(),
                    message: "has no effect: no receiver has include_metadata: true".to_owned(),
                });
            }
        });
    }
}

/// Shows `see` each key below `node`, with what it holds and its path.
fn walk(node: &Node, path: &KeyPath, see: &mut dyn FnMut(&str, &Node, &KeyPath)) {
    match &node.value {
        NodeValue::Map(entries) => {
            for (key, child) in entries {
                let at = path.child(&key.text);
                see(&key.text, child, &at);
                walk(child, &at, see);
            }
        }
        NodeValue::List(items) => {
            for (i, item) in items.iter().enumerate() {
                walk(item, &path.child(i), see);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: each key finds what it names, whatever the case of a header, and nothing else.
    #[test]
    fn keys_find_what_they_name() {
        let mut client = ClientInfo::at(Some([127, 0, 0, 1].into()));
        client.add_metadata("X-Tenant", "a");
        client.add_metadata("x-tenant", "b");
        client.add_metadata("client.address", "liar");
        client.add_auth("username", "u");
        let of = |text: &str| ContextKey::parse(text).of(&client);
        let found = |text: &str| Some(text.to_owned());
        assert_eq!(of("metadata.X-Tenant"), found("a;b"));
        assert_eq!(of("x-tenant"), found("a;b"));
        assert_eq!(of("auth.username"), found("u"));
        assert_eq!(of("auth.x-tenant"), None);
        assert_eq!(of("metadata.username"), None);
        assert_eq!(of("client.address"), found("127.0.0.1"));
        assert_eq!(of("metadata.client.address"), found("liar"));
        assert_eq!(ContextKey::Address.of(&ClientInfo::default()), None);
    }
}
