//! What is in requests as text for people, in the order and with the labels that the collector uses.

use std::io::Write;

use jiff::Timestamp;
use tailwater_pdata::Signal;
use tailwater_pdata::ValueRef;
use tailwater_pdata::otlp::Encoded;
use tailwater_pdata::otlp::edit::View;

use super::options::Verbosity;
use super::{logs, metrics, traces};

/// The text of a batch as it is made.
pub(super) struct Text<'o> {
    pub out: &'o mut Vec<u8>,
}

/// Appends the text of a batch. Nothing for [`Verbosity::Basic`].
pub(super) fn render(verbosity: Verbosity, batch: &Encoded, out: &mut Vec<u8>) {
    let detailed = match verbosity {
        Verbosity::Basic => return,
        Verbosity::Normal => false,
        Verbosity::Detailed => true,
    };
    let signal = names(batch.signal());
    let mut text = Text { out };
    let requests = batch.views();
    let resources = requests.flat_map(|r| r.messages(signal.resources).collect::<Vec<_>>());
    for (i, resource) in resources.enumerate() {
        match detailed {
            true => text.detailed(signal, i, &resource),
            false => text.normal(signal, i, &resource),
        }
    }
}

/// What the messages of a signal are called.
pub(super) struct Names {
    /// The field of a request.
    pub resources: &'static str,
    /// The field of a resource.
    pub scopes: &'static str,
    /// How a resource and a scope are titled in detail.
    detailed: [&'static str; 2],
    /// And in normal verbosity.
    normal: [&'static str; 2],
    /// Shows what is in a scope.
    items: [fn(&mut Text<'_>, &View<'_>); 2],
}

static LOGS: Names = Names {
    resources: "resource_logs",
    scopes: "scope_logs",
    detailed: ["ResourceLog", "ScopeLogs"],
    normal: ["ResourceLog", "ScopeLog"],
    items: [logs::normal, logs::detailed],
};
static METRICS: Names = Names {
    resources: "resource_metrics",
    scopes: "scope_metrics",
    detailed: ["ResourceMetrics", "ScopeMetrics"],
    normal: ["ResourceMetrics", "ScopeMetrics"],
    items: [metrics::normal, metrics::detailed],
};
static TRACES: Names = Names {
    resources: "resource_spans",
    scopes: "scope_spans",
    detailed: ["ResourceSpans", "ScopeSpans"],
    normal: ["ResourceTraces", "ScopeTraces"],
    items: [traces::normal, traces::detailed],
};

/// What the messages of `signal` are called.
pub(super) fn names(signal: Signal) -> &'static Names {
    match signal {
        Signal::Logs => &LOGS,
        Signal::Metrics => &METRICS,
        Signal::Traces => &TRACES,
    }
}

impl Text<'_> {
    /// Appends formatted text. It must not hold data.
    pub fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.out
            .write_fmt(text)
            .expect("writing to a vector cannot fail");
    }

    /// Appends data with its control characters escaped.
    pub fn data(&mut self, bytes: &[u8]) {
        for c in String::from_utf8_lossy(bytes).chars() {
            if c.is_control() && c != '\t' {
                self.put(format_args!("{}", c.escape_default()));
            } else {
                self.out
                    .extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }

    /// Appends a line of a label and data.
    pub fn line(&mut self, label: &str, bytes: &[u8]) {
        self.put(format_args!("{label}: "));
        self.data(bytes);
        self.out.push(b'\n');
    }

    /// Appends the value as text.
    pub fn plain(&mut self, value: ValueRef<'_>) {
        let mut text = Vec::new();
        value.write_string(&mut text);
        self.data(&text);
    }

    /// Appends the value with its type.
    pub fn typed(&mut self, value: ValueRef<'_>) {
        let name = match value {
            ValueRef::Null => "Empty",
            ValueRef::Bool(_) => "Bool",
            ValueRef::Int(_) => "Int",
            ValueRef::Double(_) => "Double",
            ValueRef::Str(_) => "Str",
            ValueRef::Bytes(_) => "Bytes",
            ValueRef::List(_) => "Slice",
            ValueRef::Map(_) => "Map",
        };
        self.put(format_args!("{name}("));
        self.plain(value);
        self.out.push(b')');
    }

    /// Appends `key=value` for each attribute; gives how many there are.
    pub fn pairs(&mut self, of: &View<'_>, list: &str, before: &str, between: &str) -> usize {
        let mut n = 0;
        for (key, value) in of.pairs(list) {
            let gap = if n == 0 { before } else { between };
            self.out.extend_from_slice(gap.as_bytes());
            self.data(key.as_bytes());
            self.out.push(b'=');
            self.plain(value.as_ref());
            n += 1;
        }
        n
    }

    /// Appends attributes under a title, `indent` columns in; nothing if there are none.
    pub fn list(&mut self, title: &str, indent: usize, of: &View<'_>, list: &str) {
        for (i, (key, value)) in of.pairs(list).enumerate() {
            if i == 0 {
                self.put(format_args!("{title}:\n"));
            }
            self.put(format_args!("{:indent$}     -> ", ""));
            self.data(key.as_bytes());
            self.put(format_args!(": "));
            self.typed(value.as_ref());
            self.out.push(b'\n');
        }
    }

    /// Appends a line with an id; it is empty if it is unset.
    pub fn id(&mut self, label: &str, id: &[u8]) {
        self.put(format_args!("{label}: {}\n", hex(id)));
    }

    /// Appends a line with a time in nanoseconds.
    pub fn time(&mut self, label: &str, ns: u64) {
        self.put(format_args!("{label}: {}\n", time(ns)));
    }

    fn normal(&mut self, names: &Names, i: usize, resource: &View<'_>) {
        let [resource_name, scope_name] = names.normal;
        self.put(format_args!("{resource_name} #{i}"));
        self.bracketed(" ", resource.bytes("schema_url"));
        resource.message("resource", |r| self.pairs(r, "attributes", " ", " "));
        self.out.push(b'\n');
        for (j, scope) in resource.messages(names.scopes).enumerate() {
            self.put(format_args!("{scope_name} #{j}"));
            scope.message("scope", |s| {
                let (name, version) = (s.bytes("name"), s.bytes("version"));
                if !(name.is_empty() && version.is_empty()) {
                    self.out.push(b' ');
                }
                self.data(name);
                if !version.is_empty() {
                    self.out.push(b'@');
                    self.data(version);
                }
            });
            self.bracketed(" ", scope.bytes("schema_url"));
            scope.message("scope", |s| self.pairs(s, "attributes", " ", " "));
            self.out.push(b'\n');
            names.items[0](self, &scope);
        }
    }

    fn bracketed(&mut self, before: &str, text: &[u8]) {
        if !text.is_empty() {
            self.put(format_args!("{before}["));
            self.data(text);
            self.out.push(b']');
        }
    }

    fn detailed(&mut self, names: &Names, i: usize, resource: &View<'_>) {
        let [resource_name, scope_name] = names.detailed;
        self.put(format_args!("{resource_name} #{i}\n"));
        self.line("Resource SchemaURL", resource.bytes("schema_url"));
        resource.message("resource", |r| {
            self.list("Resource attributes", 0, r, "attributes");
            self.entities(r);
        });
        for (j, scope) in resource.messages(names.scopes).enumerate() {
            self.put(format_args!("{scope_name} #{j}\n{scope_name} "));
            self.line("SchemaURL", scope.bytes("schema_url"));
            scope.message("scope", |s| {
                self.put(format_args!("InstrumentationScope "));
                self.data(s.bytes("name"));
                self.out.push(b' ');
                self.data(s.bytes("version"));
                self.out.push(b'\n');
                self.list("InstrumentationScope attributes", 0, s, "attributes");
            });
            names.items[1](self, &scope);
        }
    }

    fn entities(&mut self, resource: &View<'_>) {
        for (i, entity) in resource.messages("entity_refs").enumerate() {
            if i == 0 {
                self.put(format_args!("Resource entity refs:\n"));
            }
            self.put(format_args!("     -> Entity ref #{i}:\n"));
            self.line("          -> Type", entity.bytes("type"));
            let schema = entity.bytes("schema_url");
            if !schema.is_empty() {
                self.line("          -> Schema URL", schema);
            }
            for (title, list) in [("ID", "id_keys"), ("Description", "description_keys")] {
                for (k, key) in entity.texts(list).enumerate() {
                    if k == 0 {
                        self.put(format_args!("          -> {title} keys:\n"));
                    }
                    self.put(format_args!("               -> "));
                    self.data(key);
                    self.out.push(b'\n');
                }
            }
        }
    }
}

/// The id in hexadecimal; nothing if it is unset.
pub(super) fn hex(id: &[u8]) -> String {
    match id.iter().any(|b| *b != 0) {
        true => id.iter().map(|byte| format!("{byte:02x}")).collect(),
        false => String::new(),
    }
}

/// A time in nanoseconds.
pub(super) fn time(ns: u64) -> String {
    // The collector, too, takes what is beyond the year 2262 for a time before 1970.
    let time = Timestamp::from_nanosecond(i128::from(ns as i64)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
