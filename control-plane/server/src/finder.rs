//! Sample lines of agents under test, looked for where their pipelines end: in Loki, by one query for all of them.
//!
//! A query that is not answered finds out nothing: what was not looked for is not missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use tailwater_opamp::InstanceUid;
use tokio::sync::watch;

use crate::http::Target;
use crate::hub::Hub;
use crate::now_ms;

/// What is asked: lines of the label that the exporter gives them, and of nothing else.
const QUERY: &str = r#"{tailwater_probe="true"}"#;
/// What a sample line begins with; see `tailwater_pipeline::probes`.
const PREFIX: &str = "tailwater sample line ";
/// How far back is looked, ms: lines have arrived within seconds, clocks of agents may go wrong by the rest.
const BACK_MS: u64 = 180_000;
/// How far ahead, ms.
const AHEAD_MS: u64 = 60_000;
/// Lines of an answer. Source: Loki's `max_entries_limit_per_query`.
const LINES_MAX: usize = 5_000;
/// So many answers are asked for, one behind the other.
const PAGES_MAX: usize = 4;
/// The largest answer, bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// See the module's documentation.
pub struct Finder {
    /// Where Loki is.
    pub loki: Target,
    /// The agents.
    pub hub: Arc<Hub>,
    /// How often it is looked.
    pub every: Duration,
    /// Queries that were answered.
    pub answered: AtomicU64,
    /// Queries that were not.
    pub failed: AtomicU64,
}

/// A sample line.
type Found = BTreeMap<(InstanceUid, u64), BTreeSet<u64>>;

impl Finder {
    /// Looks until it is to end.
    pub async fn run(&self, mut stopped: watch::Receiver<bool>) {
        let mut failures = 0_u32;
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                _ = stopped.wait_for(|s| *s) => return,
            }
            let wanted = self.wanted();
            if wanted.is_empty() {
                continue;
            }
            match self.look().await {
                Ok(found) => {
                    failures = 0;
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    self.tell(wanted, &found);
                }
                Err(why) => {
                    failures += 1;
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    if failures < 4 || failures.is_multiple_of(10) {
                        tracing::error!(failures, "sample lines cannot be looked for: {why}");
                    }
                }
            }
        }
    }

    /// Agents that inject sample lines now: their process, and up to which number lines should be there.
    fn wanted(&self) -> Vec<(InstanceUid, u64, u64)> {
        let now = now_ms();
        let mut wanted = Vec::new();
        self.hub.each(|uid, agent| {
            let (Some(sample), Some(probes)) = (&agent.state.sample, &agent.state.probes) else {
                return;
            };
            if agent.asked_ms > now {
                // Lines that are left out on purpose are not due.
                let up_to = if probes.due == 0 { 0 } else { probes.due_up_to };
                wanted.push((uid, sample.incarnation, up_to));
            }
        });
        wanted
    }

    fn tell(&self, wanted: Vec<(InstanceUid, u64, u64)>, found: &Found) {
        for (uid, process, up_to) in wanted {
            let numbers = found.get(&(uid, process)).cloned().unwrap_or_default();
            self.hub
                .look(uid, |agent| agent.arrivals.looked(process, up_to, numbers));
        }
    }

    /// All sample lines that are there.
    async fn look(&self) -> Result<Found, String> {
        let now = now_ms();
        let (start, mut end) = (now.saturating_sub(BACK_MS), (now + AHEAD_MS) * 1_000_000);
        let mut found = Found::new();
        for _ in 0..PAGES_MAX {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("query", QUERY)
                .append_pair("start", &(start * 1_000_000).to_string())
                .append_pair("end", &end.to_string())
                .append_pair("limit", &LINES_MAX.to_string())
                .append_pair("direction", "backward")
                .finish();
            let path = format!("/loki/api/v1/query_range?{query}");
            let asked = self.loki.ask(Method::GET, &path, None, ANSWER_BYTES_MAX);
            let answer = asked.await.map_err(|e| e.to_string())?;
            if !answer.status.is_success() {
                return Err(format!("{} answered {}", self.loki, answer.status));
            }
            let (count, oldest) = read(&answer.body, &mut found)?;
            match oldest {
                // The end is exclusive.
                Some(oldest) if count >= LINES_MAX && oldest + 1 < end => end = oldest + 1,
                _ => break,
            }
        }
        Ok(found)
    }
}

/// Takes in an answer: how many lines there were, and the time of the oldest, ns.
fn read(body: &[u8], found: &mut Found) -> Result<(usize, Option<u64>), String> {
    let none = || "the answer is none of Loki's query_range".to_owned();
    let value: Value = serde_json::from_slice(body).map_err(|_| none())?;
    let streams = value["data"]["result"].as_array().ok_or_else(none)?;
    let (mut count, mut oldest) = (0, None);
    for entry in streams
        .iter()
        .filter_map(|s| s["values"].as_array())
        .flatten()
    {
        count += 1;
        let at = entry[0].as_str().and_then(|t| t.parse::<u64>().ok());
        oldest = match (oldest, at) {
            (Some(a), Some(b)) => Some(u64::min(a, b)),
            (a, b) => a.or(b),
        };
        if let Some((uid, process, number)) = entry[1].as_str().and_then(line) {
            found.entry((uid, process)).or_default().insert(number);
        }
    }
    Ok((count, oldest))
}

/// What a sample line says, wherever in a line it is: an exporter may have written more around it.
fn line(text: &str) -> Option<(InstanceUid, u64, u64)> {
    let (_, rest) = text.split_once(PREFIX)?;
    let mut words = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let uid = words.next()?.parse().ok()?;
    let process = words.next()?.parse().ok()?;
    Some((uid, process, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_read_from_whatever_is_around_them() {
        let uid = InstanceUid([7; 16]);
        let plain = format!("tailwater sample line {uid} 12 3");
        assert_eq!(line(&plain), Some((uid, 12, 3)));
        let wrapped = format!("{{\"body\":\"{plain}\",\"x\":1}}");
        assert_eq!(line(&wrapped), Some((uid, 12, 3)));
        for other in ["", "tailwater sample line", "tailwater sample line a 1 2"] {
            assert_eq!(line(other), None);
        }
    }

    #[test]
    fn an_answer_is_read_and_another_one_is_refused() {
        let uid = InstanceUid([7; 16]);
        let value =
            |at: u64, number: u64| json!([at.to_string(), format!("{PREFIX}{uid} 1 {number}")]);
        let answer = json!({"status": "success", "data": {"resultType": "streams", "result": [
            {"stream": {"tailwater_probe": "true"}, "values": [value(30, 3), value(20, 2)]},
            {"stream": {}, "values": [value(10, 1), value(20, 2)]},
        ]}});
        let mut found = Found::new();
        let (count, oldest) = read(answer.to_string().as_bytes(), &mut found).unwrap();
        assert_eq!((count, oldest), (4, Some(10)));
        assert_eq!(found[&(uid, 1)], BTreeSet::from([1, 2, 3]));
        for wrong in ["", "{}", "parse error at line 1"] {
            assert!(read(wrong.as_bytes(), &mut found).is_err());
        }
    }
}
