//! The OpenTelemetry SDKs for Python and Node.js as senders: all signals, both protocols, every form and
//! compression that they have.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tailwater_tests::agent::free_port;
use tailwater_tests::rig::Rig;

/// Bodies that were posted, with their paths.
type Posted = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Takes requests of one connection and answers all of them with success.
fn take(stream: TcpStream, posted: &Posted) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let length = head.lines().find_map(|line| {
            let lower = line.to_ascii_lowercase();
            lower.strip_prefix("content-length: ")?.parse().ok()
        });
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body)?;
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        posted.lock().expect("no panic").push((path, body));
        let answer =
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
        stream.get_mut().write_all(answer.as_bytes())?;
    }
}

/// A server that answers everything with success; its threads end with the test.
fn sink() -> (u16, Posted) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let posted = Posted::default();
    let all = posted.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let posted = all.clone();
            // A broken connection shows as a missing body.
            std::thread::spawn(move || take(stream, &posted));
        }
    });
    (port, posted)
}

/// Starts an agent between `command`, which gets the ports of gRPC and HTTP, and a sink. Expects that each of
/// the `lines` that it prints, the name of a request and what came of it, is a success; that each request
/// goes on as it came, once; and that so many of each signal came by gRPC and by HTTP.
fn expect_understood(mut command: Command, lines: usize, counts: [f64; 2]) {
    let rig = Rig::new("otlp-sdk");
    let (grpc, http) = (free_port().expect("a port"), free_port().expect("a port"));
    let (port, posted) = sink();
    let at = |port: u16| json!({"endpoint": format!("127.0.0.1:{port}")});
    let pipeline = json!({"receivers": ["otlp"], "exporters": ["otlp_http"]});
    let config = json!({
        "receivers": {"otlp": {"protocols": {"grpc": at(grpc), "http": at(http)}}},
        "exporters": {"otlp_http": {
            "endpoint": format!("http://127.0.0.1:{port}"), "compression": "none",
        }},
        "service": {"pipelines": {"logs": pipeline, "metrics": pipeline, "traces": pipeline}},
    });
    let agent = rig.start(&config);
    let sent = command
        .args([grpc.to_string(), http.to_string()])
        .output()
        .expect("the sender runs");
    let text = String::from_utf8_lossy(&sent.stdout);
    let errors = String::from_utf8_lossy(&sent.stderr);
    assert!(sent.status.success(), "{text}\n{errors}\n{}", agent.log());
    let results: Vec<_> = text
        .lines()
        .map(|l| l.split_once(' ').expect("two words"))
        .collect();
    assert_eq!(results.len(), lines, "{text}");
    let posted = posted.lock().expect("no panic");
    for (name, result) in results {
        assert_eq!(result, "SUCCESS", "{name}: {errors}\n{}", agent.log());
        let signal = name.split('-').next().expect("a signal");
        let of_it = posted.iter().filter(|(path, _)| path.ends_with(signal));
        let copies = of_it
            .filter(|(_, body)| body.windows(name.len()).any(|w| w == name.as_bytes()))
            .count();
        assert_eq!(copies, 1, "{name}");
    }
    let scrape = agent.scrape();
    for metric in ["log_records", "metric_points", "spans"] {
        let metric = format!("otelcol_receiver_accepted_{metric}");
        let by = |transport| scrape.sum(&metric, &[("transport", transport)]);
        assert_eq!([by("grpc"), by("http")], counts, "{metric}");
    }
    agent.stop_clean();
}

/// Guarantee: whatever the SDK sends is a success for it, and goes on as it came: each record, data
/// point and span once.
#[test]
fn the_sdk_for_python_is_understood() {
    let Some(python) = std::env::var_os("TAILWATER_OTLP_PYTHON") else {
        println!(
            "SKIPPED: the OpenTelemetry SDK for Python as a sender: TAILWATER_OTLP_PYTHON names no \
             Python that has it"
        );
        return;
    };
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/otlp_sdk.py"));
    expect_understood(command, 15, [2.0, 3.0]);
}

/// Guarantee: the same, of the SDK for Node.js, which also sends JSON.
#[test]
fn the_sdk_for_node_is_understood() {
    let Some(modules) = std::env::var_os("TAILWATER_OTLP_NODE_MODULES") else {
        println!(
            "SKIPPED: the OpenTelemetry SDK for Node.js as a sender: TAILWATER_OTLP_NODE_MODULES names no \
             node_modules that have it"
        );
        return;
    };
    let mut command = Command::new("node");
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/otlp_sdk.cjs"))
        .env("NODE_PATH", modules);
    expect_understood(command, 18, [2.0, 4.0]);
}
