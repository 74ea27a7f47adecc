use tailwater_pipeline::Output;
use tailwater_telemetry::metrics::MetricsRegistry;

use super::*;
use crate::testing::{context, lanes, text};

/// Takes what is emitted, and lets it be settled.
struct Behind {
    admission: Admission,
    parts: Vec<Part>,
}

impl Output for Behind {
    fn emit(&mut self, batch: Batch) {
        self.parts.extend(batch.parts);
    }

    fn now(&self) -> Mono {
        Mono(0)
    }
}

impl SourceCx for Behind {
    fn admission(&self) -> Admission {
        self.admission
    }
}

struct Sleeper;

impl Wake for Sleeper {
    fn wake(&self) {}
}

fn shown(registry: &MetricsRegistry, name: &str) -> f64 {
    let samples = registry.samples();
    let named = samples.iter().filter(|s| s.name == name);
    named.map(|s| s.value).sum()
}

/// Guarantee: a line that is asked for comes with a resource of its own, is offered again until it is settled for
/// good, and its fate is told; nothing comes unasked, and nothing while there is no room.
#[tokio::test]
async fn a_sample_line_is_offered_until_it_is_settled() {
    let registry = Arc::new(MetricsRegistry::default());
    let cx = context("probe", &registry);
    let mut nodes = Settings
        .build(&cx, &lanes(&cx, &["loki"], &[Signal::Logs]))
        .unwrap();
    let mut node = nodes.remove(0);
    let shard = ShardHandle {
        index: 0,
        waker: Arc::new(Sleeper),
    };
    let mut source = node.source(&shard);
    let mut behind = Behind {
        admission: Admission::Closed,
        parts: Vec::new(),
    };
    node.start().unwrap();
    let before = probes().counts(Mono(0));
    assert!(probes().inject("agent", 5, Mono(0)));
    assert!(matches!(source.poll(&mut behind), Progress::Idle(Some(_))));
    assert!(behind.parts.is_empty());
    behind.admission = Admission::Open;
    assert_eq!(source.poll(&mut behind), Progress::Idle(None));
    let part = behind.parts.pop().unwrap();
    let number = before.sent + 1;
    let tailwater_pipeline::Payload::Logs(logs) = &part.data else {
        panic!("no log record");
    };
    let shown_as = text(logs, 0);
    assert!(shown_as.contains(&format!("tailwater sample line agent 5 {number}")));
    assert!(shown_as.ends_with("| service.name=tailwater-probe tailwater.probe=true"));
    part.ack.resolve(Outcome::Retry);
    assert_eq!(shown(&registry, "tailwater_records_in_flight"), 1.0);
    source.poll(&mut behind);
    behind.parts.pop().unwrap().ack.resolve(Outcome::Delivered);
    let after = probes().counts(Mono(0));
    assert_eq!(after.delivered, before.delivered + 1);
    assert_eq!(shown(&registry, "tailwater_records_read"), 1.0);
    assert_eq!(shown(&registry, "tailwater_records_delivered"), 1.0);
    // What is refused is due, and not delivered.
    probes().inject("agent", 5, Mono(0));
    source.poll(&mut behind);
    behind.parts.pop().unwrap().ack.resolve(Outcome::Refused);
    let refused = probes().counts(Mono(0));
    assert_eq!(
        (refused.due, refused.delivered),
        (after.due + 1, after.delivered)
    );
    node.stop();
    assert!(!probes().inject("agent", 5, Mono(0)));
    assert!(source.drain(&mut behind));
}
