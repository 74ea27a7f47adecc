//! Syslog into the real binary: senders as there are, outages, changes and stops.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_tests::agent::{Agent, free_port};
use tailwater_tests::rig::Rig;
use tailwater_tests::tls::certificate;
use tailwater_tests::wait;

/// A rig whose agents take syslog at two ports.
struct Syslog {
    rig: Rig,
    config: Value,
    tcp: u16,
    udp: u16,
}

impl Syslog {
    /// From syslog to the sink of the rig; what is found in messages becomes labels.
    fn new(label: &str, protocol: &str) -> Syslog {
        let rig = Rig::new(label);
        let mut config = rig.config();
        let (tcp, udp) = (free_port().expect("a port"), free_port().expect("a port"));
        config["receivers"] = json!({"syslog": {
            "tcp": {"listen_address": format!("127.0.0.1:{tcp}")},
            "udp": {"listen_address": format!("127.0.0.1:{udp}")},
            "protocol": protocol,
        }});
        config["exporters"]["loki"]["labels"] = json!({
            "static": {"job": "e2e"},
            "attributes": {"app": "appname", "facility": "facility_text", "host": "hostname"},
            "severity": "level",
        });
        config["service"]["pipelines"]["logs"]["receivers"] = json!(["syslog"]);
        Syslog {
            rig,
            config,
            tcp,
            udp,
        }
    }

    fn start(&self) -> Agent {
        self.rig.start(&self.config)
    }

    /// How often the sink has each line, and the labels of those with it.
    fn lines(&self) -> BTreeMap<String, (usize, String)> {
        let mut lines = BTreeMap::new();
        for labels in self.rig.loki.streams(DEFAULT_TENANT) {
            for entry in self.rig.loki.entries(DEFAULT_TENANT, &labels) {
                let line = String::from_utf8_lossy(&entry.line).into_owned();
                let known = lines.entry(line).or_insert((0, format!("{labels:?}")));
                known.0 += 1;
            }
        }
        lines
    }

    /// Waits until the sink has so many lines, each once.
    fn expect_once(&self, agent: &Agent, lines: usize) {
        let there = wait::within(wait::BOUND, || self.lines().len() >= lines);
        let found = self.lines();
        assert!(there, "{} of {lines}\n{}", found.len(), agent.log());
        let twice: Vec<_> = found.iter().filter(|(_, (n, _))| *n != 1).collect();
        assert!(found.len() == lines && twice.is_empty(), "{twice:?}");
    }

    /// Runs a sender to its end.
    fn run(&self, command: &mut Command) {
        let out = command.output().expect("it runs");
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }

    fn python(&self, way: &str, port: u16, count: usize) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/syslog_sender.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(way);
        command.args([port.to_string(), count.to_string()]);
        command
    }
}

/// A message of RFC 5424 with a number.
fn message(way: &str, n: usize) -> String {
    format!("<134>1 2026-01-02T03:04:05.{n:06}Z host app - - - {way}-{n}")
}

/// Guarantee: what Python's SysLogHandler and util-linux's logger send arrives, each message once, taken apart,
/// over UDP and TCP.
#[test]
fn messages_of_python_and_logger_arrive() {
    let syslog = Syslog::new("syslog-senders", "rfc3164");
    let agent = syslog.start();
    // So many fit what the kernel keeps, whoever is busy.
    syslog.run(&mut syslog.python("udp", syslog.udp, 200));
    syslog.run(&mut syslog.python("tcp", syslog.tcp, 300));
    let logger = |args: &[&str], port: u16, text: &str| {
        let port = port.to_string();
        let mut command = Command::new("logger");
        command.args(["--server", "127.0.0.1", "--port", &port, "--tag", "logger"]);
        command.args(args).args(["-p", "mail.err", text]);
        syslog.run(&mut command);
    };
    logger(&["--udp", "--rfc3164"], syslog.udp, "of logger by udp");
    logger(&["--tcp", "--rfc3164"], syslog.tcp, "of logger by tcp");
    syslog.expect_once(&agent, 502);
    let lines = syslog.lines();
    let labels_of = |text: &str| {
        let found = lines.iter().find(|(line, _)| line.contains(text));
        let (line, (_, labels)) = found.unwrap_or_else(|| panic!("no {text}: {lines:?}"));
        assert!(line.starts_with('<') && !line.ends_with('\n'), "{line:?}");
        labels.clone()
    };
    for (text, labels) in [
        ("app: udp-7", ["app", "python", "local0", "warn"]),
        ("app: tcp-299", ["app", "python", "local0", "warn"]),
        ("of logger by udp", ["logger", "mail", "err", "host"]),
        ("of logger by tcp", ["logger", "mail", "err", "host"]),
    ] {
        let found = labels_of(text);
        for label in labels {
            assert!(found.contains(label), "{text}: no {label} in {found}");
        }
    }
    let account = agent.scrape().account("receiver");
    assert_eq!((account.read, account.delivered), (502.0, 502.0));
    assert_eq!(account.unexplained(), 0.0);
    agent.stop_clean();
}

/// Guarantee: logger's messages of RFC 5424 with their length before them arrive, with structured data, and so
/// do those over TLS of a client with a certificate; one without gets nothing in.
#[test]
fn counted_messages_and_tls_arrive() {
    let mut syslog = Syslog::new("syslog-counted", "rfc5424");
    let receiver = &mut syslog.config["receivers"]["syslog"];
    receiver["enable_octet_counting"] = json!(true);
    receiver.as_object_mut().expect("a map").remove("udp");
    let agent = syslog.start();
    let port = syslog.tcp.to_string();
    for n in 0..20 {
        let mut command = Command::new("logger");
        command.args(["--server", "127.0.0.1", "--port", &port, "--tcp"]);
        command.args(["--octet-count", "--rfc5424", "--tag", "counted"]);
        command.args([
            "--sd-id",
            "id@1",
            "--sd-param",
            "k=\"v\"",
            "-p",
            "user.info",
        ]);
        syslog.run(command.arg(format!("line {n}\nof two {n}")));
    }
    let lines = || syslog.lines();
    let parsed = || {
        let lines = lines();
        lines
            .values()
            .filter(|(_, l)| l.contains("counted"))
            .count()
    };
    assert!(
        wait::within(wait::BOUND, || parsed() >= 20),
        "{:?}\n{}",
        lines(),
        agent.log()
    );
    agent.stop_clean();

    let mut syslog = Syslog::new("syslog-tls", "rfc3164");
    syslog.config["receivers"]["syslog"]["tcp"]["tls"] = json!({
        "cert_file": certificate("server1.pem"), "key_file": certificate("server1.key"),
        "client_ca_file": certificate("ca1.pem"),
    });
    let agent = syslog.start();
    let mut command = syslog.python("tls", syslog.tcp, 100);
    let files = ["ca1.pem", "client1.pem", "client1.key"].map(certificate);
    syslog.run(command.args(files));
    let mut plain = TcpStream::connect(("127.0.0.1", syslog.tcp)).expect("it listens");
    // It is closed, sooner or later.
    let _ = plain.write_all(b"<13>Oct 11 22:14:15 plain app: nothing\n");
    syslog.expect_once(&agent, 100);
    assert!(syslog.lines().keys().all(|line| line.contains("app: tls-")));
    agent.stop_clean();
}

/// Guarantee: while the destination is away senders over TCP wait, and then everything arrives once; datagrams
/// for which there is no room are counted, and what is read is delivered or dropped, exactly.
#[test]
fn an_outage_is_waited_for_or_counted() {
    let mut syslog = Syslog::new("syslog-outage", "rfc5424");
    syslog.config["receivers"]["syslog"]["limits"] = json!({"in_flight_bytes_max": "1MiB"});
    let agent = syslog.start();
    syslog.rig.loki.set_reach(Reach::Refused).expect("closed");
    let count = 60_000;
    let port = syslog.tcp;
    let sender = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        let padding = "x".repeat(200);
        for n in 0..count {
            let line = message("tcp", n) + " " + &padding + "\n";
            stream.write_all(line.as_bytes()).expect("sent");
        }
    });
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a port");
    datagrams
        .connect(("127.0.0.1", syslog.udp))
        .expect("it is there");
    let mut sent = 0;
    let no_room = || {
        let scrape = agent.scrape();
        let labels = [("kind", "receiver"), ("reason", "no_room")];
        scrape.sum("tailwater_records_dropped", &labels)
    };
    let dropped = wait::within(wait::BOUND, || {
        for _ in 0..100 {
            datagrams
                .send(message("udp", sent).as_bytes())
                .expect("sent");
            sent += 1;
        }
        no_room() > 100.0
    });
    assert!(dropped, "{}", agent.log());
    assert!(!sender.is_finished(), "there was room for all of it");
    syslog.rig.loki.set_reach(Reach::Up).expect("open");
    sender.join().expect("sent");
    let expected = |read: f64| count as f64 + sent as f64 - read;
    let settled = wait::within(wait::BOUND, || {
        let account = agent.scrape().account("receiver");
        // What the kernel dropped was never read.
        expected(account.read) >= 0.0 && account.in_flight == 0.0 && {
            let lines = syslog.lines();
            lines.keys().filter(|l| l.contains(" tcp-")).count() == count
        }
    });
    let account = agent.scrape().account("receiver");
    assert!(settled, "{account:?}\n{}", agent.log());
    assert_eq!(account.unexplained(), 0.0);
    assert_eq!(account.read, account.delivered + no_room(), "{account:?}");
    let lines = syslog.lines();
    assert_eq!(lines.len() as f64, account.delivered);
    assert!(lines.values().all(|(n, _)| *n == 1));
    agent.stop_clean();
}

/// Guarantee: changes of the receiver while senders send, over TCP and UDP, lose nothing and show nothing
/// twice; connections stay open.
#[test]
fn changes_lose_nothing() {
    let mut syslog = Syslog::new("syslog-reload", "rfc5424");
    // Each change is waited for by what the log says of it.
    syslog.config["service"]["telemetry"]["logs"] =
        json!({"level": "info", "sampling": {"enabled": false}});
    let agent = syslog.start();
    let ended = Arc::new(AtomicBool::new(false));
    let (tcp, udp) = (syslog.tcp, syslog.udp);
    let over_tcp = std::thread::spawn({
        let ended = ended.clone();
        move || {
            let mut stream = TcpStream::connect(("127.0.0.1", tcp)).expect("it listens");
            let mut sent = 0;
            let mut rest = Vec::new();
            while !ended.load(Ordering::SeqCst) {
                // Writes end in the middle of messages.
                rest.extend_from_slice((message("tcp", sent) + "\n").as_bytes());
                let now = rest.len() - sent % 20;
                stream.write_all(&rest[..now]).expect("it is open");
                rest.drain(..now);
                sent += 1;
                wait::let_pass(Duration::from_micros(200));
            }
            stream.write_all(&rest).expect("it is open");
            sent
        }
    });
    let over_udp = std::thread::spawn({
        let ended = ended.clone();
        move || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            socket.connect(("127.0.0.1", udp)).expect("it is there");
            let mut sent = 0;
            while !ended.load(Ordering::SeqCst) {
                socket.send(message("udp", sent).as_bytes()).expect("sent");
                sent += 1;
                wait::let_pass(Duration::from_millis(5));
            }
            sent
        }
    });
    for n in 0..12 {
        let exporters = match n % 3 {
            2 => json!(["loki", "debug"]),
            _ => json!(["loki"]),
        };
        syslog.config["exporters"]["debug"] = json!({"verbosity": "basic"});
        syslog.config["service"]["pipelines"]["logs"]["exporters"] = exporters;
        let receiver = &mut syslog.config["receivers"]["syslog"];
        receiver["attributes"] = json!({"change": n.to_string()});
        receiver["tcp"]["add_attributes"] = json!(n % 2 == 0);
        assert!(agent.reload(&syslog.config), "{n}: {}", agent.log());
    }
    ended.store(true, Ordering::SeqCst);
    let sent = over_tcp.join().expect("no panic") + over_udp.join().expect("no panic");
    syslog.expect_once(&agent, sent);
    assert!(sent > 100);
    agent.stop_clean();
}

/// Guarantee: what was sent before a stop is delivered by it, an unfinished message included.
#[test]
fn a_stop_delivers_what_has_come() {
    let syslog = Syslog::new("syslog-stop", "rfc5424");
    let agent = syslog.start();
    let mut stream = TcpStream::connect(("127.0.0.1", syslog.tcp)).expect("it listens");
    for n in 0..1000 {
        let end = if n == 999 { "" } else { "\n" };
        let line = message("tcp", n) + end;
        stream.write_all(line.as_bytes()).expect("sent");
    }
    let accepted = || {
        let open = agent.scrape();
        open.sum("tailwater_receiver_connections", &[("transport", "tcp")]) == 1.0
    };
    assert!(wait::within(wait::BOUND, accepted));
    agent.stop_clean();
    let lines = syslog.lines();
    assert_eq!(lines.len(), 1000);
}
