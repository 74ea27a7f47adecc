//! The stage `match`: a selector, and what is done with lines that it selects.

use tailwater_config::Node;

use super::{QUIET, Stages};
use crate::expr;
use crate::note::Weight;
use crate::options::Options;
use crate::promtail::selector;

impl Stages<'_> {
    pub(super) fn matching(&mut self, node: &Node, path: &str) {
        let mut o = Options::new(node, path);
        let selector = o.text("selector").unwrap_or_default();
        let action = o.text("action").unwrap_or_else(|| "keep".to_owned());
        let stages = o.list("stages");
        for key in ["pipeline_name", "drop_counter_reason"] {
            let say = "metrics are by operator";
            let comment = o.remark(self.notes, Weight::NotNeeded, key, say);
            self.pending.extend(comment);
        }
        self.rest(o);
        let Some(condition) = selector::expression(&selector) else {
            let say = format!(
                "the selector {selector:?} is more than labels and texts in the line: what it guards was left out. Write \
                 it as if of operators"
            );
            return self.say(Weight::Decide, node, path, say);
        };
        let late = self
            .late
            .iter()
            .find(|label| selector::names(&selector, label));
        if let Some(late) = late {
            let say = format!(
                "the label {late} is set behind the operators, by what the API of Kubernetes says: what the selector guards was \
                 left out. Write it as a filter processor, or as statements of transform"
            );
            return self.say(Weight::Decide, node, path, say);
        }
        if action == "drop" {
            let op = self.op("filter", [("expr", &condition)]);
            return self.push(op, []);
        }
        // A stage may change what the selector looks at, so it is looked at once.
        let name = format!("__match{}", self.guards);
        self.guards += 1;
        let flag = expr::field("attributes", &name);
        let mut op = self.op(
            "add",
            [("field", &flag), ("value", &expr::value(&condition))],
        );
        op.set(QUIET.0, QUIET.1);
        self.push(op, []);
        let outer = self.guard.replace(format!("{flag} == true"));
        self.all(&stages, &format!("{path}.stages"));
        self.guard = outer;
        self.remove(&flag);
    }
}
