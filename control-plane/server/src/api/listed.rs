//! Sources as JSON.

use serde_json::{Value, json};
use tailwater_control_plane::model::{Origin, State};
use tailwater_opamp::InstanceUid;

use super::Api;
use crate::groups::Refusal;
use crate::now_ms;
use crate::sources::{Filter, Row};

/// What was asked for under a name.
pub(super) type Asked<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The value of a query that has to be one of these.
fn one_of<T>(
    asked: &Asked<'_>,
    key: &str,
    known: &[&str],
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Refusal> {
    let Some(text) = asked(key) else {
        return Ok(None);
    };
    let wrong = || Refusal::Mistakes(vec![format!("{key} must be one of {}", known.join(", "))]);
    read(&text).map(Some).ok_or_else(wrong)
}

fn agent(asked: &Asked<'_>) -> Result<Option<InstanceUid>, Refusal> {
    let read = |text: String| text.parse::<InstanceUid>();
    let uid = asked("agent").map(read).transpose();
    uid.map_err(|e| Refusal::Mistakes(vec![format!("agent: {e}")]))
}

/// Sources of all agents, by agent and id.
pub(super) fn sources(api: &Api, asked: &Asked<'_>, limit: usize) -> Result<Value, Refusal> {
    let filter = Filter {
        agent: agent(asked)?,
        kind: one_of(
            asked,
            "kind",
            &Origin::ALL.map(Origin::name),
            Origin::of_name,
        )?,
        state: one_of(asked, "state", &State::ALL.map(State::name), State::of_name)?,
        contains: asked("contains"),
    };
    let (rows, total, left_out) = api.sources.rows(&filter, limit);
    let now = now_ms();
    let row = |row: &Row| {
        let own = row.source.descriptor.as_ref();
        let known = api.hub.look(row.agent, |a| {
            let host = a.peer.identifying.get("host.name");
            let host = host.or_else(|| a.peer.others.get("host.name")).cloned();
            (a.group.clone(), host, a.is_connected(now))
        });
        let (group, host, connected) = match known {
            Some((group, host, connected)) => (Some(group), host, connected),
            None => (None, None, false),
        };
        json!({
            "agent": row.agent.to_string(),
            "group": group,
            "host": host,
            "connected": connected,
            "id": row.id,
            "kind": row.source.origin.name(),
            "format": own.map(|d| d.format),
            "paths": own.map(|d| &d.paths),
            "labels": own.map(|d| &d.labels),
            "state": row.source.state.name(),
            "generation": row.source.generation,
            "since_ms": row.source.since_ns / 1_000_000,
            "lag_bytes": row.lag_bytes,
        })
    };
    Ok(json!({
        "sources": rows.iter().map(row).collect::<Vec<_>>(),
        "total": total,
        "left_out": left_out,
    }))
}

/// How a source came where it is, the newest first.
pub(super) fn history(api: &Api, asked: &Asked<'_>, limit: usize) -> Result<Value, Refusal> {
    let needed = |what: &str| Refusal::Mistakes(vec![format!("{what} is needed")]);
    let uid = agent(asked)?.ok_or_else(|| needed("agent"))?;
    let id = asked("id").ok_or_else(|| needed("id"))?;
    let history = api.sources.history(uid, &id, limit)?;
    let one = |m: &tailwater_control_plane::registry::Transition| {
        json!({
            "generation": m.generation, "from": m.from.map(State::name), "to": m.to.name(), "reason": m.reason,
        })
    };
    Ok(json!({
        "agent": uid.to_string(), "id": id, "history": history.iter().map(one).collect::<Vec<_>>(),
    }))
}
