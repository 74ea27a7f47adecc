use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{advance, timeout};

use super::endpoint::Endpoint;
use super::names::*;

/// A resolver that says what it is told to, or nothing.
#[derive(Default)]
struct Told {
    addresses: Mutex<Vec<SocketAddr>>,
    silent: AtomicBool,
    asked: AtomicUsize,
}

impl Told {
    fn say(&self, addresses: &[&str]) {
        *self.addresses.lock().unwrap() = addresses.iter().map(|a| a.parse().unwrap()).collect();
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

impl Resolver for Told {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Addresses<'a> {
        self.asked.fetch_add(1, SeqCst);
        Box::pin(async move {
            while self.silent.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            match self.addresses.lock().unwrap().clone() {
                none if none.is_empty() => Err(io::Error::other("no resolver")),
                some => Ok(some),
            }
        })
    }
}

fn names() -> (Names, Arc<Told>, Endpoint) {
    let told = Arc::new(Told::default());
    let to = Endpoint::parse("http://loki.test:3100/").unwrap();
    (Names::new(told.clone()), told, to)
}

/// Runs `test` on a clock that moves when nothing else can.
fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(test);
}

fn parsed(addresses: &[&str]) -> Vec<SocketAddr> {
    addresses.iter().map(|a| a.parse().unwrap()).collect()
}

const OLD: &str = "10.0.0.1:3100";
const NEW: &str = "10.0.0.2:3100";

#[test]
fn a_name_is_asked_for_once_by_all_and_again_when_its_answer_is_old() {
    let (names, told, to) = names();
    told.say(&[OLD]);
    run(async {
        let (a, b) = tokio::join!(names.addresses(&to), names.addresses(&to));
        assert_eq!((a.unwrap(), b.unwrap()), (parsed(&[OLD]), parsed(&[OLD])));
        told.say(&[NEW]);
        assert_eq!(names.addresses(&to).await.unwrap(), parsed(&[OLD]));
        assert_eq!(told.asked(), 1);
        advance(FRESH).await;
        assert_eq!(names.addresses(&to).await.unwrap(), parsed(&[NEW]));
        assert_eq!(told.asked(), 2);
    });
}

#[test]
fn without_a_resolver_questions_are_rare_and_the_addresses_of_before_stand() {
    let (names, told, to) = names();
    run(async {
        for _ in 0..600 {
            assert_eq!(names.addresses(&to).await.unwrap_err(), "no resolver");
            advance(Duration::from_millis(100)).await;
        }
        assert!((2..=13).contains(&told.asked()), "{}", told.asked());
        told.say(&[OLD]);
        advance(FRESH).await;
        names.addresses(&to).await.unwrap();
        told.say(&[]);
        advance(FRESH).await;
        assert_eq!(names.addresses(&to).await.unwrap(), parsed(&[OLD]));
        advance(STALE).await;
        assert_eq!(names.addresses(&to).await.unwrap_err(), "no resolver");
    });
}

#[test]
fn a_resolver_that_does_not_answer_has_one_question_at_a_time() {
    let (names, told, to) = names();
    told.say(&[OLD]);
    told.silent.store(true, SeqCst);
    run(async {
        for _ in 0..10 {
            let waited = timeout(Duration::from_secs(10), names.addresses(&to)).await;
            assert!(waited.is_err());
        }
        assert_eq!(told.asked(), 1);
        told.silent.store(false, SeqCst);
        assert_eq!(names.addresses(&to).await.unwrap(), parsed(&[OLD]));
        assert_eq!(told.asked(), 1);
    });
}

#[test]
fn a_connection_is_left_when_its_name_has_moved_and_kept_when_nobody_can_say() {
    let (names, told, to) = names();
    let peer = parsed(&[OLD])[0];
    told.say(&[OLD]);
    run(async {
        names.addresses(&to).await.unwrap();
        told.say(&[]);
        for _ in 0..100 {
            advance(Duration::from_secs(1)).await;
            assert!(names.is_current(&to, peer));
            tokio::task::yield_now().await;
        }
        assert!((5..=8).contains(&told.asked()), "{}", told.asked());
        told.say(&[NEW]);
        advance(LOOK_AGAIN).await;
        // Asked beside it, for the next time.
        assert!(names.is_current(&to, peer));
        advance(Duration::from_millis(1)).await;
        assert!(!names.is_current(&to, peer));
        assert!(names.is_current(&to, parsed(&[NEW])[0]));
    });
    let literal = Endpoint::parse("http://10.0.0.1:3100/").unwrap();
    assert!(names.is_current(&literal, peer));
}

#[test]
fn what_failed_a_moment_ago_is_tried_last() {
    let (names, told, to) = names();
    told.say(&[OLD, NEW]);
    let peers = parsed(&[OLD, NEW]);
    run(async {
        names.avoid(peers[0]);
        let sorted = names.addresses(&to).await.unwrap();
        assert_eq!(sorted, parsed(&[NEW, OLD]));
        advance(Duration::from_secs(1)).await;
        names.avoid(peers[1]);
        let sorted = names.addresses(&to).await.unwrap();
        assert_eq!(sorted, parsed(&[OLD, NEW]), "each has its turn");
        advance(Duration::from_secs(60)).await;
        assert_eq!(names.addresses(&to).await.unwrap(), peers);
    });
}
