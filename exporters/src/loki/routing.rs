//! Which stream a row belongs to.
//!
//! Rows that agree in what labels are made of go to the same stream, so labels are only written
//! as text once per batch and set of values. When there are too many streams, a label is moved to
//! structured metadata.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::Ordering::Relaxed;

use foldhash::fast::FixedState;
use tailwater_pdata::LogsBatch;
use tailwater_pipeline::clock::Mono;

use super::front::{Encoding, LokiFront, Outlet, Route, add};
use super::label_text::put_quoted;
use super::names::cut;
use super::plan::{RowPlan, tenant_of};

/// Streams beyond the limit that are let in after a label was moved, as a share of the limit.
const OVERFLOW_SHARE: usize = 4;

impl<O: Outlet> LokiFront<O> {
    /// The route of a row.
    pub(super) fn route(&mut self, e: &Encoding<'_>, plan: &RowPlan, row: usize) -> Route {
        let mut hasher = FixedState::with_seed(0).build_hasher();
        plan.hash(e.logs, row, &mut hasher);
        let hash = hasher.finish();
        if let Some(&(known, route)) = self.memo.get(&hash)
            && plan.same(e.logs, known, row)
        {
            return route;
        }
        let route = self.find_route(e, plan, row);
        self.memo.insert(hash, (row, route));
        route
    }

    fn find_route(&mut self, e: &Encoding<'_>, plan: &RowPlan, row: usize) -> Route {
        let shared = self.shared.clone();
        let options = &shared.options;
        let name = tenant_of(plan, options.tenant.fixed.as_ref(), e.logs, row);
        let admitted = name.as_deref().is_none_or(|t| options.tenant.admits(t));
        let known = admitted.then(|| self.streams.tenant(name.as_deref()));
        let Some(tenant) = known.flatten() else {
            self.refuse_tenant(name.as_deref().unwrap_or_default());
            return Route::NoTenant;
        };
        self.write_labels(e.logs, plan, row, false);
        if let Some(stream) = self.streams.find(tenant, &self.label_text) {
            return Route::Stream(stream);
        }
        let room = |max: usize| shared.streams.load(Relaxed) < max;
        if room(options.streams_max) {
            return Route::Stream(self.create(tenant, e.now));
        }
        let overflow = options.streams_max + options.streams_max / OVERFLOW_SHARE;
        loop {
            let reduced = plan.labels.iter().any(|l| self.is_moved(&l.name));
            self.write_labels(e.logs, plan, row, true);
            let known = self.streams.find(tenant, &self.label_text);
            let done = known.is_some() || (reduced && room(overflow));
            if done || !self.move_one_more(plan) {
                let stream = known.unwrap_or_else(|| self.create(tenant, e.now));
                return if reduced {
                    Route::Reduced(stream)
                } else {
                    Route::Stream(stream)
                };
            }
        }
    }

    /// Says that a tenant is refused, but not of which ones: there may be any number.
    fn refuse_tenant(&mut self, name: &str) {
        if !self.tenant_refused {
            self.tenant_refused = true;
            tracing::warn!(
                tenant = name,
                "Records of a tenant that is not allowed (tenant::allow), not a valid id or one too \
                 many are dropped as tenant_refused; so will be those of others like it."
            );
        }
    }

    fn is_moved(&self, label: &str) -> bool {
        self.moved.iter().any(|m| m == label)
    }

    fn create(&mut self, tenant: u32, now: Mono) -> u32 {
        self.shared.streams.fetch_add(1, Relaxed);
        add(&self.shared.stats.streams_created, 1);
        add(&self.shared.stats.streams_active, 1);
        self.show_streams();
        let limits = &self.shared.options.limits;
        self.streams.create(tenant, &self.label_text, limits, now)
    }

    /// Decides that the label with the most values becomes structured metadata for new streams.
    /// False if no label of the plan is left that could.
    fn move_one_more(&mut self, plan: &RowPlan) -> bool {
        let movable = plan.labels.iter().filter(|l| l.attribute.is_some());
        let names: Vec<&str> = movable
            .map(|l| l.name.as_str())
            .filter(|name| !self.is_moved(name))
            .collect();
        let Some(i) = self.streams.most_diverse(&names) else {
            return false;
        };
        let max = self.shared.options.streams_max;
        tracing::warn!(
            label = names[i],
            streams_max = max,
            "Too many active streams. For further streams this label becomes structured metadata."
        );
        if let Some(budget) = &self.shared.budget {
            budget.demoted_labels.inc();
        }
        self.moved.push(names[i].to_owned());
        true
    }

    /// Writes the labels of `row` as text, with or without those that are moved.
    pub(super) fn write_labels(
        &mut self,
        logs: &LogsBatch,
        plan: &RowPlan,
        row: usize,
        reduced: bool,
    ) {
        let max = self.shared.options.limits.label_value_bytes_max;
        let mut text = std::mem::take(&mut self.label_text);
        text.clear();
        text.push('{');
        for label in &plan.labels {
            let skip = reduced && self.is_moved(&label.name);
            let Some(value) = label.source.text(logs, row).filter(|_| !skip) else {
                continue;
            };
            if text.len() > 1 {
                text.push_str(", ");
            }
            text.push_str(&label.name);
            text.push('=');
            put_quoted(cut(&value, max), &mut text);
        }
        if text.len() == 1 {
            // What Loki itself adds to a stream without labels.
            text.push_str("service_name=\"unknown_service\"");
        }
        text.push('}');
        self.label_text = text;
    }
}
