//! The expression language of `if`, `expr` and `EXPR(...)`.
//!
//! A subset of expr-lang, the language the collector uses: the parts of a record (`body` or `$`,
//! `attributes`, `resource`, `timestamp`, `severity_text`, `severity_number`), literals, lists
//! and maps, member access with `.`, `[...]` and `?.`, arithmetic, comparison, `in`, `matches`,
//! `contains`, `startsWith`, `endsWith` (each also after `not`), `and or not && || !`, `?:`,
//! `??`, pipes, and functions, among them `env("X")`. Names that do not exist read as nil.
//! Ranges (`400..499`) stand behind `in` only. Predicates, `let` and methods are refused where they
//! are written.
//!
//! Expressions are compiled once: types that can never fit are errors then, patterns of `matches`
//! and `env` are resolved, constants are folded. Comparing and matching text of a record does not
//! allocate.
//!
//! ```
//! use tailwater_config::MemoryEnvironment;
//! use tailwater_pdata::LogsBatch;
//! use tailwater_receivers::operators::expr::{Expr, Record};
//! let text = r#"body matches "^WARN" and attributes.a == nil"#;
//! let e = Expr::compile_condition(text, &MemoryEnvironment::new());
//! let batch = LogsBatch::from_lines(b"WARN x".as_slice().into(), &[(0, 6)]);
//! assert!(e.unwrap().truth(Record { batch: &batch, row: 0 }).unwrap());
//! ```

mod ast;
mod check;
mod eval;
mod functions;
mod lexer;
mod lists;
mod parser;
mod template;

pub use eval::{EvalError, Record, Val};
pub use template::Template;

use check::Type;
use tailwater_config::Environment;

/// A byte offset in the text of an expression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pos(
    /// Bytes from the start of the expression.
    pub usize,
);

impl std::fmt::Display for Pos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at character {}", self.0 + 1)
    }
}

/// Why an expression cannot be compiled.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{pos}: {message}")]
pub struct ExprError {
    /// Where in the expression.
    pub pos: Pos,
    /// What is wrong there.
    pub message: String,
}

impl ExprError {
    pub(crate) fn new(pos: Pos, message: impl Into<String>) -> ExprError {
        ExprError {
            pos,
            message: message.into(),
        }
    }
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Expr {
    node: ast::Node,
    result: Type,
}

impl Expr {
    /// Compiles `text`.
    ///
    /// # Errors
    /// The first place that is not an expression, or that can never be evaluated.
    pub fn compile(text: &str, environment: &dyn Environment) -> Result<Expr, ExprError> {
        let node = parser::parse(text, environment)?;
        let result = check::check(&node)?;
        Ok(Expr { node, result })
    }

    /// Compiles `text`, which must be able to give true or false.
    ///
    /// # Errors
    /// As [`Expr::compile`], and if the result can never be a boolean.
    pub fn compile_condition(text: &str, environment: &dyn Environment) -> Result<Expr, ExprError> {
        let e = Expr::compile(text, environment)?;
        match e.result {
            Type::Bool | Type::Any | Type::Nil => Ok(e),
            t => {
                let message = format!("the result is {}, it has to be bool", t.text());
                Err(ExprError::new(Pos(0), message))
            }
        }
    }

    /// The value for `record`.
    ///
    /// # Errors
    /// A value of the record is of a kind the expression cannot use.
    pub fn eval<'a>(&'a self, record: Record<'a>) -> Result<Val<'a>, EvalError> {
        eval::eval(&self.node, record)
    }

    /// The value for `record` as a condition.
    ///
    /// # Errors
    /// As [`Expr::eval`], and if the value is neither a boolean nor nil, which is false.
    pub fn truth(&self, record: Record<'_>) -> Result<bool, EvalError> {
        match self.eval(record)? {
            Val::Bool(b) => Ok(b),
            // As in the collector, what is not there does not hold.
            Val::Nil => Ok(false),
            v => Err(EvalError::Result {
                kind: v.kind(),
                wanted: "bool",
            }),
        }
    }
}

#[cfg(test)]
mod tests;
