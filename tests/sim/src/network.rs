//! The way to Loki and Loki itself: requests under way, what becomes of them, what is answered.

use std::time::Duration;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use tailwater_exporters::delivery::{Acks, OpenAttempt, Reply, SendError, SendErrorKind};
use tailwater_pipeline::clock::{Clock, Mono, Rng64};
use tailwater_testkit::loki::behaviour::LokiBehaviour;
use tailwater_testkit::loki::model::{LokiModel, ModelAnswer, ModelEntry};
use tailwater_testkit::loki::store::StoreMode;

use crate::dice::{chance, one_of};
use crate::lines::{WINDOW, id_of};
use crate::plan::{BURST_BYTES, Plan, RATE_BYTES};
use crate::world::{START_NS, World};

/// How long the client waits for an answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer that Loki or something before it gives instead of its own, with its text.
pub type Canned = (u16, &'static str);

/// Answers without anything being stored, as they were seen.
const REFUSALS: [Canned; 10] = [
    (
        429,
        "maximum active stream limit exceeded when trying to create stream {job=\"sim\", w=\"w0\"}, reduce the number of active streams (reduce labels or reduce label values), or contact your Loki administrator to see if the limit can be increased, user: 'fake'\n",
    ),
    (
        429,
        "ingestion rate limit exceeded for user fake (limit: 4194304 bytes/sec) while attempting to ingest '9' lines totaling '999' bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased\n",
    ),
    (
        500,
        "rpc error: code = Unavailable desc = connection refused\n",
    ),
    (503, "Service Unavailable\n"),
    (502, "<html>bad gateway</html>"),
    (
        500,
        "at least 2 live replicas required, could only find 1\n",
    ),
    (429, "slow down"),
    (401, "no org id\n"),
    (
        260,
        "ingestion blocked for user fake until '2030-01-01T00:00:00Z' with status code '260'\n",
    ),
    (404, "404 page not found\n"),
];

/// Answers although everything was stored.
const AFTERTHOUGHTS: [Canned; 3] = [
    (500, "context deadline exceeded\n"),
    (504, "upstream request timeout"),
    (503, "Service Unavailable\n"),
];

/// What is wrong with the network and Loki, each per thousand requests.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// Everything is answered with this.
    pub outage: Option<Canned>,
    /// No connection.
    pub refused: bool,
    /// The connection breaks before anything is stored.
    pub reset_before: u64,
    /// The connection breaks after everything is stored.
    pub reset_after: u64,
    /// No answer in time; it may be stored, even later.
    pub hang: u64,
    /// Not processed, and answered with one of [`REFUSALS`].
    pub refusal: u64,
    /// Processed, and answered with one of [`AFTERTHOUGHTS`].
    pub afterthought: u64,
    /// A proxy says 200 and stores nothing.
    pub lie: u64,
    /// Processed; what is answered comes byte by byte, maybe not all of it in time.
    pub slow_body: u64,
    /// Longest time to the answer.
    pub latency_max: Duration,
}

impl Trouble {
    /// Some trouble.
    pub fn some(rng: &mut Rng64) -> Trouble {
        let mut t = Trouble {
            latency_max: Duration::from_millis(one_of(rng, [5, 100, 2_000])),
            ..Trouble::default()
        };
        match rng.below(9) {
            0 => t.outage = Some(one_of(rng, REFUSALS)),
            1 => t.refused = true,
            2 => t.reset_after = 300,
            3 => (t.reset_before, t.reset_after) = (200, 200),
            4 => t.hang = 200,
            5 => t.refusal = 300,
            6 => t.afterthought = 300,
            7 => t.slow_body = 300,
            _ => (t.lie, t.refusal) = (100, 50),
        }
        t
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Process,
    Broken,
    BrokenAfter,
    Refused,
    Timeout,
    SlowBody,
    Answer(Canned),
    AnswerAfter(Canned),
}

/// A request under way.
struct Flight {
    /// `None` once its sender is gone.
    open: Option<OpenAttempt<Acks>>,
    body: Bytes,
    fate: Fate,
    /// When it reaches the store, if it does.
    commit_at: Option<Mono>,
    sent: Mono,
    reply_at: Mono,
    answer: Option<ModelAnswer>,
    number: u64,
    /// Positions could not be saved when it was sent.
    unsaved: bool,
}

/// See the module's documentation.
pub struct Network {
    /// Loki.
    pub model: LokiModel,
    /// What is wrong.
    pub trouble: Trouble,
    /// Entries that the agent was told are refused for good, in this life: at least, at most.
    pub refused: (u64, u64),
    exact: bool,
    flights: Vec<Flight>,
    number: u64,
}

impl Network {
    /// The Loki of a plan, well.
    pub fn new(plan: &Plan) -> Network {
        let behaviour = LokiBehaviour {
            // As Loki has them.
            behind_head_max: (plan.limits.window || plan.wild_clock).then_some(WINDOW),
            line_bytes_max: plan.limits.line_bytes_max.or(Some(256 * 1024)),
            ..LokiBehaviour::default()
        };
        let streams_max = if plan.limits.streams { 1 } else { 5_000 };
        let behaviour = LokiBehaviour {
            streams_max: Some(streams_max),
            ..behaviour
        };
        Network {
            model: LokiModel::new(behaviour, StoreMode::CountOnly),
            trouble: Trouble::default(),
            refused: (0, 0),
            exact: plan.verified,
            flights: Vec::new(),
            number: 0,
        }
    }

    /// Loki limits the rate of each stream, or not; with its streams divided into shards, or not.
    pub fn limit_rate(&mut self, on: bool, shard_streams: bool) {
        let b = &mut self.model.behaviour;
        let defaults = LokiBehaviour::default();
        b.shard_streams = shard_streams;
        (b.stream_rate_bytes, b.stream_burst_bytes) = match on {
            true => (Some(RATE_BYTES), BURST_BYTES),
            false => (defaults.stream_rate_bytes, defaults.stream_burst_bytes),
        };
    }

    /// Loki takes so many streams.
    pub fn limit_streams(&mut self, max: usize) {
        self.model.behaviour.streams_max = Some(max);
    }

    /// Loki is well.
    pub fn heal(&mut self) {
        self.trouble = Trouble::default();
        self.limit_rate(false, true);
        self.limit_streams(5_000);
    }

    /// True if nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.next().is_none()
    }

    /// When something happens by itself.
    pub fn next(&self) -> Option<Mono> {
        let at = |f: &Flight| {
            let reply_at = f.open.is_some().then_some(f.reply_at);
            f.commit_at.into_iter().chain(reply_at).min()
        };
        self.flights.iter().filter_map(at).min()
    }

    /// Sends a request off.
    pub fn send(&mut self, open: OpenAttempt<Acks>, w: &mut World) {
        let Some(request) = open.request() else {
            return;
        };
        let body = Bytes::from(request.body.concat());
        let (items, t) = (request.items, self.trouble);
        let rng = &mut w.dice.network;
        let fate = match () {
            () if t.refused => Fate::Refused,
            () if t.outage.is_some() => Fate::Answer(t.outage.unwrap_or_default()),
            () if chance(rng, t.reset_before) => Fate::Broken,
            () if chance(rng, t.reset_after) => Fate::BrokenAfter,
            () if chance(rng, t.hang) => Fate::Timeout,
            () if chance(rng, t.refusal) => Fate::Answer(one_of(rng, REFUSALS)),
            () if chance(rng, t.afterthought) => Fate::AnswerAfter(one_of(rng, AFTERTHOUGHTS)),
            () if chance(rng, t.lie) => Fate::Answer((200, "ok")),
            () if chance(rng, t.slow_body) => Fate::SlowBody,
            () => Fate::Process,
        };
        let now = w.clock.now();
        let mut some = |max: Duration| Duration::from_nanos(rng.below(max.as_nanos() as u64 + 1));
        let latency = t.latency_max.max(Duration::from_millis(1));
        let (there, back) = (some(latency), some(latency));
        let commit_at = now.after(there);
        let (commit_at, reply_at) = match fate {
            Fate::Process | Fate::BrokenAfter | Fate::AnswerAfter(_) => {
                (Some(commit_at), commit_at.after(back))
            }
            Fate::SlowBody => {
                let whole = commit_at.after(some(CLIENT_TIMEOUT * 2));
                (
                    Some(commit_at),
                    whole.min(now.after(CLIENT_TIMEOUT)).max(commit_at),
                )
            }
            Fate::Timeout => {
                let late = now.after(some(CLIENT_TIMEOUT * 2));
                let stored = some(Duration::from_nanos(3)).as_nanos() > 1;
                (stored.then_some(late), now.after(CLIENT_TIMEOUT))
            }
            Fate::Broken | Fate::Answer(_) | Fate::Refused => (None, commit_at),
        };
        self.number += 1;
        let number = self.number;
        w.tell("send", || {
            format!("request {number} with {items} entries: {fate:?}")
        });
        w.trace.mix(&[items, body.len() as u64]);
        self.flights.push(Flight {
            open: Some(open),
            body,
            fate,
            commit_at,
            sent: now,
            reply_at,
            answer: None,
            number,
            unsaved: w.oracle.unsaved,
        });
    }

    /// The sender is gone; what is under way may still arrive.
    pub fn orphan(&mut self, rng: &mut Rng64) {
        for flight in &mut self.flights {
            flight.open = None;
            if rng.below(2) == 0 {
                flight.commit_at = None;
            }
        }
        self.flights.retain(|f| f.commit_at.is_some());
    }

    /// The sender cuts what is under way.
    pub fn cut(&mut self) -> Vec<OpenAttempt<Acks>> {
        self.flights
            .iter_mut()
            .filter_map(|f| f.open.take())
            .collect()
    }

    /// Does one thing that is due. The answer, if it is one, is given to `judge`.
    pub fn step(&mut self, w: &mut World) -> Option<(OpenAttempt<Acks>, Result<Reply, SendError>)> {
        let now = w.now();
        let due = |f: &Flight| {
            f.commit_at.is_some_and(|at| at <= now) || f.open.is_some() && f.reply_at <= now
        };
        let due: Vec<usize> = (0..self.flights.len())
            .filter(|i| due(&self.flights[*i]))
            .collect();
        if due.is_empty() {
            self.flights
                .retain(|f| f.commit_at.is_some() || f.open.is_some());
            return None;
        }
        let i = due[w.dice.network.below(due.len() as u64) as usize];
        let number = self.flights[i].number;
        if self.flights[i].commit_at.is_some_and(|at| at <= now) {
            self.flights[i].commit_at = None;
            let body = self.flights[i].body.clone();
            // Loki has a clock of its own.
            let loki_ns = START_NS + now.0 as i64;
            let answer = self.model.push(&body, loki_ns);
            w.tell("store", || {
                format!(
                    "request {number}: {} {}; stored {}, not {}",
                    answer.status,
                    answer.text.trim().replace('\n', " "),
                    ids(&answer.stored),
                    ids(&answer.refused)
                )
            });
            let (alive, unsaved) = (self.flights[i].open.is_some(), self.flights[i].unsaved);
            for (ts, line) in &answer.stored {
                w.trace.mix(&[*ts as u64, line.len() as u64]);
                w.oracle.arrived(*ts, line, alive, unsaved);
            }
            w.oracle.stored_in_part(&answer.stored, &answer.refused);
            self.flights[i].answer = Some(answer);
            return None;
        }
        let mut flight = self.flights.remove(i);
        let open = flight.open.take()?;
        if flight.commit_at.is_some() {
            // It is stored although nobody waits for it any more.
            self.flights.push(Flight {
                open: None,
                body: flight.body.clone(),
                answer: None,
                ..flight
            });
        }
        let in_time = now < flight.sent.after(CLIENT_TIMEOUT);
        w.tell("answer", || format!("request {number}: {:?}", flight.fate));
        if let (Fate::Process | Fate::SlowBody, Some(a), true) =
            (flight.fate, &flight.answer, in_time)
            && (a.status == 204 || is_final(a))
        {
            w.oracle.refused(&a.refused, a.status);
            if a.status == 400 {
                self.refused.0 += self.told(a);
                self.refused.1 += a.refused.len() as u64;
            }
        }
        Some((open, result(flight.fate, flight.answer, in_time)))
    }
}

impl Network {
    /// How many refusals an answer tells of. It may be about one of several streams, and an
    /// ingester's takes the place of what the distributor has to say.
    fn told(&self, answer: &ModelAnswer) -> u64 {
        if self.exact {
            return answer.refused.len() as u64;
        }
        if let Some((_, rest)) = answer.text.split_once("total ignored: ") {
            let digits = rest.split(' ').next();
            return digits.and_then(|n| n.parse().ok()).unwrap_or_default();
        }
        let before = answer.text.split(" errors like: ");
        let number = |t: &str| t.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok());
        before.filter_map(number).sum()
    }
}

/// Which lines entries are, for people.
fn ids(entries: &[ModelEntry]) -> String {
    let id = |e: &ModelEntry| match id_of(&e.1) {
        Some(((writer, seq), 0)) => format!("{writer}/{seq}"),
        Some(((writer, seq), _)) => format!("#{writer}/{seq}"),
        None => "?".to_owned(),
    };
    entries.iter().map(id).collect::<Vec<_>>().join(" ")
}

/// True if what an answer refuses is refused for good. Entries over a rate among others are not:
/// the stream is sent again.
fn is_final(answer: &ModelAnswer) -> bool {
    answer.status == 400 && !answer.text.contains("Per stream rate limit")
}

fn reply(status: u16, text: String) -> Result<Reply, SendError> {
    Ok(Reply {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        headers: HeaderMap::new(),
        body: text.into(),
        truncated: false,
    })
}

fn result(fate: Fate, answer: Option<ModelAnswer>, in_time: bool) -> Result<Reply, SendError> {
    let failed = |kind, text| Err(SendError::new(kind, text));
    match (fate, answer) {
        (Fate::Process | Fate::SlowBody, Some(a)) if in_time => reply(a.status, a.text),
        (Fate::Answer((status, text)) | Fate::AnswerAfter((status, text)), _) => {
            reply(status, text.to_owned())
        }
        (Fate::Refused, _) => failed(SendErrorKind::Connect, "connection refused"),
        (Fate::Timeout | Fate::SlowBody, _) => failed(SendErrorKind::Timeout, "no answer in 30 s"),
        (Fate::Process | Fate::Broken | Fate::BrokenAfter, _) => {
            failed(SendErrorKind::Broken, "connection reset by peer")
        }
    }
}
