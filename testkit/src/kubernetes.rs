//! A stand-in for the API server of Kubernetes: lists and watches of objects that tests set and delete.
//!
//! As far as clients that follow objects use it: `GET` of one object, of a list (with pages, selectors and versions) and of a
//! watch with bookmarks. Versions are those of the whole store. It can forget its history (410), refuse (429, 500), be slow, and be
//! away. It is no API server: it knows no kinds, checks no rights and speaks no TLS.
//! Source: "API concepts" of Kubernetes' documentation.

mod connection;
mod selector;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ports;

/// A request that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its path, without the query.
    pub path: String,
    /// Parameters of the query, decoded.
    pub query: Vec<(String, String)>,
    /// The header `Authorization`, if there was one.
    pub authorization: Option<String>,
    /// The status it was answered with.
    pub status: u16,
}

impl Asked {
    /// The value of a parameter of the query.
    pub fn value(&self, key: &str) -> Option<&str> {
        let mut found = self.query.iter().filter(|(k, _)| k == key);
        found.next().map(|(_, value)| value.as_str())
    }

    /// It asked for a watch.
    pub fn is_watch(&self) -> bool {
        matches!(self.value("watch"), Some("1" | "true"))
    }
}

/// How it misbehaves.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// So many of the next requests are refused.
    pub refuse: u32,
    /// With this status.
    pub status: u16,
    /// And this `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    /// How long each answer waits before it begins.
    pub delay: Duration,
    /// Every watch is told that its version is too old.
    pub forgets_at_once: bool,
    /// Lists and watches tell of objects that were not asked for, too.
    pub ignores_selectors: bool,
    /// So many of the next watches say something that is no event after what they have to tell at first, and end.
    pub nonsense: u32,
}

/// A change, for watches.
#[derive(Clone, Debug)]
struct Event {
    version: u64,
    collection: String,
    kind: &'static str,
    object: Value,
}

#[derive(Debug, Default)]
struct Store {
    version: u64,
    /// By collection, as `/api/v1/pods`, then by namespace and name.
    objects: BTreeMap<String, BTreeMap<(String, String), Value>>,
    events: Vec<Event>,
    /// What came before this is forgotten.
    oldest: u64,
    trouble: Trouble,
    asked: Vec<Asked>,
    /// Goes up when watches are to end.
    epoch: u64,
    /// Goes up when a bookmark is to be sent.
    bookmarks: u64,
}

#[derive(Debug, Default)]
struct Shared {
    store: Mutex<Store>,
    changed: Condvar,
    stopping: AtomicBool,
    connections: Mutex<HashMap<u64, TcpStream>>,
    next_connection: AtomicU64,
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        let connections = self.connections.lock();
        connections.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stand-in. Dropping it closes every connection and joins its threads.
#[derive(Debug)]
pub struct FakeKubernetes {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl FakeKubernetes {
    /// Starts one without objects on a port of loopback.
    ///
    /// # Errors
    /// What listening fails with.
    pub fn start() -> io::Result<FakeKubernetes> {
        let listener = ports::listen()?;
        let addr = listener.local_addr()?;
        let mut server = FakeKubernetes {
            addr,
            shared: Arc::new(Shared::default()),
            accepting: None,
        };
        server.accept(listener)?;
        Ok(server)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A kubeconfig file that leads to it, with the token `test-token`.
    pub fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", self.addr)}}],
            "users": [{"name": "test", "user": {"token": "test-token"}}],
        })
        .to_string()
    }

    /// Sets an object of a collection, as `/api/v1/pods`, and gives it a version. Watches are told.
    pub fn set(&self, collection: &str, mut object: Value) {
        let mut store = self.shared.store();
        store.version += 1;
        let version = store.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let key = key_of(&object);
        let objects = store.objects.entry(collection.to_owned()).or_default();
        let before = objects.insert(key, object.clone());
        let kind = if before.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        store.events.push(Event {
            version,
            collection: collection.to_owned(),
            kind,
            object,
        });
        self.shared.changed.notify_all();
    }

    /// Deletes an object. Watches are told. True if it was there.
    pub fn delete(&self, collection: &str, namespace: &str, name: &str) -> bool {
        let mut store = self.shared.store();
        let key = (namespace.to_owned(), name.to_owned());
        let objects = store.objects.entry(collection.to_owned()).or_default();
        let Some(mut object) = objects.remove(&key) else {
            return false;
        };
        store.version += 1;
        let version = store.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        store.events.push(Event {
            version,
            collection: collection.to_owned(),
            kind: "DELETED",
            object,
        });
        self.shared.changed.notify_all();
        true
    }

    /// Forgets what happened so far, and ends all watches: one that goes on from before is told 410.
    pub fn forget(&self) {
        let mut store = self.shared.store();
        store.version += 1;
        store.oldest = store.version;
        store.events.clear();
        store.epoch += 1;
        self.shared.changed.notify_all();
    }

    /// Ends all watches, as a server does after some minutes.
    pub fn end_watches(&self) {
        self.shared.store().epoch += 1;
        self.shared.changed.notify_all();
    }

    /// Sends a bookmark to each watch that wants them.
    pub fn bookmark(&self) {
        self.shared.store().bookmarks += 1;
        self.shared.changed.notify_all();
    }

    /// How it misbehaves from now on.
    pub fn set_trouble(&self, set: impl FnOnce(&mut Trouble)) {
        set(&mut self.shared.store().trouble);
        self.shared.changed.notify_all();
    }

    /// What was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.store().asked.clone()
    }

    /// Lists of a collection that were answered; pages of one count once.
    pub fn lists(&self, collection: &str) -> usize {
        let is_list = |a: &&Asked| a.path == collection && !a.is_watch() && a.status == 200;
        let first = |a: &&Asked| a.value("continue").is_none();
        self.asked().iter().filter(is_list).filter(first).count()
    }

    /// Watches of a collection that were begun.
    pub fn watches(&self, collection: &str) -> usize {
        let is_watch = |a: &&Asked| a.path == collection && a.is_watch() && a.status == 200;
        self.asked().iter().filter(is_watch).count()
    }

    /// Waits until `holds` does, at most so long. False if it never did.
    pub fn wait(&self, most: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let end = Instant::now() + most;
        while !holds(self) {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Goes away: nobody listens, and connections are closed.
    pub fn leave(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Accepting waits for a connection.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
        for (_, stream) in self.shared.connections().drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.end_watches();
    }

    /// Comes back at the same address, with what it had.
    ///
    /// # Errors
    /// The port is taken.
    pub fn come_back(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(self.addr)?;
        self.accept(listener)
    }

    fn accept(&mut self, listener: TcpListener) -> io::Result<()> {
        let shared = self.shared.clone();
        shared.stopping.store(false, Ordering::SeqCst);
        let thread = std::thread::Builder::new().name("fake-kubernetes".into());
        self.accepting = Some(thread.spawn(move || accept_all(&listener, &shared))?);
        Ok(())
    }
}

impl Drop for FakeKubernetes {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The namespace and the name of an object.
fn key_of(object: &Value) -> (String, String) {
    let text = |key: &str| {
        let value = object["metadata"][key].as_str();
        value.unwrap_or_default().to_owned()
    };
    (text("namespace"), text("name"))
}

fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        let Ok(stream) = stream else { continue };
        threads.retain(|thread| !thread.is_finished());
        let id = shared.next_connection.fetch_add(1, Ordering::SeqCst);
        if let Ok(copy) = stream.try_clone() {
            shared.connections().insert(id, copy);
        }
        let shared = shared.clone();
        threads.push(std::thread::spawn(move || {
            // A client that goes away is no fault.
            let _ = connection::serve(stream, &shared);
            shared.connections().remove(&id);
        }));
    }
    for (_, stream) in shared.connections().drain() {
        let _ = stream.shutdown(Shutdown::Both);
    }
    shared.store().epoch += 1;
    shared.changed.notify_all();
    for thread in threads {
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests;
