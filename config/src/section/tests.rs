use std::time::Duration;

use super::*;
use crate::parse::parse;
use crate::reference::ValueKind;
use crate::secret::Secret;
use crate::{MemoryEnvironment, substitute};

/// Decodes a text and gives what `decode` gave with all problems as shown.
fn run<T>(text: &str, decode: impl FnOnce(&mut Section<'_, '_>) -> T) -> (T, Vec<String>) {
    let node = parse(text, "f").unwrap();
    let (node, mut errors) = substitute(node, &MemoryEnvironment::new());
    let mut section = Section::new(&node, "at", &mut errors);
    let value = decode(&mut section);
    section.finish();
    (value, errors.iter().map(ToString::to_string).collect())
}

fn value<T>(text: &str, decode: impl FnOnce(&mut Section<'_, '_>) -> T) -> T {
    let (value, errors) = run(text, decode);
    assert!(errors.is_empty(), "{text}: {errors:?}");
    value
}

/// Checks that decoding gives the default and one problem.
fn refuses<T>(text: &str, expect: &str, decode: impl FnOnce(&mut Section<'_, '_>) -> T) -> T {
    let (value, errors) = run(text, decode);
    assert_eq!(errors, [expect], "{text}");
    value
}

#[test]
fn all_problems_are_reported_at_once_each_with_position_path_and_what_is_allowed() {
    let (_, errors) = run(
        "start_at: midle\ninclude: 5\npol_interval: 1s\npoll_interval: 5\n\
         nested:\n  on: yes\n  of: 1\n",
        |s| {
            s.one_of("start_at", &["beginning", "end", "middle"], "end");
            s.string_list("include");
            s.duration("poll_interval", Duration::from_secs(1));
            s.string_required("endpoint");
            s.section("nested", |s| s.bool("on", false));
        },
    );
    assert_eq!(
        errors,
        [
            "f:1:11: at::start_at: found \"midle\", allowed: beginning, end, middle; did you mean \
             \"middle\"?",
            "f:2:10: at::include: found 5, allowed: a list of strings",
            "f:1:1: at::endpoint: is required",
            "f:6:7: at::nested::on: found \"yes\", allowed: true, false",
            "f:7:3: at::nested::of: unknown option \"of\"; allowed: on; did you mean \"on\"?",
            "f:3:1: at::pol_interval: unknown option \"pol_interval\"; allowed: start_at, include, \
             poll_interval, endpoint, nested; did you mean \"poll_interval\"?",
        ]
    );
}

#[test]
fn absent_and_null_options_keep_their_defaults() {
    for text in [
        "{}",
        "",
        "{a: , b: , c: , d: , e: , f: , g: , h: , i: , j: , k: , l: }",
    ] {
        value(text, |s| {
            assert!(s.bool("a", true));
            assert_eq!(s.string("b", "x"), "x");
            assert_eq!(s.i64("c", -5, ..), -5);
            assert_eq!(s.u64("d", 5, ..), 5);
            assert_eq!(s.f64("e", 0.5, ..), 0.5);
            assert_eq!(
                s.duration("f", Duration::from_secs(1)),
                Duration::from_secs(1)
            );
            assert_eq!(s.byte_size("g", 1024, ..), 1024);
            assert_eq!(s.string_list("h"), None);
            assert_eq!(s.string_map("i"), None);
            assert_eq!(s.secret("j"), None);
            assert_eq!(s.one_of("k", &["x", "y"], "y"), "y");
            assert_eq!(s.component_id("l"), None);
        });
    }
}

#[test]
fn numbers_are_checked_against_their_range() {
    assert_eq!(
        value("{a: 0x10, b: 1e3}", |s| (
            s.u64("a", 0, ..),
            s.usize("b", 0, ..)
        )),
        (16, 1000)
    );
    let max = value("a: 18446744073709551615", |s| s.u64("a", 0, ..));
    assert_eq!(max, u64::MAX, "not rounded");
    refuses(
        "a: 0",
        "f:1:4: at::a: found 0, allowed: an integer from 1 up to 10",
        |s| assert_eq!(s.usize("a", 3, 1..=10), 3),
    );
    refuses(
        "a: -1",
        "f:1:4: at::a: found -1, allowed: an integer",
        |s| s.u64("a", 3, ..),
    );
    refuses(
        "a: 1.5",
        "f:1:4: at::a: found 1.5, allowed: an integer",
        |s| s.i64("a", 3, ..),
    );
    refuses(
        "a: '1'",
        "f:1:4: at::a: found \"1\", allowed: an integer",
        |s| s.i64("a", 3, ..),
    );
    refuses(
        "a: 18446744073709551615",
        "f:1:4: at::a: found 18446744073709551615, allowed: an integer",
        |s| s.i64("a", 3, ..),
    );
    assert_eq!(
        value("{a: 1, b: .inf}", |s| (
            s.f64("a", 0.0, ..),
            s.f64("b", 0.0, ..)
        ))
        .0,
        1.0
    );
    refuses(
        "a: 1.5",
        "f:1:4: at::a: found 1.5, allowed: a number from 0 below 1",
        |s| s.f64("a", 0.0, 0.0..1.0),
    );
    refuses(
        "a: .nan",
        "f:1:4: at::a: found .nan, allowed: a number",
        |s| s.f64("a", 0.0, ..),
    );
}

#[test]
fn a_number_is_no_text_unless_it_came_from_a_placeholder() {
    let shown = "f:1:4: at::a: found 012 (an integer), allowed: a string; did you mean \"012\"?";
    refuses("a: 012", shown, |s| s.string("a", ""));
    assert_eq!(value("a: ${yaml:012}", |s| s.string("a", "")), "012");
    assert_eq!(value("a: ${yaml:012}", |s| s.i64("a", 0, ..)), 10);
    assert_eq!(value("a: ${env:NONE}", |s| s.string("a", "default")), "");
    assert_eq!(
        value("a: [x, '${yaml:true}']", |s| s.string_list("a")).unwrap(),
        ["x", "true"]
    );
    refuses(
        "a: [x, true]",
        "f:1:8: at::a::1: found true, allowed: a string; did you mean \"true\"?",
        |s| s.string_list("a"),
    );
    refuses("a: ''", "f:1:4: at::a: is required", |s| {
        s.string_required("a")
    });
}

#[test]
fn durations_are_go_durations_or_whole_nanoseconds() {
    let zero = Duration::ZERO;
    for (text, nanoseconds) in [("1h30m", 5_400_000_000_000), ("5", 5), ("0", 0), ("'0'", 0)] {
        let got = value(&format!("a: {text}"), |s| s.duration("a", zero));
        assert_eq!(got, Duration::from_nanos(nanoseconds), "{text}");
    }
    let negative = "f:1:4: at::a: found \"-1s\", allowed: a duration that is not negative";
    refuses("a: -1s", negative, |s| s.duration("a", zero));
    assert_eq!(
        value("a: -1s", |s| s.duration_signed("a", 0)),
        -1_000_000_000
    );
    let form = "allowed: a duration such as 500ms, 30s or 1h30m (units ns, us, ms, s, m, h)";
    refuses(
        "a: 5d",
        &format!("f:1:4: at::a: found \"5d\", {form}"),
        |s| s.duration("a", zero),
    );
    refuses(
        "a: '5'",
        &format!("f:1:4: at::a: found \"5\", {form}"),
        |s| s.duration("a", zero),
    );
    refuses("a: 1.5", &format!("f:1:4: at::a: found 1.5, {form}"), |s| {
        s.duration("a", zero)
    });
    let range = "f:1:4: at::a: found \"1ms\", allowed: a duration from 10ms up to 1m";
    refuses("a: 1ms", range, |s| {
        s.duration_in(
            "a",
            zero,
            Duration::from_millis(10)..=Duration::from_secs(60),
        )
    });
}

#[test]
fn byte_sizes_are_plain_or_have_a_unit() {
    for (text, bytes) in [
        ("1MiB", 1 << 20),
        ("1024", 1024),
        ("'1 kb'", 1000),
        ("1.9", 1),
    ] {
        assert_eq!(
            value(&format!("a: {text}"), |s| s.byte_size("a", 0, ..)),
            bytes,
            "{text}"
        );
    }
    let (_, errors) = run("{a: 1mb2, b: -1, c: 15}", |s| {
        s.byte_size("a", 0, ..);
        s.byte_size("b", 0, ..);
        s.byte_size("c", 0, 16..)
    });
    assert!(errors[0].starts_with("f:1:5: at::a: found \"1mb2\", allowed: a number of bytes"));
    assert!(errors[1].starts_with("f:1:14: at::b: found -1, allowed: a number of bytes"));
    assert_eq!(
        errors[2],
        "f:1:21: at::c: found 15, allowed: a number of bytes from 16"
    );
}

#[test]
fn a_text_is_a_list_split_at_commas_and_an_empty_list_replaces() {
    assert_eq!(
        value("a: x,y, z", |s| s.string_list("a")).unwrap(),
        ["x", "y", " z"]
    );
    assert_eq!(value("a: ''", |s| s.string_list("a")), Some(vec![]));
    assert_eq!(value("a: []", |s| s.string_list("a")), Some(vec![]));
    assert_eq!(
        value("a: ${yaml:[x, y]}", |s| s.string_list("a")).unwrap(),
        ["x", "y"]
    );
}

#[test]
fn optional_sections_can_be_switched_on_and_off() {
    let read = |text: &str, on: bool| {
        value(text, |s| {
            s.optional_section("grpc", on, |s| s.string("endpoint", "default"))
        })
    };
    for (text, off_by_default, on_by_default) in [
        ("{}", None, Some("default")),
        ("grpc:", Some("default"), Some("default")),
        ("grpc: {}", Some("default"), Some("default")),
        ("grpc: {endpoint: x}", Some("x"), Some("x")),
        ("grpc: {enabled: true}", Some("default"), Some("default")),
        ("grpc: {enabled: false}", None, None),
        ("grpc: {enabled: false, endpoint: x}", None, None),
    ] {
        assert_eq!(read(text, false).as_deref(), off_by_default, "{text}");
        assert_eq!(read(text, true).as_deref(), on_by_default, "{text}");
    }
    let error = "f:1:17: at::grpc::enabled: found \"no\", allowed: true, false";
    refuses("grpc: {enabled: no}", error, |s| {
        s.optional_section("grpc", false, |_| ())
    });
    assert_eq!(value("a:", |s| s.section_if_present("a", |_| ())), None);
    assert_eq!(value("{}", |s| s.section("a", |s| s.i64("x", 7, ..))), 7);
}

#[test]
fn lists_and_maps_of_sections_name_the_element() {
    let text = "list: [{name: a}, 5, {nam: b}]\nmap: {x: {v: 1}, y: , z: {w: 1}}";
    let ((list, map), errors) = run(text, |s| {
        let list = s.section_list("list", |s| s.string("name", "none"));
        (list, s.section_map("map", |_, s| s.i64("v", 0, ..)))
    });
    assert_eq!(list.unwrap(), ["a", "none", "none"]);
    assert_eq!(
        map.unwrap(),
        [("x".into(), 1), ("y".into(), 0), ("z".into(), 0)]
    );
    assert_eq!(
        errors,
        [
            "f:1:19: at::list::1: found an integer, allowed: a map",
            "f:1:23: at::list::2::nam: unknown option \"nam\"; allowed: name; did you mean \
             \"name\"?",
            "f:2:27: at::map::z::w: unknown option \"w\"; allowed: v",
        ]
    );
}

#[test]
fn refused_options_are_named_and_not_suggested() {
    let (_, errors) = run("{cookies: , cookie: 1}", |s| {
        s.refuse("cookies", "use nothing")
    });
    assert_eq!(
        errors,
        [
            "f:1:2: at::cookies: is not supported: use nothing",
            "f:1:13: at::cookie: unknown option \"cookie\"; allowed: none",
        ]
    );
    value("{}", |s| s.refuse("cookies", "use nothing"));
}

#[test]
fn secrets_are_read_but_never_shown() {
    let (secret, map, list) = value("{a: pw, h: {X: 'v', Y: }, l: [{name: X, value: v}]}", |s| {
        (
            s.secret("a").unwrap(),
            s.secret_map("h").unwrap(),
            s.secret_map("l").unwrap(),
        )
    });
    assert_eq!(secret.expose(), "pw");
    assert_eq!(
        map,
        [
            ("X".to_owned(), Secret::new("v")),
            ("Y".to_owned(), Secret::default())
        ]
    );
    assert_eq!(list, [("X".to_owned(), Secret::new("v"))]);
    let shown = format!("{secret} {secret:?} {map:?}");
    assert!(!shown.contains("pw") && !shown.contains("\"v\""), "{shown}");
    let (_, errors) = run("{a: 1234, h: {X: 5678}}", |s| {
        (s.secret("a"), s.secret_map("h"))
    });
    assert_eq!(
        errors,
        [
            "f:1:5: at::a: found an integer (not shown), allowed: a string",
            "f:1:18: at::h::X: found an integer (not shown), allowed: a string",
        ]
    );
    refuses(
        "h: [{name: X, value: pw}, {name: Y, value: pw}, {name: X, value: pw}]",
        "f:1:4: at::h: \"X\" is there twice",
        |s| s.secret_map("h"),
    );
}

#[test]
fn component_ids_are_parsed_and_choices_give_their_value() {
    let id = value("storage: file_storage/a", |s| s.component_id("storage")).unwrap();
    assert_eq!((id.type_name(), id.name()), ("file_storage", "a"));
    refuses(
        "storage: a/",
        "f:1:10: at::storage: in \"a/\" id: the part after / should not be empty",
        |s| s.component_id("storage"),
    );
    let choices = [("low", 1), ("high", 2)];
    assert_eq!(value("level: high", |s| s.choice("level", &choices, 1)), 2);
    refuses(
        "level: hihg",
        "f:1:8: at::level: found \"hihg\", allowed: low, high; did you mean \"high\"?",
        |s| s.choice("level", &choices, 1),
    );
}

#[test]
fn a_section_that_is_no_map_is_one_problem() {
    let (_, errors) = run("[1]", |s| {
        (
            s.string_required("a"),
            s.section("b", |s| s.string_required("c")),
        )
    });
    assert_eq!(errors, ["f:1:1: at: found a list, allowed: a map"]);
}

#[test]
fn free_names_own_checks_and_warnings_are_possible() {
    let node = parse("{known: 1, x: 2, y: 3}", "f").unwrap();
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "", &mut errors);
    section.i64("known", 0, ..);
    let names: Vec<&str> = section
        .remaining(|| vec![ValueKind::Any])
        .iter()
        .map(|(k, _)| k.text.as_str())
        .collect();
    assert_eq!(names, ["x", "y"]);
    section.invalid("known", "must be odder");
    section.invalid("none", "must be there");
    section.error("makes no sense");
    section.warn("x", "is old");
    section.warn("x", "is old");
    section.finish();
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "f:1:9: known: must be odder",
            "f:1:1: none: must be there",
            "f:1:1: makes no sense"
        ]
    );
    let warnings: Vec<String> = errors.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["f:1:15: x: is old"]);
}

#[test]
fn unknown_options_can_be_warnings() {
    let node = parse("{known: 1, knwon: 2, inner: {other: 3}}", "f").unwrap();
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "at", &mut errors);
    section.tolerate_unknown();
    section.i64("known", 0, ..);
    section.section("inner", |inner| inner.i64("one", 0, ..));
    section.finish();
    assert!(errors.is_empty());
    let said: Vec<String> = errors.warnings().iter().map(ToString::to_string).collect();
    let ignored = "the collector ignores it, too";
    assert_eq!(
        said,
        [
            format!("f:1:30: at::inner::other: unknown option \"other\": {ignored}"),
            format!(
                "f:1:12: at::knwon: unknown option \"knwon\": {ignored}; did you mean \"known\"?"
            ),
        ]
    );
}
