//! What instances of a processor have in common, over shards, pipelines, lanes and changes of the configuration.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tailwater_pipeline::factory::NodeCx;

struct Entry<T> {
    /// Which agent: there may be several in a process.
    agent: usize,
    key: String,
    of: Weak<T>,
}

/// Those that are in use, by what they were made of. Each ends with the last instance that has it, so one that is
/// built for the next configuration takes over what the one before it has.
pub(crate) struct Joint<T>(Mutex<Vec<Entry<T>>>);

impl<T> Joint<T> {
    pub const fn new() -> Joint<T> {
        Joint(Mutex::new(Vec::new()))
    }

    /// The one with this key of the agent of `cx`; `make` makes it if there is none.
    pub fn of(&self, cx: &NodeCx, key: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let agent = Arc::as_ptr(&cx.listeners) as usize;
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.of.strong_count() > 0);
        let is_it = |entry: &&Entry<T>| entry.agent == agent && entry.key == key;
        let known = entries.iter().find(is_it);
        if let Some(known) = known.and_then(|entry| entry.of.upgrade()) {
            return known;
        }
        let made = Arc::new(make());
        entries.push(Entry {
            agent,
            key: key.to_owned(),
            of: Arc::downgrade(&made),
        });
        made
    }
}
