//! What is known of who sent data, in the headers of what is sent on, and the pages about what runs; with the
//! real binary.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use tailwater_testkit::otlp::{Answer, OtlpStandIn};
use tailwater_tests::agent::free_addr;
use tailwater_tests::otlp_client::log_json;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// The answer to a request, as text.
fn ask(to: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(wait::BOUND)).expect("a time");
    let length = body.len();
    let request =
        format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is text");
    answer
}

fn post(to: SocketAddr, tenant: Option<&str>, body: &str) -> String {
    let header = tenant.map_or_else(String::new, |t| format!("\r\nX-Tenant: {t}"));
    let head = format!("POST /v1/logs HTTP/1.1\r\nContent-Type: application/json{header}");
    ask(to, &head, &log_json(body))
}

fn config(receive: SocketAddr, pages: SocketAddr, exporter: &str, to: &OtlpStandIn) -> Value {
    let mut own = match exporter {
        "otlp_http" => json!({"endpoint": to.http_url()}),
        _ => json!({"endpoint": to.grpc_addr().to_string(), "tls": {"insecure": true}}),
    };
    own["auth"] = json!({"authenticator": "headers_setter"});
    own["headers"] = json!({"X-Fixed": "exporter", "X-Gone": "exporter"});
    own["retry_on_failure"] = json!({"initial_interval": "20ms", "max_interval": "100ms"});
    own["sending_queue"] = json!({"storage": "file_storage"});
    json!({
        "extensions": {
            "headers_setter": {
                "headers": [
                    {"key": "X-Scope-OrgID", "from_context": "x-tenant", "default_value": "nobody"},
                    {"key": "X-Fixed", "action": "update", "value": "setter"},
                    {"key": "X-Gone", "action": "delete"},
                ],
                "additional_auth": "bearertokenauth",
            },
            "bearertokenauth": {"token": "t0ken"},
            "file_storage": {"directory": "DIRECTORY", "create_directory": true},
            "zpages": {"endpoint": pages.to_string()},
        },
        "receivers": {
            "otlp": {"protocols": {"http": {"endpoint": receive.to_string(), "include_metadata": true}}},
            "nop": null,
        },
        "processors": {"batch": {"timeout": "300ms"}},
        "exporters": {exporter: own, "nop": null},
        "service": {
            "extensions": ["headers_setter", "bearertokenauth", "file_storage", "zpages"],
            "pipelines": {
                "logs": {"receivers": ["otlp"], "processors": ["batch"], "exporters": [exporter]},
                "traces": {"receivers": ["nop"], "exporters": ["nop"]},
            },
        },
    })
}

/// Guarantees that data of clients that were put into one batch leaves in requests of their own, each with the
/// header of its client, also out of a queue on disk and after a kill; and that nothing else of them is sent.
#[test]
fn each_request_has_the_header_of_its_client() {
    for exporter in ["otlp_http", "otlp_grpc"] {
        let rig = Rig::new("client-headers");
        let backend = OtlpStandIn::start(None).expect("free ports");
        backend.set_answer(Answer::unavailable());
        let (receive, pages) = (free_addr(), free_addr());
        let mut config = config(receive, pages, exporter, &backend);
        config["extensions"]["file_storage"]["directory"] = json!(rig.path("storage"));
        let agent = rig.start(&config);
        std::thread::scope(|s| {
            for tenant in [Some("a"), Some("b"), Some("a"), None] {
                s.spawn(move || {
                    let text = format!("text of {}.", tenant.unwrap_or("nobody"));
                    let answer = post(receive, tenant, &text);
                    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                });
            }
        });
        agent.kill();
        backend.set_answer(Answer::Accept);
        let agent = rig.start(&config);
        let accepted = || -> Vec<_> {
            let all = backend.records().into_iter();
            all.filter(|r| r.accepted).collect()
        };
        let all = || accepted().iter().map(|r| r.items).sum::<u64>() == 4;
        assert!(wait::within(wait::BOUND, all), "{}", tail(&agent.log()));
        let mut seen = BTreeSet::new();
        for record in accepted() {
            let of = |name| record.header(name).map(str::to_owned);
            assert_eq!(of("x-fixed").as_deref(), Some("setter"));
            assert_eq!(of("x-gone"), None);
            assert_eq!(of("authorization").as_deref(), Some("Bearer t0ken"));
            let carried = record.headers.iter();
            let carried = carried.filter(|(name, _)| name.contains("tailwater"));
            assert_eq!(carried.count(), 0, "{:?}", record.headers);
            let tenant = of("x-scope-orgid").expect("it is set");
            let body = String::from_utf8_lossy(&record.body).into_owned();
            for of in ["a", "b", "nobody"] {
                let there = body.contains(&format!("text of {of}."));
                assert_eq!(there, of == tenant, "{tenant}: {body}");
            }
            seen.insert(tenant);
        }
        let expect = ["a", "b", "nobody"].map(str::to_owned);
        assert_eq!(seen, BTreeSet::from(expect));
        agent.stop_clean();
    }
}

/// Guarantees that the pages show what runs.
#[test]
fn pages_show_what_runs() {
    let rig = Rig::new("zpages");
    let backend = OtlpStandIn::start(None).expect("free ports");
    let (receive, pages) = (free_addr(), free_addr());
    let mut config = config(receive, pages, "otlp_http", &backend);
    config["extensions"]["file_storage"]["directory"] = json!(rig.path("storage"));
    let agent = rig.start(&config);
    for (path, status, expect) in [
        (
            "/debug/pipelinez",
            "200",
            "<td>traces</td><td>traces</td><td>nop</td><td></td><td>nop</td>",
        ),
        ("/debug/extensionz", "200", "<td>headers_setter</td>"),
        ("/debug/servicez", "200", "tailwater"),
        ("/debug/tracez", "200", "records no spans"),
        ("/debug/featurez", "200", "no feature gates"),
        ("/debug/expvarz", "404", ""),
    ] {
        let answer = ask(pages, &format!("GET {path} HTTP/1.1"), "");
        let begin = format!("HTTP/1.1 {status}");
        assert!(
            answer.starts_with(&begin) && answer.contains(expect),
            "{path}: {answer}"
        );
    }
    agent.stop_clean();
}
