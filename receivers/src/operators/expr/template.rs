//! Text with expressions in it: `prefix-EXPR(resource.host)-suffix`.

use tailwater_config::Environment;

use super::lexer::closing_parenthesis;
use super::{EvalError, Expr, ExprError, Pos, Record, Val};

/// Text in which every `EXPR(...)` is replaced by its value for a record; the value must be text.
/// The collector accepts it in the `attributes` and `resource` of receivers.
#[derive(Clone, Debug)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Expr(Box<Expr>),
}

const OPEN: &str = "EXPR(";

impl Template {
    /// Compiles `text`.
    ///
    /// # Errors
    /// The first expression in it that cannot be compiled or is never closed; the position counts
    /// from the start of `text`.
    pub fn compile(text: &str, environment: &dyn Environment) -> Result<Template, ExprError> {
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(open) = text[at..].find(OPEN) {
            let start = at + open + OPEN.len();
            let shift = |mut e: ExprError| {
                e.pos.0 += start;
                e
            };
            let inner = &text[start..];
            let unclosed = || ExprError::new(Pos(at + open), "EXPR( is never closed");
            let len = closing_parenthesis(inner)
                .map_err(shift)?
                .ok_or_else(unclosed)?;
            if open > 0 {
                parts.push(Part::Text(text[at..at + open].to_owned()));
            }
            let expr = Expr::compile(&inner[..len], environment).map_err(shift)?;
            parts.push(Part::Expr(Box::new(expr)));
            at = start + len + 1;
        }
        if at < text.len() {
            parts.push(Part::Text(text[at..].to_owned()));
        }
        Ok(Template { parts })
    }

    /// The expression, if the text is one `EXPR(...)` and nothing else: its value may then be
    /// of any kind.
    pub fn as_expr(&self) -> Option<&Expr> {
        match &self.parts[..] {
            [Part::Expr(e)] => Some(e),
            _ => None,
        }
    }

    /// True if there is no expression in it.
    pub fn is_plain(&self) -> bool {
        self.parts.iter().all(|p| matches!(p, Part::Text(_)))
    }

    /// Appends the text for `record` to `out`, which is left as it was on an error.
    ///
    /// # Errors
    /// An expression fails or its value is not text.
    pub fn render(&self, record: Record<'_>, out: &mut Vec<u8>) -> Result<(), EvalError> {
        let before = out.len();
        for part in &self.parts {
            let failed = match part {
                Part::Text(t) => {
                    out.extend_from_slice(t.as_bytes());
                    None
                }
                Part::Expr(e) => match e.eval(record) {
                    Ok(Val::Str(s)) => {
                        out.extend_from_slice(&s);
                        None
                    }
                    Ok(v) => Some(EvalError::Result {
                        kind: v.kind(),
                        wanted: "string",
                    }),
                    Err(e) => Some(e),
                },
            };
            if let Some(e) = failed {
                out.truncate(before);
                return Err(e);
            }
        }
        Ok(())
    }
}
