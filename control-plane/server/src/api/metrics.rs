//! Metrics in Prometheus' text format.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tailwater_control_plane::model::{Origin, State as SourceState};
use tailwater_control_plane::rollout::{Alert, State};

use super::Api;
use crate::now_ms;

/// What the listener counts.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Connections that are open.
    pub connections: Arc<AtomicUsize>,
}

/// Everything there is.
pub(super) fn page(api: &Api) -> String {
    let mut out = api.registry.render();
    let counts = &api.hub.counts;
    let bus = &api.sources.counts;
    let counters = [
        (
            "tailwater_fleet_bus_published",
            "Events of sources that were published.",
            &bus.published,
        ),
        (
            "tailwater_fleet_bus_read",
            "Events of sources that were read.",
            &bus.read,
        ),
        (
            "tailwater_fleet_bus_failures",
            "Times that events could not be published, read or kept.",
            &bus.failures,
        ),
        (
            "tailwater_fleet_bus_gaps",
            "Times that events were forgotten before they were read, so that all agents were asked for everything.",
            &bus.gaps,
        ),
        (
            "tailwater_fleet_messages_received",
            "Messages of agents.",
            &counts.received,
        ),
        (
            "tailwater_fleet_messages_sent",
            "Messages to agents.",
            &counts.sent,
        ),
        (
            "tailwater_fleet_messages_refused",
            "Messages that are none, too large or of a wrong kind.",
            &counts.refused,
        ),
        (
            "tailwater_fleet_sequence_gaps",
            "Times that messages of a known agent were missing, so that everything was asked for.",
            &counts.gaps,
        ),
        (
            "tailwater_fleet_uid_conflicts",
            "Agents that got another name because theirs was taken.",
            &counts.conflicts,
        ),
        (
            "tailwater_fleet_offers",
            "Configurations that were offered to an agent.",
            &counts.offers,
        ),
        (
            "tailwater_fleet_agents_turned_away",
            "Agents that were turned away for lack of room.",
            &counts.full,
        ),
        (
            "tailwater_fleet_offers_refused",
            "Times that an agent said that it refused an offer.",
            &counts.offers_refused,
        ),
        (
            "tailwater_fleet_sources_reports",
            "Reports of what agents read that were taken, or are none.",
            &counts.reports,
        ),
        (
            "tailwater_fleet_sources_refused",
            "Reports of what agents read that are none.",
            &counts.reports_refused,
        ),
        (
            "tailwater_fleet_strangers",
            "Times that a connection wanted to speak for another agent than its certificate is of, or for one whose \
             certificate was revoked.",
            &counts.strangers,
        ),
        (
            "tailwater_control_restarts",
            "Agents that were told to begin anew.",
            &counts.restarts,
        ),
    ];
    let issued = api.authority.as_ref().map(|a| &a.counts);
    let certificates = issued.map(|issued| {
        [
            (
                "tailwater_fleet_certificates_issued",
                "Certificates that were issued to agents.",
                &issued.issued,
            ),
            (
                "tailwater_fleet_certificates_refused",
                "Requests for a certificate that were refused.",
                &issued.refused,
            ),
        ]
    });
    for (name, help, counter) in counters
        .into_iter()
        .chain(certificates.into_iter().flatten())
    {
        let value = counter.load(Ordering::Relaxed);
        let _ = writeln!(
            out,
            "# HELP {name}_total {help}\n# TYPE {name}_total counter\n{name}_total {value}"
        );
    }
    gauge(
        &mut out,
        "tailwater_fleet_leader",
        "1 while this control plane leads; of those over one database one does.",
        &[(String::new(), u64::from(api.leader.leads()))],
    );
    told(api, &mut out);
    let connections = api.gauges.connections.load(Ordering::Relaxed);
    gauge(
        &mut out,
        "tailwater_fleet_connections",
        "Connections that are open, of agents and people.",
        &[(String::new(), connections as u64)],
    );
    let waiting = api.authority.as_ref().map(|a| a.waiting() as u64);
    if let Some(waiting) = waiting {
        gauge(
            &mut out,
            "tailwater_fleet_certificates_waiting",
            "Requests for a certificate that wait for somebody.",
            &[(String::new(), waiting)],
        );
    }
    let now = now_ms();
    let mut connected = std::collections::BTreeMap::<String, (u64, u64)>::new();
    api.hub.each(|_, agent| {
        let group = connected.entry(agent.group.clone()).or_default();
        match agent.is_connected(now) {
            true => group.0 += 1,
            false => group.1 += 1,
        }
    });
    let by_state = connected.iter().flat_map(|(group, (there, away))| {
        let label = |state| format!("{{group=\"{group}\",state=\"{state}\"}}");
        [(label("connected"), *there), (label("away"), *away)]
    });
    let by_state: Vec<_> = by_state.collect();
    gauge(
        &mut out,
        "tailwater_fleet_agents",
        "Agents by group and whether they are connected.",
        &by_state,
    );
    let sources = api.sources.by_state();
    let of_kind = |((kind, state), count): (&(Origin, SourceState), &u64)| {
        let (kind, state) = (kind.name(), state.name());
        (format!("{{kind=\"{kind}\",state=\"{state}\"}}"), *count)
    };
    gauge(
        &mut out,
        "tailwater_fleet_sources",
        "Sources of all agents by kind and state.",
        &sources.iter().map(of_kind).collect::<Vec<_>>(),
    );
    let states: Vec<State> = {
        let names = api.groups.names();
        names
            .iter()
            .filter_map(|g| api.groups.state(g).ok().flatten())
            .collect()
    };
    let of = |value: &dyn Fn(&State) -> u64| -> Vec<(String, u64)> {
        states
            .iter()
            .map(|s| (format!("{{group=\"{}\"}}", s.group), value(s)))
            .collect()
    };
    gauge(
        &mut out,
        "tailwater_rollout_generation",
        "Promotions so far.",
        &of(&|s| s.good.number),
    );
    gauge(
        &mut out,
        "tailwater_rollout_active",
        "1 while something is rolled out or taken back.",
        &of(&|s| u64::from(s.candidate.is_some())),
    );
    gauge(
        &mut out,
        "tailwater_rollout_paused",
        "1 while a rollout waits for somebody.",
        &of(&|s| u64::from(s.candidate.as_ref().is_some_and(|c| c.paused.is_some()))),
    );
    gauge(
        &mut out,
        "tailwater_rollout_frozen",
        "1 while too many rollbacks keep the group from rolling out.",
        &of(&|s| u64::from(s.frozen)),
    );
    gauge(
        &mut out,
        "tailwater_rollout_quarantined",
        "Configurations that are never offered again.",
        &of(&|s| s.quarantine.len() as u64),
    );
    gauge(
        &mut out,
        "tailwater_control_ailing_agents",
        "Agents that are not healthy, or do not run what they should.",
        &of(&|s| s.ailing.len() as u64),
    );
    let alerts = states.iter().flat_map(|s| {
        let fires = |alert: Alert| {
            let labels = format!("{{group=\"{}\",alert=\"{}\"}}", s.group, alert.name());
            (labels, u64::from(s.firing.contains_key(&alert)))
        };
        Alert::ALL.map(fires)
    });
    gauge(
        &mut out,
        "tailwater_control_alerts",
        "1 while people are told of it.",
        &alerts.collect::<Vec<_>>(),
    );
    gauge(
        &mut out,
        "tailwater_rollout_isolated_agents",
        "Agents that did not come back from a candidate.",
        &of(&|s| s.isolated.len() as u64),
    );
    out
}

/// Notifications, dry runs, and queries for sample lines.
fn told(api: &Api, out: &mut String) {
    let label = |name: &str, value: &str| format!("{{{name}=\"{value}\"}}");
    let told = api.notifier.counts().into_iter();
    let told: Vec<_> = told
        .flat_map(|(kind, sent, failed)| {
            let labels = |result| format!("{{receiver=\"{}\",result=\"{result}\"}}", kind.name());
            [(labels("sent"), sent), (labels("failed"), failed)]
        })
        .collect();
    counter(
        out,
        "tailwater_control_notifications",
        "Messages to those who are told what the matter is.",
        &told,
    );
    let load = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    let counts = &api.hub.counts;
    let runs = [
        ("accepted", &counts.dry_runs_accepted),
        ("refused", &counts.dry_runs_refused),
        ("silent", &counts.dry_runs_silent),
    ];
    counter(
        out,
        "tailwater_control_dry_runs",
        "Times that an agent was asked whether it would take a pipeline.",
        &runs.map(|(result, n)| (label("result", result), load(n))),
    );
    if let Some(finder) = &api.finder {
        let queries = [("answered", &finder.answered), ("failed", &finder.failed)];
        counter(
            out,
            "tailwater_control_probe_queries",
            "Queries for sample lines at the destination.",
            &queries.map(|(result, n)| (label("result", result), load(n))),
        );
    }
}

fn counter(out: &mut String, name: &str, help: &str, series: &[(String, u64)]) {
    let _ = writeln!(
        out,
        "# HELP {name}_total {help}\n# TYPE {name}_total counter"
    );
    for (labels, value) in series {
        let _ = writeln!(out, "{name}_total{labels} {value}");
    }
}

fn gauge(out: &mut String, name: &str, help: &str, series: &[(String, u64)]) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
    for (labels, value) in series {
        let _ = writeln!(out, "{name}{labels} {value}");
    }
}
