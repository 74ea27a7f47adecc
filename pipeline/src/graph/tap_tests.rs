//! Taps on the edges of a running graph.

use std::time::Instant;

use tailwater_pdata::otlp::PickLimits;

use super::fakes::{SHARDS, World, graph, until};
use super::*;
use crate::tap::{Next, NoTap, Passed, Sample, Side, TAPS_MAX, Tap};

const YAML: &str = "{
    receivers: {feed/a: {world: W}, feed/b: {world: W}},
    processors: {keep: {world: W, v: PV}, keep/2: {world: W}},
    exporters: {sink: {world: W}, sink/2: {world: W}},
    service: {pipelines: {
        logs: {receivers: [feed/a, feed/b], processors: [STAGES], exporters: [sink]},
        logs/2: {receivers: [feed/b], processors: [keep], exporters: [sink, sink/2]}}}}";

fn apply(graph: &mut Graph, world: &World, stages: &str, version: &str) {
    let yaml = YAML.replace("STAGES", stages).replace("PV", version);
    join(graph, world, &yaml);
}

fn join(graph: &mut Graph, world: &World, yaml: &str) {
    let prepared = graph.prepare(world.config(yaml)).unwrap();
    graph.commit(prepared).unwrap();
    assert!(until(graph, || true));
    while graph.tick() {}
}

/// A tap that is in place, at the latest after 20 s.
fn open(graph: &Graph, node: &str, side: Option<Side>, rate: u32) -> Tap {
    let tap = graph.taps().open(node, side, rate).unwrap();
    let begin = Instant::now();
    while !tap.is_in_place() {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    tap
}

/// What a tap shows until it has shown `n`, at most 20 s.
fn shown(tap: &Tap, n: usize) -> Vec<Sample> {
    let begin = Instant::now();
    let mut samples = Vec::new();
    while samples.len() < n && begin.elapsed() < Duration::from_secs(20) {
        match tap.next(Duration::from_millis(50)) {
            Next::Sample(sample) => samples.push(sample),
            Next::Quiet => {}
            Next::Ended(why) => panic!("{why}"),
        }
    }
    samples
}

/// The edges of samples, each once, with how many items were shown of each and their texts.
fn by_edge(samples: &[Sample]) -> BTreeMap<(String, String, String), Vec<String>> {
    let limits = PickLimits {
        text_bytes: 1000,
        bytes: 1000,
    };
    let mut edges: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for sample in samples {
        let edge = &sample.edge;
        let key = (
            edge.from.clone(),
            edge.to.clone(),
            edge.exporter.to_string(),
        );
        for picked in sample.data.pick(&sample.items, limits) {
            let mut json = Vec::new();
            picked.write_json(&mut json);
            let json = String::from_utf8(json).unwrap();
            let body = json.split("\"stringValue\":\"").nth(1).unwrap();
            let body = body.split('"').next().unwrap().to_owned();
            edges.entry(key.clone()).or_default().push(body);
        }
    }
    edges.values_mut().for_each(|bodies| bodies.sort());
    edges
}

fn texts(receiver: &str, n: u64) -> Vec<String> {
    let mut texts: Vec<_> = (0..n).map(|i| format!("{receiver} {i}")).collect();
    texts.sort();
    texts
}

fn edge(from: &str, to: &str, exporter: &str) -> (String, String, String) {
    (from.to_owned(), to.to_owned(), exporter.to_owned())
}

/// Guarantee: a tap shows what passes the edges of its side, all of it if the rate allows, each record
/// with its edge; what passes elsewhere it does not show.
#[test]
fn a_tap_shows_what_passes_before_and_after_a_node() {
    let world = World::new();
    let (mut graph, _runtime) = graph();
    apply(&mut graph, &world, "keep, keep/2", "0");
    let taps = graph.taps().clone();
    let receiver = open(&graph, "receiver feed/b (logs)", None, 1_000);
    let pipeline = open(&graph, "pipeline logs", None, 1_000);
    let between = open(&graph, "processor keep in logs", Some(Side::Out), 1_000);
    let end = open(&graph, "exporter sink (logs)", None, 1_000);
    assert_eq!(end.node(), ("exporter sink (logs)", Side::In));
    world.give("feed/a", 5);
    world.give("feed/b", 4);
    let got = by_edge(&shown(&receiver, 12));
    let want = [
        (
            edge("receiver feed/b (logs)", "pipeline logs", "sink"),
            texts("feed/b", 4),
        ),
        (
            edge("receiver feed/b (logs)", "pipeline logs/2", "sink"),
            texts("feed/b", 4),
        ),
        (
            edge("receiver feed/b (logs)", "pipeline logs/2", "sink/2"),
            texts("feed/b", 4),
        ),
    ];
    assert_eq!(got, want.into());
    let got = by_edge(&shown(&pipeline, 9));
    let want = [
        (
            edge("receiver feed/a (logs)", "pipeline logs", "sink"),
            texts("feed/a", 5),
        ),
        (
            edge("receiver feed/b (logs)", "pipeline logs", "sink"),
            texts("feed/b", 4),
        ),
    ];
    assert_eq!(got, want.into());
    let all = [texts("feed/a", 5), texts("feed/b", 4)].concat();
    let got = by_edge(&shown(&between, 9));
    let key = edge("processor keep in logs", "processor keep/2 in logs", "sink");
    assert_eq!(got, [(key, all.clone())].into());
    let got = by_edge(&shown(&end, 13));
    let want = [
        (
            edge("processor keep/2 in logs", "exporter sink (logs)", "sink"),
            all,
        ),
        (
            edge("processor keep in logs/2", "exporter sink (logs)", "sink"),
            texts("feed/b", 4),
        ),
    ];
    assert_eq!(got, want.into());
    for (tap, all) in [(&receiver, 12), (&pipeline, 9), (&between, 9), (&end, 13)] {
        assert_eq!(tap.passed(), Passed { all, missed: 0 });
        assert!(matches!(tap.next(Duration::ZERO), Next::Quiet), "no more");
    }
    graph.stop(Mono(u64::MAX), &|| false);
    let over =
        |tap: &Tap| matches!(tap.next(Duration::ZERO), Next::Ended(why) if why.contains("stops"));
    assert!([receiver, pipeline, between, end].iter().all(over));
    let refused = taps.open("pipeline logs", None, 1).unwrap_err();
    assert_eq!(refused, NoTap::Stopping);
}

/// Guarantee: a tap stays on the node of its key through changes, that of the node included, and ends
/// when there is none.
#[test]
fn a_tap_goes_with_the_generations_until_its_node_is_gone() {
    let world = World::new();
    let (mut graph, _runtime) = graph();
    apply(&mut graph, &world, "keep, keep/2", "0");
    let first = open(&graph, "processor keep in logs", None, 1_000);
    let second = open(&graph, "processor keep/2 in logs", None, 1_000);
    for (n, version) in ["1", "2", "3"].into_iter().enumerate() {
        world.give("feed/a", 10);
        assert_eq!(shown(&first, 10).len(), 10, "{n}");
        apply(&mut graph, &world, "keep, keep/2", version);
    }
    world.give("feed/a", 10);
    let key = edge("pipeline logs", "processor keep in logs", "sink");
    assert_eq!(
        by_edge(&shown(&first, 10)).into_keys().collect::<Vec<_>>(),
        [key]
    );
    apply(&mut graph, &world, "keep", "3");
    let Next::Ended(why) = second.next(Duration::ZERO) else {
        panic!("its node is gone");
    };
    assert_eq!(why, "processor keep/2 in logs is not in generation 5");
    // The other one has another neighbour now.
    let after = open(&graph, "processor keep in logs", Some(Side::Out), 1_000);
    world.give("feed/a", 10);
    let key = edge("processor keep in logs", "exporter sink (logs)", "sink");
    assert_eq!(
        by_edge(&shown(&after, 10)).into_keys().collect::<Vec<_>>(),
        [key]
    );
    assert_eq!(shown(&first, 10).len(), 10);
    graph.stop(Mono(u64::MAX), &|| false);
}

/// Guarantee: nobody waits for who does not read; what they miss is counted, and all that passed.
#[test]
fn who_does_not_read_misses_and_slows_nothing() {
    let world = World::new();
    let (mut graph, _runtime) = graph();
    apply(&mut graph, &world, "keep", "0");
    let idle = open(&graph, "receiver feed/a (logs)", None, 1_000);
    let slow = open(&graph, "receiver feed/a (logs)", None, 1);
    world.give("feed/a", 500);
    assert!(until(&mut graph, || world.arrived("sink").len() == 500));
    assert!(idle.passed().missed > 0);
    let mut samples = 0;
    while let Next::Sample(sample) = idle.next(Duration::ZERO) {
        samples += sample.items.len() as u64;
    }
    let Passed { all, missed } = idle.passed();
    assert_eq!((all, samples + missed), (500, 500));
    assert_eq!(slow.passed().all, 500);
    let mut samples = 0;
    while let Next::Sample(_) = slow.next(Duration::ZERO) {
        samples += 1;
    }
    assert!((1..500).contains(&samples), "{samples}");
    assert_eq!(
        slow.passed().missed,
        0,
        "what the rate leaves out is not missed"
    );
    graph.stop(Mono(u64::MAX), &|| false);
}

/// How many shards have taps on a chain.
fn tapped(graph: &Graph) -> usize {
    let (tell, told) = crossbeam_channel::bounded(SHARDS);
    for shard in &graph.shards {
        let tell = tell.clone();
        shard.run(Box::new(move |s| {
            let _ = tell.send(s.is_tapped());
        }));
    }
    let told = (0..SHARDS).map(|_| told.recv_timeout(Duration::from_secs(20)).unwrap());
    told.filter(|t| *t).count()
}

/// Guarantee: what cannot be tapped is refused with its reason, taps are few, and a tap that is let go
/// leaves nothing behind in the shards.
#[test]
fn taps_are_few_and_leave_nothing_behind() {
    let world = World::new();
    let (mut graph, _runtime) = graph();
    let taps = graph.taps().clone();
    assert!(matches!(
        taps.open("pipeline logs", None, 1),
        Err(NoTap::NoNode(_, 0, _))
    ));
    apply(&mut graph, &world, "keep", "0");
    let Err(NoTap::NoNode(node, 1, known)) = taps.open("keep", None, 1) else {
        panic!("keys are whole");
    };
    assert_eq!(node, "keep");
    assert!(known.contains(&"processor keep in logs".to_owned()));
    for (node, side) in [
        ("receiver feed/a (logs)", Side::In),
        ("exporter sink (logs)", Side::Out),
    ] {
        let refused = taps.open(node, Some(side), 1).unwrap_err();
        assert!(refused.to_string().contains(node), "{refused}");
    }
    assert_eq!(tapped(&graph), 0);
    let mut opened: Vec<Tap> = Vec::new();
    for _ in 0..TAPS_MAX {
        opened.push(taps.open("pipeline logs", None, 1).unwrap());
    }
    assert_eq!(tapped(&graph), SHARDS);
    assert_eq!(
        taps.open("pipeline logs", None, 1).unwrap_err(),
        NoTap::TooMany
    );
    opened.pop();
    opened.push(taps.open("exporter sink/2 (logs)", None, 1).unwrap());
    drop(opened);
    assert_eq!(tapped(&graph), 0);
    graph.stop(Mono(u64::MAX), &|| false);
}

/// Guarantee: a tap at a connector shows what comes in from each pipeline, and what goes to each behind it,
/// for each exporter that this is for; and so after pipelines were joined in another way.
#[test]
fn a_tap_at_a_connector_shows_each_way() {
    const JOINED: &str = "{
        receivers: {feed/a: {world: W}, feed/b: {world: W}}, processors: {keep: {world: W}},
        exporters: {sink: {world: W}, sink/2: {world: W}}, connectors: {forward: },
        service: {pipelines: {
            logs/1: {receivers: [forward], exporters: [sink]},
            logs/2: {receivers: [forward], processors: [keep], exporters: [sink/2]},
            logs/a: {receivers: [feed/a], exporters: [forward]},
            logs/b: {receivers: [feed/b], processors: [keep], exporters: [forward, sink]}}}}";
    let world = World::new();
    let (mut graph, _runtime) = graph();
    join(&mut graph, &world, JOINED);
    let key = "connector forward (logs)";
    let all = [texts("feed/a", 3), texts("feed/b", 2)].concat();
    let before = open(&graph, key, None, 1_000);
    let behind = open(&graph, key, Some(Side::Out), 1_000);
    world.give("feed/a", 3);
    world.give("feed/b", 2);
    let got = by_edge(&shown(&before, 10));
    let end = "processor keep in logs/b";
    let want = [
        (edge("pipeline logs/a", key, "sink"), texts("feed/a", 3)),
        (edge("pipeline logs/a", key, "sink/2"), texts("feed/a", 3)),
        (edge(end, key, "sink"), texts("feed/b", 2)),
        (edge(end, key, "sink/2"), texts("feed/b", 2)),
    ];
    assert_eq!(got, want.into());
    let got = by_edge(&shown(&behind, 10));
    let want = [
        (edge(key, "pipeline logs/1", "sink"), all.clone()),
        (edge(key, "pipeline logs/2", "sink/2"), all),
    ];
    assert_eq!(got, want.into());
    let other = JOINED.replace(
        "logs/1: {receivers: [forward]",
        "logs/1: {receivers: [feed/a]",
    );
    join(&mut graph, &world, &other);
    world.give("feed/a", 3);
    let got = by_edge(&shown(&behind, 3));
    let edges: Vec<_> = got.into_keys().collect();
    assert_eq!(edges, [edge(key, "pipeline logs/2", "sink/2")]);
    drop((before, behind));
    assert!(graph.stop(Mono(u64::MAX), &|| false).clean);
}
