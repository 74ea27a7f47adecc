//! A control plane as a process.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::agent::free_addr;
use crate::wait;

/// Where the binary is: `TAILWATER_CONTROL_BIN`, or a build beside this program.
///
/// # Panics
/// When it is in neither place.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TAILWATER_CONTROL_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().expect("a program");
    let places = own.ancestors().flat_map(|dir| {
        [
            "tailwater-control",
            "debug/tailwater-control",
            "release/tailwater-control",
        ]
        .map(|p| dir.join(p))
    });
    places.into_iter().find(|path| path.is_file()).expect(
        "no control plane to test: set TAILWATER_CONTROL_BIN, or cargo build -p tailwater-control",
    )
}

/// A control plane; killed and reaped on drop.
pub struct Control {
    child: Child,
    addr: SocketAddr,
    args: Vec<String>,
    state: PathBuf,
    log: PathBuf,
    /// What its other commands are told besides, with TLS.
    client: Option<Vec<String>>,
}

/// Runs a command of the program that needs no server; what it prints.
///
/// # Panics
/// When it fails.
pub fn once(args: &[&str]) -> String {
    let out = Command::new(binary()).args(args).output();
    let out = out.expect("the program");
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{args:?}: {error}");
    String::from_utf8(out.stdout).expect("text")
}

impl Control {
    /// Starts one with its state and log in `dir`, and waits until it listens.
    ///
    /// # Panics
    /// When it does not; its log is in the message.
    pub fn start(dir: &Path, args: &[&str]) -> Control {
        Control::start_for(dir, args, None)
    }

    /// As [`Control::start`], with TLS for `localhost`: its other commands are told `client` besides.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_with_tls(dir: &Path, args: &[&str], client: &[&str]) -> Control {
        let client = client.iter().map(|a| (*a).to_owned()).collect();
        Control::start_for(dir, args, Some(client))
    }

    /// Where it keeps its state, of a directory that [`Control::start`] is given.
    pub fn state_in(dir: &Path) -> PathBuf {
        dir.join("control")
    }

    fn start_for(dir: &Path, args: &[&str], client: Option<Vec<String>>) -> Control {
        let addr = free_addr();
        let state = Control::state_in(dir);
        let log = dir.join("control.log");
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        let child = spawn(addr, &state, &log, &args);
        let mut control = Control {
            child,
            addr,
            args,
            state,
            log,
            client,
        };
        control.expect_ready();
        control
    }

    fn expect_ready(&mut self) {
        let listens = wait::within(wait::BOUND, || {
            std::net::TcpStream::connect(self.addr).is_ok()
        });
        assert!(
            listens,
            "the control plane does not listen:\n{}",
            self.log()
        );
    }

    /// Kills it, and starts it again at the same address with the same state.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Kills it. Until [`Control::start_again`] nobody listens at its address, or whoever a test puts there.
    ///
    /// # Panics
    /// When there is no such process.
    pub fn kill(&mut self) {
        self.child.kill().expect("a process");
        self.child.wait().expect("a process");
    }

    /// Starts it again, after [`Control::kill`], at the same address with the same state.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn start_again(&mut self) {
        self.child = spawn(self.addr, &self.state, &self.log, &self.args);
        self.expect_ready();
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where agents speak to.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/v1/opamp", self.authority())
    }

    fn authority(&self) -> String {
        match self.client {
            Some(_) => format!("localhost:{}", self.addr.port()),
            None => self.addr.to_string(),
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs one of its other commands.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, args: &[&str]) -> Output {
        let scheme = if self.client.is_some() {
            "https"
        } else {
            "http"
        };
        let server = format!("{scheme}://{}", self.authority());
        Command::new(binary())
            .args(args)
            .args(["--server", &server])
            .args(self.client.iter().flatten())
            .output()
            .expect("the program")
    }

    /// As [`Control::run`]; what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn tell(&self, args: &[&str]) -> String {
        let out = self.run(args);
        let (text, error) = (
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr),
        );
        assert!(out.status.success(), "{args:?}: {error}\n{}", self.log());
        text.into_owned()
    }

    /// As [`Control::tell`], with the answer as it came.
    ///
    /// # Panics
    /// When it fails, or is no JSON.
    pub fn ask(&self, args: &[&str]) -> Value {
        let text = self.tell(&[args, &["--json"]].concat());
        serde_json::from_str(&text).expect("JSON")
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(addr: SocketAddr, state: &Path, log: &Path, args: &[String]) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(log)
        .expect("a file");
    Command::new(binary())
        .args(["serve", "--listen", &addr.to_string(), "--state"])
        .arg(state)
        .args(args)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the program")
}
