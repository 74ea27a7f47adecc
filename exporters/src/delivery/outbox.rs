//! What an exporter hands its requests to: a delivery service, with a queue on disk in front of it if
//! one is configured.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tailwater_pdata::Signal;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::fs::OsFs;
use tailwater_pipeline::{BuildError, Stored};
use tailwater_telemetry::metrics::MetricsRegistry;
use tokio::runtime::Handle;

use super::intake::Intake;
use super::options::QueueOptions;
use super::request::Acks;
use super::service::{Delivery, DeliveryParts};
use super::stored::{StoredParts, StoredQueue};
use super::verdict::{Judge, Transport};

/// What an outbox is made of.
pub struct OutboxParts {
    /// The delivery service.
    pub delivery: DeliveryParts,
    /// What it carries.
    pub signal: Signal,
    /// Where it is shown.
    pub metrics: Arc<MetricsRegistry>,
    /// Where the queue is, if it is on disk.
    pub dir: Option<PathBuf>,
}

/// See the module's documentation.
pub struct Outbox {
    delivery: Delivery<Acks>,
    stored: Option<StoredQueue>,
}

impl Outbox {
    /// The directory of the queue that `options` want on disk, if they do, for the exporter of `cx`.
    /// `kind` is its type, however the configuration spells it: a queue must be found again when
    /// somebody replaces a deprecated name.
    pub fn dir(
        cx: &NodeCx,
        kind: &str,
        options: &QueueOptions,
        signal: Signal,
    ) -> Result<Option<PathBuf>, BuildError> {
        let Some(storage) = &options.storage else {
            return Ok(None);
        };
        let name = queue_name(&cx.id, kind, signal);
        Ok(Some(cx.storages.queue_dir(storage, &name)?))
    }

    /// An outbox that is not open yet: a queue on disk is opened when it is started.
    pub fn new(parts: OutboxParts) -> Outbox {
        let OutboxParts {
            mut delivery,
            signal,
            metrics,
            dir,
        } = parts;
        let Some(dir) = dir else {
            let delivery = Delivery::new(delivery);
            delivery.expose(&metrics, signal);
            let stored = None;
            return Outbox { delivery, stored };
        };
        let sending = delivery.queue.sending();
        let stored = StoredQueue::new(StoredParts {
            name: delivery.name.clone(),
            signal,
            dir,
            options: std::mem::replace(&mut delivery.queue, sending),
            fs: Arc::new(OsFs),
            clock: delivery.clock.clone(),
            seed: delivery.seed,
            metrics: metrics.clone(),
        });
        let delivery = Delivery::new(delivery);
        delivery.expose_sending(&metrics, signal);
        let stored = Some(stored);
        Outbox { delivery, stored }
    }

    /// The delivery service.
    pub fn delivery(&self) -> &Delivery<Acks> {
        &self.delivery
    }

    /// The shards' side.
    pub fn intake(&self) -> Intake {
        match &self.stored {
            Some(stored) => Intake::Stored(stored.intake()),
            None => Intake::Memory(self.delivery.handle()),
        }
    }

    /// Starts storing and sending. A second call does nothing.
    ///
    /// # Errors
    /// The queue on disk cannot be opened, or has no thread. It may be tried again.
    pub fn start<T: Transport, J: Judge<Acks> + ?Sized>(
        &mut self,
        runtime: &Handle,
        transport: Arc<T>,
        judge: Arc<J>,
    ) -> io::Result<()> {
        if let Some(stored) = &mut self.stored {
            stored.start(self.delivery.handle())?;
        }
        self.delivery.start(runtime, transport, judge);
        Ok(())
    }

    /// For how long there has been something to send while nothing was settled.
    pub fn stalled_for(&self) -> Duration {
        self.delivery.handle().stalled_for()
    }

    /// What is on disk and not settled.
    pub fn on_disk(&self) -> Stored {
        let stored = self.stored.as_ref().map(StoredQueue::on_disk);
        stored.unwrap_or_default()
    }

    /// Where the queue on disk is.
    pub fn queue_dir(&self) -> Option<&Path> {
        self.stored.as_ref().map(StoredQueue::dir)
    }

    /// As [`Delivery::stop`]. What is on disk is kept there, and counts as handed over.
    pub fn stop(&mut self, deadline: Mono) -> u64 {
        let Some(stored) = &mut self.stored else {
            return self.delivery.stop(deadline);
        };
        stored.close();
        // What is handed back is on disk.
        self.delivery.stop(deadline);
        stored.finish()
    }
}

fn queue_name(id: &str, kind: &str, signal: Signal) -> String {
    match id.split_once('/') {
        Some((_, name)) => format!("{kind}/{name} {signal}"),
        None => format!("{kind} {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deprecated_name_has_the_same_queue() {
        let name = |id| queue_name(id, "otlp_grpc", Signal::Logs);
        assert_eq!(name("otlp/a/b"), name("otlp_grpc/a/b"));
        assert_eq!(name("otlp"), "otlp_grpc logs");
        assert_ne!(name("otlp"), name("otlp/otlp"));
    }
}
