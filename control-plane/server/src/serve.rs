//! `tailwater-control serve`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tailwater_control::access::Access;
use tailwater_control::api::{Api, Gauges};
use tailwater_control::audit::Audit;
use tailwater_control::groups::{Groups, Shared, fallback};
use tailwater_control::hub::Hub;
use tailwater_control::listen::{Server, serve as listen};
use tailwater_control::port::{Limits, Port};
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
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let subscriber = tracing_subscriber::registry()
        .with(LevelFilter::INFO)
        .with(log);
    tracing::subscriber::set_global_default(subscriber)?;
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => {
            let files = tls::Files {
                cert,
                key,
                client_ca: args.client_ca.as_deref(),
                client_crl: args.client_crl.as_deref(),
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
    let store = Arc::new(SqliteStore::open(&args.state.join("control-plane.db"))?);
    let audit = Audit::open(&args.state).with_context(|| args.state.display().to_string())?;
    let audit = Arc::new(audit);
    let hub = Arc::new(Hub::new(args.agents_max));
    let registry = Arc::new(MetricsRegistry::default());
    let groups = Arc::new(Groups::new(Shared {
        store,
        hub: hub.clone(),
        audit: audit.clone(),
        metrics: Metrics::new(registry.clone()),
        policy,
        holder: tailwater_control::access::new_token()?,
    })?);
    let gauges = Gauges::default();
    let limits = Limits {
        message_bytes_max: args.message_bytes_max,
        ..Limits::default()
    };
    let server = Arc::new(Server {
        port: Arc::new(Port::new(hub.clone(), limits)),
        api: Arc::new(Api {
            hub: hub.clone(),
            groups: groups.clone(),
            audit,
            access,
            registry,
            gauges: gauges.clone(),
        }),
        tls: tls.map(tokio_rustls::TlsAcceptor::from),
        certificates: args.client_ca.is_some(),
        connections_max: args.connections_max,
        connections: gauges.connections,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run(args, server, &hub, &groups))?;
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

async fn run(args: &ServeArgs, server: Arc<Server>, hub: &Hub, groups: &Groups) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen at {}", args.listen))?;
    tracing::info!("listens at {}", listener.local_addr()?);
    let (stop, stopped) = watch::channel(false);
    let accepting = tokio::spawn(listen(listener, server, stopped));
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut look = tokio::time::interval(GROUPS_INTERVAL);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = look.tick() => look_after(hub, groups),
        }
    }
    tracing::info!("ends; agents go on with what they have");
    stop.send_replace(true);
    let _ = accepting.await;
    Ok(())
}

/// Has each group of an agent driven, and forgets agents that are away.
fn look_after(hub: &Hub, groups: &Groups) {
    let mut found = std::collections::BTreeSet::new();
    hub.each(|_, agent| {
        if agent.peer.is_configurable() && !found.contains(&agent.group) {
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
    if args.client_ca.is_none() && !access.agents_need_one() {
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
    // A short soak is judged by short windows.
    policy.limits.window_ms_min = policy.limits.window_ms_min.min(args.soak / 3);
    Ok(policy)
}
