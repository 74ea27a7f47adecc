//! Hiding secrets in a tree before it is shown.

use crate::node::{Node, NodeValue};
use crate::secret::REDACTED;

/// Names of options that hold a secret wherever they stand.
const NAMES: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "authorization",
    "api_key",
    "apikey",
    "access_key",
    "private_key",
    "key_pem",
    "credentials",
    "connection_string",
];

/// Names of options of which every value below is a secret.
const MAPS: &[&str] = &["headers", "basic_auth_users"];

/// Endings in behind which a name only says where the secret is, or speaks about it.
const HARMLESS_ENDINGS: &[&str] = &["_file", "_path", "_type", "_url", "_header", "_id"];

/// Which values of a configuration are secret.
///
/// Besides the generic names (`password`, `token`, `api_key`, everything below `headers`, ..., also
/// as the last words of a longer name) these are paths that components declare. Credentials in a
/// URL (`https://user:password@host`) are always hidden.
#[derive(Clone, Debug, Default)]
pub struct SecretPaths {
    paths: Vec<Vec<String>>,
}

impl SecretPaths {
    /// Only the generic names.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a path of keys such as `exporters::loki::auth::key`. A part `*` stands for one key,
    /// `**` for any number of them, and a component's type also stands for `type/name`.
    #[must_use]
    pub fn with(mut self, path: &str) -> Self {
        self.paths
            .push(path.split("::").map(str::to_owned).collect());
        self
    }

    fn declared(&self, path: &[String]) -> bool {
        self.paths.iter().any(|pattern| matches(pattern, path))
    }
}

/// Whether a path fits a pattern.
fn matches(pattern: &[String], path: &[String]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((part, rest)), _) if part == "**" => {
            matches(rest, path) || path.split_first().is_some_and(|(_, p)| matches(pattern, p))
        }
        (Some((part, rest)), Some((key, keys))) => {
            let same = part == "*"
                || part == key
                || key
                    .strip_prefix(part.as_str())
                    .is_some_and(|k| k.starts_with('/'));
            same && matches(rest, keys)
        }
        _ => false,
    }
}

/// The tree with every secret replaced by `[REDACTED]`. Nulls and empty texts stay.
pub fn redact(node: &Node, secrets: &SecretPaths) -> Node {
    walk(node, secrets, &mut Vec::new(), false)
}

fn walk(node: &Node, secrets: &SecretPaths, path: &mut Vec<String>, hidden: bool) -> Node {
    let hidden = hidden || secrets.declared(path);
    let value = match &node.value {
        NodeValue::Map(entries) => {
            let entries = entries.iter().map(|(key, inner)| {
                path.push(key.text.clone());
                let hide = hidden || is_secret(&key.text);
                let inner = walk(inner, secrets, path, hide);
                path.pop();
                (key.clone(), inner)
            });
            NodeValue::Map(entries.collect())
        }
        NodeValue::List(items) => {
            let items = items.iter().enumerate().map(|(i, inner)| {
                path.push(i.to_string());
                let inner = walk_item(inner, secrets, path, hidden);
                path.pop();
                inner
            });
            NodeValue::List(items.collect())
        }
        NodeValue::Null => NodeValue::Null,
        NodeValue::Str(text) if text.is_empty() => NodeValue::Str(String::new()),
        NodeValue::Str(text) if !hidden => NodeValue::Str(hide_url_password(text)),
        _ if hidden => NodeValue::Str(REDACTED.to_owned()),
        value => value.clone(),
    };
    let changed = value != node.value || matches!(value, NodeValue::List(_) | NodeValue::Map(_));
    let text = if changed { None } else { node.text.clone() };
    Node {
        value,
        span: node.span.clone(),
        text,
        expanded: node.expanded && !changed,
    }
}

/// In a list of `{name, value}` under a secret name, the names are no secret.
fn walk_item(node: &Node, secrets: &SecretPaths, path: &mut Vec<String>, hidden: bool) -> Node {
    let mut shown = walk(node, secrets, path, hidden);
    if let (NodeValue::Map(entries), Some(name)) = (&mut shown.value, node.get("name"))
        && node.get("value").is_some()
    {
        for (key, inner) in entries {
            if key.text == "name" {
                *inner = name.clone();
            }
        }
    }
    shown
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    if HARMLESS_ENDINGS.iter().any(|ending| key.ends_with(ending)) {
        return false;
    }
    MAPS.contains(&key.as_str())
        || NAMES.iter().any(|name| {
            key.strip_suffix(name)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('_'))
        })
}

/// Hides the password of each URL in a text.
fn hide_url_password(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        shown.push_str(head);
        let end = tail
            .find(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'') || c.is_whitespace())
            .unwrap_or(tail.len());
        let (authority, after) = tail.split_at(end);
        match authority.rsplit_once('@') {
            Some((user, host)) => {
                if let Some((name, _)) = user.split_once(':') {
                    shown.push_str(name);
                    shown.push(':');
                }
                shown.push_str(REDACTED);
                shown.push('@');
                shown.push_str(host);
            }
            None => shown.push_str(authority),
        }
        rest = after;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    #[test]
    fn secrets_are_hidden_by_name_by_declaration_and_in_urls() {
        let text = "
exporters:
  loki/a:
    endpoint: https://user:pa:ss@host:3100/push?a=b
    token_file: /run/token
    bearer_token: abc
    api-key: 123
    headers: {X-Key: k, list: [a]}
    auth: {key: mine, client_id: id, client_secret: s, password: }
    own: {deep: {thing: x}}
    plain: https://host/a@b
  other:
    own: {deep: {thing: shown}}
    headers: [{name: X, value: v}]
    empty: {password: ''}
";
        let secrets = SecretPaths::new()
            .with("exporters::loki::auth::key")
            .with("**::loki/a::own");
        let shown = redact(&parse(text, "t").unwrap(), &secrets);
        let expect = "
exporters:
  loki/a:
    endpoint: https://user:[REDACTED]@host:3100/push?a=b
    token_file: /run/token
    bearer_token: '[REDACTED]'
    api-key: '[REDACTED]'
    headers: {X-Key: '[REDACTED]', list: ['[REDACTED]']}
    auth: {key: '[REDACTED]', client_id: id, client_secret: '[REDACTED]', password: }
    own: {deep: {thing: '[REDACTED]'}}
    plain: https://host/a@b
  other:
    own: {deep: {thing: shown}}
    headers: [{name: X, value: '[REDACTED]'}]
    empty: {password: ''}
";
        let expect = parse(expect, "e").unwrap();
        assert!(
            shown.same_value(&expect),
            "{}",
            crate::render::to_yaml(&shown)
        );
        assert!(
            !format!("{shown:?}").contains("123"),
            "the text of a secret is gone as well"
        );
    }
}
