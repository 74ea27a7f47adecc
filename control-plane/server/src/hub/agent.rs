//! One agent: what it said, what it should run, and what it runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::Value;
use tailwater_config::{Node, NodeValue, REDACTED, parse};
use tailwater_control_plane::model::Digest;
use tailwater_control_plane::rollout::model::{Generation, Report};
use tailwater_control_plane::rollout::verdict::Sample;
use tailwater_opamp::proto::{
    AgentRemoteConfig, AgentToServer, ConnectionSettingsOffers, CustomMessage, Status, agent,
};
use tailwater_opamp::{Heard, Peer};

use super::arrivals::Arrivals;
use super::streams::Streams;
use super::{Connection, DRY_RUN, POLL_MS_MAX, SOURCES, STATE};
use crate::offers::{FALLBACK_BODY, Offer, PIPELINE_FILE, digest_of, key_of};

/// The file of an offer that holds what is tailed; it changes independently.
const TARGETS_FILE: &str = "targets.yaml";
/// The attribute of an agent that names its group.
const GROUP_ATTRIBUTE: &str = "tailwater.group";
/// The group of those that name none.
const GROUP: &str = "default";
/// The longest name of a group, bytes.
const GROUP_BYTES_MAX: usize = 64;
/// So many changes of what an agent ran are remembered.
const RAN_MAX: usize = 32;
/// The first wait before the same is offered again to an agent that answered and does not run it, ms.
const AGAIN_MS: u64 = 60_000;
/// The longest, ms.
const AGAIN_MS_MAX: u64 = 3_600_000;

/// What an agent should run.
#[derive(Clone, Debug)]
pub struct Desired {
    /// As it is offered.
    pub offer: Arc<Offer>,
    /// When it may be offered anew, ms.
    pub again_ms: u64,
    /// How long is waited after that, ms.
    pub wait_ms: u64,
}

/// What an agent ran, from when.
#[derive(Clone, PartialEq, Debug)]
pub struct Ran {
    /// From then on, ms.
    pub since_ms: u64,
    /// The pipeline; none if it is not known which.
    pub digest: Option<Digest>,
}

/// What an agent of ours says of itself besides.
#[derive(Clone, Debug, Default)]
pub struct OwnState {
    /// What is laid over its own configuration, file by file.
    pub layer: Option<BTreeMap<String, String>>,
    /// Number of the configuration.
    pub generation: u64,
    /// What it counts, as of the newest message.
    pub sample: Option<Sample>,
    /// What became of sample lines; none if no pipeline takes any.
    pub probes: Option<Probes>,
}

/// What an agent says of its sample lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Probes {
    /// Long enough ago to have arrived.
    pub due: u64,
    /// All up to this number are.
    pub due_up_to: u64,
    /// Of those that are due, acknowledged by every destination.
    pub delivered: u64,
}

/// A question whether a configuration would be taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Its name.
    pub id: String,
    /// All reasons why not, or how much would change; none as long as there is no answer.
    pub answer: Option<Result<usize, Vec<String>>>,
}

/// See the module's documentation.
pub struct Agent {
    /// What it said by the protocol.
    pub peer: Peer,
    /// What it should run; none as long as nobody said so.
    pub desired: Option<Desired>,
    /// Its group.
    pub group: String,
    /// When it came first, ms.
    pub since_ms: u64,
    /// When it was heard last, ms.
    pub seen_ms: u64,
    /// What an agent of ours says besides.
    pub state: OwnState,
    /// What it ran, the oldest first.
    pub ran: VecDeque<Ran>,
    /// It may be told what to run: it has the certificate that it needs, if it needs one.
    pub is_enrolled: bool,
    /// Settings of the connection that it is to be given: a certificate that somebody approved.
    pub settings: Option<Box<ConnectionSettingsOffers>>,
    /// Told apart by their numbers: processes that ask over HTTP under this name.
    pub(super) streams: Streams,
    /// What it is to be asked next.
    pub question: Option<CustomMessage>,
    /// What it is to be asked before that: whether it would take a configuration.
    pub dry_run: Option<CustomMessage>,
    /// What it was asked so last.
    pub asked: Option<Asked>,
    /// It is to begin anew.
    pub restart: bool,
    /// Sample lines of it that were found at the destination.
    pub arrivals: Arrivals,
    /// It was asked for its counters until then, ms.
    pub asked_ms: u64,
    /// What it said last of what it reads, until somebody takes it.
    pub(super) sources_said: Option<Vec<u8>>,
    pub(super) connection: Option<Connection>,
}

impl Agent {
    /// One that said nothing yet.
    pub(super) fn new(now_ms: u64) -> Agent {
        Agent {
            peer: Peer::default(),
            desired: None,
            group: GROUP.to_owned(),
            since_ms: now_ms,
            seen_ms: now_ms,
            state: OwnState::default(),
            ran: VecDeque::new(),
            is_enrolled: true,
            settings: None,
            streams: Streams::default(),
            question: None,
            dry_run: None,
            asked: None,
            restart: false,
            arrivals: Arrivals::default(),
            asked_ms: 0,
            sources_said: None,
            connection: None,
        }
    }

    pub(super) fn is_described(&self) -> bool {
        !self.peer.identifying.is_empty() || self.peer.health.is_some()
    }

    /// Takes a message.
    pub(super) fn received(&mut self, message: AgentToServer, now_ms: u64) -> Heard {
        let mut heard = self.peer.received(message);
        self.seen_ms = now_ms;
        if self.is_enrolled
            && let Some(custom) = heard.custom.take_if(|c| c.capability == SOURCES)
        {
            self.sources_said = Some(custom.data);
        }
        if let Some(custom) = heard.custom.as_ref().filter(|c| c.capability == STATE) {
            self.take_state(&custom.data, now_ms);
        }
        if let Some(custom) = heard.custom.as_ref().filter(|c| c.capability == DRY_RUN) {
            self.take_checked(&custom.data);
        }
        self.group = self.named_group();
        heard
    }

    /// What came of a dry run.
    fn take_checked(&mut self, data: &[u8]) {
        let Ok(value) = serde_json::from_slice::<Value>(data) else {
            return;
        };
        let list = |key: &str| value[key].as_array().cloned().unwrap_or_default();
        let text = |v: &Value| v.as_str().map(|t| t.chars().take(4096).collect::<String>());
        if let Some(asked) = self.asked.as_mut().filter(|a| value["id"] == a.id.as_str()) {
            asked.answer = Some(match value["accepted"].as_bool() {
                Some(true) => Ok(list("changes").len()),
                _ => Err(list("reasons").iter().take(64).filter_map(text).collect()),
            });
        }
    }

    /// What it is asked next, once.
    pub(super) fn next_question(&mut self) -> Option<CustomMessage> {
        let next = self.dry_run.take().or_else(|| self.question.take());
        if self.has_question()
            && let Some(wake) = self.connection.as_ref().and_then(|c| c.wake.as_ref())
        {
            // A message holds one of them.
            wake.notify_one();
        }
        next
    }

    pub(super) fn has_question(&self) -> bool {
        self.dry_run.is_some() || self.question.is_some()
    }

    /// What it counts. With `by_query` its sample lines are those that were found at the destination, else those that
    /// were acknowledged.
    pub fn sample(&self, by_query: bool) -> Option<Sample> {
        let mut sample = self.state.sample?;
        if let Some(probes) = &self.state.probes {
            (sample.probes_due, sample.probes_found) = match by_query {
                false => (probes.due, probes.delivered),
                true => self.arrivals.counts(sample.incarnation),
            };
        }
        Some(sample)
    }

    /// Whether it begins anew when it is told to.
    pub fn can_restart(&self) -> bool {
        self.peer.claims(agent::ACCEPTS_RESTART_COMMAND)
    }

    /// Whether it takes part in rollouts.
    pub fn is_managed(&self) -> bool {
        self.is_enrolled && self.peer.is_configurable()
    }

    fn named_group(&self) -> String {
        let named = self.peer.others.get(GROUP_ATTRIBUTE);
        let named = named.or_else(|| self.peer.identifying.get(GROUP_ATTRIBUTE));
        match named.filter(|n| is_group(n)) {
            Some(name) => name.clone(),
            None => GROUP.to_owned(),
        }
    }

    fn take_state(&mut self, data: &[u8], now_ms: u64) {
        let Ok(value) = serde_json::from_slice::<Value>(data) else {
            return;
        };
        let Some(files) = value["layer"].as_array() else {
            return;
        };
        let file = |f: &Value| {
            let text = |key: &str| {
                f[key]
                    .as_str()
                    .filter(|t| t.len() <= 256)
                    .map(str::to_owned)
            };
            Some((text("file")?, text("sha256")?))
        };
        self.state.layer = Some(files.iter().take(64).filter_map(file).collect());
        let runs = self.state.layer.as_ref().map(of_layer);
        self.remember(runs.as_ref(), now_ms);
        self.state.generation = value["generation"].as_u64().unwrap_or(0);
        let counts = &value["counters"];
        let count = |key: &str| counts[key].as_u64().unwrap_or(0).min(1 << 60);
        self.state.sample = counts.is_object().then(|| Sample {
            at_ms: now_ms,
            incarnation: value["process"].as_u64().unwrap_or(0),
            lines_read: count("records_read"),
            lines_delivered: count("records_delivered"),
            lines_filtered: count("records_filtered"),
            lines_dropped: count("records_dropped"),
            lines_rejected: count("records_rejected"),
            lines_in_flight: count("records_in_flight"),
            requests: count("requests"),
            errors_permanent: count("permanent"),
            errors_retryable: count("retries"),
            errors_throttled: count("throttled"),
            queue_bytes: count("queue_size"),
            queue_bytes_max: count("queue_capacity"),
            lag_bytes: count("lag_bytes"),
            bytes_read: count("bytes_read"),
            memory_bytes: count("memory_bytes"),
            cpu_ms: count("cpu_ms"),
            apply_ms: value["apply_ms"].as_u64().unwrap_or(0).min(1 << 60),
            ..Sample::default()
        });
        let probes = &value["probes"];
        let count = |key: &str| probes[key].as_u64().unwrap_or(0).min(1 << 60);
        self.state.probes = probes.is_object().then(|| Probes {
            due: count("due"),
            due_up_to: count("due_up_to"),
            delivered: count("delivered"),
        });
    }

    /// Whether it is there.
    pub fn is_connected(&self, now_ms: u64) -> bool {
        match &self.connection {
            Some(Connection { wake: Some(_), .. }) => true,
            Some(_) => self.seen_ms + POLL_MS_MAX > now_ms,
            None => false,
        }
    }

    /// Whether it is known what it runs: agents of ours say so soon after they came.
    pub fn is_known(&self) -> bool {
        self.state.layer.is_some() || !self.is_ours()
    }

    /// An agent that comes, and was never told what to run, runs what was promoted if it can.
    pub(super) fn follow(&mut self, good: Option<&(Generation, Arc<Offer>)>, now_ms: u64) {
        let is_new = self.desired.is_none() && self.is_known() && self.is_managed();
        let Some((good, offer)) = good.filter(|_| is_new) else {
            return;
        };
        if good.requires.is_subset(&self.components(&good.requires)) {
            let report = self.report(&|_| None, None);
            if let Some(wait_ms) = self.wants(&good.digest, &report, offer.key.as_deref(), now_ms) {
                self.take_on(offer, wait_ms, now_ms);
            }
        }
    }

    /// Types of its components. What it did not list is not known to be missing.
    pub fn components(&self, wanted: &BTreeSet<String>) -> BTreeSet<String> {
        match &self.peer.components {
            Some(components) => components.clone(),
            None => wanted.clone(),
        }
    }

    /// What it runs and answered. `body` gives configurations by digest, `good` is what was promoted last.
    pub fn report(
        &self,
        body: &dyn Fn(&Digest) -> Option<String>,
        good: Option<&Digest>,
    ) -> Report {
        let answer = self.peer.answer_to_offer();
        let settled = answer.filter(|(_, status, _)| *status != Status::Applying);
        let answered = settled.and_then(|(hash, ..)| digest_of(hash));
        let refused = settled.filter(|(_, status, _)| *status == Status::Failed);
        let refused = refused.map(|(_, _, text)| match text {
            "" => "it does not say why".to_owned(),
            text => text.to_owned(),
        });
        let effective = match &self.state.layer {
            Some(layer) => Some(of_layer(layer)),
            None if self.is_ours() => None,
            None => self.by_content(answered.as_ref(), body, good),
        };
        Report {
            effective,
            answered,
            refused,
        }
    }

    /// What runs in an agent that shows its configuration and no digests: what it was offered and is in there.
    fn by_content(
        &self,
        answered: Option<&Digest>,
        body: &dyn Fn(&Digest) -> Option<String>,
        good: Option<&Digest>,
    ) -> Option<Digest> {
        let fallback = Digest::of(FALLBACK_BODY.as_bytes());
        if self.peer.answer_to_offer().is_none() {
            return Some(fallback);
        }
        let desired = self.desired.as_ref().map(|d| &d.offer.digest);
        let files = self.peer.effective.as_ref()?;
        let trees: Vec<Node> = files.values().filter_map(|f| tree(f)).collect();
        let mut candidates = [answered, desired, good].into_iter().flatten();
        let found = candidates.find(|digest| {
            let body = body(digest).filter(|b| b != FALLBACK_BODY);
            let wanted = body.and_then(|b| tree(b.as_bytes()));
            wanted.is_some_and(|w| trees.iter().any(|t| holds(t, &w)))
        });
        let is_bare = answered == Some(&fallback) && found.is_none();
        found.cloned().or(is_bare.then_some(fallback))
    }

    /// Texts that it runs, is to run, or answered; those that it ran are among them.
    pub fn named_texts(&self) -> BTreeSet<Digest> {
        let ran = self.ran.iter().filter_map(|r| r.digest.clone());
        let desired = self.desired.as_ref().map(|d| d.offer.digest.clone());
        let newest = self.newest().and_then(digest_of);
        ran.chain(desired).chain(newest).collect()
    }

    /// Remembers what it runs, if that is another thing.
    pub fn remember(&mut self, effective: Option<&Digest>, now_ms: u64) {
        if self
            .ran
            .back()
            .is_none_or(|r| r.digest.as_ref() != effective)
        {
            if self.ran.len() == RAN_MAX {
                self.ran.pop_front();
            }
            self.ran.push_back(Ran {
                since_ms: now_ms,
                digest: effective.cloned(),
            });
        }
    }

    /// The newest offer that it took or answered.
    fn newest(&self) -> Option<&[u8]> {
        let answered = || self.peer.answer_to_offer().map(|(hash, ..)| hash);
        self.peer.offered().or_else(answered)
    }

    /// It should run this from now on, under the signature of `key` if there is one. If that has to be offered, how
    /// long to wait before it is offered anew, ms; see [`Agent::take_on`].
    pub fn wants(
        &mut self,
        digest: &Digest,
        report: &Report,
        key: Option<&str>,
        now_ms: u64,
    ) -> Option<u64> {
        let runs = report.effective.as_ref() == Some(digest);
        let newest = self.newest();
        // Something else that is under way would come into force later.
        let is_last = newest.is_none_or(|hash| digest_of(hash).as_ref() == Some(digest));
        let is_settled =
            runs && is_last && report.refused.is_none() && !self.is_signed_by_other(key);
        let desired = self.desired.as_ref().filter(|d| d.offer.digest == *digest);
        if is_settled && desired.is_none() {
            // It runs it already, by an offer that somebody made before, or by none.
            self.desired = None;
            return None;
        }
        let Some(desired) = desired.filter(|d| d.offer.key.as_deref() == key) else {
            return Some(AGAIN_MS);
        };
        let answer = self.peer.answer_to_offer();
        let is_answered = answer.is_some_and(|(hash, status, _)| {
            hash == self.offer_of(&desired.offer).config_hash && status != Status::Applying
        });
        if is_settled || !is_answered || now_ms < desired.again_ms {
            return None;
        }
        Some((desired.wait_ms * 2).min(AGAIN_MS_MAX))
    }

    /// It is offered this, and anew after a while if it answered and does not run it.
    pub fn take_on(&mut self, offer: &Arc<Offer>, wait_ms: u64, now_ms: u64) {
        self.desired = Some(Desired {
            offer: offer.clone(),
            again_ms: now_ms + wait_ms,
            wait_ms,
        });
    }

    /// Whether it is an agent of ours that has its newest offer under no signature or that of another key.
    fn is_signed_by_other(&self, key: Option<&str>) -> bool {
        let newest = self.newest().filter(|hash| digest_of(hash).is_some());
        key.is_some() && self.is_ours() && newest.is_some_and(|hash| key_of(hash) != key)
    }

    /// What it runs, if that has to be offered again because it was signed by another key, or not signed; or because
    /// the new signature was refused.
    pub fn to_sign(&self, key: &str, report: &Report) -> Option<Digest> {
        let runs = report.effective.as_ref()?;
        let newest = self.newest().and_then(digest_of);
        let is_same = newest.as_ref() == Some(runs);
        let is_refused = report.refused.is_some();
        (is_same && (is_refused || self.is_signed_by_other(Some(key)))).then(|| runs.clone())
    }

    /// Whether it is one of ours: it says so.
    pub fn is_ours(&self) -> bool {
        self.peer.custom.contains(STATE)
    }

    /// An offer as this agent gets it.
    pub fn offer_of<'a>(&self, offer: &'a Offer) -> &'a AgentRemoteConfig {
        match self.is_ours() {
            true => &offer.ours,
            false => &offer.others,
        }
    }
}

/// Whether this can be the name of a group.
pub fn is_group(name: &str) -> bool {
    let is_char = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && name.len() <= GROUP_BYTES_MAX && name.chars().all(is_char)
}

/// The pipeline of a layer.
fn of_layer(layer: &BTreeMap<String, String>) -> Digest {
    let others = layer
        .keys()
        .filter(|n| *n != PIPELINE_FILE && *n != TARGETS_FILE);
    match (layer.get(PIPELINE_FILE), others.count()) {
        (Some(digest), 0) => Digest::from_text(digest.clone()),
        (None, 0) => Digest::of(FALLBACK_BODY.as_bytes()),
        // Of somebody else.
        _ => Digest::of_value(layer),
    }
}

fn tree(bytes: &[u8]) -> Option<Node> {
    parse(std::str::from_utf8(bytes).ok()?, "effective").ok()
}

/// Whether everything of `part` is in `whole`. Secrets are not shown, and the list of extensions may have
/// more of them.
fn holds(whole: &Node, part: &Node) -> bool {
    if whole.as_text() == Some(REDACTED) {
        return true;
    }
    match &part.value {
        NodeValue::Map(entries) => entries.iter().all(|(key, value)| {
            let found = whole.get(&key.text);
            match (found, value.as_list()) {
                (None, _) => value.is_null(),
                (Some(found), Some(items)) if key.text == "extensions" => {
                    let known = found.as_list().unwrap_or_default();
                    items.iter().all(|i| known.iter().any(|k| k.same_value(i)))
                }
                (Some(found), _) => holds(found, value),
            }
        }),
        NodeValue::Null => true,
        _ => whole.same_value(part),
    }
}
