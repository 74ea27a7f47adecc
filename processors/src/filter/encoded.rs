//! Spans, metrics and data points in a request as it came.

use tailwater_ottl::Context;
use tailwater_ottl::requests::PlaceScene;
use tailwater_pdata::otlp::Encoded;
use tailwater_pdata::otlp::edit::{Attributes, Edit, Next, View};
use tailwater_pdata::otlp::revise::Level;

use super::records::holds;
use super::{MetricRules, TraceRules};
use crate::matching::{Choice, Chosen, Place};
use crate::ottl::{Around, ConditionGroup, Item, Report};

/// Leaves in a request of traces what is not left out.
pub(super) fn traces(rules: &TraceRules, encoded: &mut Encoded, now_ns: i64, report: &mut Report) {
    let choice = &rules.choice;
    let is_event = |g: &&ConditionGroup| g.context == Context::SpanEvent;
    let events: Vec<&ConditionGroup> = rules.groups.iter().filter(is_event).collect();
    let spans = rules.groups.len() > events.len();
    if spans || choice.include.is_some() || choice.exclude.is_some() {
        leave_out_spans(rules, encoded, now_ns, report);
    }
    if events.is_empty() {
        return;
    }
    // A span of which no event is left is still a span.
    let done = encoded.revise(Level::Part, &mut |place| {
        let scene = PlaceScene::new(place);
        !events.iter().any(|g| holds(g, &scene, now_ns, report))
    });
    if let Err(why) = done {
        report.too_much(why);
    }
}

fn leave_out_spans(rules: &TraceRules, encoded: &mut Encoded, now_ns: i64, report: &mut Report) {
    encoded.edit(&mut Filter {
        groups: &rules.groups,
        now_ns,
        report,
        around: Around::default(),
        items: &rules.choice,
        whole: Chosen::default(),
        part: Chosen::default(),
        resources: None,
        metrics: None,
        items_are: Context::Span,
    });
}

/// The same for metrics.
pub(super) fn metrics(
    rules: &MetricRules,
    encoded: &mut Encoded,
    now_ns: i64,
    report: &mut Report,
) {
    let named = |c: &Choice| c.include.is_some() || c.exclude.is_some();
    if rules.groups.is_empty() && !named(&rules.resources) && !named(&rules.names) {
        return;
    }
    let everything = Choice::default();
    encoded.edit(&mut Filter {
        groups: &rules.groups,
        now_ns,
        report,
        around: Around::default(),
        items: &everything,
        whole: Chosen::default(),
        part: Chosen::default(),
        resources: named(&rules.resources).then_some(&rules.resources),
        metrics: named(&rules.names).then_some(&rules.names),
        items_are: Context::DataPoint,
    });
}

struct Filter<'f> {
    groups: &'f [ConditionGroup],
    now_ns: i64,
    report: &'f mut Report,
    around: Around,
    /// What is kept of spans by `include` and `exclude`, and how far that has been followed.
    items: &'f Choice,
    whole: Chosen,
    part: Chosen,
    /// What is kept of resources and metrics.
    resources: Option<&'f Choice>,
    metrics: Option<&'f Choice>,
    /// Spans or data points.
    items_are: Context,
}

impl Filter<'_> {
    /// Whether a condition about `context` holds for `item`.
    fn is_left_out(
        groups: &[ConditionGroup],
        context: Context,
        item: &Item<'_, '_>,
        now_ns: i64,
        report: &mut Report,
    ) -> bool {
        let about = groups.iter().filter(|g| g.context == context);
        let mut left_out = false;
        for group in about {
            left_out = left_out || holds(group, item, now_ns, report);
        }
        left_out
    }

    fn drops(&mut self, context: Context, metric: Option<&View<'_>>) -> bool {
        let item = Item {
            around: &self.around,
            item: None,
            metric,
        };
        Self::is_left_out(self.groups, context, &item, self.now_ns, self.report)
    }
}

impl Edit for Filter<'_> {
    fn resource(&mut self, attributes: &mut Attributes<'_>) -> Next {
        let place = Place::Resource(attributes);
        self.whole = Chosen::by(self.items).step(self.items, &place);
        if let Some(choice) = self.resources
            && !Chosen::by(choice).step(choice, &place).is()
        {
            return Next::Drop;
        }
        self.around.enter_resource(attributes);
        match self.drops(Context::Resource, None) {
            true => Next::Drop,
            false => Next::Look,
        }
    }

    fn scope(&mut self, scope: &View<'_>, attributes: &mut Attributes<'_>) -> Next {
        self.part = self.whole.step(self.items, &Place::Scope(scope));
        self.around.enter_scope(scope, attributes);
        match self.drops(Context::Scope, None) {
            true => Next::Drop,
            false => Next::Look,
        }
    }

    fn metric(&mut self, metric: &View<'_>) -> Next {
        if let Some(choice) = self.metrics
            && !Chosen::by(choice).step(choice, &Place::Metric(metric)).is()
        {
            return Next::Drop;
        }
        self.around.enter_metric(metric);
        if self.drops(Context::Metric, Some(metric)) {
            return Next::Drop;
        }
        let points = self.groups.iter().any(|g| g.context == Context::DataPoint);
        match points {
            true => Next::Look,
            false => Next::Leave,
        }
    }

    fn item(&mut self, item: &View<'_>, attributes: &mut Attributes<'_>) -> bool {
        let context = self.items_are;
        let seen = Item {
            around: &self.around,
            item: Some((item, attributes)),
            metric: None,
        };
        if Self::is_left_out(self.groups, context, &seen, self.now_ns, self.report) {
            return false;
        }
        context == Context::DataPoint
            || self
                .part
                .step(self.items, &Place::Item(item, attributes))
                .is()
    }
}
