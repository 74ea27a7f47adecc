//! The routing table as it is written.

use tailwater_config::reference::ValueKind;
use tailwater_config::{KeyPath, Section, Span};
use tailwater_ottl::{Condition, Context, Options, RouteStatement, contexts_of_condition};
use tailwater_pdata::Signal;
use tailwater_pipeline::client::ClientInfo;

use crate::ottl::{compiled, context_for};

/// The contexts that a route may have, besides `request`.
const CONTEXTS: [Context; 5] = [
    Context::Resource,
    Context::Span,
    Context::Metric,
    Context::DataPoint,
    Context::Log,
];
/// Most routes of a table.
const ROUTES_MAX: usize = 10_000;

/// A pipeline that is named.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub id: String,
    pub span: Span,
    pub path: KeyPath,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(super) struct Route {
    picks: Picks,
    /// What it is about; none if it is the request.
    pub context: Option<Context>,
    /// No later route sees what it picks.
    pub moves: bool,
    pub pipelines: Vec<Named>,
    pub span: Span,
    pub path: KeyPath,
}

#[derive(Clone, Debug)]
enum Picks {
    Records(Box<RouteStatement>),
    Requests(RequestCondition),
}

/// `request["key"] == "value"`, or `!=`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RequestCondition {
    /// In lower case.
    key: String,
    value: String,
    equal: bool,
}

/// The pipelines under `key`; `None` without the key.
pub(super) fn pipelines(s: &mut Section<'_, '_>, key: &str) -> Option<Vec<Named>> {
    let path = s.path().child(key);
    let texts = s.text_nodes(key)?;
    let named = texts.into_iter().enumerate().map(|(i, (text, node))| {
        let (signal, name) = match text.split_once('/') {
            Some((signal, name)) => (signal.trim(), format!("/{}", name.trim())),
            None => (text.trim(), String::new()),
        };
        Named {
            id: format!("{signal}{name}"),
            span: node.span.clone(),
            path: path.child(i),
        }
    });
    Some(named.collect())
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "context",
        "What the condition is about; what its paths begin with, else resource, unless set. With resource all that is left of a resource is picked, with metric all points of it.",
    ),
    (
        "action",
        "move: no later route sees what this one picks. copy: all of them do.",
    ),
    (
        "condition",
        "A condition of OTTL; or for request: `request[\"KEY\"] == \"VALUE\"` or `!=`, about metadata of the client, which `include_metadata` of the receiver keeps. Without the key neither holds, of several values the first counts. It or `statement` is required.",
    ),
    (
        "statement",
        "Instead of a condition: `route() where CONDITION`; or `delete_key` or `delete_matching_keys`, which change what they pick.",
    ),
    (
        "pipelines",
        "Which get what is picked; each has to begin with this connector. Required.",
    ),
];

impl Route {
    /// Reads a row and puts it behind `table`, if it is none that is there already.
    pub fn decode(s: &mut Section<'_, '_>, table: &mut Vec<Route>) {
        s.describe(OPTIONS);
        let contexts: Vec<(&str, Option<Context>)> = CONTEXTS
            .iter()
            .map(|c| (c.name(), Some(*c)))
            .chain([("request", None)])
            .collect();
        let context = s.choice_optional("context", &contexts);
        let moves = s.choice("action", &[("move", true), ("copy", false)], true);
        let kind = || vec![ValueKind::Text];
        let condition = s.node_of("condition", kind);
        let statement = s.node_of("statement", kind);
        let text = |node: Option<&tailwater_config::Node>| {
            node.and_then(|n| n.as_text())
                .map(str::to_owned)
                .filter(|t| !t.is_empty())
        };
        // What is no text was meant to be one.
        for (key, node) in [("condition", condition), ("statement", statement)] {
            if node.is_some_and(|n| !n.is_null() && n.as_text().is_none()) {
                s.invalid(key, "is no string");
                return;
            }
        }
        let pipelines = pipelines(s, "pipelines").unwrap_or_default();
        if pipelines.is_empty() {
            s.error("invalid route: no pipelines defined");
        }
        let is_request = context == Some(None);
        let picks = match (text(condition), text(statement)) {
            (Some(_), Some(_)) => {
                s.error("invalid route: both condition and statement provided");
                None
            }
            (None, None) => {
                s.error("invalid route: no condition or statement provided");
                None
            }
            (None, Some(_)) if is_request => {
                s.invalid("statement", "\"request\" context requires a 'condition'");
                None
            }
            (Some(text), None) if is_request => match RequestCondition::parse(&text) {
                Some(condition) => Some((Picks::Requests(condition), None)),
                None => {
                    s.invalid(
                        "condition",
                        "has to be request[\"key\"] == \"value\" or request[\"key\"] != \"value\"",
                    );
                    None
                }
            },
            (condition, statement) => {
                let key = if condition.is_some() {
                    "condition"
                } else {
                    "statement"
                };
                let text = condition.or(statement).unwrap_or_default();
                statement_of(s, key, &text, context.flatten())
                    .map(|(picks, context)| (Picks::Records(Box::new(picks)), Some(context)))
            }
        };
        let Some((picks, context)) = picks else {
            return;
        };
        let route = Route {
            picks,
            context,
            moves,
            pipelines,
            span: s.span().clone(),
            path: s.path().clone(),
        };
        if table.len() == ROUTES_MAX {
            return s.error(format!("at most {ROUTES_MAX} routes are allowed"));
        }
        if table.iter().any(|other| route.picks_as(other)) {
            let key = if s.has("condition") {
                "condition"
            } else {
                "statement"
            };
            return s.warn(key, "is in the table already: this route is ignored");
        }
        table.push(route);
    }

    fn picks_as(&self, other: &Route) -> bool {
        self.context == other.context
            && match (&self.picks, &other.picks) {
                (Picks::Records(a), Picks::Records(b)) => a.text() == b.text(),
                (Picks::Requests(a), Picks::Requests(b)) => a == b,
                _ => false,
            }
    }

    /// The statement, if it is about records or what is around them.
    pub fn statement(&self) -> Option<&RouteStatement> {
        match &self.picks {
            Picks::Records(statement) => Some(statement),
            Picks::Requests(_) => None,
        }
    }

    /// Whether a request of this client is picked; `None` if it is about records.
    pub fn picks_client(&self, client: Option<&ClientInfo>) -> Option<bool> {
        match &self.picks {
            Picks::Records(_) => None,
            Picks::Requests(condition) => Some(client.is_some_and(|c| condition.holds(c))),
        }
    }

    /// Whether it changes what it picks.
    pub fn edits(&self) -> bool {
        self.statement().is_some_and(RouteStatement::edits)
    }

    /// Why it cannot be about `signal`, if it cannot.
    pub fn misfit(&self, signal: Signal) -> Option<String> {
        let context = self.context?;
        let fits: &[Context] = match signal {
            Signal::Logs => &[Context::Resource, Context::Log],
            Signal::Traces => &[Context::Resource, Context::Span],
            Signal::Metrics => &[Context::Resource, Context::Metric, Context::DataPoint],
        };
        let allowed: Vec<&str> = fits.iter().map(|c| c.name()).collect();
        (!fits.contains(&context)).then(|| {
            format!(
                "is about the context {}, but {signal} go into this connector; allowed: {}, request",
                context.name(),
                allowed.join(", ")
            )
        })
    }
}

/// Compiles the condition or statement of a row. Without a context the paths say what it is about; if they do
/// not either, it is the resource.
fn statement_of(
    s: &mut Section<'_, '_>,
    key: &str,
    text: &str,
    context: Option<Context>,
) -> Option<(RouteStatement, Context)> {
    let node = s.node_of(key, || vec![ValueKind::Text])?;
    let at = |s: &Section<'_, '_>| (s.path().child(key), node);
    let is_condition = key == "condition";
    let (context, prefixed) = match context {
        Some(context) => (context, false),
        None => {
            let (path, node) = at(s);
            let named = compiled(s, (text, node, path), |text| match is_condition {
                true => contexts_of_condition(text),
                false => RouteStatement::contexts_of(text),
            })?;
            match named.is_empty() {
                true => (Context::Resource, false),
                false => match context_for(&named, &CONTEXTS) {
                    Some(context) => (context, true),
                    None => {
                        let named: Vec<&str> = named.iter().map(|c| c.name()).collect();
                        let named = named.join(", ");
                        s.invalid(
                            key,
                            format!("the paths begin with {named}, which no context has together"),
                        );
                        return None;
                    }
                },
            }
        }
    };
    let options = Options {
        context,
        prefixed,
        encoded: false,
    };
    let (path, node) = at(s);
    let picks = compiled(s, (text, node, path), |text| match is_condition {
        true => Condition::compile(text, options).map(RouteStatement::from),
        false => RouteStatement::compile(text, options),
    })?;
    Some((picks, context))
}

impl RequestCondition {
    fn parse(text: &str) -> Option<RequestCondition> {
        let rest = text.trim().strip_prefix("request[\"")?;
        let (key, rest) = rest.split_once("\"]")?;
        let rest = rest.trim_start();
        let (equal, rest) = match rest.strip_prefix("==") {
            Some(rest) => (true, rest),
            None => (false, rest.strip_prefix("!=")?),
        };
        let value = rest.trim().strip_prefix('"')?.strip_suffix('"')?;
        let is_plain = |text: &str| !text.contains(['"', '\\']);
        (!key.is_empty() && is_plain(key) && is_plain(value)).then(|| RequestCondition {
            key: key.to_ascii_lowercase(),
            value: value.to_owned(),
            equal,
        })
    }

    /// It does not hold without the key, whatever it asks. Of several values the first counts.
    fn holds(&self, client: &ClientInfo) -> bool {
        let first = client.metadata(&self.key).first();
        first.is_some_and(|value| (**value == *self.value) == self.equal)
    }
}
