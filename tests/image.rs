//! The image of `deploy/docker/Dockerfile`, built and run by a real Docker Engine from a static binary that is there:
//! `TAILWATER_IMAGE_BIN` names it. `cargo xtask image` makes one and runs this.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tailwater_tests::docker::Engine;
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

/// The user that it runs as, and its group.
const USER: &str = "65532:65532";

fn binary() -> PathBuf {
    let named = std::env::var_os("TAILWATER_IMAGE_BIN");
    named
        .map(PathBuf::from)
        .expect("TAILWATER_IMAGE_BIN names a static binary")
}

/// An image that has what the first stage of the Dockerfile would have built.
fn import(engine: &Engine, dir: &Path) {
    let archive = dir.join("built.tar");
    let mut tar = tar::Builder::new(fs::File::create(&archive).expect("a file"));
    let mut add = |name: &str, mode: u32, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        tar.append_data(&mut header, name, bytes).expect("written");
    };
    for dir in ["out/", "out/etc/", "out/etc/ssl/", "out/etc/ssl/certs/"] {
        add(dir, 0o755, b"");
    }
    for dir in ["out/var/", "out/var/lib/", "out/var/lib/tailwater/"] {
        add(dir, 0o755, b"");
    }
    let certificates = fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
    add(
        "out/etc/ssl/certs/ca-certificates.crt",
        0o644,
        &certificates,
    );
    add(
        "out/tailwater",
        0o755,
        &fs::read(binary()).expect("a binary"),
    );
    tar.finish().expect("written");
    engine.docker(&["import", &archive.display().to_string(), "tailwater-built"]);
}

/// Builds what the Dockerfile has behind its first stage, which nobody can build without a registry. The builder without
/// BuildKit, which every Engine has, would want that one, too.
fn build(engine: &Engine, dir: &Path) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/docker/Dockerfile");
    let text = fs::read_to_string(file).expect("the Dockerfile");
    let behind = text.find("FROM ${BUILT} AS built").expect("the stage");
    let context = dir.join("context");
    fs::create_dir(&context).expect("a directory");
    let text = format!("ARG BUILT\n{}", &text[behind..]);
    fs::write(context.join("Dockerfile"), text).expect("a file");
    let host = format!("unix://{}", engine.socket().display());
    let out = Command::new("docker")
        .args(["build", "--build-arg", "BUILT=tailwater-built"])
        .args(["--tag", "tailwater:test"])
        .arg(&context)
        .env("DOCKER_HOST", host)
        .env("DOCKER_BUILDKIT", "0")
        .output()
        .expect("docker");
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
}

/// Guarantees that the image has a static binary, and that it runs without root, rights and a file system to write to but its
/// volume: it reads a log directory of the host, delivers, ends with code 0 on SIGTERM, and goes on where it was.
#[test]
fn the_image_runs_without_root_and_goes_on_where_it_was() {
    let engine = match Engine::start() {
        Ok(engine) => engine,
        Err(why) => {
            println!("SKIPPED: the image: {why}");
            return;
        }
    };
    let rig = Rig::new("image");
    import(&engine, &rig.path(""));
    build(&engine, &rig.path(""));
    let size = [
        "image",
        "inspect",
        "--format",
        "{{.Size}}",
        "tailwater:test",
    ];
    let size: f64 = engine.docker(&size).parse().expect("a number");
    println!("the image has {:.1} MB", size / 1e6);
    let none = ["run", "--rm", "--network", "none"];
    let version = engine.docker(&[&none[..], &["tailwater:test", "--version"]].concat());
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");

    let mut config = rig.config();
    config["receivers"]["filelog"]["include"] = json!(["/logs/*.log"]);
    config["service"]["telemetry"]["metrics"]["level"] = json!("none");
    let conf = rig.path("conf");
    fs::create_dir(&conf).expect("a directory");
    fs::write(conf.join("agent.yaml"), config.to_string()).expect("a file");
    // The user of the container is none of this machine.
    for path in [&conf, &rig.logs("")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its own");
    }
    let mut writer = rig.writer(1, "a.log", |_| {});
    writer.write_lines(500).expect("written");
    let mount = |from: &Path, to: &str| format!("{}:{to}:ro", from.display());
    let (logs, conf) = (
        mount(&rig.logs(""), "/logs"),
        mount(&conf, "/etc/tailwater"),
    );
    // The endpoint is at a port of this machine's loopback interface.
    let run = [
        "run",
        "--detach",
        "--name",
        "agent",
        "--network",
        "host",
        "--user",
        USER,
        "--read-only",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--volume",
        &logs,
        "--volume",
        &conf,
        "--volume",
        "positions:/var/lib/tailwater",
        "tailwater:test",
    ];
    engine.docker(&run);
    let shown = || engine.docker(&["logs", "agent"]);
    let delivered = || wait::within(wait::BOUND, || rig.oracle.is_complete());
    assert!(delivered(), "{}\n{}", rig.summary(), shown());
    let pid = engine.docker(&["inspect", "--format", "{{.State.Pid}}", "agent"]);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = |key: &str| status.lines().find(|l| l.starts_with(key)).expect("a line");
    assert_eq!(line("Uid:").split_whitespace().nth(1), Some("65532"));
    assert_eq!(
        line("CapEff:").split_whitespace().nth(1),
        Some("0000000000000000")
    );
    for _ in 0..2 {
        engine.docker(&["stop", "--time", "30", "agent"]);
        let code = engine.docker(&["inspect", "--format", "{{.State.ExitCode}}", "agent"]);
        assert_eq!(code, "0", "{}", shown());
        writer.write_lines(500).expect("written");
        engine.docker(&["start", "agent"]);
        assert!(delivered(), "{}\n{}", rig.summary(), shown());
    }
    engine.docker(&["rm", "--force", "agent"]);
    assert_eq!(rig.assert_faultless().totals.written, 1_500);
    // Nothing was sent again after a stop.
    assert_eq!(rig.loki.stats().entries_accepted, 1_500);
}
