//! A stand-in for the Docker Engine's API, strict about what it is asked: it serves the versions that an Engine of its
//! version serves, sends events from an instant on, and breaks streams off. End-to-end tests have a real Engine.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::wall;

type Answer = Response<BoxBody<Bytes, Infallible>>;

#[derive(Default)]
struct State {
    version: String,
    /// Name and driver of what runs.
    running: BTreeMap<String, String>,
    /// Labels of those that have some.
    labels: BTreeMap<String, Value>,
    /// With their times.
    events: Vec<(i64, String)>,
    listening: Vec<UnboundedSender<String>>,
    streams: usize,
    since: Option<String>,
}

/// See the module's documentation.
pub struct StandIn {
    state: Arc<Mutex<State>>,
    dir: tempfile::TempDir,
    end: Option<tokio::sync::oneshot::Sender<()>>,
}

impl StandIn {
    /// One of this version of the API.
    pub fn start(version: &str) -> StandIn {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(Mutex::new(State {
            version: version.to_owned(),
            ..State::default()
        }));
        let (end, ended) = tokio::sync::oneshot::channel();
        let (served, path) = (state.clone(), dir.path().join("docker.sock"));
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = UnixListener::bind(path).unwrap();
                ready.send(()).unwrap();
                tokio::select! {
                    () = serve(listener, served) => {}
                    _ = ended => {}
                }
            });
        });
        is_ready.recv_timeout(Duration::from_secs(60)).unwrap();
        StandIn {
            state,
            dir,
            end: Some(end),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }

    /// Starts a container.
    pub fn run(&self, name: &str, driver: &str) {
        self.with(|s| {
            s.running.insert(name.to_owned(), driver.to_owned());
            say(s, name, "start");
        });
    }

    /// Starts a container with labels.
    pub fn run_with(&self, name: &str, labels: Value) {
        self.with(|s| s.labels.insert(name.to_owned(), labels));
        self.run(name, "json-file");
    }

    /// Ends one.
    pub fn end(&self, name: &str) {
        self.with(|s| {
            s.running.remove(name);
            say(s, name, "die");
        });
    }

    /// Ends one without a word, as a crash of the Engine does.
    pub fn forget(&self, name: &str) {
        self.with(|s| s.running.remove(name));
    }

    /// Breaks all streams of events off.
    pub fn break_off(&self) {
        self.with(|s| s.listening.clear());
    }

    /// How many streams of events there were.
    pub fn streams(&self) -> usize {
        self.with(|s| s.streams)
    }

    /// Since when the newest stream was asked for.
    pub fn newest_since(&self) -> Option<String> {
        self.with(|s| s.since.clone())
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
    }
}

fn say(state: &mut State, name: &str, action: &str) {
    let at = wall();
    let event = json!({
        "Type": "container", "Action": action, "Actor": {"ID": name, "Attributes": {"name": name}},
        "time": at / 1_000_000_000, "timeNano": at,
    });
    let text = format!("{event}\n");
    state.events.push((at, text.clone()));
    state.listening.retain(|l| l.send(text.clone()).is_ok());
}

async fn serve(listener: UnixListener, state: Arc<Mutex<State>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = state.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let answer = answer(&mut state.lock().unwrap(), &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let io = TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(io, answer)
                .await;
        });
    }
}

fn reply(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())).boxed());
    *answer.status_mut() = status;
    answer
}

fn answer(state: &mut State, request: &Request<Incoming>) -> Answer {
    let path = request.uri().path();
    if path == "/_ping" {
        let mut answer = reply(StatusCode::OK, &json!("OK"));
        let version = state.version.parse().unwrap();
        answer.headers_mut().insert("api-version", version);
        return answer;
    }
    let minor = |v: &str| v.split_once('.').and_then(|(_, m)| m.parse::<u32>().ok());
    let asked = path.strip_prefix("/v").and_then(|p| p.split_once('/'));
    let Some((version, rest)) = asked.filter(|(v, _)| minor(v) <= minor(&state.version)) else {
        let text = format!("client version is too new, or there is none: {path}");
        return reply(StatusCode::BAD_REQUEST, &json!({"message": text}));
    };
    assert!(minor(version) >= Some(24), "{path}");
    match rest.split('/').collect::<Vec<_>>()[..] {
        ["info"] => reply(
            StatusCode::OK,
            &json!({"DockerRootDir": "/var/lib/stand-in", "Other": 1}),
        ),
        ["events"] => events(state, request.uri().query().unwrap_or_default()),
        ["containers", "json"] => {
            let all: Vec<_> = state.running.keys().map(|n| json!({"Id": n})).collect();
            reply(StatusCode::OK, &json!(all))
        }
        ["containers", name, "json"] => match state.running.get(name) {
            Some(driver) => {
                let labels = state.labels.get(name).cloned().unwrap_or_default();
                reply(StatusCode::OK, &inspected(name, driver, labels))
            }
            None => reply(
                StatusCode::NOT_FOUND,
                &json!({"message": "No such container"}),
            ),
        },
        _ => reply(StatusCode::NOT_FOUND, &json!({"message": "page not found"})),
    }
}

fn inspected(name: &str, driver: &str, labels: Value) -> Value {
    let path = match driver {
        "json-file" => format!("/logs/{name}-json.log"),
        _ => String::new(),
    };
    json!({
        "Id": name, "Name": format!("/{name}"), "LogPath": path,
        "Config": {"Image": "writer:1", "Labels": labels},
        "HostConfig": {"LogConfig": {"Type": driver, "Config": {}}},
    })
}

/// Events since an instant, and then as they happen.
fn events(state: &mut State, query: &str) -> Answer {
    assert!(query.contains("filters=%7B%22type%22"), "{query}");
    state.streams += 1;
    let since = query.split('&').find_map(|p| p.strip_prefix("since="));
    state.since = since.map(str::to_owned);
    let (tell, told) = unbounded_channel();
    if let Some(since) = since {
        let (seconds, nanos) = since.split_once('.').unwrap();
        assert_eq!(nanos.len(), 9, "{since}");
        let ns = |t: &str| t.parse::<i64>().unwrap();
        let from = ns(seconds) * 1_000_000_000 + ns(nanos);
        for (at, text) in &state.events {
            if *at >= from {
                tell.send(text.clone()).unwrap();
            }
        }
    }
    state.listening.push(tell);
    Response::new(Told(told).boxed())
}

/// A body that goes on until it is broken off.
struct Told(UnboundedReceiver<String>);

impl Body for Told {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|text| text.map(|t| Ok(Frame::data(Bytes::from(t)))))
    }
}
