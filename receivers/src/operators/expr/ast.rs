//! The tree an expression becomes.

use regex::bytes::Regex;
use tailwater_pdata::{Key, Value};

use super::Pos;
use super::functions::Function;
use tailwater_golang::regexp;

/// A part of the record that expressions can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Variable {
    Body,
    Attributes,
    Resource,
    Timestamp,
    SeverityText,
    SeverityNumber,
}

/// A name that reads as nil because nothing is called so, or a part of the record.
pub(super) fn variable(name: &str) -> Option<Variable> {
    Some(match name {
        "body" => Variable::Body,
        "attributes" => Variable::Attributes,
        "resource" => Variable::Resource,
        "timestamp" => Variable::Timestamp,
        "severity_text" => Variable::SeverityText,
        "severity_number" => Variable::SeverityNumber,
        _ => return None,
    })
}

/// Operators on two values that are not decided by the left one alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Binary {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Pow,
    In,
    Contains,
    StartsWith,
    EndsWith,
}

impl Binary {
    /// As it is written.
    pub(super) fn text(self) -> &'static str {
        match self {
            Binary::Eq => "==",
            Binary::Ne => "!=",
            Binary::Lt => "<",
            Binary::Le => "<=",
            Binary::Gt => ">",
            Binary::Ge => ">=",
            Binary::Add => "+",
            Binary::Sub => "-",
            Binary::Mul => "*",
            Binary::Div => "/",
            Binary::Rem => "%",
            Binary::Pow => "**",
            Binary::In => "in",
            Binary::Contains => "contains",
            Binary::StartsWith => "startsWith",
            Binary::EndsWith => "endsWith",
        }
    }
}

/// A pattern of `matches`.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// Text without special characters after `^`.
    Prefix(Box<[u8]>),
    /// Text without special characters.
    Anywhere(Box<[u8]>),
    /// Written as a literal and compiled once.
    Fixed(Box<Regex>),
    /// Computed for each record.
    Computed(Box<Node>),
}

impl Pattern {
    /// The pattern of a literal.
    pub(super) fn fixed(text: &str) -> Result<Pattern, regex::Error> {
        let plain = |t: &str| !t.chars().any(|c| r"\.+*?()|[]{}^$".contains(c));
        Ok(match text.strip_prefix('^') {
            Some(rest) if plain(rest) => Pattern::Prefix(rest.as_bytes().into()),
            _ if plain(text) => Pattern::Anywhere(text.as_bytes().into()),
            _ => Pattern::Fixed(Box::new(regexp::compile(text)?)),
        })
    }
}

/// An expression with the place it was written at.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) pos: Pos,
    pub(super) kind: Kind,
}

/// What an expression is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Literal(Value),
    Variable(Variable),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Coalesce(Box<Node>, Box<Node>),
    Binary(Binary, Box<Node>, Box<Node>),
    Matches(Box<Node>, Pattern),
    /// `least..most`; stands behind `in` only, where it becomes [`Kind::Between`].
    Range(Box<Node>, Box<Node>),
    /// `value in least..most`: a whole number, both ends included.
    Between(Box<[Node; 3]>),
    /// condition, then (`None` for `a ?: b`), else.
    Choice(Box<Node>, Option<Box<Node>>, Box<Node>),
    /// `.name` with a name known when compiling; `bool` = written with `?.`.
    Member(Box<Node>, Key, bool),
    /// `[index]` with an index that is computed; `bool` = written with `?.`.
    Index(Box<Node>, Box<Node>, bool),
    /// Where a chain that `?.` may cut short ends.
    Chain(Box<Node>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Call(Function, Vec<Node>),
}
