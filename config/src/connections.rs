//! Which pipelines the connectors connect.

use std::collections::HashMap;

use crate::component_id::Signal;
use crate::envelope::{ComponentEntry, ConfigFile, Pipeline};

/// Most connectors that may follow each other. They are gone through by calls within calls.
const IN_A_ROW_MAX: usize = 32;
/// Most ways that may lead from a pipeline to exporters. Each of them has everything once.
const WAYS_MAX: usize = 1000;
/// Most of these ways in all. A shard has a chain for each pipeline and exporter.
const WAYS_IN_ALL_MAX: usize = 10_000;

/// The graph of pipelines and connectors. Pipelines are the first vertices, connectors follow, one for
/// each signal that comes into them.
pub(crate) struct Connections<'a> {
    pipelines: &'a [Pipeline],
    connectors: &'a [ComponentEntry],
    /// Where data of its own signal goes from each vertex.
    next: Vec<Vec<usize>>,
    /// Per connector, the pipelines that lead into it.
    sources: Vec<Vec<usize>>,
    /// Per connector, the pipelines that it leads to.
    targets: Vec<Vec<usize>>,
}

impl<'a> Connections<'a> {
    pub(crate) fn of(file: &'a ConfigFile) -> Self {
        let (pipelines, connectors) = (&file.service.pipelines, &file.connectors);
        let index: HashMap<_, _> = connectors
            .iter()
            .enumerate()
            .map(|(i, c)| (&c.id, i))
            .collect();
        let signals = Signal::ALL.len();
        let mut next = vec![Vec::new(); pipelines.len() + connectors.len() * signals];
        let mut sources = vec![Vec::new(); connectors.len()];
        let mut targets = vec![Vec::new(); connectors.len()];
        for (p, pipeline) in pipelines.iter().enumerate() {
            let signal = Signal::ALL.iter().position(|s| *s == pipeline.id.signal);
            let vertex = |c: usize| pipelines.len() + c * signals + signal.unwrap_or_default();
            for c in pipeline.exporters.iter().filter_map(|r| index.get(&r.id)) {
                next[p].push(vertex(*c));
                sources[*c].push(p);
            }
            for c in pipeline.receivers.iter().filter_map(|r| index.get(&r.id)) {
                next[vertex(*c)].push(p);
                targets[*c].push(p);
            }
        }
        Self {
            pipelines,
            connectors,
            next,
            sources,
            targets,
        }
    }

    /// The connector of a vertex that is none of a pipeline.
    fn connector(&self, vertex: usize) -> &'a ComponentEntry {
        &self.connectors[(vertex - self.pipelines.len()) / Signal::ALL.len()]
    }

    /// Names of the pipelines that end in a connector.
    pub(crate) fn names_from(&self, connector: usize) -> Vec<String> {
        self.names(&self.sources[connector])
    }

    /// Names of the pipelines that begin with a connector.
    pub(crate) fn names_into(&self, connector: usize) -> Vec<String> {
        self.names(&self.targets[connector])
    }

    fn names(&self, pipelines: &[usize]) -> Vec<String> {
        pipelines
            .iter()
            .map(|p| self.pipelines[*p].id.to_string())
            .collect()
    }

    /// The first circle found: a connector on it, and its steps in words, which begin and end with
    /// the same pipeline. A depth-first walk with a stack of its own, so that a long chain does
    /// not overflow ours.
    pub(crate) fn cycle(&self) -> Option<(&'a ComponentEntry, Vec<String>)> {
        let mut done = vec![false; self.next.len()];
        let mut on_way = vec![false; self.next.len()];
        for start in 0..self.pipelines.len() {
            // The way from `start`: vertices, and how many of their edges were tried.
            let mut way = vec![(start, 0)];
            on_way[start] = true;
            while let Some((at, tried)) = way.last_mut() {
                let at = *at;
                let Some(to) = self.next[at].get(*tried).copied().filter(|_| !done[at]) else {
                    (done[at], on_way[at]) = (true, false);
                    way.pop();
                    continue;
                };
                *tried += 1;
                if on_way[to] {
                    let way: Vec<usize> = way.iter().map(|(vertex, _)| *vertex).collect();
                    let begin = way
                        .iter()
                        .position(|vertex| *vertex == to)
                        .unwrap_or_default();
                    return self.describe(&way[begin..]);
                }
                on_way[to] = true;
                way.push((to, 0));
            }
        }
        None
    }

    fn describe(&self, circle: &[usize]) -> Option<(&'a ComponentEntry, Vec<String>)> {
        let first = circle
            .iter()
            .position(|vertex| *vertex < self.pipelines.len())?;
        let in_order = circle[first..]
            .iter()
            .chain(&circle[..first])
            .chain(&circle[first..=first]);
        let connector = in_order
            .clone()
            .find(|vertex| **vertex >= self.pipelines.len())?;
        let steps = in_order.map(|vertex| match self.pipelines.get(*vertex) {
            Some(pipeline) => format!("pipeline \"{}\"", pipeline.id),
            None => format!("connector \"{}\"", self.connector(*vertex).id),
        });
        Some((self.connector(*connector), steps.collect()))
    }

    /// The first pipeline from which too many ways lead to exporters, or ways through too many
    /// connectors, and what is wrong. There must not be circles.
    pub(crate) fn excess(&self) -> Option<(&'a Pipeline, String)> {
        let known = self.distances();
        let mut all = 0usize;
        for (i, pipeline) in self.pipelines.iter().enumerate() {
            let (row, ways) = known[i];
            if !self.next[i].is_empty() {
                all = all.saturating_add(ways);
            }
            let text = if row > IN_A_ROW_MAX {
                format!(
                    "leads through {row} connectors in a row, at most {IN_A_ROW_MAX} are allowed; \
                     put pipelines together"
                )
            } else if ways > WAYS_MAX {
                format!(
                    "leads to exporters by more than {WAYS_MAX} ways through connectors, each of \
                     which would have everything once; take connectors out of pipelines"
                )
            } else if all > WAYS_IN_ALL_MAX {
                format!(
                    "this one and those before it lead to exporters by more than {WAYS_IN_ALL_MAX} \
                     ways through connectors in all; put pipelines together"
                )
            } else {
                continue;
            };
            return Some((pipeline, text));
        }
        None
    }

    /// Of each vertex: how many connectors follow each other from there on, and how many ways lead to
    /// exporters. A walk as in [`Self::cycle`].
    fn distances(&self) -> Vec<(usize, usize)> {
        let mut known = vec![(0, 0); self.next.len()];
        let mut done = vec![false; self.next.len()];
        for start in 0..self.pipelines.len() {
            let mut way = vec![(start, 0)];
            while let Some((at, tried)) = way.last_mut() {
                let at = *at;
                if !done[at]
                    && let Some(to) = self.next[at].get(*tried)
                {
                    *tried += 1;
                    way.push((*to, 0));
                    continue;
                }
                way.pop();
                if std::mem::replace(&mut done[at], true) {
                    continue;
                }
                let behind = self.next[at].iter().map(|v| known[*v]);
                let (row, ways) = behind.fold((0, 0usize), |(row, ways): (usize, _), (r, w)| {
                    (row.max(r), ways.saturating_add(w))
                });
                known[at] = match self.pipelines.get(at) {
                    None => (row + 1, ways),
                    Some(pipeline) => {
                        let own = pipeline.exporters.len() - self.next[at].len();
                        (row, ways.saturating_add(own))
                    }
                };
            }
        }
        known
    }
}
