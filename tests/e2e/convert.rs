//! A configuration of Promtail, converted and run: the labels, lines, times and metadata that come to Loki are
//! those that Promtail would send.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::json;
use tailwater_testkit::loki::DEFAULT_TENANT;
use tailwater_testkit::time::system_unix_nanos;
use tailwater_tests::agent::{Agent, run_once};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// What came: by stream, each line with its metadata.
type Came = BTreeMap<String, Vec<(String, Vec<(String, String)>)>>;

fn came(rig: &Rig, tenant: &str) -> Came {
    let mut all = Came::new();
    for labels in rig.loki.streams(tenant) {
        for entry in rig.loki.entries(tenant, &labels) {
            let line = String::from_utf8_lossy(&entry.line).into_owned();
            let metadata = entry.metadata.clone();
            all.entry(labels.clone())
                .or_default()
                .push((line, metadata));
        }
    }
    all
}

fn lines(all: &Came) -> usize {
    all.values().map(Vec::len).sum()
}

/// Converts `text`, and starts an agent with what was written.
fn start(rig: &Rig, from: &str, text: &str) -> Agent {
    let (theirs, ours) = (rig.path(&format!("theirs.{from}")), rig.path("ours.yaml"));
    fs::write(&theirs, text).expect("a file");
    let paths = [theirs.display().to_string(), ours.display().to_string()];
    let args = ["convert", "--from", from, &paths[0], "--output", &paths[1]];
    let out = run_once(&args, &rig.state()).expect("it runs");
    assert!(out.status.success(), "{out:?}");
    // Its configuration comes after one that says only where metrics are served.
    let with = |mut command: Command| {
        command.arg("--config").arg(&ours);
        command
    };
    let agent = Agent::spawn_by(&json!({}), &rig.state(), &rig.path("run"), with);
    let mut agent = agent.expect("it starts");
    agent.expect_ready();
    agent
}

/// Guarantees that stages do to lines, labels, times and tenants what they do in Promtail.
#[test]
fn a_job_of_promtail_sends_what_promtail_sends() {
    let rig = Rig::new("convert-promtail");
    rig.loki.set_behaviour(|b| b.auth_enabled = true);
    let (app, api) = (rig.logs("app.log"), rig.logs("api.json"));
    let second = system_unix_nanos() / 1_000_000_000 - 60;
    fs::write(
        &app,
        "2026-01-02 INFO [main] hello\n  and more\n2026-01-02 DEBUG [main] noise\n\
         2026-01-02 WARN [pay] card secret=42 ok\nno level at all\n2026-01-02 INFO [health] ping\n",
    )
    .expect("a file");
    fs::write(
        &api,
        format!(
            "{{\"level\":\"error\",\"ts\":{second},\"user\":{{\"name\":\"anna\"}},\"team\":\"t1\",\"msg\":\"boom\"}}\n\
             {{\"level\":\"info\",\"user\":{{}},\"msg\":\"fine\"}}\nno json\n"
        ),
    )
    .expect("a file");
    let url = rig.loki.push_url();
    let text = format!(
        r#"
clients:
  - url: {url}
    tenant_id: t0
    batchwait: 100ms
    external_labels: {{cluster: c1}}
scrape_configs:
  - job_name: app
    static_configs:
      - targets: [localhost]
        labels: {{job: app, env: prod, __path__: {app} }}
    relabel_configs:
      - {{source_labels: [job, env], separator: '-', target_label: instance}}
      - {{action: labeldrop, regex: env}}
    pipeline_stages:
      - multiline: {{firstline: '^(\d|no )', max_wait_time: 500ms}}
      - regex: {{expression: '^\S+ (?P<level>[A-Z]+) \[(?P<thread>\w+)\] (?P<msg>(?s:.*))$'}}
      - template: {{source: level, template: '{{{{ ToLower .Value }}}}'}}
      - labels: {{level: }}
      - match: {{selector: '{{level="debug"}}', action: drop}}
      - drop: {{source: thread, value: health}}
      - match:
          selector: '{{job="app"}} |= "secret"'
          stages:
            - replace: {{expression: '(secret=\d+)', replace: 'secret=***'}}
            - static_labels: {{redacted: 'yes'}}
  - job_name: api
    static_configs:
      - targets: [localhost]
        labels: {{job: api, __path__: {api} }}
    pipeline_stages:
      - json: {{expressions: {{level: , who: user.name, msg: , ts: , team: }}}}
      - timestamp: {{source: ts, format: Unix, action_on_failure: skip}}
      - labels: {{level: }}
      - structured_metadata: {{who: }}
      - tenant: {{source: team}}
      - labeldrop: [filename]
      - output: {{source: msg}}
"#,
        app = app.display(),
        api = api.display(),
    );
    let agent = start(&rig, "promtail", &text);
    let all = || lines(&came(&rig, "t0")) >= 5 && lines(&came(&rig, "t1")) >= 1;
    assert!(
        wait::within(wait::BOUND, all),
        "{:?}\n{}",
        came(&rig, "t0"),
        tail(&agent.log())
    );
    agent.stop_clean();
    let app = app.display();
    let plain = |line: &str| vec![(line.to_owned(), Vec::new())];
    let common = format!("cluster=\"c1\", filename=\"{app}\", instance=\"app-prod\", job=\"app\"");
    let expect = Came::from([
        (
            format!("{{{common}, level=\"info\"}}"),
            plain("2026-01-02 INFO [main] hello\n  and more"),
        ),
        (
            format!("{{{common}, level=\"warn\", redacted=\"yes\"}}"),
            plain("2026-01-02 WARN [pay] card secret=*** ok"),
        ),
        (format!("{{{common}}}"), plain("no level at all")),
        (
            "{cluster=\"c1\", job=\"api\", level=\"info\"}".to_owned(),
            plain("fine"),
        ),
        ("{cluster=\"c1\", job=\"api\"}".to_owned(), plain("no json")),
    ]);
    assert_eq!(came(&rig, "t0"), expect);
    let anna = vec![("who".to_owned(), "anna".to_owned())];
    let labels = "{cluster=\"c1\", job=\"api\", level=\"error\"}";
    let expect = Came::from([(labels.to_owned(), vec![("boom".to_owned(), anna)])]);
    assert_eq!(came(&rig, "t1"), expect);
    let times = rig.loki.entries("t1", labels);
    let times: Vec<i64> = times.iter().map(|e| e.ts_ns).collect();
    assert_eq!(times, [second * 1_000_000_000]);
}

/// Guarantees that records of Fluent Bit come to Loki as its output would send them.
#[test]
fn an_input_of_fluent_bit_sends_what_fluent_bit_sends() {
    let rig = Rig::new("convert-fluent-bit");
    let log = rig.logs("app.log");
    fs::write(
        &log,
        "{\"level\":\"info\",\"msg\":\"a\",\"pid\":7}\n{\"level\":\"debug\",\"msg\":\"b\"}\nplain text\n",
    )
    .expect("a file");
    let address = rig.loki.addr();
    let text = format!(
        "[INPUT]\n  Name tail\n  Tag app\n  Path {}\n  Parser own\n  Read_from_Head On\n\
         [PARSER]\n  Name own\n  Format json\n\
         [FILTER]\n  Name grep\n  Match app\n  Exclude level debug\n\
         [FILTER]\n  Name modify\n  Match *\n  Remove pid\n  Rename msg text\n\
         [OUTPUT]\n  Name loki\n  Match app\n  Host {}\n  Port {}\n  labels job=fb, level=$level\n  drop_single_key on\n",
        log.display(),
        address.ip(),
        address.port(),
    );
    let agent = start(&rig, "fluent-bit", &text);
    let all = || lines(&came(&rig, DEFAULT_TENANT)) >= 2;
    assert!(wait::within(wait::BOUND, all), "{}", tail(&agent.log()));
    agent.stop_clean();
    let plain = |line: &str| vec![(line.to_owned(), Vec::new())];
    let expect = Came::from([
        (
            "{job=\"fb\", level=\"info\"}".to_owned(),
            plain("{\"level\": \"info\",\"text\": \"a\"}"),
        ),
        ("{job=\"fb\"}".to_owned(), plain("plain text")),
    ]);
    assert_eq!(came(&rig, DEFAULT_TENANT), expect);
}
