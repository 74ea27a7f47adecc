//! `[INPUT]`.

use super::chain::{Chain, key};
use super::parsers::{self, Use};
use super::routing::Tags;
use super::source::{Properties, Section};
use crate::note::{Notes, Weight};
use crate::yaml::{Map, Value, map, with_environment};

/// An input, as far as it does not depend on filters.
pub struct Input {
    /// The type of the receiver.
    pub kind: &'static str,
    /// Its options.
    pub receiver: Map,
    /// The files that it reads.
    pub paths: Vec<String>,
    /// What its records are called.
    pub tags: Tags,
    /// False if it has no operators.
    pub has_operators: bool,
    /// The first operators.
    pub chain: Chain,
}

/// Options that are about memory and threads of Fluent Bit.
const NOT_NEEDED: [(&str, &str); 17] = [
    (
        "db",
        "positions are kept in any case; those of the file cannot be taken over",
    ),
    ("db.sync", "positions are kept safely"),
    ("db.locking", "positions are kept safely"),
    ("db.journal_mode", "positions are kept safely"),
    (
        "db.compare_filename",
        "files are recognised by what they are",
    ),
    (
        "mem_buf_limit",
        "files are the buffer: they are read as fast as they are delivered",
    ),
    ("buffer_chunk_size", "buffers are sized by themselves"),
    ("storage.type", "files are the buffer"),
    (
        "storage.pause_on_chunks_overlimit",
        "sources pause when a destination does",
    ),
    ("refresh_interval", "new files are noticed when they appear"),
    ("rotate_wait", "a rotated file is read to its end"),
    ("inotify_watcher", "watch of the receiver is auto"),
    ("static_batch_size", "reading is divided fairly"),
    ("progress_check_interval", "reading is divided fairly"),
    ("threaded", "work is shared among all cores"),
    ("log_level", "the agent has one level of logging"),
    ("alias", "components are called by their ids"),
];

/// Converts an input; an error is the comment that says why it has none.
pub fn input(
    mut p: Properties<'_>,
    number: usize,
    all: &[Section],
    notes: &mut Notes,
) -> Result<Input, String> {
    let name = p.text("name").unwrap_or_default().to_ascii_lowercase();
    let tag = p.text("tag").unwrap_or_else(|| format!("{name}.{number}"));
    for (option, say) in NOT_NEEDED {
        p.remark(notes, Weight::NotNeeded, option, say);
    }
    match name.as_str() {
        "tail" => Ok(tail(p, &tag, all, notes)),
        "systemd" => Ok(systemd(p, &tag, notes)),
        "syslog" => syslog(p, &tag, notes),
        "opentelemetry" => Ok(opentelemetry(p, &tag, notes)),
        "forward" => Err(p.note(
            notes,
            Weight::NoEqual,
            "the forward protocol is not spoken here: have its senders use OTLP",
        )),
        _ => Err(p.note(notes, Weight::NoEqual, "there is no such input here")),
    }
}

fn tail(mut p: Properties<'_>, tag: &str, all: &[Section], notes: &mut Notes) -> Input {
    let paths = p.list("path");
    let mut r = Map::default();
    let text =
        |paths: &[String]| -> Vec<String> { paths.iter().map(|p| with_environment(p).0).collect() };
    r.set("include", text(&paths));
    let excluded = p.list("exclude_path");
    if !excluded.is_empty() {
        r.set("exclude", text(&excluded));
    }
    let head = p.flag("read_from_head").unwrap_or(false);
    r.set("start_at", if head { "beginning" } else { "end" });
    let (path_key, offset_key) = (p.text("path_key"), p.text("offset_key"));
    let multi = p.list("multiline.parser");
    let joins = !multi.is_empty();
    r.set("include_file_path", path_key.is_some() || joins);
    r.set("include_file_name", false);
    if offset_key.is_some() {
        r.set("include_file_record_offset", true);
    }
    if let Some(age) = p.text("ignore_older") {
        let age = if age.bytes().all(|b| b.is_ascii_digit()) {
            format!("{age}s")
        } else {
            age
        };
        // Days are no unit of Go.
        match age.strip_suffix('d').and_then(|d| d.parse::<u64>().ok()) {
            Some(days) => r.set(
                "exclude_older_than",
                Value::Plain(format!("{}h", days * 24)),
            ),
            None => r.set("exclude_older_than", Value::Plain(age)),
        };
    }
    for option in ["buffer_max_size", "skip_long_lines", "truncate_long_lines"] {
        let say = "a record is max_log_size long at most, 1MiB by default; a longer line becomes several records, or is cut by \
                   max_log_size_behavior: truncate. None is skipped";
        if let Some(comment) = p.remark(notes, Weight::Decide, option, say) {
            r.comment(comment);
        }
    }
    p.remark(
        notes,
        Weight::NotNeeded,
        "skip_empty_lines",
        "blank lines are no records",
    );
    let line_key = p.text("key").unwrap_or_else(|| "log".to_owned());
    let parser = p.text("parser");
    let mut chain = Chain::default();
    let containers: Vec<&String> = multi
        .iter()
        .filter(|m| matches!(m.as_str(), "docker" | "cri"))
        .collect();
    match containers.first() {
        Some(name) => {
            let auto = containers.len() > 1;
            parsers::container(if auto { "cri" } else { name }, &line_key, &mut chain);
        }
        None => chain.quiet("move", None, [("from", "body"), ("to", &key(&line_key))]),
    }
    for name in multi
        .iter()
        .filter(|m| !matches!(m.as_str(), "docker" | "cri"))
    {
        let path = p.path.clone();
        parsers::multiline(
            name,
            &key(&line_key),
            all,
            &mut chain,
            &p.section.place,
            &path,
            notes,
        );
    }
    if let Some(name) = parser {
        let one = Use {
            name: &name,
            field: &key(&line_key),
            keep_others: false,
            keep_field: false,
        };
        let path = format!("{}.parser", p.path);
        one.apply(all, &mut chain, &p.section.place, &path, notes);
    }
    let file_path = "attributes[\"log.file.path\"]";
    match path_key {
        Some(name) => chain.quiet("move", None, [("from", file_path), ("to", &key(&name))]),
        None if joins => chain.quiet("remove", None, [("field", file_path)]),
        None => {}
    }
    if let Some(name) = offset_key {
        let from = "attributes[\"log.file.record_offset\"]";
        chain.quiet("move", None, [("from", from), ("to", &key(&name))]);
    }
    let say = "what begins a record is is_first_entry of recombine";
    for option in [
        "multiline",
        "multiline_flush",
        "parser_firstline",
        "docker_mode",
        "docker_mode_flush",
        "docker_mode_parser",
    ] {
        let comment = p.remark(notes, Weight::Decide, option, say);
        chain.comments(comment);
    }
    for comment in p.rest(notes) {
        r.comment(comment);
    }
    Input {
        kind: "file_log",
        receiver: r,
        tags: Tags::new(tag, &paths),
        paths,
        has_operators: true,
        chain,
    }
}

fn systemd(mut p: Properties<'_>, tag: &str, notes: &mut Notes) -> Input {
    let mut r = Map::default();
    r.set_some("directory", p.text("path"));
    let end = p.flag("read_from_tail").unwrap_or(false);
    r.set("start_at", if end { "end" } else { "beginning" });
    let filters = p.all("systemd_filter");
    let pairs: Vec<(&str, &str)> = filters
        .iter()
        .filter_map(|f| f.value.split_once('='))
        .collect();
    let any = p
        .text("systemd_filter_type")
        .unwrap_or_else(|| "or".to_owned());
    let one = |(field, value): &(&str, &str)| map([(*field, (*value).into())]);
    let matches: Vec<Map> = match any.eq_ignore_ascii_case("and") {
        false => pairs.iter().map(one).collect(),
        true => {
            let mut all = Map::default();
            pairs.iter().for_each(|(field, value)| {
                all.set(field, *value);
            });
            vec![all]
        }
    };
    if !pairs.is_empty() {
        r.set("matches", matches);
    }
    let mut chain = Chain::default();
    // The body is a map, and no operator moves one to where the attributes are.
    let text = [("field", "body"), ("value", "EXPR(toJSON(body))")];
    chain.quiet("add", None, text);
    let fields = [("parse_from", "body"), ("parse_to", "attributes")];
    chain.quiet("json_parser", None, fields);
    for (option, say) in [
        ("strip_underscores", "fields keep the names of the journal"),
        ("lowercase", "fields keep the names of the journal"),
        ("max_fields", "a record may have 4096 fields"),
        ("max_entries", "reading is divided fairly"),
    ] {
        let comment = p.remark(notes, Weight::Decide, option, say);
        chain.comments(comment);
    }
    for comment in p.rest(notes) {
        r.comment(comment);
    }
    Input {
        kind: "journald",
        receiver: r,
        paths: Vec::new(),
        tags: Tags::new(&tag.replace('*', "unit"), &[]),
        has_operators: true,
        chain,
    }
}

fn syslog(mut p: Properties<'_>, tag: &str, notes: &mut Notes) -> Result<Input, String> {
    let mode = p
        .text("mode")
        .unwrap_or_else(|| "unix_udp".to_owned())
        .to_ascii_lowercase();
    if !matches!(mode.as_str(), "tcp" | "udp") {
        return Err(p.note(
            notes,
            Weight::NoEqual,
            "syslog comes over TCP or UDP here, not over a socket in the file system",
        ));
    }
    let listen = p.text("listen").unwrap_or_else(|| "0.0.0.0".to_owned());
    let port = p.text("port").unwrap_or_else(|| "5140".to_owned());
    let parser = p.text("parser").unwrap_or_default();
    let protocol = match parser.contains("5424") {
        true => "rfc5424",
        false => "rfc3164",
    };
    let mut r = map([("protocol", protocol.into())]);
    let place = map([(
        "listen_address",
        with_environment(&format!("{listen}:{port}")).0.into(),
    )]);
    r.set(&mode, place);
    let say = "messages are taken apart as the protocol says, not by a parser: the fields are priority, hostname, appname, \
               proc_id, msg_id and message";
    if let Some(comment) = p.remark(notes, Weight::Decide, "parser", say) {
        r.comment(comment);
    }
    p.remark(
        notes,
        Weight::NotNeeded,
        "buffer_max_size",
        "max_log_size is 1MiB",
    );
    p.remark(
        notes,
        Weight::NotNeeded,
        "receive_buffer_size",
        "buffers are sized by themselves",
    );
    for comment in p.rest(notes) {
        r.comment(comment);
    }
    let mut chain = Chain::default();
    chain.quiet(
        "move",
        Some("attributes.message == nil"),
        [("from", "body"), ("to", "attributes.message")],
    );
    Ok(Input {
        kind: "syslog",
        receiver: r,
        paths: Vec::new(),
        tags: Tags::new(tag, &[]),
        has_operators: true,
        chain,
    })
}

fn opentelemetry(mut p: Properties<'_>, tag: &str, notes: &mut Notes) -> Input {
    let listen = p.text("listen").unwrap_or_else(|| "0.0.0.0".to_owned());
    let port = p.text("port").unwrap_or_else(|| "4318".to_owned());
    let http = map([(
        "endpoint",
        with_environment(&format!("{listen}:{port}")).0.into(),
    )]);
    let mut r = map([("protocols", map([("http", http.into())]).into())]);
    let say = "there are no tags";
    for option in ["tag_from_uri", "raw_traces", "successful_response_code"] {
        p.remark(notes, Weight::NotNeeded, option, say);
    }
    for comment in p.rest(notes) {
        r.comment(comment);
    }
    Input {
        kind: "otlp",
        receiver: r,
        paths: Vec::new(),
        tags: Tags::new(tag, &[]),
        has_operators: false,
        chain: Chain::default(),
    }
}
