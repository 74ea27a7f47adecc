//! People are told what the matter is by others: Alertmanagers, and webhooks. What fires is part of the state of each
//! group, so it is known after a crash; each receiver is told on its own, until it has taken it. What it knows is kept in the
//! store, so whoever leads next says nothing again, and what is over meanwhile.

mod format;
mod outbox;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use tailwater_control_plane::rollout::repair::FiringAlerts;
use tailwater_control_plane::store::Notified;
use tokio::sync::{Notify, watch};

use self::outbox::{Notice, Outbox, Rules, Told};
use crate::http::Target;
use crate::now_ms;
use crate::repeated::Repeated;

/// How often it is looked whether there is something to say.
const LOOK: Duration = Duration::from_secs(1);
/// The largest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// So much of a refusal is shown, characters.
const SHOWN_CHARS_MAX: usize = 200;
/// Of Alertmanager, which takes what it is not told again for over.
const ALERTMANAGER: Rules = Rules {
    again_ms: Some(60_000),
    burst: 10,
    every_ms: 2_000,
};
/// Of a webhook, behind which may be people.
const WEBHOOK: Rules = Rules {
    again_ms: None,
    burst: 5,
    every_ms: 10_000,
};

/// What kind of receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// By `POST /api/v2/alerts`.
    Alertmanager,
    /// By `POST` of what Alertmanager gives webhooks.
    Webhook,
}

impl Kind {
    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Alertmanager => "alertmanager",
            Kind::Webhook => "webhook",
        }
    }

    fn rules(self) -> Rules {
        match self {
            Kind::Alertmanager => ALERTMANAGER,
            Kind::Webhook => WEBHOOK,
        }
    }
}

/// Who is told.
struct Receiver {
    kind: Kind,
    target: Target,
    outbox: Mutex<Outbox>,
    /// What it knows is kept there, under this name.
    store: Arc<dyn Notified>,
    name: String,
    sent: AtomicU64,
    failed: AtomicU64,
}

impl Receiver {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module's documentation.
#[derive(Default)]
pub struct Notifier {
    receivers: Vec<Arc<Receiver>>,
    news: Notify,
}

impl Notifier {
    /// One that will tell these, and keeps what they know in a store.
    pub fn new(receivers: Vec<(Kind, Target)>, store: &Arc<dyn Notified>) -> Notifier {
        let now = now_ms();
        let receiver = |(i, (kind, target)): (usize, (Kind, Target))| {
            Arc::new(Receiver {
                kind,
                target,
                outbox: Mutex::new(Outbox::new(kind.rules(), now)),
                store: store.clone(),
                name: format!("{}/{i}", kind.name()),
                sent: AtomicU64::new(0),
                failed: AtomicU64::new(0),
            })
        };
        Notifier {
            receivers: receivers.into_iter().enumerate().map(receiver).collect(),
            news: Notify::new(),
        }
    }

    /// This is what fires in a group.
    pub fn set(&self, group: &str, firing: &FiringAlerts) {
        for receiver in &self.receivers {
            receiver.outbox().set(group, firing);
        }
        self.news.notify_waiters();
    }

    /// Another process looks after a group.
    pub fn leave(&self, group: &str) {
        for receiver in &self.receivers {
            receiver.outbox().leave(group);
        }
    }

    /// Messages by kind of receiver that were taken, and that were not.
    pub fn counts(&self) -> Vec<(Kind, u64, u64)> {
        let kinds = [Kind::Alertmanager, Kind::Webhook];
        let of = |kind: Kind| {
            let mut all = self.receivers.iter().filter(|r| r.kind == kind).peekable();
            all.peek()?;
            let sum = all.fold((0, 0), |(sent, failed), r| {
                let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
                (sent + load(&r.sent), failed + load(&r.failed))
            });
            Some((kind, sum.0, sum.1))
        };
        kinds.into_iter().filter_map(of).collect()
    }

    /// Tells, until it is to end.
    pub async fn run(self: Arc<Self>, stopped: watch::Receiver<bool>) {
        let mut tasks = Vec::new();
        for receiver in &self.receivers {
            let (notifier, receiver) = (self.clone(), receiver.clone());
            let mut stopped = stopped.clone();
            tasks.push(tokio::spawn(async move {
                if !remember(&receiver, &mut stopped).await {
                    return;
                }
                loop {
                    tell(&receiver, &mut stopped).await;
                    tokio::select! {
                        () = notifier.news.notified() => {}
                        () = tokio::time::sleep(LOOK) => {}
                        _ = stopped.wait_for(|s| *s) => return,
                    }
                }
            }));
        }
        for task in tasks {
            // One that panicked has said so.
            let _ = task.await;
        }
    }
}

/// Says what is due. A message that is not answered is given up at the end; what was taken is kept in any case.
async fn tell(receiver: &Arc<Receiver>, stopped: &mut watch::Receiver<bool>) {
    let Some(notices) = receiver.outbox().due(now_ms()) else {
        return;
    };
    let done = tokio::select! {
        done = say(receiver, &notices) => done,
        _ = stopped.wait_for(|s| *s) => return,
    };
    let is_taken = done.is_ok();
    let (told, failures) = {
        let mut outbox = receiver.outbox();
        outbox.done(&notices, is_taken, now_ms());
        (is_taken.then(|| outbox.told()), outbox.failures())
    };
    let (kind, at) = (receiver.kind.name(), receiver.target.to_string());
    match done {
        Ok(()) => {
            receiver.sent.fetch_add(1, Ordering::Relaxed);
            let count = notices.len();
            tracing::info!(activity = "send_alert", kind, at, count, "was told");
        }
        Err(why) => {
            receiver.failed.fetch_add(1, Ordering::Relaxed);
            // Not each of a long row.
            if failures < 4 || failures.is_multiple_of(10) {
                tracing::error!(
                    activity = "send_alert",
                    kind,
                    failures,
                    "cannot be told, and is tried again: {why}"
                );
            }
        }
    }
    if let Some(told) = told {
        keep(receiver, told).await;
    }
}

async fn say(receiver: &Receiver, notices: &[Notice]) -> Result<(), String> {
    let (path, body) = match receiver.kind {
        Kind::Alertmanager => ("/api/v2/alerts", format::alertmanager(notices, now_ms())),
        Kind::Webhook => ("", format::webhook(notices)),
    };
    let body = Some(("application/json", body.to_string()));
    let target = &receiver.target;
    let asked = target.ask(Method::POST, path, body, ANSWER_BYTES_MAX);
    let answer = asked.await.map_err(|e| e.to_string())?;
    if answer.status.is_success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&answer.body);
    let said: String = said.chars().take(SHOWN_CHARS_MAX).collect();
    Err(format!("{target} answered {}: {said:?}", answer.status))
}

/// Reads what a receiver was told by whoever led before, however long that takes: without it, it would be told again, and
/// not of what is over. False if it is to end meanwhile.
async fn remember(receiver: &Arc<Receiver>, stopped: &mut watch::Receiver<bool>) -> bool {
    let mut said = Repeated::default();
    loop {
        let of = receiver.clone();
        let read = tokio::task::spawn_blocking(move || of.store.notified(&of.name)).await;
        match read {
            Ok(Ok(kept)) => {
                let told = kept.and_then(|body| told(&body, &receiver.target));
                receiver.outbox().know(told.unwrap_or_default());
                return true;
            }
            Ok(Err(error)) => {
                let text = error.to_string();
                if said.is_news(&text) {
                    tracing::error!("it is not known what {} was told: {text}", receiver.name);
                }
            }
            // It panicked, and has said so.
            Err(_) => return false,
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = stopped.wait_for(|s| *s) => return false,
        }
    }
}

/// What was kept, if it is of a receiver at this place.
fn told(body: &str, target: &Target) -> Option<Told> {
    let value: Value = serde_json::from_str(body).ok()?;
    let is_same = value["at"] == target.to_string();
    is_same.then(|| serde_json::from_value(value["told"].clone()).ok())?
}

async fn keep(receiver: &Arc<Receiver>, told: Told) {
    let receiver = receiver.clone();
    let write = move || {
        let value = serde_json::json!({"at": receiver.target.to_string(), "told": told});
        (receiver.store).keep_notified(&receiver.name, &value.to_string())
    };
    let done = tokio::task::spawn_blocking(write).await;
    if let Ok(Err(error)) = done {
        tracing::warn!(%error, "after a restart somebody may be told the same again");
    }
}

#[cfg(test)]
mod tests;
