//! `tailwater-control serve`.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tailwater_control::access::Access;
use tailwater_control::api::{Api, Gauges};
use tailwater_control::audit::Audit;
use tailwater_control::authority::{Authority, Terms};
use tailwater_control::finder::Finder;
use tailwater_control::groups::{Groups, Shared, fallback};
use tailwater_control::http::Target;
use tailwater_control::hub::Hub;
use tailwater_control::leader::Leader;
use tailwater_control::listen::{Server, serve as listen};
use tailwater_control::notify::{Kind, Notifier};
use tailwater_control::offers::Offers;
use tailwater_control::port::{Limits, Port};
use tailwater_control::repeated::Repeated;
use tailwater_control::sign::SigningKey;
use tailwater_control::sources::Sources;
use tailwater_control::trust::Trust;
use tailwater_control::{bus, now_ms, reports, secret, tls};
use tailwater_control_plane::bus::Bus;
use tailwater_control_plane::metrics::Metrics;
use tailwater_control_plane::rollout::Policy;
use tailwater_control_plane::rollout::model::{Select, Stage};
use tailwater_control_plane::store::postgres::Address;
use tailwater_control_plane::store::{FleetStore, Notified, PostgresStore, SqliteStore, Store};
use tailwater_telemetry::metrics::MetricsRegistry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;

use crate::cli::{PolicyArgs, ServeArgs};

/// An agent that is away for so long is forgotten, ms.
const AWAY_MS_MAX: u64 = 24 * 3_600_000;
/// Sources that are gone are listed for so long, ms.
const GONE_MS_MAX: u64 = 3_600_000;
/// Files that are open besides connections.
const DESCRIPTORS_OWN: u64 = 64;
/// How often texts that nobody needs are looked for.
const FORGET_INTERVAL: Duration = Duration::from_secs(3600);
/// How often reports of agents are taken.
const REPORTS_INTERVAL: Duration = Duration::from_millis(500);
/// How often new groups are looked for.
const GROUPS_INTERVAL: Duration = Duration::from_secs(1);

/// Serves until a signal stops it.
pub fn serve(args: &ServeArgs) -> Result<()> {
    let access = match &args.tokens {
        Some(path) => Access::of_file(path).map_err(|e| anyhow!(e))?,
        None => Access::open(),
    };
    check_exposure(args, &access)?;
    let policy = policy(&args.policy)?;
    let key = args.signing_key.as_deref().map(SigningKey::of_file);
    let key = key.transpose().map_err(|e| anyhow!(e))?;
    log_to_stderr()?;
    let holder = tailwater_control::access::new_token()?;
    let Kept {
        store,
        registry: kept_sources,
        audit,
        leader,
    } = kept(args, &holder)?;
    let authority = authority(args, &store)?;
    let tls = secured(args, authority.as_ref())?;
    let descriptors = raise_descriptors();
    if descriptors < args.connections_max as u64 + DESCRIPTORS_OWN {
        tracing::warn!(
            "this process may have {descriptors} open files, fewer than --connections-max asks for ({})",
            args.connections_max
        );
    }
    let audit = Arc::new(audit);
    let hub = Arc::new(Hub::new(args.agents_max, authority.is_some()));
    let registry = Arc::new(MetricsRegistry::default());
    let metrics = Metrics::new(registry.clone());
    let events = events(args, &kept_sources)?;
    let sources = Sources::open(kept_sources, events, metrics.clone(), now_ms())?;
    let notified: Arc<dyn Notified> = store.clone();
    let notifier = Arc::new(Notifier::new(receivers(args)?, &notified));
    let finder = finder(args, &hub)?;
    let groups = Arc::new(Groups::new(Shared {
        offers: Arc::new(Offers::new(store.clone(), key)),
        store,
        hub: hub.clone(),
        audit: audit.clone(),
        metrics,
        policy,
        holder,
        probe_ms: args.policy.probe_interval,
        settle: Duration::from_millis(args.return_timeout),
        by_query: finder.is_some(),
        notifier: notifier.clone(),
    }));
    let gauges = Gauges::default();
    let limits = Limits {
        message_bytes_max: args.message_bytes_max,
        ..Limits::default()
    };
    let trust = Trust {
        authority: authority.clone(),
        needs_certificate: args.client_ca.is_some(),
    };
    let server = Arc::new(Server {
        port: Arc::new(Port::new(hub.clone(), limits, trust)),
        api: Arc::new(Api {
            hub: hub.clone(),
            groups: groups.clone(),
            sources: Arc::new(sources),
            audit,
            leader: Arc::new(leader),
            access,
            authority: authority.clone(),
            registry,
            gauges: gauges.clone(),
            notifier: notifier.clone(),
            finder: finder.clone(),
        }),
        tls: tls.map(tokio_rustls::TlsAcceptor::from),
        connections_max: args.connections_max,
        connections: gauges.connections,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let leader = server.api.leader.clone();
    let mut unknown = Repeated::default();
    let has_led = stand(&server, &groups, false, &mut unknown)?;
    if !has_led {
        tracing::info!("stands by");
    }
    let leading = Leading {
        notifier,
        finder,
        tasks: Vec::new(),
    };
    let done = runtime.block_on(run(args, server, &groups, leading, has_led));
    runtime.shutdown_timeout(Duration::from_secs(2));
    groups.stop();
    leader.resign();
    done
}

fn log_to_stderr() -> Result<()> {
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // What happens to connections of the bus is said by us.
    let shown = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("async_nats", LevelFilter::OFF);
    let subscriber = tracing_subscriber::registry().with(shown).with(log);
    Ok(tracing::subscriber::set_global_default(subscriber)?)
}

/// TLS of the listener, if there is any.
fn secured(
    args: &ServeArgs,
    authority: Option<&Arc<Authority>>,
) -> Result<Option<Arc<rustls::ServerConfig>>> {
    let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) else {
        return Ok(None);
    };
    let files = tls::Files {
        cert,
        key,
        client_ca: args.client_ca.as_deref(),
        client_crl: args.client_crl.as_deref(),
        authority,
    };
    Ok(Some(tls::listener(&files).map_err(|e| anyhow!(e))?))
}

/// Where everything is kept, and whether others keep it there, too.
struct Kept {
    store: Arc<dyn FleetStore>,
    registry: Arc<dyn Store>,
    audit: Audit,
    leader: Leader,
}

/// What keeps everything: a file of the state directory, or a database.
fn kept(args: &ServeArgs, holder: &str) -> Result<Kept> {
    let Some(url) = &args.database else {
        let store = SqliteStore::open(&args.state.join("control-plane.db"))?;
        let store = Arc::new(store);
        return Ok(Kept {
            store: store.clone(),
            registry: store,
            audit: Audit::open(&args.state).with_context(|| args.state.display().to_string())?,
            leader: Leader::alone(),
        });
    };
    let file = args.database_password_file.as_deref().map(secret::read);
    let password = file.transpose().map_err(|e| anyhow!(e))?;
    // The line's end is none of it.
    let password = password
        .as_deref()
        .map(|p| p.trim_end_matches(['\r', '\n']));
    let mut address = Address::parse(url, password).map_err(|e| anyhow!(e))?;
    if let Ok(password) = std::env::var("PGPASSWORD") {
        address = address.or_password(&password);
    }
    tracing::info!("keeps everything in the database {address}");
    let store = Arc::new(PostgresStore::open(address)?);
    Ok(Kept {
        audit: Audit::of_database(store.clone()),
        leader: Leader::among(store.clone(), holder.to_owned()),
        registry: store.clone(),
        store,
    })
}

/// The bus.
fn events(args: &ServeArgs, store: &Arc<dyn Store>) -> Result<Arc<dyn Bus>> {
    let own = &args.bus;
    let named = own.bus.as_deref().map(|place| bus::Nats {
        place,
        stream: &own.bus_stream,
        credentials: own.bus_credentials.as_deref(),
        authorities: args.ca_file.as_deref(),
        certificate: own.bus_cert.as_deref().zip(own.bus_key.as_deref()),
        plain: own.bus_without_tls,
    });
    bus::open(named, store.clone()).map_err(|e| anyhow!("--bus: {e}"))
}

/// Allows as many open files as this process may have, and says how many.
fn raise_descriptors() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    let now = match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.current,
        Err(_) => before,
    };
    now.unwrap_or(u64::MAX)
}

/// What runs besides the listener while this control plane leads: nothing of it before.
struct Leading {
    notifier: Arc<Notifier>,
    finder: Option<Arc<Finder>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Leading {
    /// It leads: people are told, and sample lines are looked for.
    fn begin(&mut self, stopped: &watch::Receiver<bool>) {
        let telling = self.notifier.clone().run(stopped.clone());
        self.tasks.push(tokio::spawn(telling));
        if let Some(finder) = self.finder.clone() {
            let stopped = stopped.clone();
            let looking = async move { finder.run(stopped).await };
            self.tasks.push(tokio::spawn(looking));
        }
    }

    /// It is told to stop.
    async fn end(self) {
        for task in self.tasks {
            // One that panicked has said so.
            let _ = task.await;
        }
    }
}

/// Who is told what the matter is.
fn receivers(args: &ServeArgs) -> Result<Vec<(Kind, Target)>> {
    let all = [
        (Kind::Alertmanager, &args.alertmanager),
        (Kind::Webhook, &args.webhook),
    ];
    let mut receivers = Vec::new();
    for (kind, places) in all {
        for place in places {
            let target = Target::of(place).map_err(|e| anyhow!("--{}: {e}", kind.name()))?;
            receivers.push((kind, target.trusting(args.ca_file.clone())));
        }
    }
    Ok(receivers)
}

/// Looks for sample lines, if somebody said where.
fn finder(args: &ServeArgs, hub: &Arc<Hub>) -> Result<Option<Arc<Finder>>> {
    let Some(place) = &args.loki else {
        return Ok(None);
    };
    let loki = Target::of(place).map_err(|e| anyhow!("--loki: {e}"))?;
    Ok(Some(Arc::new(Finder {
        loki: loki.trusting(args.ca_file.clone()),
        hub: hub.clone(),
        every: Duration::from_millis(args.policy.poll.max(1_000)),
        answered: Default::default(),
        failed: Default::default(),
    })))
}

async fn run(
    args: &ServeArgs,
    server: Arc<Server>,
    groups: &Arc<Groups>,
    mut leading: Leading,
    mut has_led: bool,
) -> Result<()> {
    let hub = server.api.hub.clone();
    let listener = tokio::net::TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen at {}", args.listen))?;
    tracing::info!("listens at {}", listener.local_addr()?);
    let (stop, stopped) = watch::channel(false);
    if has_led {
        leading.begin(&stopped);
    }
    let accepting = tokio::spawn(listen(listener, server.clone(), stopped.clone()));
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut look = tokio::time::interval(GROUPS_INTERVAL);
    let mut lead = pin!(tokio::time::sleep(server.api.leader.pause()));
    let mut done = Ok(());
    let mut unknown = Repeated::default();
    let reporting = tokio::spawn(take_reports(server.clone()));
    // Not at the start: then it is not known what agents run.
    let first = tokio::time::Instant::now() + FORGET_INTERVAL;
    let mut clean = tokio::time::interval_at(first, FORGET_INTERVAL);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = &mut lead => {
                match ask(&server, groups, has_led, &mut unknown).await {
                    Ok(true) if !has_led => {
                        has_led = true;
                        leading.begin(&stopped);
                    }
                    Ok(_) => {}
                    Err(over) => {
                        done = Err(over);
                        break;
                    }
                }
                let pause = server.api.leader.pause();
                lead.as_mut().reset(tokio::time::Instant::now() + pause);
            }
            _ = look.tick(), if has_led => look_after(&hub, groups),
            _ = clean.tick(), if has_led => {
                let groups = groups.clone();
                let server = server.clone();
                // The store is on disk.
                tokio::task::spawn_blocking(move || forget(&groups, &server));
            }
        }
    }
    tracing::info!("ends; agents go on with what they have");
    stop.send_replace(true);
    let _ = accepting.await;
    reporting.abort();
    leading.end().await;
    done
}

/// As [`stand`], without holding up who waits.
async fn ask(
    server: &Arc<Server>,
    groups: &Arc<Groups>,
    has_led: bool,
    unknown: &mut Repeated,
) -> Result<bool> {
    let (server, groups) = (server.clone(), groups.clone());
    let mut said = std::mem::take(unknown);
    // The store is on disk.
    let asked = tokio::task::spawn_blocking(move || {
        let stands = stand(&server, &groups, has_led, &mut said);
        (stands, said)
    });
    let (stands, said) = asked.await?;
    *unknown = said;
    stands
}

/// Leads if nobody else does. An error if it led and another one does now: what this process knows counts no more.
fn stand(server: &Server, groups: &Groups, has_led: bool, unknown: &mut Repeated) -> Result<bool> {
    let leader = &server.api.leader;
    let leads = match leader.ask() {
        Ok(leads) => leads,
        Err(error) => {
            let text = error.to_string();
            if unknown.is_news(&text) {
                tracing::error!("it is not known who leads: {text}");
            }
            return Ok(false);
        }
    };
    match (leads, has_led) {
        (true, false) => {
            // What the one before kept.
            if let Some(authority) = &server.port.trust.authority {
                authority.reload()?;
            }
            server.api.sources.reload(now_ms())?;
            groups.start()?;
            leader.begin();
            tracing::info!("leads");
            Ok(true)
        }
        (false, true) => bail!("another control plane leads now; this one ends, to begin anew"),
        (leads, _) => Ok(leads),
    }
}

/// Takes what agents report of what they read, while this leads, until it is dropped.
async fn take_reports(server: Arc<Server>) {
    let mut look = tokio::time::interval(REPORTS_INTERVAL);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let said = Arc::new(Mutex::new(Repeated::default()));
    loop {
        look.tick().await;
        if !server.api.leader.leads() {
            continue;
        }
        let (server, said) = (server.clone(), said.clone());
        // The store is on disk. A panic is said by itself.
        let taking = tokio::task::spawn_blocking(move || {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            reports::take(&server.api.hub, &server.api.sources, &mut said);
        });
        let _ = taking.await;
    }
}

/// Has each group of an agent driven, and forgets agents that are away.
fn look_after(hub: &Hub, groups: &Groups) {
    let mut found = std::collections::BTreeSet::new();
    hub.each(|_, agent| {
        if agent.is_managed() && !found.contains(&agent.group) {
            found.insert(agent.group.clone());
        }
    });
    for group in found {
        if let Err(error) = groups.ensure(&group) {
            tracing::error!(group, "its agents are not managed: {error}");
        }
    }
    hub.forget(AWAY_MS_MAX, now_ms());
}

/// The authority, if certificates are to be issued.
fn authority(args: &ServeArgs, store: &Arc<dyn FleetStore>) -> Result<Option<Arc<Authority>>> {
    if !args.issue_certificates {
        return Ok(None);
    }
    let terms = Terms {
        lifetime_ms: args.certificate_lifetime,
        approval: args.approve_certificates,
        heartbeat_seconds: (args.heartbeat_interval / 1_000).max(1),
    };
    let opened = Authority::open(&args.state, store.clone(), terms);
    Ok(Some(Arc::new(opened.map_err(|e| anyhow!(e))?)))
}

/// Forgets what nobody needs any more.
fn forget(groups: &Groups, server: &Server) {
    let authority = server.port.trust.authority.as_deref();
    if let Some(Err(error)) = authority.map(|a| a.forget_ended(now_ms())) {
        tracing::error!("certificates that have ended stay: {error}");
    }
    let (api, now) = (&server.api, now_ms());
    let before = now.saturating_sub(GONE_MS_MAX);
    let is_known = |uid| api.hub.knows(uid);
    if let Err(error) = api.sources.forget(is_known, AWAY_MS_MAX, before, now) {
        tracing::error!("sources that are gone stay: {error}");
    }
    match groups.forget_texts() {
        Ok(0) => {}
        Ok(count) => tracing::info!("{count} texts that nobody needs are forgotten"),
        Err(error) => tracing::error!("texts that nobody needs stay: {error}"),
    }
}

/// Nothing is open to others without TLS and tokens.
fn check_exposure(args: &ServeArgs, access: &Access) -> Result<()> {
    if args.listen.ip().is_loopback() {
        return Ok(());
    }
    let at = args.listen;
    if args.tls_cert.is_none() {
        bail!("{at} is no loopback address: --tls-cert and --tls-key are needed");
    }
    if !access.is_closed() {
        bail!("{at} is no loopback address: --tokens is needed");
    }
    let is_approved = args.issue_certificates && args.approve_certificates;
    if args.client_ca.is_none() && !is_approved && !access.agents_need_one() {
        bail!(
            "{at} is no loopback address, and any agent could connect: --client-ca is needed, or a token of \
               the role agent in --tokens"
        );
    }
    Ok(())
}

fn policy(args: &PolicyArgs) -> Result<Policy> {
    if !args.waves.is_sorted() || args.waves.last() != Some(&100) {
        bail!("--waves must grow and end with 100");
    }
    let stage = |select, failures_percent_max| Stage {
        select,
        soak_ms: args.soak,
        failures_percent_max,
    };
    let mut policy = Policy::new(fallback());
    policy.canary = stage(Select::Count(args.canary as usize), 0);
    let wave = |percent: &u8| stage(Select::Percent(*percent), args.failures_percent_max);
    policy.waves = args.waves.iter().map(wave).collect();
    policy.spread_by = args.spread_by.clone();
    policy.approval_ms = args.approval;
    policy.debounce_ms = args.debounce;
    policy.baseline_ms = args.baseline;
    policy.confirm_ms = args.confirm;
    policy.poll_ms = args.poll;
    policy.reconcile_ms = args.reconcile;
    policy.offer_ms = args.offer_timeout;
    policy.rollback_ms = args.offer_timeout;
    policy.limits.resources_factor = args.resources_factor;
    policy.freeze_after = args.freeze_after as usize;
    policy.ailing_ms = args.ailing;
    // A short soak is judged by short windows, and has no time to wait longer than it takes.
    policy.limits.window_ms_min = policy.limits.window_ms_min.min(args.soak / 3);
    policy.settle_ms = policy.settle_ms.min(args.soak);
    Ok(policy)
}
