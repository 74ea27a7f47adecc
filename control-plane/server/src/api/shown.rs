//! Agents and rollouts as JSON.

use serde_json::{Value, json};
use tailwater_control_plane::model::Digest;
use tailwater_control_plane::rollout::State;
use tailwater_control_plane::rollout::model::Phase;
use tailwater_control_plane::store::{Applied, CertificateRecord, Release};
use tailwater_opamp::InstanceUid;

use super::Api;
use crate::authority::Waiting;
use crate::groups::{Refusal, fallback};
use crate::hub::Agent;
use crate::now_ms;

/// Larger files of an effective configuration are cut, characters.
const FILE_CHARS_MAX: usize = 256 << 10;

/// What runs, for people: a digest, or that it is the agent's own configuration alone.
fn named(digest: &Digest) -> Value {
    match *digest == fallback() {
        true => json!("own"),
        false => json!(digest),
    }
}

fn summary(uid: InstanceUid, agent: &Agent, now: u64) -> Value {
    let attribute = |key: &str| {
        let peer = &agent.peer;
        peer.identifying
            .get(key)
            .or_else(|| peer.others.get(key))
            .cloned()
    };
    let runs = agent.ran.back().and_then(|r| r.digest.as_ref()).map(named);
    let report = agent.report(&|_| None, None);
    json!({
        "uid": uid.to_string(),
        "group": agent.group,
        "connected": agent.is_connected(now),
        "seen_ms": agent.seen_ms,
        "name": attribute("service.name"),
        "version": attribute("service.version"),
        "host": attribute("host.name"),
        "configurable": agent.peer.is_configurable(),
        "enrolled": agent.is_enrolled,
        "healthy": agent.peer.health.as_ref().map(|h| h.healthy),
        "runs": runs,
        "answered": report.answered,
        "refused": report.refused,
    })
}

/// All agents, or those of a group.
pub(super) fn agents(api: &Api, group: Option<&str>) -> Value {
    let now = now_ms();
    let mut all = Vec::new();
    api.hub.each(|uid, agent| {
        if group.is_none_or(|g| g == agent.group) {
            all.push((uid.to_string(), summary(uid, agent, now)));
        }
    });
    all.sort_by(|a, b| a.0.cmp(&b.0));
    json!({"agents": all.into_iter().map(|(_, v)| v).collect::<Vec<_>>()})
}

/// One agent, with everything it said.
pub(super) fn agent(api: &Api, uid: InstanceUid) -> Option<Value> {
    let now = now_ms();
    api.hub.look(uid, |agent| {
        let mut value = summary(uid, agent, now);
        let peer = &agent.peer;
        let health = peer.health.as_ref();
        let parts = health.map(|h| {
            let part = |(name, part): &(Box<str>, tailwater_opamp::Health)| {
                let said = json!({"healthy": part.healthy, "status": part.status, "last_error": part.last_error});
                (name.to_string(), said)
            };
            h.parts.iter().map(part).collect::<serde_json::Map<_, _>>()
        });
        let cut = |bytes: &Vec<u8>| -> String {
            String::from_utf8_lossy(bytes).chars().take(FILE_CHARS_MAX).collect()
        };
        let files = peer.effective.as_ref();
        let files = files.map(|f| f.iter().map(|(n, b)| (n.clone(), json!(cut(b)))).collect::<serde_json::Map<_, _>>());
        let ran = |r: &crate::hub::Ran| json!({"since_ms": r.since_ms, "runs": r.digest.as_ref().map(named)});
        value["identifying_attributes"] = json!(peer.identifying);
        value["non_identifying_attributes"] = json!(peer.others);
        value["components"] = json!(peer.components);
        value["last_error"] = json!(health.map(|h| &h.last_error));
        value["component_health"] = json!(parts);
        value["effective_config"] = json!(files);
        value["ran"] = agent.ran.iter().map(ran).collect();
        value["counters"] = json!(agent.sample(api.finder.is_some()));
        value["can_restart"] = json!(agent.can_restart());
        value["takes_sample_lines"] = json!(agent.state.probes.is_some());
        value
    })
}

/// Certificates of agents, and requests that wait.
pub(super) fn certificates(api: &Api) -> Result<Value, Refusal> {
    let none = || Refusal::Group("certificates are not issued here".to_owned());
    let (all, waiting) = api.authority.as_ref().ok_or_else(none)?.list();
    let now = now_ms();
    let one = |c: &CertificateRecord| {
        let state = match (c.revoked_ms, c.counts(now), c.used_ms) {
            (Some(_), ..) => "revoked",
            (None, false, _) => "ended",
            (None, true, None) => "unused",
            (None, true, Some(_)) => "valid",
        };
        json!({
            "serial": c.serial, "uid": c.uid, "author": c.author, "state": state, "issued_ms": c.issued_ms,
            "ends_ms": c.ends_ms, "used_ms": c.used_ms, "revoked_ms": c.revoked_ms,
        })
    };
    let waits =
        |w: &Waiting| json!({"uid": w.uid.to_string(), "author": w.author, "since_ms": w.since_ms});
    Ok(json!({
        "certificates": all.iter().map(one).collect::<Vec<_>>(),
        "waiting": waiting.iter().map(waits).collect::<Vec<_>>(),
    }))
}

fn state(group: &str, state: Option<&State>) -> Value {
    let Some(state) = state else {
        return json!({"group": group, "phase": "idle", "good": {"generation": 0, "digest": "own"}});
    };
    let candidate = state.candidate.as_ref().map(|c| {
        json!({
            "digest": c.revision,
            "stage": c.stage,
            "offered": c.offered,
            "paused": c.paused,
        })
    });
    let (reason, repair) = match &state.phase {
        Phase::RollBack { reason, repair, .. } => (Some(&reason.text), Some(repair.name())),
        _ => (None, None),
    };
    let fires = state.firing.iter().map(|(alert, firing)| {
        json!({"alert": alert.name(), "since_ms": firing.since_ms, "text": firing.text})
    });
    json!({
        "group": group,
        "phase": state.phase.name(),
        "rollout": state.rollout,
        "good": {"generation": state.good.number, "digest": named(&state.good.digest)},
        "candidate": candidate,
        "pending": state.pending,
        "rolled_back_because": reason,
        "repair": repair,
        "alerts": fires.collect::<Vec<_>>(),
        "ailing": state.ailing,
        "restarted": state.restarted,
        "frozen": state.frozen,
        "isolated": state.isolated,
        "quarantine": state.quarantine,
    })
}

/// Where all groups are.
pub(super) fn rollouts(api: &Api) -> Result<Value, Refusal> {
    let mut all = Vec::new();
    for group in api.groups.names() {
        all.push(state(&group, api.groups.state(&group)?.as_ref()));
    }
    Ok(json!({"rollouts": all}))
}

/// Where a group is, and how it came there.
pub(super) fn rollout(api: &Api, group: &str, limit: usize) -> Result<Value, Refusal> {
    let mut value = state(group, api.groups.state(group)?.as_ref());
    let steps = api.groups.steps(group, limit)?;
    let step = |s: &tailwater_control_plane::store::StepRecord| json!({"at_ms": s.at_ms, "step": s.step, "epoch": s.epoch, "phase": s.phase, "input": s.input});
    value["steps"] = steps.iter().map(step).collect();
    let (applied, releases) = api.groups.history(group, limit)?;
    let one = |a: &Applied| {
        json!({
            "digest": a.digest, "parent": a.parent.as_ref().map(named), "cause": a.cause,
            "author": a.author, "at_ms": a.at_ms,
        })
    };
    value["applied"] = applied.iter().map(one).collect();
    let one = |r: &Release| {
        json!({
            "version": r.version, "digest": named(&r.digest), "cause": r.cause, "key": r.key,
            "signature": r.signature, "at_ms": r.at_ms,
        })
    };
    value["releases"] = releases.iter().map(one).collect();
    Ok(value)
}
