//! `set_semconv_span_name`: the name that the semantic conventions give a span, from its kind and attributes.
//!
//! Conventions for spans of HTTP, RPC, databases and messaging:
//! <https://opentelemetry.io/docs/specs/semconv/general/trace/>. Older names of attributes count, too.

use tailwater_pdata::{Key, Value};

use crate::ast::{At, Call};
use crate::compile::{Bound, Compiler};
use crate::error::{Fault, Mistake};
use crate::field::{Context, Field};
use crate::functions::{Arg, Param, Takes, opt, p};
use crate::scene::{Scene, SceneMut};
use crate::value::{Stored, Val};

pub(crate) const NAME: &str = "set_semconv_span_name";

const PARAMS: &[Param] = &[
    p("semconv_version", Takes::Text),
    opt("original_span_name_attribute", Takes::Text),
];

/// The versions 1.x.0 of the conventions that these names are those of.
const MINOR: std::ops::RangeInclusive<u32> = 37..=43;

/// The editor.
#[derive(Clone, Debug)]
pub(crate) struct SpanName {
    /// The attribute that keeps the name that a span had, if it becomes another one.
    original: Option<Key>,
}

/// Compiles its call.
pub(crate) fn compile(compiler: &Compiler, call: &At<Call>) -> Result<SpanName, Mistake> {
    let mistake = |why: String| Mistake::new(call.at, why);
    if compiler.context != Context::Span {
        let found = compiler.context.name();
        let why = format!("{NAME} is about spans: it stands in the context span, not in {found}");
        return Err(mistake(why));
    }
    let mut args = compiler
        .bind(call.at, NAME, PARAMS, &call.it.args)?
        .into_iter();
    let mut text = || match args.next() {
        Some(Bound::Arg(Arg::Text(text))) => Some(text),
        _ => None,
    };
    let (version, original) = (text().unwrap_or_default(), text());
    if !minor(&version).is_some_and(|minor| MINOR.contains(&minor)) {
        return Err(mistake(format!(
            "unsupported semconv version {version:?}: must be between 1.{}.0 and 1.{}.0",
            MINOR.start(),
            MINOR.end()
        )));
    }
    if original.as_deref() == Some("") {
        let why = "original_span_name_attribute cannot be an empty string";
        return Err(mistake(why.to_owned()));
    }
    Ok(SpanName {
        original: original.map(|key| Key::from(&*key)),
    })
}

/// The second number of a version 1.x or 1.x.0.
fn minor(version: &str) -> Option<u32> {
    let version = version.strip_prefix('v').unwrap_or(version);
    let rest = version.strip_prefix("1.")?;
    let minor = match rest.split_once('.') {
        Some((minor, patch)) if patch.bytes().all(|b| b == b'0') && !patch.is_empty() => minor,
        Some(_) => return None,
        None => rest,
    };
    minor.parse().ok()
}

/// A span's attributes, as text.
struct Span<'s>(&'s dyn Scene);

impl Span<'_> {
    /// The first of these that is there.
    fn any(&self, keys: &[&str]) -> Option<String> {
        keys.iter()
            .find_map(|key| match self.0.entry(Field::SpanAttributes, key) {
                Val::Nil => None,
                value => value.as_value().map(|v| v.to_display_string()),
            })
    }

    fn is_true(&self, key: &str) -> bool {
        matches!(self.0.entry(Field::SpanAttributes, key), Val::Bool(true))
    }

    /// What its kind of work is called; `None` leaves it the name it has.
    fn name(&self) -> Option<String> {
        let kind = match self.0.get(Field::Kind) {
            Val::Int(kind) => kind,
            _ => 0,
        };
        match kind {
            // A server.
            2 => self
                .http("http.route")
                .or_else(|| self.rpc())
                .or_else(|| self.messaging()),
            // A client.
            3 => self
                .http("url.template")
                .or_else(|| self.rpc())
                .or_else(|| self.database())
                .or_else(|| self.messaging()),
            // A producer and a consumer.
            4 | 5 => self.messaging(),
            _ => None,
        }
    }

    fn http(&self, subject: &str) -> Option<String> {
        let method = self.any(&["http.request.method", "http.method"])?;
        Some(match self.any(&[subject]) {
            Some(subject) => format!("{method} {subject}"),
            None => method,
        })
    }

    fn rpc(&self) -> Option<String> {
        let system = self.any(&["rpc.system.name", "rpc.system"])?;
        let method = self.any(&["rpc.method", "rpc.grpc.method"]);
        let service = self.any(&["rpc.service", "rpc.grpc.service"]);
        Some(match (service, method) {
            (Some(service), Some(method)) => format!("{service}/{method}"),
            (None, Some(method)) => method,
            (Some(service), None) => format!("{service}/*"),
            (None, None) => system,
        })
    }

    fn database(&self) -> Option<String> {
        let system = self.any(&["db.system.name", "db.system"])?;
        if let Some(summary) = self.any(&["db.query.summary"]) {
            return Some(summary);
        }
        let is_text = |text: &String| !text.is_empty();
        let operation = self.any(&["db.operation.name", "db.operation"]);
        let operation = operation.filter(is_text);
        let target = self.database_target().filter(is_text);
        Some(match (operation, target) {
            (Some(operation), Some(target)) => format!("{operation} {target}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => system,
        })
    }

    fn database_target(&self) -> Option<String> {
        let namespace = self.any(&["db.namespace", "db.name"]);
        let namespace = namespace.filter(|n| !n.is_empty());
        let within = self.any(&["db.collection.name", "db.stored_procedure.name"]);
        match (namespace, within) {
            (Some(namespace), Some(within)) => Some(format!("{namespace}.{within}")),
            (Some(one), None) | (None, Some(one)) => Some(one),
            (None, None) => self.server(),
        }
    }

    fn messaging(&self) -> Option<String> {
        let system = self.any(&["messaging.system"])?;
        let operation = self.any(&["messaging.operation.name", "messaging.operation"]);
        let destination = self.destination().filter(|d| !d.is_empty());
        Some(match (operation, destination) {
            (Some(operation), Some(destination)) => format!("{operation} {destination}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => system,
        })
    }

    fn destination(&self) -> Option<String> {
        for (key, name) in [
            ("messaging.destination.temporary", "(temporary)"),
            ("messaging.destination.anonymous", "(anonymous)"),
        ] {
            if self.is_true(key) {
                return Some(name.to_owned());
            }
        }
        let named = [
            "messaging.destination.template",
            "messaging.destination.name",
            "messaging.destination",
        ];
        self.any(&named).or_else(|| self.server())
    }

    fn server(&self) -> Option<String> {
        let address = self.any(&["server.address"])?;
        Some(match self.any(&["server.port"]) {
            Some(port) => format!("{address}:{port}"),
            None => address,
        })
    }
}

impl SpanName {
    /// Names the span of the scene.
    pub fn run(&self, scene: &mut dyn SceneMut) -> Result<(), Fault> {
        let span: &dyn SceneMut = scene;
        let Some(name) = Span(span).name().filter(|name| !name.is_empty()) else {
            return Ok(());
        };
        let original = match scene.get(Field::SpanName) {
            Val::Str(text) => String::from_utf8_lossy(&text).into_owned(),
            _ => String::new(),
        };
        if original == name {
            return Ok(());
        }
        scene.set(Field::SpanName, Stored::Text(name.into_bytes()))?;
        match &self.original {
            Some(key) => {
                let value = Stored::Value(Value::str(&original));
                scene.set_entry(Field::SpanAttributes, key, value)
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::minor;

    #[test]
    fn versions_are_read() {
        for (text, want) in [
            ("1.37.0", Some(37)),
            ("1.43", Some(43)),
            ("v1.40.0", Some(40)),
            ("1.40.1", None),
            ("1.40.", None),
            ("1", None),
            ("2.40.0", None),
            ("1.x.0", None),
        ] {
            assert_eq!(minor(text), want, "{text}");
        }
    }
}
