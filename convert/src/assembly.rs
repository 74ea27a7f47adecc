//! Puts the sections of a configuration together.

use crate::yaml::{Map, Value};

/// A pipeline of logs.
pub struct Pipeline {
    /// Its name behind `logs/`; empty for `logs` alone.
    pub name: String,
    /// Lines in front of it.
    pub comments: Vec<String>,
    /// Ids.
    pub receivers: Vec<String>,
    /// Ids.
    pub processors: Vec<String>,
    /// Ids.
    pub exporters: Vec<String>,
}

/// A configuration in the making.
#[derive(Default)]
pub struct Assembly {
    /// Lines at the top.
    pub head: Vec<String>,
    /// By id.
    pub receivers: Map,
    /// By id.
    pub processors: Map,
    /// By id.
    pub exporters: Map,
    /// By id.
    pub extensions: Map,
    /// `service` without pipelines and extensions.
    pub service: Map,
    /// The pipelines.
    pub pipelines: Vec<Pipeline>,
    /// Lines at the end.
    pub tail: Vec<String>,
}

impl Assembly {
    /// An id `kind/name`, or `kind` alone, that is not taken; with a number if it has to be.
    pub fn id(is_taken: impl Fn(&str) -> bool, kind: &str, name: &str) -> String {
        let name: String = name
            .chars()
            .map(|c| match c.is_ascii_alphanumeric() || "_.-".contains(c) {
                true => c,
                false => '_',
            })
            .collect();
        let (first, with_number) = match name.as_str() {
            "" => (kind.to_owned(), format!("{kind}/")),
            name => (format!("{kind}/{name}"), format!("{kind}/{name}_")),
        };
        if !is_taken(&first) {
            return first;
        }
        // Numbers are given one after another, so the first that is free is found by halving.
        let numbered = |n: u64| format!("{with_number}{n}");
        let (mut taken, mut free) = (1, 2);
        while is_taken(&numbered(free)) {
            taken = free;
            free *= 2;
        }
        while free - taken > 1 {
            let middle = taken + (free - taken) / 2;
            match is_taken(&numbered(middle)) {
                true => taken = middle,
                false => free = middle,
            }
        }
        numbered(free)
    }

    /// The configuration. One without a pipeline gets a pipeline that does nothing, so that it is valid.
    pub fn into_yaml(mut self) -> String {
        let mut root = Map::default();
        for line in &self.head {
            root.comment(line);
        }
        if self.pipelines.is_empty() {
            self.receivers
                .comment("No source could be converted: this one takes in nothing.")
                .set_empty("nop");
            let exporter = self.exporters.first_key();
            self.pipelines.push(Pipeline {
                name: String::new(),
                comments: Vec::new(),
                receivers: vec!["nop".to_owned()],
                processors: Vec::new(),
                exporters: exporter.into_iter().collect(),
            });
        }
        let mut service = Map::default();
        if let Some(ids) = self.extensions.keys() {
            service.set("extensions", ids);
        }
        let pipelines = service.sub("pipelines");
        for p in self.pipelines {
            for line in p.comments {
                pipelines.comment(line);
            }
            let mut own = Map::default();
            own.set("receivers", p.receivers);
            if !p.processors.is_empty() {
                own.set("processors", p.processors);
            }
            own.set("exporters", p.exporters);
            let id = Self::id(|id| pipelines.has(id), "logs", &p.name);
            pipelines.set(&id, own);
        }
        service.append(self.service);
        for (key, map) in [
            ("extensions", self.extensions),
            ("receivers", self.receivers),
            ("processors", self.processors),
            ("exporters", self.exporters),
        ] {
            if !map.is_empty() {
                root.set(key, Value::Map(map));
            }
        }
        root.set("service", Value::Map(service));
        for line in self.tail {
            root.comment(line);
        }
        root.to_yaml()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_valid_and_different() {
        let mut taken: Vec<String> = Vec::new();
        for _ in 0..100 {
            let id = Assembly::id(|id| taken.iter().any(|t| t == id), "loki", "a b/c");
            assert!(!taken.contains(&id));
            taken.push(id);
        }
        assert_eq!(taken[0], "loki/a_b_c");
        assert_eq!(taken[99], "loki/a_b_c_100");
    }
}
