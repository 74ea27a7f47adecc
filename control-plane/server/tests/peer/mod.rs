//! The program as a process, and agents that speak the protocol.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tailwater_control::client::Client;
use tailwater_control::http::Target;
use tailwater_opamp::proto::{
    AgentConfigFile, AgentConfigMap, AgentDescription, AgentToServer, ComponentHealth,
    EffectiveConfig, KeyValue, RemoteConfigStatus, ServerToAgent, agent,
};
use tailwater_opamp::{InstanceUid, frame, unframe};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

/// How long anything is waited for.
pub const BOUND: Duration = Duration::from_secs(120);

/// The program.
pub struct Process {
    child: Child,
    pub addr: SocketAddr,
    pub state: tempfile::TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailwater-control"));
    command.stdin(Stdio::null());
    command
}

pub fn free_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

impl Process {
    pub fn start(args: &[&str]) -> Process {
        Process::start_in(tempfile::tempdir().unwrap(), args)
    }

    /// With a state directory that is there.
    pub fn start_in(state: tempfile::TempDir, args: &[&str]) -> Process {
        let addr = free_addr();
        let child = command()
            .args(["serve", "--listen", &addr.to_string(), "--state"])
            .arg(state.path())
            .args(args)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process { child, addr, state };
        let begun = Instant::now();
        while std::net::TcpStream::connect(addr).is_err() {
            assert!(begun.elapsed() < BOUND, "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        process
    }

    /// Kills it, and starts another one with what it kept.
    pub fn again(mut self, args: &[&str]) -> Process {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let state = std::mem::replace(&mut self.state, tempfile::tempdir().unwrap());
        Process::start_in(state, args)
    }

    pub fn rss_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn client(&self) -> Client {
        let at = format!("http://{}", self.addr);
        Client::new(Target::of_api(&at, None).unwrap())
    }
}

pub fn uid(number: u32) -> InstanceUid {
    let mut random = [0; 10];
    random[..4].copy_from_slice(&number.to_be_bytes());
    InstanceUid::v7(1, random)
}

/// What an agent says first: as much as a real one does.
pub fn hello(uid: InstanceUid) -> AgentToServer {
    let part = |error: &str| ComponentHealth {
        healthy: true,
        status: "StatusOK".to_owned(),
        last_error: error.to_owned(),
        ..ComponentHealth::default()
    };
    let parts = (0..6).map(|i| (format!("exporter:loki/{i}"), part("")));
    let file = AgentConfigFile {
        body: "receivers: {filelog: {include: [/var/log/pods/*/*/*.log]}}\n"
            .repeat(30)
            .into_bytes(),
        content_type: "text/yaml".to_owned(),
    };
    AgentToServer {
        instance_uid: uid.0.to_vec(),
        capabilities: agent::REPORTS_STATUS
            | agent::ACCEPTS_REMOTE_CONFIG
            | agent::REPORTS_EFFECTIVE_CONFIG
            | agent::REPORTS_HEALTH
            | agent::REPORTS_REMOTE_CONFIG,
        agent_description: Some(AgentDescription {
            identifying_attributes: vec![
                KeyValue::text("service.name", "tailwater"),
                KeyValue::text("service.instance.id", uid.to_string()),
            ],
            non_identifying_attributes: vec![KeyValue::text("host.name", format!("host-{uid}"))],
        }),
        health: Some(ComponentHealth {
            component_health_map: parts.collect(),
            ..part("")
        }),
        effective_config: Some(EffectiveConfig {
            config_map: Some(AgentConfigMap {
                config_map: [(String::new(), file)].into(),
            }),
        }),
        remote_config_status: Some(RemoteConfigStatus::default()),
        ..AgentToServer::default()
    }
}

pub struct Agent {
    pub socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    pub uid: InstanceUid,
    pub sequence: u64,
}

impl Agent {
    pub async fn connect(addr: SocketAddr, uid: InstanceUid) -> Agent {
        Agent::over(TcpStream::connect(addr).await.unwrap(), uid, &[])
            .await
            .unwrap()
    }

    /// Over any connection, with headers; or the status of the refusal.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        uid: InstanceUid,
        headers: &[(&str, &str)],
    ) -> Result<Agent, StatusCode> {
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder().uri("/v1/opamp");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .header("host", "localhost")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", BASE64_STANDARD.encode([7; 16]))
            .body(Full::<Bytes>::default())
            .unwrap();
        let mut response = sender.send_request(request).await.unwrap();
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(response.status());
        }
        let upgraded = hyper::upgrade::on(&mut response).await.unwrap();
        let config = WebSocketConfig::default()
            .read_buffer_size(4096)
            .write_buffer_size(4096);
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await;
        Ok(Agent {
            socket,
            uid,
            sequence: 0,
        })
    }

    pub async fn say(&mut self, message: AgentToServer) -> ServerToAgent {
        let message = AgentToServer {
            instance_uid: self.uid.0.to_vec(),
            sequence_num: self.sequence,
            ..message
        };
        self.sequence += 1;
        self.socket
            .send(Message::Binary(frame(&message).into()))
            .await
            .unwrap();
        self.hear().await
    }

    pub async fn hear(&mut self) -> ServerToAgent {
        loop {
            let heard = tokio::time::timeout(BOUND, self.socket.next()).await;
            match heard.expect("an answer").expect("a connection").unwrap() {
                Message::Binary(bytes) => return unframe(&bytes).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn beat(&self) -> AgentToServer {
        AgentToServer {
            capabilities: hello(self.uid).capabilities,
            ..AgentToServer::default()
        }
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// A request as an agent, of these bytes.
pub async fn post(
    addr: SocketAddr,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> (StatusCode, Bytes) {
    let io = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(Method::POST)
        .uri("/v1/opamp")
        .header("host", addr.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender
        .send_request(request.body(Full::new(Bytes::from(body))).unwrap())
        .await
        .unwrap();
    let status = response.status();
    (
        status,
        response.into_body().collect().await.unwrap().to_bytes(),
    )
}
