//! Guarantee: `from_context` reads what is known of whoever sent each part, in columns and in requests
//! as they came, and nothing of it sticks to the next part.

use std::sync::Arc;

use tailwater_config::{Errors, Section, parse};
use tailwater_pdata::otlp::{Encoded, Limits, decode_logs, json};
use tailwater_pdata::{LogsBatch, Map, Signal, Value};
use tailwater_pipeline::client::ClientInfo;
use tailwater_pipeline::clock::Mono;
use tailwater_pipeline::{
    AckSink, AckToken, Batch, Counts, Outcome, Output, Part, Payload, Permit, Processor,
};
use tailwater_processors::attributes::{AttributesConfig, AttributesProcessor};
use tailwater_processors::resource::{ResourceProcessor, ResourceSettings};

#[derive(Default)]
struct Out(Vec<Part>);

impl Output for Out {
    fn emit(&mut self, batch: Batch) {
        self.0.extend(batch.parts);
    }
    fn now(&self) -> Mono {
        Mono::default()
    }
}

struct Sent(Option<ClientInfo>);

impl AckSink for Sent {
    fn settled(&self, _key: u64, _outcome: Outcome, _counts: &Counts) {}
    fn client(&self) -> Option<Arc<ClientInfo>> {
        self.0.clone().map(Arc::new)
    }
}

const ACTIONS: &str = "[{key: tenant, action: upsert, from_context: metadata.X-Tenant}, \
    {key: who, action: insert, from_context: auth.username, default_value: nobody}, \
    {key: ip, action: insert, from_context: client.address}]";

fn processors() -> [Box<dyn Processor>; 2] {
    let mut errors = Errors::new();
    let yaml = format!("actions: {ACTIONS}");
    let node = parse(&yaml, "a.yaml").expect("YAML");
    let mut section = Section::new(&node, "a", &mut errors);
    let config = AttributesConfig::decode(&mut section);
    section.finish();
    let settings = config.for_signal(Signal::Logs, &mut errors);
    let yaml = format!("attributes: {ACTIONS}");
    let node = parse(&yaml, "r.yaml").expect("YAML");
    let mut section = Section::new(&node, "r", &mut errors);
    let resource = ResourceSettings::decode(&mut section);
    section.finish();
    assert!(errors.is_empty(), "{errors}");
    [
        Box::new(AttributesProcessor::new(settings)),
        Box::new(ResourceProcessor::new(resource)),
    ]
}

fn texts(map: &Map) -> String {
    let mut all: Vec<String> = map
        .iter()
        .map(|(key, value)| match value {
            Value::Str(text) => format!("{key}={text}"),
            other => format!("{key}={other:?}"),
        })
        .collect();
    all.sort();
    all.join(" ")
}

fn run(processor: &mut dyn Processor, data: Payload, client: Option<ClientInfo>) -> Vec<String> {
    let part = Part {
        data,
        ack: AckToken::new(Arc::new(Sent(client)), 0),
        permit: Permit::none(),
    };
    let mut out = Out::default();
    processor.process(Batch::of(part), &mut out);
    let mut found = Vec::new();
    for part in out.0 {
        let batches = match part.data {
            Payload::Logs(logs) => vec![logs],
            Payload::Encoded(encoded) => decode_logs(&encoded),
        };
        part.ack.resolve(Outcome::Delivered);
        for logs in batches {
            for entry in logs.to_entries() {
                found.push(format!(
                    "{}{}",
                    texts(&entry.attributes),
                    texts(&logs.resource)
                ));
            }
        }
    }
    found
}

#[test]
fn what_is_known_of_clients_becomes_attributes() {
    let mut client = ClientInfo::at(Some([10, 0, 0, 7].into()));
    client.add_metadata("x-tenant", "a");
    client.add_metadata("x-tenant", "b");
    client.add_auth("username", "u");
    let body = r#"{"resourceLogs":[{"resource":{},"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}"#;
    let limits = Limits::default();
    let body = json::to_proto(Signal::Logs, body.as_bytes(), &limits).unwrap();
    for mut processor in processors() {
        // The same resource twice: one of the processors remembers resources.
        let columns = LogsBatch::from_lines("x".into(), &[(0, 1)]);
        for _ in 0..2 {
            let encoded = Encoded::parse(Signal::Logs, body.clone(), &limits).unwrap();
            for data in [Payload::from(columns.clone()), Payload::from(encoded)] {
                let of =
                    |processor: &mut dyn Processor, client| run(processor, data.clone(), client);
                assert_eq!(
                    of(&mut *processor, Some(client.clone())),
                    ["ip=10.0.0.7 tenant=a;b who=u"]
                );
                assert_eq!(of(&mut *processor, None), ["who=nobody"]);
            }
        }
    }
}
