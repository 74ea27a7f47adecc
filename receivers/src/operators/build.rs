//! From the list of operators in a configuration to a chain.

use std::sync::Arc;

use tailwater_config::{
    ConfigError, Environment, Errors, KeyPath, MemoryEnvironment, Node, Section, nearest,
};

use super::chain::{Chain, Stage, To};
use super::decode;
use super::operator::OnError;
use super::options::condition;
use super::router;
use super::transform::Noop;

/// What building a chain needs to know besides the operators.
pub struct BuildCx<'a> {
    /// Where the list of operators stands, for messages: `receivers::filelog::operators`.
    pub path: KeyPath,
    /// Where the expressions' `env("X")` looks.
    pub environment: &'a dyn Environment,
}

/// The operators that can be built.
const SUPPORTED: [&str; 26] = [
    "add",
    "assign_keys",
    "container",
    "copy",
    "csv_parser",
    "filter",
    "flatten",
    "json_array_parser",
    "json_parser",
    "key_value_parser",
    "move",
    "noop",
    "recombine",
    "regex_parser",
    "regex_replace",
    "remove",
    "retain",
    "router",
    "sanitize_utf8",
    "scope_name_parser",
    "severity_parser",
    "syslog_parser",
    "time_parser",
    "trace_parser",
    "unquote",
    "uri_parser",
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
    /// Of a router: the outputs of each route.
    routes: Vec<Vec<(&'n str, &'n Node)>>,
}

/// The elements of a list of operators, which [`Chain::build`] makes a chain of later.
pub fn operators(s: &mut Section<'_, '_>, key: &str) -> Vec<Node> {
    let nodes = s.list(key).unwrap_or_default();
    if s.is_recording() {
        let path = s.path().child(key);
        for (i, node) in nodes.iter().enumerate() {
            let cx = BuildCx {
                path: path.clone(),
                environment: &MemoryEnvironment::new(),
            };
            draft(node, path.child(i), &cx, "".into(), s.errors());
        }
    }
    nodes.to_vec()
}

impl Chain {
    /// Builds the chain of `nodes`, the elements of an `operators` list.
    ///
    /// # Errors
    /// Everything that is wrong with it: operators that are unknown or not supported, options,
    /// outputs that do not exist or that lead back.
    pub fn build(nodes: &[Node], cx: &BuildCx<'_>) -> Result<Chain, Errors> {
        Chain::build_behind(None, nodes, cx)
    }

    /// As [`Chain::build`], with an operator in front that is not in the list: where it stands, and what
    /// it is.
    ///
    /// # Errors
    /// As [`Chain::build`].
    pub fn build_behind(
        first: Option<(&KeyPath, &Node)>,
        nodes: &[Node],
        cx: &BuildCx<'_>,
    ) -> Result<Chain, Errors> {
        let mut errors = Errors::new();
        let listed = nodes.iter().enumerate();
        let listed = listed.map(|(i, node)| (cx.path.child(i), node));
        let first = first.map(|(path, node)| (path.clone(), node));
        let all: Vec<(KeyPath, &Node)> = first.into_iter().chain(listed).collect();
        let nodes: Vec<&Node> = all.iter().map(|(_, node)| *node).collect();
        let ids = unique_ids(&nodes);
        let mut drafts = Vec::new();
        for (i, ((path, node), id)) in all.into_iter().zip(&ids).enumerate() {
            if ids[..i].contains(id) {
                let message = format!("another operator has the id {id:?}");
                let path = path.child("id");
                errors.push(ConfigError::new(node.span.clone(), path, message));
            }
            drafts.push(draft(node, path, cx, id.clone(), &mut errors));
        }
        let ways = ways(&drafts, &ids, &mut errors);
        let mut stages = Vec::new();
        for (draft, Ways { outputs, routes }) in drafts.into_iter().zip(ways) {
            let Some(mut stage) = draft.stage else {
                continue;
            };
            stage.outputs = outputs;
            if let Some(router) = &mut stage.router {
                router.connect(routes);
            }
            stages.push(stage);
        }
        let has = |kind: &str| {
            let mut kinds = nodes.iter().map(|n| n.get("type").and_then(Node::as_text));
            kinds.any(|k| k == Some(kind))
        };
        let (joins_lines, recombines) = (has("container"), has("recombine"));
        let warnings = errors.take_warnings();
        errors
            .into_result(())
            .map(|()| Chain::new(stages, joins_lines, recombines, warnings))
    }

    /// Adds what is wrong with a chain, or what it warns of, to `errors`.
    pub fn report(chain: Result<Chain, Errors>, errors: &mut Errors) {
        match chain {
            Ok(chain) => chain
                .warnings
                .into_iter()
                .for_each(|warning| errors.warn(warning)),
            Err(more) => errors.append(more),
        }
    }
}

/// The id of each operator: the one it was given, else its type, with a number from the second
/// one of a type on that no other operator has, as the collector does it. Ids that were given may
/// still be equal.
fn unique_ids(nodes: &[&Node]) -> Vec<Arc<str>> {
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

/// What the options of all operators do.
const COMMON: &[(&str, &str)] = &[(
    "id",
    "The name that others give in `output`; the type unless set.",
)];
/// What the options of all but the router do.
const OF_MOST: &[(&str, &str)] = &[
    (
        "output",
        "Ids of the operators that are next; the next one in the list unless set.",
    ),
    (
        "on_error",
        "What becomes of a record that it cannot treat: passed on unchanged or dropped, with a line in the log or without.",
    ),
    ("if", "An expression: other records pass unchanged."),
];

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
        routes: Vec::new(),
    };
    let mut s = Section::new(node, path, errors);
    s.tolerate_unknown();
    s.describe(&[("type", "Which operator it is.")]);
    let kind = s.variant("type", &SUPPORTED);
    s.describe(COMMON);
    // Taken account of beforehand; here its kind is checked.
    s.string_optional("id");
    let Some(kind) = kind else { return draft };
    if !is_supported(&kind) {
        let path = draft.path.child("type");
        let e = ConfigError::new(s.span_of("type"), path, unknown(&kind))
            .suggest(nearest(&kind, SUPPORTED).filter(|_| !is_input_or_output(&kind)));
        s.errors().push(e);
        return draft;
    }
    if kind == "router" {
        let read = router::decode(&mut s, cx.environment);
        s.finish();
        if let Some((router, routes)) = read {
            draft.routes = routes;
            draft.stage = Some(Stage {
                id,
                condition: None,
                on_error: OnError::Send,
                outputs: Vec::new(),
                operator: Box::new(Noop),
                router: Some(router),
            });
        }
        return draft;
    }
    s.describe(OF_MOST);
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
        router: None,
    });
    draft
}

fn is_input_or_output(kind: &str) -> bool {
    kind.ends_with("_input") || matches!(kind, "stdin" | "stdout" | "file_output")
}

fn unknown(kind: &str) -> String {
    if is_input_or_output(kind) {
        return format!("operator {kind} cannot be used in a receiver");
    }
    format!(
        "unknown operator {kind:?}; supported: {}",
        SUPPORTED.join(", ")
    )
}

/// Where an operator sends its records.
#[derive(Default)]
struct Ways {
    outputs: Vec<To>,
    /// Of a router, by route.
    routes: Vec<Vec<To>>,
}

impl Ways {
    /// The operators it sends to.
    fn targets(&self) -> impl Iterator<Item = usize> {
        let all = self.outputs.iter().chain(self.routes.iter().flatten());
        all.filter_map(|to| match to {
            To::Operator(at) => Some(*at),
            To::Out => None,
        })
    }
}

/// Where each operator sends its records. Names that do not exist and circles are errors.
fn ways(drafts: &[Draft<'_>], ids: &[Arc<str>], errors: &mut Errors) -> Vec<Ways> {
    let mut all = Vec::new();
    for (i, draft) in drafts.iter().enumerate() {
        let next = if i + 1 < drafts.len() {
            To::Operator(i + 1)
        } else {
            To::Out
        };
        let named = |names: &[(&str, &Node)], errors: &mut Errors| {
            let found = names.iter().filter_map(|(name, node)| {
                let name = name.trim();
                let at = ids.iter().position(|id| **id == *name);
                if at.is_none() {
                    errors.push(no_operator(name, node, &draft.path, ids));
                }
                at.map(To::Operator)
            });
            found.collect::<Vec<To>>()
        };
        let routes = draft.routes.iter();
        let routes: Vec<Vec<To>> = routes.map(|names| named(names, errors)).collect();
        let mut outputs = named(draft.outputs.as_deref().unwrap_or_default(), errors);
        if outputs.is_empty() && routes.is_empty() {
            outputs.push(next);
        }
        all.push(Ways { outputs, routes });
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

fn no_operator(name: &str, node: &Node, path: &KeyPath, ids: &[Arc<str>]) -> ConfigError {
    let message = format!("there is no operator with the id {name:?}");
    ConfigError::new(node.span.clone(), path.child("output"), message)
        .allowed(ids.join(", "))
        .suggest(nearest(name, ids.iter().map(|id| &**id)))
}

/// An operator from which a way leads back to it.
fn circle(ways: &[Ways]) -> Option<usize> {
    // Take away operators nobody sends to until none is left; what stays is in or behind a circle.
    let mut senders = vec![0usize; ways.len()];
    let targets = |i: usize| ways[i].targets();
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
