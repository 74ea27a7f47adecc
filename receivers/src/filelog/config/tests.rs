//! Which options there are, their defaults, and what is refused.

use super::*;
use crate::input::frame::Units;
use tailwater_config::{Errors, parse};

fn decode(yaml: &str) -> Result<(FilelogConfig, Errors), Errors> {
    let node = parse(yaml, "test.yaml")?;
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "receivers::filelog", &mut errors);
    let config = FilelogConfig::decode(&mut section);
    section.finish();
    if errors.is_empty() {
        Ok((config, errors))
    } else {
        Err(errors)
    }
}

fn good(yaml: &str) -> FilelogConfig {
    decode(&format!("include: [a]\n{yaml}"))
        .unwrap_or_else(|e| panic!("{yaml}: {e}"))
        .0
}

/// Exactly one problem, whose text holds `want`.
fn refused(yaml: &str, want: &str) {
    let yaml = if yaml.contains("include") {
        yaml.to_owned()
    } else {
        format!("include: [a]\n{yaml}")
    };
    let errors = decode(&yaml)
        .err()
        .unwrap_or_else(|| panic!("accepted: {yaml}"));
    assert_eq!(errors.len(), 1, "{yaml}: {errors}");
    let text = errors.to_string();
    assert!(text.contains(want), "{yaml}: {text}");
    assert!(text.starts_with("test.yaml:"), "no place: {text}");
}

#[test]
fn defaults_are_those_of_the_collector() {
    let c = good("");
    assert_eq!(
        c.include.iter().map(Glob::source).collect::<Vec<_>>(),
        ["a"]
    );
    assert!(c.exclude.is_empty() && c.ordering.is_none() && c.header.is_none());
    assert!(c.multiline.is_none() && c.operators.is_empty() && c.storage.is_none());
    assert!(!c.delete_after_read && !c.acquire_fs_lock && !c.file_cache_advise);
    assert_eq!(c.start_at, StartAt::End);
    assert_eq!(c.poll_interval, Duration::from_millis(200));
    assert_eq!(c.force_flush_period, Duration::from_millis(500));
    assert_eq!((c.fingerprint_bytes, c.max_log_bytes), (1000, 1 << 20));
    assert_eq!(
        (c.charset, c.oversize, c.trim),
        (Charset::Utf8, Oversize::Split, Trim::default())
    );
    assert_eq!(
        (c.compression, c.on_truncate),
        (GzipRule::Never, OnTruncate::Detect)
    );
    let only_name = FileAttributeRules {
        name: true,
        ..FileAttributeRules::default()
    };
    assert_eq!(c.file_attributes, only_name);
    assert_eq!(
        (c.open_files_max, c.operator_id.as_str()),
        (1024, "file_input")
    );
    let hold = DeletedFiles {
        hold_bytes_max: 1 << 30,
        hold_age_max: Duration::from_secs(3600),
    };
    assert_eq!((c.deleted_files, c.watch), (hold, WatchMode::Auto));
    assert_eq!(c.exclude_older_than, Duration::ZERO);
}

#[test]
fn every_option_is_read() {
    let c = good(
        "exclude: '*.gz,*.tmp'\nexclude_older_than: 24h\nstart_at: beginning\n\
         poll_interval: 1000000000\n\
         max_concurrent_files: 9223372036854775807\nfingerprint_size: 1.1kb\n\
         initial_buffer_size: 64KiB\n\
         max_log_size: 1mib\nmax_log_size_behavior: truncate\nencoding: UTF-16lE\n\
         multiline: {line_end_pattern: '%', omit_pattern: true}\nforce_flush_period: 0s\n\
         preserve_leading_whitespaces: true\npreserve_trailing_whitespaces: true\n\
         include_file_name: false\ninclude_file_path: true\ninclude_file_name_resolved: true\n\
         include_file_path_resolved: true\ninclude_file_owner_name: true\n\
         include_file_owner_group_name: true\ninclude_file_permissions: true\n\
         include_file_record_number: true\ninclude_file_record_offset: true\ncompression: auto\n\
         delete_after_read: true\n\
         header: {pattern: '^#', metadata_operators: [{type: regex_parser}]}\n\
         acquire_fs_lock: true\nfile_cache_advise: true\non_truncate: read_new\n\
         attributes: {a: b}\nresource: {c: 'EXPR(env(\"D\"))'}\nstorage: file_storage/x\n\
         operators: [{type: json_parser}]\nid: in\ntype: file_input\n\
         deleted_files: {hold_bytes_max: 5GiB, hold_age_max: 2h}\n\
         watch: poll\nrescan_interval: 1m\n",
    );
    assert_eq!(c.exclude.len(), 2);
    assert_eq!(c.exclude_older_than, Duration::from_secs(86_400));
    assert_eq!(
        (c.start_at, c.poll_interval),
        (StartAt::Beginning, Duration::from_secs(1))
    );
    assert_eq!(
        (c.fingerprint_bytes, c.initial_buffer_bytes),
        (1100, Some(65_536))
    );
    assert_eq!((c.max_log_bytes, c.oversize), (1 << 20, Oversize::Truncate));
    assert_eq!(
        (c.charset, c.force_flush_period),
        (Charset::Utf16Le, Duration::ZERO)
    );
    assert!(c.multiline.as_ref().is_some_and(|m| m.at_end && m.omit));
    assert_eq!(c.trim, Trim::NONE);
    let a = &c.file_attributes;
    assert!(!a.name && a.path && a.name_resolved && a.path_resolved && a.owner && a.group);
    assert!(a.permissions && a.record_number && a.record_offset);
    assert_eq!(
        (c.compression, c.on_truncate),
        (GzipRule::Auto, OnTruncate::ReadNew)
    );
    assert!(c.delete_after_read && c.acquire_fs_lock && c.file_cache_advise);
    assert_eq!(
        c.header.as_ref().map(|h| h.metadata_operators.len()),
        Some(1)
    );
    assert_eq!(c.attributes, [("a".to_owned(), "b".to_owned())]);
    assert_eq!(
        c.resource,
        [("c".to_owned(), "EXPR(env(\"D\"))".to_owned())]
    );
    assert!(c.storage.is_some());
    assert_eq!((c.operators.len(), c.operator_id.as_str()), (1, "in"));
    assert_eq!(c.deleted_files.hold_bytes_max, 5 << 30);
    assert_eq!(
        (c.watch, c.rescan_interval),
        (WatchMode::Poll, Duration::from_secs(60))
    );
    assert_eq!(c.open_files_max, usize::MAX / 2);
    assert_eq!(
        good("max_concurrent_files: 5\nopen_files_max: 7").open_files_max,
        7
    );
}

#[test]
fn wrong_values_are_refused_by_name_and_place() {
    refused("include: []", "'include' must be specified");
    refused("include:", "'include' must be specified");
    refused("include: ['a[']", "a '[' is not closed");
    refused("exclude: ['{a']", "a '{' is not closed");
    refused("start_at: middle", "start_at");
    refused("poll_interval: 0s", "poll_interval");
    refused("fingerprint_size: 15", "fingerprint_size");
    refused("max_log_size: 0", "max_log_size");
    refused("max_log_size: 1TOFU", "max_log_size");
    refused("max_concurrent_files: 0", "max_concurrent_files");
    refused("max_batches: -1", "max_batches");
    refused("encoding: klingon", "unsupported encoding \"klingon\"");
    refused(
        "multiline: {line_start_pattern: foo, line_end_pattern: bar}",
        "only one of line_start_pattern or line_end_pattern can be set",
    );
    refused("multiline: {that_random_field: x}", "that_random_field");
    refused(
        "multiline: {line_start_pattern: '('}",
        "is no regular expression",
    );
    refused("multiline: {omit_pattern: true}", "no pattern to omit");
    refused("multiline: {line_start_pattern: x}\nencoding: nop", "nop");
    refused("delete_after_read: true", "start_at: beginning");
    refused(
        "header: {pattern: x, metadata_operators: [{type: noop}]}",
        "start_at: beginning",
    );
    refused(
        "start_at: beginning\nheader: {pattern: x}",
        "at least one operator",
    );
    refused(
        "start_at: beginning\nheader: {pattern: x, metadata_operators: [{type: filter, expr: 'true'}]}",
        "filter cannot be used on header lines",
    );
    refused(
        "start_at: beginning\nheader: {metadata_operators: [{type: noop}]}",
        "pattern",
    );
    refused("compression: zstd", "compression");
    refused("on_truncate: cry", "on_truncate");
    refused("output: x", "not supported");
    refused("type: tcp_input", "file_input");
    refused("no_such_option: 1", "no_such_option");
    refused("watch: fanotify", "inotify");
    refused("deleted_files: {hold_age_max: x}", "hold_age_max");
}

#[test]
fn ordering_is_validated() {
    let c = good(
        "ordering_criteria: {regex: '(?P<n>\\d+)', group_by: '^(.)', top_n: 3, \
         sort_by: [{sort_type: numeric, regex_key: n}, \
         {sort_type: timestamp, regex_key: n, layout: '%Y%m%d%H', \
         location: utc, ascending: true}]}",
    );
    let o = c.ordering.unwrap();
    assert_eq!(
        (o.top_n, o.sort_by.len(), o.sort_by[1].ascending),
        (3, 2, true)
    );
    let one =
        |sort: &str| format!("ordering_criteria: {{regex: '(?P<n>.)', sort_by: [{{{sort}}}]}}");
    assert_eq!(
        good(&one("sort_type: mtime, max_time: 1h"))
            .ordering
            .unwrap()
            .top_n,
        1
    );
    assert!(good("ordering_criteria: {top_n: 10}").ordering.is_none());
    refused(&one("sort_type: size"), "sort_type");
    refused(&one("regex_key: n"), "'sort_type' must be specified");
    refused(
        &one("sort_type: numeric, regex_key: m"),
        "no capture named \"m\"",
    );
    refused(
        &one("sort_type: timestamp, regex_key: n"),
        "layout must be specified",
    );
    refused(
        &one("sort_type: timestamp, regex_key: n, layout: '%Y', location: Nowhere"),
        "location",
    );
    refused(&one("sort_type: mtime, ascending: true"), "newest");
    refused(
        "ordering_criteria: {sort_by: [{sort_type: numeric, regex_key: n}]}",
        "'regex' must be specified when 'sort_by' is specified",
    );
    refused("ordering_criteria: {top_n: -1}", "top_n");
}

#[test]
fn options_without_effect_are_warned_about() {
    for (yaml, about) in [
        ("max_batches: 1", "max_batches"),
        ("polls_to_archive: 3", "polls_to_archive"),
        ("retry_on_failure: {enabled: true}", "retry_on_failure"),
        ("ordering_criteria: {top_n: 10}", "sort_by"),
    ] {
        let (_, errors) = decode(&format!("include: [a]\n{yaml}")).unwrap();
        let warnings: Vec<_> = errors.warnings().iter().map(ToString::to_string).collect();
        assert!(
            warnings.len() == 1 && warnings[0].contains(about),
            "{yaml}: {warnings:?}"
        );
    }
}

#[test]
fn framing_follows_the_options() {
    let c = good(
        "multiline: {line_start_pattern: '^\\d'}\nmax_log_size: 77\n\
         max_log_size_behavior: truncate",
    );
    let spec = c.frame_spec(Charset::Utf16Be);
    assert!(matches!(spec.split, Split::LineStart { omit: false, .. }));
    assert_eq!(
        (spec.units, spec.max_log_bytes, spec.oversize),
        (Units::Utf16Be, 77, Oversize::Truncate)
    );
    assert!(matches!(
        good("").frame_spec(Charset::Utf8).split,
        Split::Newline
    ));
    assert!(matches!(
        good("").frame_spec(Charset::Nop).split,
        Split::None
    ));
}

#[test]
fn files_are_named_one_by_one() {
    let yaml = "include: ['/b/*.log']\nfiles: [{path: '/a*/[x].log', resource: {service: web, n: '1'}}, {path: /c}]";
    let c = decode(yaml).unwrap().0;
    let named = NamedFile {
        path: "/a*/[x].log".into(),
        resource: vec![("service".into(), "web".into()), ("n".into(), "1".into())],
    };
    assert_eq!(c.files[0], named);
    let matches = |path: &str| c.finder().matches(std::path::Path::new(path));
    assert!(matches("/a*/[x].log") && matches("/c") && matches("/b/y.log"));
    assert!(!matches("/ab/x.log") && !matches("/c/d"));
    // None yet.
    let none = decode("files: []").unwrap().0;
    assert!(none.files.is_empty() && none.include.is_empty());
    for (yaml, want) in [
        ("files: [{path: a.log}]", "not absolute"),
        ("files: [{path: /a}, {path: /a}]", "named twice"),
        ("files: [{resource: {a: b}}]", "path: is required"),
        ("files: [{path: /a, labels: {}}]", "labels"),
        ("files: [{path: /a, resource: {a: [b]}}]", "resource"),
    ] {
        let errors = decode(yaml)
            .err()
            .unwrap_or_else(|| panic!("accepted: {yaml}"));
        assert!(errors.to_string().contains(want), "{yaml}: {errors}");
    }
}
