//! What a Grafana should have of this platform: its data sources, a folder and the dashboards of this version, made
//! or brought in line through its HTTP API.
//!
//! Everything is known by a uid that is ours, so doing it twice changes nothing. What somebody else set beside
//! what is wanted stays. Nothing is written over that somebody else changes at the same time: versions are
//! given with each change, and after a conflict it is looked at anew.
//!
//! Source: Grafana's documentation, "HTTP API": data sources, folders, dashboards (`/api`, which Grafana 9 to 13 have).

mod objects;

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::http::{Answer, Failure, Target};

pub use self::objects::{DASHBOARDS, FOLDER_UID, LOKI_UID, PROMETHEUS_UID};

/// So often something is tried that may succeed another time, or that somebody else changed meanwhile.
const TRIES: u32 = 4;
/// The largest answer, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What is to be there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The title of the folder of dashboards.
    pub folder: String,
    /// Where Grafana reaches Loki; no data source for it if there is none.
    pub loki: Option<String>,
    /// The same of Prometheus.
    pub prometheus: Option<String>,
}

/// What becomes of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is as it should be.
    Unchanged,
    /// It is not there.
    Create,
    /// It differs in these.
    Update(Vec<String>),
}

/// An object, and what became of it, or would.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// `data source`, `folder`, `dashboard`.
    pub kind: &'static str,
    /// Its uid.
    pub uid: String,
    /// What people call it.
    pub name: String,
    /// What was changed; or why it is not as it should be.
    pub outcome: Result<Change, String>,
}

/// Why something cannot be done.
#[derive(Debug)]
enum Refusal {
    /// It may be done another time, perhaps at once.
    Passing(String),
    /// It is about this object.
    Object(String),
    /// It is about everything: nothing else will succeed.
    All(String),
}

/// See the module's documentation.
pub struct Grafana {
    server: Target,
    /// Changes nothing.
    dry_run: bool,
    /// Before something is tried again; doubled each time.
    pause: Duration,
}

impl Grafana {
    /// For the Grafana at this URL. With `dry_run` it is only looked at.
    pub fn new(server: Target, dry_run: bool) -> Grafana {
        Grafana {
            server,
            dry_run,
            pause: Duration::from_secs(1),
        }
    }

    /// With another pause before something is tried again.
    #[must_use]
    pub fn with_pause(mut self, pause: Duration) -> Grafana {
        self.pause = pause;
        self
    }

    /// Brings everything in line, one after the other. What fails stops nothing else, unless nothing can succeed.
    pub async fn apply(&self, wanted: &Wanted) -> Vec<Done> {
        let mut done = Vec::new();
        for object in objects::of(wanted) {
            let outcome = self.settle(&object).await;
            let (outcome, is_last) = match outcome {
                Ok(change) => (Ok(change), false),
                Err(Refusal::All(text)) => (Err(text), true),
                Err(Refusal::Object(text) | Refusal::Passing(text)) => (Err(text), false),
            };
            done.push(Done {
                kind: object.kind(),
                uid: object.uid().to_owned(),
                name: object.name().to_owned(),
                outcome,
            });
            if is_last {
                break;
            }
        }
        done
    }

    /// Until it is as it should be, or that is hopeless.
    async fn settle(&self, object: &objects::Object) -> Result<Change, Refusal> {
        let mut pause = self.pause;
        let mut told = None;
        for n in 1.. {
            match self.attempt(object).await {
                // What was done before its answer was lost.
                Ok(Change::Unchanged) => return Ok(told.unwrap_or(Change::Unchanged)),
                Ok(change) => return Ok(change),
                Err((Refusal::Passing(_), change)) if n < TRIES => {
                    told = change.or(told);
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err((Refusal::Passing(text), _)) => {
                    return Err(Refusal::Passing(format!("{text} (tried {n} times)")));
                }
                Err((refusal, _)) => return Err(refusal),
            }
        }
        Ok(Change::Unchanged)
    }

    /// Looks, compares, writes. With an error goes what was being done.
    async fn attempt(&self, object: &objects::Object) -> Result<Change, (Refusal, Option<Change>)> {
        let there = self.get(&object.path()).await.map_err(|e| (e, None))?;
        let change = object
            .compare(there.as_ref())
            .map_err(|e| (Refusal::Object(e), None))?;
        if self.dry_run || change == Change::Unchanged {
            return Ok(change);
        }
        let (method, path, body) = object.request(there.as_ref());
        let sent = self.send(method, &path, &body).await;
        match sent {
            Ok(()) => Ok(change),
            Err(refusal) => Err((refusal, Some(change))),
        }
    }

    /// What is there; none if there is no such thing.
    async fn get(&self, path: &str) -> Result<Option<Value>, Refusal> {
        let answer = self.exchange(Method::GET, path, None).await?;
        if answer.status == StatusCode::NOT_FOUND {
            // A proxy that knows nothing of Grafana says 404, too, but not in JSON.
            return match json(&answer) {
                Some(_) => Ok(None),
                None => Err(self.stranger(path)),
            };
        }
        self.accept(path, &answer)?;
        match json(&answer).filter(Value::is_object) {
            Some(value) => Ok(Some(value)),
            None => Err(self.stranger(path)),
        }
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<(), Refusal> {
        let body = ("application/json", body.to_string());
        let answer = self.exchange(method, path, Some(body)).await?;
        self.accept(path, &answer)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
    ) -> Result<Answer, Refusal> {
        let asked = self.server.ask(method, path, body, ANSWER_BYTES_MAX);
        let answer = asked.await;
        answer.map_err(|failure| match failure {
            Failure::Passing(text) => Refusal::Passing(text),
            Failure::Useless(text) => Refusal::All(text),
        })
    }

    fn stranger(&self, path: &str) -> Refusal {
        Refusal::All(format!(
            "{} gave an answer that is none of a Grafana: is the URL that of Grafana itself, with the path it is served below?",
            self.server.at(path)
        ))
    }

    /// What an answer that is none of success means.
    fn accept(&self, path: &str, answer: &Answer) -> Result<(), Refusal> {
        let status = answer.status;
        if status.is_success() {
            return Ok(());
        }
        let said = json(answer);
        let text = |key: &str| said.as_ref().and_then(|s| s[key].as_str()).unwrap_or("");
        let message: String = text("message")
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(500)
            .collect();
        let message = match message.is_empty() {
            true => status.to_string(),
            false => format!("{status}: {message}"),
        };
        let at = format!("{}: {message}", self.server.at(path));
        Err(match status {
            StatusCode::UNAUTHORIZED => Refusal::All(format!(
                "{at}\nGrafana does not know the token: give that of a service account, by --token-file or TAILWATER_GRAFANA_TOKEN"
            )),
            StatusCode::FORBIDDEN => Refusal::Object(format!(
                "{at}\nthe token may not do that: its service account needs the role Admin for data sources, and Editor for folders and dashboards"
            )),
            StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT => {
                match text("status") {
                    // There is another one, which looking again does not change.
                    "name-exists" | "plugin-dashboard" => Refusal::Object(at),
                    _ => Refusal::Passing(at),
                }
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Refusal::Passing(at),
            s if s.is_server_error() => Refusal::Passing(at),
            s if s.is_redirection() => Refusal::All(format!(
                "{at}\nit leads to {}: give the URL that is meant",
                answer.location.as_deref().unwrap_or("somewhere else")
            )),
            _ => Refusal::Object(at),
        })
    }
}

fn json(answer: &Answer) -> Option<Value> {
    serde_json::from_slice(&answer.body).ok()
}
