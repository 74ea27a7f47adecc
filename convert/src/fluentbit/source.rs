//! A configuration of Fluent Bit as sections, from its classic form and from YAML.

use tailwater_config::{Node, NodeValue, parse};

use crate::note::{Notes, Weight};
use crate::options::text;

/// Includes that follow one another, at most.
const DEPTH_MAX: usize = 8;

/// A property of a section.
#[derive(Clone, Debug)]
pub struct Property {
    /// Its name, as written.
    pub key: String,
    /// Its value, with variables put in.
    pub value: String,
    /// Where it stands.
    pub place: String,
}

/// A section.
#[derive(Clone, Debug)]
pub struct Section {
    /// `service`, `input`, `filter`, `output`, `parser`, `multiline_parser`, in lower case.
    pub kind: String,
    /// In their order.
    pub properties: Vec<Property>,
    /// Where it begins.
    pub place: String,
}

/// What reads a file that is named in a configuration; an error is text for people.
pub type Include<'i> = &'i dyn Fn(&str) -> Result<String, String>;

/// All sections of a configuration and of what it includes.
pub struct Source<'i> {
    /// In the order in which they were found.
    pub sections: Vec<Section>,
    variables: Vec<(String, String)>,
    include: Include<'i>,
}

impl<'i> Source<'i> {
    /// Reads a configuration called `name`.
    ///
    /// # Errors
    /// It is neither.
    pub fn read(
        text: &str,
        name: &str,
        include: Include<'i>,
        notes: &mut Notes,
    ) -> Result<Source<'i>, String> {
        let mut source = Source {
            sections: Vec::new(),
            variables: Vec::new(),
            include,
        };
        source.add(text, name, 0, notes)?;
        Ok(source)
    }

    /// Adds the sections of another file.
    pub fn add_file(&mut self, file: &str, place: &str, depth: usize, notes: &mut Notes) {
        if depth > DEPTH_MAX {
            notes.add(
                Weight::Decide,
                place,
                file,
                "files include each other too deeply; it was left out",
            );
            return;
        }
        let added = (self.include)(file).and_then(|text| self.add(&text, file, depth, notes));
        if let Err(e) = added {
            notes.add(Weight::Decide, place, file, format!("it was left out: {e}"));
        }
    }

    fn add(
        &mut self,
        text: &str,
        name: &str,
        depth: usize,
        notes: &mut Notes,
    ) -> Result<(), String> {
        let yaml = [".yaml", ".yml"].iter().any(|end| name.ends_with(end));
        match yaml {
            true => self.yaml(text, name, depth, notes),
            false => self.classic(text, name, depth, notes),
        }
    }

    fn classic(
        &mut self,
        text: &str,
        name: &str,
        depth: usize,
        notes: &mut Notes,
    ) -> Result<(), String> {
        for (i, line) in text.lines().enumerate() {
            let place = format!("{name}:{}:1", i + 1);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(rest) = line.strip_prefix('[') {
                let Some((kind, _)) = rest.split_once(']') else {
                    return Err(format!("{place}: a section has no end"));
                };
                self.sections.push(Section {
                    kind: kind.trim().to_ascii_lowercase(),
                    properties: Vec::new(),
                    place,
                });
                continue;
            }
            let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let value = value.trim();
            match key.to_ascii_uppercase().as_str() {
                "@INCLUDE" => self.add_file(value, &place, depth + 1, notes),
                "@SET" => {
                    if let Some((key, value)) = value.split_once('=') {
                        self.variables
                            .push((key.trim().to_owned(), value.trim().to_owned()));
                    }
                }
                _ => {
                    let value = self.with_variables(value);
                    let Some(section) = self.sections.last_mut() else {
                        return Err(format!(
                            "{place}: it stands before any section; is it a file of Fluent Bit?"
                        ));
                    };
                    section.properties.push(Property {
                        key: key.to_owned(),
                        value,
                        place,
                    });
                }
            }
        }
        Ok(())
    }

    /// Variables that the configuration sets itself; those of the environment stay.
    fn with_variables(&self, value: &str) -> String {
        let all = self.variables.iter();
        all.fold(value.to_owned(), |value, (name, is)| {
            value.replace(&format!("${{{name}}}"), is)
        })
    }

    fn yaml(
        &mut self,
        text: &str,
        name: &str,
        depth: usize,
        notes: &mut Notes,
    ) -> Result<(), String> {
        let root = parse(text, name).map_err(|e| e.to_string())?;
        let Some(entries) = root.as_map() else {
            return Err(format!("{name}: a configuration of Fluent Bit is a map"));
        };
        for (key, node) in root.get("env").and_then(Node::as_map).unwrap_or_default() {
            self.variables
                .extend(crate::options::text(node).map(|v| (key.text.clone(), v)));
        }
        for (key, node) in entries {
            let place = key.span.to_string();
            match key.text.as_str() {
                "env" => {}
                "service" => self.yaml_section("service", node),
                "parsers" => self.yaml_list("parser", node),
                "multiline_parsers" => self.yaml_list("multiline_parser", node),
                "includes" => {
                    for file in node
                        .as_list()
                        .unwrap_or_default()
                        .iter()
                        .filter_map(text_of)
                    {
                        self.add_file(&file, &place, depth + 1, notes);
                    }
                }
                "pipeline" => {
                    for (key, node) in node.as_map().unwrap_or_default() {
                        match key.text.as_str() {
                            "inputs" => self.yaml_list("input", node),
                            "filters" => self.yaml_list("filter", node),
                            "outputs" => self.yaml_list("output", node),
                            other => {
                                let place = key.span.to_string();
                                notes.add(
                                    Weight::NoEqual,
                                    place,
                                    &format!("pipeline.{other}"),
                                    "there is no such thing here",
                                );
                            }
                        }
                    }
                }
                other => {
                    notes.add(Weight::NoEqual, place, other, "there is no such thing here");
                }
            }
        }
        Ok(())
    }

    fn yaml_list(&mut self, kind: &str, node: &Node) {
        for item in node.as_list().unwrap_or_default() {
            self.yaml_section(kind, item);
        }
    }

    fn yaml_section(&mut self, kind: &str, node: &Node) {
        let mut properties = Vec::new();
        for (key, node) in node.as_map().unwrap_or_default() {
            self.property(&key.text, node, &mut properties);
        }
        self.sections.push(Section {
            kind: kind.to_owned(),
            properties,
            place: node.span.to_string(),
        });
    }

    /// A list is a property that is repeated; a map in a list of rules is the values of it.
    fn property(&self, key: &str, node: &Node, out: &mut Vec<Property>) {
        let value = match &node.value {
            NodeValue::List(items) => {
                return items.iter().for_each(|item| self.property(key, item, out));
            }
            NodeValue::Map(entries) if key.eq_ignore_ascii_case("rules") => {
                let of = |name: &str| {
                    let found = entries.iter().find(|(k, _)| k.text == name);
                    found.and_then(|(_, n)| text(n)).unwrap_or_default()
                };
                let rule = format!(
                    "\"{}\" \"{}\" \"{}\"",
                    of("state"),
                    of("regex"),
                    of("next_state")
                );
                out.push(Property {
                    key: "rule".to_owned(),
                    value: rule,
                    place: node.span.to_string(),
                });
                let known = ["state", "regex", "next_state"];
                let others = entries
                    .iter()
                    .filter(|(k, _)| !known.contains(&k.text.as_str()));
                others.for_each(|(k, n)| self.property(&k.text, n, out));
                return;
            }
            NodeValue::Map(_) => "(a map)".to_owned(),
            _ => text(node).unwrap_or_default(),
        };
        out.push(Property {
            key: key.to_owned(),
            value: self.with_variables(&value),
            place: node.span.to_string(),
        });
    }
}

fn text_of(node: &Node) -> Option<String> {
    text(node)
}

/// A section that is being read: what nobody asked for is noted.
pub struct Properties<'s> {
    /// What it is, for notes.
    pub path: String,
    /// The section.
    pub section: &'s Section,
    read: Vec<bool>,
}

impl<'s> Properties<'s> {
    /// Begins to read.
    pub fn new(section: &'s Section) -> Properties<'s> {
        let name = section
            .properties
            .iter()
            .find(|p| p.key.eq_ignore_ascii_case("name"));
        let path = match name {
            Some(name) => format!("{}.{}", section.kind, name.value),
            None => section.kind.clone(),
        };
        Properties {
            path,
            section,
            read: vec![false; section.properties.len()],
        }
    }

    /// All values of a name.
    pub fn all(&mut self, key: &str) -> Vec<&'s Property> {
        let mut found = Vec::new();
        for (property, read) in self.section.properties.iter().zip(&mut self.read) {
            if property.key.eq_ignore_ascii_case(key) {
                *read = true;
                found.push(property);
            }
        }
        found
    }

    /// Its value.
    pub fn text(&mut self, key: &str) -> Option<String> {
        let found = self.all(key).into_iter().next_back()?;
        Some(found.value.clone()).filter(|v| !v.is_empty())
    }

    /// Values between commas.
    pub fn list(&mut self, key: &str) -> Vec<String> {
        let all = self.all(key);
        let parts = all.iter().flat_map(|p| p.value.split(','));
        let parts = parts.map(|v| v.trim().to_owned());
        parts.filter(|v| !v.is_empty()).collect()
    }

    /// A switch.
    pub fn flag(&mut self, key: &str) -> Option<bool> {
        let value = self.text(key)?.to_ascii_lowercase();
        Some(matches!(value.as_str(), "on" | "true" | "yes" | "1"))
    }

    /// Notes a property, if it is there; gives the comment.
    pub fn remark(
        &mut self,
        notes: &mut Notes,
        weight: Weight,
        key: &str,
        say: &str,
    ) -> Option<String> {
        let found = self.all(key).into_iter().next()?;
        let path = format!("{}.{}", self.path, found.key);
        Some(notes.add(weight, &found.place, &path, say))
    }

    /// Notes the section itself; gives the comment.
    pub fn note(&self, notes: &mut Notes, weight: Weight, say: impl Into<String>) -> String {
        notes.add(weight, &self.section.place, &self.path, say)
    }

    /// Notes what nobody asked for; gives the comments.
    pub fn rest(self, notes: &mut Notes) -> Vec<String> {
        let all = self.section.properties.iter().zip(&self.read);
        let left = all.filter(|(p, read)| !**read && !p.key.eq_ignore_ascii_case("name"));
        left.map(|(p, _)| {
            let path = format!("{}.{}", self.path, p.key);
            let key = p.key.to_ascii_lowercase();
            let secret = ["pass", "token", "secret", "key"]
                .iter()
                .any(|s| key.contains(s));
            let say = match secret {
                true => "nothing here does this; it was set".to_owned(),
                false => format!("nothing here does this; it was {:?}", p.value),
            };
            notes.add(Weight::NoEqual, &p.place, &path, say)
        })
        .collect()
    }
}
