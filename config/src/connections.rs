//! Which pipelines the connectors connect.

use std::collections::HashMap;

use crate::envelope::{ComponentEntry, ConfigFile, Pipeline};

/// The graph of pipelines and connectors. Pipelines are the first vertices, connectors follow.
pub(crate) struct Connections<'a> {
    pipelines: &'a [Pipeline],
    connectors: &'a [ComponentEntry],
    /// Where data goes from each vertex.
    next: Vec<Vec<usize>>,
    /// Per connector, the pipelines that lead into it.
    sources: Vec<Vec<usize>>,
}

impl<'a> Connections<'a> {
    pub(crate) fn of(file: &'a ConfigFile) -> Self {
        let (pipelines, connectors) = (&file.service.pipelines, &file.connectors);
        let index: HashMap<_, _> = connectors
            .iter()
            .enumerate()
            .map(|(i, c)| (&c.id, i))
            .collect();
        let mut next = vec![Vec::new(); pipelines.len() + connectors.len()];
        let mut sources = vec![Vec::new(); connectors.len()];
        for (p, pipeline) in pipelines.iter().enumerate() {
            for c in pipeline.exporters.iter().filter_map(|r| index.get(&r.id)) {
                next[p].push(pipelines.len() + c);
                sources[*c].push(p);
            }
            for c in pipeline.receivers.iter().filter_map(|r| index.get(&r.id)) {
                next[pipelines.len() + c].push(p);
            }
        }
        Self {
            pipelines,
            connectors,
            next,
            sources,
        }
    }

    /// Names of the pipelines that end in a connector.
    pub(crate) fn names_from(&self, connector: usize) -> Vec<String> {
        self.names(&self.sources[connector])
    }

    /// Names of the pipelines that begin with a connector.
    pub(crate) fn names_into(&self, connector: usize) -> Vec<String> {
        self.names(&self.next[self.pipelines.len() + connector])
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
            None => format!(
                "connector \"{}\"",
                self.connectors[vertex - self.pipelines.len()].id
            ),
        });
        Some((
            &self.connectors[connector - self.pipelines.len()],
            steps.collect(),
        ))
    }
}
