//! The suite of all stores, and what is of this one, on a real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tailwater_testkit::postgres::{PASSWORD, Postgres, find};

use super::*;
use crate::bus::{Bus, EmbeddedBus, ReadFrom};
use crate::store::suite::{
    absent, check, check_fleet, check_rollouts, leases_have_one_holder, next_version, pins_hold,
    record, rows, source,
};
use crate::store::{Releases, RolloutStore, Store};

/// How long anything is waited for.
const BOUND: Duration = Duration::from_secs(120);

/// A server, where there is one.
fn server() -> Option<Postgres> {
    match find() {
        Ok(binaries) => Some(Postgres::start(&binaries)),
        Err(why) => {
            println!("SKIPPED: the store in PostgreSQL: {why}");
            None
        }
    }
}

fn address(server: &Postgres) -> Address {
    Address::parse(&server.url(), None).unwrap()
}

fn open(server: &Postgres) -> PostgresStore {
    PostgresStore::open(address(server)).unwrap()
}

/// One with nothing in it, whose leases go by the clock of the caller.
fn anew(server: &Postgres) -> PostgresStore {
    sql(server, "DROP SCHEMA IF EXISTS tailwater_control CASCADE");
    PostgresStore::with_clock(address(server), true).unwrap()
}

fn sql(server: &Postgres, text: &str) {
    address(server)
        .connect()
        .unwrap()
        .batch_execute(text)
        .unwrap();
}

fn text(error: &StoreError) -> String {
    error.to_string()
}

#[test]
fn postgres_keeps_to_it() {
    let Some(server) = server() else { return };
    check(|| anew(&server));
    check_rollouts(|| anew(&server));
    check_fleet(|| anew(&server));
    pins_hold(&anew(&server));
    let store = anew(&server);
    for line in ["one", "two", "three"] {
        store.keep_audit(7, line).unwrap();
    }
    assert_eq!(store.audit(2).unwrap(), ["three", "two"]);
}

/// Guarantee: the bus over it keeps to what every bus does, also when the database is killed.
#[test]
fn the_bus_over_it_keeps_to_it() {
    let Some(server) = server() else { return };
    let store = Arc::new(anew(&server));
    crate::bus::suite::check(&mut BusBench { server, store });
}

struct BusBench {
    server: Postgres,
    store: Arc<PostgresStore>,
}

impl crate::bus::suite::Bench for BusBench {
    fn anew(&mut self) {
        self.store = Arc::new(anew(&self.server));
    }

    fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(EmbeddedBus::new(self.store.clone(), || 0))
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    fn crash(&mut self) {
        self.server.kill();
        self.server.start_again();
        self.store = Arc::new(open(&self.server));
    }

    fn forget_before(&mut self, seq: u64) {
        let newest = self.store.events_after(0, 1_000).unwrap();
        let newest = newest.last().unwrap().seq;
        self.store.advance("everybody", newest).unwrap();
        self.store.prune_events(newest + 1 - seq).unwrap();
    }
}

/// Guarantee: each reason for which a database cannot be used is told by name, with what to do, and without a password.
#[test]
fn what_is_wrong_is_said() {
    let Some(mut server) = server() else { return };
    let refused = |url: &str, password: Option<&str>| {
        let address = Address::parse(url, password).unwrap();
        let said = text(&PostgresStore::open(address).err().unwrap());
        assert!(
            !said.contains(PASSWORD) && !said.contains("wr0ng"),
            "{said}"
        );
        said
    };
    let bare = server.url_without_password();
    let wrong = refused(&bare, Some("wr0ng"));
    assert!(wrong.contains("password authentication failed"), "{wrong}");
    assert!(
        wrong.contains("the user tailwater or its password is wrong"),
        "{wrong}"
    );
    let none = refused(&bare, None);
    assert!(none.contains("password"), "{none}");
    let nowhere = refused(&bare.replace("/postgres", "/nowhere"), Some(PASSWORD));
    assert!(nowhere.contains("CREATE DATABASE"), "{nowhere}");
    let open_url = server.url().replace("127.0.0.1", "localhost") + "?sslmode=require";
    let no_tls = refused(&open_url, None);
    assert!(no_tls.to_lowercase().contains("tls"), "{no_tls}");
    sql(&server, "CREATE ROLE poor LOGIN PASSWORD 'poor'");
    let poor = bare.replace("tailwater@", "poor@");
    let poor = refused(&poor, Some("poor"));
    assert!(poor.contains("needs CREATE on the database"), "{poor}");
    // A newer program was here, and its schema stays as it is.
    drop(open(&server));
    sql(
        &server,
        "UPDATE tailwater_control.schema_version SET version = 99",
    );
    let newer = PostgresStore::open(address(&server)).err().unwrap();
    assert!(matches!(newer, StoreError::TooNew { found: 99, .. }));
    assert!(text(&newer).contains("use the newer program"));
    server.kill();
    let gone = refused(&server.url(), None);
    assert!(gone.contains("error connecting to server"), "{gone}");
    assert!(gone.contains(&server.address().to_string()), "{gone}");
}

/// Guarantee: several that come at once to a database without a schema make one, and none fails.
#[test]
fn the_schema_is_made_once() {
    let Some(server) = server() else { return };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| open(&server));
        }
    });
    let store = open(&server);
    let versions = store.transact(|t| t.value::<i64>("SELECT count(*) FROM schema_version", &[]));
    assert_eq!(versions.unwrap(), Some(1));
}

/// Guarantee: of events that several processes publish at once, a consumer that goes by their places misses none, and
/// a key is taken once.
#[test]
fn no_event_appears_below_one_that_was_seen() {
    const WRITERS: i64 = 4;
    const EACH: i64 = 60;
    let Some(server) = server() else { return };
    drop(open(&server));
    let done = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        let writer = |of: i64| {
            let store = open(&server);
            let mut new = 0;
            for n in 0..EACH {
                // Half of the keys are those of a neighbour.
                let key = format!("{}/{n}", of / 2);
                new += usize::from(store.publish(&key, &absent(n), 0).unwrap().is_some());
            }
            new
        };
        let writers: Vec<_> = (0..WRITERS)
            .map(|of| scope.spawn(move || writer(of)))
            .collect();
        let reader = scope.spawn(|| {
            let store: Arc<dyn Store> = Arc::new(open(&server));
            let bus = EmbeddedBus::new(store, || 0);
            let mut reader = bus.subscribe("r", ReadFrom::Acknowledged).unwrap();
            let mut seen = Vec::new();
            loop {
                let is_last = done.load(Ordering::SeqCst);
                let events = reader.next(7, Duration::ZERO).unwrap().events;
                if events.is_empty() && is_last {
                    return seen;
                }
                if let Some(last) = events.last() {
                    reader.acknowledge(last.seq).unwrap();
                }
                seen.extend(events.into_iter().map(|e| e.key));
            }
        });
        let new: usize = writers.into_iter().map(|w| w.join().unwrap()).sum();
        done.store(true, Ordering::SeqCst);
        assert_eq!(new as i64, WRITERS / 2 * EACH);
        reader.join().unwrap()
    });
    let mut keys = taken.clone();
    keys.sort();
    keys.dedup();
    assert_eq!(
        (taken.len(), keys.len()),
        (keys.len(), (WRITERS / 2 * EACH) as usize)
    );
}

/// Guarantee: what several submit at once is taken in once each, however it meets.
#[test]
fn no_input_is_passed_over() {
    const WRITERS: u64 = 4;
    const EACH: u64 = 40;
    let Some(server) = server() else { return };
    let store = open(&server);
    store.lease("g", "me", 0, 600_000).unwrap();
    std::thread::scope(|scope| {
        for of in 0..WRITERS {
            let server = &server;
            scope.spawn(move || {
                let store = open(server);
                for n in 0..EACH {
                    let key = format!("{of}/{n}");
                    assert!(store.submit("g", &key, &key).unwrap());
                }
            });
        }
        let mut taken = std::collections::BTreeSet::new();
        let begun = Instant::now();
        while taken.len() < (WRITERS * EACH) as usize {
            assert!(begun.elapsed() < BOUND, "only {} came", taken.len());
            let Some(next) = store.submitted("g").unwrap() else {
                continue;
            };
            let step = taken.len() as u64 + 1;
            let kept = store.keep_rollout("g", &record(1, step), "{}", &[], Some(next.seq));
            assert!(kept.unwrap());
            assert!(taken.insert(next.body.clone()), "{} came twice", next.body);
        }
    });
}

/// Guarantee: of several processes that want to lead, one does at a time, by the clock of the database and not by theirs;
/// what a former one wants to keep is not kept, whatever moment it chooses; steps follow each other without a gap.
#[test]
fn one_leads_and_the_former_one_changes_nothing() {
    let Some(server) = server() else { return };
    let (a, b) = (open(&server), open(&server));
    // The clock of b is an hour ahead, which says nothing.
    assert_eq!(a.lease("g", "a", 0, 60_000).unwrap(), Some(1));
    assert_eq!(b.lease("g", "b", 3_600_000, 60_000).unwrap(), None);
    assert!(a.keep_rollout("g", &record(1, 1), "a", &[], None).unwrap());
    assert!(!b.keep_rollout("g", &record(2, 2), "b", &[], None).unwrap());
    sql(&server, "UPDATE tailwater_control.leases SET until_ms = 0");
    assert_eq!(b.lease("g", "b", 0, 60_000).unwrap(), Some(2));
    assert!(!a.keep_rollout("g", &record(1, 2), "a", &[], None).unwrap());
    assert_eq!(a.rollout("g").unwrap().as_deref(), Some("a"));
    assert!(b.keep_rollout("g", &record(2, 2), "b", &[], None).unwrap());
    // And with leases that end all the time.
    std::thread::scope(|scope| {
        for name in ["x", "y", "z"] {
            let server = &server;
            scope.spawn(move || {
                let store = open(server);
                for _ in 0..60 {
                    let Some(epoch) = store.lease("race", name, 0, 3).unwrap() else {
                        continue;
                    };
                    let newest = store.steps("race", 1).unwrap();
                    let step = newest.first().map_or(0, |s| s.step) + 1;
                    let record = record(epoch, step);
                    store
                        .keep_rollout("race", &record, name, &[], None)
                        .unwrap();
                }
            });
        }
    });
    let mut steps = a.steps("race", 1_000).unwrap();
    steps.reverse();
    assert!(steps.iter().map(|s| s.step).eq(1..=steps.len() as u64));
    assert!(steps.is_sorted_by_key(|s| s.epoch), "{steps:?}");
    assert!(steps.last().unwrap().epoch > 1, "nobody else ever led");
}

/// Guarantee: a server that is killed in the middle of everything and comes back loses nothing that was kept, and nothing is
/// done twice; meanwhile the store says what is wrong, and afterwards it goes on by itself.
#[test]
fn a_killed_server_loses_nothing() {
    let Some(mut server) = server() else { return };
    let store = open(&server);
    let keep = |kept: &mut Vec<u64>, from: u64| {
        // By a key of its own, what is not known to be kept may be said again.
        for n in from..from + 20 {
            let begun = Instant::now();
            loop {
                match store.publish(&n.to_string(), &absent(n as i64), 0) {
                    Ok(_) => break kept.push(n),
                    Err(error) => assert!(begun.elapsed() < BOUND, "{error}"),
                }
            }
        }
    };
    let mut kept = Vec::new();
    keep(&mut kept, 0);
    for round in 1..=3 {
        let versions = next_version(&store, "g");
        server.kill();
        // The process of a connection may answer once more before it notices.
        let begun = Instant::now();
        let away = loop {
            match store.version() {
                Ok(_) => assert!(begun.elapsed() < BOUND, "it answers for ever"),
                Err(away) => break away,
            }
        };
        assert!(matches!(away, StoreError::Server { .. }), "{away}");
        let again = text(&store.version().err().unwrap());
        assert!(again.contains("postgres at 127.0.0.1"), "{again}");
        std::thread::scope(|scope| {
            // It is asked while it is away and while it comes back.
            scope.spawn(|| keep(&mut kept, round * 20));
            server.start_again();
        });
        assert!(next_version(&store, "g") > versions);
    }
    let events = store.events_after(0, 1_000).unwrap();
    let keys: Vec<u64> = events.iter().map(|e| e.key.parse().unwrap()).collect();
    assert_eq!(keys, kept);
    assert_eq!(keys, (0..80).collect::<Vec<_>>());
    assert_eq!(store.releases("g", 100).unwrap().len(), 6);
    // Connections that the server ends by itself are not noticed.
    for _ in 0..3 {
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE pid <> pg_backend_pid() AND application_name = 'tailwater-control'";
        sql(&server, others);
        assert_eq!(store.events_after(0, 1_000).unwrap().len(), 80);
        store
            .apply(&rows(vec![source("docker:a", 5)]), None)
            .unwrap();
    }
}

/// Guarantee: it can be used from within a runtime, and ended there.
#[test]
fn it_works_within_a_runtime() {
    let Some(server) = server() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = PostgresStore::with_clock(address(&server), true).unwrap();
        leases_have_one_holder(&store);
    });
}

/// Guarantee: with TLS the server has to show a certificate of whom is trusted, for its name; the password is bound to
/// the connection.
#[test]
fn tls_is_checked() {
    let binaries = match find() {
        Ok(binaries) => binaries,
        Err(why) => return println!("SKIPPED: TLS to PostgreSQL: {why}"),
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    let server = Postgres::start_with_tls(&binaries, &cert.pem(), &key.serialize_pem());
    let dir = tempfile::tempdir().unwrap();
    let trusted = dir.path().join("ca.pem");
    std::fs::write(&trusted, cert.pem()).unwrap();
    let at = |host: &str, query: &str| {
        let url = server.url().replace("127.0.0.1", host) + query;
        PostgresStore::open(Address::parse(&url, None).unwrap())
    };
    let query = format!("?sslrootcert={}&channel_binding=require", trusted.display());
    let store = at("localhost", &query).unwrap();
    let is_secure = store.transact(|t| {
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        t.value::<bool>(sql, &[])
    });
    assert_eq!(is_secure.unwrap(), Some(true));
    let other_name = text(&at("127.0.0.1", &query).err().unwrap());
    assert!(
        other_name.contains("certificate not valid for name"),
        "{other_name}"
    );
    let unknown = text(&at("localhost", "?sslmode=verify-full").err().unwrap());
    assert!(
        unknown.contains("UnknownIssuer") || unknown.contains("certificate"),
        "{unknown}"
    );
}
