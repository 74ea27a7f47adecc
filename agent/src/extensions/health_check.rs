//! `health_check`: answers whether the agent is up and makes progress, with reasons.
//!
//! As the collector's: 200 with `"status":"Server available"` once the pipelines run, 503 before
//! and while stopping. Beyond it, "available" means progress: a destination that accepts nothing
//! while records wait, a stuck file or a checkpoint that cannot be written answer 503 with the
//! reasons in the body (`health_means_progress: false` gives the collector's answer).
//! `<path>/live` answers whether a restart would help, for liveness probes.

use std::sync::Arc;

use hyper::StatusCode;
use tailwater_config::{Errors, KeyPath, Node, Section};
use tailwater_pipeline::clock::Clock;
use tailwater_pipeline::factory::{ExtensionFactory, ExtensionSettings, NodeCx};
use tailwater_pipeline::{BuildError, ExtensionNode};
use tailwater_telemetry::health::HealthRegistry;

use crate::serve::{HttpServer, Page, Pages, serve};

/// The factory of `health_check`.
pub fn factory() -> ExtensionFactory {
    ExtensionFactory {
        kind: "health_check",
        about: "answers whether the agent runs and makes progress",
        signals: &[],
        decode,
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

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Box<dyn ExtensionSettings>> {
    let mut s = Section::new(node, path, errors);
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
    s.refuse(
        "check_collector_pipeline",
        "removed in the collector, too; health means progress here",
    );
    if !path.starts_with('/') {
        s.invalid("path", "must start with /");
    }
    if !endpoint.contains(':') {
        s.invalid("endpoint", "must be host:port");
    }
    s.finish();
    let (healthy, unhealthy) = body;
    Some(Box::new(Settings {
        endpoint,
        path,
        healthy,
        unhealthy,
        progress,
    }))
}

impl ExtensionSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExtensionNode>, BuildError> {
        Ok(Box::new(HealthCheck {
            settings: self.clone(),
            id: cx.id.clone(),
            health: cx.health.clone(),
            clock: cx.clock.clone(),
            runtime: cx.runtime.clone(),
            server: None,
        }))
    }
}

struct HealthCheck {
    settings: Settings,
    id: Arc<str>,
    health: Arc<HealthRegistry>,
    clock: Arc<dyn Clock>,
    runtime: tokio::runtime::Handle,
    server: Option<HttpServer>,
}

impl HealthCheck {
    fn pages(&self) -> Pages {
        let (s, health, clock) = (
            self.settings.clone(),
            self.health.clone(),
            self.clock.clone(),
        );
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
}

impl ExtensionNode for HealthCheck {
    fn start(&mut self) -> Result<(), BuildError> {
        let endpoint = &self.settings.endpoint;
        let server = serve(endpoint, self.pages(), &self.runtime).map_err(|e| {
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
