//! Editors: what changes a record.

mod maps;
mod metrics;
mod replace;
mod span_name;
mod write;

use regex::bytes::Regex;
use tailwater_config::nearest;
use tailwater_pdata::Value;

use crate::ast::{Arg as Written, At, Call};
use crate::compile::{Bound, Compiler, Target};
use crate::error::{Fault, Mistake};
use crate::expr::Expr;
use crate::field::{self, Context, Kind};
use crate::functions::{Arg, Param, Takes, opt, p};
use crate::lexer::shown;
use crate::scene::{Cx, SceneMut};
use crate::value::Val;

pub use metrics::{MetricEdit, MetricTexts};

use metrics::MetricEditor;
use replace::Replacement;
use span_name::SpanName;

/// What becomes of keys that are there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Merge {
    Insert,
    Update,
    Upsert,
}

/// An editor with its arguments, ready to be carried out.
#[derive(Clone, Debug)]
pub(crate) enum Editor {
    Set {
        target: Target,
        value: Expr,
        /// The value, if it is the same for every record.
        literal: Option<Value>,
    },
    DeleteKey {
        target: Target,
        key: Expr,
    },
    MatchingKeys {
        target: Target,
        pattern: Regex,
        keep: bool,
    },
    KeepKeys {
        target: Target,
        keys: Box<[Expr]>,
    },
    Limit {
        target: Target,
        limit: usize,
        priority: Box<[Box<str>]>,
    },
    MergeMaps {
        target: Target,
        source: Expr,
        strategy: Merge,
    },
    Flatten {
        target: Target,
        prefix: Box<str>,
        depth: usize,
        resolve: bool,
    },
    Replace {
        target: Target,
        pattern: Regex,
        with: Replacement,
    },
    ReplaceAll {
        target: Target,
        pattern: Regex,
        /// Keys are replaced, not values.
        keys: bool,
        with: Replacement,
    },
    StringifyAll {
        target: Target,
    },
    TruncateAll {
        target: Target,
        limit: usize,
        marker: Box<str>,
    },
    Append {
        target: Target,
        value: Option<Expr>,
        values: Box<[Expr]>,
    },
    DeleteIndex {
        target: Target,
        start: Expr,
        end: Option<Expr>,
    },
    Metric(Box<MetricEditor>),
    SpanName(SpanName),
}

const MAP: Takes = Takes::Target(Kind::Map);
const ANY: Takes = Takes::Target(Kind::Any);
const TEXT: Takes = Takes::Value(Kind::Text);
const INT: Takes = Takes::Value(Kind::Int);

/// Every editor and what it takes.
const EDITORS: [(&str, &[Param]); 16] = [
    (
        "append",
        &[
            p("target", ANY),
            opt("value", Takes::Value(Kind::Any)),
            opt("values", Takes::Values),
        ],
    ),
    (
        "delete_index",
        &[
            p("target", ANY),
            p("start_index", INT),
            opt("end_index", INT),
        ],
    ),
    ("delete_key", &[p("target", MAP), p("key", TEXT)]),
    (
        "delete_matching_keys",
        &[p("target", MAP), p("pattern", Takes::Pattern)],
    ),
    (
        "keep_matching_keys",
        &[p("target", MAP), p("pattern", Takes::Pattern)],
    ),
    (
        "flatten",
        &[
            p("target", MAP),
            opt("prefix", Takes::Text),
            opt("depth", Takes::Int),
            opt("resolve_conflicts", Takes::Bool),
        ],
    ),
    ("keep_keys", &[p("target", MAP), p("keys", Takes::Values)]),
    (
        "limit",
        &[
            p("target", MAP),
            p("limit", Takes::Int),
            p("priority_keys", Takes::Texts),
        ],
    ),
    (
        "merge_maps",
        &[
            p("target", MAP),
            p("source", Takes::Value(Kind::Map)),
            p("strategy", Takes::OneOf(&["insert", "update", "upsert"])),
        ],
    ),
    (
        "replace_all_matches",
        &[
            p("target", MAP),
            p("pattern", Takes::Glob),
            p("replacement", TEXT),
            opt("function", Takes::Function),
            opt("replacement_format", Takes::Frame),
        ],
    ),
    (
        "replace_all_patterns",
        &[
            p("target", MAP),
            p("mode", Takes::OneOf(&["key", "value"])),
            p("regex", Takes::Pattern),
            p("replacement", TEXT),
            opt("function", Takes::Function),
            opt("replacement_format", Takes::Frame),
        ],
    ),
    (
        "replace_match",
        &[
            p("target", ANY),
            p("pattern", Takes::Glob),
            p("replacement", TEXT),
            opt("function", Takes::Function),
            opt("replacement_format", Takes::Frame),
        ],
    ),
    (
        "replace_pattern",
        &[
            p("target", ANY),
            p("regex", Takes::Pattern),
            p("replacement", TEXT),
            opt("function", Takes::Function),
            opt("replacement_format", Takes::Frame),
        ],
    ),
    (
        "set",
        &[p("target", ANY), p("value", Takes::Value(Kind::Any))],
    ),
    ("stringify_all", &[p("target", MAP)]),
    (
        "truncate_all",
        &[
            p("target", MAP),
            p("limit", Takes::Int),
            opt("utf8_safe", Takes::Bool),
            opt("truncation_marker", Takes::Text),
        ],
    ),
];

/// Editors of the collector that are not built.
pub const EDITORS_NOT_BUILT: &[&str] = &["convert_exponential_histogram_to_histogram"];

/// What the name of an editor says that a statement is about, if it says it.
pub(crate) fn context_of(name: &str) -> Option<Context> {
    match name {
        span_name::NAME => Some(Context::Span),
        _ => metrics::context_of(name),
    }
}

/// Names of all editors.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let common = EDITORS.iter().map(|(name, _)| *name);
    common.chain(metrics::names()).chain([span_name::NAME])
}

/// Takes bound arguments one after another. The table above says what each is, so that a value of another
/// form cannot be there.
struct Take(std::vec::IntoIter<Bound>);

impl Take {
    fn arg(&mut self) -> Arg {
        match self.0.next() {
            Some(Bound::Arg(arg)) => arg,
            _ => Arg::Absent,
        }
    }

    fn expr(&mut self) -> Option<Expr> {
        match self.arg() {
            Arg::Value(expr) => Some(expr),
            _ => None,
        }
    }

    fn exprs(&mut self) -> Option<Box<[Expr]>> {
        match self.arg() {
            Arg::Values(exprs) => Some(exprs),
            _ => None,
        }
    }

    fn pattern(&mut self) -> Option<Regex> {
        match self.arg() {
            Arg::Pattern(pattern) => Some(pattern),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<Box<str>> {
        match self.arg() {
            Arg::Text(text) => Some(text),
            _ => None,
        }
    }

    fn int(&mut self) -> Option<i64> {
        match self.arg() {
            Arg::Int(i) => Some(i),
            _ => None,
        }
    }

    fn bool(&mut self, default: bool) -> bool {
        match self.arg() {
            Arg::Bool(b) => b,
            _ => default,
        }
    }

    fn replacement(&mut self) -> Option<Replacement> {
        let text = self.expr()?;
        let function = match self.arg() {
            Arg::Function(function) => Some(function),
            _ => None,
        };
        Some(Replacement::new(text, function, self.text()))
    }
}

/// Compiles the call of an editor.
pub(crate) fn compile(compiler: &Compiler, call: &At<Call>) -> Result<Editor, Mistake> {
    let (at, name) = (call.at, call.it.name.as_str());
    if let Some(made) = metrics::compile(compiler, call) {
        return Ok(Editor::Metric(Box::new(made?)));
    }
    if name == span_name::NAME {
        return span_name::compile(compiler, call).map(Editor::SpanName);
    }
    let Some((name, params)) = EDITORS.iter().find(|(n, _)| *n == name) else {
        return Err(Mistake::new(at, unknown(name)));
    };
    let mut bound = compiler.bind(at, name, params, &call.it.args)?.into_iter();
    let missing = || Mistake::new(at, format!("{name} lacks an argument"));
    let Some(Bound::Target(target)) = bound.next() else {
        return Err(missing());
    };
    let mut take = Take(bound);
    if *name == "set" {
        let named = |a: &&Written| a.name.as_ref().is_some_and(|n| n.it == "value");
        let written = call.it.args.iter().find(named).or(call.it.args.get(1));
        let (value, kind) = compiler.value(&written.ok_or_else(missing)?.value)?;
        return set(at, target, value, kind);
    }
    make(at, name, target, &mut take)
}

/// Tells an editor of the collector that is not built.
pub(crate) fn is_built(call: &At<Call>) -> Result<(), Mistake> {
    match EDITORS_NOT_BUILT.contains(&call.it.name.as_str()) {
        true => Err(Mistake::new(call.at, unknown(&call.it.name))),
        false => Ok(()),
    }
}

/// What is said about the name of an editor that does not exist.
fn unknown(name: &str) -> String {
    let near = nearest(name, names());
    let near = near.map_or(String::new(), |n| format!("; did you mean {n:?}?"));
    let what = match EDITORS_NOT_BUILT.contains(&name) {
        true => format!("the editor {name} is not built"),
        false => format!("there is no editor {}", shown(name)),
    };
    format!("{what}; allowed: {}{near}", field::listed(names()))
}

/// An editor of its target and its other arguments.
fn make(at: usize, name: &str, target: Target, take: &mut Take) -> Result<Editor, Mistake> {
    let missing = || Mistake::new(at, format!("{name} lacks an argument"));
    let editor = match name {
        "delete_key" => Editor::DeleteKey {
            target,
            key: take.expr().ok_or_else(missing)?,
        },
        "delete_matching_keys" | "keep_matching_keys" => Editor::MatchingKeys {
            target,
            pattern: take.pattern().ok_or_else(missing)?,
            keep: name == "keep_matching_keys",
        },
        "keep_keys" => Editor::KeepKeys {
            target,
            keys: take.exprs().ok_or_else(missing)?,
        },
        "limit" | "truncate_all" | "flatten" => sized(at, name, target, take)?,
        "merge_maps" => Editor::MergeMaps {
            target,
            source: take.expr().ok_or_else(missing)?,
            strategy: match take.text().as_deref() {
                Some("insert") => Merge::Insert,
                Some("update") => Merge::Update,
                _ => Merge::Upsert,
            },
        },
        "replace_match" | "replace_pattern" => Editor::Replace {
            target,
            pattern: take.pattern().ok_or_else(missing)?,
            with: take
                .replacement()
                .ok_or_else(missing)?
                .whole(name == "replace_match"),
        },
        "replace_all_matches" => Editor::ReplaceAll {
            target,
            pattern: take.pattern().ok_or_else(missing)?,
            keys: false,
            with: take.replacement().ok_or_else(missing)?.whole(true),
        },
        "replace_all_patterns" => {
            let keys = take.text().as_deref() == Some("key");
            Editor::ReplaceAll {
                target,
                keys,
                pattern: take.pattern().ok_or_else(missing)?,
                with: take.replacement().ok_or_else(missing)?,
            }
        }
        "stringify_all" => Editor::StringifyAll { target },
        "append" => {
            let (value, values) = (take.expr(), take.exprs());
            if value.is_none() && values.is_none() {
                return Err(Mistake::new(at, "append needs value or values"));
            }
            Editor::Append {
                target,
                value,
                values: values.unwrap_or_default(),
            }
        }
        _ => Editor::DeleteIndex {
            target,
            start: take.expr().ok_or_else(missing)?,
            end: take.expr(),
        },
    };
    Ok(editor)
}

/// The editors that take a size.
fn sized(at: usize, name: &str, target: Target, take: &mut Take) -> Result<Editor, Mistake> {
    let missing = || Mistake::new(at, format!("{name} lacks an argument"));
    let whole = |i: i64, what: &str| {
        usize::try_from(i).map_err(|_| Mistake::new(at, format!("the {what} of {name} is below 0")))
    };
    match name {
        "flatten" => Ok(Editor::Flatten {
            target,
            prefix: take.text().unwrap_or_default(),
            depth: match take.int() {
                Some(0) => return Err(Mistake::new(at, "the depth of flatten is not above 0")),
                Some(depth) => whole(depth, "depth")?,
                None => usize::MAX,
            },
            resolve: take.bool(false),
        }),
        "limit" => {
            let limit = whole(take.int().ok_or_else(missing)?, "limit")?;
            let Arg::Texts(priority) = take.arg() else {
                return Err(missing());
            };
            if priority.len() > limit {
                let why = "there are more priority_keys than the limit allows";
                return Err(Mistake::new(at, why));
            }
            Ok(Editor::Limit {
                target,
                limit,
                priority,
            })
        }
        _ => {
            let limit = whole(take.int().ok_or_else(missing)?, "limit")?;
            // Text of the data model is UTF-8, so that nothing is cut otherwise.
            take.bool(true);
            let marker = take.text().unwrap_or_default();
            if marker.len() > limit {
                let why = "truncation_marker is longer than the limit";
                return Err(Mistake::new(at, why));
            }
            Ok(Editor::TruncateAll {
                target,
                limit,
                marker,
            })
        }
    }
}

fn set(at: usize, target: Target, value: Expr, kind: Kind) -> Result<Editor, Mistake> {
    if !kind.may_be(target.kind) {
        let why = format!(
            "the target is {}, and cannot be set to {}",
            target.kind.name(),
            kind.name()
        );
        return Err(Mistake::new(at, why));
    }
    if target.kind == Kind::Any && matches!(kind, Kind::Time | Kind::Duration) {
        let why = format!(
            "{} cannot be stored here; use FormatTime(...), UnixNano(...) or Nanoseconds(...)",
            kind.name()
        );
        return Err(Mistake::new(at, why));
    }
    // A nil is not set, so it is no literal to set.
    let literal = value.constant().filter(|v| !v.is_nil()).cloned();
    let literal = literal.and_then(|v| v.into_value("set").ok());
    Ok(Editor::Set {
        target,
        value,
        literal,
    })
}

impl Editor {
    /// Changes the record.
    pub fn run(&self, scene: &mut dyn SceneMut, now_ns: i64) -> Result<(), Fault> {
        match self {
            Editor::Set {
                target,
                value,
                literal,
            } => write::set(target, value, literal.as_ref(), scene, now_ns),
            Editor::DeleteKey { target, key } => maps::delete_key(target, key, scene, now_ns),
            Editor::MatchingKeys {
                target,
                pattern,
                keep,
            } => maps::retain(target, scene, now_ns, &mut |key| {
                pattern.is_match(key.as_bytes()) == *keep
            }),
            Editor::KeepKeys { target, keys } => maps::keep_keys(target, keys, scene, now_ns),
            Editor::Limit {
                target,
                limit,
                priority,
            } => write::with_map(target, scene, now_ns, &mut |map| {
                maps::limit(map, *limit, priority);
                Ok(())
            }),
            Editor::MergeMaps {
                target,
                source,
                strategy,
            } => maps::merge(target, source, *strategy, scene, now_ns),
            Editor::Flatten {
                target,
                prefix,
                depth,
                resolve,
            } => write::with_map(target, scene, now_ns, &mut |map| {
                maps::flatten(map, prefix, *depth, *resolve)
            }),
            Editor::Replace {
                target,
                pattern,
                with,
            } => replace::one(target, pattern, with, scene, now_ns),
            Editor::ReplaceAll {
                target,
                pattern,
                keys,
                with,
            } => replace::all(target, pattern, *keys, with, scene, now_ns),
            Editor::StringifyAll { target } => write::with_map(target, scene, now_ns, &mut |map| {
                maps::stringify(map);
                Ok(())
            }),
            Editor::TruncateAll {
                target,
                limit,
                marker,
            } => write::with_map(target, scene, now_ns, &mut |map| {
                maps::truncate(map, *limit, marker);
                Ok(())
            }),
            Editor::Append {
                target,
                value,
                values,
            } => maps::append(target, value.as_ref(), values, scene, now_ns),
            Editor::DeleteIndex { target, start, end } => {
                maps::delete_index(target, start, end.as_ref(), scene, now_ns)
            }
            Editor::Metric(editor) => editor.run(scene, now_ns),
            Editor::SpanName(editor) => editor.run(scene),
        }
    }
}

/// Something evaluated, with nothing borrowed of the record.
pub(crate) fn evaluated(
    expr: &Expr,
    scene: &dyn SceneMut,
    now_ns: i64,
) -> Result<Val<'static>, Fault> {
    let cx = Cx { scene, now_ns };
    Ok(expr.eval(&cx)?.into_static())
}
