//! What the endpoints answer.

#![expect(
    clippy::result_large_err,
    reason = "made at most once per request, and answered"
)]

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{
    ACCEPT, ALLOW, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, IF_MATCH, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Request, Response, StatusCode};
use serde_json::{Value, json};
use tailwater_config::{ComponentKind, REDACTED, SOURCE_BYTES_MAX, to_json, to_yaml};
use tailwater_pipeline::clock::Clock;
use tailwater_pipeline::factory::Factory;
use tailwater_pipeline::tap::Taps;
use tailwater_telemetry::health::HealthRegistry;
use tailwater_telemetry::logs::SelfLog;
use tailwater_telemetry::metrics::MetricsRegistry;
use tailwater_telemetry::rfc3339_nano;
use tokio::sync::{Semaphore, oneshot};

use super::diagnostics::Archives;
use super::files::Mistake;
use super::graph::{Seen, graph};
use super::origin::Foreign;
use super::shown::Shown;
use super::table::{Endpoint, Miss, find};
use super::tap::{self, ReplyBody};
use crate::control::{self, Answer, Control, Outcome, Wanted};
use crate::registry::registry;

/// The description of this API.
pub const OPENAPI: &str = include_str!("openapi.json");

/// Bodies that are in memory at the same time.
const BODIES_MAX: usize = 2;
/// How long a body may take to come in.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What is answered.
pub type Reply = Response<ReplyBody>;

/// What answers are made of.
pub struct Api {
    /// Where changes are asked for.
    pub control: Control,
    /// What is in force.
    pub shown: Arc<Shown>,
    /// Health.
    pub health: Arc<HealthRegistry>,
    /// Numbers.
    pub metrics: Arc<MetricsRegistry>,
    /// Brings numbers up to date that nobody counts while it happens.
    pub observe: Arc<dyn Fn() + Send + Sync>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Room for bodies.
    pub bodies: Bodies,
    /// The agent's own log.
    pub log: SelfLog,
    /// Whose turn it is.
    pub archives: Archives,
    /// Taps on the graph.
    pub taps: Arc<Taps>,
    /// Answers that come as it happens and are not at their end.
    pub streams: Arc<AtomicUsize>,
}

/// See [`BODIES_MAX`].
pub struct Bodies(Semaphore);

impl Default for Bodies {
    fn default() -> Bodies {
        Bodies(Semaphore::new(BODIES_MAX))
    }
}

/// Answers a request that may come in; `by` says which way it came, for the log.
pub async fn answer(api: &Api, request: Request<Incoming>, by: &'static str) -> Reply {
    let result = match find(request.method(), request.uri().path()) {
        Ok((endpoint, number)) => dispatch(api, request, endpoint, number, by).await,
        Err(Miss::Path) => Err(error(
            StatusCode::NOT_FOUND,
            "no such endpoint; GET /v1/openapi.json lists them",
        )),
        Err(Miss::Method(allowed)) => {
            let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, "not with this method");
            let names: Vec<_> = allowed.iter().map(|m| m.as_str()).collect();
            set(&mut reply, ALLOW, &names.join(", "));
            Err(reply)
        }
    };
    result.unwrap_or_else(|reply| reply)
}

async fn dispatch(
    api: &Api,
    request: Request<Incoming>,
    endpoint: Endpoint,
    number: u64,
    by: &'static str,
) -> Result<Reply, Reply> {
    let changes = matches!(
        endpoint,
        Endpoint::Change | Endpoint::Apply | Endpoint::Reload
    );
    let query = request.uri().query();
    let dry_run = match endpoint {
        // They read their queries by themselves.
        Endpoint::Files | Endpoint::Tap => false,
        _ => dry_run(query, changes)?,
    };
    let if_generation = match changes {
        true => if_match(request.headers())?,
        false => None,
    };
    let ask = async |wanted, dry_run| {
        let (tell, told) = oneshot::channel();
        api.control.ask(control::Request {
            wanted,
            by,
            if_generation,
            dry_run,
            // Whoever asked may be gone.
            answer: Box::new(move |answer| drop(tell.send(answer))),
        });
        let stopping = |_| error(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping");
        told.await.map(outcome).map_err(stopping)
    };
    match endpoint {
        Endpoint::Health => {
            let report = api.health.report(api.clock.now().0);
            Ok(reply(StatusCode::OK, JSON, report.to_json()))
        }
        Endpoint::Components => Ok(json_reply(StatusCode::OK, &components())),
        Endpoint::Config => Ok(config(api, request.headers())),
        Endpoint::Generations => Ok(json_reply(StatusCode::OK, &generations(api))),
        Endpoint::Generation => generation(api, number),
        Endpoint::Graph => {
            (api.observe)();
            let seen = Seen {
                in_force: api.shown.get(),
                not_started: api.shown.get_not_started(),
                health: api.health.report(api.clock.now().0),
                samples: api.metrics.samples(),
            };
            Ok(json_reply(StatusCode::OK, &graph(&seen)))
        }
        Endpoint::Files => files(api, query).await,
        Endpoint::Diagnostics => diagnostics(api).await,
        Endpoint::Tap => tap::open(api, query.unwrap_or_default(), by).await,
        Endpoint::OpenApi => Ok(reply(StatusCode::OK, JSON, OPENAPI.to_owned())),
        Endpoint::Change | Endpoint::Plan => {
            let full = |_| error(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping");
            let _room = api.bodies.0.acquire().await.map_err(full)?;
            let text = text_of(request).await?;
            no_redacted(&text)?;
            ask(Wanted::Text(text), dry_run || endpoint == Endpoint::Plan).await
        }
        Endpoint::Apply => ask(Wanted::Generation(number), dry_run).await,
        Endpoint::Reload => ask(Wanted::Reread, dry_run).await,
    }
}

/// `dry_run` of a query, which only changes have.
fn dry_run(query: Option<&str>, allowed: bool) -> Result<bool, Reply> {
    let mut dry_run = false;
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|p| !p.is_empty())
    {
        dry_run = match pair {
            "dry_run=true" if allowed => true,
            "dry_run=false" if allowed => false,
            _ => {
                let text = match allowed {
                    true => "the query may hold dry_run=true or dry_run=false, nothing else",
                    false => "this endpoint has no query",
                };
                return Err(error(StatusCode::BAD_REQUEST, text));
            }
        };
    }
    Ok(dry_run)
}

/// The generation of `If-Match: "N"`. None if any will do.
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Reply> {
    let Some(value) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    let digits = number.filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
    match digits.map(str::parse) {
        Some(Ok(number)) => Ok(Some(number)),
        _ => Err(error(
            StatusCode::BAD_REQUEST,
            "If-Match must be the ETag of a configuration, such as \"3\" with its quotes",
        )),
    }
}

async fn text_of(request: Request<Incoming>) -> Result<String, Reply> {
    let encoded = request.headers().get(CONTENT_ENCODING);
    if encoded.is_some_and(|e| e != "identity") {
        let text = "send the configuration as it is, without Content-Encoding";
        return Err(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let body = request.into_body();
    let too_large = || {
        let text = format!("a configuration has at most {SOURCE_BYTES_MAX} bytes");
        error(StatusCode::PAYLOAD_TOO_LARGE, &text)
    };
    // Before any of it is read, if it was said.
    if body.size_hint().lower() > SOURCE_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let reading = Limited::new(body, SOURCE_BYTES_MAX).collect();
    let bytes = match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(e)) if e.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(e)) => {
            let text = format!("the body ended early: {e}");
            return Err(error(StatusCode::BAD_REQUEST, &text));
        }
        Err(_) => {
            let text = "the body took too long to come in";
            return Err(error(StatusCode::REQUEST_TIMEOUT, text));
        }
    };
    String::from_utf8(bytes.into())
        .map_err(|_| error(StatusCode::BAD_REQUEST, "a configuration is UTF-8 text"))
}

/// A configuration as it is shown must not come back as one: its secrets would be gone.
fn no_redacted(text: &str) -> Result<(), Reply> {
    let reasons = redacted_places(text, "yaml:");
    match reasons.is_empty() {
        true => Ok(()),
        false => Err(refused(StatusCode::UNPROCESSABLE_ENTITY, REFUSED, &reasons)),
    }
}

/// Every place of a text called `name` in which a secret was hidden.
pub fn redacted_places(text: &str, name: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    let places = lines.filter_map(|(i, line)| Some((i + 1, line.find(REDACTED)? + 1)));
    let said = places.map(|(line, column)| {
        format!(
            "{name}:{line}:{column}: {REDACTED} stands in the place of a secret; write the secret or \
             ${{env:NAME}}"
        )
    });
    said.collect()
}

/// What is said of a configuration that does not come into force.
const REFUSED: &str = "the configuration is refused; nothing was changed";

fn outcome(answer: Answer) -> Reply {
    let Answer {
        generation,
        outcome,
    } = answer;
    let done = |outcome: &str, changes: Vec<String>| {
        let value = json!({"generation": generation, "outcome": outcome, "changes": changes});
        json_reply(StatusCode::OK, &value)
    };
    let mut reply = match outcome {
        Outcome::Applied(changes) => done("applied", changes),
        Outcome::Unchanged => done("unchanged", Vec::new()),
        Outcome::Planned(changes) => done("planned", changes),
        Outcome::Refused(reasons) => refused(StatusCode::UNPROCESSABLE_ENTITY, REFUSED, &reasons),
        Outcome::NotKept(text) => error(StatusCode::NOT_FOUND, &text),
        Outcome::Superseded => error(
            StatusCode::CONFLICT,
            "a newer request came in before this one was begun; nothing was done for this one",
        ),
        Outcome::Conflict => {
            let text = format!("generation {generation} is in force, not the one of If-Match");
            error(StatusCode::PRECONDITION_FAILED, &text)
        }
    };
    set(&mut reply, ETAG, &format!("\"{generation}\""));
    reply
}

fn config(api: &Api, headers: &HeaderMap) -> Reply {
    let in_force = api.shown.get();
    let accept = headers.get(ACCEPT).and_then(|a| a.to_str().ok());
    let mut reply = match accept.is_some_and(|a| a.contains("application/json")) {
        true => reply(StatusCode::OK, JSON, to_json(&in_force.config)),
        false => reply(StatusCode::OK, YAML, to_yaml(&in_force.config)),
    };
    set(&mut reply, ETAG, &format!("\"{}\"", in_force.generation));
    reply
}

async fn files(api: &Api, query: Option<&str>) -> Result<Reply, Reply> {
    let wanted = super::files::wanted(query);
    let wanted = wanted.map_err(|mistake| match mistake {
        Mistake::Form(text) => error(StatusCode::BAD_REQUEST, &text),
        Mistake::Value(text) => error(StatusCode::UNPROCESSABLE_ENTITY, &text),
    })?;
    let answer = super::files::files(&api.shown.get(), &wanted).await;
    let answer = answer.map_err(|e| error(StatusCode::NOT_FOUND, &e.0))?;
    Ok(reply(StatusCode::OK, JSON, answer))
}

async fn diagnostics(api: &Api) -> Result<Reply, Reply> {
    let failed = |e| {
        error(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("no archive: {e}"),
        )
    };
    let (name, archive) = super::diagnostics::diagnostics(api).await.map_err(failed)?;
    let mut reply = Response::new(Full::new(Bytes::from(archive)).into());
    set(&mut reply, CONTENT_TYPE, "application/gzip");
    set(
        &mut reply,
        CONTENT_DISPOSITION,
        &format!("attachment; filename=\"{name}\""),
    );
    Ok(reply)
}

/// The generations that are kept.
pub fn generations(api: &Api) -> Value {
    let in_force = api.shown.get();
    let one = |record: &super::shown::Record| {
        json!({
            "number": record.number,
            "when": rfc3339_nano(record.unix_ns),
            "by": record.by,
            "changes": record.changes,
        })
    };
    json!({
        "generation": in_force.generation,
        "generations": in_force.generations.iter().map(one).collect::<Vec<_>>(),
    })
}

/// The configuration of a generation that is kept.
fn generation(api: &Api, number: u64) -> Result<Reply, Reply> {
    let in_force = api.shown.get();
    let kept = &in_force.generations;
    match kept.iter().find(|record| record.number == number) {
        Some(record) => Ok(reply(StatusCode::OK, YAML, record.config.to_string())),
        None => {
            let kept: Vec<_> = kept.iter().map(|r| r.number.to_string()).collect();
            let kept = kept.join(", ");
            let text = format!("generation {number} is not kept; there is: {kept}");
            Err(error(StatusCode::NOT_FOUND, &text))
        }
    }
}

/// What this build has.
pub fn components() -> Value {
    fn list<S: ?Sized>(factories: &[Factory<S>]) -> Value {
        let one = |f: &Factory<S>| json!({"name": f.kind, "about": f.about, "signals": f.signals});
        factories.iter().map(one).collect()
    }
    let r = registry();
    let mut value = json!({"version": env!("CARGO_PKG_VERSION")});
    value[ComponentKind::Receiver.section()] = list(&r.receivers);
    value[ComponentKind::Processor.section()] = list(&r.processors);
    value[ComponentKind::Exporter.section()] = list(&r.exporters);
    value[ComponentKind::Connector.section()] = list(&r.connectors);
    value[ComponentKind::Extension.section()] = list(&r.extensions);
    value
}

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

fn reply(status: StatusCode, content_type: &str, body: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)).into());
    *reply.status_mut() = status;
    set(&mut reply, CONTENT_TYPE, content_type);
    reply
}

fn json_reply(status: StatusCode, value: &Value) -> Reply {
    reply(status, JSON, format!("{value:#}\n"))
}

fn refused(status: StatusCode, what: &str, reasons: &[String]) -> Reply {
    json_reply(status, &json!({"error": what, "reasons": reasons}))
}

pub(super) fn error(status: StatusCode, what: &str) -> Reply {
    refused(status, what, &[])
}

/// To who has not the token.
pub fn unauthorized() -> Reply {
    let text = "send the token of service::admin::token_file as Authorization: Bearer TOKEN";
    let mut reply = error(StatusCode::UNAUTHORIZED, text);
    set(&mut reply, WWW_AUTHENTICATE, "Bearer");
    reply
}

/// To who was made to ask by a page that is not the agent's.
pub fn foreign(why: Foreign) -> Reply {
    match why {
        Foreign::Host => {
            let text = "this name is not the agent's; ask by an address, by localhost, or by the name in \
                        service::admin::endpoint (a proxy in front has to send it as Host)";
            error(StatusCode::MISDIRECTED_REQUEST, text)
        }
        Foreign::Site => error(StatusCode::FORBIDDEN, "not for pages from elsewhere"),
    }
}

pub(super) fn set(reply: &mut Reply, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status<T: std::fmt::Debug>(result: Result<T, Reply>) -> u16 {
        result.map_or_else(|reply| reply.status().as_u16(), |_| 200)
    }

    #[test]
    fn queries_and_generations_are_read_strictly() {
        assert_eq!(dry_run(None, false).ok(), Some(false));
        assert_eq!(dry_run(Some("dry_run=true"), true).ok(), Some(true));
        assert_eq!(dry_run(Some("dry_run=false"), true).ok(), Some(false));
        for query in ["dry_run", "dry_run=1", "dryrun=true", "dry_run=true&x=y"] {
            assert_eq!(status(dry_run(Some(query), true)), 400, "{query}");
        }
        assert_eq!(status(dry_run(Some("dry_run=true"), false)), 400);
        let matching = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_MATCH, text.parse().unwrap());
            if_match(&headers)
        };
        assert_eq!(if_match(&HeaderMap::new()).ok(), Some(None));
        assert_eq!(matching("*").ok(), Some(None));
        assert_eq!(matching("\"12\"").ok(), Some(Some(12)));
        for text in ["12", "W/\"12\"", "\"a\"", "\"+1\"", "\"1\", \"2\"", ""] {
            assert_eq!(status(matching(text)), 400, "{text}");
        }
    }

    #[test]
    fn a_configuration_without_its_secrets_is_refused() {
        assert!(no_redacted("a: b").is_ok());
        assert_eq!(status(no_redacted("a: '[REDACTED]'")), 422);
    }

    #[test]
    fn each_outcome_has_its_status() {
        let of = |outcome| outcome_status(outcome);
        fn outcome_status(o: Outcome) -> u16 {
            let reply = outcome(Answer {
                generation: 7,
                outcome: o,
            });
            assert_eq!(reply.headers()[ETAG], "\"7\"");
            reply.status().as_u16()
        }
        assert_eq!(of(Outcome::Applied(Vec::new())), 200);
        assert_eq!(of(Outcome::Unchanged), 200);
        assert_eq!(of(Outcome::Planned(Vec::new())), 200);
        assert_eq!(of(Outcome::Refused(Vec::new())), 422);
        assert_eq!(of(Outcome::NotKept(String::new())), 404);
        assert_eq!(of(Outcome::Superseded), 409);
        assert_eq!(of(Outcome::Conflict), 412);
    }
}
