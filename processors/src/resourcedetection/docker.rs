//! `docker`: the host of a Docker Engine, as it says it.
//!
//! Source: the Engine API's description, `GET /info`, and the variables of Docker's own client.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tailwater_config::Environment;
use tailwater_pdata::Map;
use tailwater_pipeline::reach::Reach;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::detection::{Detected, Detector};

/// What it can find, and whether it does unless told otherwise.
pub(super) const ATTRIBUTES: [(&str, bool); 2] = [(HOST_NAME, true), (OS_TYPE, true)];
const HOST_NAME: &str = "host.name";
const OS_TYPE: &str = "os.type";
const SOCKET: &str = "/var/run/docker.sock";
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Where the Engine is.
#[derive(Clone, PartialEq, Debug)]
enum Place {
    Socket(PathBuf),
    Address(String),
}

impl Place {
    /// `DOCKER_HOST`, or the usual socket.
    fn of(env: &dyn Environment) -> Result<Place, String> {
        let host = env.variable("DOCKER_HOST").unwrap_or_default();
        let host = host.to_string_lossy();
        let verify = env.variable("DOCKER_TLS_VERIFY").unwrap_or_default();
        if !verify.is_empty() && host.starts_with("tcp://") {
            return Err("DOCKER_TLS_VERIFY: the Docker Engine is reached without TLS only".into());
        }
        match host.split_once("://") {
            None if host.is_empty() => Ok(Place::Socket(SOCKET.into())),
            Some(("unix", path)) if path.starts_with('/') => Ok(Place::Socket(path.into())),
            Some(("tcp" | "http", address)) if address.contains(':') => {
                Ok(Place::Address(address.trim_end_matches('/').to_owned()))
            }
            _ => Err(format!(
                "DOCKER_HOST is {host:?}; unix:///path and tcp://host:port are supported"
            )),
        }
    }
}

/// Asks the Engine.
pub(super) struct Docker {
    place: Place,
    attributes: Vec<&'static str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    name: String,
    #[serde(rename = "OSType", default)]
    os_type: String,
}

impl Docker {
    pub fn new(attributes: Vec<&'static str>, env: &dyn Environment) -> Result<Docker, String> {
        let place = Place::of(env)?;
        Ok(Docker { place, attributes })
    }

    async fn ask(&self) -> Result<Map, String> {
        let info = match &self.place {
            Place::Socket(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|e| missing(&path.display().to_string(), &e))?;
                info(stream).await?
            }
            Place::Address(address) => {
                let stream = TcpStream::connect(address).await;
                info(stream.map_err(|e| missing(address, &e))?).await?
            }
        };
        let mut map = Map::new();
        for (name, value) in [(HOST_NAME, info.name), (OS_TYPE, info.os_type)] {
            if self.attributes.contains(&name) && !value.is_empty() {
                map.insert(name, value);
            }
        }
        Ok(map)
    }
}

fn missing(place: &str, error: &std::io::Error) -> String {
    format!("no Docker Engine at {place}: {error}")
}

async fn info<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
) -> Result<Info, String> {
    let text = |e: hyper::Error| format!("the Docker Engine: {e}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    // What goes wrong is seen by whoever reads the answer.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let request = Request::get("/info").header("host", "docker");
    let request = request.body(Empty::<Bytes>::new());
    let request = request.map_err(|e| e.to_string())?;
    let answer = sender.send_request(request).await.map_err(text)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await;
    let body = body
        .map_err(|e| format!("the Docker Engine: {e}"))?
        .to_bytes();
    if !status.is_success() {
        return Err(format!("the Docker Engine answers {status}"));
    }
    serde_json::from_slice(&body).map_err(|e| format!("the Docker Engine's answer: {e}"))
}

impl Detector for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn detect(&self) -> Detected<'_> {
        Box::pin(self.ask())
    }
}

/// What it uses of the file system and which server.
pub(super) fn reach(reach: &mut Reach, env: &dyn Environment) {
    match Place::of(env) {
        Ok(Place::Socket(path)) => reach.reads(Path::new(&path)),
        Ok(Place::Address(address)) => reach.connects_to(address),
        // Building says what is wrong.
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use tailwater_config::MemoryEnvironment;

    #[test]
    fn the_engine_is_where_its_variable_says() {
        let place =
            |host: &str| Place::of(&MemoryEnvironment::new().with_variable("DOCKER_HOST", host));
        assert_eq!(place(""), Ok(Place::Socket(SOCKET.into())));
        assert_eq!(
            place("unix:///run/d.sock"),
            Ok(Place::Socket("/run/d.sock".into()))
        );
        assert_eq!(place("tcp://h:2375"), Ok(Place::Address("h:2375".into())));
        for bad in ["ssh://h", "unix://d.sock", "h:1", "tcp://h"] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn the_engine_tells_name_and_system() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 1024];
            let n = stream.read(&mut asked).unwrap();
            let body = r#"{"Name":"box","OSType":"linux","Containers":3}"#;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream
                .write_all(format!("{head}{body}").as_bytes())
                .unwrap();
            String::from_utf8_lossy(&asked[..n]).into_owned()
        });
        let docker = Docker {
            place: Place::Socket(path.clone()),
            attributes: vec![HOST_NAME],
        };
        let map = docker.detect().await.unwrap();
        assert_eq!(map, Map::from_iter([(HOST_NAME, "box")]));
        assert!(server.join().unwrap().starts_with("GET /info HTTP/1.1"));
        let gone = Docker {
            place: Place::Socket(dir.path().join("gone")),
            ..docker
        };
        assert!(
            gone.detect()
                .await
                .unwrap_err()
                .contains("no Docker Engine at")
        );
    }
}
