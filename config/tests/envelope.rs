//! The structure of a configuration: what is found in it, and every way in which it can be wrong.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tailwater_config::{
    ComponentId, ComponentKind, Errors, Loaded, MemoryEnvironment, PipelineId, Signal, Source,
    Warning, canonical_type, load,
};

fn read(texts: &[&str]) -> Result<(Loaded, Vec<Warning>), Errors> {
    let mut env = MemoryEnvironment::new()
        .with_variable("NODE", "n1")
        .with_variable("TOKEN", "t");
    let mut sources = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let name = if texts.len() == 1 {
            "c.yaml".to_owned()
        } else {
            format!("c{i}.yaml")
        };
        env = env.with_file(&name, *text);
        sources.push(Source::File(name.into()));
    }
    load_all(&sources, &[], &env)
}

/// What was loaded if nothing is wrong with it, with the warnings; else the problems.
fn load_all(
    sources: &[Source],
    sets: &[String],
    env: &MemoryEnvironment,
) -> Result<(Loaded, Vec<Warning>), Errors> {
    let mut errors = Errors::new();
    let loaded = load(sources, sets, env, &mut errors);
    let warnings = errors.take_warnings();
    errors.into_result(())?;
    Ok((loaded.expect("no problems"), warnings))
}

fn check(text: &str, expect: &[&str]) {
    let shown = match read(&[text]) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(shown, expect, "{text}");
}

const PARTS: &str = "receivers: {otlp: , filelog: }\nexporters: {debug: , loki/a: }\n\
                     processors: {batch: }\nextensions: {health_check: }\n";

fn with_service(service: &str) -> String {
    format!("{PARTS}service: {service}\n")
}

#[test]
fn a_whole_configuration_is_read_in_the_order_as_written() {
    let (loaded, warnings) = read(&[include_str!("samples/files_to_loki.yaml")]).unwrap();
    let file = &loaded.file;
    let ids = |kind| -> Vec<String> {
        file.components(kind)
            .iter()
            .map(|entry| entry.id.to_string())
            .collect()
    };
    assert_eq!(ids(ComponentKind::Receiver), ["file_log/pods", "otlp"]);
    assert_eq!(
        ids(ComponentKind::Processor),
        ["batch", "memory_limiter", "resource/node"]
    );
    assert_eq!(ids(ComponentKind::Exporter), ["debug", "otlp_http/loki"]);
    assert_eq!(
        ids(ComponentKind::Extension),
        ["health_check", "file_storage"]
    );
    let service = &file.service;
    let named: Vec<String> = service
        .extensions
        .iter()
        .map(|r| r.id.to_string())
        .collect();
    assert_eq!(named, ["health_check", "file_storage"]);
    assert_eq!(
        service.telemetry.at("logs::level").unwrap().as_str(),
        Some("info")
    );
    let [pipeline] = &service.pipelines[..] else {
        panic!("one pipeline")
    };
    assert_eq!(
        pipeline.id,
        PipelineId {
            signal: Signal::Logs,
            name: String::new()
        }
    );
    let names: Vec<String> = pipeline
        .processors
        .iter()
        .map(|r| r.id.to_string())
        .collect();
    assert_eq!(names, ["memory_limiter", "resource/node", "batch"]);
    assert_eq!(pipeline.receivers[1].span.to_string(), "c.yaml:55:34");
    let defaults = (
        service.workers,
        service.shutdown_timeout,
        service.memory_limit_mib,
    );
    assert_eq!(defaults, (0, Duration::from_secs(30), None));
    assert!(service.sandbox.enabled && service.sandbox.read.is_empty());
    let otlp = &file.receivers[1];
    let endpoint = otlp.node.at("protocols::http::endpoint").unwrap();
    assert_eq!(endpoint.as_str(), Some("127.0.0.1:4318"));
    let regex = file.receivers[0].node.at("operators::1::regex").unwrap();
    assert_eq!(regex.as_str(), Some("^(?P<level>[A-Z]+) (?P<msg>.*)$"));
    assert_eq!(
        otlp.path(ComponentKind::Receiver).as_str(),
        "receivers::otlp"
    );
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn own_service_options_are_read_and_checked() {
    let (loaded, _) = read(&[include_str!("samples/statements.yaml")]).unwrap();
    let service = &loaded.file.service;
    assert_eq!(service.workers, 2);
    assert_eq!(service.shutdown_timeout, Duration::from_secs(90));
    assert_eq!(service.memory_limit_mib, Some(128));
    check(
        &with_service(
            "{workers: -1, shutdown_timeout: 5d, memory_limit_mib: 0, wrokers: 1, sandbox: {write: [a]},
             pipelines: {logs: {receivers: [otlp], exporters: [debug]}}}",
        ),
        &[
            "c.yaml:5:20: service::workers: found -1, allowed: an integer up to 1024",
            "c.yaml:5:42: service::shutdown_timeout: found \"5d\", allowed: a duration such as \
             500ms, 30s or 1h30m (units ns, us, ms, s, m, h)",
            "c.yaml:5:64: service::memory_limit_mib: found 0, allowed: an integer from 1 up to \
             1073741824",
            "c.yaml:5:96: service::sandbox::write: each must be an absolute path",
            "c.yaml:5:67: service::wrokers: unknown option \"wrokers\"; allowed: telemetry, \
             extensions, pipelines, workers, shutdown_timeout, memory_limit_mib, sandbox, admin; did \
             you mean \"workers\"?",
        ],
    );
}

#[test]
fn every_reference_to_what_is_not_configured_is_reported_with_the_nearest_name() {
    check(
        &with_service(
            "
  extensions: [health_chek]
  pipelines:
    logs/a: {receivers: [otpl], processors: [batch, btach], exporters: [debug, loki/b]}
    traces: {receivers: [otlp], processors: [none], exporters: [debug]}",
        ),
        &[
            "c.yaml:6:16: service::extensions: references extension \"health_chek\" which is not \
             configured; allowed: health_check; did you mean \"health_check\"?",
            "c.yaml:8:26: service::pipelines::logs/a: references receiver \"otpl\" which is not \
             configured; allowed: otlp, filelog; did you mean \"otlp\"?",
            "c.yaml:8:53: service::pipelines::logs/a: references processor \"btach\" which is not \
             configured; allowed: batch; did you mean \"batch\"?",
            "c.yaml:8:80: service::pipelines::logs/a: references exporter \"loki/b\" which is not \
             configured; allowed: debug, loki/a; did you mean \"loki/a\"?",
            "c.yaml:9:46: service::pipelines::traces: references processor \"none\" which is not \
             configured; allowed: batch",
        ],
    );
}

#[test]
fn pipelines_need_two_ends_and_processors_come_once() {
    check(
        &with_service(
            "
  pipelines:
    logs: {receivers: [], exporters: [debug]}
    traces: {receivers: [otlp], processors: [batch, batch]}
    metrics:",
        ),
        &[
            "c.yaml:7:5: service::pipelines::logs: must have at least one receiver",
            "c.yaml:8:5: service::pipelines::traces: must have at least one exporter",
            "c.yaml:8:53: service::pipelines::traces: references processor \"batch\" multiple \
             times",
            "c.yaml:9:5: service::pipelines::metrics: must have at least one receiver",
            "c.yaml:9:5: service::pipelines::metrics: must have at least one exporter",
        ],
    );
    check(
        "receivers: {otlp: }\nservice:\n",
        &[
            "c.yaml:1:1: exporters: no exporter configuration specified in config",
            "c.yaml:2:8: service::pipelines: service must have at least one pipeline",
        ],
    );
    check("", &["c.yaml:1:1: empty configuration file"]);
    check("service: {}", &["c.yaml:1:1: empty configuration file"]);
}

#[test]
fn a_repeated_reference_without_effect_is_a_warning() {
    let service = "{pipelines: {logs: {receivers: [otlp, otlp], exporters: [debug]}}}";
    let (loaded, warnings) = read(&[&with_service(service)]).unwrap();
    assert_eq!(loaded.file.service.pipelines[0].receivers.len(), 1);
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "c.yaml:1:21: receivers::filelog: \"filelog\" alias is deprecated; use \"file_log\" \
             instead",
            "c.yaml:5:48: service::pipelines::logs::receivers: \"otlp\" is named more than once, \
             which has no effect",
        ]
    );
}

#[test]
fn unknown_keys_and_wrong_types_do_not_hide_each_other() {
    check(
        "recievers: {otlp: }\nexporters: [debug]\nprocessors: {batch: 1}\nservice: {pipelines: []}",
        &[
            "c.yaml:3:21: processors::batch: found an integer, allowed: a map, or null for all defaults",
            "c.yaml:2:12: exporters: found a list, allowed: a map",
            "c.yaml:4:22: service::pipelines: found a list, allowed: a map",
            "c.yaml:1:1: recievers: unknown option \"recievers\"; allowed: receivers, processors, \
             exporters, connectors, extensions, service; did you mean \"receivers\"?",
        ],
    );
    check(
        "[a]",
        &["c.yaml:1:1: no configuration; found a list, allowed: a map"],
    );
}

#[test]
fn ids_are_trimmed_split_at_the_first_slash_and_checked() {
    for (text, expect) in [
        ("otlp", "otlp"),
        (" otlp / a ", "otlp/a"),
        ("otlp/a/b", "otlp/a/b"),
        ("o_1/\u{e9}-.:", "o_1/\u{e9}-.:"),
    ] {
        assert_eq!(ComponentId::parse(text).unwrap().to_string(), expect);
    }
    let long = format!("a/{}", "x".repeat(1025));
    let type_of_64 = "x".repeat(64);
    for (text, expect) in [
        ("", "id must not be empty"),
        ("  ", "id must not be empty"),
        ("/a", "the part before / should not be empty"),
        ("a/", "the part after / should not be empty"),
        ("a/ ", "the part after / should not be empty"),
        ("1a", "invalid character(s) in type \"1a\""),
        ("a-b", "invalid character(s) in type \"a-b\""),
        (&type_of_64, "invalid character(s) in type"),
        ("a/b c", "invalid character(s) in name \"b c\""),
        ("a/b$", "invalid character(s) in name \"b$\""),
        ("a/b\u{7}", "invalid character(s) in name"),
        (&long, "longer than 1024 characters (1025 characters)"),
    ] {
        let error = ComponentId::parse(text).unwrap_err().to_string();
        assert!(error.contains(expect), "{text:?}: {error}");
    }
    check(
        "receivers: {a: , ' a': , b/: }\nservice: {pipelines: {logs: , 'logs ': , spans: , \
         profiles/x: , 'lgos/a': }}",
        &[
            "c.yaml:1:18: receivers:: a: duplicate name \" a\" after unmarshaling a, first at \
             c.yaml:1:13",
            "c.yaml:1:26: receivers::b/: in \"b/\" id: the part after / should not be empty",
            "c.yaml:2:31: service::pipelines::logs : duplicate name \"logs \" after unmarshaling \
             logs, first at c.yaml:2:23",
            "c.yaml:2:42: service::pipelines::spans: in \"spans\" id: unknown signal \"spans\"; \
             allowed: traces, metrics, logs",
            "c.yaml:2:51: service::pipelines::profiles/x: pipeline \"profiles/x\": profiling \
             signal support is at alpha level, gated under the \"service.profilesSupport\" feature \
             gate; it is not supported here",
            "c.yaml:2:65: service::pipelines::lgos/a: in \"lgos/a\" id: unknown signal \"lgos\"; \
             allowed: traces, metrics, logs; did you mean \"logs\"?",
        ],
    );
}

#[test]
fn connectors_connect_have_ids_of_their_own_and_never_run_in_circles() {
    assert!(read(&[include_str!("samples/connectors.yaml")]).is_ok());
    let top = "receivers: {otlp: , c: }\nexporters: {debug: , c: }\nconnectors: {c: , f: , g: }\n";
    check(
        &format!(
            "{top}service: {{pipelines: {{logs: {{receivers: [otlp], exporters: [f]}}, \
                  traces: {{receivers: [g], exporters: [debug]}}}}}}"
        ),
        &[
            "c.yaml:3:14: connectors::c: ambiguous ID: Found both \"c\" exporter and \"c\" \
             connector. Change one of the components' IDs to eliminate ambiguity (e.g. rename \
             \"c\" connector to \"c/connector\"); the exporter is at c.yaml:2:22",
            "c.yaml:3:14: connectors::c: ambiguous ID: Found both \"c\" receiver and \"c\" \
             connector. Change one of the components' IDs to eliminate ambiguity (e.g. rename \
             \"c\" connector to \"c/connector\"); the receiver is at c.yaml:1:21",
            "c.yaml:3:19: connectors::f: connector \"f\" used as exporter in [logs] pipeline but \
             not used in any supported receiver pipeline; name it among the receivers of another \
             pipeline, or take it out",
            "c.yaml:3:24: connectors::g: connector \"g\" used as receiver in [traces] pipeline but \
             not used in any supported exporter pipeline; name it among the exporters of another \
             pipeline, or take it out",
        ],
    );
    check(
        "receivers: {otlp: }\nexporters: {debug: }\nconnectors: {f: , g: }\nservice:\n  \
         pipelines:\n    logs/in: {receivers: [otlp], exporters: [f]}\n    \
         logs/a: {receivers: [f, g], exporters: [g, debug]}\n",
        &[
            "c.yaml:3:19: connectors::g: cycle detected: pipeline \"logs/a\" -> connector \"g\" -> \
             pipeline \"logs/a\"; take one of these connectors out of the exporters of the \
             pipeline before it",
        ],
    );
    check(
        "receivers: {otlp: }\nexporters: {debug: }\nconnectors: {f: , g: }\nservice:\n  \
         pipelines:\n    logs/out: {receivers: [f], exporters: [debug]}\n    \
         logs/1: {receivers: [otlp, g], exporters: [f]}\n    \
         logs/2: {receivers: [f], exporters: [g]}\n",
        &[
            "c.yaml:3:14: connectors::f: cycle detected: pipeline \"logs/1\" -> connector \"f\" -> \
             pipeline \"logs/2\" -> connector \"g\" -> pipeline \"logs/1\"; take one of these \
             connectors out of the exporters of the pipeline before it",
        ],
    );
    // What one connector does for two signals is no circle.
    let both = "receivers: {otlp: }\nexporters: {debug: }\nconnectors: {f: , g: }\nservice:\n  \
                pipelines:\n    logs/1: {receivers: [otlp], exporters: [f]}\n    \
                logs/2: {receivers: [f], exporters: [g]}\n    \
                logs/3: {receivers: [g], exporters: [debug]}\n    \
                traces/1: {receivers: [otlp], exporters: [g]}\n    \
                traces/2: {receivers: [g], exporters: [f]}\n    \
                traces/3: {receivers: [f], exporters: [debug]}\n";
    check(both, &[]);
}

/// `n` connectors in a row, each with `wide` pipelines behind it.
fn row_of_connectors(n: usize, wide: usize) -> String {
    let mut connectors = String::new();
    let mut pipelines = "logs/in: {receivers: [otlp], exporters: [f/0]}\n".to_owned();
    for i in 0..n {
        connectors += &format!("f/{i}: , ");
        let end = if i + 1 == n {
            "debug".to_owned()
        } else {
            format!("f/{}", i + 1)
        };
        for w in 0..wide {
            pipelines += &format!("    logs/{i}-{w}: {{receivers: [f/{i}], exporters: [{end}]}}\n");
        }
    }
    format!(
        "receivers: {{otlp: }}\nexporters: {{debug: }}\nconnectors: {{{connectors}}}\nservice:\n  \
         pipelines:\n    {pipelines}"
    )
}

#[test]
fn connectors_have_limits_in_length_and_in_ways() {
    check(&row_of_connectors(32, 1), &[]);
    check(&row_of_connectors(9, 2), &[]);
    check(
        &row_of_connectors(33, 1),
        &[
            "c.yaml:6:5: service::pipelines::logs/in: leads through 33 connectors in a row, at \
             most 32 are allowed; put pipelines together",
        ],
    );
    let many = "c.yaml:6:5: service::pipelines::logs/in: leads to exporters by more than 1000 ways \
                through connectors, each of which would have everything once; take connectors out \
                of pipelines";
    check(&row_of_connectors(10, 2), &[many]);
    check(&row_of_connectors(32, 8), &[many]);
    // Many pipelines into one that has many exporters.
    let numbers = |n: usize, text: &str| -> Vec<String> {
        (0..n).map(|i| text.replace('#', &i.to_string())).collect()
    };
    let joined = |n: usize| {
        let begin = "    logs/#: {receivers: [otlp], exporters: [f]}\n";
        format!(
            "receivers: {{otlp: }}\nexporters: {{{}}}\nconnectors: {{f: }}\nservice:\n  \
             pipelines:\n{}    logs/end: {{receivers: [f], exporters: [{}]}}\n",
            numbers(100, "debug/#: ").join(", "),
            numbers(n, begin).join(""),
            numbers(100, "debug/#").join(", ")
        )
    };
    check(&joined(100), &[]);
    check(
        &joined(101),
        &[
            "c.yaml:106:5: service::pipelines::logs/100: this one and those before it lead to \
             exporters by more than 10000 ways through connectors in all; put pipelines together",
        ],
    );
}

#[test]
fn problems_of_every_source_are_reported_at_once() {
    let shown = read(&["a: [", "b: 1\nb: 2", "c: 3\n---\n"])
        .unwrap_err()
        .to_string();
    for expect in [
        "c0.yaml:",
        "c1.yaml:2:1: key \"b\" is given twice",
        "c2.yaml:2:1: more than",
    ] {
        assert!(shown.contains(expect), "{shown}");
    }
}

#[test]
fn later_sources_and_sets_win_and_keep_their_positions() {
    let env = MemoryEnvironment::new()
        .with_file(
            "base.yaml",
            with_service("{pipelines: {logs: {receivers: [otlp], exporters: [debug]}}}"),
        )
        .with_variable("MORE", "receivers: {filelog: {include: [a]}}")
        .with_file("over.yaml", "processors:\n");
    let sources: Vec<Source> = [
        "base.yaml",
        "env:MORE",
        "file:over.yaml",
        "yaml:service::workers: 3",
    ]
    .iter()
    .map(|uri| Source::parse(uri).unwrap())
    .collect();
    let sets = [
        "service.workers=4".to_owned(),
        "service.pipelines.logs.exporters=[loki/a]".to_owned(),
    ];
    let (loaded, _) = load_all(&sources, &sets, &env).unwrap();
    assert_eq!(loaded.file.service.workers, 4);
    assert!(loaded.file.processors.is_empty(), "a null deletes the map");
    let include = loaded.root.at("receivers::filelog::include").unwrap();
    assert_eq!(include.span.to_string(), "env:MORE:1:32");
    assert_eq!(
        loaded.file.service.pipelines[0].exporters[0].id.to_string(),
        "loki/a"
    );
    assert!(
        load_all(&[], &[], &env)
            .unwrap_err()
            .to_string()
            .contains("no configuration given")
    );
}

#[test]
fn old_spellings_have_a_present_one_for_their_kind_only() {
    use ComponentKind::{Exporter, Processor, Receiver};
    for (kind, name, expect, is_alias) in [
        (Receiver, "filelog", "file_log", true),
        (Receiver, "file_log", "file_log", false),
        (Receiver, "otlp", "otlp", false),
        (Exporter, "otlp", "otlp_grpc", true),
        (Exporter, "otlphttp", "otlp_http", true),
        (Processor, "k8sattributes", "k8s_attributes", true),
        (Processor, "filelog", "filelog", false),
    ] {
        let got = canonical_type(kind, name);
        assert_eq!(
            (got.name, got.is_alias),
            (expect, is_alias),
            "{kind} {name}"
        );
    }
}
