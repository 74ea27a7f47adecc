//! The operators that read formats, rewrite, reshape, route and put together.

use super::{Outcome, chain, check, lines_of, run};

/// Chains in which every line is by itself; the first byte of an input chooses one.
const LINES: [&str; 18] = [
    r#"[{"type":"key_value_parser"}]"#,
    r#"[{"type":"key_value_parser","delimiter":":=","pair_delimiter":"; ","parse_to":"body","on_error":"drop"}]"#,
    r#"[{"type":"csv_parser","header":"a,b,c","on_error":"drop_quiet"}]"#,
    r#"[{"type":"csv_parser","header":"a b","header_delimiter":" ","delimiter":"|","lazy_quotes":true,
         "parse_to":"attributes.row"}]"#,
    r#"[{"type":"csv_parser","header":"a,b","ignore_quotes":true}]"#,
    r#"[{"type":"regex_parser","regex":"^(?P<h>[^ ]*) (?P<m>.*)$","on_error":"drop"},
        {"type":"csv_parser","header_attribute":"h","parse_from":"attributes.m","parse_to":"body"}]"#,
    r#"[{"type":"uri_parser"}]"#,
    r#"[{"type":"uri_parser","parse_to":"body","on_error":"send_quiet"}]"#,
    r#"[{"type":"json_array_parser","parse_to":"body"},
        {"type":"assign_keys","field":"body","keys":["a","b"],"on_error":"send_quiet"}]"#,
    r#"[{"type":"json_array_parser","header":"a,b","on_error":"drop"}]"#,
    r#"[{"type":"syslog_parser","protocol":"rfc3164","location":"Europe/Berlin","allow_skip_pri_header":true}]"#,
    r#"[{"type":"syslog_parser","protocol":"rfc5424","on_error":"drop"}]"#,
    r#"[{"type":"syslog_parser","protocol":"rfc5424","enable_octet_counting":true,"max_octets":64}]"#,
    r#"[{"type":"syslog_parser","protocol":"rfc5424","non_transparent_framing_trailer":"NUL",
         "parse_to":"body"}]"#,
    r#"[{"type":"syslog_parser","protocol":"none","enable_octet_counting":true}]"#,
    r#"[{"type":"regex_replace","field":"body","regex":"(\\w)(\\d*)","replace_with":"$2$1${x}$$"},
        {"type":"regex_replace","field":"body","regex_name":"ansi_control_sequences"}]"#,
    r#"[{"type":"unquote","field":"body"},{"type":"sanitize_utf8"}]"#,
    r#"[{"type":"json_parser","parse_to":"body","on_error":"drop"},
        {"type":"flatten","field":"body.a","on_error":"send_quiet"},
        {"type":"copy","from":"body.m","to":"attributes.m","on_error":"send_quiet"},
        {"type":"flatten","field":"attributes.m","on_error":"send_quiet"},
        {"type":"retain","fields":["body.b","attributes.x.y","attributes.z","resource.r"]}]"#,
];

/// Chains that put lines together.
const GROUPS: [&str; 5] = [
    r#"[{"type":"recombine","combine_field":"body","is_first_entry":"body matches \"^[^ ]\""}]"#,
    r#"[{"type":"recombine","combine_field":"body","is_last_entry":"body endsWith \".\"",
         "combine_with":"","overwrite_with":"newest","max_log_size":20}]"#,
    r#"[{"type":"recombine","combine_field":"body","is_last_entry":"int(body) > 3","max_batch_size":3,
         "max_unmatched_batch_size":2,"on_error":"drop"}]"#,
    r#"[{"type":"json_parser","on_error":"send_quiet"},
        {"type":"recombine","combine_field":"attributes.m","source_identifier":"attributes.s",
         "is_first_entry":"attributes.f == true","if":"attributes.m != nil","max_unmatched_batch_size":0}]"#,
    r#"[{"type":"container","on_error":"send_quiet"},
        {"type":"recombine","combine_field":"body","is_last_entry":"not (body endsWith \"\\\\\")",
         "source_identifier":"attributes[\"log.iostream\"]"}]"#,
];

/// Three routes, two of which come together again.
const ROUTES: &str = r#"[{"type":"router","routes":[
        {"expr":"body startsWith \"{\"","output":["j","c"],"attributes":{"k":"EXPR(upper(body))"}},
        {"expr":"int(body) > 3","output":"c"}],"default":"d"},
    {"type":"json_parser","id":"j","output":"end"},
    {"type":"noop","id":"c","output":"end"},
    {"type":"filter","id":"d","expr":"body == \"\""},
    {"type":"noop","id":"end"}]"#;

/// Lines through these operators: records do not depend on how reads cut the file, and every line is
/// accounted for.
pub fn formats(data: &[u8]) {
    let Some(([which, per_batch], text)) = data.split_first_chunk() else {
        return;
    };
    let (which, per_batch) = (usize::from(*which), usize::from(*per_batch));
    let which = which % (LINES.len() + GROUPS.len() + 1);
    let lines = lines_of(text);
    if let Some(operators) = LINES.get(which) {
        check(operators, &lines, per_batch);
    } else if let Some(operators) = GROUPS.get(which - LINES.len()) {
        groups(operators, &lines, per_batch);
    } else {
        routes(&lines, per_batch);
    }
}

/// What is held back at the end of a read counts as joined first and as flushed then, so only the
/// records are the same.
fn groups(operators: &str, lines: &[&[u8]], per_batch: usize) {
    let through = |n: usize| {
        let out = run(&mut chain(operators), lines, n);
        let came_out = out.records.len() as u64;
        let accounted = came_out + out.filtered + out.dropped + out.joined;
        assert_eq!(lines.len() as u64 + out.flushed, accounted, "{out:?}");
        out
    };
    let whole = through(lines.len());
    for n in [per_batch, 1] {
        let parts = through(n);
        assert_eq!(
            sorted(parts.records),
            sorted(whole.records.clone()),
            "in batches of {n}"
        );
        assert_eq!((parts.dropped, parts.failed), (whole.dropped, whole.failed));
    }
}

/// Records of routes may come in another order.
fn routes(lines: &[&[u8]], per_batch: usize) {
    let all = [lines.len(), per_batch, 1].map(|n| {
        let out = run(&mut chain(ROUTES), lines, n);
        Outcome {
            records: sorted(out.records),
            ..out
        }
    });
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0], all[2]);
}

/// Groups of several sources in one read come out by the places of their last lines.
fn sorted(mut records: Vec<String>) -> Vec<String> {
    records.sort_unstable();
    records
}
