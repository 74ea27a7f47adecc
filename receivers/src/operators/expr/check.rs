//! The kinds of values an expression can have, found out when compiling.

use super::ast::{Binary, Kind, Node, Pattern, Variable};
use super::{ExprError, Pos};
use tailwater_pdata::Value;

/// What is known about a value before any record is seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Type {
    /// Depends on the record.
    Any,
    Nil,
    Bool,
    Int,
    Float,
    Str,
    Time,
    List,
    Map,
}

impl Type {
    pub(super) fn text(self) -> &'static str {
        match self {
            Type::Any => "anything",
            Type::Nil => "nil",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Float => "float",
            Type::Str => "string",
            Type::Time => "time",
            Type::List => "array",
            Type::Map => "map",
        }
    }

    fn is(self, allowed: &[Type]) -> bool {
        self == Type::Any || allowed.contains(&self)
    }
}

/// The type of `node`, or why it can never be evaluated.
pub(super) fn check(node: &Node) -> Result<Type, ExprError> {
    let pos = node.pos;
    Ok(match &node.kind {
        Kind::Literal(v) => literal(v),
        Kind::Variable(v) => variable(*v),
        Kind::Not(n) => need(n, "not", &[Type::Bool], Type::Bool)?,
        Kind::Negate(n) => one_of(n, "-", &[Type::Int, Type::Float])?,
        Kind::And(a, b) => {
            need(a, "and", &[Type::Bool], Type::Bool)?;
            need(b, "and", &[Type::Bool], Type::Bool)?
        }
        Kind::Or(a, b) => {
            need(a, "or", &[Type::Bool], Type::Bool)?;
            need(b, "or", &[Type::Bool], Type::Bool)?
        }
        Kind::Coalesce(a, b) => either(check(a)?, check(b)?),
        Kind::Binary(op, a, b) => binary(*op, pos, check(a)?, check(b)?)?,
        Kind::Matches(text, pattern) => {
            need(text, "matches", &[Type::Str, Type::Nil], Type::Bool)?;
            match pattern {
                Pattern::Computed(n) => need(n, "matches", &[Type::Str], Type::Bool)?,
                _ => Type::Bool,
            }
        }
        Kind::Range(..) => {
            let message = "a range can only be used behind `in`";
            return Err(ExprError::new(pos, message));
        }
        Kind::Between(parts) => {
            let [value, least, most] = &**parts;
            check(value)?;
            need(least, "..", &[Type::Int], Type::Bool)?;
            need(most, "..", &[Type::Int], Type::Bool)?
        }
        Kind::Choice(condition, then, otherwise) => {
            need(condition, "?", &[Type::Bool], Type::Bool)?;
            let then = then.as_ref().map_or(Ok(Type::Bool), |n| check(n))?;
            either(then, check(otherwise)?)
        }
        Kind::Member(of, name, _) => member(check(of)?, name, pos)?,
        Kind::Index(of, index, _) => index_of(check(of)?, check(index)?, pos)?,
        Kind::Chain(n) => match check(n)? {
            Type::Nil => Type::Nil,
            _ => Type::Any,
        },
        Kind::List(items) => {
            items.iter().try_for_each(|n| check(n).map(|_| ()))?;
            Type::List
        }
        Kind::Map(entries) => {
            for (k, v) in entries {
                need(k, "a map key", &[Type::Str, Type::Int], Type::Str)?;
                check(v)?;
            }
            Type::Map
        }
        Kind::Call(function, args) => {
            args.iter().try_for_each(|n| check(n).map(|_| ()))?;
            function.result()
        }
    })
}

fn variable(v: Variable) -> Type {
    match v {
        Variable::Body => Type::Any,
        Variable::Attributes | Variable::Resource => Type::Map,
        Variable::Timestamp => Type::Time,
        Variable::SeverityText => Type::Str,
        Variable::SeverityNumber => Type::Int,
    }
}

fn member(of: Type, name: &str, pos: Pos) -> Result<Type, ExprError> {
    match of.is(&[Type::Map, Type::Nil]) {
        true => Ok(Type::Any),
        false => Err(ExprError::new(
            pos,
            format!("{} has no member {name:?}", of.text()),
        )),
    }
}

fn index_of(of: Type, index: Type, pos: Pos) -> Result<Type, ExprError> {
    if of.is(&[Type::Map, Type::List, Type::Nil]) && index.is(&[Type::Int, Type::Str]) {
        return Ok(Type::Any);
    }
    let message = format!("{} cannot be indexed by {}", of.text(), index.text());
    Err(ExprError::new(pos, message))
}

fn literal(v: &Value) -> Type {
    match v {
        Value::Null => Type::Nil,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Double(_) => Type::Float,
        Value::Str(_) => Type::Str,
        Value::Bytes(_) => Type::Any,
        Value::List(_) => Type::List,
        Value::Map(_) => Type::Map,
    }
}

fn either(a: Type, b: Type) -> Type {
    if a == b { a } else { Type::Any }
}

fn need(n: &Node, what: &str, allowed: &[Type], result: Type) -> Result<Type, ExprError> {
    one_of(n, what, allowed).map(|_| result)
}

/// The type of `n`, which must be one that `what` takes.
fn one_of(n: &Node, what: &str, allowed: &[Type]) -> Result<Type, ExprError> {
    let t = check(n)?;
    if t.is(allowed) {
        return Ok(t);
    }
    let names: Vec<&str> = allowed.iter().map(|t| t.text()).collect();
    let message = format!("{what} takes {}, not {}", names.join(" or "), t.text());
    Err(ExprError::new(n.pos, message))
}

fn binary(op: Binary, pos: Pos, a: Type, b: Type) -> Result<Type, ExprError> {
    use Type::{Any, Bool, Float, Int, List, Map, Nil, Str, Time};
    let numbers = a.is(&[Int, Float]) && b.is(&[Int, Float]);
    let texts = a.is(&[Str]) && b.is(&[Str]);
    let result = match op {
        Binary::Eq | Binary::Ne => {
            let nil = a == Nil || b == Nil;
            (nil || numbers || a == Any || b == Any || a == b).then_some(Bool)
        }
        Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge => {
            let times = a.is(&[Time]) && b.is(&[Time]);
            (numbers || texts || times).then_some(Bool)
        }
        Binary::Add if texts && (a == Str || b == Str) => Some(Str),
        Binary::Add if texts => Some(Any),
        Binary::Add | Binary::Sub | Binary::Mul => numbers.then_some(match (a, b) {
            (Int, Int) => Int,
            (Float, Int | Float) | (Int, Float) => Float,
            _ => Any,
        }),
        Binary::Div | Binary::Pow => numbers.then_some(Float),
        Binary::Rem => (a.is(&[Int]) && b.is(&[Int])).then_some(Int),
        Binary::In => match b {
            Any | Nil | List => Some(Bool),
            Map if a.is(&[Str, Nil]) => Some(Bool),
            _ => None,
        },
        Binary::Contains | Binary::StartsWith | Binary::EndsWith => {
            (a.is(&[Str, Nil]) && b.is(&[Str, Nil])).then_some(Bool)
        }
    };
    result.ok_or_else(|| {
        let (a, b) = (a.text(), b.text());
        ExprError::new(pos, format!("{} does not take {a} and {b}", op.text()))
    })
}
