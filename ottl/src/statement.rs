//! Statements and conditions, compiled.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ast::{self, At};
use crate::compile::Compiler;
use crate::editors::{self, Editor};
use crate::error::{Fault, Mistake, OttlError};
use crate::expr::Cond;
use crate::field::{Context, named_in};
use crate::functions;
use crate::parser;
use crate::scene::{Cx, Scene, SceneMut};

/// How a text is read.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What it is about.
    pub context: Context,
    /// Each path has to begin with the name of its context, as where the context is told by the paths.
    pub prefixed: bool,
    /// It is about items of a request as it came: spans, metrics and their points, and what is around them.
    pub encoded: bool,
}

impl Options {
    fn compiler(self) -> Compiler {
        Compiler {
            context: self.context,
            prefixed: self.prefixed,
            encoded: self.encoded,
        }
    }
}

/// A condition on a record. A clone has patterns of its own: those of another thread wait for nothing.
#[derive(Clone, Debug)]
pub struct Condition {
    text: Arc<str>,
    cond: Cond,
}

impl Condition {
    /// Compiles `text`.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn compile(text: &str, options: Options) -> Result<Condition, OttlError> {
        let cond = parser::condition(text)
            .and_then(|parsed| options.compiler().condition(&parsed))
            .map_err(|mistake| mistake.in_text(text))?;
        Ok(Condition {
            text: text.into(),
            cond,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it holds for what `scene` shows. `now_ns` is the time, in ns since 1970.
    ///
    /// # Errors
    /// It could not be told.
    pub fn holds(&self, scene: &dyn Scene, now_ns: i64) -> Result<bool, Fault> {
        self.cond.holds(&Cx { scene, now_ns })
    }
}

/// A statement. A clone has patterns of its own: those of another thread wait for nothing.
#[derive(Clone, Debug)]
pub struct Statement {
    text: Arc<str>,
    editor: Editor,
    condition: Option<Cond>,
}

impl Statement {
    /// Compiles `text`.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn compile(text: &str, options: Options) -> Result<Statement, OttlError> {
        let compile = || {
            let parsed = parser::statement(text)?;
            let compiler = options.compiler();
            let condition = parsed.condition.as_ref();
            Ok(Statement {
                text: text.into(),
                editor: editors::compile(&compiler, &parsed.editor)?,
                condition: condition.map(|c| compiler.condition(c)).transpose()?,
            })
        };
        compile().map_err(|mistake: Mistake| mistake.in_text(text))
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it does to every record; `None` if that depends on a condition.
    pub(crate) fn unconditional(&self) -> Option<&Editor> {
        self.condition.is_none().then_some(&self.editor)
    }

    /// Carries it out on what `scene` shows, if its condition holds; says whether it did.
    ///
    /// # Errors
    /// It could not be carried out. What an editor changes it changes as a whole or not at all, but for
    /// `merge_maps` where a batch has no room for more attributes.
    pub fn run(&self, scene: &mut dyn SceneMut, now_ns: i64) -> Result<bool, Fault> {
        if let Some(condition) = &self.condition {
            let scene: &dyn SceneMut = scene;
            if !condition.holds(&Cx { scene, now_ns })? {
                return Ok(false);
            }
        }
        self.editor.run(scene, now_ns)?;
        Ok(true)
    }
}

/// What picks records for a route: a condition, or a statement such as `route() where ...`, which may change
/// what it picks as far as [`RouteStatement::EDITORS`] do. A clone has patterns of its own.
#[derive(Clone, Debug)]
pub struct RouteStatement {
    text: Arc<str>,
    editor: Option<Editor>,
    condition: Option<Cond>,
}

impl RouteStatement {
    /// The editors that may stand in place of `route`.
    pub const EDITORS: [&str; 2] = ["delete_key", "delete_matching_keys"];

    /// Compiles a statement.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn compile(text: &str, options: Options) -> Result<RouteStatement, OttlError> {
        let compile = || {
            let parsed = parser::statement(text)?;
            let compiler = options.compiler();
            let condition = parsed.condition.as_ref();
            Ok(RouteStatement {
                text: text.into(),
                editor: match Self::changes(&parsed.editor)? {
                    true => Some(editors::compile(&compiler, &parsed.editor)?),
                    false => None,
                },
                condition: condition.map(|c| compiler.condition(c)).transpose()?,
            })
        };
        compile().map_err(|mistake: Mistake| mistake.in_text(text))
    }

    /// Whether an editor is one that changes what it picks.
    fn changes(editor: &At<ast::Call>) -> Result<bool, Mistake> {
        let name = &*editor.it.name;
        if Self::EDITORS.contains(&name) {
            return Ok(true);
        }
        let allowed = || format!("route, {}", Self::EDITORS.join(", "));
        match (name, editor.it.args.is_empty()) {
            ("route", true) => Ok(false),
            ("route", false) => Err(Mistake::new(editor.at, "route takes no arguments")),
            _ => Err(Mistake::new(
                editor.at,
                format!(
                    "{name} cannot stand in a routing table; allowed: {}",
                    allowed()
                ),
            )),
        }
    }

    /// The contexts that its paths begin with.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn contexts_of(text: &str) -> Result<BTreeSet<Context>, OttlError> {
        let parsed = parser::statement(text).map_err(|m| m.in_text(text))?;
        Self::changes(&parsed.editor).map_err(|m| m.in_text(text))?;
        Ok(in_statement(&parsed))
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it picks what `scene` shows. `now_ns` is the time, in ns since 1970.
    ///
    /// # Errors
    /// It could not be told.
    pub fn picks(&self, scene: &dyn Scene, now_ns: i64) -> Result<bool, Fault> {
        match &self.condition {
            Some(condition) => condition.holds(&Cx { scene, now_ns }),
            None => Ok(true),
        }
    }

    /// Whether it changes what it picks.
    pub fn edits(&self) -> bool {
        self.editor.is_some()
    }

    /// Changes what it picked.
    ///
    /// # Errors
    /// It could not be changed, and is as it was.
    pub fn edit(&self, scene: &mut dyn SceneMut, now_ns: i64) -> Result<(), Fault> {
        match &self.editor {
            Some(editor) => editor.run(scene, now_ns),
            None => Ok(()),
        }
    }
}

impl From<Condition> for RouteStatement {
    fn from(condition: Condition) -> RouteStatement {
        RouteStatement {
            text: condition.text,
            editor: None,
            condition: Some(condition.cond),
        }
    }
}

/// The contexts that the paths of a statement begin with.
///
/// # Errors
/// It cannot be read.
pub fn contexts_of(text: &str) -> Result<BTreeSet<Context>, OttlError> {
    let parsed = parser::statement(text).map_err(|m| m.in_text(text))?;
    let editor = &parsed.editor;
    editors::is_built(editor).map_err(|m| m.in_text(text))?;
    Ok(in_statement(&parsed))
}

fn in_statement(parsed: &ast::Statement) -> BTreeSet<Context> {
    let mut found = BTreeSet::new();
    // It changes metrics that it does not name.
    found.extend(editors::context_of(&parsed.editor.it.name));
    parsed
        .editor
        .it
        .args
        .iter()
        .for_each(|a| in_value(&a.value, &mut found));
    if let Some(condition) = &parsed.condition {
        in_condition(condition, &mut found);
    }
    found
}

/// The contexts that the paths of a condition begin with.
///
/// # Errors
/// It cannot be read.
pub fn contexts_of_condition(text: &str) -> Result<BTreeSet<Context>, OttlError> {
    let parsed = parser::condition(text).map_err(|m| m.in_text(text))?;
    let mut found = BTreeSet::new();
    in_condition(&parsed, &mut found);
    Ok(found)
}

fn in_condition(condition: &ast::Condition, found: &mut BTreeSet<Context>) {
    match condition {
        ast::Condition::Is(value) => in_value(value, found),
        ast::Condition::Compare(a, _, b) => [a, b].into_iter().for_each(|v| in_value(v, found)),
        ast::Condition::Not(inner) => in_condition(inner, found),
        ast::Condition::And(all) | ast::Condition::Or(all) => {
            all.iter().for_each(|c| in_condition(c, found));
        }
    }
}

fn in_value(value: &At<ast::Value>, found: &mut BTreeSet<Context>) {
    match &value.it {
        ast::Value::Path(path) => {
            found.extend(named_in(path));
            path.parts.iter().for_each(|p| in_keys(&p.keys, found));
        }
        ast::Value::Call(call, keys) => {
            call.args.iter().for_each(|a| in_value(&a.value, found));
            // Some ask for fields that they do not name.
            if call.name == "IsRootSpan" {
                found.insert(Context::Span);
            }
            found.extend(functions::find(&call.name).and_then(|f| f.context));
            in_keys(keys, found);
        }
        ast::Value::List(items) => items.iter().for_each(|v| in_value(v, found)),
        ast::Value::Map(entries) => entries.iter().for_each(|(_, v)| in_value(v, found)),
        ast::Value::Negative(inner) => in_value(inner, found),
        ast::Value::Math(a, _, b) => [a, b].into_iter().for_each(|v| in_value(v, found)),
        _ => {}
    }
}

fn in_keys(keys: &[ast::Key], found: &mut BTreeSet<Context>) {
    for key in keys {
        let value = At {
            at: key.at,
            it: key.value.clone(),
        };
        in_value(&value, found);
    }
}
