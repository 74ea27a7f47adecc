//! Attacks on the receiver of OTLP while files are written and tailed, and what tailing keeps of its rate.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::agent::{Agent, free_port};
use tailwater_tests::fault_row::Row;
use tailwater_tests::otlp_client::{HttpClient, log_json};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// Lines that are written per second, about 100 bytes each.
const LINES_PER_SECOND: u64 = 20_000;
/// How long tailing is watched while nobody attacks.
const CALM: Duration = Duration::from_secs(2);
/// An attack that is over earlier is watched for as long.
const WATCH_MIN: Duration = Duration::from_secs(1);
/// What tailing is to keep of its rate.
const KEPT_MIN: f64 = 0.9;

/// What an attack may add to the memory of the agent, by the defaults: 96 MiB that requests may hold
/// together (`in_flight_bytes_max` and half of it), and 64 KiB for each of 1,024 connections.
pub const ADDED_MAX: u64 = 160 << 20;

/// An agent that tails files and takes OTLP, a log that grows all the time, and the sink.
pub struct Target {
    /// Files, sink and judge.
    pub rig: Rig,
    /// The agent.
    pub agent: Agent,
    /// Its port of gRPC.
    pub grpc: u16,
    /// Its port of HTTP.
    pub http: u16,
    live: LiveWriter,
    calm: Pace,
    resident_calm: u64,
}

/// What was delivered in some time.
#[derive(Clone, Copy, Debug)]
struct Pace {
    lines_per_second: f64,
    /// By CPU time of all threads of the agent but those of the receiver of OTLP.
    lines_per_cpu_second: f64,
}

/// A moment of an agent that delivers.
struct Moment {
    at: Instant,
    lines: u64,
    cpu_seconds: f64,
}

impl Moment {
    fn now(rig: &Rig, agent: &Agent) -> Moment {
        Moment {
            at: Instant::now(),
            lines: rig.oracle.report().totals.delivered,
            cpu_seconds: cpu_of_tailing(agent.pid()),
        }
    }

    fn until(&self, end: &Moment) -> Pace {
        let lines = (end.lines - self.lines) as f64;
        Pace {
            lines_per_second: lines / (end.at - self.at).as_secs_f64(),
            lines_per_cpu_second: lines / (end.cpu_seconds - self.cpu_seconds).max(0.01),
        }
    }
}

/// CPU time of the threads that do not belong to the receiver of OTLP, in seconds.
fn cpu_of_tailing(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    let of_task = |task: io::Result<fs::DirEntry>| {
        // A thread may end meanwhile.
        let task = task.ok()?.path();
        if fs::read_to_string(task.join("comm"))
            .ok()?
            .starts_with("otlp")
        {
            return None;
        }
        // Source: Documentation/scheduler/sched-stats.rst of Linux: the first is ns on a CPU.
        let stat = fs::read_to_string(task.join("schedstat")).ok()?;
        stat.split(' ')
            .next()?
            .parse::<f64>()
            .ok()
            .map(|ns| ns / 1e9)
    };
    tasks.filter_map(of_task).sum()
}

impl Target {
    /// Starts everything and measures how tailing does; `change` is made to the configuration of the receiver.
    pub fn start(label: &str, change: impl FnOnce(&mut Value)) -> Target {
        allow_many_files();
        let rig = Rig::new(label);
        let mut config = rig.config();
        let (grpc, http) = (free_port().expect("a port"), free_port().expect("a port"));
        let at = |port: u16| json!({"endpoint": format!("127.0.0.1:{port}")});
        config["receivers"]["otlp"] = json!({"protocols": {"grpc": at(grpc), "http": at(http)}});
        change(&mut config["receivers"]["otlp"]);
        config["service"]["pipelines"]["logs"]["receivers"] = json!(["filelog", "otlp"]);
        let options = LiveOptions {
            lines_per_second: LINES_PER_SECOND,
            rotate_every_lines: Some(10 * LINES_PER_SECOND),
            lines_max: None,
        };
        let writer = rig.writer(1, "app.log", |_| {});
        let agent = rig.start(&config);
        let live = LiveWriter::start(writer, options).expect("a thread");
        let begun = || rig.oracle.report().totals.delivered > LINES_PER_SECOND / 2;
        assert!(wait::within(wait::BOUND, begun), "{}", tail(&agent.log()));
        let begin = Moment::now(&rig, &agent);
        wait::let_pass(CALM);
        let calm = begin.until(&Moment::now(&rig, &agent));
        let resident_calm = agent.resident_bytes();
        Target {
            rig,
            agent,
            grpc,
            http,
            live,
            calm,
            resident_calm,
        }
    }

    /// Does `attack` and records in `row` what tailing kept of its rate meanwhile.
    pub fn under<T>(&self, row: &mut Row, attack: impl FnOnce(&Target) -> T) -> T {
        let begin = Moment::now(&self.rig, &self.agent);
        let done = attack(self);
        wait::let_pass(WATCH_MIN.saturating_sub(begin.at.elapsed()));
        let pace = begin.until(&Moment::now(&self.rig, &self.agent));
        let kept = pace.lines_per_second / self.calm.lines_per_second;
        row.held(
            kept >= KEPT_MIN,
            format!(
                "tailing kept {:.0} % of {:.0} lines/s ({:.0} % by its own CPU time)",
                100.0 * kept,
                self.calm.lines_per_second,
                100.0 * pace.lines_per_cpu_second / self.calm.lines_per_cpu_second,
            ),
        );
        done
    }

    /// Bytes of resident memory that were added to those of before the attack, at most.
    pub fn added_bytes(&self) -> u64 {
        let peak = self.agent.resident_bytes_peak();
        peak.saturating_sub(self.resident_calm)
    }

    /// A connection to the port of HTTP.
    pub fn client(&self) -> HttpClient {
        HttpClient::connect(self.http).expect("it listens")
    }

    /// Expects that an honest sender is heard, within a bound.
    pub fn expect_heard(&self) {
        let body = log_json("an honest line");
        let heard = || {
            let answer =
                self.client()
                    .post("/v1/logs", "application/json", "identity", body.as_bytes());
            answer.is_ok_and(|a| a.status == 200)
        };
        let heard = wait::within(wait::BOUND, heard);
        assert!(heard, "{}", tail(&self.agent.log()));
    }

    /// Expects that nothing is left of an attack: no request, no byte of one.
    pub fn expect_clean(&self) {
        let clean = || {
            let scrape = self.agent.scrape();
            let requests = scrape.sum("tailwater_receiver_requests_in_flight", &[]);
            let bytes = scrape.sum("tailwater_receiver_incoming_bytes", &[]);
            (requests, bytes) == (0.0, 0.0)
        };
        let clean = wait::within(wait::BOUND, clean);
        assert!(clean, "{}", tail(&self.agent.log()));
    }

    /// Ends it: each line that was written is there once, and so are those of honest senders.
    pub fn finish(self, row: &mut Row) {
        self.expect_heard();
        self.expect_clean();
        self.live.stop().expect("written");
        self.rig.wait_delivered(&self.agent);
        let faults = self.agent.scrape().faults();
        assert!(faults.is_empty(), "{faults:?}\n{}", tail(&self.agent.log()));
        self.agent.stop_clean();
        let totals = self.rig.oracle.report().totals;
        let wrong = totals.missing + totals.duplicates_after_dedup + totals.corrupt;
        assert_eq!(wrong, 0, "{}", self.rig.summary());
        let honest = self.rig.loki.streams(DEFAULT_TENANT).iter().any(|labels| {
            let entries = self.rig.loki.entries(DEFAULT_TENANT, labels);
            entries.iter().any(|e| e.line == b"an honest line"[..])
        });
        assert!(honest, "an honest sender's line is not there");
        row.reached(format!("0 of {} lines lost", totals.written));
    }
}

/// A test that holds more connections than a shell allows by default.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it is not allowed, connecting fails and says so.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// A connection that speaks raw bytes and does not wait for long.
pub fn raw(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    Ok(stream)
}

/// Whether the other side has closed a connection; what it sent is thrown away.
pub fn is_closed(mut stream: &TcpStream) -> bool {
    let mut sink = [0; 4096];
    stream.set_nonblocking(true).expect("a socket");
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return e.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// HTTP/2 by hand. Source: RFC 9113 (frames), RFC 7541 (heads).
pub mod http2 {
    use super::{TcpStream, Write, io, raw};

    /// Frame types.
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const CONTINUATION: u8 = 9;
    /// Flags.
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;

    /// A frame.
    pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
        let mut out = length[1..].to_vec();
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend(payload);
        out
    }

    /// A head of a call of gRPC that exports logs: nothing indexed but by the static table.
    pub fn head() -> Vec<u8> {
        // :method POST, :scheme http.
        let mut out = vec![0x83, 0x86];
        let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
        for (name, value) in [
            (":path", path),
            (":authority", "a"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            literal(&mut out, name.as_bytes(), value.as_bytes());
        }
        out
    }

    /// A header that is written out. At most 126 bytes each.
    pub fn literal(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        out.push(0);
        for text in [name, value] {
            out.push(u8::try_from(text.len()).expect("short"));
            out.extend(text);
        }
    }

    /// A connection that has said hello.
    pub fn connect(port: u16) -> io::Result<TcpStream> {
        let mut stream = raw(port)?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
        Ok(stream)
    }
}
