//! A real Alertmanager of the distribution, on loopback, with a webhook behind it or none.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tailwater_testkit::tempdir::TempDir;

use crate::agent::free_addr;
use crate::prometheus::get;
use crate::wait;

/// How long it may take to be ready.
const START_BOUND: Duration = Duration::from_secs(60);

/// A running server. Ends with this value.
pub struct Alertmanager {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

/// Where the binary is: as `TAILWATER_ALERTMANAGER` says, or in `PATH`. The distribution's, of the package
/// `prometheus-alertmanager`, needs its templates where they are installed.
///
/// # Errors
/// A text for people.
pub fn find() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("TAILWATER_ALERTMANAGER") {
        return Ok(path.into());
    }
    let names = ["prometheus-alertmanager", "alertmanager"];
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let mut named = std::env::split_paths(&dirs).flat_map(|dir| names.map(|n| dir.join(n)));
    let none = || "it is not in PATH; the package is prometheus-alertmanager".to_owned();
    named.find(|path| path.is_file()).ok_or_else(none)
}

impl Alertmanager {
    /// Starts one that tells nobody.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start(binary: &Path) -> Self {
        let directory = TempDir::new("alertmanager").expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let config = "route: {receiver: none}\nreceivers: [{name: none}]\n";
        std::fs::write(at("config.yml"), config).expect("a configuration");
        let address = free_addr();
        let log = std::fs::File::create(at("log")).expect("a log");
        let mut child = Command::new(binary)
            .arg(format!("--config.file={}", at("config.yml").display()))
            .arg(format!("--storage.path={}", at("data").display()))
            .arg(format!("--web.listen-address={address}"))
            // Alone: no port for others of a cluster.
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Alertmanager starts");
        let ready = wait::within(START_BOUND, || {
            let gone = child.try_wait().expect("a child").is_some();
            gone || get(address, "/-/ready").is_ok_and(|(status, _)| status == 200)
        });
        let log = || std::fs::read_to_string(at("log")).unwrap_or_default();
        let runs = child.try_wait().expect("a child").is_none();
        assert!(ready && runs, "Alertmanager is not ready: {}", log());
        Self {
            child,
            address,
            _directory: directory,
        }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The alerts that are not over, by their label `alert`, with their description.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn alerts(&self) -> Vec<(String, String)> {
        let (status, body) = get(self.address, "/api/v2/alerts").expect("an answer");
        assert_eq!(status, 200, "{body}");
        let all: Value = serde_json::from_str(&body).expect("JSON");
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let one = |a: &Value| {
            (
                text(&a["labels"]["alert"]),
                text(&a["annotations"]["description"]),
            )
        };
        all.as_array().into_iter().flatten().map(one).collect()
    }

    /// Whether an alert is not over.
    pub fn fires(&self, alert: &str) -> bool {
        self.alerts().iter().any(|(name, _)| name == alert)
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        // It has nothing that is worth saving.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
