//! One archive for the report of a bug: what the agent is, what it does and what it lives in.
//!
//! Each part is what another endpoint answers, without secrets as there, or what the kernel says of the
//! process. Neither its environment nor its command line is among it: both may hold secrets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tailwater_config::to_yaml;
use tailwater_telemetry::metrics::{Exposition, Level, ProcessUsage};
use tailwater_telemetry::rfc3339_nano;
use tokio::sync::Mutex;

use super::files::{Wanted, files};
use super::graph::{Seen, graph};
use super::handlers::{Api, components, generations};

/// Bytes of a part at most; what is behind them is left out, and said to be.
const PART_BYTES_MAX: usize = 4 << 20;
/// Bytes of a file of the kernel's at most.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Files that are listed, those that are furthest behind.
const FILES_MAX: usize = 2_000;
/// Descriptors and threads that are looked at.
const LOOKED_AT_MAX: usize = 20_000;
/// What the kernel says of the process and of the machine.
const SYSTEM: [&str; 13] = [
    "/proc/version",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/self/limits",
    "/proc/self/status",
    "/proc/self/cgroup",
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/memory",
    "/proc/sys/fs/file-nr",
    "/proc/sys/fs/inotify/max_queued_events",
    "/proc/sys/fs/inotify/max_user_instances",
    "/proc/sys/fs/inotify/max_user_watches",
];
/// Of the process's control group and of those above it.
const CGROUP: [&str; 9] = [
    "cpu.max",
    "cpu.stat",
    "io.max",
    "memory.current",
    "memory.events",
    "memory.high",
    "memory.max",
    "pids.current",
    "pids.max",
];

/// One archive is made at a time.
#[derive(Default)]
pub struct Archives(Mutex<()>);

/// A part of the archive.
struct Part {
    name: &'static str,
    about: &'static str,
    text: String,
}

/// The name of the archive, and the archive: a compressed tar file.
///
/// # Errors
/// It cannot be put together.
pub async fn diagnostics(api: &Api) -> io::Result<(String, Vec<u8>)> {
    let _alone = api.archives.0.lock().await;
    let wall_ns = api.clock.wall_ns();
    let parts = parts(api).await;
    // Compressing takes longer than sockets may wait.
    let archive = tokio::task::spawn_blocking(move || {
        let system = pretty(&system(Path::new("/")));
        let process = pretty(&process());
        let mut parts = parts;
        parts.push(Part {
            name: "system.json",
            about: "processors, and what the kernel says of limits, control groups and the machine",
            text: system,
        });
        parts.push(Part {
            name: "process.json",
            about: "memory, descriptors and threads of the process",
            text: process,
        });
        pack(parts, wall_ns)
    });
    let archive = archive.await.map_err(io::Error::other)??;
    Ok((archive_name(wall_ns), archive))
}

/// What an archive of this time is called.
pub fn archive_name(unix_ns: i64) -> String {
    let when = rfc3339_nano(unix_ns);
    let when = when.chars().take(19).filter(char::is_ascii_alphanumeric);
    format!("tailwater-diagnostics-{}.tar.gz", when.collect::<String>())
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// What the agent says of itself.
async fn parts(api: &Api) -> Vec<Part> {
    (api.observe)();
    let now = api.clock.now().0;
    let in_force = api.shown.get();
    let health = api.health.report(now);
    let said = health.to_json();
    let said: Value = serde_json::from_str(&said).unwrap_or_default();
    let files = files(&in_force, &Wanted::furthest_behind(FILES_MAX)).await;
    let files = files.unwrap_or_else(|e| e.0);
    let everything = Exposition {
        level: Level::Detailed,
        ..Exposition::default()
    };
    let about = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "architecture": std::env::consts::ARCH,
        "system": std::env::consts::OS,
        "optimised": !cfg!(debug_assertions),
        "uptime_seconds": said["uptime_seconds"],
        "generation": in_force.generation,
    });
    let part = |name, about, text| Part { name, about, text };
    let mut parts = vec![
        part("about.json", "version, build, uptime", pretty(&about)),
        part(
            "config.yaml",
            "the configuration in force, merged and substituted, without secrets",
            to_yaml(&in_force.config),
        ),
        part(
            "generations.json",
            "the configurations that were in force, and what each changed",
            pretty(&generations(api)),
        ),
        part(
            "components.json",
            "what this build has",
            pretty(&components()),
        ),
        part(
            "health.json",
            "what is well and what is not",
            health.to_json(),
        ),
        part(
            "files.json",
            "files that are read, those furthest behind",
            files,
        ),
        part(
            "log.txt",
            "the newest lines of the agent's log",
            api.log.recent(),
        ),
        part(
            "metrics.txt",
            "metrics, all that are counted",
            api.metrics.render_with(&everything),
        ),
    ];
    let seen = Seen {
        in_force,
        not_started: api.shown.get_not_started(),
        health,
        samples: api.metrics.samples(),
    };
    let graph = pretty(&graph(&seen));
    parts.push(part(
        "graph.json",
        "nodes with their numbers, and edges",
        graph,
    ));
    parts
}

/// Reads a file below `root`; why it cannot be read stands in its place.
fn text_of(root: &Path, path: &str) -> String {
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut bytes)?;
        io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let below = root.join(path.trim_start_matches('/'));
    read(&below).unwrap_or_else(|e| format!("cannot be read: {e}"))
}

fn system(root: &Path) -> Value {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for path in SYSTEM {
        files.insert(path.to_owned(), text_of(root, path));
    }
    for dir in cgroups(&text_of(root, "/proc/self/cgroup")) {
        for name in CGROUP {
            let path = format!("{}/{name}", dir.display());
            // The root group has few of them.
            if root.join(path.trim_start_matches('/')).exists() {
                let text = text_of(root, &path);
                files.insert(path, text);
            }
        }
    }
    let cpus = std::thread::available_parallelism().ok();
    json!({"cpus": cpus.map(usize::from), "files": files})
}

/// The process's group (of version 2) and those above it, whose limits hold as well.
fn cgroups(text: &str) -> Vec<PathBuf> {
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let Some(own) = own.filter(|own| !own.split('/').any(|name| name == "..")) else {
        return Vec::new();
    };
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(own);
    let all = own.ancestors().take_while(|dir| dir.starts_with(root));
    all.map(Path::to_path_buf).collect()
}

fn process() -> Value {
    let usage = ProcessUsage::read().unwrap_or_default();
    json!({
        "rss_bytes": usage.rss_bytes,
        "anonymous_bytes": usage.anonymous_bytes,
        "heap_bytes": usage.heap_bytes,
        "virtual_bytes": usage.virtual_bytes,
        "cpu_seconds": usage.cpu_seconds,
        "threads": usage.threads,
        "threads_by_name": count("/proc/self/task", |dir| {
            let name = fs::read_to_string(dir.join("comm")).ok()?;
            Some(name.trim().to_owned())
        }),
        // Where they lead is not told: paths are in the list of files, as far as they are logs.
        "descriptors": count("/proc/self/fd", |link| {
            let target = fs::read_link(link).ok()?;
            Some(kind_of(&target.to_string_lossy()).to_owned())
        }),
    })
}

/// What a descriptor is of, by what the kernel says that it leads to (proc_pid_fd(5)).
fn kind_of(target: &str) -> &str {
    let inode = target.split_once(":[").map(|(kind, _)| kind);
    match target.strip_prefix("anon_inode:") {
        Some(kind) => kind.trim_matches(['[', ']']),
        None => inode.filter(|kind| !kind.contains('/')).unwrap_or("file"),
    }
}

/// How many entries of a directory are of each kind.
fn count(dir: &str, kind: impl Fn(&Path) -> Option<String>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let entries = fs::read_dir(dir).into_iter().flatten().take(LOOKED_AT_MAX);
    for kind in entries.flatten().filter_map(|e| kind(&e.path())) {
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

/// Puts the parts together, with a list of them in front.
fn pack(mut parts: Vec<Part>, wall_ns: i64) -> io::Result<Vec<u8>> {
    let mut list = format!(
        "Diagnostics of Tailwater, {}.\n\n\
         Secrets of the configuration are replaced, as in `tailwater print-config`. Paths, addresses and\n\
         names of the configuration are in it, and what the agent's log says of lines: look through it before you\n\
         give it away.\n\n",
        rfc3339_nano(wall_ns)
    );
    parts.sort_by_key(|p| p.name);
    for part in &mut parts {
        let cut = cut(&mut part.text);
        let left_out = match cut {
            0 => String::new(),
            bytes => format!(" ({bytes} bytes at its end left out)"),
        };
        let _ = writeln!(list, "{:<17} {}{left_out}", part.name, part.about);
    }
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let first = [("README.txt", list.as_bytes())];
    let rest = parts.iter().map(|p| (p.name, p.text.as_bytes()));
    for (name, bytes) in first.into_iter().chain(rest) {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(wall_ns / 1_000_000_000).unwrap_or_default());
        tar.append_data(&mut header, format!("tailwater-diagnostics/{name}"), bytes)?;
    }
    tar.into_inner()?.finish()
}

/// Cuts what is too long, and says how many bytes.
fn cut(text: &mut String) -> usize {
    let length = text.len();
    if length > PART_BYTES_MAX {
        text.truncate(text.floor_char_boundary(PART_BYTES_MAX));
    }
    length - text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use tailwater_testkit::tempdir::TempDir;

    fn unpack(archive: &[u8]) -> BTreeMap<String, String> {
        let mut tar = tar::Archive::new(GzDecoder::new(archive));
        let text = |entry: io::Result<tar::Entry<'_, GzDecoder<&[u8]>>>| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (name, text)
        };
        tar.entries().unwrap().map(text).collect()
    }

    /// Guarantee: an archive is bounded whatever its parts are, and says what was left out.
    #[test]
    fn a_part_that_is_too_long_is_cut_and_said_to_be() {
        let part = |name, text: String| Part {
            name,
            about: "something",
            text,
        };
        let long = "ü".repeat(PART_BYTES_MAX);
        let archive = pack(vec![part("b.txt", long), part("a.txt", "short".into())], 0).unwrap();
        let all = unpack(&archive);
        let names: Vec<&str> = all.keys().map(String::as_str).collect();
        let dir = "tailwater-diagnostics";
        assert_eq!(
            names,
            ["README.txt", "a.txt", "b.txt"].map(|n| format!("{dir}/{n}"))
        );
        assert_eq!(all[&format!("{dir}/a.txt")], "short");
        assert_eq!(all[&format!("{dir}/b.txt")].len(), PART_BYTES_MAX);
        let list = &all[&format!("{dir}/README.txt")];
        assert!(
            list.contains(&format!("({PART_BYTES_MAX} bytes at its end left out)")),
            "{list}"
        );
        assert!(list.contains("1970-01-01T00:00:00"), "{list}");
    }

    #[test]
    fn limits_of_all_groups_above_are_told() {
        let dir = TempDir::new("system").unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/self/cgroup", "1:name=x:/y\n0::/kube/pod\n");
        write("proc/version", &"x".repeat(100_000));
        write("sys/fs/cgroup/kube/pod/memory.max", "100\n");
        write("sys/fs/cgroup/kube/memory.max", "200\n");
        let told = system(dir.path());
        let files = &told["files"];
        assert_eq!(files["/sys/fs/cgroup/kube/pod/memory.max"], "100\n");
        assert_eq!(files["/sys/fs/cgroup/kube/memory.max"], "200\n");
        assert_eq!(
            files["/proc/version"].as_str().unwrap().len() as u64,
            FILE_BYTES_MAX
        );
        let missing = files["/proc/meminfo"].as_str().unwrap();
        assert!(missing.starts_with("cannot be read: "), "{missing}");
        assert!(told["cpus"].as_u64().unwrap() > 0);
        assert!(cgroups("0::/../../other\n").is_empty() && cgroups("").is_empty());
        assert_eq!(cgroups("0::/\n"), [Path::new("/sys/fs/cgroup")]);
    }

    #[test]
    fn the_process_is_told_by_kinds() {
        let told = process();
        assert!(told["rss_bytes"].as_u64().unwrap() > 0 && told["threads"].as_u64().unwrap() > 0);
        assert!(told["descriptors"]["file"].as_u64().unwrap() > 0, "{told}");
        for (target, want) in [
            ("socket:[123]", "socket"),
            ("pipe:[5]", "pipe"),
            ("anon_inode:[eventpoll]", "eventpoll"),
            ("anon_inode:inotify", "inotify"),
            ("/var/log/a:[1].log", "file"),
        ] {
            assert_eq!(kind_of(target), want);
        }
        let names = told["threads_by_name"].as_object().unwrap();
        assert!(!names.is_empty());
    }
}
