//! The agent shuts itself into what its configuration needs (Landlock, Linux 5.13 and newer).
//!
//! Two rings. The process as a whole may read logs, the files that the configuration names, and
//! what the system needs for names, certificates and times; it may write where its positions,
//! files and own log are; it may execute nothing but what a receiver runs, and gain no privilege. The inner ring, which holds
//! the threads that find and read files, is closed to `/etc` besides: only the thread for sockets
//! needs files there that others replace at any time (`resolv.conf`).
//!
//! A ring holds for the thread that enters it and for the threads that this one starts, and it never
//! gets wider. So the thread that reads configurations and puts them into force stays outside, and
//! starts all others through one that is shut in; what a new configuration needs besides is open to
//! threads started after that.
//! Source: the kernel's `Documentation/userspace-api/landlock.rst`.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath,
    PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
};
use tailwater_config::SandboxOptions;
use tailwater_pipeline::reach::{Place, Reach, Use};
use tailwater_telemetry::logs::OutputPath;

use crate::commands::check::Checked;
use crate::storages;

/// The newest version of the interface whose rights are used; older kernels enforce what they know.
const KNOWN: ABI = ABI::V5;

/// What the system's libraries and this program read while they run: themselves, certificates
/// (`openssl version -d` of many systems), time zones, and what the kernel says about the process.
const SYSTEM: [&str; 24] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/certs",
    "/etc/openssl",
    "/opt/etc/ssl",
    "/usr/local/etc/openssl",
    "/usr/local/openssl",
    "/usr/local/ssl",
    "/usr/share/ssl",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/etc/timezone",
    "/proc",
    "/sys/fs/cgroup",
    "/dev/urandom",
];

/// Certificates that lead to other places on some systems.
const CERTIFICATES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/certs/ca-bundle.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

/// Variables that name certificates in other places.
const CERTIFICATE_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Where names are looked up, and users.
const ETC: &str = "/etc";

/// Leads to another directory where a service looks after it.
const RESOLVERS: &str = "/etc/resolv.conf";

/// Directories that are not opened for the sake of one in them that may be replaced.
const SHARED: [&str; 15] = [
    "/", "/boot", "/dev", "/etc", "/home", "/opt", "/proc", "/root", "/run", "/srv", "/sys",
    "/tmp", "/usr", "/var", "/mnt",
];

/// Which of the two rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ring {
    /// For the threads with sockets.
    Outer,
    /// For all others that see data.
    Inner,
}

/// What may be done where.
pub struct Sandbox {
    /// None: it is off.
    rules: Option<Rules>,
    needs_etc: bool,
    /// The directories of logs.
    logs: Vec<PathBuf>,
    /// It became wider, and threads that were started before go on without that.
    outgrown: bool,
    /// It was said in the log how it went.
    said: bool,
    /// The thread of the inner ring that everything is done in. It stays until the sandbox becomes wider: what
    /// is built in a thread of its own each time leaves the allocator with that thread's pages, nearly
    /// empty.
    inner: Option<ShutIn>,
}

/// What is done in a thread that is shut in.
type Job = Box<dyn FnOnce() + Send>;

/// A thread that is shut in. Dropping it ends it; what it started goes on.
struct ShutIn {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl ShutIn {
    /// Starts it with `restrict`, and says how that went.
    fn start(
        restrict: impl FnOnce() -> Outcome + Send + 'static,
    ) -> std::io::Result<(ShutIn, Outcome)> {
        let (jobs, inbox) = channel::<Job>();
        let (say, said) = channel();
        let thread = std::thread::Builder::new().name("changes".into());
        let thread = thread.spawn(move || {
            let _ = say.send(restrict());
            inbox.into_iter().for_each(|job| job());
        })?;
        let ended = || Err("the thread for it has ended".to_owned());
        let outcome = said.recv().unwrap_or_else(|_| ended());
        let (jobs, thread) = (Some(jobs), Some(thread));
        Ok((ShutIn { jobs, thread }, outcome))
    }

    /// Does `work` there; a panic goes on here.
    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (say, said) = channel();
        let job: Job = Box::new(move || {
            let _ = say.send(catch_unwind(AssertUnwindSafe(work)));
        });
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
        let done = said
            .recv()
            .expect("the thread lives as long as its sender, and panics of jobs are caught");
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Drop for ShutIn {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// True if it is enforced in part only; or why it is not at all.
type Outcome = Result<bool, String>;

/// Rights by place, links resolved.
#[derive(Clone, Default, PartialEq)]
struct Rules(BTreeMap<PathBuf, BitFlags<AccessFs>>);

impl Sandbox {
    /// No sandbox, for those who share their process with others.
    pub fn off() -> Sandbox {
        Sandbox {
            rules: None,
            needs_etc: false,
            logs: Vec::new(),
            outgrown: false,
            said: true,
            inner: None,
        }
    }

    /// What `checked` needs. Directories that the configuration lets the agent create are created now:
    /// there is no other way to name them.
    pub fn of(checked: &Checked) -> Sandbox {
        if !checked.loaded.file.service.sandbox.enabled {
            return Sandbox::off();
        }
        // For the threads outside as well. A kernel without it is too old for the rest.
        let _ = rustix::thread::set_no_new_privs(true);
        let mut sandbox = Sandbox {
            rules: Some(Rules::default()),
            said: false,
            ..Sandbox::off()
        };
        sandbox.widen(checked);
        sandbox.outgrown = false;
        sandbox
    }

    /// Adds what `checked` needs; what was allowed stays, for what goes on. True if it became wider since [`Sandbox::moved`]:
    /// threads that were started before do not know of it.
    pub fn widen(&mut self, checked: &Checked) -> bool {
        let Some(rules) = &mut self.rules else {
            return false;
        };
        let reach = reach(checked);
        let mut wider = rules.clone();
        let wanted = Rules::of(&reach, &checked.loaded.file.service.sandbox);
        for (path, access) in wanted.0 {
            // What is below a place that has all of that needs no rule: where logs come and go in directories
            // of their own, threads need not be started again for each.
            if !wider.covers(&path, access) {
                *wider.0.entry(path).or_default() |= access;
            }
        }
        let mut logs: Vec<PathBuf> = reach.logs.iter().flat_map(|p| log_dirs(&p.path)).collect();
        logs.sort();
        logs.dedup_by(|a, b| a.starts_with(&*b));
        let grew = wider != *rules || (reach.user_names && !self.needs_etc);
        *rules = wider;
        self.logs = logs;
        self.needs_etc |= reach.user_names;
        self.outgrown |= grew;
        if grew {
            self.inner = None;
        }
        self.outgrown
    }

    /// The threads that go on have all that it allows now.
    pub fn moved(&mut self) {
        self.outgrown = false;
    }

    /// Runs `work` in a thread that is shut in, as are all that it starts. Says in the log, once, how
    /// that went. Without a sandbox `work` runs where it is.
    ///
    /// # Errors
    /// There is no thread.
    pub fn within<T: Send + 'static>(
        &mut self,
        ring: Ring,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<T> {
        let Some(rules) = &self.rules else {
            return Ok(work());
        };
        if let (Ring::Inner, Some(inner)) = (ring, &self.inner) {
            return Ok(inner.run(work));
        }
        let mut rules = rules.clone();
        if ring == Ring::Outer || self.needs_etc {
            rules.add(Path::new(ETC), Use::Read);
            rules.add_directory_of(Path::new(RESOLVERS));
        }
        let (thread, outcome) = ShutIn::start(move || rules.restrict())?;
        if !std::mem::replace(&mut self.said, true) {
            self.say(outcome);
        }
        let done = thread.run(work);
        if ring == Ring::Inner {
            self.inner = Some(thread);
        }
        Ok(done)
    }

    fn say(&self, outcome: Outcome) {
        match outcome {
            Ok(partly) => tracing::info!(
                logs = ?self.logs, partly,
                "sandboxed: files outside of what the configuration names cannot be opened"
            ),
            Err(why) => tracing::warn!(
                why,
                "not sandboxed: this process can open whatever its user can"
            ),
        }
    }
}

/// Everything the configuration uses.
pub fn reach(checked: &Checked) -> Reach {
    let mut reach = checked.resolved.reach();
    storages::reach(&checked.loaded.file, &mut reach);
    let admin = &checked.loaded.file.service.admin;
    if let Some(endpoint) = admin.iter().find_map(|a| a.endpoint.as_ref()) {
        reach.reads_file(&endpoint.token_file);
    }
    let logs = &checked.telemetry.logs;
    for path in logs.output_paths.iter().chain(&logs.error_output_paths) {
        if let OutputPath::File(path) = path {
            reach.writes_file(path, false);
        }
    }
    reach
}

/// The directories to be opened for logs in `dir`. One that does not exist yet is below one that
/// does; one that may be deleted and made again is found by its parent.
fn log_dirs(dir: &Path) -> Vec<PathBuf> {
    for known in dir.ancestors() {
        let known = if known.as_os_str().is_empty() {
            Path::new(".")
        } else {
            known
        };
        let Ok(there) = known.canonicalize() else {
            continue;
        };
        let parent = there.parent().filter(|parent| {
            let shared = SHARED.iter().any(|s| Path::new(s) == *parent);
            let of_users = parent.parent() == Some(Path::new("/home"));
            let of_system = parent.parent() == Some(Path::new("/var/lib"));
            known == dir && !(shared || of_users || of_system || *parent == Path::new("/var/lib"))
        });
        return match parent {
            Some(parent) => vec![parent.to_path_buf(), there.clone()],
            None => vec![there],
        };
    }
    Vec::new()
}

impl Rules {
    fn of(reach: &Reach, options: &SandboxOptions) -> Rules {
        let mut rules = Rules::default();
        for path in SYSTEM {
            rules.add(Path::new(path), Use::Read);
        }
        let named = CERTIFICATE_VARIABLES.iter().filter_map(std::env::var_os);
        let named: Vec<PathBuf> = named.map(PathBuf::from).collect();
        for path in CERTIFICATES
            .iter()
            .map(Path::new)
            .chain(named.iter().map(PathBuf::as_path))
        {
            rules.add(path, Use::Read);
            rules.add_directory_of(path);
        }
        // The terminal, and what programs throw away.
        for path in ["/dev/null", "/dev/tty"] {
            rules.add(Path::new(path), Use::Write);
        }
        for place in &reach.logs {
            for dir in log_dirs(&place.path) {
                rules.add(&dir, place.usage);
            }
        }
        for place in &reach.places {
            create(place);
            rules.add(&place.path, place.usage);
        }
        if reach.places.iter().any(|p| p.usage == Use::Execute) {
            // The kernel runs it first.
            for linker in dynamic_linkers() {
                rules.add(&linker, Use::Execute);
            }
        }
        for (list, usage) in [(&options.read, Use::Read), (&options.write, Use::Write)] {
            for path in list {
                rules.add(Path::new(path), usage);
            }
        }
        rules
    }

    /// True if a directory above `path`, or it itself, has these rights already.
    fn covers(&self, path: &Path, access: BitFlags<AccessFs>) -> bool {
        let mut above = path.ancestors().filter_map(|dir| self.0.get(dir));
        above.any(|known| known.contains(access))
    }

    /// The directory in which `path` really is: it may be replaced there.
    fn add_directory_of(&mut self, path: &Path) {
        let target = path.canonicalize().ok();
        if let Some(dir) = target.as_deref().and_then(Path::parent) {
            self.add(dir, Use::Read);
        }
    }

    /// What does not exist is left out: whoever needs it says so when it is missing.
    fn add(&mut self, path: &Path, usage: Use) {
        let Ok(path) = path.canonicalize() else {
            return;
        };
        let mut access = AccessFs::ReadFile | AccessFs::ReadDir;
        match usage {
            Use::Read => {}
            Use::Execute => access |= AccessFs::Execute,
            Use::ReadAndDelete => access |= AccessFs::RemoveFile,
            Use::Listen => access |= AccessFs::RemoveFile | AccessFs::MakeSock,
            Use::Write => {
                access |= AccessFs::RemoveFile
                    | AccessFs::RemoveDir
                    | AccessFs::WriteFile
                    | AccessFs::Truncate
                    | AccessFs::MakeReg
                    | AccessFs::MakeDir;
            }
        }
        if !path.is_dir() {
            access &= AccessFs::from_file(KNOWN);
        }
        *self.0.entry(path).or_default() |= access;
    }

    /// Restricts this thread and those it will start; true if only in part.
    fn restrict(&self) -> Outcome {
        let text = |e: landlock::RulesetError| e.to_string();
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(KNOWN))
            .and_then(Ruleset::create)
            .map_err(text)?;
        for (path, access) in &self.0 {
            // What went away since, or cannot be named (a pipe behind `/dev/stderr`), stays shut.
            if let Ok(fd) = PathFd::new(path) {
                ruleset = ruleset
                    .add_rule(PathBeneath::new(fd, *access))
                    .map_err(|e| format!("{}: {e}", path.display()))?;
            }
        }
        let status = ruleset.restrict_self().map_err(text)?;
        match (status.ruleset, status.landlock) {
            (RulesetStatus::FullyEnforced, _) => Ok(false),
            (RulesetStatus::PartiallyEnforced, _) => Ok(true),
            (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
                Err("Landlock is not enabled at boot (lsm=...,landlock)".to_owned())
            }
            (RulesetStatus::NotEnforced, _) => {
                Err("this kernel has no Landlock, or forbids its use".to_owned())
            }
        }
    }
}

/// What programs that are linked dynamically are run by. Source: ld.so(8), and that of musl.
fn dynamic_linkers() -> Vec<PathBuf> {
    let below = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let is_linker = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("ld-") || name.starts_with("ld64"))
    };
    let mut found = Vec::new();
    for dir in ["/lib64", "/lib", "/libexec"].map(Path::new) {
        for path in below(dir) {
            // As in /lib/x86_64-linux-gnu.
            let is_of_system = path.to_string_lossy().contains("-linux-");
            if is_of_system && path.is_dir() {
                found.extend(below(&path).into_iter().filter(is_linker));
            } else if is_linker(&path) {
                found.push(path);
            }
        }
    }
    found
}

/// Makes a directory that its user would make a moment later; that one reports what fails.
fn create(place: &Place) {
    if let Some(mode) = place.create_mode {
        let _ = DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&place.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: what is below a place with the same rights needs none of its own, what needs more does.
    #[test]
    fn what_is_below_is_covered() {
        let mut rules = Rules::default();
        rules.add(Path::new("/usr"), Use::Read);
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        assert!(rules.covers(Path::new("/usr/share"), read));
        assert!(rules.covers(Path::new("/usr"), AccessFs::ReadFile.into()));
        assert!(!rules.covers(Path::new("/usr/share"), read | AccessFs::RemoveFile));
        assert!(!rules.covers(Path::new("/usr2"), read));
    }

    /// Guarantee: a directory of logs that is deleted and made again stays readable, one that does
    /// not exist yet becomes readable, and no directory that everybody shares is opened for it.
    #[test]
    fn directories_of_logs_may_come_and_go() {
        let dir = tailwater_testkit::tempdir::TempDir::new("log-dirs").unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("app/logs")).unwrap();
        let logs = root.join("app/logs");
        assert_eq!(log_dirs(&logs), [root.join("app"), logs.clone()]);
        assert_eq!(log_dirs(&logs.join("later/still")), [logs]);
        assert_eq!(log_dirs(Path::new("/var/log")), [Path::new("/var/log")]);
        assert_eq!(log_dirs(Path::new("/tmp")), [Path::new("/tmp")]);
        assert_eq!(log_dirs(Path::new("/no-such-place/logs")), [Path::new("/")]);
    }
}
