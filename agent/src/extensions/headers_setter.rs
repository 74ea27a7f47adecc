//! `headers_setter`: headers of what exporters send, of constants, files, and what is known of the client
//! whose data it is. Options are those of the collector's extension.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pipeline::auth::{Authenticator, ClientAuth, Roles, carried};
use tailwater_pipeline::client::ContextKey;
use tailwater_pipeline::factory::{ExtensionFactory, ExtensionSettings, NodeCx};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{BuildError, ExtensionNode};

use super::watched::Watched;

/// Headers that say how a request is sent; the client's own.
const OF_THE_CLIENT: [&str; 7] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "te",
];

/// The factory of `headers_setter`.
pub fn factory() -> ExtensionFactory {
    ExtensionFactory {
        kind: "headers_setter",
        about: "headers of what is sent, also of what clients sent",
        signals: &[],
        decode: |node, path, errors| {
            let settings = decode(node, path, errors)?;
            Some(Box::new(settings) as Box<dyn ExtensionSettings>)
        },
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Insert,
    Update,
    Upsert,
    Delete,
}

#[derive(Clone, PartialEq, Debug)]
enum From {
    Value(HeaderValue),
    File(PathBuf),
    /// With `default_value`, which is empty if it is not given.
    Client(ContextKey, HeaderValue),
    Nothing,
}

#[derive(Clone, PartialEq, Debug)]
struct Rule {
    name: HeaderName,
    action: Action,
    from: From,
}

#[derive(Clone)]
struct Settings {
    rules: Vec<Rule>,
    /// `additional_auth`.
    then: Option<String>,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    ("headers", "Rules, carried out in order. Required."),
    (
        "headers::0::key",
        "Name of the header. Those that say how a request is sent (`Content-Length` and the like) are refused.",
    ),
    (
        "headers::0::action",
        "insert (if there is none), update (if there is one), upsert, delete. An empty header is none.",
    ),
    (
        "headers::0::value",
        "A constant. One of it and the next three is required, but for delete.",
    ),
    (
        "headers::0::value_file",
        "File with the value, read again when it changes.",
    ),
    (
        "headers::0::from_context",
        "What is known of the client, as of the processor `attributes`.",
    ),
    (
        "headers::0::from_attribute",
        "What the authenticator of the receiver knows of the sender: `username`, `raw`.",
    ),
    (
        "headers::0::default_value",
        "For `from_context` and `from_attribute`: where the client has no such value, and for data from files; empty unless set.",
    ),
    (
        "additional_auth",
        "Id of an extension that adds to the headers after this one.",
    ),
];

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Settings> {
    let before = errors.len();
    let mut s = Section::new(node, path, errors);
    s.describe(OPTIONS);
    let rules = s.section_list("headers", rule).unwrap_or_default();
    let then = s.component_id("additional_auth").map(|id| id.to_string());
    if rules.is_empty() {
        s.error("headers is required: a list of key and where its value comes from");
    }
    s.finish();
    (errors.len() == before).then(|| Settings {
        rules: rules.into_iter().flatten().collect(),
        then,
    })
}

fn rule(s: &mut Section<'_, '_>) -> Option<Rule> {
    let key = s.string_required("key");
    let action = s.choice(
        "action",
        &[
            ("insert", Action::Insert),
            ("update", Action::Update),
            ("upsert", Action::Upsert),
            ("delete", Action::Delete),
        ],
        Action::Upsert,
    );
    let value = s.secret("value");
    let file = s.string_optional("value_file").filter(|f| !f.is_empty());
    let context = s.string_optional("from_context");
    let attribute = s.string_optional("from_attribute");
    let default = s.secret("default_value");
    let given = [
        value.is_some(),
        file.is_some(),
        context.is_some(),
        attribute.is_some(),
    ];
    let given = given.into_iter().filter(|g| *g).count();
    if action == Action::Delete {
        if given > 0 || default.is_some() {
            s.warn("action", "delete takes no value");
        }
    } else if given != 1 {
        s.error("exactly one of value, value_file, from_context and from_attribute is required");
    }
    if default.is_some() && context.is_none() && attribute.is_none() {
        s.warn(
            "default_value",
            "has no effect without from_context or from_attribute",
        );
    }
    let name = HeaderName::from_bytes(key?.as_bytes());
    let Ok(name) = name else {
        s.invalid("key", "must be the name of a header");
        return None;
    };
    if OF_THE_CLIENT.contains(&name.as_str()) {
        s.invalid("key", "says how a request is sent, and cannot be set");
    }
    let mut of = |key: &str, text: &str| {
        let value = HeaderValue::from_str(text);
        if value.is_err() {
            s.invalid(key, "has characters that a header cannot carry");
        }
        value.ok().map(|mut value| {
            value.set_sensitive(true);
            value
        })
    };
    let default = match &default {
        Some(default) => of("default_value", default.expose())?,
        None => HeaderValue::from_static(""),
    };
    let from = match (value, file, context, attribute) {
        _ if action == Action::Delete => From::Nothing,
        (Some(value), ..) => From::Value(of("value", value.expose())?),
        (_, Some(file), ..) => From::File(file.into()),
        (_, _, Some(key), _) => From::Client(ContextKey::parse(&key), default),
        (.., Some(name)) => From::Client(ContextKey::Auth(name.into()), default),
        _ => From::Nothing,
    };
    Some(Rule { name, action, from })
}

impl Settings {
    fn setter(&self) -> Result<Setter, String> {
        let mut rules = Vec::new();
        for rule in &self.rules {
            let file = match &rule.from {
                From::File(path) => Some(Watched::read(path, text)?),
                _ => None,
            };
            rules.push((rule.clone(), file));
        }
        let reads = self.rules.iter().filter_map(|rule| match &rule.from {
            From::Client(key, _) => Some(key.clone()),
            _ => None,
        });
        Ok(Setter {
            rules,
            reads: reads.collect(),
            then: self.then.clone(),
        })
    }
}

/// The value in a file; space around it does not count.
fn text(text: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::from_str(text.trim());
    let mut value = value.map_err(|_| "has characters that a header cannot carry".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

impl ExtensionSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExtensionNode>, BuildError> {
        let setter = self
            .setter()
            .map_err(|e| BuildError::new(format!("extension \"{}\"", cx.id), e))?;
        Ok(Box::new(HeadersSetter(Arc::new(setter))))
    }

    fn authenticates(&self) -> Roles {
        Roles {
            client: true,
            server: false,
            reads_clients: self
                .rules
                .iter()
                .any(|rule| matches!(rule.from, From::Client(..))),
        }
    }

    fn reach(&self, reach: &mut Reach) {
        for rule in &self.rules {
            if let From::File(path) = &rule.from {
                reach.reads_file(path);
            }
        }
    }
}

struct HeadersSetter(Arc<Setter>);

impl ExtensionNode for HeadersSetter {
    fn start(&mut self) -> Result<(), BuildError> {
        Ok(())
    }

    fn authenticator(&self) -> Option<Authenticator> {
        Some(Authenticator {
            client: Some(self.0.clone()),
            server: None,
        })
    }

    fn stop(&mut self) {}
}

struct Setter {
    rules: Vec<(Rule, Option<Watched<HeaderValue>>)>,
    reads: Vec<ContextKey>,
    then: Option<String>,
}

impl ClientAuth for Setter {
    fn authenticate(&self, headers: &mut HeaderMap) -> Result<(), String> {
        for (rule, file) in &self.rules {
            let there = headers.get(&rule.name).is_some_and(|v| !v.is_empty());
            let wanted = match rule.action {
                Action::Delete => {
                    headers.remove(&rule.name);
                    false
                }
                Action::Insert => !there,
                Action::Update => there,
                Action::Upsert => true,
            };
            if !wanted {
                continue;
            }
            let value = match (&rule.from, file) {
                (From::Value(value), _) => value.clone(),
                (From::File(_), Some(file)) => HeaderValue::clone(&file.get()),
                (From::Client(key, default), _) => carried(key, headers).unwrap_or(default).clone(),
                _ => continue,
            };
            headers.insert(rule.name.clone(), value);
        }
        Ok(())
    }

    fn reads(&self) -> &[ContextKey] {
        &self.reads
    }

    fn then(&self) -> Option<&str> {
        self.then.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_pipeline::auth::{Authenticators, carry, uncarry};

    fn settings(yaml: &str) -> Result<Settings, String> {
        let node = tailwater_config::parse(yaml, "f").unwrap();
        let mut errors = Errors::new();
        let path = KeyPath::from("extensions::headers_setter");
        decode(&node, &path, &mut errors).ok_or_else(|| errors.to_string())
    }

    fn after(yaml: &str, before: &[(&'static str, &str)]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in before {
            headers.insert(*name, value.parse().unwrap());
        }
        carry(&ContextKey::parse("tenant"), "of client", &mut headers);
        carry(&ContextKey::parse("auth.username"), "anna", &mut headers);
        let setter = settings(yaml).unwrap().setter().unwrap();
        setter.authenticate(&mut headers).unwrap();
        uncarry(&mut headers);
        let text = |v: &HeaderValue| v.to_str().unwrap().to_owned();
        let mut all: Vec<_> = headers
            .iter()
            .map(|(n, v)| (n.to_string(), text(v)))
            .collect();
        all.sort();
        all
    }

    /// Guarantee: each action does what it says, in order, with values of each kind, and nothing that is
    /// known of a client is sent but where a rule says so.
    #[test]
    fn rules_are_applied_in_order() {
        let had: &[(&str, &str)] = &[("x-a", "old"), ("x-empty", "")];
        for (rules, expect) in [
            ("[{key: X-A, action: insert, value: new}]", "x-a=old"),
            (
                "[{key: X-B, action: insert, value: new}]",
                "x-a=old x-b=new",
            ),
            (
                "[{key: X-Empty, action: insert, value: new}]",
                "x-a=old x-empty=new",
            ),
            ("[{key: X-A, action: update, value: new}]", "x-a=new"),
            ("[{key: X-B, action: update, value: new}]", "x-a=old"),
            ("[{key: X-A, value: new}]", "x-a=new"),
            ("[{key: X-A, action: delete}]", ""),
            ("[{key: X-A, from_context: Tenant}]", "x-a=of client"),
            (
                "[{key: X-A, from_context: metadata.tenant, default_value: d}]",
                "x-a=of client",
            ),
            (
                "[{key: X-A, from_context: other, default_value: d}]",
                "x-a=d",
            ),
            ("[{key: X-A, from_context: other}]", "x-a="),
            ("[{key: X-A, from_attribute: username}]", "x-a=anna"),
            (
                "[{key: X-A, from_attribute: raw, default_value: d}]",
                "x-a=d",
            ),
            (
                "[{key: X-A, action: delete}, {key: X-A, action: insert, value: '1'}, {key: X-A, action: update, value: '2'}]",
                "x-a=2",
            ),
        ] {
            let got = after(&format!("headers: {rules}"), had);
            let got = got.iter().filter(|(n, v)| n != "x-empty" || !v.is_empty());
            let got: Vec<_> = got.map(|(n, v)| format!("{n}={v}")).collect();
            assert_eq!(got.join(" "), expect, "{rules}");
        }
    }

    #[test]
    fn a_file_is_read_again_when_it_changes() {
        let dir = tailwater_testkit::tempdir::TempDir::new("headers-setter").unwrap();
        let path = dir.join("value");
        let yaml = format!("headers: [{{key: x, value_file: {}}}]", path.display());
        assert!(settings(&yaml).unwrap().setter().is_err(), "there is none");
        std::fs::write(&path, "one\n").unwrap();
        let setter = settings(&yaml).unwrap().setter().unwrap();
        let mut headers = HeaderMap::new();
        setter.authenticate(&mut headers).unwrap();
        assert_eq!(headers["x"], "one");
        std::fs::write(&path, "number two").unwrap();
        setter.authenticate(&mut headers).unwrap();
        assert_eq!(headers["x"], "number two");
    }

    /// Guarantee: an additional extension acts after this one, what both read is known, and a circle is
    /// nobody.
    #[test]
    fn extensions_follow_one_another() {
        let of = |yaml: &str| Authenticator {
            client: Some(Arc::new(settings(yaml).unwrap().setter().unwrap())),
            server: None,
        };
        let first =
            "headers: [{key: x, value: '1'}, {key: t, from_context: a}]\nadditional_auth: h/2";
        let second = "headers: [{key: x, value: '2'}, {key: u, from_attribute: b}]";
        let both = [("h".to_owned(), of(first)), ("h/2".to_owned(), of(second))];
        let both: Authenticators = both.into_iter().collect();
        let auth = both.client("h").unwrap();
        assert_eq!(
            auth.reads(),
            [ContextKey::parse("a"), ContextKey::parse("auth.b")]
        );
        let mut headers = HeaderMap::new();
        auth.authenticate(&mut headers).unwrap();
        assert_eq!(headers["x"], "2");
        let circle = [("h/2".to_owned(), of(first))];
        let circle: Authenticators = circle.into_iter().collect();
        assert!(circle.client("h/2").is_none());
    }

    #[test]
    fn mistakes_are_named() {
        for (yaml, name) in [
            ("", "headers is required"),
            ("headers: []", "headers is required"),
            ("headers: [{value: a}]", "key"),
            ("headers: [{key: x}]", "exactly one of"),
            (
                "headers: [{key: x, value: a, from_context: b}]",
                "exactly one of",
            ),
            ("headers: [{key: 'a b', value: a}]", "name of a header"),
            (
                "headers: [{key: Content-Length, value: '1'}]",
                "cannot be set",
            ),
            ("headers: [{key: x, value: \"a\\nb\"}]", "value"),
            ("headers: [{key: x, value: a, action: upsrt}]", "upsert"),
            ("headers: [{key: x, from_contxt: a}]", "from_context"),
        ] {
            let text = settings(yaml).err().unwrap_or_default();
            assert!(text.contains(name), "{yaml}: {text}");
        }
    }
}
