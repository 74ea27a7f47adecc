//! Groups of statements and conditions as they are written.

use std::collections::BTreeSet;

use tailwater_config::{ConfigError, KeyPath, Node, Section};
use tailwater_ottl::{
    Condition, Context, Options, OttlError, Statement, contexts_of, contexts_of_condition,
};

/// What becomes of an error at a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorMode {
    /// It is logged and counted, and the next statement or condition follows.
    Ignore,
    /// The same without a line in the log.
    Silent,
    /// The batch it is in is given up.
    Propagate,
}

const MODES: [(&str, ErrorMode); 3] = [
    ("ignore", ErrorMode::Ignore),
    ("silent", ErrorMode::Silent),
    ("propagate", ErrorMode::Propagate),
];

/// Conditions of which one is enough.
#[derive(Clone, Debug)]
pub struct ConditionGroup {
    /// What they are about.
    pub context: Context,
    /// What an error does.
    pub mode: ErrorMode,
    /// In order.
    pub conditions: Vec<Condition>,
}

/// Statements that are carried out one after another.
#[derive(Clone, Debug)]
pub struct StatementGroup {
    /// What they are about.
    pub context: Context,
    /// What an error does.
    pub mode: ErrorMode,
    /// One of them has to hold; without any, always.
    pub conditions: Vec<Condition>,
    /// In order.
    pub statements: Vec<Statement>,
}

/// What its options do.
const ERROR_MODE: &[(&str, &str)] = &[(
    "error_mode",
    "What an error at a record does: go on with the next one and log, not log, or give the batch up, counted as dropped.",
)];

/// `error_mode` of a processor.
pub(crate) fn error_mode(s: &mut Section<'_, '_>) -> ErrorMode {
    s.describe(ERROR_MODE);
    s.choice_any_case("error_mode", &MODES, ErrorMode::Ignore)
}

/// A text with where it was written.
struct Written<'n> {
    text: &'n str,
    node: &'n Node,
    path: KeyPath,
}

impl Written<'_> {
    fn mistake(&self, s: &mut Section<'_, '_>, message: String) {
        let error = ConfigError::new(self.node.span.clone(), self.path.clone(), message);
        s.errors().push(error);
    }

    /// What `compile` makes of it; its mistake is the section's.
    fn compiled<T>(
        &self,
        s: &mut Section<'_, '_>,
        compile: impl FnOnce(&str) -> Result<T, OttlError>,
    ) -> Option<T> {
        match compile(self.text) {
            Ok(made) => Some(made),
            Err(error) => {
                self.mistake(s, error.to_string());
                None
            }
        }
    }
}

fn texts<'n>(s: &mut Section<'n, '_>, key: &str) -> Vec<Written<'n>> {
    if s.is_recording() {
        // The list itself is read below, for the places of what is wrong in it.
        s.text_nodes(key);
    }
    let path = s.path().child(key);
    let Some(nodes) = s.list(key) else {
        return Vec::new();
    };
    let mut texts = Vec::with_capacity(nodes.len());
    for (i, node) in nodes.iter().enumerate() {
        let path = path.child(i);
        match node.as_text() {
            Some(text) => texts.push(Written { text, node, path }),
            None => {
                let found = node.describe();
                let error = ConfigError::new(node.span.clone(), path, "").found(found);
                s.errors().push(error.allowed("a string"));
            }
        }
    }
    texts
}

/// The one of `allowed` from which all of `named` can be reached, the outermost there is.
fn context_for(named: &BTreeSet<Context>, allowed: &[Context]) -> Result<Context, String> {
    let names = |contexts: &[Context]| {
        let names: Vec<&str> = contexts.iter().map(|c| c.name()).collect();
        names.join(", ")
    };
    if named.is_empty() {
        return Err(format!(
            "no path says what it is about: begin paths with one of {}, or give the group a context",
            names(allowed)
        ));
    }
    let reaches = |c: &&Context| named.iter().all(|n| c.reaches().contains(n));
    allowed.iter().find(reaches).copied().ok_or_else(|| {
        let named: Vec<Context> = named.iter().copied().collect();
        format!(
            "the paths begin with {}, which cannot be reached together here; allowed: {}",
            names(&named),
            names(allowed)
        )
    })
}

/// What kind of list `key` is: of texts or of sections. A mixture is a mistake.
enum Shape<'n> {
    None,
    Flat,
    Grouped(&'n [Node]),
}

fn shape<'n>(s: &mut Section<'n, '_>, key: &str) -> Shape<'n> {
    let Some(nodes) = s.list(key) else {
        return Shape::None;
    };
    let grouped = nodes.iter().filter(|n| n.as_map().is_some()).count();
    if grouped == 0 {
        return Shape::Flat;
    }
    if grouped < nodes.len() {
        s.invalid(key, "is a list of strings or of groups, not of both");
        return Shape::None;
    }
    Shape::Grouped(nodes)
}

/// Log records are columns here; of spans, metrics and points conditions alone see what is in their bytes,
/// and less of what is around them.
fn options(context: Context, prefixed: bool, allowed: &[Context]) -> Options {
    Options {
        context,
        prefixed,
        encoded: !allowed.contains(&Context::Log),
    }
}

/// Reads the conditions under `key`, which are about `context` and need not say so.
pub(crate) fn conditions_of(
    s: &mut Section<'_, '_>,
    key: &str,
    (context, allowed): (Context, &[Context]),
    mode: ErrorMode,
) -> Option<ConditionGroup> {
    let options = options(context, false, allowed);
    let texts = texts(s, key);
    let compile = |w: &Written<'_>| w.compiled(s, |t| Condition::compile(t, options));
    let conditions: Vec<Condition> = texts.iter().filter_map(compile).collect();
    (!conditions.is_empty()).then_some(ConditionGroup {
        context,
        mode,
        conditions,
    })
}

/// Reads a list of conditions, or of groups of them.
pub(crate) fn condition_groups(
    s: &mut Section<'_, '_>,
    key: &str,
    allowed: &[Context],
    mode: ErrorMode,
) -> Vec<ConditionGroup> {
    let mut groups = Vec::new();
    match shape(s, key) {
        Shape::None => {}
        Shape::Flat => {
            for written in texts(s, key) {
                groups.extend(lone_condition(s, &written, allowed, mode));
            }
        }
        Shape::Grouped(nodes) => {
            let path = s.path().child(key);
            for (i, node) in nodes.iter().enumerate() {
                let mut group = Section::new(node, path.child(i), s.errors());
                let mode = group.choice_any_case("error_mode", &MODES, mode);
                match context_of(&mut group, allowed) {
                    Some(context) => groups.extend(conditions_of(
                        &mut group,
                        "conditions",
                        (context, allowed),
                        mode,
                    )),
                    None => {
                        for written in texts(&mut group, "conditions") {
                            groups.extend(lone_condition(&mut group, &written, allowed, mode));
                        }
                    }
                }
                group.finish();
            }
        }
    }
    groups
}

/// A condition whose paths say what it is about.
fn lone_condition(
    s: &mut Section<'_, '_>,
    written: &Written<'_>,
    allowed: &[Context],
    mode: ErrorMode,
) -> Option<ConditionGroup> {
    let named = written.compiled(s, contexts_of_condition)?;
    let context = match context_for(&named, allowed) {
        Ok(context) => context,
        Err(why) => {
            written.mistake(s, why);
            return None;
        }
    };
    let options = options(context, true, allowed);
    let condition = written.compiled(s, |t| Condition::compile(t, options))?;
    Some(ConditionGroup {
        context,
        mode,
        conditions: vec![condition],
    })
}

/// What its options do.
const GROUP: &[(&str, &str)] = &[
    (
        "error_mode",
        "That of this group; that of the processor unless set.",
    ),
    (
        "context",
        "What paths begin with here; unless set they say it themselves.",
    ),
    ("conditions", "Conditions, of which one is enough."),
];

fn context_of(s: &mut Section<'_, '_>, allowed: &[Context]) -> Option<Context> {
    s.describe(GROUP);
    let choices: Vec<(&str, Context)> = allowed.iter().map(|c| (c.name(), *c)).collect();
    s.choice_optional("context", &choices)
}

/// Reads a list of statements, or of groups of them.
pub(crate) fn statement_groups(
    s: &mut Section<'_, '_>,
    key: &str,
    allowed: &[Context],
    mode: ErrorMode,
) -> Vec<StatementGroup> {
    let mut groups = Vec::new();
    match shape(s, key) {
        Shape::None => {}
        Shape::Flat => groups.extend(statements(s, key, allowed, mode, None)),
        Shape::Grouped(nodes) => {
            let path = s.path().child(key);
            for (i, node) in nodes.iter().enumerate() {
                let mut group = Section::new(node, path.child(i), s.errors());
                let mode = group.choice_any_case("error_mode", &MODES, mode);
                let context = context_of(&mut group, allowed);
                groups.extend(statements(&mut group, "statements", allowed, mode, context));
                group.finish();
            }
        }
    }
    groups
}

/// The statements under `key` and the conditions beside them as one group; if nothing says what it is
/// about, the paths of all of them together do.
fn statements(
    s: &mut Section<'_, '_>,
    key: &str,
    allowed: &[Context],
    mode: ErrorMode,
    context: Option<Context>,
) -> Option<StatementGroup> {
    let written = texts(s, key);
    let conditions = match key {
        "statements" => texts(s, "conditions"),
        _ => Vec::new(),
    };
    let options = |context, prefixed| Options {
        context,
        prefixed,
        encoded: false,
    };
    let options = match context {
        Some(context) => options(context, false),
        None => {
            let mut named = BTreeSet::new();
            for w in &written {
                named.extend(w.compiled(s, contexts_of)?);
            }
            for w in &conditions {
                named.extend(w.compiled(s, contexts_of_condition)?);
            }
            let first = written.first()?;
            match context_for(&named, allowed) {
                Ok(context) => options(context, true),
                Err(why) => {
                    first.mistake(s, why);
                    return None;
                }
            }
        }
    };
    let conditions: Vec<Condition> = conditions
        .iter()
        .filter_map(|w| w.compiled(s, |t| Condition::compile(t, options)))
        .collect();
    let statements: Vec<Statement> = written
        .iter()
        .filter_map(|w| w.compiled(s, |t| Statement::compile(t, options)))
        .collect();
    (!statements.is_empty()).then_some(StatementGroup {
        context: options.context,
        mode,
        conditions,
        statements,
    })
}
