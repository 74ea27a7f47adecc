//! Statements as they are written, with where each part is.

use crate::lexer::Comparison;

/// Something at a byte offset of its statement.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct At<T> {
    pub at: usize,
    pub it: T,
}

/// `editor(arguments) where condition`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Statement {
    pub editor: At<Call>,
    pub condition: Option<Condition>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Call {
    pub name: String,
    pub args: Vec<Arg>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Arg {
    pub name: Option<At<String>>,
    pub value: At<Value>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    /// An enum, or the name of a function where a function is an argument.
    Name(String),
    Path(Path),
    /// A converter and the keys behind it.
    Call(Call, Vec<Key>),
    List(Vec<At<Value>>),
    Map(Vec<(String, At<Value>)>),
    Negative(Box<At<Value>>),
    Math(Box<At<Value>>, Math, Box<At<Value>>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Math {
    Add,
    Sub,
    Mul,
    Div,
}

/// Names with dots between them, each with keys.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Path {
    pub parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Part {
    pub name: At<String>,
    pub keys: Vec<Key>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Key {
    pub at: usize,
    pub value: Value,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Condition {
    /// A literal or what a converter returns.
    Is(At<Value>),
    Compare(At<Value>, Comparison, At<Value>),
    Not(Box<Condition>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
}
