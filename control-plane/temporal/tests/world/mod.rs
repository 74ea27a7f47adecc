//! A Temporal of the test, workers that can be killed, and a small fleet that does as it is told.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tailwater_control_plane::metrics::Metrics;
use tailwater_control_plane::model::Digest;
use tailwater_control_plane::rollout::command::Alert;
use tailwater_control_plane::rollout::model::{
    AgentId, Collector, Generation, Report, Select, Stage,
};
use tailwater_control_plane::rollout::ports::{Built, Call, Configs, Failure, Fleet};
use tailwater_control_plane::rollout::verdict::Sample;
use tailwater_control_plane::rollout::{Fence, Policy, State};
use tailwater_control_plane::store::SqliteStore;
use tailwater_telemetry::metrics::MetricsRegistry;
use tailwater_temporal::{Activities, Begin, Local, Rollouts, connect, worker};
use temporalio_client::Client;
use temporalio_sdk::Runtime;
use tokio::sync::oneshot;

/// How long anything is waited for.
pub const BOUND: Duration = Duration::from_secs(120);
/// Whose rollouts.
pub const GROUP: &str = "shop";

/// A Temporal of one process, in memory. Ends with this value.
pub struct Temporal {
    child: Child,
    url: String,
}

impl Drop for Temporal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Temporal {
    /// One that is ready.
    pub async fn start() -> (Temporal, Client) {
        let binary = std::env::var_os("TAILWATER_TEMPORAL").unwrap_or_else(|| "temporal".into());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let child = Command::new(binary)
            .args(["server", "start-dev", "--headless", "--ip", "127.0.0.1"])
            .args(["--log-level", "never", "--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("temporal: TAILWATER_TEMPORAL names it, or it is in PATH");
        let url = format!("http://127.0.0.1:{port}");
        let server = Temporal { child, url };
        let begun = Instant::now();
        loop {
            let error = match connect(&server.url, "default").await {
                Ok(client) => return (server, client),
                Err(error) => error,
            };
            assert!(begun.elapsed() < BOUND, "{error:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A worker with a thread of its own.
    pub fn worker(&self, world: &World) -> Working {
        let (stop, stopped) = oneshot::channel();
        let (url, world) = (self.url.clone(), world.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let client = connect(&url, "default").await.unwrap();
                let own = Runtime::from_current_tokio(Default::default()).unwrap();
                let store = Arc::new(SqliteStore::in_memory().unwrap());
                let hands = Local::new(Box::new(world.clone()), Box::new(world), store);
                let metrics = Metrics::new(Arc::new(MetricsRegistry::default()));
                let activities = Activities::new(Arc::new(hands), metrics);
                let mut worker = worker(&own, client, activities).unwrap();
                tokio::select! {
                    ended = worker.run() => ended.unwrap(),
                    _ = stopped => {}
                }
            });
            // Nothing of it is told to end.
            runtime.shutdown_background();
        });
        Working { stop, thread }
    }
}

/// A worker.
pub struct Working {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Working {
    /// It does nothing any more, and says so to nobody.
    pub fn kill(self) {
        let _ = self.stop.send(());
        self.thread.join().unwrap();
    }
}

/// Everything within seconds.
pub fn policy() -> Policy {
    let stage = |select, failures_percent_max| Stage {
        select,
        soak_ms: 1_500,
        failures_percent_max,
    };
    let mut policy = Policy::new(digest("fallback"));
    policy.canary = stage(Select::Count(1), 0);
    policy.waves = vec![stage(Select::Percent(100), 20)];
    policy.control = 2;
    policy.debounce_ms = 50;
    policy.poll_ms = 200;
    policy.reconcile_ms = 500;
    policy.baseline_ms = 600;
    policy.confirm_ms = 400;
    policy.settle_ms = 400;
    policy.freeze_after = 100;
    policy.limits.window_ms_min = 300;
    policy
}

pub fn begin(steps_max: u32) -> Begin {
    Begin {
        group: GROUP.into(),
        epoch: 7,
        policy: policy(),
        state: None,
        inbox: Default::default(),
        steps_max,
    }
}

pub fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// Waits until the state of the group is as wanted.
pub async fn until(rollouts: &Rollouts, what: &str, met: impl Fn(&State) -> bool) -> State {
    let begun = Instant::now();
    loop {
        // A query is not answered while no worker is there.
        let asked = tokio::time::timeout(Duration::from_secs(10), rollouts.state(GROUP)).await;
        let last = match asked {
            Ok(Ok(state)) if met(&state) => return state,
            Ok(Ok(state)) => format!("{:?} {:?}", state.phase, state.candidate),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "no answer".to_owned(),
        };
        assert!(begun.elapsed() < BOUND, "not seen: {what}: {last}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

struct Agent {
    report: Report,
    dropped: u64,
}

struct Inner {
    agents: BTreeMap<AgentId, Agent>,
    bodies: BTreeMap<Digest, String>,
    newest: Fence,
    begun: Instant,
    keys: Vec<String>,
    /// So many attempts to build fail.
    build_fails: u32,
}

/// Six agents. Those that run what begins with `bad` drop each line; what begins with `refused` is refused by the check.
#[derive(Clone)]
pub struct World(Arc<Mutex<Inner>>);

impl World {
    pub fn new() -> World {
        let agent = |n| {
            let report = Report {
                effective: Some(digest("fallback")),
                ..Report::default()
            };
            (format!("a{n}"), Agent { report, dropped: 0 })
        };
        World(Arc::new(Mutex::new(Inner {
            agents: (0..6).map(agent).collect(),
            bodies: BTreeMap::new(),
            newest: Fence::default(),
            begun: Instant::now(),
            keys: Vec::new(),
            build_fails: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// The next attempts to build fail.
    pub fn fail_builds(&self, count: u32) {
        self.lock().build_fails = count;
    }

    /// Another driver, with this epoch, is obeyed.
    pub fn obey(&self, epoch: u64) {
        self.lock().newest = Fence { epoch, step: 0 };
    }

    /// What was done, one after the other, without looks, alerts and late joiners: these come when they come.
    pub fn decisions(&self) -> Vec<String> {
        let of_interest = |key: &&String| {
            [
                "build_config",
                "validate_config",
                "store_config_artifact",
                "canary_reload",
                "push_config",
                "promote_config",
                "rollback_config",
            ]
            .iter()
            .any(|name| key.contains(name))
        };
        let inner = self.lock();
        let keys = inner.keys.iter().filter(of_interest);
        let without_number = keys.map(|k| k.rsplit_once('/').unwrap().0.to_owned());
        let mut all: Vec<String> = without_number.collect();
        all.dedup();
        all
    }

    /// What each agent runs.
    pub fn running(&self) -> BTreeSet<String> {
        let inner = self.lock();
        let name = |d: &Digest| inner.bodies.get(d).cloned().unwrap_or_default();
        let agents = inner.agents.values();
        agents
            .filter_map(|a| a.report.effective.as_ref().map(name))
            .collect()
    }

    fn call(&self, call: &Call<'_>) -> Result<MutexGuard<'_, Inner>, Failure> {
        let mut inner = self.lock();
        if call.fence < inner.newest {
            return Err(Failure::Fenced);
        }
        inner.newest = call.fence;
        inner.keys.push(call.key.to_owned());
        Ok(inner)
    }
}

impl Inner {
    fn sample(&mut self, id: &str) -> Option<(Report, Sample)> {
        let lines = u64::try_from(self.begun.elapsed().as_millis()).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let agent = self.agents.get_mut(id)?;
        let runs = agent.report.effective.as_ref();
        let body = runs.and_then(|d| self.bodies.get(d));
        if body.is_some_and(|b| b.starts_with("bad")) {
            agent.dropped += 100;
        }
        let sample = Sample {
            at_ms: u64::try_from(now.unwrap().as_millis()).unwrap(),
            incarnation: 1,
            lines_read: lines + agent.dropped,
            lines_delivered: lines,
            lines_dropped: agent.dropped,
            requests: lines / 10,
            ..Sample::default()
        };
        Some((agent.report.clone(), sample))
    }
}

impl Fleet for World {
    fn collectors(&mut self, call: &Call<'_>) -> Result<Vec<Collector>, Failure> {
        let inner = self.call(call)?;
        let collector = |(id, agent): (&AgentId, &Agent)| Collector {
            id: id.clone(),
            connected: true,
            report: agent.report.clone(),
            healthy: Some(true),
            ..Collector::default()
        };
        Ok(inner.agents.iter().map(collector).collect())
    }

    fn offer(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
        digest: &Digest,
    ) -> Result<(), Failure> {
        let mut inner = self.call(call)?;
        for id in agents {
            let agent = inner.agents.get_mut(id).unwrap();
            agent.report = Report {
                effective: Some(digest.clone()),
                answered: Some(digest.clone()),
                refused: None,
            };
        }
        Ok(())
    }

    fn reoffer(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
        digest: &Digest,
    ) -> Result<(), Failure> {
        self.offer(call, agents, digest)
    }

    fn restart(
        &mut self,
        call: &Call<'_>,
        _agents: &BTreeSet<AgentId>,
    ) -> Result<BTreeSet<AgentId>, Failure> {
        self.call(call).map(|_| BTreeSet::new())
    }

    fn reports(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
    ) -> Result<BTreeMap<AgentId, Report>, Failure> {
        let inner = self.call(call)?;
        let of = |id: &AgentId| Some((id.clone(), inner.agents.get(id)?.report.clone()));
        Ok(agents.iter().filter_map(of).collect())
    }

    fn health(
        &mut self,
        call: &Call<'_>,
        agents: &BTreeSet<AgentId>,
    ) -> Result<BTreeMap<AgentId, (Report, Option<Sample>)>, Failure> {
        let mut inner = self.call(call)?;
        let mut all = BTreeMap::new();
        for id in agents {
            if let Some((report, sample)) = inner.sample(id) {
                all.insert(id.clone(), (report, Some(sample)));
            }
        }
        Ok(all)
    }

    fn promote(&mut self, call: &Call<'_>, _generation: &Generation) -> Result<(), Failure> {
        self.call(call).map(drop)
    }

    fn alert(
        &mut self,
        call: &Call<'_>,
        _alert: Alert,
        _text: &str,
        _resolved: bool,
    ) -> Result<(), Failure> {
        self.call(call).map(drop)
    }
}

impl Configs for World {
    fn build(
        &mut self,
        call: &Call<'_>,
        revision: &str,
    ) -> Result<Result<Built, Vec<String>>, Failure> {
        let mut inner = self.call(call)?;
        if call.key.contains("build_config") && inner.build_fails > 0 {
            inner.build_fails -= 1;
            return Err(Failure::Unavailable("not now".into()));
        }
        inner.bodies.insert(digest(revision), revision.to_owned());
        Ok(Ok(Built {
            body: revision.to_owned(),
            requires: BTreeSet::new(),
        }))
    }

    fn validate(&mut self, call: &Call<'_>, built: &Built) -> Result<Vec<String>, Failure> {
        drop(self.call(call)?);
        let refused = built.body.starts_with("refused");
        Ok(refused
            .then(|| "it is no good".to_owned())
            .into_iter()
            .collect())
    }
}
