//! `opamp`: the agent is looked at and configured by a control plane that speaks the Open Agent
//! Management Protocol. See `docs/OPAMP.md`.
//!
//! What there is to say and when is the state machine of `tailwater_opamp`; here are its
//! surroundings: connections ([`link`]), what the agent says of itself ([`describe`], [`health`]), what it keeps
//! on disk ([`store`]), and what becomes of an offer ([`remote`], [`connection`]).

mod connection;
mod describe;
mod driver;
mod health;
mod link;
mod remote;
mod settings;
mod signature;
mod store;

use std::sync::Arc;
use std::time::Duration;

use tailwater_config::{
    ComponentId, ComponentKind, ConfigError, ConfigFile, Errors, KeyPath, Section,
};
use tailwater_pipeline::factory::{ExtensionFactory, ExtensionSettings, NodeCx};
use tailwater_pipeline::reach::Reach;
use tailwater_pipeline::{BuildError, ExtensionNode};
use tailwater_telemetry::metrics::ControlPlaneMetrics;
use tokio::sync::watch;

use self::driver::{Driver, Surroundings};
pub use self::remote::resume;
pub use self::settings::Settings;
use self::store::Store;
use crate::lent::Lent;

/// The type of the extension.
const KIND: &str = "opamp";
/// How long a farewell may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// The factory of `opamp`.
pub fn factory() -> ExtensionFactory {
    ExtensionFactory {
        kind: KIND,
        about: "takes the agent under the management of a control plane",
        signals: &[],
        decode: |node, path, errors| {
            let mut section = Section::new(node, path, errors);
            let settings = Settings::decode(&mut section);
            section.finish();
            Some(Box::new(settings?) as Box<dyn ExtensionSettings>)
        },
    }
}

/// Whether an extension is one of these.
pub fn is(id: &ComponentId) -> bool {
    id.type_name() == KIND
}

/// The settings of the one that runs.
pub fn running(file: &ConfigFile) -> Option<Settings> {
    let reference = file.service.extensions.iter().find(|r| is(&r.id))?;
    let entry = file.component(ComponentKind::Extension, &reference.id)?;
    let mut ignored = Errors::new();
    let path = entry.path(ComponentKind::Extension);
    Settings::decode(&mut Section::new(&entry.node, path, &mut ignored))
}

/// An agent has one name and one configuration: it can have one control plane.
pub fn check(file: &ConfigFile, errors: &mut Errors) {
    let mut all = file.service.extensions.iter().filter(|r| is(&r.id));
    let first = all.next().map(|r| r.id.to_string());
    for other in all {
        let message = format!(
            "\"{}\" cannot run beside \"{}\": an agent has one control plane",
            other.id,
            first.as_deref().unwrap_or_default()
        );
        let path = KeyPath::from("service::extensions");
        errors.push(ConfigError::new(other.span.clone(), path, message));
    }
}

impl ExtensionSettings for Settings {
    fn build(&self, cx: &NodeCx) -> Result<Box<dyn ExtensionNode>, BuildError> {
        let failed = |text: String| BuildError::new(format!("extension {}", cx.id), text);
        let lent = cx.agent.clone().and_then(|a| a.downcast::<Lent>().ok());
        let lent = lent.ok_or_else(|| failed("there is no agent to be managed".to_owned()))?;
        let store = Store::of_agent().map_err(failed)?;
        Ok(Box::new(OpAmp {
            surroundings: Some(Surroundings {
                settings: self.clone(),
                lent,
                store,
                health: cx.health.clone(),
                metrics: ControlPlaneMetrics::new(&cx.metrics, &cx.id),
                registry: cx.metrics.clone(),
                clock: cx.clock.clone(),
                seed: cx.seed,
            }),
            runtime: cx.runtime.clone(),
            id: cx.id.clone(),
            running: None,
        }))
    }

    fn reach(&self, reach: &mut Reach) {
        self.client.reach(reach);
        if let Ok(store) = Store::of_agent() {
            store.reach(reach);
        }
    }
}

struct OpAmp {
    surroundings: Option<Surroundings>,
    runtime: tokio::runtime::Handle,
    id: Arc<str>,
    running: Option<Running>,
}

/// Dropping the sender ends the driver; the receiver then says that it has ended.
struct Running {
    stop: watch::Sender<bool>,
    ended: std::sync::mpsc::Receiver<()>,
}

impl ExtensionNode for OpAmp {
    fn start(&mut self) -> Result<(), BuildError> {
        let Some(surroundings) = self.surroundings.take() else {
            return Ok(());
        };
        let failed = |text: String| BuildError::new(format!("extension {}", self.id), text);
        let (stop, stopped) = watch::channel(false);
        let (tell, ended) = std::sync::mpsc::channel();
        let driver = Driver::new(surroundings, stopped).map_err(failed)?;
        self.runtime.spawn(async move {
            driver.run().await;
            drop(tell);
        });
        self.running = Some(Running { stop, ended });
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.send_replace(true);
            // An error is the end that is waited for.
            let _ = running.ended.recv_timeout(FAREWELL_TIMEOUT);
        }
    }
}

impl Drop for OpAmp {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Random bytes that nobody can guess.
fn random<const N: usize>() -> Result<[u8; N], String> {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(bytes)
}
