//! What processors of metrics remember of streams.
//!
//! A stream is what points with the same resource, scope, metric and attributes are. Requests of one
//! client may be taken by any shard, so what is remembered is one for all shards of a chain
//! ([`Chains`]), and locked once per part. Chains that end in different exporters each see all points,
//! so each remembers for itself.

pub mod aggregate;
mod converter;
pub mod exponential;
mod identity;
mod returns;
mod table;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tailwater_pipeline::factory::NodeCx;

pub use converter::{Conversion, Converter, Shared};
pub(crate) use identity::put_text;
pub use identity::{Identity, Place, StreamId};
pub use returns::Returns;
pub use table::{STREAMS_MAX, Streams, Taken};

/// What is remembered, per chain.
#[derive(Debug)]
pub struct Chains<T>(Mutex<HashMap<Arc<str>, Arc<T>>>);

impl<T> Default for Chains<T> {
    fn default() -> Chains<T> {
        Chains(Mutex::default())
    }
}

impl<T> Chains<T> {
    /// What the chain of `cx` remembers; `make` makes it for the first of its shards.
    pub fn of(&self, cx: &NodeCx, make: impl FnOnce() -> T) -> Arc<T> {
        let chain = cx.pipeline.clone().unwrap_or_default();
        let mut chains = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let made = chains.entry(chain).or_insert_with(|| Arc::new(make()));
        made.clone()
    }
}
