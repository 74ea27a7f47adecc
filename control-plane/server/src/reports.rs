//! Takes what agents report of what they read.

use crate::hub::{Counts, Hub};
use crate::now_ms;
use crate::repeated::Repeated;
use crate::sources::{Sources, Untaken};

/// Takes the newest report of each agent that made one, and what is on the bus. What cannot be taken now stays for the next
/// time.
pub fn take(hub: &Hub, sources: &Sources, said: &mut Repeated) {
    let mut away = |error: &dyn std::fmt::Display| {
        let text = error.to_string();
        if said.is_news(&text) {
            tracing::error!("what agents say of their sources waits: {text}");
        }
    };
    if let Err(error) = sources.follow(now_ms()) {
        away(&error);
        return;
    }
    let mut reports = hub.take_reports().into_iter();
    while let Some((uid, data)) = reports.next() {
        match sources.take(uid, &data, now_ms()) {
            Ok(()) => Counts::add(&hub.counts.reports),
            Err(Untaken::Unfit(error)) => {
                Counts::add(&hub.counts.reports);
                Counts::add(&hub.counts.reports_refused);
                tracing::warn!(%uid, "what an agent says of its sources is not taken: {error}");
            }
            Err(Untaken::Later(error)) => {
                away(&error);
                hub.give_back([(uid, data)].into_iter().chain(reports));
                break;
            }
        }
    }
    if sources.asks_all() {
        hub.ask_all();
    }
}
