//! The operators that parse.

use super::{chain, check, lines_of, run};

/// Chains that parse; the first byte of an input chooses one.
const CHAINS: [&str; 16] = [
    r#"[{"type":"json_parser"}]"#,
    r#"[{"type":"json_parser","parse_ints":true,"parse_to":"body","on_error":"drop"}]"#,
    r#"[{"type":"json_parser","parse_to":"attributes.a.b","timestamp":{"parse_from":"attributes.a.b.t",
         "layout":"%Y-%m-%dT%H:%M:%S.%LZ"},"severity":{"parse_from":"attributes.a.b.l"}}]"#,
    r#"[{"type":"json_parser","parse_ints":true},
        {"type":"time_parser","parse_from":"attributes.t","layout_type":"epoch","layout":"s.ns"},
        {"type":"severity_parser","parse_from":"attributes.l","preset":"none",
         "mapping":{"error":["e",{"min":500,"max":599}],"warn":"w","info":["i",7]},"overwrite_text":true},
        {"type":"trace_parser","trace_id":{"parse_from":"attributes.trace"},
         "span_id":{"parse_from":"attributes.span"},"trace_flags":{"parse_from":"attributes.f"}}]"#,
    r#"[{"type":"regex_parser","regex":"^(?P<t>[^ ]+) (?P<l>\\w+):? (?P<m>.*)$",
         "timestamp":{"parse_from":"attributes.t","layout":"%d/%b/%Y:%H:%M:%S %z"},
         "severity":{"parse_from":"attributes.l"},"body":"attributes.m"}]"#,
    r#"[{"type":"regex_parser","regex":"(?i)(?P<a>a+)|(?P<b>\\p{L}{1,3})|(?P<c>[^\\x00-\\x7f]+)",
         "parse_to":"body","on_error":"drop_quiet"}]"#,
    r#"[{"type":"time_parser","parse_from":"body","layout":"%a %b %e %H:%M:%S %Y","location":"Europe/Berlin"}]"#,
    r#"[{"type":"time_parser","parse_from":"body","layout":"%b %d %I:%M:%S.%f %p","on_error":"drop"}]"#,
    r#"[{"type":"time_parser","parse_from":"body","layout":"%Y-%j %T %Z","location":"America/New_York"}]"#,
    r#"[{"type":"time_parser","parse_from":"body","layout_type":"gotime",
         "layout":"Mon Jan _2 15:04:05.000000000 -0700 2006"}]"#,
    r#"[{"type":"time_parser","parse_from":"body","layout_type":"gotime",
         "layout":"2006-01-02T15:04:05.999999999Z07:00","location":"Asia/Kolkata"}]"#,
    r#"[{"type":"time_parser","parse_from":"body","layout_type":"epoch","layout":"ms"}]"#,
    r#"[{"type":"time_parser","parse_from":"body","layout_type":"epoch","layout":"s.us"}]"#,
    r#"[{"type":"severity_parser","parse_from":"body"}]"#,
    r#"[{"type":"trace_parser","trace_id":{"parse_from":"body"},"span_id":{"parse_from":"body"},
         "trace_flags":{"parse_from":"body"},"on_error":"send_quiet"}]"#,
    r#"[{"type":"json_parser","if":"body startsWith \"{\"","output":["m","c"]},
        {"type":"move","id":"m","from":"attributes.a","to":"body","on_error":"send_quiet","output":"r"},
        {"type":"copy","id":"c","from":"attributes.b","to":"resource.b","on_error":"drop"},
        {"type":"filter","expr":"attributes?.k == 1 or body matches \"^x+$\""},
        {"type":"add","id":"r","field":"attributes.n.m","value":"EXPR(len(string(body)))"},
        {"type":"remove","field":"attributes.n","on_error":"send_quiet"}]"#,
];

/// Lines through the operators that parse: records do not depend on how reads cut the file, and
/// every line is accounted for.
pub fn parsers(data: &[u8]) {
    let Some(([which, per_batch], text)) = data.split_first_chunk() else {
        return;
    };
    let which = usize::from(*which) % CHAINS.len();
    let lines = lines_of(text);
    if which + 1 < CHAINS.len() {
        check(CHAINS[which], &lines, usize::from(*per_batch));
        return;
    }
    // Two outputs: their records may come in another order, and a line may come out twice.
    let all = [lines.len(), 1].map(|per_batch| {
        let mut out = run(&mut chain(CHAINS[which]), &lines, per_batch);
        out.records.sort_unstable();
        out
    });
    assert_eq!(all[0], all[1]);
}
