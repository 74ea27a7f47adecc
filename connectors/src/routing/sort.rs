//! Sorting: which routes take a record.

use std::collections::HashMap;

use tailwater_ottl::logs::LogScene;
use tailwater_ottl::requests::PlaceScene;
use tailwater_ottl::{Context, Scene};
use tailwater_pdata::LogsBatch;
use tailwater_pdata::otlp::Encoded;
use tailwater_pdata::otlp::revise::Level;
use tailwater_pipeline::client::ClientInfo;
use tailwater_pipeline::{Part, Payload};

use super::Pass;
use super::table::Route;
use crate::ottl::level;

/// Records that the same routes take, by number. Number 0 is what none does.
#[derive(Default)]
pub(super) struct Groups {
    /// By number less one: the group with one route less, and that route.
    made: Vec<(u32, u16)>,
    numbers: HashMap<(u32, u16), u32>,
}

impl Groups {
    /// The group of what is in `group` and taken by one more route.
    fn with(&mut self, group: u32, route: u16) -> u32 {
        let made = &mut self.made;
        *self.numbers.entry((group, route)).or_insert_with(|| {
            made.push((group, route));
            // Not more than there are records.
            u32::try_from(made.len()).unwrap_or(u32::MAX)
        })
    }

    /// The routes of a group, in the order of the table.
    pub fn routes(&self, mut group: u32) -> Vec<u16> {
        let mut routes = Vec::new();
        while let Some((less, route)) = group.checked_sub(1).and_then(|i| self.made.get(i as usize))
        {
            routes.push(*route);
            group = *less;
        }
        routes.reverse();
        routes
    }
}

impl Pass<'_> {
    /// The group of a record, for which `picks` says whether a route picks it. Routes behind one that moves
    /// it are not asked.
    fn group(
        &mut self,
        groups: &mut Groups,
        mut picks: impl FnMut(&mut Self, usize, &Route) -> bool,
    ) -> u32 {
        let routing = self.routing;
        let mut group = 0;
        for (number, route) in routing.table.iter().enumerate() {
            if picks(self, number, route) {
                group = groups.with(group, number as u16);
                if route.moves {
                    return group;
                }
            }
        }
        match routing.has_default {
            true => groups.with(group, routing.table.len() as u16),
            false => group,
        }
    }

    /// Whether a route picks what `scene` shows. An error is told, and picks nothing.
    fn picks(&mut self, route: &Route, scene: &dyn Scene) -> bool {
        let Some(statement) = route.statement() else {
            return false;
        };
        match statement.picks(scene, self.now_ns) {
            Ok(picks) => picks,
            Err(fault) => {
                self.trouble
                    .error(self.routing.mode, statement.text(), fault);
                false
            }
        }
    }

    /// The group of each row.
    pub(super) fn sort_logs(
        &mut self,
        logs: &mut LogsBatch,
        client: Option<&ClientInfo>,
        groups: &mut Groups,
    ) -> Vec<u32> {
        let rows = logs.rows();
        if rows == 0 {
            return Vec::new();
        }
        let mut scene = LogScene::new(logs);
        let routing = self.routing;
        // What is the same for all rows.
        let whole: Vec<Option<bool>> = routing
            .table
            .iter()
            .map(|route| match route.context {
                None => route.picks_client(client),
                Some(Context::Log) => None,
                Some(_) => Some(self.picks(route, &scene)),
            })
            .collect();
        if whole.iter().all(Option::is_some) {
            let group = self.group(groups, |_, n, _| whole[n] == Some(true));
            return vec![group; rows];
        }
        let mut of = Vec::with_capacity(rows);
        for row in 0..rows {
            scene.go_to(row);
            of.push(self.group(groups, |pass, n, route| match whole[n] {
                Some(picks) => picks,
                None => pass.picks(route, &scene),
            }));
        }
        of
    }

    /// The group of each thing at the depth at which a request is sorted; `None` if it could not be gone
    /// through.
    pub(super) fn sort_request(
        &mut self,
        data: &Payload,
        client: Option<&ClientInfo>,
        groups: &mut Groups,
    ) -> Option<(Level, Vec<u32>)> {
        let Payload::Encoded(request) = data else {
            return None;
        };
        // Nothing is changed.
        let mut request = request.clone();
        let routing = self.routing;
        let levels = || routing.table.iter().filter_map(|r| r.context).map(level);
        let depth = levels().max().unwrap_or(Level::Resource);
        // By route, what it picks that is around what is sorted.
        let mut around: Vec<Vec<bool>> = vec![Vec::new(); routing.table.len()];
        for outer in [Level::Resource, Level::Item] {
            if outer < depth && levels().any(|l| l == outer) {
                self.picked_at(outer, &mut request, &mut around)?;
            }
        }
        let mut of = Vec::new();
        let done = request.revise(depth, &mut |place| {
            let (resource, item) = (place.number(Level::Resource), place.number(Level::Item));
            let scene = PlaceScene::new(place);
            of.push(self.group(groups, |pass, n, route| {
                let Some(context) = route.context else {
                    return route.picks_client(client) == Some(true);
                };
                match level(context) {
                    l if l == depth => pass.picks(route, &scene),
                    Level::Resource => around[n].get(resource) == Some(&true),
                    _ => around[n].get(item) == Some(&true),
                }
            }));
            true
        });
        match done {
            Ok(()) => Some((depth, of)),
            Err(why) => {
                self.trouble.too_much(why);
                None
            }
        }
    }

    /// What routes about `outer` pick, by its number.
    fn picked_at(
        &mut self,
        outer: Level,
        request: &mut Encoded,
        around: &mut [Vec<bool>],
    ) -> Option<()> {
        let routing = self.routing;
        let done = request.revise(outer, &mut |place| {
            let number = place.number(outer);
            let scene = PlaceScene::new(place);
            for (picked, route) in around.iter_mut().zip(&routing.table) {
                if route.context.map(level) == Some(outer) {
                    picked.resize(number, false);
                    picked.push(self.picks(route, &scene));
                }
            }
            true
        });
        done.map_err(|why| self.trouble.too_much(why)).ok()
    }

    /// A part with what the statement of a route changes; `None` if it is given up.
    pub(super) fn edited(&mut self, route: &Route, mut part: Part) -> Option<Part> {
        let (statement, now_ns) = (route.statement()?, self.now_ns);
        let context = route.context?;
        let mode = self.routing.mode;
        let trouble = &mut self.trouble;
        let mut fault = |fault| trouble.error(mode, statement.text(), fault);
        match &mut part.data {
            Payload::Logs(logs) => {
                let mut scene = LogScene::new(logs);
                let rows = match context {
                    Context::Log => scene.rows(),
                    _ => scene.rows().min(1),
                };
                for row in 0..rows {
                    scene.go_to(row);
                    if let Err(why) = statement.edit(&mut scene, now_ns) {
                        fault(why);
                    }
                }
            }
            Payload::Encoded(request) => {
                let done = request.revise(level(context), &mut |place| {
                    if let Err(why) = statement.edit(&mut PlaceScene::new(place), now_ns) {
                        fault(why);
                    }
                    true
                });
                if let Err(why) = done {
                    self.trouble.too_much(why);
                }
            }
        }
        self.given_up(part)
    }
}
