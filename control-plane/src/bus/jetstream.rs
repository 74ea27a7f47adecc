//! The bus of many machines: a stream of NATS JetStream.
//!
//! The stream is the log: the keys of events are ids of messages, which it takes once within its window of duplicates, and it
//! forgets by its own limits. How far a consumer is, is in the consumer's store, where it is moved on together with what was
//! made of the events; here there are only consumers that end with the process and begin where the store says. So there is
//! one truth about it, and it may be replayed from any place.
//!
//! Numbers of events are those of the stream, under the time at which it was made: of another stream of that name, nothing
//! was read yet.

mod address;
mod reader;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::stream::{Config, Info, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{Context, ContextBuilder};
use async_nats::{Client, Event as Happening, HeaderMap};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use self::reader::Reader;
use super::{Bus, ReadFrom, Subscription};
use crate::model::{Digest, Event};
use crate::store::{Store, StoreError};

pub use address::Address;

/// How long any answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of a stream that is made here: how long events are kept, and how many bytes of them.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
const BYTES_MAX: i64 = 256 << 20;
/// So long a key is known.
const DUPLICATES: Duration = Duration::from_secs(120);
/// The shortest time that is good enough: what is published again comes within seconds.
const DUPLICATES_MIN: Duration = Duration::from_secs(30);
/// The longest name of a stream.
const NAME_BYTES_MAX: usize = 64;
/// The longest key that is an id of a message as it is.
const ID_BYTES_MAX: usize = 200;

/// What a message holds.
#[derive(Serialize, Deserialize)]
struct Body {
    key: String,
    event: Event,
}

/// What is shared by all that use it.
struct Shared {
    address: Address,
    /// Of the stream.
    name: String,
    store: Arc<dyn Store>,
    connected: Mutex<Option<Connected>>,
    /// Taken when this ends: a runtime must not wait for its tasks where nobody may wait.
    runtime: Option<Runtime>,
}

/// A connection, which comes back by itself.
#[derive(Clone)]
struct Connected {
    context: Context,
    /// That the stream is there was seen over it.
    stream: Stream<Info>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// See the module's documentation. Its methods wait; they are not for threads of a runtime.
#[derive(Clone)]
pub struct JetStreamBus(Arc<Shared>);

impl JetStreamBus {
    /// Over the stream of this name, which is made unless it is there; consumers keep in `store` how far they are. Nothing is
    /// connected before it is needed.
    ///
    /// # Errors
    /// It cannot be a name, or what is known of the servers is no good; for people.
    pub fn new(
        address: Address,
        name: &str,
        store: Arc<dyn Store>,
    ) -> Result<JetStreamBus, String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) {
            return Err(format!(
                "the name of the stream must be of letters, digits, - and _, at most {NAME_BYTES_MAX}"
            ));
        }
        address.options()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("bus")
            .enable_all()
            .build();
        let runtime = runtime.map_err(|e| format!("the bus has no thread: {e}"))?;
        Ok(JetStreamBus(Arc::new(Shared {
            address,
            name: name.to_owned(),
            store,
            connected: Mutex::default(),
            runtime: Some(runtime),
        })))
    }

    /// Waits for what is asked of the server.
    fn ask<T>(
        &self,
        asked: impl Future<Output = Result<T, String>>,
        patience: Duration,
    ) -> Result<T, StoreError> {
        // It is taken at the very end only.
        let Some(runtime) = &self.0.runtime else {
            return Err(self.0.error("it has ended".to_owned()));
        };
        let answer = runtime.block_on(async { tokio::time::timeout(patience, asked).await });
        let answer = answer.unwrap_or_else(|_| Err("there is no answer".to_owned()));
        answer.map_err(|text| self.0.error(text))
    }
}

impl Shared {
    fn error(&self, text: String) -> StoreError {
        StoreError::Bus {
            server: self.address.to_string(),
            text,
        }
    }

    fn subject(&self) -> String {
        format!("{}.events", self.name)
    }

    /// A connection over which the stream was seen.
    async fn connected(&self) -> Result<Connected, String> {
        let known = self.connected.lock();
        let known = known.unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let context = ContextBuilder::new()
            .timeout(PATIENCE)
            .ack_timeout(PATIENCE)
            .build(self.connect().await?);
        let stream = context.get_or_create_stream(self.config()).await;
        let stream = stream.map_err(|e| explained(&e, "the stream cannot be had"))?;
        if let Some(why) = self.unfit(&stream.cached_info().config) {
            return Err(format!("the stream {} {why}", self.name));
        }
        let connected = Connected { context, stream };
        let mut known = self
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *known = Some(connected.clone());
        Ok(connected)
    }

    async fn connect(&self) -> Result<Client, String> {
        let server = self.address.to_string();
        let options = self.address.options()?.event_callback(move |happening| {
            let server = server.clone();
            async move {
                match happening {
                    Happening::Connected => tracing::info!("the bus {server} is connected"),
                    Happening::Disconnected => {
                        tracing::warn!("the connection to the bus {server} is lost");
                    }
                    Happening::ServerError(error) => tracing::warn!("the bus {server}: {error}"),
                    // Each attempt to connect again, too: whoever wants something says it.
                    Happening::ClientError(error) => tracing::debug!("the bus {server}: {error}"),
                    _ => {}
                }
            }
        });
        let client = options.connect(self.address.servers()).await;
        client.map_err(|e| explained(&e, "it cannot be reached"))
    }

    /// What was seen does not count any more: everything is looked at again, over a new connection.
    fn forget(&self) {
        let mut known = self
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *known = None;
    }

    /// Of a stream that is not there yet.
    fn config(&self) -> Config {
        Config {
            name: self.name.clone(),
            subjects: vec![self.subject()],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            max_age: AGE_MAX,
            max_bytes: BYTES_MAX,
            duplicate_window: DUPLICATES,
            description: Some("Events of Tailwater's control plane".to_owned()),
            ..Config::default()
        }
    }

    /// Why a stream that somebody else made is none for events.
    fn unfit(&self, config: &Config) -> Option<String> {
        let subject = self.subject();
        if !config.subjects.contains(&subject) {
            return Some(format!("must have the subject {subject}"));
        }
        if config.retention != RetentionPolicy::Limits {
            return Some("must keep by limits (retention), as each consumer reads all".to_owned());
        }
        if config.duplicate_window < DUPLICATES_MIN {
            let least = DUPLICATES_MIN.as_secs();
            return Some(format!("must know duplicates for {least} s at least"));
        }
        config
            .no_ack
            .then(|| "must acknowledge what it takes".to_owned())
    }

    async fn publish(&self, key: &str, event: &Event) -> Result<bool, String> {
        let connected = self.connected().await?;
        let body = Body {
            key: key.to_owned(),
            event: event.clone(),
        };
        let body = serde_json::to_vec(&body).map_err(|e| e.to_string())?;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", &*id(key));
        // A stream of another name that takes the subject is none of ours.
        headers.insert("Nats-Expected-Stream", &*self.name);
        let sent = connected
            .context
            .publish_with_headers(self.subject(), headers, body.into());
        let told = sent.await.map_err(|e| e.to_string())?;
        let told = told.await.map_err(|e| e.to_string())?;
        Ok(!told.duplicate)
    }

    /// The name under which the store has how far a consumer of this stream is.
    fn cursor_name(&self, consumer: &str, info: &Info) -> String {
        let made = info.created.unix_timestamp_nanos();
        format!("{consumer}@{}/{made}", self.name)
    }

    /// The name under which the store has which stream it was, by when it was made.
    fn origin_name(&self, consumer: &str) -> String {
        format!("{consumer}@{}", self.name)
    }
}

/// The id of a message: the key, or what stands for one that cannot be in a header.
fn id(key: &str) -> String {
    let is_plain = key.bytes().all(|b| b.is_ascii_graphic());
    match is_plain && (1..=ID_BYTES_MAX).contains(&key.len()) {
        true => key.to_owned(),
        false => Digest::of(key.as_bytes()).to_string(),
    }
}

/// All that an error says, as the first part of it often says little.
fn explained(error: &dyn std::error::Error, what: &str) -> String {
    let mut text = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

impl Bus for JetStreamBus {
    fn publish(&self, key: &str, event: &Event) -> Result<bool, StoreError> {
        let published = self.ask(self.0.publish(key, event), 2 * PATIENCE);
        if published.is_err() {
            self.0.forget();
        }
        published
    }

    fn subscribe(
        &self,
        consumer: &str,
        from: ReadFrom,
    ) -> Result<Box<dyn Subscription>, StoreError> {
        Ok(Box::new(Reader::open(self, consumer, from)?))
    }
}

/// What a reader reads with.
type Source = (Stream<Info>, PullConsumer);
