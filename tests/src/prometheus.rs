//! A real Prometheus of the distribution, on loopback, as a receiver of remote write.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tailwater_testkit::tempdir::TempDir;

use crate::agent::free_addr;
use crate::wait;

/// Names the binary, if it is not to be looked for.
const VARIABLE: &str = "TAILWATER_PROMETHEUS";
/// How long it may take to be ready: it is large.
const START_BOUND: Duration = Duration::from_secs(60);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A running server. Ends with this value.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

/// Where the binary is: as the variable `TAILWATER_PROMETHEUS` says, in `PATH`, or unpacked from the
/// distribution's package `prometheus`, which is downloaded into the directory of build results
/// without being installed. An error says why there is none.
///
/// # Errors
/// A text for people.
pub fn find() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Ok(path.into());
    }
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::split_paths(&dirs).map(|dir| dir.join("prometheus"));
    if let Some(found) = named.into_iter().find(|path| path.is_file()) {
        return Ok(found);
    }
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers");
    let unpacked = peers.join("prometheus/usr/bin/prometheus");
    // Tests of this process that want it at once wait for the one that fetches it.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    if unpacked.is_file() {
        return Ok(unpacked);
    }
    unpack(&peers).map(|()| unpacked)
}

/// Downloads the package and unpacks it to `prometheus` in `peers`, in one step at the end.
fn unpack(peers: &Path) -> Result<(), String> {
    let new = peers.join(format!("new-{}", std::process::id()));
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(&new)
            .output()
            .map_err(|e| format!("{program}: {e}"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!(
                "{program}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )),
        }
    };
    let unpack = || {
        std::fs::create_dir_all(&new).map_err(|e| format!("{}: {e}", new.display()))?;
        run("apt-get", &["download", "-q", "prometheus"])?;
        let packages = std::fs::read_dir(&new).map_err(|e| e.to_string())?;
        let mut packages = packages.filter_map(|entry| Some(entry.ok()?.path()));
        let package = packages.next().ok_or("apt-get downloaded nothing")?;
        run("dpkg-deb", &["-x", &package.to_string_lossy(), "unpacked"])?;
        let to = peers.join("prometheus");
        // Another test may have been faster.
        match std::fs::rename(new.join("unpacked"), &to) {
            Err(e) if !to.is_dir() => Err(e.to_string()),
            _ => Ok(()),
        }
    };
    let result = unpack();
    std::fs::remove_dir_all(&new).ok();
    result
}

impl Prometheus {
    /// Starts one with nothing in it. `rules` is the text of a file of rules, evaluated each second.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start(binary: &Path, rules: Option<&str>) -> Self {
        let directory = TempDir::new("prometheus").expect("a directory");
        let mut config = "global: {evaluation_interval: 1s}\n".to_owned();
        if let Some(rules) = rules {
            std::fs::write(directory.path().join("rules.yml"), rules).expect("rules");
            config += "rule_files: [rules.yml]\n";
        }
        let config_file = directory.path().join("prometheus.yml");
        std::fs::write(&config_file, config).expect("a configuration");
        let address = free_addr();
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let mut child = Command::new(binary)
            .arg(format!("--config.file={}", config_file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--web.enable-remote-write-receiver")
            .arg("--enable-feature=native-histograms,exemplar-storage")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Prometheus starts");
        let ready = wait::within(START_BOUND, || {
            let gone = child.try_wait().expect("a child").is_some();
            gone || get(address, "/-/ready").is_ok_and(|(status, _)| status == 200)
        });
        let log = || std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        let runs = child.try_wait().expect("a child").is_none();
        assert!(ready && runs, "Prometheus is not ready: {}", log());
        Self {
            child,
            address,
            _directory: directory,
        }
    }

    /// Stops it where it is, until [`Self::resume`].
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        let pid = Pid::from_raw(id).expect("a process id");
        kill_process(pid, signal).expect("our own child");
    }

    /// Where remote write goes.
    pub fn write_url(&self) -> String {
        format!("http://{}/api/v1/write", self.address)
    }

    /// The field `data` of what the API answers at `path`, which begins behind `/api/v1/`.
    ///
    /// # Panics
    /// When the answer is not a success.
    pub fn data(&self, path: &str) -> Value {
        let (status, body) = get(self.address, &format!("/api/v1/{path}")).expect("an answer");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            (status, answer["status"].as_str()),
            (200, Some("success")),
            "{body}"
        );
        answer["data"].clone()
    }

    /// The result of an instant query at `time`, in s since the epoch.
    pub fn query(&self, expression: &str, time: f64) -> Vec<Value> {
        let path = format!("query?query={}&time={time:.3}", escaped(expression));
        let result = self.data(&path)["result"].take();
        result.as_array().cloned().unwrap_or_default()
    }

    /// The values of an instant query by the value of the label `by`, empty where there is none.
    pub fn values(&self, expression: &str, by: &str, time: f64) -> Vec<(String, f64)> {
        let of = |series: &Value| {
            let label = series["metric"][by].as_str().unwrap_or_default();
            let value = series["value"][1].as_str().and_then(|v| v.parse().ok());
            (label.to_owned(), value.unwrap_or(f64::NAN))
        };
        let mut values: Vec<_> = self.query(expression, time).iter().map(of).collect();
        values.sort_by(|a, b| a.0.cmp(&b.0));
        values
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It has nothing that is worth saving.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Status and body of the answer to a request by HTTP/1.0, which is never chunked.
pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status.unwrap_or(0), body.to_owned()))
}

/// `text` as a value of a query in a URL.
pub fn escaped(text: &str) -> String {
    let byte = |b: u8| match b.is_ascii_alphanumeric() {
        true => char::from(b).to_string(),
        false => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}
