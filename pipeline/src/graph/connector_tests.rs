//! What connectors do to a configuration and to a graph.

use std::time::Duration;

use tailwater_config::{Errors, ProcessEnvironment, Source, load};

use super::fakes::{World, graph, registry, until};
use super::*;

fn apply(graph: &mut Graph, wanted: Resolved) {
    let prepared = graph.prepare(wanted).unwrap();
    graph.commit(prepared).unwrap();
}

/// The mistakes in a configuration whose pipelines are these, and which has two connectors.
fn mistakes(connectors: &str, pipelines: &str) -> Vec<String> {
    let yaml = format!(
        "yaml:receivers: {{feed: {{world: W0}}}}\nexporters: {{sink: {{world: W0}}}}\n\
         connectors: {{{connectors}}}\nservice:\n  pipelines:\n{pipelines}"
    );
    World::new();
    let source = Source::parse(&yaml).unwrap();
    let mut errors = Errors::new();
    let loaded = load(&[source], &[], &ProcessEnvironment, &mut errors);
    let resolved = loaded.and_then(|l| resolve(&l.file, &registry(), &mut errors));
    assert_eq!(resolved.is_none(), !errors.is_empty());
    errors.iter().map(ToString::to_string).collect()
}

/// Guarantee: a connector that cannot pass a signal on where it is named is refused there, with what
/// to do; one that is not used is not.
#[test]
fn mistakes_have_their_place_and_a_remedy() {
    let check = |connectors: &str, pipelines: &str, want: &[&str]| {
        let found = mistakes(connectors, pipelines);
        assert_eq!(found.len(), want.len(), "{found:?}");
        for (found, want) in found.iter().zip(want) {
            assert!(found.contains(want), "{found}\n{want}");
        }
    };
    let logs = "    logs/a: {receivers: [feed], exporters: [forward]}\n    \
                logs/b: {receivers: [forward], exporters: [sink]}\n";
    check("forward: , forward/unused: ", logs, &[]);
    check(
        "forward: ",
        "    logs: {receivers: [feed], exporters: [forward, sink]}\n    \
         traces: {receivers: [forward], exporters: [forward/x]}\n",
        &["references exporter \"forward/x\" which is not configured"],
    );
    let behind = "    logs/b: {receivers: [forward], exporters: [sink]}\n    \
                  traces/c: {receivers: [forward], exporters: [forward/2]}\n    \
                  traces/d: {receivers: [forward/2], exporters: [sink]}\n";
    let text = format!("    logs/a: {{receivers: [feed], exporters: [forward]}}\n{behind}");
    check(
        "forward: , forward/2: ",
        &text,
        &[
            ":9:52: service::pipelines::traces/d: exporter \"sink\" does not support traces",
            ":8:28: service::pipelines::traces/c: connector \"forward\" used as receiver in traces \
             pipeline but not used in any supported exporter pipeline; forward passes traces on as \
             traces: name it among the exporters of another pipeline of traces, or take it out",
        ],
    );
    check(
        "forward: ",
        "    metrics/a: {receivers: [feed], exporters: [forward]}\n    \
         metrics/b: {receivers: [forward], exporters: [sink]}\n",
        &[
            "receiver \"feed\" does not support metrics",
            "exporter \"sink\" does not support metrics",
            ":6:48: service::pipelines::metrics/a: connector \"forward\" used as exporter in metrics \
             pipeline but not used in any supported receiver pipeline; forward passes on logs, \
             traces; take it out",
            ":7:29: service::pipelines::metrics/b: connector \"forward\" used as receiver in metrics \
             pipeline but not used in any supported exporter pipeline; forward passes on logs, \
             traces; take it out",
        ],
    );
    let routing = logs.replace("forward", "routing");
    check(
        "routing: ",
        &routing,
        &[
            ":3:14: connectors::routing: unknown type: \"routing\" for id: \"routing\": the collector \
           has this connector, this build does not; ",
        ],
    );
    check(
        "foward: ",
        &logs.replace("forward", "foward"),
        &["did you mean \"forward\"?"],
    );
}

const FANS: &str = "{
    receivers: {feed/a: {world: W}, feed/b: {world: W}}, processors: {keep: {world: W}},
    exporters: {sink/1: {world: W}, sink/2: {world: W}}, connectors: {forward: },
    service: {pipelines: {
        logs/1: {receivers: [forward], processors: [keep], exporters: [sink/1]},
        logs/2: {receivers: [forward], exporters: [sink/2]},
        logs/a: {receivers: [feed/a], processors: [keep], exporters: [forward]},
        logs/b: {receivers: [feed/b], exporters: [forward]}}}}";

/// Guarantee: what comes out of several pipelines gets, once each, to every pipeline behind; a
/// destination that accepts nothing holds up its own lanes alone; and what is under way to it is read
/// again by its own lanes alone.
#[test]
fn connectors_fan_in_and_out_and_destinations_stay_apart() {
    let world = World::new();
    let (mut graph, _runtime) = graph();
    apply(&mut graph, world.config(FANS));
    world.hold("sink/2");
    world.give("feed/a", 40);
    world.give("feed/b", 40);
    assert!(until(&mut graph, || world.arrived("sink/1").len() == 80));
    assert_eq!(world.arrived("sink/2").len(), 0);
    // Each shard's lane of each receiver has four under way, or as many as the exporter takes.
    assert!(world.waiting("sink/2") <= 16, "{}", world.waiting("sink/2"));
    assert!(world.waiting("sink/2") > 0);
    world.accept("sink/2");
    assert!(until(&mut graph, || world.arrived("sink/2").len() == 80));
    assert_eq!(world.arrived("sink/1").len(), 80);
    for sink in ["sink/1", "sink/2"] {
        let mut items = world.arrived(sink);
        items.sort();
        items.dedup();
        assert_eq!(items.len(), 80, "{sink}");
    }
    assert!(graph.stop(Mono(u64::MAX), &|| false).clean);
}

/// Guarantee: the ways from a pipeline through a connector to one exporter are one duty: a batch is
/// delivered when each of the ways has delivered it, and a full exporter behind one of them stops the
/// source.
#[test]
fn a_batch_is_delivered_when_every_way_has_delivered_it() {
    let world = World::new();
    let (mut graph, _runtime) = graph();
    let twice = FANS.replace("sink/2]", "sink/1]").replace(
        "[forward]},\n        logs/b",
        "[forward, sink/1]},\n        logs/b",
    );
    apply(&mut graph, world.config(&twice));
    world.hold("sink/1");
    world.give("feed/a", 100);
    assert!(until(&mut graph, || world.waiting("sink/1") >= 4));
    assert_eq!(graph.receivers().count(), 2, "one lane for each receiver");
    world.accept("sink/1");
    assert!(until(&mut graph, || world.arrived("sink/1").len() == 300));
    std::thread::park_timeout(Duration::from_millis(1));
    assert!(graph.stop(Mono(u64::MAX), &|| false).clean);
    assert_eq!(world.arrived("sink/1").len(), 300, "three ways, each once");
}

/// Guarantee: a change of what is behind a connector is that of its wiring, and nothing else is built.
#[test]
fn only_what_changes_behind_a_connector_is_built() {
    let world = World::new();
    let (mut graph, _runtime) = graph();
    apply(&mut graph, world.config(FANS));
    world.log();
    let less = FANS.replace(
        "logs/2: {receivers: [forward]",
        "logs/2: {receivers: [feed/b]",
    );
    let wanted = world.config(&less);
    let plan = graph.plan(&wanted).unwrap();
    let changes = plan.to_string();
    let changed: Vec<&str> = changes.lines().filter(|l| !l.starts_with("keep")).collect();
    assert_eq!(
        changed,
        [
            "rewire   connector forward (logs)",
            "rewire   receiver feed/b (logs)"
        ]
    );
    apply(&mut graph, wanted);
    while graph.tick() {}
    let log = world.log();
    let built: Vec<&String> = log.iter().filter(|l| l.starts_with("build")).collect();
    // Receivers, for which lanes come and go; nothing else.
    assert!(
        built.iter().all(|l| l.starts_with("build feed/")),
        "{log:?}"
    );
    world.give("feed/b", 20);
    let both = |w: &World| w.arrived("sink/1").len() == 20 && w.arrived("sink/2").len() == 20;
    assert!(until(&mut graph, || both(&world)));
    assert!(graph.stop(Mono(u64::MAX), &|| false).clean);
}
