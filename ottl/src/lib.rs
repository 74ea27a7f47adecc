//! OTTL, the language in which the collector's users filter and transform telemetry.
//!
//! A [`Statement`] is an editor, `set(attributes["a"], body)`, perhaps with a condition behind `where`; a
//! [`Condition`] stands alone. Both are compiled when the configuration is read: a path, function, argument,
//! enum or pattern that does not exist is a mistake with its column, and what was probably meant. Carrying
//! them out on a record walks resolved nodes: reading and comparing borrows from the record and allocates
//! nothing.
//!
//! Input is hostile on both sides. The text of a statement is limited in length and nesting, and read in
//! linear time; patterns are those of a regular engine; what functions make of records is limited.
//!
//! Records are reached through [`Scene`], so that the language knows no batch. [`logs`] is the one of log
//! records in columns, [`requests`] that of what is in a request as it came.
//!
//! ```
//! use tailwater_ottl::{Condition, Context, Options, logs::LogScene};
//! let options = Options { context: Context::Log, prefixed: false, encoded: false };
//! let condition = Condition::compile(r#"IsMatch(body, "^WARN") and attributes["a"] == nil"#, options)?;
//! let mut batch = tailwater_pdata::LogsBatch::from_lines(b"WARN x".as_slice().into(), &[(0, 6)]);
//! let scene = LogScene::new(&mut batch);
//! assert_eq!(condition.holds(&scene, 0), Ok(true));
//! # Ok::<(), tailwater_ottl::OttlError>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ast;
mod compare;
mod compile;
mod editors;
mod error;
mod expr;
mod field;
mod functions;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod lexer;
pub mod logs;
mod parser;
pub mod requests;
mod scene;
mod statement;
mod value;

#[cfg(test)]
mod tests;

pub use editors::{EDITORS_NOT_BUILT, MetricEdit, MetricTexts};
pub use error::{Fault, OttlError};
pub use field::{Context, Field};
pub use functions::NOT_BUILT;
pub use lexer::STATEMENT_BYTES_MAX;
pub use parser::NESTING_MAX;
pub use scene::{Cx, Scene, SceneMut};
pub use statement::{
    Condition, Options, RouteStatement, Statement, contexts_of, contexts_of_condition,
};
pub use value::{Stored, Val};

/// Names of the converters that are built.
pub fn converters() -> impl Iterator<Item = &'static str> {
    functions::all().map(|f| f.name)
}

/// Names of the editors that are built.
pub fn editors() -> impl Iterator<Item = &'static str> {
    editors::names()
}
