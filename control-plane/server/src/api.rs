//! What people ask and tell: JSON over HTTP, described by `GET /api/v1/openapi.json`; `GET /metrics`; `GET /healthz` and
//! `GET /readyz`.

mod listed;
mod metrics;
mod shown;

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tailwater_control_plane::rollout::Operator;
use tailwater_opamp::InstanceUid;
use tailwater_telemetry::metrics::MetricsRegistry;

use crate::access::{Access, Denied, Role, Who};
use crate::audit::{Audit, Entry};
use crate::authority::Authority;
use crate::configs::BODY_BYTES_MAX;
use crate::finder::Finder;
use crate::groups::{Groups, Refusal};
use crate::hub::Hub;
use crate::leader::Leader;
use crate::notify::Notifier;
use crate::now_ms;
use crate::sources::Sources;

pub use self::metrics::Gauges;

/// The description of the API.
pub const OPENAPI: &str = include_str!("api/openapi.json");
/// A body may take so long.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// So many of a list at most.
const LIST_MAX: usize = 1_000;

/// What who stands by has to say.
pub const STANDS_BY: &str =
    "this control plane stands by: another one leads, or the database does not answer";

/// What answers people.
pub struct Api {
    /// The agents.
    pub hub: Arc<Hub>,
    /// Rollouts.
    pub groups: Arc<Groups>,
    /// What agents read.
    pub sources: Arc<Sources>,
    /// Who did what.
    pub audit: Arc<Audit>,
    /// Whether there is anything to ask here.
    pub leader: Arc<Leader>,
    /// Who may do what.
    pub access: Access,
    /// Issues certificates, if any are.
    pub authority: Option<Arc<Authority>>,
    /// What activities count.
    pub registry: Arc<MetricsRegistry>,
    /// What the listener counts.
    pub gauges: Gauges,
    /// Who is told what the matter is.
    pub notifier: Arc<Notifier>,
    /// What looks for sample lines, if anything.
    pub finder: Option<Arc<Finder>>,
}

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Endpoint {
    Health,
    Ready,
    Metrics,
    OpenApi,
    Agents,
    Agent(String),
    Sources,
    SourceHistory,
    Rollouts,
    Rollout(String),
    Apply(String),
    Wants(String, Operator),
    Audit,
    Version,
    RaiseVersion,
    Certificates,
    Certificate(String, Verdict),
}

/// What becomes of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Revoke,
    Admit,
}

impl Endpoint {
    /// By method and path; the methods of the path if it is another one.
    fn of(method: &Method, path: &str) -> Result<Endpoint, Option<&'static str>> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (is_get, is_post) = (
            matches!(*method, Method::GET | Method::HEAD),
            *method == Method::POST,
        );
        let get = |endpoint| {
            if is_get {
                Ok(endpoint)
            } else {
                Err(Some("GET, HEAD"))
            }
        };
        match parts[..] {
            ["healthz"] => get(Endpoint::Health),
            ["readyz"] => get(Endpoint::Ready),
            ["metrics"] => get(Endpoint::Metrics),
            ["api", "v1", "openapi.json"] => get(Endpoint::OpenApi),
            ["api", "v1", "agents"] => get(Endpoint::Agents),
            ["api", "v1", "agents", uid] => get(Endpoint::Agent(uid.to_owned())),
            ["api", "v1", "sources"] => get(Endpoint::Sources),
            ["api", "v1", "sources", "history"] => get(Endpoint::SourceHistory),
            ["api", "v1", "rollouts"] => get(Endpoint::Rollouts),
            ["api", "v1", "audit"] => get(Endpoint::Audit),
            ["api", "v1", "certificates"] => get(Endpoint::Certificates),
            ["api", "v1", "certificates", uid, what] => {
                let verdict = match what {
                    "revoke" => Verdict::Revoke,
                    "admit" => Verdict::Admit,
                    _ => return Err(None),
                };
                match is_post {
                    true => Ok(Endpoint::Certificate(uid.to_owned(), verdict)),
                    false => Err(Some("POST")),
                }
            }
            ["api", "v1", "version"] => match (is_get, is_post) {
                (true, _) => Ok(Endpoint::Version),
                (_, true) => Ok(Endpoint::RaiseVersion),
                _ => Err(Some("GET, HEAD, POST")),
            },
            ["api", "v1", "rollouts", group] => match (is_get, is_post) {
                (true, _) => Ok(Endpoint::Rollout(group.to_owned())),
                (_, true) => Ok(Endpoint::Apply(group.to_owned())),
                _ => Err(Some("GET, HEAD, POST")),
            },
            ["api", "v1", "rollouts", group, what] => match (wish(what), is_post) {
                (Some(wants), true) => Ok(Endpoint::Wants(group.to_owned(), wants)),
                (Some(_), false) => Err(Some("POST")),
                (None, _) => Err(None),
            },
            _ => Err(None),
        }
    }

    /// Who may at least; none: everybody.
    fn role(&self) -> Option<Role> {
        match self {
            Endpoint::Health | Endpoint::Ready | Endpoint::OpenApi => None,
            Endpoint::Metrics
            | Endpoint::Agents
            | Endpoint::Agent(_)
            | Endpoint::Sources
            | Endpoint::SourceHistory
            | Endpoint::Rollouts
            | Endpoint::Version
            | Endpoint::Certificates
            | Endpoint::Rollout(_) => Some(Role::Viewer),
            Endpoint::Apply(_) => Some(Role::Operator),
            Endpoint::Wants(_, wants) => Some(match wants {
                Operator::Approve | Operator::Deny | Operator::Unfreeze => Role::Admin,
                Operator::Pause | Operator::Resume | Operator::Rollback | Operator::Abort => {
                    Role::Operator
                }
            }),
            Endpoint::Audit | Endpoint::RaiseVersion | Endpoint::Certificate(..) => {
                Some(Role::Admin)
            }
        }
    }
}

impl Endpoint {
    /// Whether it is answered by who stands by, too.
    fn is_of_the_process(&self) -> bool {
        matches!(
            self,
            Endpoint::Health | Endpoint::Ready | Endpoint::OpenApi | Endpoint::Metrics
        )
    }
}

/// What somebody wants, by its name.
pub fn wish(name: &str) -> Option<Operator> {
    serde_json::from_value(Value::String(name.to_owned())).ok()
}

type Answer = Response<Full<Bytes>>;

/// Answers a request.
pub async fn answer(api: &Arc<Api>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let endpoint = match Endpoint::of(request.method(), &path) {
        Ok(endpoint) => endpoint,
        Err(Some(allowed)) => {
            let mut response = error(
                StatusCode::METHOD_NOT_ALLOWED,
                &format!("allowed: {allowed}"),
            );
            let value = HeaderValue::from_static(allowed);
            response.headers_mut().insert(hyper::header::ALLOW, value);
            return response;
        }
        Err(None) => {
            let text = "no such endpoint; GET /api/v1/openapi.json lists them";
            return error(StatusCode::NOT_FOUND, text);
        }
    };
    let who = match allowed(api, request.headers(), &endpoint) {
        Ok(who) => who,
        Err(denied) => return turned_away(denied),
    };
    if !endpoint.is_of_the_process() && !api.leader.leads() {
        return error(StatusCode::SERVICE_UNAVAILABLE, STANDS_BY);
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = match &endpoint {
        Endpoint::Apply(_) | Endpoint::RaiseVersion => match body_of(request).await {
            Ok(body) => body,
            Err(refused) => return refused,
        },
        _ => String::new(),
    };
    let api = api.clone();
    // The store is on disk.
    let done = tokio::task::spawn_blocking(move || {
        carry_out(&api, &endpoint, who.as_ref(), &query, &body)
    });
    done.await.unwrap_or_else(|_| {
        error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "it failed; the log says why",
        )
    })
}

fn allowed(api: &Api, headers: &HeaderMap, endpoint: &Endpoint) -> Result<Option<Who>, Denied> {
    match endpoint.role() {
        None => Ok(None),
        Some(least) => api.access.person(headers, least).map(Some),
    }
}

fn turned_away(denied: Denied) -> Answer {
    match denied {
        Denied::Unknown => {
            let mut response = error(
                StatusCode::UNAUTHORIZED,
                "a token is needed: Authorization: Bearer ...",
            );
            let value = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
            response
        }
        Denied::Role => error(StatusCode::FORBIDDEN, "the role of this token does not do"),
        Denied::Foreign => error(
            StatusCode::FORBIDDEN,
            "without tokens only programs of this machine are answered, under a loopback name",
        ),
    }
}

async fn body_of(request: Request<Incoming>) -> Result<String, Answer> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => String::from_utf8(body.to_bytes().to_vec())
            .map_err(|_| error(StatusCode::BAD_REQUEST, "the body must be UTF-8 text")),
        Ok(Err(_)) => Err(error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is broken, or larger than 1 MiB",
        )),
        Err(_) => Err(error(StatusCode::REQUEST_TIMEOUT, "the body did not come")),
    }
}

fn carry_out(api: &Api, endpoint: &Endpoint, who: Option<&Who>, query: &str, body: &str) -> Answer {
    let asked = |key: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(k, _)| k == key).map(|(_, v)| v.into_owned())
    };
    let limit = asked("limit")
        .and_then(|l| l.parse().ok())
        .unwrap_or(100)
        .min(LIST_MAX);
    let done = match endpoint {
        Endpoint::Health => return text("ok\n"),
        Endpoint::Ready if api.leader.leads() => return text("leads\n"),
        Endpoint::Ready => return error(StatusCode::SERVICE_UNAVAILABLE, STANDS_BY),
        Endpoint::OpenApi => return raw("application/json", OPENAPI.to_owned()),
        Endpoint::Metrics => return raw("text/plain; version=0.0.4", metrics::page(api)),
        Endpoint::Agents => Ok(shown::agents(api, asked("group").as_deref())),
        Endpoint::Agent(uid) => match uid.parse::<InstanceUid>() {
            Ok(uid) => shown::agent(api, uid)
                .ok_or_else(|| Refusal::Group("there is no such agent".to_owned())),
            Err(text) => Err(Refusal::Group(text.to_owned())),
        },
        Endpoint::Sources => listed::sources(api, &asked, limit),
        Endpoint::SourceHistory => listed::history(api, &asked, limit),
        Endpoint::Rollouts => shown::rollouts(api),
        Endpoint::Rollout(group) => shown::rollout(api, group, limit),
        Endpoint::Audit => {
            let newest = api.audit.newest(limit).map_err(Refusal::Store);
            newest.map(|entries| json!({"entries": entries}))
        }
        Endpoint::Certificates => shown::certificates(api),
        Endpoint::Certificate(uid, verdict) => return certificate(api, who, uid, *verdict),
        Endpoint::Version => api.groups.version().map(|v| json!({"version": v})),
        Endpoint::RaiseVersion => {
            return change(api, who, "raise version", "", |_| {
                let to = body.trim().parse::<u64>();
                let wrong =
                    |_| Refusal::Mistakes(vec!["the body must be a whole number".to_owned()]);
                let version = api.groups.raise_version(to.map_err(wrong)?)?;
                Ok((format!("to {version}"), json!({"version": version})))
            });
        }
        Endpoint::Apply(group) => {
            return change(api, who, "apply", group, |who| {
                let digest = api.groups.apply(group, body, who)?;
                Ok((
                    format!("digest {digest}"),
                    json!({"group": group, "digest": digest}),
                ))
            });
        }
        Endpoint::Wants(group, wants) => {
            let name = format!("{wants:?}").to_lowercase();
            return change(api, who, &name, group, |_| {
                api.groups.wants(group, *wants)?;
                Ok((String::new(), json!({"group": group, "submitted": name})))
            });
        }
    };
    match done {
        Ok(value) => json_of(StatusCode::OK, &value),
        Err(refusal) => refused(&refusal),
    }
}

/// Revokes the certificates of an agent, or has it get the one that it waits for.
fn certificate(api: &Api, who: Option<&Who>, uid: &str, verdict: Verdict) -> Answer {
    let conflict = |text: &str| Refusal::Conflict(text.to_owned());
    let action = match verdict {
        Verdict::Revoke => "revoke",
        Verdict::Admit => "admit",
    };
    change(api, who, action, "", |_| {
        let authority = api.authority.as_deref();
        let authority = authority.ok_or_else(|| conflict("certificates are not issued here"))?;
        let uid: InstanceUid = uid.parse().map_err(conflict)?;
        match verdict {
            Verdict::Revoke => {
                let revoked = authority.revoke(uid, now_ms());
                let count = revoked.map_err(|e| conflict(&e))?;
                api.hub.expel(uid);
                Ok((
                    format!("of {uid}: {count}"),
                    json!({"uid": uid.to_string(), "revoked": count}),
                ))
            }
            Verdict::Admit => {
                let settings = authority.admit(uid, now_ms());
                let settings = settings.map_err(|e| conflict(&e))?;
                api.hub
                    .with(uid, |agent| agent.settings = Some(Box::new(settings)));
                Ok((format!("of {uid}"), json!({"uid": uid.to_string()})))
            }
        }
    })
}

/// Does something, and writes down who did it and what came of it.
fn change(
    api: &Api,
    who: Option<&Who>,
    action: &str,
    group: &str,
    work: impl FnOnce(&Who) -> Result<(String, Value), Refusal>,
) -> Answer {
    let Some(who) = who else {
        return turned_away(Denied::Unknown);
    };
    // What cannot be written down is not done.
    if let Err(failed) = api.audit.write(Entry::of(who, action, group, "asked for")) {
        tracing::error!(error = %failed, "the audit log cannot be written");
        return error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the audit log cannot be written",
        );
    }
    match work(who) {
        Ok((detail, value)) => {
            api.audit
                .note(Entry::of(who, action, group, &format!("accepted {detail}")));
            json_of(StatusCode::ACCEPTED, &value)
        }
        Err(refusal) => {
            api.audit.note(Entry::of(
                who,
                action,
                group,
                &format!("refused: {refusal}"),
            ));
            refused(&refusal)
        }
    }
}

fn refused(refusal: &Refusal) -> Answer {
    let status = match refusal {
        Refusal::Mistakes(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Conflict(_) => StatusCode::CONFLICT,
        Refusal::Group(_) => StatusCode::NOT_FOUND,
        Refusal::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    error(status, &refusal.to_string())
}

fn error(status: StatusCode, text: &str) -> Answer {
    json_of(status, &json!({"error": text}))
}

fn json_of(status: StatusCode, value: &Value) -> Answer {
    let mut response = raw("application/json", format!("{value}\n"));
    *response.status_mut() = status;
    response
}

fn text(text: &'static str) -> Answer {
    raw("text/plain; charset=utf-8", text.to_owned())
}

fn raw(content_type: &'static str, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let value = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, value);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: every path and method that the description names is answered, with the role that it names,
    /// and every endpoint is described.
    #[test]
    fn the_description_is_of_this_api() {
        let described: Value = serde_json::from_str(OPENAPI).unwrap();
        let mut found = 0;
        for (path, methods) in described["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let filled = path.replace("{uid}", "x").replace("{group}", "g");
                for (wish, filled) in match filled.contains("{wish}") {
                    false => vec![(String::new(), filled.clone())],
                    true => operation["parameters"][1]["schema"]["enum"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|w| (w.to_string(), filled.replace("{wish}", w.as_str().unwrap())))
                        .collect(),
                } {
                    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                    let endpoint =
                        Endpoint::of(&method, &filled).unwrap_or_else(|_| panic!("{filled}"));
                    let role = endpoint.role().map_or("anybody", Role::name);
                    let said = operation["description"].as_str().unwrap();
                    assert!(
                        said.contains(role),
                        "{filled} {wish}: {role} is not in {said:?}"
                    );
                    found += 1;
                }
            }
        }
        assert_eq!(found, 17 + 7);
        assert_eq!(
            Endpoint::of(&Method::DELETE, "/api/v1/agents"),
            Err(Some("GET, HEAD"))
        );
        assert_eq!(
            Endpoint::of(&Method::POST, "/api/v1/rollouts/g/burn"),
            Err(None)
        );
        assert_eq!(Endpoint::of(&Method::GET, "/"), Err(None));
    }
}
