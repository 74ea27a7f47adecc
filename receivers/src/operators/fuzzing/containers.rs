//! Lines of container runtimes.

use std::sync::OnceLock;

use regex::bytes::Regex;

use super::{check, lines_of};
use crate::operators::cri::{HeaderReader, Refusal, Stream, Tag};

/// Variants of the operator; the first byte of an input chooses one.
const CRI: [&str; 6] = [
    r#"[{"type":"container"}]"#,
    r#"[{"type":"container","format":"containerd","on_error":"drop"}]"#,
    r#"[{"type":"container","format":"crio","max_log_size":40}]"#,
    r#"[{"type":"container","max_log_size":0,"if":"body contains \"F\""}]"#,
    r#"[{"type":"container","add_metadata_from_filepath":false,"on_error":"drop_quiet"},
        {"type":"filter","expr":"attributes.logtag == \"P\""}]"#,
    r#"[{"type":"container","format":"crio","on_error":"send_quiet"},
        {"type":"container","format":"containerd"}]"#,
];

/// The same for lines of Docker.
const DOCKER: [&str; 6] = [
    r#"[{"type":"container"}]"#,
    r#"[{"type":"container","format":"docker","on_error":"drop"}]"#,
    r#"[{"type":"container","format":"docker","max_log_size":20000}]"#,
    r#"[{"type":"container","format":"docker","max_log_size":0},
        {"type":"json_parser","if":"body startsWith \"{\"","on_error":"send_quiet"}]"#,
    r#"[{"type":"container","format":"docker","add_metadata_from_filepath":false,
         "severity":{"parse_from":"attributes.level"}}]"#,
    r#"[{"type":"container","parse_from":"body","on_error":"drop_quiet"}]"#,
];

/// Lines of the container runtime interface: headers are those of a model, records do not depend on
/// how reads cut the file, every line is accounted for, and no text is made up.
pub fn cri_lines(data: &[u8]) {
    let Some(([which, per_batch], text)) = data.split_first_chunk() else {
        return;
    };
    let lines = lines_of(text);
    lines.iter().for_each(|line| header(line));
    let operators = CRI[usize::from(*which) % CRI.len()];
    let out = check(operators, &lines, usize::from(*per_batch));
    assert!(out.body_bytes <= text.len(), "{out:?}");
}

/// Lines of Docker's json-file driver, in the same way.
pub fn docker_lines(data: &[u8]) {
    let Some(([which, per_batch], text)) = data.split_first_chunk() else {
        return;
    };
    let operators = DOCKER[usize::from(*which) % DOCKER.len()];
    let out = check(operators, &lines_of(text), usize::from(*per_batch));
    assert!(out.body_bytes <= text.len(), "{out:?}");
}

/// Compares what is read of a line's header with a regular expression and with `jiff`.
fn header(line: &[u8]) {
    static PATTERN: OnceLock<Regex> = OnceLock::new();
    let pattern = PATTERN.get_or_init(|| {
        Regex::new(r"(?s-u)^([^ ]+) (stdout|stderr) ([^ ]*)( ?)(.*)$").expect("a fixed pattern")
    });
    let found = pattern.captures(line);
    let header = match HeaderReader::default().read(line) {
        Ok(header) => header,
        Err(Refusal::Form) => return assert!(found.is_none(), "{}", line.escape_ascii()),
        Err(Refusal::Time) => return assert!(found.is_some(), "{}", line.escape_ascii()),
    };
    let (_, [time, stream, tag, _, message]) = found.expect("a line with a header").extract();
    assert_eq!(
        (&line[header.message_at..], header.utc),
        (message, time.ends_with(b"Z"))
    );
    assert_eq!(header.stream == Stream::Stderr, stream == b"stderr");
    let partial = match header.tag {
        Tag::Full => false,
        Tag::Partial => true,
        Tag::Other { partial, .. } => partial,
    };
    assert_eq!(partial, tag == b"P" || tag.starts_with(b"P:"));
    let time = std::str::from_utf8(time).expect("digits and separators");
    // jiff takes no year before -9999 and no fraction of more than nine digits, as we cut them off.
    if let Ok(want) = time.parse::<jiff::Timestamp>() {
        assert_eq!(i128::from(header.time), want.as_nanosecond(), "{time}");
    }
}
