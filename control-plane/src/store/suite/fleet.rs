//! What every store of a fleet has to keep to: versions, texts, certificates, what receivers of alerts know.

use super::record;
use crate::model::Digest;
use crate::rollout::model::Input;
use crate::store::{Applied, CertificateRecord, FleetStore, RELEASES_MAX, Release};

fn draft(group: &str, body: &str) -> Release {
    Release {
        version: 0,
        group: group.to_owned(),
        digest: Digest::of(body.as_bytes()),
        cause: "a/1/push/7".to_owned(),
        key: "k".to_owned(),
        signature: String::new(),
        at_ms: 5,
    }
}

fn apply(store: &dyn FleetStore, group: &str, body: &str) -> Digest {
    let applied = Applied {
        group: group.to_owned(),
        digest: Digest::of(body.as_bytes()),
        parent: Some(Digest::of(b"")),
        cause: "apply".to_owned(),
        author: "otto".to_owned(),
        at_ms: 7,
    };
    store.keep_applied(body, &applied).unwrap();
    assert_eq!(store.applied(group, 1).unwrap()[0], applied);
    applied.digest
}

/// Takes the next version of a group.
pub(in crate::store) fn next_version(store: &dyn FleetStore, group: &str) -> u64 {
    let release = store.release(draft(group, "x"), &|v| format!("sig {v}"));
    let release = release.unwrap();
    assert_eq!(release.signature, format!("sig {}", release.version));
    release.version
}

/// Guarantee: no two releases have one version, over all groups; one can only be raised; so many of a group are kept.
fn versions_only_grow(store: &dyn FleetStore) {
    assert_eq!(store.version().unwrap(), 0);
    let next = |group| next_version(store, group);
    assert_eq!((next("a"), next("b"), next("a")), (1, 2, 3));
    assert_eq!(store.version().unwrap(), 3);
    assert_eq!(store.raise_version(2).unwrap(), 3);
    assert_eq!(store.raise_version(40).unwrap(), 40);
    assert_eq!(next("b"), 41);
    let versions = |group| -> Vec<u64> {
        let all = store.releases(group, 10).unwrap();
        all.iter().map(|r| r.version).collect()
    };
    assert_eq!((versions("a"), versions("b")), (vec![3, 1], vec![41, 2]));
    for _ in 0..RELEASES_MAX {
        next("a");
    }
    let kept = store.releases("a", 1_000).unwrap();
    assert_eq!(kept.len(), RELEASES_MAX);
    assert_eq!(versions("b"), [41, 2], "other groups keep theirs");
}

/// Guarantee: a text stays as long as an agent runs it, a rollout needs it or the history names it, and no longer.
fn texts_that_nobody_needs_are_forgotten(store: &dyn FleetStore) {
    let mut all: Vec<_> = (0..50)
        .map(|i| apply(store, "a", &format!("old {i}")))
        .collect();
    let old = all.clone();
    let other = apply(store, "b", "other");
    all.push(other.clone());
    let has = |digest: &Digest| store.artefact(digest).unwrap().is_some();
    // One runs, one is pinned, one is to be told of, one is next.
    let (runs, pinned, told, next) = (&old[0], &old[1], &old[2], &old[3]);
    store.lease("a", "me", 0, 1_000).unwrap();
    let state = format!("{{\"pending\": \"{next}\"}}");
    let pins = [pinned.clone()];
    let kept = store.keep_rollout("a", &record(1, 1), &state, &pins, None);
    assert!(kept.unwrap());
    let revision = told.as_str().to_owned();
    let input = serde_json::to_string(&Input::Changed { revision }).unwrap();
    store.submit("a", "key", &input).unwrap();
    let forget = |runs: &[Digest]| store.forget_texts(runs, 10).unwrap();
    assert_eq!(forget(std::slice::from_ref(runs)), 36);
    for digest in [runs, pinned, told, next, &other, &old[40], &old[49]] {
        assert!(has(digest));
    }
    assert!(!has(&old[4]) && !has(&old[39]));
    assert_eq!(store.applied("a", 100).unwrap().len(), 10);
    assert_eq!(forget(&[]), 1);
    assert!(!has(runs));
    // However many are applied, so many are there.
    for i in 0..50 {
        all.push(apply(store, "a", &format!("new {i}")));
        forget(&[]);
    }
    assert_eq!(all.iter().filter(|d| has(d)).count(), 10 + 3 + 1);
}

fn certificates_are_kept_until_they_have_ended(store: &dyn FleetStore) {
    let one = |serial: &str, ends_ms| CertificateRecord {
        serial: serial.to_owned(),
        uid: "u".to_owned(),
        request: "r".to_owned(),
        pem: "p".to_owned(),
        author: "token".to_owned(),
        issued_ms: 1,
        ends_ms,
        used_ms: None,
        revoked_ms: None,
    };
    let (short, long) = (one("a", 10), one("b", 20));
    store.keep_certificate(&short).unwrap();
    store.keep_certificate(&long).unwrap();
    let revoked = CertificateRecord {
        used_ms: Some(3),
        revoked_ms: Some(4),
        ..short.clone()
    };
    store.keep_certificate(&revoked).unwrap();
    assert_eq!(
        store.certificates().unwrap(),
        [revoked.clone(), long.clone()]
    );
    assert_eq!(store.certificate("a").unwrap(), Some(revoked));
    assert_eq!(store.forget_certificates(11).unwrap(), 1);
    assert_eq!(store.certificates().unwrap(), [long]);
    assert_eq!(store.certificate("a").unwrap(), None);
}

/// Guarantee: of each receiver the newest is there, and that of no other.
fn what_receivers_know_is_kept(store: &dyn FleetStore) {
    assert_eq!(store.notified("webhook/0").unwrap(), None);
    store.keep_notified("webhook/0", "a").unwrap();
    store.keep_notified("webhook/1", "b").unwrap();
    store.keep_notified("webhook/0", "c").unwrap();
    let of = |receiver| store.notified(receiver).unwrap();
    assert_eq!(of("webhook/0").as_deref(), Some("c"));
    assert_eq!(of("webhook/1").as_deref(), Some("b"));
    assert_eq!(of("webhook/2"), None);
}

/// Every demand on what keeps a fleet, each on a store of its own.
pub(in crate::store) fn check_fleet<S: FleetStore>(open: impl Fn() -> S) {
    let demands: [fn(&dyn FleetStore); 4] = [
        what_receivers_know_is_kept,
        versions_only_grow,
        texts_that_nobody_needs_are_forgotten,
        certificates_are_kept_until_they_have_ended,
    ];
    for demand in demands {
        demand(&open());
    }
}
