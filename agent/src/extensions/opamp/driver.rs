//! The thread of the conversation: connects, says what the state machine has to say, and does what answers
//! ask for.
//!
//! It is a task on the runtime for sockets. What it keeps on disk is written by other threads.

mod dry_run;
mod offers;
mod session;
mod sources;
mod state;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_opamp::proto::{ConnectionSettingsStatus, CustomMessage, RemoteConfigStatus, Status};
use tailwater_opamp::{Backoff, Client, InstanceUid, Report, Start};
use tailwater_pipeline::clock::Clock;
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::metrics::{ControlPlaneMetrics, MetricsRegistry};
use tokio::sync::{mpsc, watch};

use self::session::Ended;
use self::sources::SourcesView;
use self::state::StateView;
use super::connection::{Kept, Offered, kept};
use super::health::{HealthView, differs};
use super::link::Way;
use super::remote::{Taken, Told};
use super::settings::Settings;
use super::store::{Files, Remote, Store};
use super::{describe, random};
use crate::admin::graph::{Seen, graph};
use crate::admin::shown::InForce;
use crate::control::Answer;
use crate::layer::Layer;
use crate::lent::Lent;

/// Our own messages: what came of each file and node. See `docs/OPAMP.md`.
pub const RESULTS: &str = "io.tailwater.config-results/v1";
/// How often it is looked at what changed here.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether the agent runs.
const START_INTERVAL: Duration = Duration::from_millis(20);

/// What a driver works with.
pub struct Surroundings {
    /// The options.
    pub settings: Settings,
    /// The agent.
    pub lent: Arc<Lent>,
    /// What is kept.
    pub store: Store,
    /// Health.
    pub health: Arc<HealthRegistry>,
    /// Numbers of its own.
    pub metrics: Arc<ControlPlaneMetrics>,
    /// Numbers of the whole agent.
    pub registry: Arc<MetricsRegistry>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Decides jitter.
    pub seed: u64,
}

/// A configuration that is being put into force.
struct Applying {
    hash: Vec<u8>,
    files: Files,
    taken: Taken,
    /// How often others were in front of it.
    superseded: u32,
    /// When it was received.
    since: Duration,
}

/// What came into force last of what was offered.
struct Expected {
    /// Of its offer; empty if that is not known any more.
    hash: Vec<u8>,
    layer: Option<Arc<Layer>>,
    files: Files,
}

/// See the module's documentation.
pub struct Driver {
    s: Surroundings,
    stop: watch::Receiver<bool>,
    client: Client,
    view: HealthView,
    shown_health: tailwater_opamp::proto::ComponentHealth,
    seen: Option<Arc<InForce>>,
    answers: mpsc::Receiver<Answer>,
    tell: mpsc::Sender<Answer>,
    /// Answers to questions of the server, by its name of the question.
    checks: mpsc::Receiver<(String, Answer)>,
    tell_check: mpsc::Sender<(String, Answer)>,
    remote: Remote,
    applying: Option<Applying>,
    expected: Option<Expected>,
    /// What was compared with it.
    compared: Option<Arc<InForce>>,
    told: Option<Told>,
    nodes: (Vec<(String, String)>, Value),
    state: StateView,
    sources: SourcesView,
    backoff: Backoff,
    random: u64,
    valid: Option<Offered>,
    candidate: Option<Offered>,
    /// Of a certificate that was asked for.
    key: Option<String>,
    /// When it was.
    asked: Option<Duration>,
    /// The certificate there is names the agent as it was called before.
    renew: bool,
}

impl Driver {
    /// A driver that has not begun.
    pub fn new(s: Surroundings, stop: watch::Receiver<bool>) -> Result<Driver, String> {
        let unix_ms = u64::try_from(s.clock.wall_ns() / 1_000_000).unwrap_or(0);
        let uid = InstanceUid::v7(unix_ms, random()?);
        // An agent asks for one change at a time.
        let (tell, answers) = mpsc::channel(1);
        let (tell_check, checks) = mpsc::channel(dry_run::CHECKS_MAX);
        let started = u64::try_from(s.clock.wall_ns()).unwrap_or(0);
        let seed = u64::from_le_bytes(random()?);
        Ok(Driver {
            client: client(&s.settings, uid, &Remote::default(), &Kept::default()),
            view: HealthView::new(started),
            shown_health: Default::default(),
            seen: None,
            answers,
            tell,
            checks,
            tell_check,
            remote: Remote::default(),
            applying: None,
            expected: None,
            compared: None,
            told: None,
            nodes: Default::default(),
            state: StateView::new(started),
            sources: SourcesView::default(),
            backoff: Backoff::default(),
            random: s.seed ^ seed,
            valid: None,
            candidate: None,
            key: None,
            asked: None,
            renew: false,
            stop,
            s,
        })
    }

    /// Speaks to the server until it is stopped.
    pub async fn run(mut self) {
        let turn = self.s.lent.turn.clone();
        let mut stop = self.stop.clone();
        let _turn = tokio::select! {
            turn = turn.lock_owned() => turn,
            () = stopped(&mut stop) => return,
        };
        // At a start, extensions are there before what is in force can be shown.
        while self.s.lent.shown.get().generation == 0 {
            if self.rest(START_INTERVAL).await {
                return;
            }
        }
        self.begin().await;
        loop {
            let trying = self.candidate.is_some();
            let ended = match self.way() {
                Ok(way) => self.session(&way).await,
                Err(text) => Ended::Lost {
                    text,
                    steady: false,
                    wait: None,
                },
            };
            let (text, steady, wait) = match ended {
                Ended::Stopped => return,
                Ended::Switched => continue,
                Ended::Lost { text, steady, wait } => (text, steady, wait),
            };
            self.s.metrics.connections_lost.inc();
            if trying && self.candidate.is_some() {
                self.revert(&text).await;
                continue;
            }
            let random = self.random();
            // The specification: a connection that breaks is made again at once. With a little jitter, for
            // all agents of a server lose it at the same time.
            if steady {
                self.backoff.reset();
            }
            let pause = wait.unwrap_or_else(|| self.backoff.next(random));
            tracing::warn!(
                retry_after_seconds = pause.as_secs_f64(),
                "OpAMP: {text}; the agent goes on with what it has"
            );
            if self.rest(pause).await {
                return;
            }
        }
    }

    /// Reads what was kept.
    async fn begin(&mut self) {
        let (store, settings) = (self.s.store.clone(), self.s.settings.clone());
        let new = self.client.uid();
        let read = move || {
            let uid = store.instance(settings.instance_uid, || Ok(new));
            (uid, store.remote(), kept(&store, &settings))
        };
        let Ok((uid, remote, kept)) = tokio::task::spawn_blocking(read).await else {
            return;
        };
        let uid = uid.unwrap_or_else(|error| {
            tracing::error!(
                error,
                "OpAMP: this instance will have another name after a restart"
            );
            self.s.settings.instance_uid.unwrap_or(new)
        });
        self.remote = remote;
        self.client = client(&self.s.settings, uid, &self.remote, &kept);
        let usable = |offered: &Offered| match offered.way(&self.s.settings) {
            Ok(_) => true,
            Err(text) => {
                tracing::error!("OpAMP: settings that were offered are not used any more: {text}");
                false
            }
        };
        self.valid = kept.valid.filter(usable);
        self.candidate = kept.candidate;
        let layer = self.s.lent.shown.get().layer.clone();
        let newest = self.remote.status == Status::Applied as i32;
        if newest || self.remote.applied.is_some() {
            // What is in force now is what was kept, or the start has said that it is not.
            self.expected = Some(Expected {
                hash: match newest {
                    true => self.remote.hash.clone(),
                    false => Vec::new(),
                },
                layer,
                files: self.remote.applied.clone().unwrap_or_default(),
            });
        }
        self.ask_for_certificate();
        self.look().await;
        self.take_up_again().await;
    }

    /// How the server is reached now.
    fn way(&self) -> Result<Way, String> {
        let local = || Way {
            target: self.s.settings.target.clone(),
            client: self.s.settings.client.clone(),
        };
        match self.offered() {
            Some(offered) => offered.way(&self.s.settings),
            None => Ok(local()),
        }
    }

    /// Settings that were offered and are used. With a certificate that has ended no server would speak to the agent,
    /// with the local settings it may get another one.
    fn offered(&self) -> Option<&Offered> {
        let now = self.unix_seconds();
        let valid = || self.valid.as_ref().filter(|v| !v.is_over(now));
        self.candidate.as_ref().or_else(valid)
    }

    fn unix_seconds(&self) -> i64 {
        self.s.clock.wall_ns() / 1_000_000_000
    }

    /// How often something is said.
    fn interval(&self) -> Option<Duration> {
        let beats = self.s.settings.capabilities & tailwater_opamp::proto::agent::REPORTS_HEARTBEAT;
        let offered = self.offered();
        let websocket = self.way().is_ok_and(|w| w.target.websocket);
        match offered.filter(|_| beats != 0) {
            Some(offered) => offered.interval(&self.s.settings),
            None => (beats != 0 || !websocket).then_some(self.s.settings.interval),
        }
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.s.clock.now().0)
    }

    /// xorshift64: only jitter hangs on it.
    fn random(&mut self) -> u64 {
        let mut x = self.random | 1;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random = x;
        x
    }

    /// Looks at what changed here.
    async fn look(&mut self) {
        let in_force = self.s.lent.shown.get();
        let is_new = self
            .seen
            .as_ref()
            .is_none_or(|s| !Arc::ptr_eq(s, &in_force));
        if is_new {
            self.client.set_effective(describe::effective(&in_force));
            let who = describe::description(&self.s.settings, &in_force.resource);
            self.client.set_description(who);
            self.seen = Some(in_force.clone());
        }
        let compared = self.compared.as_ref();
        if self.applying.is_none() && compared.is_none_or(|c| !Arc::ptr_eq(c, &in_force)) {
            self.compare(&in_force).await;
            self.compared = Some(in_force.clone());
        }
        let report = self.s.health.report(self.s.clock.now().0);
        let unix = u64::try_from(self.s.clock.wall_ns()).unwrap_or(0);
        let health = self.view.show(&report, self.told.as_ref(), unix);
        let later = !differs(&health, &self.shown_health);
        self.client.set_health(health.clone(), later);
        if !later {
            self.shown_health = health;
        }
        self.tell_nodes(&in_force, report);
        self.tell_state(&in_force);
        self.tell_sources().await;
    }

    /// Says what became of each node, when another state of one of them is seen.
    fn tell_nodes(
        &mut self,
        in_force: &Arc<InForce>,
        health: tailwater_telemetry::health::HealthReport,
    ) {
        let Some(told) = &self.told else { return };
        let seen = Seen {
            in_force: in_force.clone(),
            not_started: self.s.lent.shown.get_not_started(),
            health,
            samples: Vec::new(),
        };
        let whole = graph(&seen);
        let nodes = whole["nodes"].as_array().cloned().unwrap_or_default();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let states: Vec<_> = nodes
            .iter()
            .map(|n| (text(&n["key"]), text(&n["state"])))
            .collect();
        if states != self.nodes.0 {
            let one =
                |n: &Value| json!({"node": n["key"], "state": n["state"], "reasons": n["reasons"]});
            self.nodes = (states, nodes.iter().map(one).collect());
        }
        let value = told.to_json(in_force.generation, &self.nodes.1);
        self.client.set_result(CustomMessage {
            capability: RESULTS.to_owned(),
            r#type: "result".to_owned(),
            data: value.to_string().into_bytes(),
        });
    }

    /// Does something with what is kept, in a thread that may wait for the disk.
    async fn kept<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let store = self.s.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|e| Err(e.to_string()))
    }

    /// Waits, and goes on with what happens here. True if the end comes first.
    async fn rest(&mut self, pause: Duration) -> bool {
        let until = tokio::time::Instant::now() + pause;
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return true,
                () = tokio::time::sleep_until(until) => return false,
                Some(answer) = self.answers.recv() => self.answered(answer).await,
                Some((question, answer)) = self.checks.recv() => self.checked(question, answer),
            }
        }
    }
}

/// Ends when the driver is to end.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error is that whoever could stop it has gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn client(settings: &Settings, uid: InstanceUid, remote: &Remote, kept: &Kept) -> Client {
    let hash = kept.valid.as_ref().map(|o| o.hash.clone());
    Client::new(Start {
        uid,
        capabilities: settings.capabilities,
        report: Report {
            description: describe::description(settings, &[]),
            components: describe::components(),
            custom: match settings.takes_layers() {
                true => [RESULTS, state::STATE, dry_run::DRY_RUN, sources::SOURCES]
                    .map(str::to_owned)
                    .into(),
                false => vec![sources::SOURCES.to_owned()],
            },
            ..Report::default()
        },
        remote: RemoteConfigStatus {
            last_remote_config_hash: remote.hash.clone(),
            status: remote.status,
            error_message: remote.error.clone(),
        },
        connection: ConnectionSettingsStatus {
            status: match hash {
                Some(_) => Status::Applied as i32,
                None => Status::Unset as i32,
            },
            last_connection_settings_hash: hash.unwrap_or_default(),
            error_message: String::new(),
        },
    })
}
