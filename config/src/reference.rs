//! What options a decoder reads, learned by running it.
//!
//! The code that decodes is the list of options, so nothing else is written down: [`learn`] runs a
//! decoder over a configuration that is empty while every getter of
//! [`Section`](crate::Section) takes note of its key, the kind of its value and its default, and
//! answers as if something had been written. Where an answer may lead to other options (a name out of
//! several, a switch, a section that may be absent), the decoder is run again with every other answer.
//! Texts about options come from [`Section::describe`](crate::Section::describe) beside the getters.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use crate::error::{Errors, KeyPath};
use crate::node::{Key, Node, NodeValue, Span};

/// The segment of a path that stands for a name that is free.
pub const ANY_NAME: &str = "NAME";
/// The segment of a path that stands for each element of a list.
pub const ELEMENT: &str = "0";
/// Most runs of one decoder: alternatives beyond are not walked, and [`learn`] says so.
const RUNS_MAX: usize = 100_000;

/// The kind of a value.
#[derive(Clone, PartialEq, Debug)]
pub enum ValueKind {
    /// true or false.
    Bool,
    /// Text.
    Text,
    /// Text that is never shown.
    Secret,
    /// The id of a component.
    ComponentId,
    /// A whole number, with what it may be.
    Integer(Bounds),
    /// A number, with what it may be.
    Number(Bounds),
    /// A duration, with what it may be.
    Duration(Bounds),
    /// A number of bytes, with what it may be.
    Bytes(Bounds),
    /// One of these names.
    OneOf {
        /// The names.
        names: Vec<String>,
        /// Whether their case does not count.
        any_case: bool,
    },
    /// Texts.
    TextList,
    /// Free names with texts.
    TextMap,
    /// Free names with secrets.
    SecretMap,
    /// A map of options.
    Section,
    /// A list; its elements may be maps of options.
    List,
    /// A map of free names.
    Map,
    /// Any value.
    Any,
}

/// What a number may be, as written in problems: `from 1 up to 9`; empty without limits. The numbers are
/// those of the kind: durations in nanoseconds.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Bounds {
    /// In words.
    pub text: String,
    /// The least, if it is included.
    pub least: Option<f64>,
    /// The most, if it is included.
    pub most: Option<f64>,
}

/// One option.
#[derive(Clone, PartialEq, Debug)]
pub struct OptionRecord {
    /// Where it stands below the decoder, by segments: keys, [`ELEMENT`], [`ANY_NAME`], and
    /// `<name>` for a map whose options depend on that name.
    pub path: Vec<String>,
    /// What it takes. Several if it is read in several ways.
    pub kinds: Vec<ValueKind>,
    /// Its default as it would be written, if the getter knows it.
    pub default: Option<String>,
    /// It must be there whenever its section is.
    pub required: bool,
    /// What it does, and whether it is an option that the collector does not have.
    pub text: Option<OptionText>,
}

/// What an option does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OptionText {
    /// An option of ours.
    pub own: bool,
    /// In words.
    pub text: String,
}

/// An option that is refused by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedOption {
    /// As of [`OptionRecord`].
    pub path: Vec<String>,
    /// Why, and what to do instead.
    pub why: String,
}

/// What a decoder reads.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Reference {
    /// In the order in which they were read at first.
    pub options: Vec<OptionRecord>,
    /// What is refused by name.
    pub refused: Vec<RefusedOption>,
    /// Descriptions of what is no option, by path: a mistake in the code.
    pub strays: Vec<String>,
    /// Not all alternatives were walked.
    pub is_cut: bool,
}

/// Runs `decode` until every alternative was walked.
pub fn learn(mut decode: impl FnMut(&Node, &KeyPath, &mut Errors)) -> Reference {
    let node = Node::new(NodeValue::Null, Span::start_of("reference"));
    let mut recording = Box::new(Recording::default());
    let mut runs = 0;
    loop {
        let mut errors = Errors::new();
        errors.recording = Some(recording);
        decode(&node, &KeyPath::root(), &mut errors);
        recording = errors.recording.take().unwrap_or_default();
        runs += 1;
        match recording.waiting.pop() {
            Some(answers) if runs < RUNS_MAX => recording.answers = answers,
            Some(_) => {
                recording.is_cut = true;
                break;
            }
            None => break,
        }
    }
    recording.finish()
}

/// What getters take note of, over all runs.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Recording {
    /// The answers of this run that are not the first ones.
    answers: BTreeMap<String, usize>,
    /// Answers of runs to come.
    waiting: Vec<BTreeMap<String, usize>>,
    /// Where there was a choice.
    met: BTreeSet<String>,
    options: Vec<Noted>,
    places: HashMap<String, usize>,
    /// How often each section was begun.
    begun: HashMap<String, usize>,
    texts: BTreeMap<String, OptionText>,
    refused: Vec<(String, String)>,
    is_cut: bool,
}

#[derive(Clone, PartialEq, Debug)]
struct Noted {
    path: String,
    kinds: Vec<ValueKind>,
    default: Option<String>,
    /// In how many of the times that its section was begun it was required.
    required: usize,
    /// The begin of its section in which it was required the last time.
    last_begin: usize,
}

impl Recording {
    /// Which of `ways` a getter goes; the first one comes first.
    pub fn way(&mut self, path: &KeyPath, what: &str, ways: usize) -> usize {
        let site = format!("{}#{what}", path.as_str());
        if let Some(way) = self.answers.get(&site) {
            return *way;
        }
        if self.met.insert(site.clone()) {
            // Backwards, as the last one waiting is the next one to run.
            for way in (1..ways).rev() {
                let mut answers = self.answers.clone();
                answers.insert(site.clone(), way);
                self.waiting.push(answers);
            }
        }
        0
    }

    /// A section is begun.
    pub fn begin(&mut self, path: &KeyPath) {
        *self.begun.entry(path.as_str().to_owned()).or_default() += 1;
    }

    /// An option is read.
    pub fn note(&mut self, path: &KeyPath, kind: ValueKind) {
        let noted = self.noted(path);
        let is_known = noted.kinds.iter_mut().any(|known| same(known, &kind));
        if !is_known {
            noted.kinds.push(kind);
        }
    }

    /// An option is read that must be there.
    pub fn require(&mut self, path: &KeyPath) {
        let begun = self.begun.get(parent(path.as_str())).copied().unwrap_or(0);
        let noted = self.noted(path);
        if noted.last_begin < begun {
            noted.required += 1;
            noted.last_begin = begun;
        }
    }

    /// An option has this default.
    pub fn set_default(&mut self, path: &KeyPath, value: String) {
        self.noted(path).default.get_or_insert(value);
    }

    /// An option does this; what was said first counts.
    pub fn describe(&mut self, path: KeyPath, text: &str) {
        if self.texts.contains_key(path.as_str()) {
            return;
        }
        let (own, text) = match text.strip_prefix("own: ") {
            Some(text) => (true, text),
            None => (false, text),
        };
        let text = text.to_owned();
        self.texts
            .insert(path.as_str().to_owned(), OptionText { own, text });
    }

    /// An option is refused.
    pub fn refuse(&mut self, path: &KeyPath, why: &str) {
        let path = path.as_str();
        if !self.refused.iter().any(|(known, _)| known == path) {
            self.refused.push((path.to_owned(), why.to_owned()));
        }
    }

    fn noted(&mut self, path: &KeyPath) -> &mut Noted {
        let path = path.as_str();
        let next = self.options.len();
        let at = *self.places.entry(path.to_owned()).or_insert(next);
        if at == next {
            self.options.push(Noted {
                path: path.to_owned(),
                kinds: Vec::new(),
                default: None,
                required: 0,
                last_begin: 0,
            });
        }
        &mut self.options[at]
    }

    fn finish(self) -> Reference {
        let segments = |path: &str| path.split("::").map(str::to_owned).collect::<Vec<_>>();
        let options = self.options.iter().map(|noted| OptionRecord {
            path: segments(&noted.path),
            kinds: plain(&noted.kinds),
            default: noted.default.clone().filter(|d| !d.is_empty()),
            required: noted.required > 0
                && self.begun.get(parent(&noted.path)) == Some(&noted.required),
            text: self.texts.get(&noted.path).cloned(),
        });
        let refused = self
            .refused
            .iter()
            .filter(|(path, _)| !self.places.contains_key(path))
            .map(|(path, why)| RefusedOption {
                path: segments(path),
                why: why.clone(),
            });
        let strays = self.texts.keys();
        let strays = strays.filter(|path| !self.places.contains_key(*path));
        Reference {
            options: options.collect(),
            refused: refused.collect(),
            strays: strays.cloned().collect(),
            is_cut: self.is_cut,
        }
    }
}

/// Whether the second kind says nothing that the first one, or now the first one, does not say.
fn same(known: &mut ValueKind, kind: &ValueKind) -> bool {
    match (known, kind) {
        (
            ValueKind::OneOf { names, any_case },
            ValueKind::OneOf {
                names: more,
                any_case: any,
            },
        ) => {
            *any_case |= *any;
            for name in more {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
            true
        }
        (known, kind) => known == kind,
    }
}

/// Without what only says that the node was looked at, where names say what it takes.
fn plain(kinds: &[ValueKind]) -> Vec<ValueKind> {
    let is_named = kinds.iter().any(|k| matches!(k, ValueKind::OneOf { .. }));
    let kept = kinds.iter().filter(|k| !is_named || **k != ValueKind::Any);
    kept.cloned().collect()
}

/// The path of the section that an option is in.
fn parent(path: &str) -> &str {
    path.rsplit_once("::").map_or("", |(parent, _)| parent)
}

/// What is handed to decoders that look at nodes themselves.
pub(crate) struct Samples {
    /// A text.
    pub text: Node,
    /// An empty map.
    pub map: Node,
    /// A list of an empty map.
    pub list: Node,
    /// A list of an empty map, and one of a text.
    pub lists: [Vec<Node>; 2],
    /// A free name with an empty map, and one with a text.
    pub maps: [Vec<(Key, Node)>; 2],
    /// A key that is any name, and a text.
    pub entry: (Key, Node),
}

/// The text that stands for whatever is written.
pub(crate) const SAMPLE: &str = "x";

pub(crate) static SAMPLES: LazyLock<Samples> = LazyLock::new(|| {
    let span = || Span::start_of("reference");
    let text = || Node::new(NodeValue::Str(SAMPLE.to_owned()), span());
    let map = || Node::new(NodeValue::Map(Vec::new()), span());
    let key = || Key {
        text: ANY_NAME.to_owned(),
        span: span(),
    };
    Samples {
        text: text(),
        map: map(),
        list: Node::new(NodeValue::List(vec![map()]), span()),
        lists: [vec![map()], vec![text()]],
        maps: [vec![(key(), map())], vec![(key(), text())]],
        entry: (key(), text()),
    }
});

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::section::Section;

    fn learned(decode: impl Fn(&mut Section<'_, '_>)) -> Reference {
        learn(|node, path, errors| {
            let mut section = Section::new(node, path, errors);
            decode(&mut section);
            section.finish();
        })
    }

    /// Each option as its path, its kinds, its default, and a `!` if it is required.
    fn shown(reference: &Reference) -> Vec<String> {
        let show = |o: &OptionRecord| {
            let required = if o.required { "!" } else { "" };
            let kinds: Vec<String> = o.kinds.iter().map(|k| format!("{k:?}")).collect();
            let kinds: Vec<&str> = kinds
                .iter()
                .map(|k| k.split([' ', '(']).next().unwrap_or_default())
                .collect();
            let default = o.default.as_deref().unwrap_or("-");
            format!(
                "{}{required} {} {default}",
                o.path.join("::"),
                kinds.join("|")
            )
        };
        reference.options.iter().map(show).collect()
    }

    #[test]
    fn kinds_limits_and_defaults_are_those_of_the_getters() {
        let reference = learned(|s| {
            s.string_required("name");
            s.usize("count", 3, 1..=9);
            s.duration("wait", Duration::from_secs(90));
            s.byte_size("size", 1 << 20, 16..);
            s.one_of("mode", &["", "a", "b"], "a");
            s.section("inner", |s| s.bool("on", true));
            s.string_list("texts");
            s.secret_map("headers");
            s.component_id("storage");
            s.refuse("old", "use the new one");
        });
        let expect = [
            "name! Text -",
            "count Integer 3",
            "wait Duration 1m30s",
            "size Bytes 1MiB",
            "mode OneOf a",
            "inner Section -",
            "inner::on Bool true",
            "texts TextList -",
            "headers SecretMap -",
            "storage ComponentId -",
        ];
        assert_eq!(shown(&reference), expect);
        let bounds = |i: usize| match &reference.options[i].kinds[0] {
            ValueKind::Integer(b) | ValueKind::Bytes(b) => b.clone(),
            other => panic!("{other:?}"),
        };
        let nine = Bounds {
            text: "from 1 up to 9".to_owned(),
            least: Some(1.0),
            most: Some(9.0),
        };
        assert_eq!(bounds(1), nine);
        assert_eq!((bounds(3).least, bounds(3).most), (Some(16.0), None));
        assert_eq!(reference.refused[0].path, ["old"]);
        assert!(!reference.is_cut);
    }

    /// Guarantee: an option is found whatever has to be written for it to be read.
    #[test]
    fn every_alternative_is_walked() {
        let reference = learned(|s| {
            match s.one_of("kind", &["plain", "timed", "nested"], "plain") {
                "timed" => {
                    s.duration("every", Duration::ZERO);
                }
                "nested" if s.bool("deep", false) => {
                    s.section_list("items", |s| {
                        if s.string_optional("a").is_some() {
                            s.string("b", "");
                        }
                    });
                }
                _ => {}
            }
            if s.has("old") {
                s.string("old", "");
            } else if s.section_if_present("new", |_| ()).is_none() {
                s.i64("neither", 0, ..);
            }
            let Some(node) = s.node("any").filter(|n| n.as_map().is_some()) else {
                return;
            };
            let path = s.path().child("any");
            let mut inner = Section::new(node, path, s.errors());
            inner.bool("inside", false);
            inner.finish();
        });
        let paths: BTreeSet<String> = reference
            .options
            .iter()
            .map(|o| o.path.join("::"))
            .collect();
        let expect = [
            "any",
            "any::inside",
            "deep",
            "every",
            "items",
            "items::0::a",
            "items::0::b",
            "kind",
            "neither",
            "new",
            "old",
        ];
        assert_eq!(paths.iter().map(String::as_str).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn options_of_variants_are_kept_apart() {
        let reference = learned(|s| {
            s.section_list("steps", |s| {
                match s.variant("type", &["add", "drop"]).as_deref() {
                    Some("add") => {
                        s.string_required("field");
                    }
                    Some("drop") => {
                        s.f64("ratio", 1.0, 0.0..=1.0);
                    }
                    _ => {}
                }
            });
        });
        let expect = [
            "steps List -",
            "steps::0::type! OneOf -",
            "steps::0::<add>::field! Text -",
            "steps::0::<drop>::ratio Number 1",
        ];
        assert_eq!(shown(&reference), expect);
    }

    #[test]
    fn what_is_required_in_one_case_only_is_not_required() {
        let reference = learned(|s| {
            if s.bool("enabled", true) {
                s.string_required("path");
            }
        });
        assert_eq!(shown(&reference), ["enabled Bool true", "path Text -"]);
    }

    #[test]
    fn descriptions_find_their_options() {
        let reference = learned(|s| {
            s.describe(&[
                ("a", "First."),
                ("inner::b", "own: Second."),
                ("c", "Stray."),
            ]);
            s.bool("a", false);
            s.section("inner", |s| {
                s.describe(&[("b", "Later ones do not count.")]);
                s.bool("b", false);
            });
        });
        let text = |i: usize| reference.options[i].text.clone().map(|t| (t.own, t.text));
        assert_eq!(text(0), Some((false, "First.".to_owned())));
        assert_eq!(text(1), None);
        assert_eq!(text(2), Some((true, "Second.".to_owned())));
        assert_eq!(reference.strays, ["c"]);
    }

    /// Guarantee: nothing of this is there when a configuration is read.
    #[test]
    fn a_configuration_that_is_read_is_read_as_ever() {
        let node = crate::parse("b: 1", "t").expect("YAML");
        let mut errors = Errors::new();
        let mut s = Section::new(&node, "", &mut errors);
        assert!(!s.is_recording() && !s.has("a") && s.is_given("b"));
        s.describe(&[("a", "text")]);
        assert_eq!(s.variant("a", &["x"]), None);
        assert_eq!(s.u64("b", 0, ..), 1);
        s.finish();
        assert_eq!(errors.to_string(), "t:1:1: a: is required");
    }
}
