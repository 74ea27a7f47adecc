//! `health_check`: answers whether the agent is up and makes progress, with reasons.
//!
//! As the collector's: 200 with `"status":"Server available"` once the pipelines run, 503 before
//! and while stopping. Beyond it, "available" means progress: a destination that accepts nothing
//! while records wait, a stuck file or a checkpoint that cannot be written answer 503 with the
//! reasons in the body (`health_means_progress: false` gives the collector's answer).
//! `<path>/live` answers whether a restart would help, for liveness probes.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pipeline::clock::Clock;
use tailwater_pipeline::factory::{ExtensionFactory, ExtensionSettings, NodeCx};
use tailwater_pipeline::listeners::Listeners;
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{BuildError, ExtensionNode};
use tailwater_telemetry::health::HealthRegistry;

use crate::serve::{HttpServer, Page, Pages, serve};

/// The factory of `health_check`.
pub fn factory() -> ExtensionFactory {
    ExtensionFactory {
        kind: "health_check",
        about: "answers whether the agent runs and makes progress",
        signals: &[],
        decode: |node, path, errors| {
            let settings = decode_settings(node, path, errors)?;
            Some(Box::new(settings) as Box<dyn ExtensionSettings>)
        },
    }
}

#[derive(Clone, Debug)]
struct Settings {
    endpoint: String,
    path: String,
    healthy: Option<String>,
    unhealthy: Option<String>,
    progress: bool,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    ("endpoint", "Where it listens: `host:port`."),
    (
        "path",
        "Answers 200 or 503. `<path>/live` answers whether a restart would help.",
    ),
    ("response_body", "Texts in place of the usual ones."),
    ("response_body::healthy", "With 200."),
    ("response_body::unhealthy", "With 503."),
    (
        "health_means_progress",
        "own: False gives the collector's answer, which says only that pipelines run.",
    ),
    (
        "check_collector_pipeline",
        "Health means progress in any case.",
    ),
    (
        "check_collector_pipeline::enabled",
        "True is accepted with a warning.",
    ),
    (
        "check_collector_pipeline::interval",
        "Has nothing to act on.",
    ),
    (
        "check_collector_pipeline::exporter_failure_threshold",
        "Has nothing to act on.",
    ),
];

fn decode_settings(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Settings> {
    let mut s = Section::new(node, path, errors);
    s.describe(OPTIONS);
    let endpoint = s.string("endpoint", "localhost:13133");
    let path = s.string("path", "/");
    let body = s.section("response_body", |s| {
        (s.string_optional("healthy"), s.string_optional("unhealthy"))
    });
    let progress = s.bool("health_means_progress", true);
    s.refuse(
        "tls",
        "the health endpoint speaks plain HTTP; put it on a loopback address",
    );
    let check = s.section("check_collector_pipeline", |c| {
        c.duration("interval", Duration::from_secs(300));
        c.u64("exporter_failure_threshold", 5, ..);
        c.bool("enabled", false)
    });
    if check {
        let why = "has no effect: health means progress in any case (health_means_progress)";
        s.warn("check_collector_pipeline", why);
    }
    if !path.starts_with('/') {
        s.invalid("path", "must start with /");
    }
    if !endpoint.contains(':') {
        s.invalid("endpoint", "must be host:port");
    }
    s.finish();
    let (healthy, unhealthy) = body;
    Some(Settings {
        endpoint,
        path,
        healthy,
        unhealthy,
        progress,
    })
}

impl ExtensionSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExtensionNode>, BuildError> {
        Ok(Box::new(HealthCheck {
            settings: self.clone(),
            id: cx.id.clone(),
            health: cx.health.clone(),
            clock: cx.clock.clone(),
            runtime: cx.runtime.clone(),
            listeners: cx.listeners.clone(),
            server: None,
        }))
    }

    /// It serves what is in memory.
    fn reach(&self, _reach: &mut Reach) {}
}

struct HealthCheck {
    settings: Settings,
    id: Arc<str>,
    health: Arc<HealthRegistry>,
    clock: Arc<dyn Clock>,
    runtime: tokio::runtime::Handle,
    listeners: Arc<Listeners>,
    server: Option<HttpServer>,
}

/// What is answered at which path.
fn pages(settings: &Settings, health: &Arc<HealthRegistry>, clock: &Arc<dyn Clock>) -> Pages {
    let (s, health, clock) = (settings.clone(), health.clone(), clock.clone());
    Arc::new(move |path| {
        let report = health.report(clock.now().0);
        let live = format!("{}/live", s.path.trim_end_matches('/'));
        let available = if path == live {
            report.live
        } else if path == s.path || path.strip_suffix('/') == Some(&s.path) {
            report.running && (report.ready || !s.progress)
        } else {
            return None;
        };
        let custom = if available { &s.healthy } else { &s.unhealthy };
        let body = custom
            .clone()
            .unwrap_or_else(|| report.collector_body(available));
        let status = if available {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        Some(Page {
            status,
            content_type: "application/json",
            body,
        })
    })
}

impl ExtensionNode for HealthCheck {
    fn start(&mut self) -> Result<(), BuildError> {
        let endpoint = &self.settings.endpoint;
        let pages = pages(&self.settings, &self.health, &self.clock);
        let server = serve(endpoint, pages, &self.listeners, &self.runtime).map_err(|e| {
            let text = format!("cannot listen on {endpoint}: {e}; choose another `endpoint`");
            BuildError::new(format!("extension {}", self.id), text)
        })?;
        tracing::info!(address = %server.addr, "health check listens");
        self.server = Some(server);
        Ok(())
    }

    fn stop(&mut self) {
        self.server = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_config::parse;
    use tailwater_pipeline::clock::SimClock;
    use tailwater_telemetry::health::{State, Watch};

    fn settings(yaml: &str) -> Result<Settings, String> {
        let node = parse(yaml, "h.yaml").unwrap();
        let mut errors = Errors::new();
        let decoded = decode_settings(&node, &"extensions::health_check".into(), &mut errors);
        if errors.is_empty() {
            decoded.ok_or_else(|| "neither settings nor an error".to_owned())
        } else {
            Err(errors.to_string())
        }
    }

    struct Rig {
        pages: Pages,
        health: Arc<HealthRegistry>,
        clock: Arc<SimClock>,
    }

    impl Rig {
        fn new(yaml: &str) -> Rig {
            let health = Arc::new(HealthRegistry::new());
            let clock = Arc::new(SimClock::default());
            let shared: Arc<dyn Clock> = clock.clone();
            let pages = pages(&settings(yaml).unwrap(), &health, &shared);
            Rig {
                pages,
                health,
                clock,
            }
        }

        fn answer(&self, path: &str) -> Option<(u16, String)> {
            (self.pages)(path).map(|page| (page.status.as_u16(), page.body))
        }
    }

    #[test]
    fn the_answer_follows_the_pipelines_and_their_progress() {
        let rig = Rig::new("");
        let status = |path| rig.answer(path).map(|(status, _)| status);
        assert_eq!(status("/"), Some(503), "not up yet");
        rig.health.pipelines_up(0, 0);
        assert_eq!(status("/"), Some(200));
        assert_eq!(status("/other"), None);
        let loki = rig
            .health
            .component("exporter", "loki", Watch::outside(0), 0);
        loki.set(State::Ok, 0);
        loki.raise("stalled", "nothing was accepted for 21 s", 0);
        let (code, body) = rig.answer("/").unwrap();
        assert_eq!(code, 503);
        let reason = r#""reasons":["exporter \"loki\": stalled: nothing was accepted for 21 s"#;
        assert!(body.contains(reason), "{body}");
        assert_eq!(status("/live"), Some(200), "a restart would not help");
        loki.clear("stalled");
        assert_eq!(status("/"), Some(200));
        rig.health.pipelines_stopping();
        assert_eq!(status("/"), Some(503));
    }

    #[test]
    fn a_thread_that_hangs_fails_the_page_for_liveness() {
        let rig = Rig::new("");
        rig.health.pipelines_up(0, 0);
        let shard = rig.health.component("shard", "0", Watch::thread(1_000), 0);
        shard.set(State::Ok, 0);
        shard.work_waiting(0);
        assert_eq!(rig.answer("/live").map(|a| a.0), Some(200));
        rig.clock.advance(Duration::from_secs(1));
        assert_eq!(rig.answer("/live").map(|a| a.0), Some(503));
        assert_eq!(rig.answer("/").map(|a| a.0), Some(503));
        shard.idle();
        assert_eq!(rig.answer("/live").map(|a| a.0), Some(200));
    }

    #[test]
    fn each_option_has_its_effect() {
        let rig = Rig::new("path: /health/status");
        assert_eq!(rig.answer("/health/status").map(|a| a.0), Some(503));
        assert_eq!(rig.answer("/health/status/").map(|a| a.0), Some(503));
        assert_eq!(rig.answer("/health/status/live").map(|a| a.0), Some(200));
        assert_eq!(rig.answer("/"), None);

        let rig = Rig::new("response_body: {healthy: fine, unhealthy: not fine}");
        assert_eq!(rig.answer("/"), Some((503, "not fine".to_owned())));
        rig.health.pipelines_up(0, 0);
        assert_eq!(rig.answer("/"), Some((200, "fine".to_owned())));

        let rig = Rig::new("health_means_progress: false");
        rig.health.pipelines_up(0, 0);
        let loki = rig
            .health
            .component("exporter", "loki", Watch::outside(0), 0);
        loki.raise("stalled", "x", 0);
        assert_eq!(rig.answer("/").map(|a| a.0), Some(200), "as the collector");

        assert_eq!(settings("").unwrap().endpoint, "localhost:13133");
        let old = "check_collector_pipeline: {enabled: true, interval: 5m, exporter_failure_threshold: 5}";
        assert!(settings(old).is_ok(), "with a warning");
        let other = settings("endpoint: '127.0.0.1:1'").unwrap();
        assert_eq!(other.endpoint, "127.0.0.1:1");
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (yaml, name) in [
            ("tls: {cert_file: x}", "tls"),
            ("check_collector_pipeline: {enabled: 1}", "enabled"),
            ("path: health", "path"),
            ("endpoint: nowhere", "endpoint"),
            ("response_bodies: {}", "response_bodies"),
            ("response_body: {healty: x}", "healty"),
        ] {
            let text = settings(yaml).expect_err(yaml);
            assert!(text.contains(name), "{yaml}: {text}");
        }
    }
}
