//! The suite of all buses, and what is of this one, on a real server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use tailwater_testkit::nats::{Nats, find};

use super::*;
use crate::bus::suite::{absent, check};
use crate::bus::{Batch, Gap};
use crate::store::SqliteStore;

/// How long anything is waited for.
const BOUND: Duration = Duration::from_secs(60);

/// A server, where there is one.
fn server() -> Option<Nats> {
    binary().map(|binary| Nats::start(&binary))
}

fn binary() -> Option<std::path::PathBuf> {
    match find() {
        Ok(binary) => Some(binary),
        Err(why) => {
            println!("SKIPPED: the bus of NATS JetStream: {why}");
            None
        }
    }
}

fn store() -> Arc<dyn Store> {
    Arc::new(SqliteStore::in_memory().unwrap())
}

fn bus(server: &Nats, store: &Arc<dyn Store>) -> JetStreamBus {
    named(server, "events", store)
}

fn named(server: &Nats, name: &str, store: &Arc<dyn Store>) -> JetStreamBus {
    let address = Address::parse(&server.url()).unwrap();
    JetStreamBus::new(address, name, store.clone()).unwrap()
}

/// What an operator does to the stream.
fn operate<T>(bus: &JetStreamBus, work: impl AsyncFnOnce(Connected) -> T) -> T {
    let shared = &bus.0;
    let runtime = shared.runtime.as_ref().unwrap();
    runtime.block_on(async { work(shared.connected().await.unwrap()).await })
}

/// Tries until it works: a server that comes back, and a connection to it, take a moment.
fn until_it_works<T>(mut work: impl FnMut() -> Result<T, StoreError>) -> T {
    let begin = Instant::now();
    loop {
        match work() {
            Ok(done) => return done,
            Err(error) => assert!(begin.elapsed() < BOUND, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn seqs(batch: &Batch) -> Vec<u64> {
    batch.events.iter().map(|e| e.seq).collect()
}

struct Bench {
    server: Nats,
    store: Arc<dyn Store>,
    name: String,
}

impl crate::bus::suite::Bench for Bench {
    fn anew(&mut self) {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        self.name = format!("events-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.store = store();
    }

    fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(named(&self.server, &self.name, &self.store))
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    fn crash(&mut self) {
        self.server.kill();
        self.server.start_again();
    }

    fn forget_before(&mut self, seq: u64) {
        let bus = named(&self.server, &self.name, &self.store);
        operate(&bus, async |c| {
            c.stream.purge().sequence(seq).await.unwrap();
        });
    }
}

#[test]
fn jetstream_keeps_to_it() {
    let Some(server) = server() else { return };
    check(&mut Bench {
        server,
        store: store(),
        name: String::new(),
    });
}

/// Guarantee: readers and publishers that live through the death of the server go on by themselves; nothing that was taken is
/// lost, nothing is there twice, and nothing is taken for forgotten.
#[test]
fn a_server_that_is_killed_in_the_middle_costs_nothing() {
    let Some(mut server) = server() else { return };
    let store = store();
    let bus = bus(&server, &store);
    const EVENTS: i64 = 300;
    let publishing = {
        let bus = bus.clone();
        std::thread::spawn(move || {
            for n in 1..=EVENTS {
                // An answer that got lost is made up for by the key.
                until_it_works(|| bus.publish(&format!("k{n}"), &absent(n)));
            }
        })
    };
    let mut reader = bus.subscribe("r", ReadFrom::Acknowledged).unwrap();
    let (mut all, begin, mut kills) = (Vec::new(), Instant::now(), 0);
    while all.len() < EVENTS as usize {
        assert!(begin.elapsed() < BOUND, "{} events", all.len());
        if all.len() >= 60 * (kills + 1) && kills < 3 {
            kills += 1;
            server.kill();
            server.start_again();
        }
        let Ok(batch) = reader.next(7, Duration::from_millis(50)) else {
            continue;
        };
        assert_eq!(batch.gap, None);
        if let Some(last) = batch.events.last() {
            reader.acknowledge(last.seq).unwrap();
        }
        all.extend(batch.events.iter().map(|e| e.event.generation().unwrap()));
    }
    publishing.join().unwrap();
    assert_eq!(all, (1..=EVENTS).collect::<Vec<_>>());
    assert_eq!(kills, 3);
    let newest = store.cursor(reader.consumer()).unwrap();
    assert_eq!(newest, EVENTS as u64);
}

/// Guarantee: events that somebody removes from the middle are missed by who has not had them; messages that are none of ours
/// are passed over.
#[test]
fn what_is_removed_is_missed_and_what_is_none_is_passed_over() {
    let Some(server) = server() else { return };
    let bus = bus(&server, &store());
    for n in 1..=6 {
        bus.publish(&format!("k{n}"), &absent(n)).unwrap();
    }
    operate(&bus, async |c| {
        c.stream.delete_message(4).await.unwrap();
        let noise = c.context.publish("events.events", "{}".into()).await;
        noise.unwrap().await.unwrap();
    });
    bus.publish("k8", &absent(8)).unwrap();
    let mut reader = bus.subscribe("r", ReadFrom::Event(1)).unwrap();
    let first = reader.next(10, BOUND).unwrap();
    assert_eq!((first.gap, seqs(&first)), (None, vec![2, 3]));
    let second = reader.next(10, BOUND).unwrap();
    let gap = Gap::Forgotten {
        after: 3,
        before: 5,
    };
    assert_eq!((second.gap, seqs(&second)), (Some(gap), vec![5, 6, 8]));
}

/// Guarantee: of a stream that was made anew, while a reader runs and while none does, everything is read from its
/// beginning, and that something may have been lost is said until the reader has gone on.
#[test]
fn a_stream_that_was_made_anew_is_another_one() {
    let Some(mut server) = server() else { return };
    let store = store();
    let mut reader = {
        let bus = bus(&server, &store);
        for n in 1..=3 {
            bus.publish(&format!("k{n}"), &absent(n)).unwrap();
        }
        bus.subscribe("r", ReadFrom::Acknowledged).unwrap()
    };
    assert_eq!(seqs(&reader.next(10, BOUND).unwrap()), [1, 2, 3]);
    reader.acknowledge(3).unwrap();
    assert_eq!(reader.next(10, Duration::ZERO).unwrap(), Batch::default());
    let lose = |server: &mut Nats| {
        server.kill();
        server.lose_all();
        server.start_again();
        let bus = bus(server, &store);
        until_it_works(|| bus.publish("k1", &absent(1)));
        bus
    };
    let _bus = lose(&mut server);
    let batch = until_it_works(|| reader.next(10, Duration::from_secs(1)));
    assert_eq!((batch.gap, seqs(&batch)), (Some(Gap::OtherLog), vec![1]));
    // It ended before it could do anything about it.
    drop(reader);
    let bus = lose(&mut server);
    for (is_told, goes_on) in [(true, false), (true, true), (false, false)] {
        let mut reader = bus.subscribe("r", ReadFrom::Acknowledged).unwrap();
        let batch = reader.next(10, BOUND).unwrap();
        let gap = is_told.then_some(Gap::OtherLog);
        assert_eq!((batch.gap, seqs(&batch)), (gap, vec![1]));
        if goes_on {
            reader.next(10, Duration::ZERO).unwrap();
        }
    }
}

/// Guarantee: each reason for which a server or a stream cannot be used is told, and without what is secret; what could not be
/// published is not taken for published.
#[test]
fn what_is_wrong_is_said() {
    let Some(mut server) = server() else { return };
    let unfit = |change: fn(&mut Config)| {
        let bus = named(&server, "other", &store());
        let mut config = bus.0.config();
        change(&mut config);
        let plain = named(&server, "events", &store());
        operate(&plain, async |c| {
            let _ = c.context.delete_stream("other").await;
            c.context.create_stream(config).await.unwrap();
        });
        bus.publish("k", &absent(1)).unwrap_err().to_string()
    };
    let said = unfit(|c| c.subjects = vec!["else".into()]);
    assert!(
        said.contains("must have the subject other.events"),
        "{said}"
    );
    let said = unfit(|c| c.retention = RetentionPolicy::WorkQueue);
    assert!(said.contains("must keep by limits"), "{said}");
    let said = unfit(|c| c.duplicate_window = Duration::from_secs(1));
    assert!(said.contains("must know duplicates for 30 s"), "{said}");
    let said = unfit(|c| c.no_ack = true);
    assert!(said.contains("must acknowledge"), "{said}");
    for name in ["", "a.b", "a b", "*"] {
        let address = Address::parse(&server.url()).unwrap();
        assert!(
            JetStreamBus::new(address, name, store()).is_err(),
            "{name:?}"
        );
    }
    let bus = bus(&server, &store());
    server.kill();
    let said = bus.publish("k", &absent(1)).unwrap_err().to_string();
    assert!(said.contains(&server.address().to_string()), "{said}");
    assert!(bus.subscribe("r", ReadFrom::Acknowledged).is_err());
    server.start_again();
    assert!(until_it_works(|| bus.publish("k", &absent(1))));
}

fn publishes(address: Address) -> Result<bool, StoreError> {
    JetStreamBus::new(address, "events", store())
        .unwrap()
        .publish("k", &absent(1))
}

/// Guarantee: users with passwords and tokens are who they are, and nobody else gets in.
#[test]
fn passwords_and_tokens_count() {
    let Some(binary) = binary() else { return };
    let of = |server: &Nats, user: &str| {
        let url = server.url().replace("//", &format!("//{user}"));
        publishes(Address::parse(&url).unwrap())
    };
    let users = r#"authorization { users: [ { user: me, password: "s3cret/1" } ] }"#;
    let server = Nats::start_with(&binary, |_| users.to_owned());
    assert!(of(&server, "me:s3cret%2F1@").unwrap());
    for wrong in ["", "me:wr0ng@"] {
        let said = of(&server, wrong).unwrap_err().to_string();
        assert!(said.contains("authorization violation"), "{said}");
        assert!(!said.contains("wr0ng"), "{said}");
    }
    let server = Nats::start_with(&binary, |_| "authorization { token: t0ken }".to_owned());
    assert!(of(&server, "t0ken@").unwrap());
    assert!(of(&server, "").is_err());
}

/// Guarantee: credentials of `nsc`'s kind, a JWT and the seed of its key, are proved, and those of somebody else refused.
#[test]
fn credentials_count() {
    let Some(binary) = binary() else { return };
    let (operator, system) = (KeyPair::new_operator(), KeyPair::new_account());
    let (account, user) = (KeyPair::new_account(), KeyPair::new_user());
    let all = r#"{"subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1,
        "mem_storage":-1,"disk_storage":-1,"streams":-1,"consumer":-1}"#;
    let limits = format!(r#"{{"limits":{all},"type":"account","version":2}}"#);
    let text = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}\n",
        jwt(&operator, &operator, r#"{"type":"operator","version":2}"#),
        system.public_key(),
        system.public_key(),
        jwt(&operator, &system, r#"{"type":"account","version":2}"#),
        account.public_key(),
        jwt(&operator, &account, &limits),
    );
    let server = Nats::start_with(&binary, |_| text);
    let credentials = |issuer: &KeyPair| {
        let claims =
            r#"{"pub":{},"sub":{},"subs":-1,"data":-1,"payload":-1,"type":"user","version":2}"#;
        let (jwt, seed) = (jwt(issuer, &user, claims), user.seed().unwrap());
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    };
    let with = |text| {
        let address = Address::parse(&server.url()).unwrap();
        publishes(address.with_credentials(text))
    };
    assert!(
        with(Some(credentials(&account))).unwrap(),
        "{}",
        server.log()
    );
    assert!(with(Some(credentials(&KeyPair::new_account()))).is_err());
    assert!(with(None).is_err());
}

/// A token of NATS: `claims` of `subject`, signed by `issuer`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, claims: &str) -> String {
    let encode = |text: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(text);
    let (iss, sub) = (issuer.public_key(), subject.public_key());
    let body = format!(
        r#"{{"jti":"{sub}","iat":1700000000,"iss":"{iss}","name":"test","sub":"{sub}","nats":{claims}}}"#
    );
    let head = encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{head}.{}", encode(body.as_bytes()));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", encode(&signature))
}

/// Guarantee: TLS is spoken with who is trusted alone, a certificate is shown where one is wanted, and a server without TLS
/// gets nothing where TLS is wanted.
#[test]
fn tls_is_checked() {
    let Some(binary) = binary() else { return };
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let params = rcgen::CertificateParams::new(names).unwrap();
    let own = params.self_signed(&key).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, private) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, own.pem()).unwrap();
    std::fs::write(&private, key.serialize_pem()).unwrap();
    let tls = |verify: bool| {
        let (cert, key) = (cert.display(), private.display());
        format!(
            "tls {{ cert_file: \"{cert}\", key_file: \"{key}\", ca_file: \"{cert}\", verify: {verify} }}"
        )
    };
    let open = Nats::start_with(&binary, |_| tls(false));
    let strict = Nats::start_with(&binary, |_| tls(true));
    let of = |server: &Nats, trusts: bool, shows: bool| {
        let url = format!("tls://{}", server.address());
        let address = Address::parse(&url).unwrap();
        let address = address.trusting(trusts.then(|| cert.clone()));
        let shown = shows.then(|| (cert.clone(), private.clone()));
        publishes(address.showing(shown))
    };
    assert!(of(&open, true, false).unwrap());
    assert!(of(&open, false, false).is_err(), "nobody vouches for it");
    assert!(of(&strict, true, true).unwrap());
    assert!(of(&strict, true, false).is_err(), "it shows nothing");
    let plain = Nats::start(&binary);
    assert!(of(&plain, true, false).is_err(), "it speaks no TLS");
    assert!(publishes(Address::parse(&plain.url()).unwrap()).unwrap());
}

#[test]
fn keys_that_cannot_be_in_a_header_stand_for_themselves() {
    assert_eq!(id("docker/a/1/start"), "docker/a/1/start");
    let long = "x".repeat(ID_BYTES_MAX + 1);
    let others = ["", "a b", "a\r\nb", "\u{e9}", &*long].map(id);
    assert!(others.iter().all(|id| id.len() == 64));
    let mut different = others.to_vec();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), others.len());
}
