//! The plan: what has to change to get from one graph to another. Pure.
//!
//! Start-up is the same path with an empty running graph, so there is no second code path that
//! could differ.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use tailwater_config::{Node, NodeValue};

/// Names a node of the graph. Ordered so that what others depend on comes first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum NodeKey {
    /// An extension, by its id.
    Extension(String),
    /// An exporter: one instance per id and signal, shared by pipelines.
    Exporter {
        /// Component id.
        id: String,
        /// `logs`, `metrics` or `traces`.
        signal: String,
    },
    /// A connector: one instance per id and signal, between all pipelines of that which name it.
    Connector {
        /// Component id.
        id: String,
        /// `logs`, `metrics` or `traces`.
        signal: String,
    },
    /// A processor: one instance per pipeline it stands in.
    Processor {
        /// Pipeline id.
        pipeline: String,
        /// Component id.
        id: String,
    },
    /// A pipeline: the chain itself.
    Pipeline(String),
    /// A receiver: one instance per id and signal, shared by pipelines.
    Receiver {
        /// Component id.
        id: String,
        /// `logs`, `metrics` or `traces`.
        signal: String,
    },
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeKey::Extension(id) => write!(f, "extension {id}"),
            NodeKey::Exporter { id, signal } => write!(f, "exporter {id} ({signal})"),
            NodeKey::Connector { id, signal } => write!(f, "connector {id} ({signal})"),
            NodeKey::Processor { pipeline, id } => write!(f, "processor {id} in {pipeline}"),
            NodeKey::Pipeline(id) => write!(f, "pipeline {id}"),
            NodeKey::Receiver { id, signal } => write!(f, "receiver {id} ({signal})"),
        }
    }
}

/// What the plan needs to know of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeSpec {
    /// The validated settings in canonical form: two nodes with equal text behave alike.
    pub settings: String,
    /// What the node passes data to, in order.
    pub outputs: Vec<NodeKey>,
}

/// A graph as the plan sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GraphSpec {
    /// All nodes.
    pub nodes: BTreeMap<NodeKey, NodeSpec>,
}

/// What happens to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub enum Change {
    /// Stays as it is.
    Keep,
    /// New settings, taken over in place.
    Update,
    /// A new node takes over from the old one.
    Replace,
    /// New.
    Add,
    /// Goes away after it is drained.
    Remove,
    /// Same settings, other outputs.
    Rewire,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Change::Keep => "keep",
            Change::Update => "update",
            Change::Replace => "replace",
            Change::Add => "add",
            Change::Remove => "remove",
            Change::Rewire => "rewire",
        })
    }
}

/// The changes of all nodes, in the order they are prepared.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// One change per node that is in either graph.
    pub steps: Vec<(NodeKey, Change)>,
}

impl Plan {
    /// The change of one node.
    pub fn change(&self, key: &NodeKey) -> Option<Change> {
        self.steps.iter().find(|(k, _)| k == key).map(|(_, c)| *c)
    }

    /// True if nothing changes.
    pub fn is_noop(&self) -> bool {
        self.steps.iter().all(|(_, c)| *c == Change::Keep)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, change) in &self.steps {
            writeln!(f, "{change:<8} {key}")?;
        }
        Ok(())
    }
}

/// A component's settings as text that is equal exactly if the settings are: without places,
/// comments and quoting style, keys sorted.
pub fn canonical(node: &Node) -> String {
    fn put(node: &Node, out: &mut String) {
        match &node.value {
            NodeValue::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by(|a, b| a.0.text.cmp(&b.0.text));
                out.push('{');
                for (key, value) in entries {
                    let _ = write!(out, "{:?}:", key.text);
                    put(value, out);
                    out.push(',');
                }
                out.push('}');
            }
            NodeValue::List(items) => {
                out.push('[');
                for item in items {
                    put(item, out);
                    out.push(',');
                }
                out.push(']');
            }
            scalar => {
                let _ = write!(out, "{scalar:?}");
            }
        }
    }
    let mut out = String::new();
    put(node, &mut out);
    out
}

/// Compares two graphs. `can_update` says whether a node can take over new settings in place
/// (given the node, its old and its new settings).
pub fn plan(
    running: &GraphSpec,
    wanted: &GraphSpec,
    can_update: &dyn Fn(&NodeKey, &str, &str) -> bool,
) -> Plan {
    let mut steps = Vec::new();
    for (key, new) in &wanted.nodes {
        let change = match running.nodes.get(key) {
            None => Change::Add,
            Some(old) if old == new => Change::Keep,
            Some(old) if old.settings == new.settings => Change::Rewire,
            Some(old) if can_update(key, &old.settings, &new.settings) => Change::Update,
            Some(_) => Change::Replace,
        };
        steps.push((key.clone(), change));
    }
    let gone = running
        .nodes
        .keys()
        .filter(|k| !wanted.nodes.contains_key(k));
    steps.extend(gone.map(|k| (k.clone(), Change::Remove)));
    steps.sort();
    Plan { steps }
}

/// Carries a plan out on a [`GraphSpec`], for tests and dry runs: `apply(a, plan(a, b), b) == b`.
pub fn apply(running: &GraphSpec, plan: &Plan, wanted: &GraphSpec) -> GraphSpec {
    let mut nodes = BTreeMap::new();
    for (key, change) in &plan.steps {
        let from = match change {
            Change::Remove => continue,
            Change::Keep => running,
            _ => wanted,
        };
        if let Some(spec) = from.nodes.get(key) {
            nodes.insert(key.clone(), spec.clone());
        }
    }
    GraphSpec { nodes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exporter(id: &str) -> NodeKey {
        NodeKey::Exporter {
            id: id.into(),
            signal: "logs".into(),
        }
    }

    fn graph(nodes: &[(NodeKey, &str, Vec<NodeKey>)]) -> GraphSpec {
        let node = |(k, s, o): &(NodeKey, &str, Vec<NodeKey>)| {
            (
                k.clone(),
                NodeSpec {
                    settings: s.to_string(),
                    outputs: o.clone(),
                },
            )
        };
        GraphSpec {
            nodes: nodes.iter().map(node).collect(),
        }
    }

    #[test]
    fn each_kind_of_change_is_named() {
        let pipeline = NodeKey::Pipeline("logs".into());
        let filelog = NodeKey::Receiver {
            id: "filelog".into(),
            signal: "logs".into(),
        };
        let forward = NodeKey::Connector {
            id: "forward".into(),
            signal: "logs".into(),
        };
        let behind = |i: u8| NodeKey::Pipeline(format!("logs/{i}"));
        let old = graph(&[
            (exporter("loki"), "a", vec![]),
            (exporter("debug"), "a", vec![]),
            (exporter("file"), "a", vec![]),
            (exporter("old"), "a", vec![]),
            (pipeline.clone(), "", vec![exporter("loki")]),
            (filelog.clone(), "x", vec![pipeline.clone()]),
            (forward.clone(), "", vec![behind(1)]),
        ]);
        let new = graph(&[
            (exporter("loki"), "a", vec![]),
            (exporter("debug"), "small", vec![]),
            (exporter("file"), "big", vec![]),
            (exporter("new"), "a", vec![]),
            (
                pipeline.clone(),
                "",
                vec![exporter("loki"), exporter("new")],
            ),
            (filelog, "x", vec![pipeline]),
            (forward, "", vec![behind(1), behind(2)]),
        ]);
        let p = plan(&old, &new, &|_, _, new| new == "small");
        let want = "\
update   exporter debug (logs)
replace  exporter file (logs)
keep     exporter loki (logs)
add      exporter new (logs)
remove   exporter old (logs)
rewire   connector forward (logs)
rewire   pipeline logs
keep     receiver filelog (logs)
";
        assert_eq!(p.to_string(), want);
        assert!(plan(&new, &new, &|_, _, _| false).is_noop());
    }

    /// Nodes of three kinds: exporters, pipelines, and connectors between these.
    fn any_graph() -> impl proptest::strategy::Strategy<Value = GraphSpec> {
        use proptest::prelude::*;
        let node = (0u8..9, "[ab]", proptest::collection::vec(0u8..9, 0..3));
        proptest::collection::vec(node, 0..9).prop_map(|nodes| {
            let key = |i: u8| match i % 3 {
                0 => exporter(&i.to_string()),
                1 => NodeKey::Pipeline(format!("logs/{i}")),
                _ => NodeKey::Connector {
                    id: format!("forward/{i}"),
                    signal: "logs".into(),
                },
            };
            let nodes = nodes.into_iter().map(|(i, settings, outputs)| {
                (
                    key(i),
                    NodeSpec {
                        settings,
                        outputs: outputs.into_iter().map(key).collect(),
                    },
                )
            });
            GraphSpec {
                nodes: nodes.collect(),
            }
        })
    }

    proptest::proptest! {
        #[test]
        fn property_a_plan_leads_from_one_graph_to_the_other(a in any_graph(), b in any_graph()) {
            let p = plan(&a, &b, &|_, _, _| true);
            proptest::prop_assert_eq!(apply(&a, &p, &b), b.clone());
            proptest::prop_assert!(plan(&b, &b, &|_, _, _| true).is_noop());
        }
    }
}
