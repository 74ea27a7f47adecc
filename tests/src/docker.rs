//! A Docker Engine of one's own: a real one, in directories of the test, without networks.

pub mod sink;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getuid, kill_process};
use serde_json::Value;
use tailwater_testkit::tempdir::TempDir;

use self::sink::Written;
use crate::wait;

/// Names the daemon's binary, if it is not to be looked for.
const VARIABLE: &str = "TAILWATER_DOCKERD";
/// How long it may take to be ready: it starts a containerd.
const START_BOUND: Duration = Duration::from_secs(60);
/// The program that containers run: prints lines, see its source.
const WRITER: &str = include_str!("docker/writer.rs");

/// A running Engine, and an image `writer` in it. Ends with this value, with its containers.
pub struct Engine {
    binary: PathBuf,
    options: Vec<String>,
    daemon: Option<Child>,
    dir: TempDir,
}

impl Engine {
    /// Starts one; an error says why there is none here.
    ///
    /// # Errors
    /// A text for people.
    ///
    /// # Panics
    /// When it does not become ready, or the image cannot be made.
    pub fn start() -> Result<Engine, String> {
        Engine::start_with(&[])
    }

    /// As [`Engine::start`], with these options of the daemon besides.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn start_with(options: &[&str]) -> Result<Engine, String> {
        if !getuid().is_root() {
            return Err("a Docker Engine needs root".into());
        }
        let binary = match std::env::var_os(VARIABLE) {
            Some(path) => path.into(),
            None => find("dockerd").ok_or("there is no dockerd")?,
        };
        find("docker").ok_or("there is no docker")?;
        let dir = TempDir::new("docker").map_err(|e| e.to_string())?;
        let mut engine = Engine {
            binary,
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            daemon: None,
            dir,
        };
        engine.begin();
        engine.load();
        Ok(engine)
    }

    /// Starts the daemon, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn begin(&mut self) {
        let path = |name: &str| self.dir.join(name);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(path("log"));
        let log = log.expect("a file");
        let daemon = Command::new(&self.binary)
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .arg("-H")
            .arg(format!("unix://{}", self.socket().display()))
            .args(["--bridge", "none", "--iptables=false", "--ip-masq=false"])
            .args(["--storage-driver", "vfs"])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.daemon = Some(daemon.expect("a daemon"));
        let ready = || self.try_docker(&["version"]).is_ok();
        let log = || fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        assert!(wait::within(START_BOUND, ready), "no Engine:\n{}", log());
    }

    /// Kills the daemon, as a crash does, and the containerd that ends with it. Containers go on until there is another
    /// daemon, which ends them unless it is told `--live-restore`.
    ///
    /// # Panics
    /// When it had ended by itself.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon");
        assert!(matches!(daemon.try_wait(), Ok(None)), "it had ended");
        daemon.kill().expect("a child that was not reaped");
        daemon.wait().expect("a child");
        // Where nobody reaps orphans its containerd keeps its number when it has ended, and the next daemon waits for it.
        let file = self.dir.join("exec/containerd/containerd.pid");
        let pid = fs::read_to_string(&file).unwrap_or_default();
        let stat = Path::new("/proc").join(pid.trim()).join("stat");
        // Source: proc(5): the state is behind the name.
        let ended = || fs::read_to_string(&stat).map_or(true, |s| s.contains(") Z "));
        assert!(wait::within(START_BOUND, ended), "containerd outlives it");
        // It may be gone with it.
        let _ = fs::remove_file(&file);
    }

    /// Ends what is left of containers that nobody looks after any more.
    fn sweep(&self) {
        let tasks = self
            .dir
            .join("exec/containerd/daemon/io.containerd.runtime.v2.task/moby");
        let tasks = fs::read_dir(tasks).into_iter().flatten().flatten();
        let inits = tasks.filter_map(|t| fs::read_to_string(t.path().join("init.pid")).ok());
        let mut pids: Vec<i32> = inits.filter_map(|p| p.trim().parse().ok()).collect();
        let own = self.dir.path().display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            // The directory is named by those that it belongs to, and by nobody else.
            if String::from_utf8_lossy(&line).contains(&own) {
                pids.extend(
                    entry
                        .file_name()
                        .to_str()
                        .and_then(|n| n.parse::<i32>().ok()),
                );
            }
        }
        for pid in pids.into_iter().filter_map(Pid::from_raw) {
            // It may have ended.
            let _ = kill_process(pid, Signal::KILL);
        }
        // A directory cannot be removed while something is mounted in it.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let places = mounts.lines().rev().filter_map(|l| l.split(' ').nth(1));
        for place in places.filter(|p| p.starts_with(&own)) {
            let _ = Command::new("umount").args(["--lazy", place]).status();
        }
    }

    /// Ends the daemon; containers end with it, unless it was told `--live-restore`.
    ///
    /// # Panics
    /// When it does not end.
    pub fn end(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        let id = i32::try_from(daemon.id()).ok().and_then(Pid::from_raw);
        let id = id.expect("a process id");
        kill_process(id, Signal::TERM).expect("a child that was not reaped can be signalled");
        let ended = wait::within(START_BOUND, || matches!(daemon.try_wait(), Ok(Some(_))));
        if !ended {
            // Fails only when it has ended.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Where it is asked.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Runs the `docker` command; its output, or what it says instead.
    ///
    /// # Errors
    /// What it says.
    pub fn try_docker(&self, args: &[&str]) -> Result<String, String> {
        let host = format!("unix://{}", self.socket().display());
        let output = Command::new("docker")
            .args(args)
            .env("DOCKER_HOST", host)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }

    /// As [`Engine::try_docker`].
    ///
    /// # Panics
    /// When it fails.
    pub fn docker(&self, args: &[&str]) -> String {
        let done = self.try_docker(args);
        done.unwrap_or_else(|e| panic!("docker {args:?}: {e}"))
    }

    /// Runs a container that prints so many lines, with a pause of so many microseconds after each, and stays for
    /// so many milliseconds. `options` are those of `docker run`.
    ///
    /// # Panics
    /// When it cannot.
    pub fn write(&self, name: &str, options: &[&str], lines: u64, pause_us: u64, stay_ms: u64) {
        let numbers = [lines, pause_us, stay_ms].map(|n| n.to_string());
        let mut args = vec!["run", "--detach", "--network", "none", "--name", name];
        args.extend(options);
        args.extend(["writer", "/writer", name]);
        args.extend(numbers.iter().map(String::as_str));
        self.docker(&args);
    }

    /// What the Engine has in its log of a container: the lines that can be had of it.
    ///
    /// # Panics
    /// When the log is not there, or holds what the writer did not write.
    pub fn logged(&self, name: &str) -> Vec<Written> {
        let path = self.docker(&["inspect", "--format", "{{.LogPath}}", name]);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let line = |line: &str| {
            let entry: Option<Value> = serde_json::from_str(line).ok();
            let written = entry.as_ref().and_then(|e| e["log"].as_str());
            let written = written.and_then(Written::parse);
            written.unwrap_or_else(|| panic!("{name}: {line:?}"))
        };
        text.lines().map(line).collect()
    }

    /// Makes the image, from nothing but the program.
    fn load(&self) {
        let image = self.dir.join("image");
        fs::create_dir(&image).expect("a directory");
        let source = self.dir.join("writer.rs");
        fs::write(&source, WRITER).expect("a file");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let built = Command::new(rustc)
            .args([
                "--edition",
                "2024",
                "-O",
                "-C",
                "target-feature=+crt-static",
                "-o",
            ])
            .arg(image.join("writer"))
            .arg(&source)
            .status();
        assert!(built.is_ok_and(|s| s.success()), "the writer is not built");
        let archive = self.dir.join("image.tar");
        let packed = pack(&archive, &image.join("writer"));
        packed.expect("an archive");
        self.docker(&["import", &archive.display().to_string(), "writer"]);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            if let Ok(all) = self.try_docker(&["ps", "--quiet", "--all"]) {
                let ids: Vec<&str> = all.lines().collect();
                let args = [&["rm", "--force"], &ids[..]].concat();
                let _ = self.try_docker(&args);
            }
            self.end();
        }
        self.sweep();
    }
}

/// A program in `PATH`, or where those of the system are.
fn find(name: &str) -> Option<PathBuf> {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&dirs).collect();
    dirs.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    dirs.iter().map(|dir| dir.join(name)).find(|p| p.is_file())
}

fn pack(archive: &Path, program: &Path) -> std::io::Result<()> {
    let mut tar = tar::Builder::new(fs::File::create(archive)?);
    tar.append_path_with_name(program, "writer")?;
    tar.finish()
}
