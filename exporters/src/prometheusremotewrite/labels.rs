//! From attributes to the labels of series.

use std::cmp::Ordering;

use tailwater_pdata::ValueRef;
use tailwater_pdata::otlp::metrics::{AnyValue, Attribute, ResourceMetrics, ScopeMetrics};

use super::names::Naming;
use super::options::TranslationOptions;
use super::series::Label;
use super::symbols::{Symbol, Symbols};

/// Attributes of a resource that say what is measured: they become `job` and `instance`.
const SERVICE_NAME: &[u8] = b"service.name";
const SERVICE_NAMESPACE: &[u8] = b"service.namespace";
const SERVICE_INSTANCE: &[u8] = b"service.instance.id";

/// Whether a resource attribute is one of those that become `job` and `instance`.
fn is_service(key: &[u8]) -> bool {
    [SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_INSTANCE].contains(&key)
}

/// What a label comes from. Of several labels of one name, the greatest counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Rank {
    /// `external_labels`.
    External,
    /// An attribute of the point.
    Point,
    /// An attribute of the resource that is copied to all points; in the place of an attribute of
    /// the point with the same key.
    Resource,
    /// `job` and `instance`.
    Target,
    /// The scope.
    Scope,
}

impl Rank {
    fn is_attribute(self) -> bool {
        matches!(self, Rank::Point | Rank::Resource)
    }
}

/// A label that may not be the only one of its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    name: Symbol,
    value: Symbol,
    /// The attribute's key, a number of [`LabelMaker::keys`].
    key: Symbol,
    rank: Rank,
}

/// Makes labels. Remembers texts over batches.
pub(super) struct LabelMaker {
    pub symbols: Symbols,
    naming: Naming,
    external: Vec<(String, String)>,
    /// Keys of attributes, and the symbols of the names that are made of them.
    keys: Symbols,
    names: Vec<Symbol>,
    text: Vec<u8>,
    order: Order,
}

/// How candidates were sorted the last time. Points of a metric mostly have the same attributes.
#[derive(Default)]
struct Order {
    /// Names, keys and ranks in the order they came.
    came: Vec<(Symbol, Symbol, Rank)>,
    /// Where each stands when sorted.
    sorted: Vec<u32>,
    /// No two have the same name.
    distinct: bool,
}

impl LabelMaker {
    pub fn new(options: &TranslationOptions) -> LabelMaker {
        LabelMaker {
            symbols: Symbols::default(),
            naming: options.naming.clone(),
            external: options.external_labels.clone(),
            keys: Symbols::default(),
            names: Vec::new(),
            text: Vec::new(),
            order: Order::default(),
        }
    }

    /// Forgets all texts.
    pub fn clear(&mut self) {
        self.symbols.clear();
        self.keys.clear();
        self.names.clear();
        self.order = Order::default();
    }

    /// Bytes of memory.
    pub fn heap_bytes(&self) -> usize {
        self.symbols.heap_bytes() + self.keys.heap_bytes() + 4 * self.names.capacity()
    }

    /// Texts that are remembered.
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    fn key(&mut self, key: &[u8]) -> (Symbol, Symbol) {
        let number = self.keys.intern(key);
        if number as usize == self.names.len() {
            let text = String::from_utf8_lossy(key);
            let name = self.symbols.intern(self.naming.label(&text).as_bytes());
            self.names.push(name);
        }
        (number, self.names[number as usize])
    }

    fn value(&mut self, value: &AnyValue<'_>) -> Symbol {
        match value {
            AnyValue::Plain(ValueRef::Str(text)) => self.symbols.intern(text),
            other => {
                self.text.clear();
                other.as_ref().write_string(&mut self.text);
                self.symbols.intern(&self.text)
            }
        }
    }

    /// An attribute as a label.
    #[inline]
    pub fn attribute(&mut self, attribute: &Attribute<'_>, rank: Rank) -> Candidate {
        let (key, name) = self.key(attribute.key());
        let value = self.value(&attribute.value());
        Candidate {
            name,
            value,
            key,
            rank,
        }
    }

    fn fixed(&mut self, name: &str, value: &[u8], rank: Rank) -> Candidate {
        Candidate {
            name: self.symbols.intern(name.as_bytes()),
            value: self.symbols.intern(value),
            key: 0,
            rank,
        }
    }

    /// The labels that all series of a resource have: `job`, `instance` and the external ones. True
    /// if there is one of the first two.
    pub fn target(&mut self, resource: ResourceMetrics<'_>, out: &mut Vec<Candidate>) -> bool {
        let find = |key: &[u8]| {
            let mut attributes = resource.attributes();
            let value = attributes.find(|a| a.key() == key)?.value();
            let mut text = Vec::new();
            value.as_ref().write_string(&mut text);
            Some(text)
        };
        let before = out.len();
        if let Some(name) = find(SERVICE_NAME) {
            let job = match find(SERVICE_NAMESPACE) {
                Some(space) => [&space[..], b"/", &name].concat(),
                None => name,
            };
            out.push(self.fixed("job", &job, Rank::Target));
        }
        if let Some(instance) = find(SERVICE_INSTANCE) {
            out.push(self.fixed("instance", &instance, Rank::Target));
        }
        let identified = out[before..]
            .iter()
            .any(|label| !self.symbols.get(label.value).is_empty());
        for (name, value) in std::mem::take(&mut self.external) {
            out.push(self.fixed(&name, value.as_bytes(), Rank::External));
            self.external.push((name, value));
        }
        identified
    }

    /// The resource's attributes as labels; `all`: those that became `job` and `instance`, too.
    pub fn resource(&mut self, resource: ResourceMetrics<'_>, all: bool, out: &mut Vec<Candidate>) {
        for attribute in resource.attributes() {
            if all || !is_service(attribute.key()) {
                out.push(self.attribute(&attribute, Rank::Resource));
            }
        }
    }

    /// What the labels `otel_scope_...` are.
    pub fn scope(&mut self, scope: ScopeMetrics<'_>, out: &mut Vec<Candidate>) {
        let texts = [
            ("otel_scope_name", scope.name),
            ("otel_scope_version", scope.version),
            ("otel_scope_schema_url", scope.schema_url),
        ];
        for (name, value) in texts {
            if !value.is_empty() {
                out.push(self.fixed(name, value, Rank::Scope));
            }
        }
        for attribute in scope.attributes() {
            let key = String::from_utf8_lossy(attribute.key());
            let name = self.naming.label(&format!("otel_scope_{key}")).into_owned();
            let value = self.value(&attribute.value());
            let name = self.symbols.intern(name.as_bytes());
            // An attribute does not take the place of the name, version or schema.
            if !out.iter().any(|l| l.rank == Rank::Scope && l.name == name) {
                out.push(Candidate {
                    name,
                    value,
                    key: 0,
                    rank: Rank::Scope,
                });
            }
        }
    }

    /// Decides which candidates are labels, sorted by name. Attributes whose names became the same
    /// are one label with their values joined by `;`, in the order of their keys. Labels without
    /// a name or a value are none.
    pub fn resolve(&mut self, candidates: &[Candidate], out: &mut Vec<Label>) {
        let came = |c: &Candidate| (c.name, c.key, c.rank);
        let same = candidates
            .iter()
            .map(came)
            .eq(self.order.came.iter().copied());
        if !same {
            self.sort(candidates);
        }
        out.clear();
        if !self.order.distinct {
            return self.resolve_runs(candidates, out);
        }
        for &at in &self.order.sorted {
            let Candidate { name, value, .. } = candidates[at as usize];
            self.put(name, value, out);
        }
    }

    fn put(&self, name: Symbol, value: Symbol, out: &mut Vec<Label>) {
        let empty = |symbol| self.symbols.get(symbol).is_empty();
        if !empty(name) && !empty(value) {
            out.push((name, value));
        }
    }

    #[cold]
    fn sort(&mut self, candidates: &[Candidate]) {
        let (symbols, keys) = (&self.symbols, &self.keys);
        let of = |at: &u32| &candidates[*at as usize];
        let Order {
            came,
            sorted,
            distinct,
        } = &mut self.order;
        came.clear();
        came.extend(candidates.iter().map(|c| (c.name, c.key, c.rank)));
        sorted.clear();
        sorted.extend(0..candidates.len() as u32);
        sorted.sort_by(|a, b| order(symbols, keys, of(a), of(b)));
        *distinct = sorted.windows(2).all(|w| of(&w[0]).name != of(&w[1]).name);
    }

    /// With several candidates of a name.
    #[cold]
    fn resolve_runs(&mut self, candidates: &[Candidate], out: &mut Vec<Label>) {
        let sorted = self.order.sorted.iter();
        let sorted: Vec<Candidate> = sorted.map(|at| candidates[*at as usize]).collect();
        for run in sorted.chunk_by(|a, b| a.name == b.name) {
            let value = match run {
                [first, second, ..] if first.rank.is_attribute() && second.rank.is_attribute() => {
                    self.joined(run)
                }
                _ => run[0].value,
            };
            self.put(run[0].name, value, out);
        }
    }

    /// The values of attributes of one name.
    #[cold]
    fn joined(&mut self, run: &[Candidate]) -> Symbol {
        let mut text = Vec::new();
        let mut before: Option<&Candidate> = None;
        for label in run.iter().filter(|c| c.rank.is_attribute()) {
            let value = self.symbols.get(label.value);
            // The resource's stands in the place of the point's; it comes first.
            let replaced = before.is_some_and(|b| b.key == label.key && b.rank != label.rank);
            if replaced || text == value {
                continue;
            }
            if before.is_some() {
                text.push(b';');
            }
            text.extend_from_slice(value);
            before = Some(label);
        }
        self.symbols.intern(&text)
    }
}

/// By name; of one name, the label that counts first, and attributes by key.
fn order(symbols: &Symbols, keys: &Symbols, a: &Candidate, b: &Candidate) -> Ordering {
    if a.name != b.name {
        return symbols.get(a.name).cmp(symbols.get(b.name));
    }
    if a.rank.is_attribute() && b.rank.is_attribute() {
        let by_key = keys.get(a.key).cmp(keys.get(b.key));
        return by_key.then(b.rank.cmp(&a.rank));
    }
    b.rank.cmp(&a.rank)
}
