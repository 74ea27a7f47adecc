//! The plan of the last batch, used again for batches that look like it.
//!
//! A file's batches mostly have the same columns, constants and resource, so what follows from
//! these is worked out, and allocated, once for many of them.

use std::sync::Arc;

use tailwater_pdata::{Column, Key, LogsBatch, Map, Scope, Severities, Value};

use super::options::LokiOptions;
use super::plan::RowPlan;

/// See the module. One per front, whose options do not change.
#[derive(Debug, Default)]
pub(super) struct PlanMemo {
    last: Option<(Looks, Arc<RowPlan>)>,
}

impl PlanMemo {
    /// The plan for all rows of `logs`, whose hints are the same for all rows.
    pub fn plan(&mut self, options: &LokiOptions, logs: &LogsBatch) -> Arc<RowPlan> {
        if let Some((looks, plan)) = &self.last
            && looks.are_those_of(logs)
        {
            return plan.clone();
        }
        let plan = Arc::new(RowPlan::new(options, logs, 0));
        self.last = Some((Looks::of(logs), plan.clone()));
        plan
    }
}

/// Everything of a batch that [`RowPlan::new`] looks at.
#[derive(Debug)]
struct Looks {
    attributes: Vec<(Key, Option<Value>)>,
    resource: Arc<Map>,
    scope: Arc<Scope>,
    severity: Severity,
    /// `Some(None)`: there are texts, and they differ.
    severity_text: Option<Option<Value>>,
    has_trace: bool,
}

#[derive(PartialEq, Eq, Debug)]
enum Severity {
    Const(u8),
    Each { some_unset: bool },
}

impl Looks {
    fn of(logs: &LogsBatch) -> Looks {
        let column = |(k, c): (&Key, &Column)| (k.clone(), c.as_const().cloned());
        let text = logs.severity_text.as_ref();
        Looks {
            attributes: logs.attributes.iter().map(column).collect(),
            resource: logs.resource.clone(),
            scope: logs.scope.clone(),
            severity: severity(logs),
            severity_text: text.map(|c| c.as_const().cloned()),
            has_trace: logs.trace.is_some(),
        }
    }

    fn are_those_of(&self, logs: &LogsBatch) -> bool {
        let text = logs.severity_text.as_ref().map(Column::as_const);
        let same_text = match (&self.severity_text, text) {
            (None, None) => true,
            (Some(a), Some(b)) => same_constant(a.as_ref(), b),
            _ => false,
        };
        let same_scope = || {
            let (a, b) = (&self.scope, &logs.scope);
            (&a.name, &a.version) == (&b.name, &b.version) && same_map(&a.attributes, &b.attributes)
        };
        let attributes = self.attributes.iter().zip(logs.attributes.iter());
        same_text
            && self.has_trace == logs.trace.is_some()
            && self.severity == severity(logs)
            && self.attributes.len() == logs.attributes.len()
            && attributes
                .into_iter()
                .all(|((k, v), (key, c))| k == key && same_constant(v.as_ref(), c.as_const()))
            && (Arc::ptr_eq(&self.resource, &logs.resource)
                || same_map(&self.resource, &logs.resource))
            && (Arc::ptr_eq(&self.scope, &logs.scope) || same_scope())
    }
}

fn severity(logs: &LogsBatch) -> Severity {
    match &logs.severity {
        Severities::Const(n) => Severity::Const(*n),
        Severities::Each(all) => Severity::Each {
            some_unset: all.contains(&0),
        },
    }
}

fn same_constant(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => same(a, b),
        _ => false,
    }
}

fn same_map(a: &Map, b: &Map) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b.iter())
            .all(|((k, v), (key, value))| k == key && same(v, value))
}

/// Equal, and of a kind whose equal values have the same text: 0 and -0 have not, so doubles and
/// what may hold them are never the same. They are rare where all rows have one value.
fn same(a: &Value, b: &Value) -> bool {
    match a {
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Str(_) | Value::Bytes(_) => a == b,
        Value::Double(_) | Value::List(_) | Value::Map(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_pdata::{Cell, TraceColumns};

    fn batch() -> LogsBatch {
        let mut b = LogsBatch::from_lines(b"ab".as_slice().into(), &[(0, 1), (1, 1)]);
        b.attributes.set("file", Column::Const("a.log".into()));
        b.attributes.set(
            "stream",
            Column::dict(vec![0, 1], vec!["x".into(), "y".into()]),
        );
        b.resource = Arc::new([("job", "j")].into_iter().collect());
        b
    }

    fn is_remembered(of: &LogsBatch, next: &LogsBatch) -> bool {
        let mut memo = PlanMemo::default();
        let options = LokiOptions::default();
        let first = memo.plan(&options, of);
        Arc::ptr_eq(&first, &memo.plan(&options, next))
    }

    #[test]
    fn values_that_differ_between_rows_do_not_make_a_new_plan() {
        let mut other = batch();
        let cells = vec![Cell::Absent, Cell::Int(1)];
        other.attributes.set("stream", Column::Cells(cells));
        assert!(is_remembered(&batch(), &other));
    }

    #[test]
    fn whatever_a_plan_depends_on_makes_a_new_one() {
        type Change = fn(&mut LogsBatch);
        let changes: [(&str, Change); 12] = [
            ("a constant", |b| {
                b.attributes.set("file", Column::Const("b.log".into()));
            }),
            ("a constant that varies", |b| {
                b.set_attribute(0, "file", Cell::Null);
            }),
            ("a kind", |b| {
                b.attributes.set("file", Column::Const(1i64.into()));
            }),
            ("a name", |b| {
                b.attributes.rename("file", "path");
            }),
            ("one more", |b| {
                b.attributes.set("more", Column::Const("m".into()));
            }),
            ("one less", |b| {
                b.attributes.remove("stream");
            }),
            ("the resource", |b| b.set_resource_all("job", "k".into())),
            ("the scope", |b| {
                Arc::make_mut(&mut b.scope).name = "s".into();
            }),
            ("a severity", |b| b.severity = Severities::Const(9)),
            ("severities", |b| b.severity = Severities::Each(vec![9, 0])),
            ("a text", |b| {
                b.severity_text = Some(Column::Const("INFO".into()));
            }),
            ("a trace", |b| {
                b.trace = Some(Box::new(TraceColumns {
                    trace_id: vec![[1; 16]; 2],
                    span_id: vec![[1; 8]; 2],
                    flags: vec![0; 2],
                }));
            }),
        ];
        for (what, change) in changes {
            let mut other = batch();
            change(&mut other);
            assert!(!is_remembered(&batch(), &other), "{what}");
            assert!(is_remembered(&other, &other.clone()), "{what}");
        }
        let (mut some, mut all) = (batch(), batch());
        some.severity = Severities::Each(vec![9, 0]);
        all.severity = Severities::Each(vec![9, 9]);
        assert!(!is_remembered(&some, &all));
    }

    #[test]
    fn doubles_are_not_compared() {
        let mut double = batch();
        double.attributes.set("d", Column::Const(0.0.into()));
        assert!(!is_remembered(&double, &double.clone()));
    }
}
