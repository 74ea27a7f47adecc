//! Pages in Markdown.

use std::fmt::Write as _;

use tailwater_config::reference::{ANY_NAME, Bounds, ELEMENT, OptionRecord, ValueKind};

use super::Entry;
use super::examples::example;
use super::tree::Tree;

const HEAD: &str = "<!-- Written by `cargo xtask docs` from the code. Change it there. -->\n";

/// The list of all pages.
pub fn index(entries: &[Entry]) -> String {
    let mut out = String::from(HEAD);
    out.push_str(
        "\n# Components\n\nEvery option of every component of this build, as the code reads it. What is common to all \
         (sources, substitution, durations and sizes) and how things work is in [CONFIGURATION](../CONFIGURATION.md). \
         Editors check and complete a configuration by its [schema](../schema/tailwater.schema.json): see \
         [there](../CONFIGURATION.md#in-an-editor). `tailwater components --reference TYPE` prints a page.\n",
    );
    let mut class = "";
    for entry in entries {
        let link = match entry.class {
            "service" => "service.md".to_owned(),
            class => format!("{class}/{}.md", entry.kind),
        };
        if entry.class != class {
            class = entry.class;
            let (title, column) = match class {
                "service" => ("The agent".to_owned(), "section"),
                _ => (title(class), "type"),
            };
            let _ = write!(
                out,
                "\n## {title}\n\n| {column} | signals | |\n|---|---|---|\n"
            );
            if class == "service" {
                // In front, as it belongs to receivers and has no section of its own.
                out.push_str("| [operators](operators.md) | logs | What receivers of logs do to records first. |\n");
            }
        }
        let also = match entry.aliases.is_empty() {
            true => String::new(),
            false => format!(" (also `{}`)", entry.aliases.join("`, `")),
        };
        let _ = writeln!(
            out,
            "| [{}]({link}){also} | {} | {} |",
            entry.kind,
            entry.signals.join(", "),
            sentence(entry.about)
        );
    }
    out
}

/// The page of a component.
pub fn text(entry: &Entry) -> String {
    let mut out = String::from(HEAD);
    let up = if entry.class == "service" { "" } else { "../" };
    let _ = match entry.class {
        "service" => write!(out, "\n# service\n"),
        class => write!(
            out,
            "\n# {} {}\n",
            title(class).trim_end_matches('s'),
            entry.kind
        ),
    };
    let _ = write!(out, "\n{}", sentence(entry.about));
    if !entry.signals.is_empty() {
        let _ = write!(out, " Signals: {}.", entry.signals.join(", "));
    }
    if !entry.aliases.is_empty() {
        let also = entry.aliases.join("`, `");
        let _ = write!(out, " Also spelled `{also}`, with a warning.");
    }
    let anchor = match entry.class {
        "service" => "service".to_owned(),
        "exporters" if entry.kind.starts_with("otlp_") => {
            "exporters-otlp_http-and-otlp_grpc".to_owned()
        }
        "connectors" => "connectors".to_owned(),
        class => format!("{}-{}", class.trim_end_matches('s'), entry.kind),
    };
    let _ = writeln!(
        out,
        " More about it: [CONFIGURATION]({up}../CONFIGURATION.md#{anchor}). All components: [list]({up}README.md)."
    );
    if let Some(yaml) = example(entry.class, entry.kind) {
        let _ = write!(out, "\n## Example\n\n```yaml\n{}\n```\n", yaml.trim_end());
    }
    let tree = Tree::new(&entry.reference.options, &entry.reference.refused);
    out.push_str("\n## Options\n\n");
    let mut rows = Rows::new(if entry.class == "service" {
        "../"
    } else {
        "../../"
    });
    rows.add(&tree, &mut Vec::new());
    if rows.options.is_empty() {
        out.push_str("It has none.\n");
    }
    rows.write(&mut out);
    if rows.has_operators {
        let _ = writeln!(
            out,
            "\nOperators have a [page of their own]({up}operators.md)."
        );
    }
    out
}

/// The page of the operators; `None` if no component has any.
pub fn operators(entries: &[Entry]) -> Option<String> {
    let entry = entries.iter().find(|e| e.kind == "file_log")?;
    let tree = Tree::new(&entry.reference.options, &entry.reference.refused);
    let element = tree.child("operators")?.element()?;
    let mut out = String::from(HEAD);
    out.push_str(
        "\n# Operators\n\nWhat `operators` of the receivers [file_log](receivers/file_log.md), \
         [journald](receivers/journald.md) and [syslog](receivers/syslog.md) does to records before anything else, one after \
         another. How they work: [CONFIGURATION](../CONFIGURATION.md#operators). All components: [list](README.md).\n",
    );
    if let Some(yaml) = example("operators", "operators") {
        let _ = write!(out, "\n## Example\n\n```yaml\n{}\n```\n", yaml.trim_end());
    }
    let variants: Vec<(&str, &Tree<'_>)> = element.variants().collect();
    let of_all = |key: &str| {
        variants
            .iter()
            .filter(|(_, t)| t.child(key).is_some())
            .count()
    };
    let mut common: Vec<(&str, &Tree<'_>)> = element.options().collect();
    if let Some((_, tree)) = variants.first() {
        common.extend(
            tree.options()
                .filter(|(key, _)| of_all(key) * 2 > variants.len()),
        );
    }
    let names: Vec<&str> = common.iter().map(|(key, _)| *key).collect();
    out.push_str("\n## Options of all\n\n");
    let mut rows = Rows::new("../");
    for (key, tree) in &common {
        rows.option(tree, &mut vec![*key]);
        let without: Vec<String> = match *key {
            "type" => Vec::new(),
            key => variants
                .iter()
                .filter(|(_, t)| t.child(key).is_none())
                .map(|(n, _)| format!("`{n}`"))
                .collect(),
        };
        if let (false, Some(row)) = (without.is_empty(), rows.options.last_mut()) {
            let _ = write!(row[3], " Not of {}.", without.join(", "));
        }
    }
    rows.write(&mut out);
    for (name, tree) in &variants {
        let _ = write!(out, "\n## {name}\n\n");
        let mut rows = Rows::new("../");
        for (key, tree) in tree.options().filter(|(key, _)| !names.contains(key)) {
            rows.option(tree, &mut vec![key]);
        }
        rows.refused(tree, &[]);
        if rows.options.is_empty() {
            out.push_str("It has no others.\n");
        }
        rows.write(&mut out);
    }
    Some(out)
}

/// Rows of the tables.
struct Rows {
    to_docs: &'static str,
    options: Vec<[String; 4]>,
    refused: Vec<[String; 2]>,
    has_operators: bool,
}

impl Rows {
    fn new(to_docs: &'static str) -> Rows {
        Rows {
            to_docs,
            options: Vec::new(),
            refused: Vec::new(),
            has_operators: false,
        }
    }

    fn add<'a>(&mut self, tree: &Tree<'a>, path: &mut Vec<&'a str>) {
        self.refused(tree, path);
        if tree.variants().next().is_some() {
            self.has_operators = true;
            return;
        }
        for (segment, child) in &tree.children {
            path.push(*segment);
            self.option(child, path);
            path.pop();
        }
    }

    fn option<'a>(&mut self, tree: &Tree<'a>, path: &mut Vec<&'a str>) {
        if let Some(option) = tree.option {
            let has_element = tree.element().is_some_and(|e| !e.children.is_empty());
            self.options.push([
                shown(path),
                kinds(tree, has_element),
                default(option),
                what(option, self.to_docs),
            ]);
        }
        self.add(tree, path);
    }

    fn refused(&mut self, tree: &Tree<'_>, path: &[&str]) {
        for (key, why) in &tree.refused {
            let path: Vec<&str> = path.iter().copied().chain([*key]).collect();
            self.refused.push([shown(&path), sentence(why)]);
        }
    }

    fn write(&self, out: &mut String) {
        if !self.options.is_empty() {
            out.push_str("| option | value | default | |\n|---|---|---|---|\n");
            for [path, kind, default, what] in &self.options {
                let _ = writeln!(out, "| `{path}` | {kind} | {default} | {what} |");
            }
        }
        if !self.refused.is_empty() {
            out.push_str("\n| refused | why |\n|---|---|\n");
            for [path, why] in &self.refused {
                let _ = writeln!(out, "| `{path}` | {why} |");
            }
        }
    }
}

/// A path as it is written in problems, but for elements and names.
fn shown(path: &[&str]) -> String {
    let mut out = String::new();
    for segment in path {
        match *segment {
            ELEMENT => out.push_str("[]"),
            _ if !out.is_empty() => {
                let _ = write!(out, "::{segment}");
            }
            _ => out.push_str(segment),
        }
    }
    out
}

fn kinds(tree: &Tree<'_>, has_element: bool) -> String {
    let kinds = tree.kinds().map(|kind| self::kind(kind, has_element));
    let mut kinds: Vec<String> = kinds.collect();
    kinds.dedup();
    kinds.join(" or ")
}

fn kind(kind: &ValueKind, has_element: bool) -> String {
    let limited = |what: &str, bounds: &Bounds| format!("{what} {}", bounds.text).trim().to_owned();
    match kind {
        ValueKind::Bool => "true, false".to_owned(),
        ValueKind::Text => "text".to_owned(),
        ValueKind::Secret => "text, a secret".to_owned(),
        ValueKind::ComponentId => "id of a component".to_owned(),
        ValueKind::Integer(bounds) => limited("integer", bounds),
        ValueKind::Number(bounds) => limited("number", bounds),
        ValueKind::Duration(bounds) => limited("duration", bounds),
        ValueKind::Bytes(bounds) => limited("bytes", bounds),
        ValueKind::OneOf { names, .. } => {
            let names = names.iter().filter(|n| !n.is_empty());
            let names: Vec<String> = names.map(|n| format!("`{n}`")).collect();
            names.join(", ")
        }
        ValueKind::TextList => "list of texts".to_owned(),
        ValueKind::TextMap => "map of texts".to_owned(),
        ValueKind::SecretMap => "map of texts, secrets".to_owned(),
        ValueKind::Section => "section".to_owned(),
        ValueKind::List if has_element => "list of sections".to_owned(),
        ValueKind::List => "list".to_owned(),
        ValueKind::Map => "map".to_owned(),
        ValueKind::Any => "any".to_owned(),
    }
}

fn default(option: &OptionRecord) -> String {
    match &option.default {
        _ if option.required => "required".to_owned(),
        // Quotes of texts say nothing here, but where the text would not be seen without.
        Some(text) => {
            let bare = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
            match bare {
                Some(bare) if bare.trim().is_empty() || bare.contains('\\') => {
                    match bare.is_empty() {
                        true => String::new(),
                        false => format!("`{text}`"),
                    }
                }
                Some(bare) => format!("`{bare}`"),
                None => format!("`{text}`"),
            }
        }
        None => String::new(),
    }
}

/// `to_docs` leads from the page to the folder of the documents, which links in texts are relative to.
fn what(option: &OptionRecord, to_docs: &str) -> String {
    let Some(text) = &option.text else {
        let is_free = option.path.last().is_some_and(|p| p == ANY_NAME);
        return if is_free { "any name" } else { "" }.to_owned();
    };
    let own = if text.own { "**own**: " } else { "" };
    let text = text
        .text
        .replace('|', "\\|")
        .replace("](", &format!("]({to_docs}"));
    format!("{own}{text}")
}

/// `receivers` as a title.
fn title(class: &str) -> String {
    let mut letters = class.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// A text as a sentence.
fn sentence(text: &str) -> String {
    let text = text.replace('|', "\\|");
    let mut text = title(&text);
    if !text.ends_with(['.', '?', '!']) {
        text.push('.');
    }
    text
}
