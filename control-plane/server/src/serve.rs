//! `tailwater-control serve`.

use std::sync::Arc;
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
use tailwater_control::listen::{Server, serve as listen};
use tailwater_control::notify::{Kind, Notifier};
use tailwater_control::offers::Offers;
use tailwater_control::port::{Limits, Port};
use tailwater_control::sign::SigningKey;
use tailwater_control::trust::Trust;
use tailwater_control::{now_ms, tls};
use tailwater_control_plane::metrics::Metrics;
use tailwater_control_plane::rollout::Policy;
use tailwater_control_plane::rollout::model::{Select, Stage};
use tailwater_control_plane::store::SqliteStore;
use tailwater_telemetry::metrics::MetricsRegistry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

use crate::cli::{PolicyArgs, ServeArgs};

/// An agent that is away for so long is forgotten, ms.
const AWAY_MS_MAX: u64 = 24 * 3_600_000;
/// Files that are open besides connections.
const DESCRIPTORS_OWN: u64 = 64;
/// How often texts that nobody needs are looked for.
const FORGET_INTERVAL: Duration = Duration::from_secs(3600);
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
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let subscriber = tracing_subscriber::registry()
        .with(LevelFilter::INFO)
        .with(log);
    tracing::subscriber::set_global_default(subscriber)?;
    let store = Arc::new(SqliteStore::open(&args.state.join("control-plane.db"))?);
    let authority = authority(args, &store)?;
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => {
            let files = tls::Files {
                cert,
                key,
                client_ca: args.client_ca.as_deref(),
                client_crl: args.client_crl.as_deref(),
                authority: authority.as_ref(),
            };
            Some(tls::listener(&files).map_err(|e| anyhow!(e))?)
        }
        _ => None,
    };
    let descriptors = raise_descriptors();
    if descriptors < args.connections_max as u64 + DESCRIPTORS_OWN {
        tracing::warn!(
            "this process may have {descriptors} open files, fewer than --connections-max asks for ({})",
            args.connections_max
        );
    }
    let audit = Audit::open(&args.state).with_context(|| args.state.display().to_string())?;
    let audit = Arc::new(audit);
    let hub = Arc::new(Hub::new(args.agents_max, authority.is_some()));
    let registry = Arc::new(MetricsRegistry::default());
    let notifier = Arc::new(Notifier::new(receivers(args)?, &args.state));
    let finder = finder(args, &hub)?;
    let groups = Arc::new(Groups::new(Shared {
        offers: Arc::new(Offers::new(store.clone(), key)),
        store,
        hub: hub.clone(),
        audit: audit.clone(),
        metrics: Metrics::new(registry.clone()),
        policy,
        holder: tailwater_control::access::new_token()?,
        probe_ms: args.policy.probe_interval,
        by_query: finder.is_some(),
        notifier: notifier.clone(),
    })?);
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
            audit,
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
    let told = Told { notifier, finder };
    runtime.block_on(run(args, server, &hub, &groups, told))?;
    runtime.shutdown_timeout(Duration::from_secs(2));
    Ok(())
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

/// What runs besides the listener.
struct Told {
    notifier: Arc<Notifier>,
    finder: Option<Arc<Finder>>,
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
    hub: &Hub,
    groups: &Arc<Groups>,
    told: Told,
) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen at {}", args.listen))?;
    tracing::info!("listens at {}", listener.local_addr()?);
    let (stop, stopped) = watch::channel(false);
    let telling = tokio::spawn(told.notifier.run(stopped.clone()));
    let looking = told.finder.map(|finder| {
        let stopped = stopped.clone();
        tokio::spawn(async move { finder.run(stopped).await })
    });
    let accepting = tokio::spawn(listen(listener, server.clone(), stopped));
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut look = tokio::time::interval(GROUPS_INTERVAL);
    // Not at the start: then it is not known what agents run.
    let first = tokio::time::Instant::now() + FORGET_INTERVAL;
    let mut clean = tokio::time::interval_at(first, FORGET_INTERVAL);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = look.tick() => look_after(hub, groups),
            _ = clean.tick() => {
                let groups = groups.clone();
                let authority = server.port.trust.authority.clone();
                // The store is on disk.
                tokio::task::spawn_blocking(move || forget(&groups, authority.as_deref()));
            }
        }
    }
    tracing::info!("ends; agents go on with what they have");
    stop.send_replace(true);
    let _ = accepting.await;
    let _ = telling.await;
    if let Some(looking) = looking {
        let _ = looking.await;
    }
    Ok(())
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
fn authority(args: &ServeArgs, store: &Arc<SqliteStore>) -> Result<Option<Arc<Authority>>> {
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
fn forget(groups: &Groups, authority: Option<&Authority>) {
    if let Some(Err(error)) = authority.map(|a| a.forget_ended(now_ms())) {
        tracing::error!("certificates that have ended stay: {error}");
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
    policy.baseline_ms = args.baseline;
    policy.confirm_ms = args.confirm;
    policy.poll_ms = args.poll;
    policy.reconcile_ms = args.reconcile;
    policy.offer_ms = args.offer_timeout;
    policy.rollback_ms = args.offer_timeout;
    policy.limits.resources_factor = args.resources_factor;
    policy.freeze_after = args.freeze_after as usize;
    policy.ailing_ms = args.ailing;
    // A short soak is judged by short windows.
    policy.limits.window_ms_min = policy.limits.window_ms_min.min(args.soak / 3);
    Ok(policy)
}
