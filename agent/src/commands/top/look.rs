//! One look at an agent.

use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::admin::client::{Ask, Place, ask};

/// What an agent said at one instant.
#[derive(Clone, Debug)]
pub struct Look {
    /// When it was asked for its numbers.
    pub at: Instant,
    /// The report of health.
    pub health: Value,
    /// Nodes and edges.
    pub graph: Value,
    /// The newest generation.
    pub newest: Value,
    /// Those files that are furthest behind.
    pub files: Value,
}

/// Asks the agent at `place`, for so many files at most.
///
/// # Errors
/// It does not answer, or refuses.
pub fn look(place: &Place, files_max: usize) -> Result<Look> {
    let get = |path: &str| {
        let said = ask(place, Ask::get(path))?;
        match said.status.is_success() {
            true => Ok(said.body),
            false => bail!("{path}: {}", super::super::admin::text(&said.body, "error")),
        }
    };
    let at = Instant::now();
    let graph = get("/v1/graph")?;
    let mut generations = get("/v1/generations")?;
    let newest = generations["generations"].as_array_mut().and_then(Vec::pop);
    Ok(Look {
        at,
        graph,
        newest: newest.unwrap_or_default(),
        health: get("/v1/health")?,
        files: get(&format!("/v1/files?order=lag&limit={files_max}"))?,
    })
}
