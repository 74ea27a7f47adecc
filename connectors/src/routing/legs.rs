//! Handing on: which pipeline gets which records of a part.
//!
//! Each pipeline gets its records in one piece and in order. Pieces that have records in common, because a
//! route copies or names several pipelines, are one duty, which is forked; others have duties of their own.

use tailwater_pipeline::ack::DropReason;
use tailwater_pipeline::{Outcome, Part, Payload, Permit};

use super::sort::Groups;
use super::{Pass, Routing, items};

/// Leaves in data what is in the groups that are wanted.
type Keep<'k> = &'k dyn Fn(&mut Payload, &dyn Fn(u32) -> bool);

/// A piece on its way.
struct Leg {
    way: usize,
    /// The route whose statement changes it, if one does.
    edits: Option<usize>,
    /// The how manieth time records of it go this way.
    time: usize,
    /// The groups in it, in order.
    groups: Vec<u32>,
}

/// Pieces that have groups in common.
#[derive(Default)]
struct Bundle {
    legs: Vec<Leg>,
    /// All groups in them, in order.
    groups: Vec<u32>,
}

/// What goes where.
#[derive(Default)]
struct Plan {
    bundles: Vec<Bundle>,
    /// Groups that no route takes.
    unrouted: Vec<u32>,
    /// Groups that go to other destinations.
    elsewhere: Vec<u32>,
}

impl Routing {
    /// Where the groups `used` go, which are in order.
    fn plan(&self, groups: &Groups, used: &[u32]) -> Plan {
        let mut plan = Plan::default();
        for group in used {
            let routes = groups.routes(*group);
            if routes.is_empty() {
                plan.unrouted.push(*group);
                continue;
            }
            let mut legs: Vec<(usize, Option<usize>, usize)> = Vec::new();
            for route in routes.into_iter().map(usize::from) {
                let edits = self.table.get(route).filter(|r| r.edits()).map(|_| route);
                for way in self.ways.get(route).unwrap_or(&self.default) {
                    let same = |l: &&(usize, Option<usize>, usize)| (l.0, l.1) == (*way, edits);
                    let time = legs.iter().filter(same).count();
                    legs.push((*way, edits, time));
                }
            }
            match legs.is_empty() {
                true => plan.elsewhere.push(*group),
                false => plan.add(*group, &legs),
            }
        }
        plan
    }
}

impl Plan {
    fn add(&mut self, group: u32, legs: &[(usize, Option<usize>, usize)]) {
        let is_it = |l: &Leg| legs.contains(&(l.way, l.edits, l.time));
        let (touched, apart): (Vec<Bundle>, Vec<Bundle>) = std::mem::take(&mut self.bundles)
            .into_iter()
            .partition(|b| b.legs.iter().any(is_it));
        let mut bundle = Bundle::default();
        for b in touched {
            bundle.legs.extend(b.legs);
            bundle.groups.extend(b.groups);
        }
        bundle.groups.push(group);
        bundle.groups.sort_unstable();
        for (way, edits, time) in legs.iter().copied() {
            let key = |l: &&mut Leg| (l.way, l.edits, l.time) == (way, edits, time);
            match bundle.legs.iter_mut().find(key) {
                Some(leg) => leg.groups.push(group),
                None => bundle.legs.push(Leg {
                    way,
                    edits,
                    time,
                    groups: vec![group],
                }),
            }
        }
        self.bundles = apart;
        self.bundles.push(bundle);
    }
}

impl Pass<'_> {
    /// Hands on what is in each group: `of` says in which one everything in the part is.
    pub(super) fn hand_on(&mut self, part: Part, groups: &Groups, of: &[u32], keep: Keep<'_>) {
        let mut used = of.to_vec();
        used.sort_unstable();
        used.dedup();
        let plan = self.routing.plan(groups, &used);
        let Part {
            data,
            ack,
            mut permit,
        } = part;
        let of_groups = |mut data: Payload, wanted: &[u32]| {
            if wanted.len() < used.len() {
                keep(&mut data, &|group| wanted.binary_search(&group).is_ok());
            }
            data
        };
        let number = |groups: &[u32]| -> usize {
            match groups.is_empty() {
                true => 0,
                false => of_groups(data.clone(), groups).items(),
            }
        };
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (unrouted, elsewhere) = (number(&plan.unrouted), number(&plan.elsewhere));
        ack.count_dropped(DropReason::Unrouted, narrow(unrouted));
        ack.count_filtered(narrow(elsewhere));
        // What is in one of several pieces and not in another is delivered, not filtered.
        let (total, bytes) = (data.items().max(1), permit.bytes());
        let mut left = plan.bundles.iter().map(|b| b.legs.len()).sum::<usize>();
        let mut data = Some(data);
        for bundle in plan.bundles {
            let duties = ack.clone().fork(bundle.legs.len());
            for (i, (leg, ack)) in bundle.legs.into_iter().zip(duties).enumerate() {
                left -= 1;
                let whole = match left {
                    0 => data.take(),
                    _ => data.clone(),
                };
                let Some(whole) = whole else {
                    continue;
                };
                let data = of_groups(whole, &leg.groups);
                // What is in several pieces is in memory once.
                let permit = match i {
                    0 => permit.split(bytes * data.items() / total),
                    _ => Permit::none(),
                };
                self.hand(leg, Part { data, ack, permit });
            }
        }
        ack.resolve(match (unrouted, elsewhere) {
            (0, 0) => Outcome::Delivered,
            _ => Outcome::Filtered,
        });
    }

    fn hand(&mut self, leg: Leg, part: Part) {
        let Some(part) = part.non_empty() else { return };
        let edits = leg.edits.and_then(|route| self.routing.table.get(route));
        let part = match edits {
            Some(route) => self.edited(route, part),
            None => Some(part),
        };
        if let (Some(part), Some(out)) = (part, self.out.get_mut(leg.way)) {
            out.parts.push(part);
        }
    }

    /// Gives a part up, if something has happened that does.
    pub(super) fn given_up(&mut self, part: Part) -> Option<Part> {
        let Some(reason) = self.trouble.gives_up(self.routing.report.id()) else {
            return Some(part);
        };
        part.ack.count_dropped(reason, items(&part));
        part.ack.resolve(Outcome::Refused);
        None
    }
}
