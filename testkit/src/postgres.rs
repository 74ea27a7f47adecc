//! A real PostgreSQL on a loopback port, with nothing in it: for tests of what keeps its state there.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::ports::free_addr;
use crate::tempdir::TempDir;

/// Names the directory that holds `initdb` and `postgres`, if it is not to be looked for.
pub const VARIABLE: &str = "TAILWATER_POSTGRES";
/// Where the distribution puts versions.
const VERSIONS: &str = "/usr/lib/postgresql";
/// How long it may take to be ready.
const START_BOUND: Duration = Duration::from_secs(120);
/// Who everything belongs to.
pub const USER: &str = "tailwater";
/// The password of [`USER`].
pub const PASSWORD: &str = "not a secret of anybody";
/// The password as a URL has it.
const PASSWORD_IN_URL: &str = "not%20a%20secret%20of%20anybody";

/// A running server. Ends with this value.
pub struct Postgres {
    binaries: PathBuf,
    directory: TempDir,
    address: SocketAddr,
    settings: Vec<String>,
    child: Child,
}

/// Where `initdb` and `postgres` are: as [`VARIABLE`] says, in `PATH`, or among the versions of the distribution.
///
/// # Errors
/// Why there is none; for people.
pub fn find() -> Result<PathBuf, String> {
    // Also as somebody else: a directory may be closed to others than its owner.
    let is_one = |dir: &PathBuf| {
        ["initdb", "postgres"].iter().all(|name| {
            let mut version = as_somebody(&dir.join(name));
            let version = version
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            version.status().is_ok_and(|s| s.success())
        })
    };
    if let Some(path) = std::env::var_os(VARIABLE) {
        let path = PathBuf::from(path);
        return match is_one(&path) {
            true => Ok(path),
            false => Err(format!(
                "{VARIABLE} names a directory without initdb and postgres that run"
            )),
        };
    }
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> = fs::read_dir(VERSIONS)
        .map(|all| {
            all.filter_map(|e| Some(e.ok()?.path().join("bin")))
                .collect()
        })
        .unwrap_or_default();
    versions.sort();
    std::env::split_paths(&dirs)
        .chain(versions.into_iter().rev())
        .find(is_one)
        .ok_or_else(|| {
            format!("no initdb and postgres in PATH or {VERSIONS}; {VARIABLE} may name them")
        })
}

impl Postgres {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not become ready; its log is in the message.
    pub fn start(binaries: &Path) -> Postgres {
        Postgres::start_with(binaries, None)
    }

    /// Starts one that speaks TLS with this certificate and key, PEM, to who asks for it.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    pub fn start_with_tls(binaries: &Path, cert: &str, key: &str) -> Postgres {
        Postgres::start_with(binaries, Some((cert, key)))
    }

    fn start_with(binaries: &Path, tls: Option<(&str, &str)>) -> Postgres {
        let directory = TempDir::new("postgres").expect("a directory");
        let password = directory.join("password");
        fs::write(&password, PASSWORD).expect("a file");
        let (cert, key) = (
            directory.join("server.pem"),
            directory.join("server-key.pem"),
        );
        if let Some((cert_pem, key_pem)) = tls {
            fs::write(&cert, cert_pem).expect("a file");
            fs::write(&key, key_pem).expect("a file");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&key, mode).expect("a file of ours");
            own(&cert);
            own(&key);
        }
        own(directory.path());
        own(&password);
        let made = as_somebody(&binaries.join("initdb"))
            .args([
                "--no-sync",
                "--no-locale",
                "--encoding=UTF8",
                "--auth=scram-sha-256",
            ])
            .arg(format!("--username={USER}"))
            .arg(joined("--pwfile=", &password))
            .arg("-D")
            .arg(directory.join("data"))
            .output()
            .expect("initdb starts");
        let error = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "initdb: {error}");
        let mut settings = vec!["ssl=off".to_owned()];
        if tls.is_some() {
            settings = vec![
                "ssl=on".to_owned(),
                format!("ssl_cert_file={}", cert.display()),
                format!("ssl_key_file={}", key.display()),
            ];
        }
        let address = free_addr().expect("a port");
        let child = spawn(binaries, &directory, address, &settings);
        let mut server = Postgres {
            binaries: binaries.to_owned(),
            directory,
            address,
            settings,
            child,
        };
        server.expect_ready();
        server
    }

    /// The database `postgres` of this server as [`USER`], with its password.
    pub fn url(&self) -> String {
        format!(
            "postgres://{USER}:{PASSWORD_IN_URL}@{}/postgres",
            self.address
        )
    }

    /// The same, without a password.
    pub fn url_without_password(&self) -> String {
        format!("postgres://{USER}@{}/postgres", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
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
    /// As [`Postgres::start`].
    pub fn start_again(&mut self) {
        let begun = Instant::now();
        loop {
            self.child = spawn(
                &self.binaries,
                &self.directory,
                self.address,
                &self.settings,
            );
            if self.is_ready() {
                return;
            }
            // Processes of the one that was killed take a moment to find that out, and it does not start beside them.
            assert!(begun.elapsed() < START_BOUND, "not ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn expect_ready(&mut self) {
        assert!(self.is_ready(), "not ready: {}", self.log());
    }

    /// Waits until it is ready; false if it ended.
    fn is_ready(&mut self) -> bool {
        let begun = Instant::now();
        let file = self.directory.join("data/postmaster.pid");
        let id = self.child.id().to_string();
        while begun.elapsed() < START_BOUND {
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            // Its first line is the process, its last one the state.
            let text = fs::read_to_string(&file).unwrap_or_default();
            let is_own = text.lines().next() == Some(&*id);
            if is_own && text.lines().any(|l| l.trim_end() == "ready") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Told to end at once, it takes its shared memory along. It may have ended.
        let _ = as_somebody(&self.binaries.join("pg_ctl"))
            .args(["stop", "--silent", "--mode=immediate", "-D"])
            .arg(self.directory.join("data"))
            .stderr(Stdio::null())
            .status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// No loss of the machine is tried, so it need not wait for the disk.
fn spawn(binaries: &Path, directory: &TempDir, address: SocketAddr, settings: &[String]) -> Child {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(directory.join("log"));
    let mut command = as_somebody(&binaries.join("postgres"));
    command.arg("-D").arg(directory.join("data"));
    let port = format!("port={}", address.port());
    let fixed = [
        "listen_addresses=127.0.0.1",
        &port,
        "unix_socket_directories=",
        "fsync=off",
        "shared_buffers=16MB",
        "max_connections=40",
    ];
    for setting in fixed.into_iter().chain(settings.iter().map(String::as_str)) {
        command.args(["-c", setting]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.expect("a log"))
        .spawn()
        .expect("postgres starts")
}

fn joined(prefix: &str, path: &Path) -> OsString {
    let mut text = OsString::from(prefix);
    text.push(path);
    text
}

/// Somebody who is not root, if this process is: a server refuses to run as root.
fn somebody() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").expect("Linux").uid() != 0 {
        return None;
    }
    let all = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = all.lines().find(|l| l.starts_with("nobody:"));
    let mut ids = line.into_iter().flat_map(|l| l.split(':').skip(2).take(2));
    let mut next = || ids.next().and_then(|id| id.parse().ok());
    Some((next().unwrap_or(65_534), next().unwrap_or(65_534)))
}

fn as_somebody(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let Some((uid, gid)) = somebody() {
        command.uid(uid).gid(gid);
    }
    command
}

fn own(path: &Path) {
    if let Some((uid, gid)) = somebody() {
        chown(path, Some(uid), Some(gid)).expect("a file of ours");
    }
}
