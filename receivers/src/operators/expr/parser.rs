//! Tokens to a tree: precedence climbing, with constants folded on the way.

use tailwater_config::Environment;
use tailwater_pdata::{LogsBatch, Value};

use super::ast::{Binary, Kind, Node, Pattern, variable};
use super::eval::{Record, eval};
use super::lexer::{Tok, tokens};
use super::{ExprError, Pos, functions};

/// Nesting beyond which an expression is refused; keeps the parser's stack small.
const DEPTH_MAX: usize = 64;

/// Longest expression in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// What an infix operator becomes.
#[derive(Clone, Copy)]
enum Infix {
    Plain(Binary),
    And,
    Or,
    Coalesce,
    Matches,
    Range,
    Pipe,
}

/// Precedence, whether it groups to the right, meaning. The numbers are expr-lang's.
fn infix(tok: &Tok) -> Option<(u8, bool, Infix)> {
    let text = match tok {
        Tok::Op(op) => *op,
        Tok::Name(name) => name.as_str(),
        _ => return None,
    };
    let left = |precedence, i| Some((precedence, false, i));
    match text {
        "|" => left(0, Infix::Pipe),
        "or" | "||" => left(10, Infix::Or),
        "and" | "&&" => left(15, Infix::And),
        "==" => left(20, Infix::Plain(Binary::Eq)),
        "!=" => left(20, Infix::Plain(Binary::Ne)),
        "<" => left(20, Infix::Plain(Binary::Lt)),
        "<=" => left(20, Infix::Plain(Binary::Le)),
        ">" => left(20, Infix::Plain(Binary::Gt)),
        ">=" => left(20, Infix::Plain(Binary::Ge)),
        "in" => left(20, Infix::Plain(Binary::In)),
        "contains" => left(20, Infix::Plain(Binary::Contains)),
        "startsWith" => left(20, Infix::Plain(Binary::StartsWith)),
        "endsWith" => left(20, Infix::Plain(Binary::EndsWith)),
        "matches" => left(20, Infix::Matches),
        ".." => left(25, Infix::Range),
        "+" => left(30, Infix::Plain(Binary::Add)),
        "-" => left(30, Infix::Plain(Binary::Sub)),
        "*" => left(60, Infix::Plain(Binary::Mul)),
        "/" => left(60, Infix::Plain(Binary::Div)),
        "%" => left(60, Infix::Plain(Binary::Rem)),
        "**" | "^" => Some((100, true, Infix::Plain(Binary::Pow))),
        "??" => left(200, Infix::Coalesce),
        _ => None,
    }
}

/// Precedence of `not` and `!`: they bind tighter than comparisons.
const NOT: u8 = 50;
/// Precedence of a sign.
const SIGN: u8 = 90;

/// The tree of `text`.
pub(super) fn parse(text: &str, environment: &dyn Environment) -> Result<Node, ExprError> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("an expression is limited to {TEXT_BYTES_MAX} bytes");
        return Err(ExprError::new(Pos(0), message));
    }
    let mut p = Parser {
        tokens: tokens(text)?,
        at: 0,
        depth: 0,
        environment,
    };
    let node = p.expression(0)?;
    match p.peek() {
        Tok::End => Ok(node),
        _ => Err(p.unexpected("the end of the expression")),
    }
}

struct Parser<'e> {
    tokens: Vec<(Tok, Pos)>,
    at: usize,
    depth: usize,
    environment: &'e dyn Environment,
}

impl Parser<'_> {
    fn peek(&self) -> &Tok {
        // tokens() ends with End and next() never goes past it.
        &self.tokens[self.at].0
    }

    fn pos(&self) -> Pos {
        self.tokens[self.at].1
    }

    fn next(&mut self) -> (Tok, Pos) {
        let token = self.tokens[self.at].clone();
        if token.0 != Tok::End {
            self.at += 1;
        }
        token
    }

    fn eat(&mut self, op: &str) -> bool {
        let found = matches!(self.peek(), Tok::Op(o) if *o == op);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, op: &str) -> Result<(), ExprError> {
        match self.eat(op) {
            true => Ok(()),
            false => Err(self.unexpected(op)),
        }
    }

    fn unexpected(&self, wanted: &str) -> ExprError {
        let found = match self.peek() {
            Tok::Name(n) => format!("{n:?}"),
            Tok::Dollar => "$".to_owned(),
            Tok::Str(s) => format!("the string {s:?}"),
            Tok::Int(i) => i.to_string(),
            Tok::Float(f) => f.to_string(),
            Tok::Op(o) => format!("{o:?}"),
            Tok::End => "the end".to_owned(),
        };
        ExprError::new(self.pos(), format!("expected {wanted}, found {found}"))
    }

    fn expression(&mut self, least: u8) -> Result<Node, ExprError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let message = format!("nested deeper than {DEPTH_MAX}");
            return Err(ExprError::new(self.pos(), message));
        }
        let node = self.expression_inner(least);
        self.depth -= 1;
        node
    }

    fn expression_inner(&mut self, least: u8) -> Result<Node, ExprError> {
        let mut left = self.unary()?;
        let mut links = 0;
        loop {
            let negated = matches!(self.peek(), Tok::Name(n) if n == "not");
            let operator = match negated {
                true => self.tokens.get(self.at + 1).map(|t| &t.0),
                false => Some(self.peek()),
            };
            let Some((precedence, right, what)) = operator.and_then(infix) else {
                break;
            };
            if precedence < least || (negated && precedence != 20) {
                break;
            }
            links += 1;
            if links > DEPTH_MAX * 16 {
                return Err(ExprError::new(self.pos(), "too many operators in a row"));
            }
            if negated {
                self.next();
            }
            let pos = self.next().1;
            if matches!(what, Infix::Pipe) {
                left = self.piped(left)?;
                continue;
            }
            let operand = self.expression(if right { precedence } else { precedence + 1 })?;
            left = self.infix_node(what, pos, left, operand)?;
            if negated {
                left = Node {
                    pos,
                    kind: Kind::Not(Box::new(left)),
                };
            }
        }
        match least {
            0 => self.choice(left),
            _ => Ok(left),
        }
    }

    fn choice(&mut self, condition: Node) -> Result<Node, ExprError> {
        let pos = self.pos();
        if !self.eat("?") {
            return Ok(condition);
        }
        let then = match self.eat(":") {
            true => None,
            false => {
                let then = self.expression(0)?;
                self.expect(":")?;
                Some(Box::new(then))
            }
        };
        let otherwise = Box::new(self.expression(0)?);
        Ok(Node {
            pos,
            kind: Kind::Choice(Box::new(condition), then, otherwise),
        })
    }

    fn infix_node(&self, what: Infix, pos: Pos, a: Node, b: Node) -> Result<Node, ExprError> {
        let (a, b) = (Box::new(a), Box::new(b));
        let kind = match what {
            Infix::And => Kind::And(a, b),
            Infix::Or => Kind::Or(a, b),
            Infix::Coalesce => Kind::Coalesce(a, b),
            Infix::Range => Kind::Range(a, b),
            Infix::Plain(Binary::In) if matches!(b.kind, Kind::Range(..)) => match b.kind {
                Kind::Range(least, most) => Kind::Between(Box::new([*a, *least, *most])),
                _ => unreachable!("looked at by the guard"),
            },
            Infix::Plain(op) => {
                return Ok(folded(Node {
                    pos,
                    kind: Kind::Binary(op, a, b),
                }));
            }
            Infix::Matches => {
                let pattern = match &b.kind {
                    Kind::Literal(Value::Str(p)) => {
                        let pattern = Pattern::fixed(p);
                        pattern.map_err(|e| ExprError::new(b.pos, e.to_string()))?
                    }
                    _ => Pattern::Computed(b),
                };
                Kind::Matches(a, pattern)
            }
            Infix::Pipe => unreachable!("handled by the caller"),
        };
        Ok(Node { pos, kind })
    }

    fn unary(&mut self) -> Result<Node, ExprError> {
        let pos = self.pos();
        let prefix = match self.peek() {
            Tok::Name(n) if n == "not" => "not",
            Tok::Op(op @ ("!" | "-" | "+")) => op,
            _ => {
                let primary = self.primary()?;
                return self.postfix(primary);
            }
        };
        self.next();
        let operand = Box::new(self.expression(if matches!(prefix, "not" | "!") {
            NOT
        } else {
            SIGN
        })?);
        Ok(match prefix {
            "-" => folded(Node {
                pos,
                kind: Kind::Negate(operand),
            }),
            "+" => *operand,
            _ => Node {
                pos,
                kind: Kind::Not(operand),
            },
        })
    }

    fn primary(&mut self) -> Result<Node, ExprError> {
        let (tok, pos) = self.next();
        let literal = |v| {
            Ok(Node {
                pos,
                kind: Kind::Literal(v),
            })
        };
        match tok {
            Tok::Str(s) => literal(Value::from(s)),
            Tok::Int(i) => literal(Value::Int(i)),
            Tok::Float(f) => literal(Value::Double(f)),
            Tok::Dollar => Ok(Node {
                pos,
                kind: Kind::Variable(super::ast::Variable::Body),
            }),
            Tok::Op("(") => {
                let node = self.expression(0)?;
                self.expect(")")?;
                Ok(node)
            }
            Tok::Op("[") => {
                let items = self.items("]", |p| p.expression(0))?;
                Ok(folded(Node {
                    pos,
                    kind: Kind::List(items),
                }))
            }
            Tok::Op("{") => {
                let entries = self.items("}", Self::map_entry)?;
                Ok(Node {
                    pos,
                    kind: Kind::Map(entries),
                })
            }
            Tok::Name(name) => self.name(name, pos),
            _ => {
                self.at = self.tokens.partition_point(|t| t.1.0 < pos.0).min(self.at);
                Err(self.unexpected("a value"))
            }
        }
    }

    fn map_entry(&mut self) -> Result<(Node, Node), ExprError> {
        let pos = self.pos();
        let key = match self.peek().clone() {
            Tok::Name(name) => {
                self.next();
                Node {
                    pos,
                    kind: Kind::Literal(Value::from(name)),
                }
            }
            Tok::Op("(") | Tok::Str(_) | Tok::Int(_) => self.primary()?,
            _ => return Err(self.unexpected("a key")),
        };
        self.expect(":")?;
        Ok((key, self.expression(0)?))
    }

    /// Comma separated items up to `close`; a comma may follow the last.
    fn items<T>(
        &mut self,
        close: &str,
        item: impl Fn(&mut Self) -> Result<T, ExprError>,
    ) -> Result<Vec<T>, ExprError> {
        let mut out = Vec::new();
        while !self.eat(close) {
            out.push(item(self)?);
            if !self.eat(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(out)
    }

    fn name(&mut self, name: String, pos: Pos) -> Result<Node, ExprError> {
        let literal = |v| {
            Ok(Node {
                pos,
                kind: Kind::Literal(v),
            })
        };
        match name.as_str() {
            "true" => return literal(Value::Bool(true)),
            "false" => return literal(Value::Bool(false)),
            "nil" => return literal(Value::Null),
            "let" | "if" => {
                let message = format!("{name:?} is not supported in expressions");
                return Err(ExprError::new(pos, message));
            }
            _ => {}
        }
        if self.eat("(") {
            let args = self.items(")", |p| p.expression(0))?;
            return self.call(&name, args, pos);
        }
        Ok(Node {
            pos,
            // Unknown names are nil, as the collector's expressions allow.
            kind: variable(&name).map_or(Kind::Literal(Value::Null), Kind::Variable),
        })
    }

    fn piped(&mut self, first: Node) -> Result<Node, ExprError> {
        let (Tok::Name(name), pos) = self.next() else {
            self.at -= 1;
            return Err(self.unexpected("a function after |"));
        };
        self.expect("(")?;
        let mut args = vec![first];
        args.extend(self.items(")", |p| p.expression(0))?);
        let call = self.call(&name, args, pos)?;
        self.postfix(call)
    }

    fn call(&self, name: &str, args: Vec<Node>, pos: Pos) -> Result<Node, ExprError> {
        if name == "env" {
            let [
                Node {
                    kind: Kind::Literal(Value::Str(variable)),
                    ..
                },
            ] = &args[..]
            else {
                return Err(ExprError::new(
                    pos,
                    "env takes one string that is known beforehand",
                ));
            };
            let value = self.environment.variable(variable).unwrap_or_default();
            let value = Value::str(value.to_string_lossy());
            return Ok(Node {
                pos,
                kind: Kind::Literal(value),
            });
        }
        let Some((function, arity)) = functions::find(name) else {
            let all = functions::names();
            let message = format!("there is no function {name:?}; supported: {all}");
            return Err(ExprError::new(pos, message));
        };
        if !arity.contains(&args.len()) {
            let (least, most) = (arity.start(), arity.end());
            let wanted = if least == most {
                least.to_string()
            } else {
                format!("{least} to {most}")
            };
            let message = format!("{name} takes {wanted} arguments, not {}", args.len());
            return Err(ExprError::new(pos, message));
        }
        Ok(folded(Node {
            pos,
            kind: Kind::Call(function, args),
        }))
    }

    /// What is behind a bracket: a key, an index, or the ends of a slice, each of which may be left out.
    fn bracket(&mut self, of: Box<Node>, optional: bool) -> Result<Kind, ExprError> {
        let pos = self.pos();
        let number = |i| Node {
            pos,
            kind: Kind::Literal(Value::Int(i)),
        };
        let from = match self.peek() {
            Tok::Op(":") => None,
            _ => Some(self.expression(0)?),
        };
        if self.eat(":") {
            let to = match self.peek() {
                Tok::Op("]") => number(i64::MAX),
                _ => self.expression(0)?,
            };
            self.expect("]")?;
            let from = from.unwrap_or_else(|| number(0));
            return Ok(Kind::Call(functions::Function::Slice, vec![*of, from, to]));
        }
        self.expect("]")?;
        Ok(match from {
            Some(Node {
                kind: Kind::Literal(Value::Str(name)),
                ..
            }) => Kind::Member(of, name, optional),
            Some(index) => Kind::Index(of, Box::new(index), optional),
            None => return Err(self.unexpected("a key or an index")),
        })
    }

    fn postfix(&mut self, mut node: Node) -> Result<Node, ExprError> {
        let mut may_cut_short = false;
        let mut links = 0;
        loop {
            let pos = self.pos();
            let optional = match self.peek() {
                Tok::Op("?.") => true,
                Tok::Op("." | "[") => false,
                _ => break,
            };
            links += 1;
            if links > DEPTH_MAX {
                return Err(ExprError::new(
                    pos,
                    format!("nested deeper than {DEPTH_MAX}"),
                ));
            }
            may_cut_short |= optional;
            let bracket = match self.next().0 {
                Tok::Op("[") => true,
                _ => optional && self.eat("["),
            };
            let of = Box::new(node);
            let kind = if bracket {
                self.bracket(of, optional)?
            } else {
                let (Tok::Name(name), _) = self.next() else {
                    self.at = self.at.saturating_sub(1);
                    return Err(self.unexpected("a name after the dot"));
                };
                Kind::Member(of, name.into(), optional)
            };
            node = Node { pos, kind };
        }
        if may_cut_short {
            node = Node {
                pos: node.pos,
                kind: Kind::Chain(Box::new(node)),
            };
        }
        Ok(node)
    }
}

/// Replaces a node whose operands are all literals by its value. What cannot be evaluated stays
/// as it is and is reported by the check or when it is evaluated.
fn folded(node: Node) -> Node {
    let literal = |n: &Node| matches!(n.kind, Kind::Literal(_));
    let constant = match &node.kind {
        Kind::Binary(_, a, b) => literal(a) && literal(b),
        Kind::Negate(a) => literal(a),
        Kind::List(items) | Kind::Call(_, items) => items.iter().all(literal),
        _ => false,
    };
    if !constant {
        return node;
    }
    let empty = LogsBatch::default();
    let record = Record {
        batch: &empty,
        row: 0,
    };
    let value = eval(&node, record).ok().map(|v| v.to_value(record));
    match value {
        Some(v) => Node {
            pos: node.pos,
            kind: Kind::Literal(v),
        },
        None => node,
    }
}
