//! Health means progress: not that the process runs, but that what is waiting moves.
//!
//! Every component reports a [`State`], raises and clears alarms by name, and says when there is
//! work and when some of it was done. A [`HealthReport`] answers three different questions:
//! `running` (the pipelines are up; what the collector's health check means), `ready` (and
//! everything makes progress) and `live` (a restart would not help). A destination that is down
//! makes an agent not ready; it never makes it not live, because a restart mends nothing there.
//!
//! Times are nanoseconds of one monotonic clock of the caller's choice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use crate::json_text::{json_string, push_json_string};
use crate::time_text::{go_duration, rfc3339_nano};

/// Alarms one component can have at a time; more are counted, not listed.
const ALARMS_MAX: usize = 64;
/// Go's zero time, what the collector answers before it is up.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// What a component says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Not started yet.
    #[default]
    Starting,
    /// Works.
    Ok,
    /// Does not work now and tries again by itself.
    Recoverable {
        /// What is wrong.
        reason: String,
    },
    /// Does not work and will not without a change of the configuration or its surroundings.
    Permanent {
        /// What is wrong.
        reason: String,
    },
    /// Stops on request.
    Stopping,
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ok => "ok",
            State::Recoverable { .. } => "recoverable",
            State::Permanent { .. } => "permanent",
            State::Stopping => "stopping",
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            State::Recoverable { reason } | State::Permanent { reason } => Some(reason),
            _ => None,
        }
    }
}

/// How a component's progress is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Waiting work without any progress for this long is a reason; 0 = never.
    pub stalled_after_ns: u64,
    /// Whether a restart would help: true for the agent's own threads, false for what depends on
    /// the outside.
    pub restart_helps: bool,
}

impl Watch {
    /// Something that depends on the outside, such as an exporter.
    pub fn outside(stalled_after_ns: u64) -> Watch {
        Watch {
            stalled_after_ns,
            restart_helps: false,
        }
    }

    /// A thread of the agent that must never hang.
    pub fn thread(stalled_after_ns: u64) -> Watch {
        Watch {
            stalled_after_ns,
            restart_helps: true,
        }
    }
}

#[derive(Debug)]
struct Alarm {
    reason: String,
    since_ns: u64,
}

#[derive(Debug)]
struct Told {
    state: State,
    since_ns: u64,
    alarms: BTreeMap<String, Alarm>,
    alarms_unlisted: u64,
}

/// The health of one component. It leaves the report when the last handle is dropped.
#[derive(Debug)]
pub struct ComponentHealth {
    name: String,
    watch: Watch,
    told: Mutex<Told>,
    /// When the stall clock began to run; 0 = nothing is waiting.
    waiting_since_ns: AtomicU64,
}

impl ComponentHealth {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Reports a state. Repeating the same kind of state keeps the time it began.
    pub fn set(&self, state: State, now_ns: u64) {
        let mut told = self.told();
        if told.state.name() != state.name() {
            told.since_ns = now_ns;
        }
        told.state = state;
    }

    /// Raises the alarm `name`, or renews its reason.
    pub fn raise(&self, name: &str, reason: impl Into<String>, now_ns: u64) {
        let mut told = self.told();
        let full = told.alarms.len() >= ALARMS_MAX;
        match told.alarms.get_mut(name) {
            Some(alarm) => alarm.reason = reason.into(),
            None if full => told.alarms_unlisted += 1,
            None => {
                let alarm = Alarm {
                    reason: reason.into(),
                    since_ns: now_ns,
                };
                told.alarms.insert(name.to_owned(), alarm);
            }
        }
    }

    /// Clears the alarm `name`.
    pub fn clear(&self, name: &str) {
        let mut told = self.told();
        told.alarms.remove(name);
        if told.alarms.is_empty() {
            told.alarms_unlisted = 0;
        }
    }

    /// Work is waiting: the stall clock runs from now, unless it runs already. Lock-free.
    pub fn work_waiting(&self, now_ns: u64) {
        let now = now_ns.max(1);
        // Failing means that it runs already.
        let _ =
            self.waiting_since_ns
                .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Some of the waiting work was done and more is waiting: the stall clock starts anew.
    pub fn progressed(&self, now_ns: u64) {
        self.waiting_since_ns
            .store(now_ns.max(1), Ordering::Relaxed);
    }

    /// Nothing is waiting: the stall clock stops.
    pub fn idle(&self) {
        self.waiting_since_ns.store(0, Ordering::Relaxed);
    }

    /// How long work has been waiting without progress; `None` when nothing is waiting.
    pub fn waiting_ns(&self, now_ns: u64) -> Option<u64> {
        let since = self.waiting_since_ns.load(Ordering::Relaxed);
        (since != 0).then(|| now_ns.saturating_sub(since))
    }

    fn stalled_ns(&self, now_ns: u64) -> Option<u64> {
        let limit = self.watch.stalled_after_ns;
        self.waiting_ns(now_ns)
            .filter(|waiting| limit > 0 && *waiting > limit)
    }

    fn reasons(&self, now_ns: u64, out: &mut Vec<Reason>) {
        let mut add = |text: String, for_ns: u64, restart_helps: bool| {
            out.push(Reason {
                component: self.name.clone(),
                text,
                for_ns,
                restart_helps,
            });
        };
        if let Some(stalled) = self.stalled_ns(now_ns) {
            let text = "work is waiting and none of it is done".to_owned();
            add(text, stalled, self.watch.restart_helps);
        }
        let told = self.told();
        if let Some(reason) = told.state.reason() {
            add(
                reason.to_owned(),
                now_ns.saturating_sub(told.since_ns),
                false,
            );
        }
        for (name, alarm) in &told.alarms {
            let text = format!("{name}: {}", alarm.reason);
            add(text, now_ns.saturating_sub(alarm.since_ns), false);
        }
        if told.alarms_unlisted > 0 {
            add(
                format!("and {} more alarms", told.alarms_unlisted),
                0,
                false,
            );
        }
    }
}

/// Why the agent is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The component, as `kind "id"`.
    pub component: String,
    /// What is wrong.
    pub text: String,
    /// For how long.
    pub for_ns: u64,
    /// Whether a restart would help.
    pub restart_helps: bool,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whole seconds: more digits only make the text change all the time.
        let seconds = self.for_ns / 1_000_000_000;
        write!(f, "{}: {} for {seconds} s", self.component, self.text)
    }
}

/// One component in a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentReport {
    /// The component, as `kind "id"`.
    pub component: String,
    /// What it says.
    pub state: State,
    /// How long work has been waiting without progress.
    pub waiting_ns: Option<u64>,
}

/// The health of the agent at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    /// The pipelines are up and not stopping: what the collector's health check means.
    pub running: bool,
    /// The pipelines are up and everything makes progress.
    pub ready: bool,
    /// False only for what a restart would mend.
    pub live: bool,
    /// Why it is not ready; empty otherwise.
    pub reasons: Vec<Reason>,
    /// Every component, sorted by name.
    pub components: Vec<ComponentReport>,
    up_since_unix_ns: i64,
    up_for_ns: u64,
}

impl HealthReport {
    /// The body the collector's `health_check` extension answers with, for `available` or not;
    /// the reasons follow as one more key when there are any.
    pub fn collector_body(&self, available: bool) -> String {
        let (status, since, uptime) = match (available, self.running) {
            (true, _) => ("Server available", None, go_duration(self.up_for_ns)),
            (false, true) => ("Server not available", None, go_duration(self.up_for_ns)),
            (false, false) => ("Server not available", Some(NEVER), String::new()),
        };
        let since = since.map_or_else(|| rfc3339_nano(self.up_since_unix_ns), str::to_owned);
        let mut body =
            format!("{{\"status\":\"{status}\",\"upSince\":\"{since}\",\"uptime\":\"{uptime}\"");
        if !self.reasons.is_empty() {
            body.push_str(",\"reasons\":[");
            self.push_reasons(&mut body);
            body.push(']');
        }
        body.push('}');
        body
    }

    /// Everything, as JSON, for the status page.
    pub fn to_json(&self) -> String {
        let mut out = format!(
            "{{\"running\":{},\"ready\":{},\"live\":{},\"uptime_seconds\":{},\"reasons\":[",
            self.running,
            self.ready,
            self.live,
            self.up_for_ns / 1_000_000_000
        );
        self.push_reasons(&mut out);
        out.push_str("],\"components\":[");
        for (i, component) in self.components.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            out.push_str("{\"component\":");
            push_json_string(&mut out, &component.component);
            out.push_str(&format!(",\"state\":\"{}\"", component.state.name()));
            if let Some(reason) = component.state.reason() {
                out.push_str(&format!(",\"reason\":{}", json_string(reason)));
            }
            if let Some(waiting) = component.waiting_ns {
                out.push_str(&format!(",\"waiting_seconds\":{}", waiting / 1_000_000_000));
            }
            out.push('}');
        }
        out.push_str("]}");
        out
    }

    fn push_reasons(&self, out: &mut String) {
        for (i, reason) in self.reasons.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            push_json_string(out, &reason.to_string());
        }
    }
}

/// All components of the agent. Cheap to share; locked only to add a component and to report.
#[derive(Debug)]
pub struct HealthRegistry {
    components: Mutex<Vec<Weak<ComponentHealth>>>,
    running: AtomicBool,
    up: Mutex<(i64, u64)>,
}

impl Default for HealthRegistry {
    fn default() -> Self {
        HealthRegistry::new()
    }
}

impl HealthRegistry {
    /// No components, pipelines not up.
    pub fn new() -> HealthRegistry {
        HealthRegistry {
            components: Mutex::default(),
            running: AtomicBool::new(false),
            up: Mutex::default(),
        }
    }

    /// Adds a component of kind `kind` (`receiver`, `exporter`, `shard`, ...) and id `id`.
    pub fn component(
        &self,
        kind: &str,
        id: &str,
        watch: Watch,
        now_ns: u64,
    ) -> Arc<ComponentHealth> {
        let component = Arc::new(ComponentHealth {
            name: format!("{kind} \"{id}\""),
            watch,
            told: Mutex::new(Told {
                state: State::Starting,
                since_ns: now_ns,
                alarms: BTreeMap::new(),
                alarms_unlisted: 0,
            }),
            waiting_since_ns: AtomicU64::new(0),
        });
        let mut components = self.components.lock().unwrap_or_else(|e| e.into_inner());
        components.retain(|weak| weak.strong_count() > 0);
        components.push(Arc::downgrade(&component));
        component
    }

    /// The pipelines are up. `unix_ns` is the wall time, for the report.
    pub fn pipelines_up(&self, unix_ns: i64, now_ns: u64) {
        *self.up.lock().unwrap_or_else(|e| e.into_inner()) = (unix_ns, now_ns);
        self.running.store(true, Ordering::Release);
    }

    /// The pipelines begin to stop.
    pub fn pipelines_stopping(&self) {
        self.running.store(false, Ordering::Release);
    }

    /// The health at `now_ns`.
    pub fn report(&self, now_ns: u64) -> HealthReport {
        let mut living: Vec<Arc<ComponentHealth>> = {
            let components = self.components.lock().unwrap_or_else(|e| e.into_inner());
            components.iter().filter_map(Weak::upgrade).collect()
        };
        living.sort_by(|a, b| a.name.cmp(&b.name));
        let mut reasons = Vec::new();
        let mut components = Vec::with_capacity(living.len());
        for component in living {
            component.reasons(now_ns, &mut reasons);
            components.push(ComponentReport {
                component: component.name.clone(),
                state: component.told().state.clone(),
                waiting_ns: component.waiting_ns(now_ns),
            });
        }
        let running = self.running.load(Ordering::Acquire);
        let (up_since_unix_ns, up_ns) = *self.up.lock().unwrap_or_else(|e| e.into_inner());
        HealthReport {
            running,
            ready: running && reasons.is_empty(),
            live: !reasons.iter().any(|r| r.restart_helps),
            reasons,
            components,
            up_since_unix_ns,
            up_for_ns: if running {
                now_ns.saturating_sub(up_ns)
            } else {
                0
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn texts(report: &HealthReport) -> Vec<String> {
        report.reasons.iter().map(Reason::to_string).collect()
    }

    #[test]
    fn an_exporter_that_gets_nothing_accepted_makes_the_agent_not_ready_but_live() {
        let health = HealthRegistry::new();
        let loki = health.component("exporter", "loki", Watch::outside(30 * SECOND), 0);
        loki.set(State::Ok, 0);
        assert!(!health.report(0).ready, "the pipelines are not up yet");
        health.pipelines_up(0, 0);
        assert!(
            health.report(1000 * SECOND).ready,
            "nothing waits, so nothing is stuck"
        );
        loki.work_waiting(1000 * SECOND);
        loki.work_waiting(1020 * SECOND);
        assert!(health.report(1030 * SECOND).ready);
        let report = health.report(1045 * SECOND);
        assert!(!report.ready && report.live && report.running);
        let want = "exporter \"loki\": work is waiting and none of it is done for 45 s";
        assert_eq!(texts(&report), [want]);
        loki.progressed(1046 * SECOND);
        assert!(health.report(1050 * SECOND).ready);
        assert!(
            !health.report(1080 * SECOND).ready,
            "more was waiting after the progress"
        );
        loki.idle();
        assert!(health.report(9000 * SECOND).ready);
    }

    #[test]
    fn only_a_hanging_thread_asks_for_a_restart() {
        let health = HealthRegistry::new();
        health.pipelines_up(0, 0);
        let shard = health.component("shard", "0", Watch::thread(10 * SECOND), 0);
        let file = health.component("receiver", "filelog", Watch::outside(0), 0);
        file.raise("stuck_file", "/var/log/a cannot be read", 5 * SECOND);
        file.set(
            State::Permanent {
                reason: "no such directory".into(),
            },
            5 * SECOND,
        );
        file.set(
            State::Permanent {
                reason: "still none".into(),
            },
            9 * SECOND,
        );
        let report = health.report(20 * SECOND);
        assert!(report.live && !report.ready);
        assert_eq!(
            texts(&report),
            [
                "receiver \"filelog\": still none for 15 s",
                "receiver \"filelog\": stuck_file: /var/log/a cannot be read for 15 s",
            ]
        );
        shard.work_waiting(20 * SECOND);
        assert!(!health.report(31 * SECOND).live);
        file.clear("stuck_file");
        file.set(State::Ok, 32 * SECOND);
        shard.idle();
        assert!(health.report(32 * SECOND).ready);
        file.set(
            State::Permanent {
                reason: "gone".into(),
            },
            33 * SECOND,
        );
        drop(file);
        assert!(
            health.report(34 * SECOND).ready,
            "a removed component is no reason"
        );
    }

    #[test]
    fn alarms_are_bounded() {
        let health = HealthRegistry::new();
        let file = health.component("receiver", "filelog", Watch::outside(0), 0);
        for i in 0..100 {
            file.raise(&format!("stuck_file {i:03}"), "x", 0);
        }
        let report = health.report(0);
        assert_eq!(report.reasons.len(), ALARMS_MAX + 1);
        assert!(
            report.reasons[ALARMS_MAX].text.contains("36 more"),
            "{:?}",
            report.reasons
        );
    }

    #[test]
    fn the_body_is_the_collectors() {
        let health = HealthRegistry::new();
        let body = |ns, available| health.report(ns).collector_body(available);
        let never = "{\"status\":\"Server not available\",\
                     \"upSince\":\"0001-01-01T00:00:00Z\",\"uptime\":\"\"}";
        assert_eq!(body(5, false), never);
        health.pipelines_up(1_709_251_199_500_000_000, SECOND);
        let up = "{\"status\":\"Server available\",\"upSince\":\"2024-02-29T23:59:59.5Z\",\
                  \"uptime\":\"1m30s\"}";
        assert_eq!(body(91 * SECOND, true), up);
        health.pipelines_stopping();
        assert_eq!(body(91 * SECOND, false), never);
    }

    #[test]
    fn both_bodies_are_json_whatever_the_reasons_hold() {
        let health = HealthRegistry::new();
        let c = health.component("exporter", "loki/\"x\"", Watch::outside(1), 0);
        c.set(
            State::Recoverable {
                reason: "said \"no\"\n\u{1b}".into(),
            },
            0,
        );
        c.work_waiting(1);
        let report = health.report(3 * SECOND);
        for text in [report.to_json(), report.collector_body(false)] {
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["reasons"].as_array().map(Vec::len), Some(2), "{text}");
        }
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["components"][0]["state"], "recoverable");
        assert_eq!(json["components"][0]["waiting_seconds"], 2);
    }
}
