//! One consumer's way through a stream.

use std::time::{Duration, Instant};

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull::Config as PullConfig;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer};
use async_nats::jetstream::stream::{Info, Stream};
use futures_util::StreamExt;

use super::{Body, JetStreamBus, PATIENCE, Source};
use crate::bus::{Batch, Gap, ReadFrom, Subscription};
use crate::store::{Recorded, StoreError};

/// A consumer of ours that nobody asks for so long is forgotten by the server.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// See the module's documentation.
pub(super) struct Reader {
    bus: JetStreamBus,
    name: String,
    /// The name of the consumer's place in the store.
    place: String,
    /// When the stream was made, ns since the epoch.
    made: u64,
    /// The newest event that was handed on.
    seq: u64,
    /// What is still to be said.
    gap: Option<Gap>,
    /// Which stream it is has to be written down, once what was lost with another one has been said.
    origin_due: bool,
    source: Option<Source>,
}

impl Reader {
    /// At the place where it is to begin.
    pub fn open(bus: &JetStreamBus, consumer: &str, from: ReadFrom) -> Result<Reader, StoreError> {
        let mut reader = Reader {
            bus: bus.clone(),
            name: consumer.to_owned(),
            place: String::new(),
            made: 0,
            seq: 0,
            gap: None,
            origin_due: false,
            source: None,
        };
        let info = reader.look()?;
        reader.attach(&info)?;
        if let ReadFrom::Event(seq) = from {
            (reader.seq, reader.gap) = (seq, None);
        }
        Ok(reader)
    }

    /// What the server says of the stream now.
    fn look(&self) -> Result<Info, StoreError> {
        let shared = &self.bus.0;
        let looked = self.bus.ask(
            async {
                let stream = shared.connected().await?.stream;
                stream.get_info().await.map_err(|e| e.to_string())
            },
            2 * PATIENCE,
        );
        if looked.is_err() {
            shared.forget();
        }
        looked
    }

    /// Goes to where the store says that it is in this stream.
    fn attach(&mut self, info: &Info) -> Result<(), StoreError> {
        let shared = &self.bus.0;
        let store = &shared.store;
        self.place = shared.cursor_name(&self.name, info);
        self.made = u64::try_from(info.created.unix_timestamp_nanos()).unwrap_or_default();
        self.seq = store.cursor(&self.place)?;
        let known = store.cursor(&shared.origin_name(&self.name))?;
        self.gap = (known != 0 && known != self.made).then_some(Gap::OtherLog);
        self.origin_due = known != self.made;
        self.source = None;
        Ok(())
    }

    /// Makes a consumer behind the newest event that was handed on.
    fn begin(&mut self) -> Result<Source, StoreError> {
        let info = self.look()?;
        if self.place != self.bus.0.cursor_name(&self.name, &info) {
            // It was made anew while this ran.
            self.attach(&info)?;
        }
        let first = info.state.first_sequence;
        if 0 < self.seq && self.seq + 1 < first {
            self.gap = self.gap.or(Some(Gap::Forgotten {
                after: self.seq,
                before: first,
            }));
            self.seq = first - 1;
        }
        let config = PullConfig {
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: self.seq + 1,
            },
            // How far it is, the store knows.
            ack_policy: AckPolicy::None,
            inactive_threshold: IDLE_MAX,
            memory_storage: true,
            num_replicas: 1,
            description: Some(format!("Tailwater: {}", self.name)),
            ..PullConfig::default()
        };
        let shared = &self.bus.0;
        self.bus.ask(
            async {
                let stream = shared.connected().await?.stream;
                let consumer = stream.create_consumer(config).await;
                Ok((stream, consumer.map_err(|e| e.to_string())?))
            },
            2 * PATIENCE,
        )
    }

    /// Messages behind those that were had; after a wait, if there is none at first.
    fn fetch(
        &self,
        source: &Source,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Message>, StoreError> {
        let until = Instant::now() + wait;
        let (_, consumer) = source;
        let asked = async {
            let first = now(consumer, limit).await?;
            let left = until.saturating_duration_since(Instant::now());
            if !first.is_empty() || left.is_zero() {
                return Ok(first);
            }
            later(consumer, left).await
        };
        self.bus.ask(asked, wait + 2 * PATIENCE)
    }

    /// Whether there is an event behind the newest that was handed on and before this one. If there is, it got lost on its
    /// way, as a connection was; else it is not kept any more.
    fn is_kept(&self, stream: &Stream<Info>, before: u64) -> Result<bool, StoreError> {
        let after = self.seq + 1;
        let asked = async {
            let next = stream
                .raw_message_builder()
                .sequence(after)
                .next_by_subject(">");
            let next = next.send().await.map_err(|e| e.to_string())?;
            Ok(next.sequence < before)
        };
        self.bus.ask(asked, PATIENCE)
    }

    /// Takes messages in, in order, up to the first that does not follow.
    fn take(&mut self, messages: Vec<Message>) -> Result<Vec<Recorded>, StoreError> {
        let mut events = Vec::new();
        for message in messages {
            let info = message
                .info()
                .map_err(|e| self.bus.0.error(e.to_string()))?;
            let seq = info.stream_sequence;
            if seq <= self.seq {
                continue;
            }
            if 0 < self.seq && self.seq + 1 < seq {
                let (stream, consumer) = match (&self.source, events.is_empty()) {
                    (Some(source), true) => source.clone(),
                    // It is looked at when these are handed on.
                    _ => {
                        self.source = None;
                        break;
                    }
                };
                if self.is_kept(&stream, seq)? {
                    drop(consumer);
                    self.source = None;
                    break;
                }
                self.gap = self.gap.or(Some(Gap::Forgotten {
                    after: self.seq,
                    before: seq,
                }));
            }
            self.seq = seq;
            match serde_json::from_slice::<Body>(&message.payload) {
                Ok(body) => events.push(Recorded {
                    seq,
                    key: body.key,
                    event: body.event,
                }),
                Err(error) => tracing::error!(
                    seq,
                    stream = self.bus.0.name,
                    "a message of the bus is no event, and is passed over: {error}"
                ),
            }
        }
        Ok(events)
    }

    fn read(&mut self, limit: usize, wait: Duration) -> Result<Batch, StoreError> {
        if self.origin_due && self.gap.is_none() {
            let shared = &self.bus.0;
            let origin = shared.origin_name(&self.name);
            shared.store.advance(&origin, self.made)?;
            self.origin_due = false;
        }
        let source = match self.source.take() {
            Some(source) => source,
            None => self.begin()?,
        };
        let wait = if self.gap.is_some() {
            Duration::ZERO
        } else {
            wait
        };
        let messages = self.fetch(&source, limit, wait)?;
        self.source = Some(source);
        let events = self.take(messages)?;
        let gap = self.gap.take();
        Ok(Batch { gap, events })
    }
}

/// What is there; none if there is nothing.
async fn now(consumer: &PullConsumer, limit: usize) -> Result<Vec<Message>, String> {
    let fetched = consumer.fetch().max_messages(limit).messages().await;
    collect(fetched.map_err(|e| e.to_string())?).await
}

/// The next one, if it comes in this time, and what comes with it.
async fn later(consumer: &PullConsumer, wait: Duration) -> Result<Vec<Message>, String> {
    let waiting = consumer.batch().max_messages(1).expires(wait);
    collect(waiting.messages().await.map_err(|e| e.to_string())?).await
}

async fn collect(
    mut batch: async_nats::jetstream::consumer::pull::Batch,
) -> Result<Vec<Message>, String> {
    let mut messages = Vec::new();
    while let Some(message) = batch.next().await {
        messages.push(message.map_err(|e| e.to_string())?);
    }
    Ok(messages)
}

impl Subscription for Reader {
    fn next(&mut self, limit: usize, wait: Duration) -> Result<Batch, StoreError> {
        let read = self.read(limit, wait);
        if read.is_err() {
            self.source = None;
        }
        read
    }

    fn acknowledge(&mut self, seq: u64) -> Result<(), StoreError> {
        self.bus.0.store.advance(&self.place, seq)
    }

    fn restart(&mut self) -> Result<(), StoreError> {
        let info = self.look()?;
        self.attach(&info)
    }

    fn consumer(&self) -> &str {
        &self.place
    }
}
