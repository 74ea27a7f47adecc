//! `zpages`: what runs, as pages for people at the addresses of the collector's extension. They show what
//! the agent knows of itself; of spans of its own it has none, and says so.

mod pages;

use std::sync::Arc;

use tailwater_config::{Errors, KeyPath, Node, Section, is_loopback};
use tailwater_pipeline::clock::Clock;
use tailwater_pipeline::factory::{ExtensionFactory, ExtensionSettings, NodeCx};
use tailwater_pipeline::listeners::Listeners;
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{BuildError, ExtensionNode};
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::MetricsRegistry;

use crate::admin::graph::Seen;
use crate::lent::Lent;
use crate::serve::{HttpServer, Page, Pages, serve};

/// The factory of `zpages`.
pub fn factory() -> ExtensionFactory {
    ExtensionFactory {
        kind: "zpages",
        about: "pages that show what runs",
        signals: &[],
        decode: |node, path, errors| {
            let settings = decode(node, path, errors)?;
            Some(Box::new(settings) as Box<dyn ExtensionSettings>)
        },
    }
}

#[derive(Clone, Debug)]
struct Settings {
    endpoint: String,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "endpoint",
        "Where the pages are: `host:port`, plain HTTP, with a warning where others reach it.",
    ),
    ("expvar", "There are no variables of Go."),
    ("expvar::enabled", "True is accepted with a warning."),
];

fn decode(node: &Node, path: &KeyPath, errors: &mut Errors) -> Option<Settings> {
    let before = errors.len();
    let mut s = Section::new(node, path, errors);
    s.describe(OPTIONS);
    let endpoint = s.string("endpoint", "localhost:55679");
    if endpoint.is_empty() || !endpoint.contains(':') {
        s.invalid("endpoint", "must be host:port");
    } else if !is_loopback(&endpoint) {
        let why = "whoever reaches this address sees what runs: there is neither TLS nor auth; \
                   localhost:55679 is for this machine alone";
        s.warn("endpoint", why);
    }
    let expvar = s.section("expvar", |s| s.bool("enabled", false));
    if expvar {
        let why = "there is no Go runtime whose variables could be shown; the numbers of this agent are \
                   at /metrics of service::telemetry";
        s.warn("expvar", why);
    }
    for key in ["tls", "auth"] {
        s.refuse(
            key,
            "the pages are plain HTTP for everybody; put them on a loopback address",
        );
    }
    s.finish();
    (errors.len() == before).then_some(Settings { endpoint })
}

impl ExtensionSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExtensionNode>, BuildError> {
        let node = format!("extension \"{}\"", cx.id);
        let lent = cx.agent.clone().and_then(|a| a.downcast::<Lent>().ok());
        let lent = lent.ok_or_else(|| BuildError::new(&node, "there is no agent to show"))?;
        let (health, metrics) = (cx.health.clone(), cx.metrics.clone());
        Ok(Box::new(Zpages {
            endpoint: self.endpoint.clone(),
            node,
            pages: pages(lent, health, metrics, cx.clock.clone()),
            runtime: cx.runtime.clone(),
            listeners: cx.listeners.clone(),
            server: None,
        }))
    }

    /// It serves what is in memory.
    fn reach(&self, _reach: &mut Reach) {}
}

/// What is answered at which path.
fn pages(
    lent: Arc<Lent>,
    health: Arc<HealthRegistry>,
    metrics: Arc<MetricsRegistry>,
    clock: Arc<dyn Clock>,
) -> Pages {
    let since = std::time::SystemTime::now();
    Arc::new(move |path| {
        let seen = || Seen {
            in_force: lent.shown.get(),
            not_started: lent.shown.get_not_started(),
            health: health.report(clock.now().0),
            samples: metrics.samples(),
        };
        Some(Page {
            status: hyper::StatusCode::OK,
            content_type: "text/html; charset=utf-8",
            body: pages::page(path, since, seen)?,
        })
    })
}

struct Zpages {
    endpoint: String,
    node: String,
    pages: Pages,
    runtime: tokio::runtime::Handle,
    listeners: Arc<Listeners>,
    server: Option<HttpServer>,
}

impl ExtensionNode for Zpages {
    fn start(&mut self) -> Result<(), BuildError> {
        let endpoint = &self.endpoint;
        let pages = self.pages.clone();
        let server = serve(endpoint, pages, &self.listeners, &self.runtime).map_err(|e| {
            let text = format!("cannot listen on {endpoint}: {e}; choose another `endpoint`");
            BuildError::new(&self.node, text)
        })?;
        tracing::info!(address = %server.addr, "zpages listen");
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

    fn settings(yaml: &str) -> (Option<Settings>, String, usize) {
        let node = tailwater_config::parse(yaml, "f").unwrap();
        let mut errors = Errors::new();
        let settings = decode(&node, &KeyPath::from("extensions::zpages"), &mut errors);
        (settings, errors.to_string(), errors.warnings().len())
    }

    #[test]
    fn options_have_their_defaults_and_mistakes_are_named() {
        let (known, _, warnings) = settings("");
        assert_eq!(
            (known.unwrap().endpoint.as_str(), warnings),
            ("localhost:55679", 0)
        );
        assert_eq!(settings("endpoint: '0.0.0.0:55679'").2, 1, "exposed");
        assert_eq!(settings("expvar: {enabled: false}").1, "");
        assert_eq!(settings("expvar: {enabled: true}").2, 1, "not there");
        for (yaml, name) in [
            ("endpoint: ''", "host:port"),
            ("endpoint: nowhere", "host:port"),
            ("tls: {cert_file: x}", "tls"),
            ("endpont: 'localhost:1'", "endpoint"),
        ] {
            let (settings, text, _) = settings(yaml);
            assert!(settings.is_none() && text.contains(name), "{yaml}: {text}");
        }
    }
}
