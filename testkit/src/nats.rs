//! A real NATS server with JetStream on a loopback port, with nothing in it: for tests of what speaks to one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::ports::free_addr;
use crate::tempdir::TempDir;

/// Names the server, if it is not to be looked for.
pub const VARIABLE: &str = "TAILWATER_NATS";
/// How long it may take to be ready.
const START_BOUND: Duration = Duration::from_secs(60);

/// A running server. Ends with this value.
pub struct Nats {
    binary: PathBuf,
    directory: TempDir,
    address: SocketAddr,
    child: Child,
}

/// Where `nats-server` is: as [`VARIABLE`] says, or in `PATH`.
///
/// # Errors
/// Why there is none; for people.
pub fn find() -> Result<PathBuf, String> {
    let works = |binary: &PathBuf| {
        let mut version = Command::new(binary);
        let quiet = version.arg("--version").stdout(Stdio::null());
        quiet
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    let named = std::env::var_os(VARIABLE).map(PathBuf::from);
    let binary = named.clone().unwrap_or_else(|| "nats-server".into());
    match (works(&binary), named) {
        (true, _) => Ok(binary),
        (false, Some(_)) => Err(format!("{VARIABLE} names no nats-server that runs")),
        (false, None) => Err(format!("no nats-server in PATH; {VARIABLE} may name one")),
    }
}

impl Nats {
    /// Starts one that everybody may use.
    ///
    /// # Panics
    /// When it does not become ready; its log is in the message.
    pub fn start(binary: &Path) -> Nats {
        Nats::start_with(binary, |_| String::new())
    }

    /// Starts one with more in its configuration, which may name files in the directory.
    ///
    /// # Panics
    /// As [`Nats::start`].
    pub fn start_with(binary: &Path, more: impl FnOnce(&Path) -> String) -> Nats {
        let directory = TempDir::new("nats").expect("a directory");
        let address = free_addr().expect("a port");
        let data = directory.join("data");
        let text = format!(
            "listen: \"{address}\"\n\
             jetstream {{ store_dir: \"{}\", max_mem: 64MB, max_file: 8GB }}\n{}",
            data.display(),
            more(directory.path())
        );
        fs::write(directory.join("nats.conf"), text).expect("a file");
        let mut server = Nats {
            binary: binary.to_owned(),
            child: spawn(binary, &directory),
            directory,
            address,
        };
        server.expect_ready();
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same, as a URL without a user.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Kills it: nothing of it is told to end.
    ///
    /// # Panics
    /// When it cannot be.
    pub fn kill(&mut self) {
        self.child.kill().expect("a process of ours");
        self.child.wait().expect("a process of ours");
    }

    /// Starts it again, with what it kept, at the same port.
    ///
    /// # Panics
    /// As [`Nats::start`].
    pub fn start_again(&mut self) {
        self.child = spawn(&self.binary, &self.directory);
        self.expect_ready();
    }

    /// Loses all that it kept; it has to be killed before.
    ///
    /// # Panics
    /// When that cannot be removed.
    pub fn lose_all(&self) {
        fs::remove_dir_all(self.directory.join("data")).expect("a directory of ours");
    }

    /// Waits until it greets.
    fn expect_ready(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < START_BOUND && self.child.try_wait().expect("a child").is_none() {
            if let Ok(stream) = TcpStream::connect(self.address) {
                let mut line = String::new();
                let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
                let _ = BufReader::new(stream).read_line(&mut line);
                if line.starts_with("INFO") && line.contains("\"jetstream\":true") {
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("not ready: {}", self.log());
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(binary: &Path, directory: &TempDir) -> Child {
    Command::new(binary)
        .arg("--config")
        .arg(directory.join("nats.conf"))
        .arg("--log")
        .arg(directory.join("log"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server starts")
}
