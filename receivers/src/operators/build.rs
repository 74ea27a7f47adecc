//! From the list of operators in a configuration to a chain.

use std::sync::Arc;

use tailwater_config::{ConfigError, Environment, Errors, KeyPath, Node, Section, nearest};

use super::chain::{Chain, Stage, To};
use super::decode;
use super::operator::OnError;
use super::options::condition;

/// What building a chain needs to know besides the operators.
pub struct BuildCx<'a> {
    /// Where the list of operators stands, for messages: `receivers::filelog::operators`.
    pub path: KeyPath,
    /// Where the expressions' `env("X")` looks.
    pub environment: &'a dyn Environment,
}

/// The operators that can be built.
const SUPPORTED: [&str; 12] = [
    "add",
    "container",
    "copy",
    "filter",
    "json_parser",
    "move",
    "noop",
    "regex_parser",
    "remove",
    "severity_parser",
    "time_parser",
    "trace_parser",
];

/// Operators of the collector that are refused by name, and what to use instead.
const UNSUPPORTED: [(&str, &str); 14] = [
    ("assign_keys", "use move operators"),
    ("csv_parser", "use regex_parser"),
    ("flatten", "use move operators"),
    ("json_array_parser", "use json_parser on objects"),
    ("key_value_parser", "use regex_parser"),
    (
        "recombine",
        "use the receiver's multiline option, or container for container logs",
    ),
    ("regex_replace", "use regex_parser"),
    ("retain", "use remove operators"),
    ("router", "use `if` on the operators"),
    (
        "sanitize_utf8",
        "text is valid UTF-8 unless the encoding is utf-8-raw or nop",
    ),
    ("scope_name_parser", "use move to an attribute"),
    (
        "syslog_parser",
        "use regex_parser with severity and timestamp",
    ),
    ("unquote", "use regex_parser"),
    ("uri_parser", "use regex_parser"),
];

/// True if an operator of this type can be built.
pub fn is_supported(operator_type: &str) -> bool {
    SUPPORTED.contains(&operator_type)
}

/// An operator whose outputs are still names.
struct Draft<'n> {
    node: &'n Node,
    path: KeyPath,
    stage: Option<Stage>,
    outputs: Option<Vec<(&'n str, &'n Node)>>,
}

impl Chain {
    /// Builds the chain of `nodes`, the elements of an `operators` list.
    ///
    /// # Errors
    /// Everything that is wrong with it: operators that are unknown or not supported, options,
    /// outputs that do not exist or that lead back.
    pub fn build(nodes: &[Node], cx: &BuildCx<'_>) -> Result<Chain, Errors> {
        let mut errors = Errors::new();
        let ids = unique_ids(nodes);
        let mut drafts = Vec::new();
        for (i, (node, id)) in nodes.iter().zip(&ids).enumerate() {
            let path = cx.path.child(i);
            if ids[..i].contains(id) {
                let message = format!("another operator has the id {id:?}");
                let path = path.child("id");
                errors.push(ConfigError::new(node.span.clone(), path, message));
            }
            drafts.push(draft(node, path, cx, id.clone(), &mut errors));
        }
        let ways = ways(&drafts, &ids, &mut errors);
        let mut stages = Vec::new();
        for (draft, outputs) in drafts.into_iter().zip(ways) {
            stages.extend(draft.stage.map(|stage| Stage { outputs, ..stage }));
        }
        let is_container = |n: &Node| n.get("type").and_then(Node::as_text) == Some("container");
        let joins_lines = nodes.iter().any(is_container);
        errors
            .into_result(())
            .map(|()| Chain::new(stages, joins_lines))
    }
}

/// The id of each operator: the one it was given, else its type, with a number from the second
/// one of a type on that no other operator has, as the collector does it. Ids that were given may
/// still be equal.
fn unique_ids(nodes: &[Node]) -> Vec<Arc<str>> {
    let text = |node: &Node, key: &str| {
        let text = node.get(key).and_then(Node::as_text);
        text.filter(|t| !t.is_empty()).map(Arc::<str>::from)
    };
    let mut ids: Vec<(Arc<str>, bool)> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let kind = text(node, "type").unwrap_or_default();
        let id = text(node, "id").unwrap_or_else(|| kind.clone());
        let is_type = id == kind;
        ids.push((id, is_type));
    }
    for i in 0..ids.len() {
        let (id, is_type) = ids[i].clone();
        if !is_type || !ids[..i].iter().any(|other| *other == (id.clone(), true)) {
            continue;
        }
        let numbered = (1..).map(|n| Arc::<str>::from(format!("{id}{n}")));
        let free = numbered
            .into_iter()
            .find(|new| ids.iter().all(|(id, _)| id != new));
        ids[i].0 = free.unwrap_or(id);
    }
    ids.into_iter().map(|(id, _)| id).collect()
}

/// Reads one operator.
fn draft<'n>(
    node: &'n Node,
    path: KeyPath,
    cx: &BuildCx<'_>,
    id: Arc<str>,
    errors: &mut Errors,
) -> Draft<'n> {
    let mut draft = Draft {
        node,
        path: path.clone(),
        stage: None,
        outputs: None,
    };
    let mut s = Section::new(node, path, errors);
    let kind = s.string_required("type");
    // Taken account of beforehand; here its kind is checked.
    s.string_optional("id");
    let Some(kind) = kind else { return draft };
    if !is_supported(&kind) {
        let path = draft.path.child("type");
        let e = ConfigError::new(s.span_of("type"), path, unknown(&kind))
            .suggest(nearest(&kind, SUPPORTED).filter(|_| !is_known(&kind)));
        s.errors().push(e);
        return draft;
    }
    draft.outputs = s.text_nodes("output");
    let on_error = s.choice("on_error", &OnError::ALL, OnError::Send);
    let when = condition(&mut s, "if", cx.environment);
    let operator = decode::operator(&kind, &mut s, cx.environment);
    s.finish();
    let outputs = Vec::new();
    draft.stage = operator.map(|operator| Stage {
        id,
        condition: when,
        on_error,
        outputs,
        operator,
    });
    draft
}

fn is_known(kind: &str) -> bool {
    UNSUPPORTED.iter().any(|(name, _)| *name == kind) || is_input_or_output(kind)
}

fn is_input_or_output(kind: &str) -> bool {
    kind.ends_with("_input") || matches!(kind, "stdout" | "file_output")
}

fn unknown(kind: &str) -> String {
    if let Some((name, instead)) = UNSUPPORTED.iter().find(|(name, _)| *name == kind) {
        return format!("operator {name} is not supported yet; {instead}");
    }
    if is_input_or_output(kind) {
        return format!("operator {kind} cannot be used in a receiver");
    }
    format!(
        "unknown operator {kind:?}; supported: {}",
        SUPPORTED.join(", ")
    )
}

/// Where each operator sends its records. Names that do not exist and circles are errors.
fn ways(drafts: &[Draft<'_>], ids: &[Arc<str>], errors: &mut Errors) -> Vec<Vec<To>> {
    let mut all = Vec::new();
    for (i, draft) in drafts.iter().enumerate() {
        let next = if i + 1 < drafts.len() {
            To::Operator(i + 1)
        } else {
            To::Out
        };
        let Some(names) = &draft.outputs else {
            all.push(vec![next]);
            continue;
        };
        let mut ways = Vec::new();
        for (name, node) in names {
            let name = name.trim();
            match ids.iter().position(|id| **id == *name) {
                Some(at) => ways.push(To::Operator(at)),
                None => {
                    let e = ConfigError::new(
                        node.span.clone(),
                        draft.path.child("output"),
                        format!("there is no operator with the id {name:?}"),
                    )
                    .allowed(ids.join(", "))
                    .suggest(nearest(name, ids.iter().map(|id| &**id)));
                    errors.push(e);
                }
            }
        }
        if ways.is_empty() {
            ways.push(next);
        }
        all.push(ways);
    }
    if let Some(at) = circle(&all) {
        let message = format!("the output of {:?} leads back to itself", ids[at]);
        let path = drafts[at].path.child("output");
        errors.push(ConfigError::new(
            drafts[at].node.span.clone(),
            path,
            message,
        ));
    }
    all
}

/// An operator from which a way leads back to it.
fn circle(ways: &[Vec<To>]) -> Option<usize> {
    // Take away operators nobody sends to until none is left; what stays is in or behind a circle.
    let mut senders = vec![0usize; ways.len()];
    let targets = |i: usize| {
        ways[i].iter().filter_map(|to| match to {
            To::Operator(at) => Some(*at),
            To::Out => None,
        })
    };
    (0..ways.len())
        .flat_map(targets)
        .for_each(|at| senders[at] += 1);
    let mut free: Vec<usize> = (0..ways.len()).filter(|&i| senders[i] == 0).collect();
    let mut left = ways.len();
    while let Some(i) = free.pop() {
        left -= 1;
        for at in targets(i) {
            senders[at] -= 1;
            if senders[at] == 0 {
                free.push(at);
            }
        }
    }
    if left == 0 {
        return None;
    }
    // From anything that is left, going on within what is left ends in a circle.
    let mut at = senders.iter().position(|&n| n > 0)?;
    for _ in 0..ways.len() {
        if let Some(next) = targets(at).find(|&t| senders[t] > 0) {
            at = next;
        }
    }
    Some(at)
}
