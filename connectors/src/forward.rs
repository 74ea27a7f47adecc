//! `forward`: passes what comes out of pipelines on to other pipelines of the same signal, unchanged.
//!
//! It has no options, as in the collector.

use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pipeline::factory::{ConnectorFactory, ConnectorSettings, Factory};

/// The factory of this connector.
pub fn factory() -> ConnectorFactory {
    Factory {
        kind: "forward",
        about: "Passes everything on from pipelines to other pipelines of the same signal.",
        signals: &["logs", "metrics", "traces"],
        decode,
    }
}

struct Forward;

impl ConnectorSettings for Forward {}

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ConnectorSettings>> {
    let before = errors.len();
    Section::new(node, path, errors).finish();
    (errors.len() == before).then(|| Box::new(Forward) as Box<dyn ConnectorSettings>)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors_of(yaml: &str) -> Vec<String> {
        let mut errors = Errors::new();
        let node = tailwater_config::parse(yaml, "c.yaml").unwrap();
        let settings = decode(&node, &KeyPath::from("connectors::forward"), &mut errors);
        assert_eq!(settings.is_none(), !errors.is_empty());
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn it_has_no_options() {
        assert_eq!(errors_of("{}"), [""; 0]);
        assert_eq!(errors_of(""), [""; 0]);
        let errors = errors_of("queue: 5\nto: logs\n");
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(
            errors[0].starts_with("c.yaml:1:1: connectors::forward::queue: "),
            "{errors:?}"
        );
    }
}
