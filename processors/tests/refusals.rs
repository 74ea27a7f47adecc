//! Guarantee: what is wrong in a section is said with its place and option, and nothing is
//! silently ignored.

use tailwater_config::{Errors, Section, parse};
use tailwater_pdata::Signal;
use tailwater_processors::attributes::AttributesConfig;
use tailwater_processors::batch::BatchConfig;
use tailwater_processors::memory_limiter::MemoryLimiterConfig;
use tailwater_processors::resource::ResourceSettings;

const MIB: u64 = 1 << 20;

fn decode<T>(yaml: &str, decode: impl FnOnce(&mut Section<'_, '_>, &mut Option<T>)) -> (T, Errors) {
    let node = parse(yaml, "a.yaml").expect("valid YAML");
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "processors::x", &mut errors);
    let mut value = None;
    decode(&mut section, &mut value);
    section.finish();
    (value.expect("set by every caller"), errors)
}

fn attributes(yaml: &str) -> Errors {
    let (config, mut errors) = decode(yaml, |s, v| *v = Some(AttributesConfig::decode(s)));
    if errors.is_empty() {
        config.for_signal(Signal::Logs, &mut errors);
    }
    errors
}

fn check(errors: &Errors, yaml: &str, wants: &[&str]) {
    let text = errors.to_string();
    for want in wants {
        assert!(
            text.contains(want),
            "{yaml}\n  gives  {text}\n  without  {want}"
        );
    }
    assert_eq!(errors.is_empty(), wants.is_empty(), "{yaml}: {text}");
    for error in errors.iter() {
        let span = error
            .span
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(span.starts_with("a.yaml:1:"), "{yaml}: no place in {error}");
    }
}

#[test]
fn actions_say_what_they_need_and_what_they_do_not_use() {
    for (action, wants) in [
        ("{key: a, action: insert, value: 1}", &[][..]),
        ("{key: a, action: UPSERT, value: {b: [1]}}", &[]),
        (
            "{key: a, action: insert, from_attribute: b, default_value: x}",
            &[],
        ),
        ("{pattern: '^a', action: delete}", &[]),
        (
            "{key: a, action: insert}",
            &["\"from_attribute\"", "must be specified"],
        ),
        (
            "{key: a, action: insert, value: 1, from_attribute: b}",
            &["exactly one"],
        ),
        (
            "{action: insert, value: 1}",
            &["actions::0::key: is required"],
        ),
        ("{key: a, value: 1}", &["actions::0::action: is required"]),
        (
            "{key: a, action: inset, value: 1}",
            &["allowed: insert, update", "did you mean \"insert\""],
        ),
        (
            "{key: a, action: insert, value: 1, pattern: x}",
            &["actions::0::pattern", "not use"],
        ),
        (
            "{key: a, action: delete, value: 1}",
            &["actions::0::value", "not use"],
        ),
        ("{action: hash}", &["\"key\" or \"pattern\""]),
        (
            "{pattern: '(', action: delete}",
            &["actions::0::pattern", "regular expression"],
        ),
        (
            "{key: a, action: extract}",
            &["actions::0::pattern: must be specified"],
        ),
        (
            "{key: a, action: extract, pattern: 'x'}",
            &["at least one group"],
        ),
        (
            "{key: a, action: extract, pattern: '(?P<b>x)(y)'}",
            &["every group needs a name"],
        ),
        (
            "{key: a, action: convert}",
            &["converted_type: must be specified"],
        ),
        (
            "{key: a, action: convert, converted_type: bool}",
            &["allowed: string, int, double"],
        ),
        (
            "{key: a, action: insert, valu: 1, value: 1}",
            &["unknown option", "did you mean \"value\""],
        ),
    ] {
        let yaml = format!("actions: [{action}]");
        check(&attributes(&yaml), &yaml, wants);
        let yaml = format!("attributes: [{action}]");
        let (_, errors) = decode(&yaml, |s, v| *v = Some(ResourceSettings::decode(s)));
        assert_eq!(errors.is_empty(), wants.is_empty(), "{yaml}: {errors}");
    }
    check(
        &attributes("actions: []"),
        "no action",
        &["actions: is required"],
    );
    let errors = attributes("actions: [{key: a, action: insert, from_context: auth.x}]");
    assert!(errors.is_empty());
}

#[test]
fn conditions_are_checked_and_those_of_other_signals_refused() {
    for (include, wants) in [
        ("{match_type: strict, log_bodies: [a]}", &[][..]),
        (
            "{match_type: regexp, regexp: {cacheenabled: true, cachemaxnumentries: 9}, \
          attributes: [{key: a}]}",
            &[],
        ),
        (
            "{match_type: strict, log_severity_number: {min: INFO2, match_undefined: true}}",
            &[],
        ),
        (
            "{match_type: strict, log_severity_number: {min: 25}}",
            &["log_severity_number::min"],
        ),
        (
            "{match_type: strict, log_severity_number: {min: LOUD}}",
            &["log_severity_number::min"],
        ),
        ("{log_bodies: [a]}", &["include::match_type: is required"]),
        (
            "{match_type: exact, log_bodies: [a]}",
            &["allowed: strict, regexp"],
        ),
        ("{match_type: strict}", &["at least one of log_bodies"]),
        (
            "{match_type: regexp, log_bodies: ['(']}",
            &["include::log_bodies", "regular expression"],
        ),
        (
            "{match_type: regexp, attributes: [{key: a, value: 1}]}",
            &["attributes::0::value"],
        ),
        (
            "{match_type: strict, attributes: [{value: 1}]}",
            &["attributes::0::key: is required"],
        ),
        (
            "{match_type: strict, span_names: [a]}",
            &["include::span_names", "another signal"],
        ),
        (
            "{match_type: strict, metric_names: [a], log_bodies: [b]}",
            &["include::metric_names"],
        ),
        ("{match_type: strict, bodies: [a]}", &["unknown option"]),
    ] {
        let action = "{key: a, action: delete}";
        let yaml = format!("{{include: {include}, actions: [{action}]}}");
        check(&attributes(&yaml), &yaml, wants);
    }
}

#[test]
fn batch_sizes_must_fit_together() {
    for (yaml, wants) in [
        ("", &[][..]),
        (
            "{send_batch_size: 10, send_batch_max_size: 10, timeout: 1s}",
            &[],
        ),
        (
            "{send_batch_size: 10, send_batch_max_size: 9}",
            &["greater or equal to send_batch_size"],
        ),
        ("{send_batch_size: -1}", &["send_batch_size"]),
        ("{timeout: -1s}", &["timeout"]),
        ("{metadata_keys: [a, A]}", &["duplicate entry \"a\""]),
        ("{send_batch_siz: 1}", &["did you mean \"send_batch_size\""]),
    ] {
        let (_, errors) = decode(yaml, |s, v| *v = Some(BatchConfig::decode(s)));
        check(&errors, yaml, wants);
    }
}

#[test]
fn memory_limits_are_the_collectors() {
    let limiter = |yaml: &str| decode(yaml, |s, v| *v = Some(MemoryLimiterConfig::decode(s)));
    for (yaml, wants) in [
        (
            "{limit_mib: 10}",
            &["check_interval: must be specified"][..],
        ),
        ("{check_interval: 0s, limit_mib: 10}", &["check_interval"]),
        ("{check_interval: 1s}", &["limit_mib or limit_percentage"]),
        (
            "{check_interval: 1s, limit_mib: 10, spike_limit_mib: 10}",
            &["smaller than limit_mib"],
        ),
        (
            "{check_interval: 1s, limit_percentage: 101}",
            &["limit_percentage"],
        ),
        (
            "{check_interval: 1s, limit_percentage: 50, spike_limit_percentage: 60}",
            &["smaller than limit_percentage"],
        ),
        (
            "{check_interval: 1s, limit_mib: 9, min_gc_interval_when_hard_limited: 20s}",
            &["min_gc_interval_when_soft_limited"],
        ),
        (
            "{check_interval: 1s, limit_mib: 9, max_gc_interval_when_soft_limited: 1s}",
            &["max_gc_interval_when_soft_limited"],
        ),
        (
            "{check_interval: 1s, limit_mib: 9, ballast_size_mib: 1}",
            &["ballast_size_mib"],
        ),
        (
            "{check_interval: 1s, limit_mib: 9, min_gc_interval_when_soft_limited: 1m}",
            &[],
        ),
    ] {
        check(&limiter(yaml).1, yaml, wants);
    }
    let yaml = "{check_interval: 1s, limit_mib: 9, min_gc_interval_when_soft_limited: 1m}";
    let warnings = limiter(yaml).1.take_warnings();
    assert_eq!(
        warnings.len(),
        1,
        "what has no effect is said: {warnings:?}"
    );
    let (_, errors) = limiter("{check_interval: 1s, limit_mib: many}");
    assert_eq!(errors.len(), 1, "one mistake is said once: {errors}");
    for (yaml, total, want) in [
        ("limit_mib: 100", None, Some(80)),
        (
            "limit_mib: 100, spike_limit_mib: 30, limit_percentage: 1",
            None,
            Some(70),
        ),
        (
            "limit_percentage: 80, spike_limit_percentage: 25",
            Some(1000),
            Some(550),
        ),
        ("limit_percentage: 50", Some(1000), Some(400)),
        ("limit_percentage: 50", None, None),
    ] {
        let (config, errors) = limiter(&format!("{{check_interval: 1s, {yaml}}}"));
        assert!(errors.is_empty(), "{errors}");
        let soft = config.soft_limit_bytes(total.map(|mib| mib * MIB));
        assert_eq!(soft, want.map(|mib: u64| mib * MIB), "{yaml}");
    }
}
