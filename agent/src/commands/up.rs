//! `tailwater up`: finds containers and files by itself, tails them, and delivers to Loki.
//!
//! The control plane and the agent in one process: what is found becomes configuration, which the agent
//! takes as it takes any other. The control plane is outside of the agent's sandbox, and on no path of lines.

mod base;
mod port;
mod screen;
mod wanted;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use tailwater_config::{ProcessEnvironment, Source};
use tailwater_control_plane::builder::{Base, build};
use tailwater_control_plane::bus::{Bus, EmbeddedBus, ReadFrom};
use tailwater_control_plane::discovery::docker::Docker;
use tailwater_control_plane::discovery::filesystem::Filesystem;
use tailwater_control_plane::discovery::kubernetes::Kubernetes;
use tailwater_control_plane::discovery::{Mode, Publisher, Stop, fixed};
use tailwater_control_plane::metrics::Metrics;
use tailwater_control_plane::model::{Digest, Origin};
use tailwater_control_plane::reconcile::{CONSUMER, Limits, Parts, Reconciler, initial};
use tailwater_control_plane::store::{SqliteStore, Store};
use tailwater_pipeline::graph::StopReport;
use tailwater_testkit::loki::behaviour::LokiBehaviour;
use tailwater_testkit::loki::store::StoreMode;
use tailwater_testkit::loki::{FakeLoki, LokiOptions};

use self::port::InProcess;
use self::screen::Screen;
use self::wanted::Wanted;
use super::check::{Checked, check_offer, complain};
use super::run::{CHANGING_INTERVAL, HOUSEKEEPING_INTERVAL};
use crate::cli::{UpArgs, exit};
use crate::control::{Control, Request};
use crate::offer::{Offer, Reading};
use crate::sandbox::Sandbox;
use crate::signals::{Caught, Signals};
use crate::storages;
use crate::supervisor::Agent;

/// The database of the control plane, in the state directory.
const DATABASE: &str = "control-plane.db";
/// The socket of the admin API, there.
const ADMIN_SOCKET: &str = "admin.sock";
/// What is offered is known by this.
pub(super) const BY: &str = "up";

/// Runs until a signal stops it.
pub fn up(args: &UpArgs) -> Result<u8> {
    if let Some(dir) = &args.state_dir {
        storages::choose_state_directory(std::path::absolute(dir)?);
    }
    let own = storages::own_directory()?;
    let state = own.parent().context("the state directory has no parent")?;
    let wanted = Wanted::of(args, &ProcessEnvironment)?;
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&state.join(DATABASE))?);
    let (endpoint, base) = destination(args, &wanted, state)?;
    let checked = match first(&*store, &base) {
        Ok(checked) => checked,
        Err(errors) => return Ok(complain(&errors)),
    };
    let offered = Arc::new(Mutex::new(checked.offer.clone()));
    let (control, requests) = Control::here();
    let signals = Caught::catch()?;
    // The control plane is not shut in: it is the one that knows what is to be opened next.
    let sandbox = Sandbox::of(&checked);
    let signals = signals.listen(None)?;
    let mut agent = Agent::start(checked, sandbox, control.clone())?;
    let plane = Plane::start(
        &agent,
        store,
        &base,
        wanted,
        args.discovery.into(),
        |agent| InProcess::new(control, base.text(), agent.shown().clone(), offered.clone()),
    )?;
    let mut screen = Screen::new(&agent.metrics, &plane.metrics);
    let mut looked = agent.clock.now();
    while signals.stops() == 0 {
        let changing = serve(&mut agent, &requests, &offered);
        let now = agent.clock.now();
        if now.since(looked) >= HOUSEKEEPING_INTERVAL {
            looked = now;
            agent.housekeeping();
        }
        screen.show();
        let wait = match changing {
            true => CHANGING_INTERVAL,
            false => screen.interval().unwrap_or(HOUSEKEEPING_INTERVAL),
        };
        std::thread::park_timeout(wait);
    }
    screen.end();
    plane.stop(|| {
        serve(&mut agent, &requests, &offered);
    });
    let code = stop(agent, &signals);
    if let Some(fake) = endpoint {
        say!("accepted here: {} lines", fake.stats().entries_accepted);
    }
    Ok(code)
}

/// Takes requests, and goes on with what changes have left to do. True while there is something.
fn serve(agent: &mut Agent, requests: &Receiver<Request>, offered: &Mutex<Offer>) -> bool {
    let offer = offered.lock().unwrap_or_else(|e| e.into_inner()).clone();
    agent.take_requests(requests, &offer);
    agent.tick()
}

fn stop(agent: Agent, signals: &Signals) -> u8 {
    let timeout = agent.shutdown_timeout();
    let stopped = agent.stop(timeout, &|| signals.stops() > 1);
    match stopped {
        StopReport { clean: true, .. } => exit::OK,
        _ if signals.stops() > 1 => exit::INTERRUPTED,
        _ => exit::UNDELIVERED,
    }
}

/// Where lines go, and the base that says so.
fn destination(args: &UpArgs, wanted: &Wanted, state: &Path) -> Result<(Option<FakeLoki>, Base)> {
    if let Some(path) = &args.base {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| path.display().to_string())?;
        return Ok((None, Base::parse(&text, &path.display().to_string())?));
    }
    let (endpoint, url) = match &args.loki {
        Some(url) => (None, super::demo::push_url(url)),
        None => {
            let fake = FakeLoki::start(LokiOptions {
                behaviour: LokiBehaviour::permissive(),
                store: StoreMode::CountOnly,
                ..LokiOptions::default()
            })?;
            let url = fake.push_url();
            (Some(fake), url)
        }
    };
    let inside = match endpoint {
        Some(_) => " (inside this process: it counts and forgets; --loki names a real one)",
        None => "",
    };
    say!("sending: {url}{inside}");
    let socket = state.join(ADMIN_SOCKET);
    say!("admin:   {} (tailwater top --socket ...)", socket.display());
    let text = base::text(&url, wanted, &socket);
    Ok((endpoint, Base::parse(&text, "the base of `up`")?))
}

/// The configuration to begin with: with the sources that were known, or without any if they are not good
/// any more.
fn first(store: &dyn Store, base: &Base) -> Result<Checked, tailwater_config::Errors> {
    let known = initial(store, base)
        .inspect_err(|error| eprintln!("warning: {error}; what is there is found anew"));
    let none = build(base, []);
    let check = |targets: &str| {
        let offer = Offer {
            sources: sources(base.text(), targets),
            ..Offer::default()
        };
        check_offer(&offer, &Reading::of(&offer))
    };
    match known {
        Ok(known) => check(&known.targets).or_else(|_| check(&none.targets)),
        Err(_) => check(&none.targets),
    }
}

/// A base, and sources over it.
fn sources(base: &str, targets: &str) -> Vec<Source> {
    let named = |name: &str, text: &str| Source::Named {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    vec![named("base", base), named("targets", targets)]
}

fn wall() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

/// The control plane: its threads, and what ends them.
struct Plane {
    metrics: Metrics,
    stop: Stop,
    ended: Arc<AtomicBool>,
    bus: EmbeddedBus,
    threads: Vec<JoinHandle<()>>,
}

/// What a thread does.
type Work = Box<dyn FnOnce() + Send>;

impl Plane {
    fn start(
        agent: &Agent,
        store: Arc<dyn Store>,
        base: &Base,
        wanted: Wanted,
        mode: Mode,
        port: impl FnOnce(&Agent) -> InProcess,
    ) -> Result<Plane> {
        agent.has_registry(store.clone());
        let metrics = Metrics::new(agent.metrics.clone());
        let bus = EmbeddedBus::new(store.clone(), wall);
        let stop = Stop::default();
        let newest =
            tailwater_control_plane::registry::Registry::new(store.sources()?, store.snapshots()?)
                .generations();
        let reconciler = Reconciler::new(Parts {
            events: bus.subscribe(CONSUMER, ReadFrom::Acknowledged)?,
            store,
            base: base.clone(),
            agent: Box::new(port(agent)),
            metrics: metrics.clone(),
            wall,
            limits: Limits::default(),
        })?;
        let publisher = |origin: Origin| {
            let newest = newest.get(&origin).copied().unwrap_or_default();
            Publisher::new(Arc::new(bus.clone()), origin, wall, newest, stop.clone())
        };
        let mut plane = Plane {
            ended: Arc::default(),
            bus: bus.clone(),
            threads: Vec::new(),
            metrics: metrics.clone(),
            stop: stop.clone(),
        };
        let ended = plane.ended.clone();
        plane.spawn("reconcile", move || reconciler.run(&ended))?;
        plane.discover(wanted, mode, &publisher)?;
        Ok(plane)
    }

    /// Starts what finds sources.
    fn discover(
        &mut self,
        wanted: Wanted,
        mode: Mode,
        publisher: &dyn Fn(Origin) -> Publisher,
    ) -> Result<()> {
        let (metrics, rules) = (self.metrics.clone(), wanted.rules);
        let stop = || self.stop.clone();
        // What another command line looked for and this one does not is not there any more.
        let nothing = |origin: Origin| {
            let mut publisher = publisher(origin);
            let generation = publisher.generation();
            publisher.snapshot(generation, Vec::new());
        };
        fixed::publish(&wanted.named, &mut publisher(Origin::Static));
        let told = publisher(Origin::File);
        let files = Filesystem::new(wanted.patterns, mode, told, metrics.clone());
        let ends = stop();
        let mut threads: Vec<(&str, Work)> =
            vec![("filesystem_watch", Box::new(move || files.run(&ends)))];
        match wanted.docker {
            Some(socket) => {
                let told = publisher(Origin::Docker);
                let docker = Docker::new(socket, mode, rules.clone(), told, metrics.clone());
                let ends = stop();
                threads.push(("docker_watch", Box::new(move || docker.run(&ends))));
            }
            None => nothing(Origin::Docker),
        }
        match wanted.node {
            Some(node) => {
                let told = publisher(Origin::Kubernetes);
                // Nodes that start together do not ask together.
                let seed = Digest::of(node.name.as_bytes());
                let seed = u64::from_str_radix(seed.short(), 16).unwrap_or_default();
                let pods = Kubernetes::new(node, mode, rules, told, metrics, seed);
                let ends = stop();
                threads.push(("k8s_watch", Box::new(move || pods.run(&ends))));
            }
            None => nothing(Origin::Kubernetes),
        }
        for (name, work) in threads {
            self.spawn(name, work)?;
        }
        Ok(())
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned());
        self.threads.push(thread.spawn(work)?);
        Ok(())
    }

    /// Ends it; until then what it asks of the agent is answered by `serve`.
    fn stop(self, mut serve: impl FnMut()) {
        self.stop.stop();
        self.ended.store(true, Ordering::Release);
        for thread in self.threads {
            while !thread.is_finished() {
                self.bus.wake();
                serve();
                std::thread::park_timeout(Duration::from_millis(5));
            }
            if thread.join().is_err() {
                tracing::error!("a thread of the control plane panicked");
            }
        }
    }
}
