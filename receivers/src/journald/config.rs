//! Options of the receiver `journald`, as the collector's `journald_input` names them, and what they are to
//! `journalctl`.

use std::path::{Path, PathBuf};

use tailwater_config::reference::ValueKind;
use tailwater_config::{ComponentId, Node, Section};

use crate::input::options::retry_on_failure;
use crate::operators::operators;

/// Longest line of `journalctl` unless configured.
const ENTRY_BYTES_MAX: u64 = 16 << 20;
/// Where `chroot` is looked for, as for `journalctl` without a path.
const CHROOT: &str = "chroot";

/// Options of the receiver.
#[derive(Clone, Debug)]
pub struct JournaldConfig {
    /// `journalctl_path`: the program; without a slash it is looked for in `PATH`. Default `journalctl`.
    pub program: String,
    /// `root_path`: the program runs with this directory as its root (`chroot`).
    pub root: Option<PathBuf>,
    /// Arguments that choose entries.
    pub arguments: Vec<String>,
    /// `start_at: beginning`: without a position all entries are read. Default end.
    pub from_beginning: bool,
    /// `convert_message_bytes`: a message that is no text is made text. Default false.
    pub message_bytes: bool,
    /// `convert_to_semantic_conventions`: fields become body, severity, attributes and resource. Default false: the
    /// body is a map of all fields.
    pub conventions: bool,
    /// Directories and files that entries are read from; empty = the system's.
    pub places: Vec<PathBuf>,
    /// Own option `entry_bytes_max`: a longer line is left out. Default 16 MiB.
    pub entry_bytes_max: usize,
    /// `operators`, as written.
    pub operators: Vec<Node>,
    /// `attributes`: values may hold `EXPR(...)`.
    pub attributes: Vec<(String, String)>,
    /// `resource`: values may hold `EXPR(...)`.
    pub resource: Vec<(String, String)>,
    /// `storage`: where positions are.
    pub storage: Option<ComponentId>,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    (
        "start_at",
        "Where reading begins without a position: `end` is the last ten entries and what comes, as of journalctl; `beginning` all.",
    ),
    (
        "directory",
        "A directory of journal files, in place of the system's.",
    ),
    (
        "files",
        "Journal files, patterns of journalctl; no effect beside `directory`.",
    ),
    (
        "units",
        "Only entries of these units, among them or `identifiers`.",
    ),
    ("identifiers", "Only entries with these identifiers."),
    ("priority", "A priority or a range of them (`--priority`)."),
    (
        "matches",
        "Maps of fields: entries that have all fields of one map.",
    ),
    ("matches::0::NAME", "A field of the journal and its value."),
    ("grep", "Only entries whose message matches (`--grep`)."),
    ("dmesg", "Only messages of the kernel."),
    ("namespace", "The namespace of the journal (`--namespace`)."),
    (
        "all",
        "Fields of 4096 bytes and more are there; without it they are null.",
    ),
    (
        "merge",
        "Entries of all machines whose journals are there (`--merge`).",
    ),
    (
        "convert_message_bytes",
        "A `MESSAGE` that is no text, which is an array of numbers, becomes text.",
    ),
    (
        "convert_to_semantic_conventions",
        "Body `MESSAGE`, severity `PRIORITY`, `host.name` and `process.*` of the resource, `code.*`, `syslog.*`, `thread.id` of the record, and `journald.FIELD` of all others. Else the body is a map of all fields but `__REALTIME_TIMESTAMP`, which is the time of the record in both cases.",
    ),
    (
        "journalctl_path",
        "The program; without a slash it is looked for in `PATH`.",
    ),
    (
        "root_path",
        "journalctl runs with this directory as its root, by `chroot` from `PATH`, which needs the right to do that; absolute.",
    ),
    (
        "type",
        "The type of the collector's operator; says nothing more.",
    ),
    (
        "id",
        "The type of the collector's operator; says nothing more.",
    ),
    (
        "entry_bytes_max",
        "own: A longer line of journalctl is left out and counted.",
    ),
    (
        "storage",
        "A `file_storage` for positions; cannot change while the agent runs. They are kept without it, too.",
    ),
    (
        "operators",
        "What is done to records first, one after another.",
    ),
    (
        "attributes",
        "Constant attributes of records; values may hold `EXPR(...)`.",
    ),
    (
        "resource",
        "Constant attributes of the resource; values may hold `EXPR(...)`.",
    ),
];

impl JournaldConfig {
    /// Reads the section of the receiver; problems go to its errors.
    pub fn decode(s: &mut Section<'_, '_>) -> JournaldConfig {
        s.describe(OPTIONS);
        let from_beginning = s.choice("start_at", &[("end", false), ("beginning", true)], false);
        let (arguments, places) = arguments(s);
        s.one_of("type", &["journald_input"], "journald_input");
        s.string_optional("id");
        s.refuse(
            "output",
            "records go to the first of `operators`; give that one an `output` instead",
        );
        retry_on_failure(s, "what was not delivered is offered again");
        let root = Some(s.string("root_path", "")).filter(|root| !root.is_empty());
        if root.as_ref().is_some_and(|root| !root.starts_with('/')) {
            s.invalid("root_path", "must be absolute");
        }
        let program = s.string("journalctl_path", "journalctl");
        if program.is_empty() {
            s.invalid("journalctl_path", "must not be empty");
        }
        let bytes = s.byte_size("entry_bytes_max", ENTRY_BYTES_MAX, 64 << 10..=256 << 20);
        JournaldConfig {
            program,
            root: root.map(PathBuf::from),
            arguments,
            from_beginning,
            message_bytes: s.bool("convert_message_bytes", false),
            conventions: s.bool("convert_to_semantic_conventions", false),
            places,
            entry_bytes_max: usize::try_from(bytes).unwrap_or(usize::MAX),
            operators: operators(s, "operators"),
            attributes: s.string_map("attributes").unwrap_or_default(),
            resource: s.string_map("resource").unwrap_or_default(),
            storage: s.component_id("storage"),
        }
    }

    /// The program and its arguments: what comes after `cursor`, or what `start_at` says.
    pub fn command(&self, cursor: Option<&str>) -> (String, Vec<String>) {
        let mut all: Vec<String> = ["--utc", "--output=json", "--follow"]
            .map(str::to_owned)
            .to_vec();
        // After a cursor all is wanted, not the last ten.
        if self.from_beginning || cursor.is_some() {
            all.push("--no-tail".to_owned());
        }
        all.extend(self.arguments.iter().cloned());
        if let Some(cursor) = cursor {
            all.extend(["--after-cursor".to_owned(), cursor.to_owned()]);
        }
        match &self.root {
            None => (self.program.clone(), all),
            Some(root) => {
                let root = root.to_string_lossy().into_owned();
                let front = [root, self.program.clone()];
                (CHROOT.to_owned(), front.into_iter().chain(all).collect())
            }
        }
    }

    /// Where the program that is started is; its name if it is not found.
    pub fn executable(&self) -> PathBuf {
        let (program, _) = self.command(None);
        if program.contains('/') {
            return PathBuf::from(program);
        }
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        let mut found = std::env::split_paths(&dirs).map(|dir| dir.join(&program));
        let found = found.find(|path| Path::is_file(path));
        found.unwrap_or_else(|| PathBuf::from(program))
    }
}

/// What chooses entries, and where they are read from.
fn arguments(s: &mut Section<'_, '_>) -> (Vec<String>, Vec<PathBuf>) {
    let mut all = Vec::new();
    let mut add = |option: &str, value: String| all.extend([option.to_owned(), value]);
    for (key, option) in [("units", "--unit"), ("identifiers", "--identifier")] {
        for value in s.string_list(key).unwrap_or_default() {
            add(option, value);
        }
    }
    add("--priority", s.string("priority", "info"));
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    if let Some(pattern) = given(s.string("grep", "")) {
        add("--grep", pattern);
    }
    let dmesg = s.bool("dmesg", false);
    if let Some(namespace) = given(s.string("namespace", "")) {
        add("--namespace", namespace);
    }
    let directory = s.string_optional("directory");
    let files = s.string_list("files").unwrap_or_default();
    let places: Vec<PathBuf> = match &directory {
        Some(directory) => {
            add("--directory", directory.clone());
            if !files.is_empty() {
                s.warn("files", "has no effect beside directory");
            }
            vec![directory.into()]
        }
        None => {
            files.iter().for_each(|file| add("--file", file.clone()));
            files.iter().map(PathBuf::from).collect()
        }
    };
    if dmesg {
        all.push("--dmesg".to_owned());
    }
    all.extend(matches(s));
    for (key, option) in [("all", "--all"), ("merge", "--merge")] {
        if s.bool(key, false) {
            all.push(option.to_owned());
        }
    }
    (all, places)
}

/// `matches`: entries that have all fields of one of the maps.
fn matches(s: &mut Section<'_, '_>) -> Vec<String> {
    let all = s.section_list("matches", |m| {
        let mut fields = Vec::new();
        for (key, node) in m.remaining(|| vec![ValueKind::Text]) {
            let name = key.text.as_str();
            if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_uppercase()) {
                m.invalid(name, "is not a valid Systemd field name");
                continue;
            }
            match node.as_text() {
                Some(value) => fields.push(format!("{name}={value}")),
                None => m.invalid(name, "must be a string"),
            }
        }
        fields.sort();
        fields
    });
    let mut out = Vec::new();
    for (i, fields) in all.unwrap_or_default().into_iter().enumerate() {
        if i > 0 {
            out.push("+".to_owned());
        }
        out.extend(fields);
    }
    out
}
