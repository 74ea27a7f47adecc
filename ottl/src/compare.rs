//! Comparing and calculating, by the language's rules.

use std::cmp::Ordering;

use tailwater_pdata::Value;

use crate::ast::Math;
use crate::error::Fault;
use crate::lexer::Comparison;
use crate::value::Val;

/// Whether `a op b`. Values of kinds that do not go together are not equal, and nothing else.
pub(crate) fn compare(op: Comparison, a: &Val<'_>, b: &Val<'_>) -> bool {
    let ordering = match (a, b) {
        (Val::Nil, Val::Nil) => Some(Ordering::Equal),
        (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
        (Val::Int(a), Val::Double(b)) => (*a as f64).partial_cmp(b),
        (Val::Double(a), Val::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
        (Val::Str(a), Val::Str(b)) | (Val::Bytes(a), Val::Bytes(b)) => Some(a.cmp(b)),
        (Val::Time(a), Val::Time(b)) | (Val::Duration(a), Val::Duration(b)) => Some(a.cmp(b)),
        (Val::Map(a), Val::Map(b)) => return equality(op, a == b),
        (Val::List(a), Val::List(b)) => return equality(op, a == b),
        _ => None,
    };
    match (op, ordering) {
        (Comparison::Ne, None) => true,
        (_, None) => false,
        (Comparison::Eq, Some(o)) => o.is_eq(),
        (Comparison::Ne, Some(o)) => o.is_ne(),
        (Comparison::Lt, Some(o)) => o.is_lt(),
        (Comparison::Le, Some(o)) => o.is_le(),
        (Comparison::Gt, Some(o)) => o.is_gt(),
        (Comparison::Ge, Some(o)) => o.is_ge(),
    }
}

fn equality(op: Comparison, equal: bool) -> bool {
    match op {
        Comparison::Eq => equal,
        Comparison::Ne => !equal,
        _ => false,
    }
}

/// Whether a value of a list is `val`, as `==` says.
pub(crate) fn is_equal(item: &Value, val: &Val<'_>) -> bool {
    compare(Comparison::Eq, &Val::from(item.as_ref()), val)
}

/// `a op b`.
pub(crate) fn calculate(op: Math, a: Val<'_>, b: Val<'_>) -> Result<Val<'static>, Fault> {
    const PLACE: &str = "arithmetic";
    let beyond = || Fault::failed(PLACE, "the result does not fit 64 bits");
    let plus_minus = |a: i64, b: i64| match op {
        Math::Add => Some(a.checked_add(b).ok_or_else(beyond)),
        Math::Sub => Some(a.checked_sub(b).ok_or_else(beyond)),
        _ => None,
    };
    let done = match (&a, &b) {
        (Val::Int(a), Val::Int(b)) => {
            return Ok(Val::Int(match op {
                // As in Go, integers wrap around.
                Math::Add => a.wrapping_add(*b),
                Math::Sub => a.wrapping_sub(*b),
                Math::Mul => a.wrapping_mul(*b),
                Math::Div if *b == 0 => return Err(Fault::failed(PLACE, "division by zero")),
                Math::Div => a.wrapping_div(*b),
            }));
        }
        (Val::Double(a), Val::Double(b)) => {
            return Ok(Val::Double(match op {
                Math::Add => a + b,
                Math::Sub => a - b,
                Math::Mul => a * b,
                Math::Div if *b == 0.0 => return Err(Fault::failed(PLACE, "division by zero")),
                Math::Div => a / b,
            }));
        }
        (Val::Int(a), Val::Double(_)) => return calculate(op, Val::Double(*a as f64), b),
        (Val::Double(_), Val::Int(b)) => return calculate(op, a, Val::Double(*b as f64)),
        (Val::Time(a), Val::Time(b)) if op == Math::Sub => {
            plus_minus(*a, *b).map(|r| r.map(Val::Duration))
        }
        (Val::Time(a), Val::Duration(b)) => plus_minus(*a, *b).map(|r| r.map(Val::Time)),
        (Val::Duration(a), Val::Time(b)) if op == Math::Add => {
            plus_minus(*a, *b).map(|r| r.map(Val::Time))
        }
        (Val::Duration(a), Val::Duration(b)) => plus_minus(*a, *b).map(|r| r.map(Val::Duration)),
        _ => None,
    };
    done.unwrap_or_else(|| {
        let number = |v: &Val<'_>| {
            matches!(
                v,
                Val::Int(_) | Val::Double(_) | Val::Time(_) | Val::Duration(_)
            )
        };
        let found = if number(&a) { b.kind() } else { a.kind() };
        Err(Fault::Kind {
            place: PLACE,
            wanted: "numbers, or times and durations to add and subtract,",
            found,
        })
    })
}

/// `-a`.
pub(crate) fn negate(a: Val<'_>) -> Result<Val<'static>, Fault> {
    match a {
        Val::Int(i) => Ok(Val::Int(i.wrapping_neg())),
        Val::Double(d) => Ok(Val::Double(-d)),
        other => Err(Fault::Kind {
            place: "arithmetic",
            wanted: "a number",
            found: other.kind(),
        }),
    }
}
