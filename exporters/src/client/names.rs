//! Names and their addresses: asked for rarely, by one question at a time, and never forgotten
//! because a resolver is down.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use foldhash::HashMap;
use tokio::time::Instant;

use super::endpoint::Endpoint;

/// How long an answer is good for new connections. A name is not asked for more often: one look
/// can be four questions (A and AAAA, each asked twice), so this is less than one per second.
pub(super) const FRESH: Duration = Duration::from_secs(5);
/// How old an answer may become while connections to its addresses are used again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// For how long the addresses of before stand in for a resolver that does not answer.
pub(super) const STALE: Duration = Duration::from_secs(3600);
/// For how long an address that did not answer is tried after the others.
const AVOIDED: Duration = Duration::from_secs(60);
/// Addresses that are remembered as having failed.
const AVOIDED_MAX: usize = 64;

/// The addresses of a host, in the order to try them.
pub type Addresses<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Finds addresses.
pub trait Resolver: Send + Sync {
    /// The addresses of `host` with `port`.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a>;
}

/// The system's resolver (`getaddrinfo`), on tokio's blocking threads.
#[derive(Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// What is known of one name.
#[derive(Default)]
struct Name {
    /// Held while the resolver is asked.
    asking: tokio::sync::Mutex<()>,
    answer: Mutex<Option<Answer>>,
}

#[derive(Clone)]
struct Answer {
    at: Instant,
    /// Why there was none.
    problem: Option<String>,
    /// The newest addresses that the resolver gave, and when.
    addresses: Vec<SocketAddr>,
    given: Instant,
}

impl Name {
    fn answer(&self) -> MutexGuard<'_, Option<Answer>> {
        self.answer.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The answer, if it is not older than `age`.
    fn fresh(&self, age: Duration) -> Option<Answer> {
        let answer = self.answer();
        answer.as_ref().filter(|a| a.at.elapsed() < age).cloned()
    }

    fn note(&self, result: io::Result<Vec<SocketAddr>>) {
        let now = Instant::now();
        let (addresses, problem) = match result {
            Ok(addresses) if addresses.is_empty() => (None, Some("it has no address".to_owned())),
            Ok(addresses) => (Some(addresses), None),
            Err(e) => (None, Some(e.to_string())),
        };
        let mut answer = self.answer();
        let before = answer.take();
        let (addresses, given) = match (addresses, before) {
            (Some(addresses), _) => (addresses, now),
            (None, Some(before)) if before.given.elapsed() < STALE => {
                (before.addresses, before.given)
            }
            (None, _) => (Vec::new(), now),
        };
        *answer = Some(Answer {
            at: now,
            problem,
            addresses,
            given,
        });
    }
}

/// The names that one client connects to.
pub(super) struct Names {
    resolver: Arc<dyn Resolver>,
    known: Mutex<HashMap<(String, u16), Arc<Name>>>,
    avoided: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Names {
    pub fn new(resolver: Arc<dyn Resolver>) -> Names {
        Names {
            resolver,
            known: Mutex::default(),
            avoided: Mutex::default(),
        }
    }

    /// The addresses of `server`, those that failed a moment ago last; or why there are none.
    pub async fn addresses(&self, server: &Endpoint) -> Result<Vec<SocketAddr>, String> {
        if let Some(address) = literal(server) {
            return Ok(vec![address]);
        }
        let name = self.name(server);
        let answer = match name.fresh(FRESH) {
            Some(answer) => Some(answer),
            None => {
                // On a task of its own: whoever waits may give up, the question goes on and its
                // answer is for all who ask.
                let asked = self.ask(server, name.clone()).await;
                asked.map_err(|e| e.to_string())?;
                name.answer().clone()
            }
        };
        match answer {
            Some(answer) if !answer.addresses.is_empty() => Ok(self.sorted(answer.addresses)),
            Some(Answer {
                problem: Some(problem),
                ..
            }) => Err(problem),
            _ => Err("it has no address".to_owned()),
        }
    }

    /// The addresses of `server` as far as they are known, without those that failed a moment ago
    /// if there are others. Asks only if nothing is known; what is known is brought up to date
    /// meanwhile, for the next time.
    pub async fn current(&self, server: &Endpoint) -> Result<Vec<SocketAddr>, String> {
        if let Some(address) = literal(server) {
            return Ok(vec![address]);
        }
        let name = self.name(server);
        if name.fresh(LOOK_AGAIN).is_none() && name.asking.try_lock().is_ok() {
            self.ask(server, name.clone());
        }
        let known = name.answer().as_ref().map(|a| a.addresses.clone());
        let mut addresses = match known {
            Some(addresses) if !addresses.is_empty() => addresses,
            _ => self.addresses(server).await?,
        };
        addresses.sort_unstable();
        let avoided = self.avoided.lock().unwrap_or_else(|e| e.into_inner());
        let failed = |a: &SocketAddr| avoided.get(a).is_some_and(|s| s.elapsed() < AVOIDED);
        if addresses.iter().any(|a| !failed(a)) {
            addresses.retain(|a| !failed(a));
        }
        Ok(addresses)
    }

    /// Whether `peer` still is an address of `server`, as far as is known. What is known is brought
    /// up to date meanwhile, for the next time; without a resolver, nothing changes.
    pub fn is_current(&self, server: &Endpoint, peer: SocketAddr) -> bool {
        if literal(server).is_some() {
            return true;
        }
        let name = self.name(server);
        if name.fresh(LOOK_AGAIN).is_none() && name.asking.try_lock().is_ok() {
            self.ask(server, name.clone());
        }
        let answer = name.answer();
        let known = answer.as_ref().filter(|a| !a.addresses.is_empty());
        known.is_none_or(|a| a.addresses.contains(&peer))
    }

    /// `peer` did not answer.
    pub fn avoid(&self, peer: SocketAddr) {
        let mut avoided = self.avoided.lock().unwrap_or_else(|e| e.into_inner());
        avoided.retain(|_, since| since.elapsed() < AVOIDED);
        if avoided.len() < AVOIDED_MAX {
            avoided.insert(peer, Instant::now());
        }
    }

    fn name(&self, server: &Endpoint) -> Arc<Name> {
        let mut known = self.known.lock().unwrap_or_else(|e| e.into_inner());
        known
            .entry((server.host.clone(), server.port))
            .or_default()
            .clone()
    }

    fn ask(&self, server: &Endpoint, name: Arc<Name>) -> tokio::task::JoinHandle<()> {
        let (resolver, host, port) = (self.resolver.clone(), server.host.clone(), server.port);
        tokio::spawn(async move {
            let _asking = name.asking.lock().await;
            if name.fresh(FRESH).is_none() {
                name.note(resolver.resolve(&host, port).await);
            }
        })
    }

    fn sorted(&self, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let avoided = self.avoided.lock().unwrap_or_else(|e| e.into_inner());
        // By the time of the failure, so that each has its turn when all have failed.
        addresses.sort_by_key(|a| avoided.get(a).filter(|s| s.elapsed() < AVOIDED).copied());
        addresses
    }
}

fn literal(server: &Endpoint) -> Option<SocketAddr> {
    let ip = server.host.parse::<IpAddr>().ok()?;
    Some(SocketAddr::new(ip, server.port))
}
