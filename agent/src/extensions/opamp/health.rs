//! Health as the protocol shows it: what the agent's own health says, which means progress.
//!
//! The connection to the control plane is no part of it: an agent that it cannot reach, or whose offers it
//! refuses, does what it is there for all the same.

use std::collections::BTreeMap;

use tailwater_opamp::proto::{ComponentHealth, Status};
use tailwater_telemetry::health::{HealthReport, State};

use super::remote::Told;

/// The part in which it is said what came of the newest remote configuration.
const REMOTE: &str = "remote_config";

/// Remembers since when each component is as it is.
#[derive(Debug)]
pub struct HealthView {
    started: u64,
    since: BTreeMap<String, (String, u64)>,
}

impl HealthView {
    /// Of an agent that was started at `started`, in Unix time.
    pub fn new(started: u64) -> HealthView {
        HealthView {
            started,
            since: BTreeMap::new(),
        }
    }

    /// What there is to show at `now`, in Unix time.
    pub fn show(
        &mut self,
        report: &HealthReport,
        told: Option<&Told>,
        now: u64,
    ) -> ComponentHealth {
        let mut seen = BTreeMap::new();
        let mut parts = BTreeMap::new();
        for component in &report.components {
            let of_it = report
                .reasons
                .iter()
                .filter(|r| r.component == component.component);
            let reasons: Vec<String> = of_it.map(ToString::to_string).collect();
            let status = status(&component.state, !reasons.is_empty());
            let name = key(&component.component);
            let health = self.part(&name, status, reasons, now, &mut seen);
            parts.insert(name, health);
        }
        if let Some(told) = told {
            let health = self.remote(told, now, &mut seen);
            parts.insert(REMOTE.to_owned(), health);
        }
        let status = match (report.running, report.ready) {
            (true, true) => "StatusOK",
            (true, false) => "StatusRecoverableError",
            (false, _) => "StatusStarting",
        };
        let reasons = report.reasons.iter().map(ToString::to_string).collect();
        let mut health = self.part("", status, reasons, now, &mut seen);
        health.healthy = report.ready;
        health.component_health_map = parts;
        self.since = seen;
        health
    }

    fn part(
        &self,
        name: &str,
        status: &str,
        reasons: Vec<String>,
        now: u64,
        seen: &mut BTreeMap<String, (String, u64)>,
    ) -> ComponentHealth {
        let known = self.since.get(name).filter(|(s, _)| s == status);
        let since = known.map_or(now, |(_, since)| *since);
        seen.insert(name.to_owned(), (status.to_owned(), since));
        ComponentHealth {
            healthy: reasons.is_empty(),
            start_time_unix_nano: self.started,
            last_error: reasons.join("; "),
            status: status.to_owned(),
            status_time_unix_nano: since,
            component_health_map: BTreeMap::new(),
        }
    }

    /// Each file of the newest remote configuration.
    fn remote(
        &self,
        told: &Told,
        now: u64,
        seen: &mut BTreeMap<String, (String, u64)>,
    ) -> ComponentHealth {
        let applied = told.status == Status::Applied as i32;
        let status = |good: bool| if good { "applied" } else { "failed" };
        let mut files = BTreeMap::new();
        let mut of_all = Vec::new();
        for (name, errors) in &told.files {
            match name {
                Some(name) => {
                    let key = format!("{REMOTE}:{name}");
                    let good = errors.is_empty();
                    // A file without a mistake is not in force if another one has some.
                    let text = if good && !applied {
                        "not applied"
                    } else {
                        status(good)
                    };
                    let health = self.part(&key, text, errors.clone(), now, seen);
                    files.insert(format!("file:{name}"), health);
                }
                None => of_all.extend(errors.iter().cloned()),
            }
        }
        let mut health = self.part(REMOTE, status(applied), of_all, now, seen);
        health.healthy = applied;
        health.component_health_map = files;
        health
    }
}

/// The collector's name of a status.
fn status(state: &State, in_trouble: bool) -> &'static str {
    match state {
        State::Permanent { .. } => "StatusPermanentError",
        State::Stopping => "StatusStopping",
        _ if in_trouble => "StatusRecoverableError",
        State::Recoverable { .. } => "StatusRecoverableError",
        State::Starting => "StatusStarting",
        State::Ok => "StatusOK",
    }
}

/// `kind "id"` as `kind:id`.
fn key(component: &str) -> String {
    match component.split_once(" \"") {
        Some((kind, id)) => format!("{kind}:{}", id.trim_end_matches('"')),
        None => component.to_owned(),
    }
}

/// Whether two differ in what cannot wait: more than in texts, which may count seconds.
pub fn differs(a: &ComponentHealth, b: &ComponentHealth) -> bool {
    let (parts, others) = (&a.component_health_map, &b.component_health_map);
    a.healthy != b.healthy
        || a.status != b.status
        || parts.len() != others.len()
        || parts
            .iter()
            .any(|(k, part)| others.get(k).is_none_or(|other| differs(part, other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_telemetry::health::{HealthRegistry, Watch};

    #[test]
    fn health_is_that_of_the_pipelines_and_texts_can_wait() {
        let registry = HealthRegistry::new();
        let mut view = HealthView::new(5);
        let loki = registry.component("exporter", "loki", Watch::outside(0), 0);
        loki.set(State::Ok, 0);
        let starting = view.show(&registry.report(0), None, 10);
        assert!(!starting.healthy && starting.status == "StatusStarting");
        registry.pipelines_up(0, 0);
        let well = view.show(&registry.report(0), None, 20);
        assert!(well.healthy && well.component_health_map["exporter:loki"].healthy);
        assert_eq!(
            (well.start_time_unix_nano, well.status_time_unix_nano),
            (5, 20)
        );
        let same = view.show(&registry.report(0), None, 30);
        assert_eq!(same, well, "nothing changed");
        loki.raise("stalled", "nothing was accepted", 0);
        let ill = view.show(&registry.report(1_000_000_000), None, 40);
        let part = &ill.component_health_map["exporter:loki"];
        assert!(!ill.healthy && !part.healthy && ill.last_error.contains("nothing was accepted"));
        assert_eq!(
            (part.status.as_str(), part.status_time_unix_nano),
            ("StatusRecoverableError", 40)
        );
        assert!(differs(&well, &ill));
        let later = view.show(&registry.report(9_000_000_000), None, 50);
        assert!(later != ill && !differs(&later, &ill));
    }

    /// Guarantee: a configuration that was refused is said file by file, and makes nobody ill.
    #[test]
    fn what_came_of_each_file_is_a_part_of_health() {
        let registry = HealthRegistry::new();
        registry.pipelines_up(0, 0);
        let mut view = HealthView::new(0);
        let mut told = Told {
            hash: vec![1],
            status: Status::Failed as i32,
            files: vec![
                (Some("a.yaml".into()), vec!["remote a.yaml:1:1: no".into()]),
                (Some("b.yaml".into()), Vec::new()),
            ],
            changes: Vec::new(),
        };
        let health = view.show(&registry.report(0), Some(&told), 1);
        let remote = &health.component_health_map["remote_config"];
        assert!(health.healthy && !remote.healthy);
        let files = &remote.component_health_map;
        assert!(!files["file:a.yaml"].healthy && files["file:b.yaml"].healthy);
        assert_eq!(files["file:b.yaml"].status, "not applied");
        told.status = Status::Applied as i32;
        told.files.iter_mut().for_each(|(_, e)| e.clear());
        let health = view.show(&registry.report(0), Some(&told), 2);
        assert!(health.component_health_map["remote_config"].healthy);
    }
}
