//! The Grafana client against a stand-in for Grafana, written from the documentation of its HTTP API: no real one can be had
//! by a test. It knows data sources, folders and dashboards, counts versions and refuses old ones.
#![allow(clippy::unwrap_used)]

mod peer;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tailwater_control::grafana::{
    Change, DASHBOARDS, Done, FOLDER_UID, Grafana, LOKI_UID, PROMETHEUS_UID, Wanted,
};
use tailwater_control::http::Target;

const TOKEN: &str = "glsa_a-secret";

/// What is done to the next request instead of an answer.
#[derive(Clone)]
enum Trouble {
    /// This status, with this text.
    Status(u16, &'static str),
    /// Carried out, but the answer is lost.
    Lost,
    /// Nothing comes.
    Silence,
    /// Before it is carried out, somebody else changes the object.
    Meanwhile,
}

#[derive(Default)]
struct State {
    sources: BTreeMap<String, Value>,
    folders: BTreeMap<String, Value>,
    /// `dashboard` and `meta`.
    dashboards: BTreeMap<String, Value>,
    /// For requests of this method.
    trouble: VecDeque<(Method, Trouble)>,
    writes: usize,
}

impl State {
    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let found = |v: Option<&Value>, what: &str| match v {
            Some(value) => (200, value.clone()),
            None => (404, json!({"message": format!("{what} not found")})),
        };
        let stale = |what: &str| {
            let message = format!("The {what} has been changed by someone else");
            (
                412,
                json!({"message": message, "status": "version-mismatch"}),
            )
        };
        let is_get = *method == Method::GET;
        self.writes += usize::from(!is_get);
        match parts[..] {
            ["grafana", "api", "datasources", "uid", uid] if is_get => {
                found(self.sources.get(uid), "Data source")
            }
            ["grafana", "api", "datasources"] => {
                let uid = body["uid"].as_str().unwrap().to_owned();
                let name = &body["name"];
                if self.sources.values().any(|s| s["name"] == *name) {
                    return (
                        409,
                        json!({"message": "data source with the same name already exists", "status": "name-exists"}),
                    );
                }
                let mut new = body.clone();
                new["id"] = json!(self.sources.len() + 1);
                new["version"] = json!(1);
                new["readOnly"] = json!(false);
                new["jsonData"] = json!({});
                self.sources.insert(uid, new);
                (200, json!({"message": "Datasource added"}))
            }
            ["grafana", "api", "datasources", "uid", uid] => {
                let known = self.sources.get_mut(uid).unwrap();
                assert!(body.get("readOnly").is_none());
                if known["version"] != body["version"] {
                    return (
                        409,
                        json!({"message": "Datasource has already been updated by someone else. Please reload and try again"}),
                    );
                }
                let version = known["version"].as_u64().unwrap();
                *known = body.clone();
                known["version"] = json!(version + 1);
                known["readOnly"] = json!(false);
                (200, json!({"message": "Datasource updated"}))
            }
            ["grafana", "api", "folders", uid] if is_get => found(self.folders.get(uid), "folder"),
            ["grafana", "api", "folders"] => {
                let mut new = body.clone();
                new["version"] = json!(1);
                self.folders
                    .insert(body["uid"].as_str().unwrap().to_owned(), new);
                (200, json!({}))
            }
            ["grafana", "api", "folders", uid] => {
                let known = self.folders.get_mut(uid).unwrap();
                if known["version"] != body["version"] {
                    return stale("folder");
                }
                known["title"] = body["title"].clone();
                known["version"] = json!(known["version"].as_u64().unwrap() + 1);
                (200, json!({}))
            }
            ["grafana", "api", "dashboards", "uid", uid] => {
                found(self.dashboards.get(uid), "Dashboard")
            }
            ["grafana", "api", "dashboards", "db"] => {
                assert_eq!(body["overwrite"], false);
                let mut dashboard = body["dashboard"].clone();
                let uid = dashboard["uid"].as_str().unwrap().to_owned();
                let folder = body["folderUid"].as_str().unwrap();
                if !folder.is_empty() && !self.folders.contains_key(folder) {
                    return (400, json!({"message": "folder not found"}));
                }
                let known = self.dashboards.get(&uid).map(|d| &d["dashboard"]);
                let version = known.map_or(0, |d| d["version"].as_u64().unwrap());
                if known.is_some() && dashboard["version"] != version {
                    return stale("dashboard");
                }
                let id = known.map_or(json!(self.dashboards.len() + 1), |d| d["id"].clone());
                dashboard["id"] = id;
                dashboard["version"] = json!(version + 1);
                let meta = json!({"folderUid": folder, "provisioned": false});
                let whole = json!({"dashboard": dashboard, "meta": meta});
                self.dashboards.insert(uid.clone(), whole);
                (
                    200,
                    json!({"uid": uid, "status": "success", "version": version + 1}),
                )
            }
            _ => panic!("{method} {path}"),
        }
    }

    /// Somebody else changes everything.
    fn meanwhile(&mut self) {
        let all = self.sources.values_mut().chain(self.folders.values_mut());
        let dashboards = self.dashboards.values_mut().map(|d| &mut d["dashboard"]);
        for object in all.chain(dashboards) {
            object["version"] = json!(object["version"].as_u64().unwrap() + 1);
        }
    }
}

/// See the module's documentation.
struct StandIn {
    url: String,
    state: Arc<Mutex<State>>,
}

async fn reply(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let token = request.headers().get("authorization").cloned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let trouble = {
        let mut state = state.lock().unwrap();
        let is_due = state.trouble.front().is_some_and(|(m, _)| *m == method);
        is_due.then(|| state.trouble.pop_front().unwrap().1)
    };
    let is_known = token.is_some_and(|t| t == format!("Bearer {TOKEN}").as_str());
    let (status, text) = match trouble {
        _ if !is_known => (401, json!({"message": "Invalid API key"}).to_string()),
        Some(Trouble::Status(status, text)) => (status, text.to_owned()),
        Some(Trouble::Silence) => std::future::pending::<Result<_, Infallible>>()
            .await
            .unwrap(),
        other => {
            let mut state = state.lock().unwrap();
            if matches!(other, Some(Trouble::Meanwhile)) {
                state.meanwhile();
            }
            let (status, value) = state.answer(&method, &path, &body);
            if matches!(other, Some(Trouble::Lost)) {
                return Err(std::io::Error::other("lost"));
            }
            (status, value.to_string())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if status == 302 {
        let login = "http://elsewhere/login".parse().unwrap();
        response.headers_mut().insert("location", login);
    }
    Ok(response)
}

impl StandIn {
    /// Answers until the runtime ends.
    async fn start() -> StandIn {
        let state: Arc<Mutex<State>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/grafana", listener.local_addr().unwrap());
        let shared = state.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| reply(state.clone(), request));
                    // What breaks is as the test wants it.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        StandIn { url, state }
    }

    fn client(&self, token: &str, dry_run: bool) -> Grafana {
        let server = Target::of_api(&self.url, Some(token)).unwrap();
        let server = server.within(Duration::from_secs(2));
        Grafana::new(server, dry_run).with_pause(Duration::from_millis(5))
    }

    async fn apply(&self) -> Vec<Done> {
        self.client(TOKEN, false).apply(&wanted()).await
    }

    fn trouble(&self, method: Method, all: &[Trouble]) {
        let mut state = self.state.lock().unwrap();
        let all = all.iter().map(|t| (method.clone(), t.clone()));
        state.trouble.extend(all);
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }
}

fn wanted() -> Wanted {
    Wanted {
        folder: "Tailwater".into(),
        loki: Some("http://loki:3100".into()),
        prometheus: Some("http://prometheus:9090".into()),
    }
}

/// How many there are of everything.
fn count() -> usize {
    3 + DASHBOARDS.len()
}

fn changes(done: &[Done]) -> Vec<&Change> {
    done.iter()
        .map(|d| {
            d.outcome
                .as_ref()
                .unwrap_or_else(|e| panic!("{}: {e}", d.uid))
        })
        .collect()
}

fn of<'a>(done: &'a [Done], uid: &str) -> &'a Result<Change, String> {
    &done.iter().find(|d| d.uid == uid).unwrap().outcome
}

/// Guarantees that an empty Grafana gets everything, that doing it again changes nothing, and that a dry run says the
/// same and changes nothing at all.
#[tokio::test]
async fn everything_is_made_once() {
    let grafana = StandIn::start().await;
    let dry = grafana.client(TOKEN, true);
    let said = dry.apply(&wanted()).await;
    assert_eq!(changes(&said), vec![&Change::Create; count()]);
    assert_eq!(grafana.with(|s| s.writes), 0);
    assert_eq!(grafana.apply().await, said);
    assert_eq!(grafana.with(|s| s.writes), count());
    let again = grafana.apply().await;
    assert_eq!(changes(&again), vec![&Change::Unchanged; count()]);
    assert_eq!(grafana.with(|s| s.writes), count());
    grafana.with(|s| {
        assert_eq!(s.sources[LOKI_UID]["type"], "loki");
        assert_eq!(s.sources[PROMETHEUS_UID]["url"], "http://prometheus:9090");
        assert_eq!(s.folders[FOLDER_UID]["title"], "Tailwater");
        for text in DASHBOARDS {
            let own: Value = serde_json::from_str(text).unwrap();
            let there = &s.dashboards[own["uid"].as_str().unwrap()];
            assert_eq!(there["dashboard"]["panels"], own["panels"]);
            assert_eq!(there["meta"]["folderUid"], FOLDER_UID);
        }
    });
}

/// Guarantees that what differs is brought back and named, that what somebody set beside it stays, and so does the folder
/// that somebody moved a dashboard to.
#[tokio::test]
async fn what_differs_is_brought_back_and_what_is_beside_it_stays() {
    let grafana = StandIn::start().await;
    grafana.apply().await;
    grafana.with(|s| {
        let loki = s.sources.get_mut(LOKI_UID).unwrap();
        loki["url"] = json!("http://old:3100");
        loki["jsonData"] = json!({"maxLines": 500});
        s.folders.get_mut(FOLDER_UID).unwrap()["title"] = json!("Old");
        s.folders
            .insert("own".into(), json!({"uid": "own", "version": 1}));
        let agent = s.dashboards.get_mut("tailwater-agent").unwrap();
        agent["dashboard"]["panels"][0]["title"] = json!("Mine");
        agent["meta"]["folderUid"] = json!("own");
    });
    let done = grafana.apply().await;
    let update = |what: &str| Ok(Change::Update(vec![what.to_owned()]));
    assert_eq!(of(&done, LOKI_UID), &update("url"));
    assert_eq!(of(&done, FOLDER_UID), &update("title"));
    assert_eq!(of(&done, "tailwater-agent"), &update("panels[0].title"));
    assert_eq!(of(&done, PROMETHEUS_UID), &Ok(Change::Unchanged));
    grafana.with(|s| {
        assert_eq!(s.sources[LOKI_UID]["url"], "http://loki:3100");
        assert_eq!(s.sources[LOKI_UID]["jsonData"]["maxLines"], 500);
        assert_eq!(s.folders[FOLDER_UID]["title"], "Tailwater");
        assert_eq!(s.dashboards["tailwater-agent"]["meta"]["folderUid"], "own");
    });
    let again = grafana.apply().await;
    assert_eq!(changes(&again), vec![&Change::Unchanged; count()]);
}

/// Guarantees that a change of somebody else in between is looked at and not written over, that answers that are lost, late
/// or of a server in trouble are made up for, and that what is hopeless ends with how often it was tried.
#[tokio::test]
async fn conflicts_and_trouble_are_gone_through() {
    let grafana = StandIn::start().await;
    let busy = Trouble::Status(503, "<html>busy</html>");
    grafana.trouble(Method::POST, &[Trouble::Lost, busy.clone()]);
    grafana.trouble(Method::GET, &[Trouble::Silence]);
    let done = grafana.apply().await;
    assert_eq!(changes(&done), vec![&Change::Create; count()]);
    grafana.with(|s| {
        s.sources.get_mut(LOKI_UID).unwrap()["url"] = json!("x");
        s.folders.get_mut(FOLDER_UID).unwrap()["title"] = json!("x");
    });
    grafana.trouble(Method::PUT, &[Trouble::Meanwhile, Trouble::Meanwhile]);
    let done = grafana.apply().await;
    assert!(
        matches!(of(&done, LOKI_UID), Ok(Change::Update(_))),
        "{done:?}"
    );
    assert_eq!(
        grafana.with(|s| s.sources[LOKI_UID]["url"].clone()),
        "http://loki:3100"
    );
    grafana.trouble(
        Method::GET,
        &[busy.clone(), busy.clone(), busy.clone(), busy],
    );
    let done = grafana.apply().await;
    let error = of(&done, LOKI_UID).as_ref().unwrap_err();
    assert!(
        error.contains("503") && error.contains("tried 4 times"),
        "{error}"
    );
    // The others are looked at all the same.
    assert_eq!(done.len(), count());
    assert!(done[1..].iter().all(|d| d.outcome == Ok(Change::Unchanged)));
}

/// Guarantees that each refusal says what to do, and that what nothing else can succeed after ends it.
#[tokio::test]
async fn refusals_say_what_to_do() {
    let grafana = StandIn::start().await;
    let done = grafana.client("wrong", false).apply(&wanted()).await;
    assert_eq!(done.len(), 1);
    let error = done[0].outcome.as_ref().unwrap_err();
    assert!(
        error.contains("401") && error.contains("TAILWATER_GRAFANA_TOKEN"),
        "{error}"
    );
    assert!(!error.contains("wrong"), "{error}");
    grafana.trouble(
        Method::POST,
        &[Trouble::Status(403, r#"{"message": "Permission denied"}"#)],
    );
    let done = grafana.apply().await;
    let error = of(&done, LOKI_UID).as_ref().unwrap_err();
    assert!(
        error.contains("Permission denied") && error.contains("role Admin"),
        "{error}"
    );
    assert_eq!(done.len(), count());
    for (trouble, about) in [
        (Trouble::Status(302, ""), "http://elsewhere/login"),
        (Trouble::Status(200, "<html>"), "none of a Grafana"),
        (Trouble::Status(404, "<html>"), "none of a Grafana"),
    ] {
        grafana.trouble(Method::GET, &[trouble]);
        let done = grafana.apply().await;
        let error = done[0].outcome.as_ref().unwrap_err();
        assert!(error.contains(about) && done.len() == 1, "{error}");
    }
    grafana.apply().await;
    grafana.with(|s| {
        let loki = s.sources.get_mut(LOKI_UID).unwrap();
        (loki["readOnly"], loki["url"]) = (json!(true), json!("x"));
        let other = s.sources.get_mut(PROMETHEUS_UID).unwrap();
        other["type"] = json!("tempo");
        let agent = s.dashboards.get_mut("tailwater-agent").unwrap();
        agent["meta"]["provisioned"] = json!(true);
        agent["dashboard"]["title"] = json!("x");
    });
    let done = grafana.apply().await;
    for (uid, about) in [
        (LOKI_UID, "provisioned by a file"),
        (PROMETHEUS_UID, "of type \"tempo\""),
        ("tailwater-agent", "differs in title"),
    ] {
        let error = of(&done, uid).as_ref().unwrap_err();
        assert!(error.contains(about), "{error}");
    }
}

/// Guarantees that the command does it, says what it does, ends with 1 if something is not as it should be, and never
/// shows the token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_shows_what_it_does_and_never_the_token() {
    let grafana = StandIn::start().await;
    let run = |args: &[&str], token: &str| {
        let out = peer::command()
            .args([
                "grafana",
                "--url",
                &grafana.url,
                "--loki",
                "http://loki:3100",
            ])
            .args(args)
            .env("TAILWATER_GRAFANA_TOKEN", token)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err, code) = (text(&out.stdout), text(&out.stderr), out.status.code());
        assert!(!out.contains(token) && !err.contains(token), "{out}\n{err}");
        (out, err, code)
    };
    let (out, err, code) = run(&["--dry-run"], TOKEN);
    assert_eq!((code, &*err), (Some(0), ""));
    assert!(
        out.contains("data source tailwater-loki (Tailwater: Loki) would be created"),
        "{out}"
    );
    assert!(!out.contains("prometheus"), "{out}");
    assert_eq!(grafana.with(|s| s.writes), 0);
    let (out, ..) = run(&[], TOKEN);
    assert!(
        out.contains("dashboard tailwater-agent (Tailwater: agents) is created"),
        "{out}"
    );
    let (out, ..) = run(&[], TOKEN);
    assert_eq!(
        out.matches("is as it should be").count(),
        count() - 1,
        "{out}"
    );
    let (_, err, code) = run(&[], "some-other-token");
    assert_eq!(code, Some(1));
    assert!(err.contains("does not know the token"), "{err}");
}
