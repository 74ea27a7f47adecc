//! From what is written to what is carried out: paths and functions are found, arguments are bound and
//! checked, patterns and layouts are compiled, and what is the same for every record is worked out once.

use tailwater_config::nearest;
use tailwater_golang::regexp;
use tailwater_golang::strptime::{Layout, LayoutType, Zone};
use tailwater_pdata::Key as Name;

use crate::ast::{self, At};
use crate::compare::{calculate, negate};
use crate::error::{Fault, Mistake};
use crate::expr::{Cond, Expr, Key, is_map};
use crate::field::{self, Context, Field, Kind};
use crate::functions::{self, Arg, Param, Takes};
use crate::lexer::{Comparison, shown};
use crate::scene::{Cx, Nothing};
use crate::value::Val;

/// A path that an editor changes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub field: Field,
    pub keys: Vec<Key>,
    pub kind: Kind,
}

/// An argument of an editor.
pub(crate) enum Bound {
    Target(Target),
    Arg(Arg),
}

pub(crate) struct Compiler {
    pub context: Context,
    /// Paths have to begin with a context.
    pub prefixed: bool,
    /// The record is an item of a request as it came.
    pub encoded: bool,
}

/// Works `expr` out, of which nothing depends on a record.
fn folded(at: usize, expr: &Expr) -> Result<Expr, Mistake> {
    let cx = Cx {
        scene: &Nothing,
        now_ns: 0,
    };
    match expr.eval(&cx) {
        Ok(val) => Ok(Expr::Const(val.into_static())),
        Err(fault) => Err(Mistake::new(at, fault.to_string())),
    }
}

fn kind_of(val: &Val<'_>) -> Kind {
    match val {
        Val::Nil => Kind::Nil,
        Val::Bool(_) => Kind::Bool,
        Val::Int(_) => Kind::Int,
        Val::Double(_) => Kind::Double,
        Val::Str(_) => Kind::Text,
        Val::Bytes(_) => Kind::Bytes,
        Val::Time(_) => Kind::Time,
        Val::Duration(_) => Kind::Duration,
        Val::List(_) => Kind::List,
        Val::Map(_) => Kind::Map,
    }
}

impl Compiler {
    pub fn condition(&self, condition: &ast::Condition) -> Result<Cond, Mistake> {
        let all = |list: &[ast::Condition]| -> Result<Box<[Cond]>, Mistake> {
            list.iter().map(|c| self.condition(c)).collect()
        };
        Ok(match condition {
            ast::Condition::Or(any) => Cond::Or(all(any)?),
            ast::Condition::And(each) => Cond::And(all(each)?),
            ast::Condition::Not(inner) => match self.condition(inner)? {
                Cond::Const(b) => Cond::Const(!b),
                inner => Cond::Not(Box::new(inner)),
            },
            ast::Condition::Is(value) => {
                let (expr, kind) = self.value(value)?;
                if !kind.may_be(Kind::Bool) || kind == Kind::Nil {
                    let why = format!("{} is no condition, a boolean is", kind.name());
                    return Err(Mistake::new(value.at, why));
                }
                match expr {
                    Expr::Const(Val::Bool(b)) => Cond::Const(b),
                    expr => Cond::Is(expr),
                }
            }
            ast::Condition::Compare(a, op, b) => {
                let (a, b) = (self.value(a)?.0, self.value(b)?.0);
                let nil = |e: &Expr| matches!(e, Expr::Const(Val::Nil));
                let map = |e: &Expr| matches!(e, Expr::Field(field) if is_map(*field));
                // A field that is a map is always there; it need not be put together to be told so.
                if (nil(&a) && map(&b)) || (nil(&b) && map(&a)) {
                    Cond::Const(*op == Comparison::Ne)
                } else {
                    Cond::Compare(*op, a, b)
                }
            }
        })
    }

    pub fn value(&self, value: &At<ast::Value>) -> Result<(Expr, Kind), Mistake> {
        let literal = |val: Val<'static>| {
            let kind = kind_of(&val);
            Ok((Expr::Const(val), kind))
        };
        match &value.it {
            ast::Value::Nil => literal(Val::Nil),
            ast::Value::Bool(b) => literal(Val::Bool(*b)),
            ast::Value::Int(i) => literal(Val::Int(*i)),
            ast::Value::Float(d) => literal(Val::Double(*d)),
            ast::Value::Str(text) => literal(Val::text(text.as_str())),
            ast::Value::Bytes(bytes) => literal(Val::Bytes(bytes.clone().into())),
            ast::Value::Name(name) => literal(Val::Int(enum_number(value.at, name)?)),
            ast::Value::Path(path) => self.path(path),
            ast::Value::Call(call, keys) => {
                let (expr, kind) = self.call(value.at, call)?;
                if keys.is_empty() {
                    return Ok((expr, kind));
                }
                let indexed = [Kind::Any, Kind::Map, Kind::List].contains(&kind);
                if !indexed {
                    let why = format!("{} returns {}, which has no keys", call.name, kind.name());
                    return Err(Mistake::new(value.at, why));
                }
                let keys = self.keys(keys)?;
                Ok((Expr::Index(Box::new(expr), keys), Kind::Any))
            }
            ast::Value::List(items) => {
                let items: Result<Box<[Expr]>, Mistake> =
                    items.iter().map(|i| Ok(self.value(i)?.0)).collect();
                let items = items?;
                let constant = items.iter().all(|e| e.constant().is_some());
                let list = Expr::List(items);
                let list = if constant {
                    folded(value.at, &list)?
                } else {
                    list
                };
                Ok((list, Kind::List))
            }
            ast::Value::Map(entries) => {
                let entry = |(k, v): &(String, At<ast::Value>)| {
                    Ok((Name::from(k.as_str()), self.value(v)?.0))
                };
                let entries: Result<Box<[(Name, Expr)]>, Mistake> =
                    entries.iter().map(entry).collect();
                let entries = entries?;
                let constant = entries.iter().all(|(_, e)| e.constant().is_some());
                let map = Expr::Map(entries);
                let map = if constant {
                    folded(value.at, &map)?
                } else {
                    map
                };
                Ok((map, Kind::Map))
            }
            ast::Value::Negative(inner) => {
                let (inner, kind) = self.value(inner)?;
                match inner {
                    Expr::Const(val) => constant(value.at, negate(val)),
                    inner => Ok((Expr::Negative(Box::new(inner)), kind)),
                }
            }
            ast::Value::Math(a, op, b) => self.math(value.at, a, *op, b),
        }
    }

    fn math(
        &self,
        at: usize,
        a: &At<ast::Value>,
        op: ast::Math,
        b: &At<ast::Value>,
    ) -> Result<(Expr, Kind), Mistake> {
        const NONE: [Kind; 5] = [Kind::Text, Kind::Bool, Kind::Bytes, Kind::Map, Kind::List];
        let ((a, kind_a), (b, kind_b)) = (self.value(a)?, self.value(b)?);
        let (a, b) = match (a, b) {
            (Expr::Const(a), Expr::Const(b)) => return constant(at, calculate(op, a, b)),
            sides => sides,
        };
        if let Some(kind) = [kind_a, kind_b].into_iter().find(|k| NONE.contains(k)) {
            let why = format!(
                "arithmetic takes numbers, times and durations, not {}",
                kind.name()
            );
            return Err(Mistake::new(at, why));
        }
        let kind = match kind_a == kind_b && kind_a != Kind::Time {
            true => kind_a,
            false => Kind::Any,
        };
        Ok((Expr::Math(op, Box::new((a, b))), kind))
    }

    fn path(&self, path: &ast::Path) -> Result<(Expr, Kind), Mistake> {
        let Target {
            field,
            mut keys,
            kind,
        } = self.target(path, false)?;
        match (keys.len(), keys.first()) {
            (0, _) => Ok((Expr::Field(field), kind)),
            (_, Some(Key::Text(_))) if is_map(field) => {
                let Key::Text(name) = keys.remove(0) else {
                    return Ok((Expr::Field(field), kind));
                };
                let entry = Expr::Entry(field, name);
                match keys.is_empty() {
                    true => Ok((entry, Kind::Any)),
                    false => Ok((Expr::Index(Box::new(entry), keys), Kind::Any)),
                }
            }
            _ => Ok((Expr::Index(Box::new(Expr::Field(field)), keys), Kind::Any)),
        }
    }

    /// What a path leads to, and how its keys are found.
    pub fn target(&self, path: &ast::Path, write: bool) -> Result<Target, Mistake> {
        let info = field::find(path, self.context, self.prefixed, self.encoded)?;
        let last = path.parts.last();
        let at = last.map_or(0, |p| p.name.at);
        if write && !info.writable {
            return Err(Mistake::new(
                at,
                "this path can be read, but not yet changed",
            ));
        }
        let keys = last.map_or(&[][..], |p| &p.keys);
        let keyed = matches!(info.kind, Kind::Map | Kind::Any);
        if let Some(key) = keys.first().filter(|_| !keyed) {
            let why = format!("this path is {} and has no keys", info.kind.name());
            return Err(Mistake::new(key.at, why));
        }
        if let (Some(key), Kind::Map) = (keys.first(), info.kind)
            && matches!(key.value, ast::Value::Int(_))
        {
            return Err(Mistake::new(
                key.at,
                "the keys of a map are text, in quotes",
            ));
        }
        Ok(Target {
            field: info.field,
            kind: if keys.is_empty() {
                info.kind
            } else {
                Kind::Any
            },
            keys: self.keys(keys)?,
        })
    }

    fn keys(&self, keys: &[ast::Key]) -> Result<Vec<Key>, Mistake> {
        let key = |key: &ast::Key| match &key.value {
            ast::Value::Str(text) => Ok(Key::Text(text.as_str().into())),
            ast::Value::Int(i) if *i >= 0 => Ok(Key::Int(*i)),
            value @ (ast::Value::Path(_) | ast::Value::Call(..) | ast::Value::Math(..)) => {
                let value = At {
                    at: key.at,
                    it: value.clone(),
                };
                let (expr, kind) = self.value(&value)?;
                if !(kind.may_be(Kind::Text) || kind.may_be(Kind::Int)) {
                    let why = format!("a key is text or an integer, not {}", kind.name());
                    return Err(Mistake::new(key.at, why));
                }
                Ok(Key::Computed(expr))
            }
            _ => Err(Mistake::new(
                key.at,
                "a key is text in quotes, a position from 0 on, a path or a converter",
            )),
        };
        keys.iter().map(key).collect()
    }

    fn call(&self, at: usize, call: &ast::Call) -> Result<(Expr, Kind), Mistake> {
        let function = find_function(at, &call.name)?;
        if let Some(context) = function.context.filter(|c| *c != self.context) {
            let why = format!(
                "{} stands in the context {}, not in {}",
                call.name,
                context.name(),
                self.context.name()
            );
            return Err(Mistake::new(at, why));
        }
        let args = self.bind(at, &call.name, function.params, &call.args)?;
        let mut args: Box<[Arg]> = args
            .into_iter()
            .map(|bound| match bound {
                Bound::Arg(arg) => arg,
                Bound::Target(_) => Arg::Absent,
            })
            .collect();
        if let Some(prepare) = function.prepare {
            prepare(&mut args).map_err(|why| Mistake::new(at, format!("{}: {why}", call.name)))?;
        }
        let constant = |arg: &Arg| match arg {
            Arg::Value(expr) => expr.constant().is_some(),
            Arg::Values(exprs) => exprs.iter().all(|e| e.constant().is_some()),
            _ => true,
        };
        let pure = function.pure && args.iter().all(constant);
        let expr = Expr::Call(function.run, args);
        if !pure {
            return Ok((expr, function.returns));
        }
        let expr = folded(at, &expr)?;
        let kind = expr.constant().map_or(function.returns, kind_of);
        Ok((expr, kind))
    }

    /// Puts the arguments of a call into the order of its parameters.
    pub fn bind(
        &self,
        at: usize,
        name: &str,
        params: &[Param],
        args: &[ast::Arg],
    ) -> Result<Vec<Bound>, Mistake> {
        let mut places: Vec<Option<&At<ast::Value>>> = vec![None; params.len()];
        let names = || field::listed(params.iter().map(|p| p.name));
        for (i, arg) in args.iter().enumerate() {
            let place = match &arg.name {
                None if i >= params.len() => {
                    let why = match params.is_empty() {
                        true => format!("{name} takes no arguments"),
                        false => format!(
                            "{name} takes at most {} arguments: {}",
                            params.len(),
                            names()
                        ),
                    };
                    return Err(Mistake::new(arg.value.at, why));
                }
                None => i,
                Some(given) => {
                    let place = params.iter().position(|p| same_name(p.name, &given.it));
                    place.ok_or_else(|| {
                        let near = nearest(&given.it, params.iter().map(|p| p.name));
                        let near = near.map_or(String::new(), |n| format!("; did you mean {n:?}?"));
                        let why = format!(
                            "{name} has no argument {}; allowed: {}{near}",
                            shown(&given.it),
                            names()
                        );
                        Mistake::new(given.at, why)
                    })?
                }
            };
            if places[place].replace(&arg.value).is_some() {
                let why = format!("the argument {} is given twice", params[place].name);
                return Err(Mistake::new(arg.value.at, why));
            }
        }
        let bind = |(param, value): (&Param, Option<&At<ast::Value>>)| match value {
            Some(value) => self.arg(name, param, value),
            None if param.optional => Ok(Bound::Arg(Arg::Absent)),
            None => {
                let why = format!(
                    "{name} needs the argument {}; it takes {}",
                    param.name,
                    names()
                );
                Err(Mistake::new(at, why))
            }
        };
        params.iter().zip(places).map(bind).collect()
    }

    fn arg(&self, name: &str, param: &Param, value: &At<ast::Value>) -> Result<Bound, Mistake> {
        let wrong = |wanted: &str| {
            let why = format!("the argument {} of {name} has to be {wanted}", param.name);
            Err(Mistake::new(value.at, why))
        };
        let text = match &value.it {
            ast::Value::Str(text) => Some(text.as_str()),
            _ => None,
        };
        let texts = || match &value.it {
            ast::Value::List(items) => items
                .iter()
                .map(|i| match &i.it {
                    ast::Value::Str(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect::<Option<Vec<&str>>>(),
            _ => None,
        };
        let arg = match (param.takes, text) {
            (Takes::Target(kind), _) => {
                let ast::Value::Path(path) = &value.it else {
                    return wrong("a path");
                };
                let target = self.target(path, true)?;
                if !target.kind.may_be(kind) {
                    return wrong(&format!(
                        "a path to {}, not to {}",
                        kind.name(),
                        target.kind.name()
                    ));
                }
                return Ok(Bound::Target(target));
            }
            (Takes::Value(wanted), _) => {
                let (expr, kind) = self.value(value)?;
                if !kind.may_be(wanted) || (kind == Kind::Nil && wanted != Kind::Any) {
                    return wrong(&format!("{}, not {}", wanted.name(), kind.name()));
                }
                Arg::Value(expr)
            }
            (Takes::Values, _) => match &value.it {
                ast::Value::List(items) => {
                    let items: Result<Box<[Expr]>, Mistake> =
                        items.iter().map(|i| Ok(self.value(i)?.0)).collect();
                    Arg::Values(items?)
                }
                _ => return wrong("a list, written between [ and ]"),
            },
            (Takes::Int, _) => match value.it {
                ast::Value::Int(i) => Arg::Int(i),
                _ => return wrong("a whole number, written as such"),
            },
            (Takes::Number, _) => match number(&value.it) {
                Some(d) => Arg::Number(d),
                None => return wrong("a number, written as such"),
            },
            (Takes::Bool, _) => match value.it {
                ast::Value::Bool(b) => Arg::Bool(b),
                _ => return wrong("true or false"),
            },
            (Takes::Texts, _) => match texts() {
                Some(texts) => Arg::Texts(texts.into_iter().map(Into::into).collect()),
                None => return wrong("a list of strings"),
            },
            (Takes::Networks, _) => {
                let networks = texts().and_then(|texts| {
                    texts
                        .into_iter()
                        .map(functions::network)
                        .collect::<Option<Box<[_]>>>()
                });
                match networks {
                    Some(networks) => Arg::Networks(networks),
                    None => return wrong("a list of networks such as \"10.0.0.0/8\""),
                }
            }
            (Takes::Function, _) => {
                let ast::Value::Name(function) = &value.it else {
                    return wrong("the name of a converter, such as SHA256");
                };
                let function = find_function(value.at, function)?;
                if !functions::maps_text(function) {
                    return wrong("a converter that makes text of one text");
                }
                Arg::Function(function)
            }
            (_, None) => return wrong("a string, written as such"),
            (takes, Some(text)) => match literal(takes, text) {
                Ok(arg) => arg,
                Err(why) => return wrong(&why),
            },
        };
        Ok(Bound::Arg(arg))
    }
}

/// A number that is written as such.
fn number(value: &ast::Value) -> Option<f64> {
    match value {
        ast::Value::Int(i) => Some(*i as f64),
        ast::Value::Float(d) => Some(*d),
        ast::Value::Negative(inner) => number(&inner.it).map(|d| -d),
        _ => None,
    }
}

/// An argument that is made of a literal string.
fn literal(takes: Takes, text: &str) -> Result<Arg, String> {
    match takes {
        Takes::OneOf(allowed) if !allowed.contains(&text) => {
            let near = nearest(text, allowed.iter().copied());
            let near = near.map_or(String::new(), |n| format!("; did you mean {n:?}?"));
            Err(format!(
                "one of {}, not {}{near}",
                field::listed(allowed.iter().copied()),
                shown(text)
            ))
        }
        Takes::Pattern | Takes::NamedPattern => {
            let pattern = regexp::compile(text)
                .map_err(|e| format!("a regular expression; {} is not: {e}", shown(text)))?;
            if takes == Takes::NamedPattern && pattern.capture_names().flatten().next().is_none() {
                return Err(
                    "a regular expression with at least one named group (?P<name>...)".into(),
                );
            }
            Ok(Arg::Pattern(pattern))
        }
        Takes::Glob => {
            let pattern = functions::glob(text).ok_or("a glob pattern such as /user/*/list")?;
            Ok(Arg::Pattern(pattern))
        }
        Takes::Layout => {
            let layout = Layout::parse(text, LayoutType::Strptime)
                .map_err(|e| format!("a layout of times: {e}"))?;
            let zone = layout.default_zone();
            Ok(Arg::Layout(Box::new(layout), Box::new(zone)))
        }
        Takes::Zone => {
            let zone = Zone::named(text).map_err(|e| format!("the name of a time zone: {e}"))?;
            // Without one the layout decides.
            Ok(if text.is_empty() {
                Arg::Absent
            } else {
                Arg::Zone(Box::new(zone))
            })
        }
        Takes::Locale if !text.is_empty() && text != "en" && !text.starts_with("en-") => Err(
            format!("English: names of months in {} are not known", shown(text)),
        ),
        Takes::Frame if text.matches("%s").count() != 1 || text.matches('%').count() != 1 => {
            Err("text with exactly one %s and no other %".into())
        }
        _ => Ok(Arg::Text(text.into())),
    }
}

fn constant(at: usize, val: Result<Val<'static>, Fault>) -> Result<(Expr, Kind), Mistake> {
    match val {
        Ok(val) => {
            let kind = kind_of(&val);
            Ok((Expr::Const(val), kind))
        }
        Err(fault) => Err(Mistake::new(at, fault.to_string())),
    }
}

fn enum_number(at: usize, name: &str) -> Result<i64, Mistake> {
    field::enum_number(name).ok_or_else(|| {
        let near = nearest(name, field::enum_names());
        let near = near.map_or(String::new(), |n| format!("; did you mean {n:?}?"));
        Mistake::new(at, format!("there is no enum {}{near}", shown(name)))
    })
}

fn find_function(at: usize, name: &str) -> Result<&'static functions::Function, Mistake> {
    functions::find(name).ok_or_else(|| {
        let mut why = match functions::NOT_BUILT.contains(&name) {
            true => format!("the converter {name} is not built"),
            false => format!("there is no converter {}", shown(name)),
        };
        if let Some(near) = nearest(name, functions::all().map(|f| f.name)) {
            why.push_str(&format!("; did you mean {near:?}?"));
        } else if let Some(exact) = functions::all().find(|f| f.name.eq_ignore_ascii_case(name)) {
            why.push_str(&format!("; did you mean {:?}?", exact.name));
        }
        Mistake::new(at, why)
    })
}

/// Whether `given` names the parameter `name`: words are joined by underscores or begin with capitals, as in
/// the collector.
fn same_name(name: &str, given: &str) -> bool {
    let camel = |name: &str| -> String {
        let words = name.split('_').map(|word| {
            let mut rest = word.chars();
            let first = rest.next().map(|c| c.to_ascii_uppercase());
            first.into_iter().chain(rest).collect::<String>()
        });
        words.collect()
    };
    name == given || camel(name) == camel(given)
}
