use proptest::prelude::*;
use std::collections::BTreeMap;

use super::fakes::{Item, SHARDS, World, graph, until};
use super::*;

fn apply(graph: &mut Graph, wanted: Resolved) -> Result<(), BuildError> {
    let prepared = graph.prepare(wanted)?;
    graph.commit(prepared)
}

/// Of each receiver's items in each shard: their numbers, in the order of arrival.
fn by_stream(items: &[Item]) -> BTreeMap<(String, u64), Vec<u64>> {
    let mut out: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for (receiver, number) in items {
        let stream = (receiver.clone(), number % SHARDS as u64);
        out.entry(stream).or_default().push(*number);
    }
    out
}

const ONE: &str = "{
    receivers: {feed/a: {world: W, v: RV, how: HOW}}, processors: {keep: {world: W, v: PV}},
    exporters: {sink: {world: W, v: EV}}, extensions: {aside: {world: W, v: XV}},
    service: {extensions: [aside],
        pipelines: {logs: {receivers: [feed/a], processors: [keep], exporters: [sink]}}}}";

fn one(world: &World, versions: [u8; 4], how: &str) -> Resolved {
    let mut yaml = ONE.replace("HOW", how);
    for (name, v) in ["RV", "PV", "EV", "XV"].iter().zip(versions) {
        yaml = yaml.replace(name, &v.to_string());
    }
    world.config(&yaml)
}

/// Guarantee: what stays the same is not touched, and each kind of change touches what it says.
#[test]
fn only_what_changes_is_built_anew() {
    let world = World::new();
    let (mut graph, _runtime) = graph();
    let all = [
        "build aside",
        "build sink",
        "build keep",
        "build keep",
        "build feed/a",
    ];
    let starts = [
        "acquire feed/a",
        "start aside",
        "start sink",
        "start feed/a",
    ];
    let cases: [(_, _, Vec<&str>); 6] = [
        ([0; 4], "", [&all[..], &starts].concat()),
        ([0; 4], "", vec![]),
        ([1, 0, 0, 0], "", vec!["build feed/a", "update feed/a"]),
        ([1, 1, 0, 0], "", vec!["build keep", "build keep"]),
        (
            [1, 1, 1, 0],
            "",
            vec!["build sink", "stop sink", "start sink"],
        ),
        (
            [1, 1, 1, 1],
            "",
            vec!["build aside", "start aside", "stop aside"],
        ),
    ];
    for (versions, how, want) in cases {
        apply(&mut graph, one(&world, versions, how)).unwrap();
        until(&mut graph, || true);
        while graph.tick() {}
        assert_eq!(world.log(), want, "{versions:?}");
    }
    assert_eq!(graph.generation(), 6);
    world.give("feed/a", 100);
    assert!(until(&mut graph, || world.arrived("sink").len() == 100));
    graph.stop(Mono(u64::MAX), &|| false);
}

/// Guarantee: an exporter that takes the place of another one gets nothing before that one is done,
/// so what is handed back arrives in its order, once.
#[test]
fn what_an_exporter_has_left_arrives_before_what_follows() {
    let world = World::new();
    let (mut graph, _runtime) = graph();
    apply(&mut graph, one(&world, [0; 4], "")).unwrap();
    world.hold("sink");
    world.give("feed/a", 40);
    assert!(until(&mut graph, || world.waiting("sink") > 0));
    apply(&mut graph, one(&world, [0, 0, 1, 0], "")).unwrap();
    world.accept("sink");
    assert!(until(&mut graph, || world.arrived("sink").len() >= 40));
    assert!(until(&mut graph, || world.log().len() < 1000));
    for ((_, shard), numbers) in by_stream(&world.arrived("sink")) {
        let want: Vec<u64> = (0..20).map(|i| i * 2 + shard).collect();
        assert_eq!(numbers, want);
    }
    graph.stop(Mono(u64::MAX), &|| false);
}

/// Guarantee: a receiver that would read again what is under way begins when that is settled, however
/// long it takes and whatever is configured meanwhile; nothing comes twice.
#[test]
fn a_receiver_waits_for_what_the_one_before_it_has_under_way() {
    let world = World::new();
    let (mut graph, _runtime) = graph();
    apply(&mut graph, one(&world, [0; 4], "replace")).unwrap();
    world.hold("sink");
    world.give("feed/a", 40);
    assert!(until(&mut graph, || world.waiting("sink") > 0));
    for v in 1..4 {
        apply(&mut graph, one(&world, [v, 0, 0, 0], "replace")).unwrap();
        graph.tick();
    }
    let waiting: Vec<_> = graph.not_started().map(|(id, _)| id.to_owned()).collect();
    assert_eq!(waiting, ["feed/a"]);
    world.accept("sink");
    assert!(until(&mut graph, || world.arrived("sink").len() >= 40));
    assert_eq!(graph.not_started().count(), 0);
    world.give("feed/a", 20);
    assert!(until(&mut graph, || world.arrived("sink").len() >= 60));
    let mut numbers: Vec<u64> = world.arrived("sink").into_iter().map(|i| i.1).collect();
    numbers.sort();
    assert_eq!(numbers, (0..60).collect::<Vec<_>>());
    graph.stop(Mono(u64::MAX), &|| false);
}

const LANES: &str = "{
    receivers: {feed/a: {world: W, v: 0, how: HOW}}, exporters: {EXPORTERS},
    service: {pipelines: {logs: {receivers: [feed/a], exporters: [NAMES]}}}}";

fn lanes(world: &World, exporters: &[&str], how: &str) -> Resolved {
    let each = exporters.iter().map(|e| format!("{e}: {{world: W}}"));
    let each: Vec<String> = each.collect();
    let yaml = LANES.replace("EXPORTERS", &each.join(", "));
    world.config(
        &yaml
            .replace("NAMES", &exporters.join(", "))
            .replace("HOW", how),
    )
}

/// Guarantee: while exporters come and go, lanes to those that stay are the same ones under the same
/// names, whatever is under way and to whom; new ones have all that they are to have.
#[test]
fn lanes_come_and_go_beside_those_that_stay() {
    let world = World::new();
    let (mut graph, _runtime) = graph();
    apply(&mut graph, lanes(&world, &["sink/a"], "in_place")).unwrap();
    world.hold("sink/a");
    world.give("feed/a", 40);
    let names = |graph: &Graph| {
        let mut names: Vec<String> = graph.receivers().map(|(id, l)| l.name(id)).collect();
        names.sort();
        names
    };
    let steps: [(&[&str], &[&str]); 4] = [
        (&["sink/a", "sink/b"], &["feed/a", "feed/a to sink/b"]),
        (
            &["sink/a", "sink/b", "sink/c"],
            &["feed/a", "feed/a to sink/b", "feed/a to sink/c"],
        ),
        (&["sink/a", "sink/c"], &["feed/a", "feed/a to sink/c"]),
        (&["sink/a"], &["feed/a"]),
    ];
    for (exporters, want) in steps {
        apply(&mut graph, lanes(&world, exporters, "in_place")).unwrap();
        assert_eq!(names(&graph), want);
        let others = &exporters[1..];
        let all = || others.iter().all(|e| world.arrived(e).len() == 40);
        assert!(until(&mut graph, all), "{exporters:?}");
        assert_eq!(world.began("feed/a", "sink/a"), 1, "it is the same lane");
    }
    world.accept("sink/a");
    assert!(until(&mut graph, || world.arrived("sink/a").len() == 40));
    while graph.tick() {}
    graph.stop(Mono(u64::MAX), &|| false);
    for sink in ["sink/a", "sink/b", "sink/c"] {
        assert_eq!(world.arrived(sink).len(), 40, "{sink}");
    }
}

/// Guarantee: whatever fails before the swap, what runs goes on as if nothing had been asked.
#[test]
fn a_failure_changes_nothing() {
    let world = World::new();
    let (mut graph, _runtime) = graph();
    apply(&mut graph, one(&world, [0; 4], "")).unwrap();
    let before = graph.spec().clone();
    let broken = [
        ("sink", [0, 0, 1, 0]),
        ("keep", [0, 1, 0, 0]),
        ("aside", [0, 0, 0, 1]),
        ("feed/a", [1, 0, 0, 0]),
    ];
    for (id, versions) in broken {
        world.set_broken(id, true);
        let error = apply(&mut graph, one(&world, versions, ""));
        assert!(error.is_err() || id == "sink", "{id}");
        world.set_broken(id, false);
        if id == "sink" {
            continue;
        }
        assert_eq!((graph.generation(), graph.spec()), (1, &before), "{id}");
    }
    let refused = one(&world, [9, 0, 0, 0], "restart");
    let error = graph.plan(&refused).unwrap_err();
    assert_eq!(error[0].to_string(), "receiver \"feed/a\": it cannot");
    assert!(apply(&mut graph, refused).is_err());
    world.give("feed/a", 100);
    assert!(until(&mut graph, || world.arrived("sink").len() == 100));
    graph.stop(Mono(u64::MAX), &|| false);
}

/// Guarantee: something prepared for another generation than the one in force is refused.
#[test]
fn what_was_prepared_for_another_generation_is_refused() {
    let world = World::new();
    let (mut graph, _runtime) = graph();
    let late = graph.prepare(one(&world, [0; 4], "")).unwrap();
    apply(&mut graph, one(&world, [0; 4], "")).unwrap();
    assert!(graph.commit(late).is_err());
    assert_eq!(graph.generation(), 1);
    graph.stop(Mono(u64::MAX), &|| false);
}

/// A configuration of the walk.
#[derive(Clone, Debug)]
struct Shape {
    /// Whose receivers are in the first and in the second pipeline; others run in none.
    receivers: [u8; 3],
    processors: Vec<u8>,
    exporters: [bool; 2],
    versions: [u8; 6],
    replaced: bool,
    held: [bool; 2],
    given: u8,
    /// How the pipelines come to exporters: 0 by themselves, otherwise through connectors.
    joined: u8,
}

fn shape() -> impl Strategy<Value = Shape> {
    let processors = proptest::sample::subsequence(vec![0u8, 1], 0..=2).prop_shuffle();
    let versions = proptest::array::uniform6(0u8..2);
    let rest = (any::<bool>(), any::<[bool; 2]>(), 0u8..30, 0u8..5);
    (
        proptest::array::uniform3(0u8..3),
        processors,
        any::<[bool; 2]>(),
        versions,
        rest,
    )
        .prop_map(
            |(receivers, processors, exporters, versions, (replaced, held, given, joined))| Shape {
                receivers,
                processors,
                exporters,
                versions,
                replaced,
                held,
                given,
                joined,
            },
        )
}

impl Shape {
    fn exporters(&self) -> Vec<String> {
        let used = (0..2).filter(|i| self.exporters[*i]);
        let used: Vec<String> = used.map(|i| format!("sink/{i}")).collect();
        match used.is_empty() {
            true => vec!["sink/0".into()],
            false => used,
        }
    }

    fn receivers(&self, pipeline: u8) -> Vec<String> {
        let used = (0..3).filter(|i| self.receivers[*i] == pipeline);
        used.map(|i| format!("feed/{i}")).collect()
    }

    /// Receivers, each with the exporters that it leads to.
    fn lanes(&self) -> Vec<(String, String)> {
        let receivers = [self.receivers(0), self.receivers(1)].concat();
        let each = receivers.iter().map(|r| {
            let exporters = self.exporters().into_iter();
            exporters.map(|e| (r.clone(), e))
        });
        each.flatten().collect()
    }

    /// The pipelines: each receiver leads to each exporter by one way.
    fn pipelines(&self) -> Vec<String> {
        let pipeline = |id: &str, receivers: &[String], exporters: &[String]| {
            let processors = self.processors.iter().map(|i| format!("keep/{i}"));
            format!(
                "logs/{id}: {{receivers: [{}], processors: [{}], exporters: [{}]}}",
                receivers.join(", "),
                processors.collect::<Vec<_>>().join(", "),
                exporters.join(", ")
            )
        };
        let (ends, forward) = (self.exporters(), "forward".to_owned());
        let (forward, other) = (std::slice::from_ref(&forward), ["forward/b".to_owned()]);
        let both = [&ends[..1], forward].concat();
        // What the two pipelines end in, and what stands behind.
        let (ends_in, behind): ([&[String]; 2], _) = match self.joined {
            1 => ([forward; 2], vec![pipeline("out", forward, &ends)]),
            2 => {
                let each = ends.iter().enumerate();
                let each = each
                    .map(|(i, e)| pipeline(&format!("out{i}"), forward, std::slice::from_ref(e)));
                ([forward; 2], each.collect())
            }
            3 if ends.len() > 1 => ([&both; 2], vec![pipeline("out", forward, &ends[1..])]),
            4 if !self.receivers(0).is_empty() => (
                [forward, &other],
                vec![
                    pipeline("out", &other, &ends),
                    pipeline("mid", forward, &other),
                ],
            ),
            _ => ([&ends[..]; 2], Vec::new()),
        };
        let begin = (0..2).filter_map(|p| {
            let receivers = self.receivers(p);
            let ends_in = ends_in[usize::from(p)];
            (!receivers.is_empty()).then(|| pipeline(&p.to_string(), &receivers, ends_in))
        });
        behind.into_iter().chain(begin).collect()
    }

    fn yaml(&self) -> String {
        let how = if self.replaced { "replace" } else { "in_place" };
        let v = self.versions;
        let pipelines: Vec<String> = self.pipelines();
        let feed = |i: usize| format!("feed/{i}: {{world: W, v: {}, how: {how}}}", v[i]);
        let keep = |i: usize| format!("keep/{i}: {{world: W, v: {}}}", v[3 + i]);
        let sink = |i: usize| format!("sink/{i}: {{world: W, v: {}}}", v[5]);
        format!(
            "{{receivers: {{{}, {}, {}}}, processors: {{{}, {}}}, exporters: {{{}, {}}}, \
             connectors: {{forward: , forward/b: }}, service: {{pipelines: {{{}}}}}}}",
            feed(0),
            feed(1),
            feed(2),
            keep(0),
            keep(1),
            sink(0),
            sink(1),
            pipelines.join(", ")
        )
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Guarantee: through any walk of configurations, with exporters that accept nothing for a while,
    /// every item arrives once, in order, at every exporter that its receiver leads to in the end;
    /// the graph is the wanted one after each step; and lanes that are in both of two steps run through,
    /// if their receivers take settings over.
    #[test]
    fn property_no_walk_loses_repeats_or_reorders(shapes in proptest::collection::vec(shape(), 2..8)) {
        let world = World::new();
        let (mut graph, _runtime) = graph();
        let mut last: Option<Shape> = None;
        for shape in shapes {
            if shape.receivers.iter().all(|p| *p == 2) {
                continue;
            }
            for (i, held) in shape.held.iter().enumerate() {
                match held {
                    true => world.hold(&format!("sink/{i}")),
                    false => world.accept(&format!("sink/{i}")),
                }
            }
            (0..3).for_each(|i| world.give(&format!("feed/{i}"), shape.given.into()));
            let wanted = world.config(&shape.yaml());
            let spec = wanted.spec.clone();
            let same = |(r, e): &(String, String)| {
                last.as_ref().is_some_and(|l| l.lanes().contains(&(r.clone(), e.clone())))
            };
            let stay: Vec<_> = shape.lanes().into_iter().filter(same).collect();
            let began = || stay.iter().map(|(r, e)| world.began(r, e)).collect::<Vec<_>>();
            let before = began();
            apply(&mut graph, wanted).unwrap();
            prop_assert_eq!(graph.spec(), &spec);
            if !shape.replaced {
                prop_assert_eq!(began(), before);
            }
            graph.tick();
            last = Some(shape);
        }
        let Some(last) = last else { return Ok(()) };
        (0..2).for_each(|i| world.accept(&format!("sink/{i}")));
        let fed: Vec<String> = [last.receivers(0), last.receivers(1)].concat();
        let wanted: usize = fed.iter().map(|r| world.given(r) as usize).sum();
        let complete = |sink: &String| {
            let arrived = world.arrived(sink);
            arrived.iter().filter(|(r, _)| fed.contains(r)).count() >= wanted
        };
        let all = until(&mut graph, || last.exporters().iter().all(complete));
        for sink in last.exporters() {
            let arrived = world.arrived(&sink);
            for ((receiver, shard), numbers) in by_stream(&arrived) {
                let sorted = numbers.windows(2).all(|w| w[0] < w[1]);
                prop_assert!(sorted, "{sink} {receiver} {shard}: {numbers:?}");
            }
            let count = arrived.iter().filter(|(r, _)| fed.contains(r)).count();
            prop_assert!(all, "{count} of {wanted} at {sink}: {:?}", graph.not_started().collect::<Vec<_>>());
            prop_assert_eq!(count, wanted);
        }
        prop_assert!(graph.stop(Mono(u64::MAX), &|| false).clean);
    }
}
