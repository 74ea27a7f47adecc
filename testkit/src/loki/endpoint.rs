//! HTTP in, HTTP out: routing, tenants, faults and scripts around the admission of pushes.

use std::sync::Arc;
use std::time::Duration;

use super::admit::{self, Context};
use super::behaviour::{BodyFault, Reach, Scripted};
use super::body::PlainBody;
use super::push::PushRequest;
use super::state::{RequestRecord, State};
use super::{DEFAULT_TENANT, Inner, Refusal, query};
use crate::http::{Handler, Pace, Reply, Request, Response, StopSignal, lock};

const PUSH_PATH: &str = "/loki/api/v1/push";

/// How often a hanging request looks whether the faults changed.
const HANG_CHECK: Duration = Duration::from_millis(10);

/// The longest tenant id.
const TENANT_BYTES_MAX: usize = 150;

pub(super) struct Endpoint(pub(super) Arc<Inner>);

impl Handler for Endpoint {
    fn on_head(&self, head: &Request, _: &StopSignal) -> Option<Reply> {
        let mut state = lock(&self.0.state);
        state.stats.requests += 1;
        if head.path != PUSH_PATH {
            return None;
        }
        state.stats.pushes += 1;
        self.0.changed.notify_all();
        let probability = state.faults.reset_before;
        if !state.rng.chance(probability) {
            return None;
        }
        self.finish(&mut state, Outcome::new(Reply::Close), head);
        Some(Reply::Close)
    }

    fn body_bytes_max(&self) -> usize {
        lock(&self.0.state).behaviour.body_bytes_max
    }

    fn on_oversized(&self, head: &Request, bytes: usize) -> Response {
        let refusal = Refusal::body_too_large(bytes, self.body_bytes_max());
        let response = render(Err(refusal));
        let mut state = lock(&self.0.state);
        self.finish(
            &mut state,
            Outcome::new(Reply::Send(response.clone())),
            head,
        );
        response
    }

    fn on_request(&self, request: Request, stop: &StopSignal) -> Reply {
        let outcome = if lock(&self.0.state).reach == Reach::Unavailable {
            Outcome::new(Reply::Send(Response::text(503, "Service Unavailable\n")))
        } else {
            self.route(&request, stop)
        };
        let reply = outcome.reply.clone();
        let mut state = lock(&self.0.state);
        let reply = match reply {
            Reply::Send(response) if request.path == PUSH_PATH => {
                Reply::Send(spoil(response, &state))
            }
            other => other,
        };
        self.finish(
            &mut state,
            Outcome {
                reply: reply.clone(),
                ..outcome
            },
            &request,
        );
        reply
    }
}

/// What became of a request, for the answer and for the record.
struct Outcome {
    reply: Reply,
    streams: usize,
    entries: usize,
}

impl Outcome {
    fn new(reply: Reply) -> Self {
        Self {
            reply,
            streams: 0,
            entries: 0,
        }
    }
}

impl Endpoint {
    /// Counts and records a request that is over.
    fn finish(&self, state: &mut State, outcome: Outcome, request: &Request) {
        let status = match &outcome.reply {
            Reply::Send(response) => Some(response.status),
            Reply::Close => None,
        };
        if request.path == PUSH_PATH {
            state.stats.body_bytes += request.body.len() as u64;
            match status {
                Some(status) => *state.stats.push_responses.entry(status).or_default() += 1,
                None => state.stats.pushes_unanswered += 1,
            }
        }
        while state.requests.len() >= self.0.requests_kept_max.max(1) {
            state.requests.pop_front();
        }
        if self.0.requests_kept_max > 0 {
            state.requests.push_back(RequestRecord {
                method: request.method.clone(),
                path: request.path.clone(),
                headers: request.headers.clone(),
                body_bytes: request.body.len(),
                status,
                streams: outcome.streams,
                entries: outcome.entries,
            });
        }
        self.0.changed.notify_all();
    }

    fn route(&self, request: &Request, stop: &StopSignal) -> Outcome {
        let answer = |response| Outcome::new(Reply::Send(response));
        match (request.path.as_str(), request.method.as_str()) {
            (PUSH_PATH, "POST") => self.push(request, stop),
            (PUSH_PATH, _) => answer(Response::empty(405)),
            ("/ready", "GET") if lock(&self.0.state).ready => {
                answer(Response::text(200, "ready\n"))
            }
            ("/ready", "GET") => answer(Response::text(503, "Ingester not ready\n")),
            ("/loki/api/v1/query_range", "GET") => {
                let state = lock(&self.0.state);
                let tenant = tenant(request, state.behaviour.auth_enabled);
                let result =
                    tenant.and_then(|tenant| query::range(request, tenant, &state, (self.0.now)()));
                answer(result.unwrap_or_else(|refusal| render(Err(refusal))))
            }
            _ => answer(Response::text(404, "404 page not found\n")),
        }
    }

    fn push(&self, request: &Request, stop: &StopSignal) -> Outcome {
        let (behaviour, faults, epoch) = {
            let state = lock(&self.0.state);
            (
                Arc::clone(&state.behaviour),
                state.faults.clone(),
                state.fault_epoch,
            )
        };
        let refuse = |refusal| Outcome::new(Reply::Send(render(Err(refusal))));
        let tenant = match tenant(request, behaviour.auth_enabled) {
            Ok(tenant) => tenant,
            Err(refusal) => return refuse(refusal),
        };
        if !faults.delay.is_zero() && stop.wait(faults.delay) {
            return Outcome::new(Reply::Close);
        }
        if let Some(status) = self.drawn_status() {
            return refuse(Refusal::new(status, fault_text(status, tenant)));
        }
        if faults.hang {
            return self.hang(epoch, stop);
        }
        let body = PlainBody::open(request, &behaviour);
        let body = body.as_ref().map_err(Refusal::clone);
        let decoded = body.and_then(|body| body.parse(&self.0.read));
        let scripted = lock(&self.0.state).next_scripted(tenant, decoded.as_ref().ok());
        let scripted = scripted.unwrap_or(Scripted::Process);
        let (streams, entries) = decoded.as_ref().map_or((0, 0), |decoded| {
            let entries = decoded
                .streams
                .iter()
                .map(|stream| stream.entries.len())
                .sum();
            (decoded.streams.len(), entries)
        });
        let reply = match scripted {
            Scripted::Close => Reply::Close,
            Scripted::Hang => return self.hang(epoch, stop),
            Scripted::Answer { status, body } => Reply::Send(Response::text(status, body)),
            Scripted::Process => self.process(decoded, tenant, &behaviour, None),
            Scripted::ProcessThenAnswer { status, body } => {
                let forced = Reply::Send(Response::text(status, body));
                self.process(decoded, tenant, &behaviour, Some(forced))
            }
            Scripted::ProcessThenClose => {
                self.process(decoded, tenant, &behaviour, Some(Reply::Close))
            }
        };
        Outcome {
            reply,
            streams,
            entries,
        }
    }

    /// The status of a random fault, if one strikes.
    fn drawn_status(&self) -> Option<u16> {
        let mut state = lock(&self.0.state);
        let faults = [
            (429, state.faults.status_429),
            (500, state.faults.status_500),
            (503, state.faults.status_503),
        ];
        // Every fault is drawn, so that one does not change what another does later.
        let struck = faults.map(|(status, probability)| (status, state.rng.chance(probability)));
        struck
            .iter()
            .find(|(_, struck)| *struck)
            .map(|(status, _)| *status)
    }

    /// Admits the entries, stores them and says what to answer; `forced` replaces the answer.
    fn process(
        &self,
        decoded: Result<PushRequest<'_>, Refusal>,
        tenant: &str,
        behaviour: &super::LokiBehaviour,
        forced: Option<Reply>,
    ) -> Reply {
        let mut state = lock(&self.0.state);
        let probability = state.faults.reset_after;
        let reset = state.rng.chance(probability);
        let forced = if reset { Some(Reply::Close) } else { forced };
        let answer = match decoded {
            Err(refusal) => Err(refusal),
            Ok(decoded) => {
                let entries = decoded
                    .streams
                    .iter()
                    .map(|stream| stream.entries.len() as u64);
                state.stats.entries_received += entries.sum::<u64>();
                let context = Context {
                    behaviour,
                    tenant,
                    now_ns: (self.0.now)(),
                    hook: self.0.on_entry.as_ref(),
                };
                let verdict = admit::push(&context, decoded, &mut state.store);
                let told_success = match &forced {
                    None => verdict.answer.is_ok(),
                    Some(Reply::Send(response)) => response.status == 204,
                    Some(Reply::Close) => false,
                };
                state.count_discarded(&verdict.discarded, told_success);
                verdict.answer
            }
        };
        forced.unwrap_or_else(|| Reply::Send(render(answer)))
    }

    /// Holds a request until the faults change or the server stops.
    fn hang(&self, epoch: u64, stop: &StopSignal) -> Outcome {
        lock(&self.0.state).stats.pushes_hanging += 1;
        self.0.changed.notify_all();
        while lock(&self.0.state).fault_epoch == epoch && !stop.wait(HANG_CHECK) {}
        lock(&self.0.state).stats.pushes_hanging -= 1;
        Outcome::new(Reply::Close)
    }
}

/// The answer to a push. Go's error writer ends every text with a newline.
fn render(answer: Result<(), Refusal>) -> Response {
    match answer {
        Ok(()) => Response::empty(204),
        Err(Refusal { status, text }) => Response::text(status, format!("{text}\n")),
    }
}

/// The text of a random fault, with the marker the real server's own error of that status has.
fn fault_text(status: u16, tenant: &str) -> String {
    match status {
        429 => format!("ingestion rate limit exceeded for user {tenant} (injected fault)"),
        503 => "cannot accept more requests (injected fault)".to_owned(),
        _ => "rpc error: code = Unknown desc = injected fault".to_owned(),
    }
}

/// Applies what the faults do to answers.
fn spoil(mut response: Response, state: &State) -> Response {
    if let Some(seconds) = state.faults.retry_after_seconds
        && matches!(response.status, 429 | 503)
    {
        response
            .headers
            .push(("Retry-After".to_owned(), seconds.to_string()));
    }
    let (bytes, pace) = match state.faults.body {
        BodyFault::None => return response,
        BodyFault::Huge { bytes } => (bytes, Pace::Fast),
        BodyFault::Slow { bytes, pause } => (bytes, Pace::Slow { bytes: 1, pause }),
    };
    if response.status == 204 {
        response.status = 200;
    }
    response.body.resize(bytes.max(response.body.len()), b' ');
    response.pace = pace;
    response
}

/// The tenant of a request, checked as the server's middleware does.
fn tenant(request: &Request, auth_enabled: bool) -> Result<&str, Refusal> {
    if !auth_enabled {
        return Ok(DEFAULT_TENANT);
    }
    let id = request.header("x-scope-orgid").unwrap_or_default();
    if id.is_empty() {
        return Err(Refusal::new(401, "no org id"));
    }
    if id.contains('|') {
        return Err(Refusal::new(400, "multiple org IDs present"));
    }
    if id.len() > TENANT_BYTES_MAX {
        let text = format!("tenant ID is too long: max {TENANT_BYTES_MAX} characters");
        return Err(Refusal::new(400, text));
    }
    if id == "." || id == ".." {
        return Err(Refusal::new(400, "tenant ID is '.' or '..'"));
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "!-_.*'():".contains(*c);
    match id.chars().find(|c| !allowed(c)) {
        None => Ok(id),
        Some(c) => Err(Refusal::new(
            400,
            format!("tenant ID '{id}' contains unsupported character '{c}'"),
        )),
    }
}
