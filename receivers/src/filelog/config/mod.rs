//! The options of the receiver, decoded and validated; nothing here touches a file.
//!
//! Names, defaults and rules are those of the collector's filelog receiver (its
//! pkg/stanza/fileconsumer/config.go and adapter); options of our own stand beside them and are
//! marked as such. Options that the collector needs for its way of polling and that have nothing to
//! act on here are accepted, validated, and answered with a warning that says what happens instead.

mod described;
mod files;
mod ordering;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::Regex;
use tailwater_config::{ComponentId, Node, Section};

use super::catalog::GzipRule;
use super::discover::Discovery;
use super::file_attrs::FileAttributeRules;
use super::glob::Glob;
use super::links::{Follow, GuardedFs, LinkRules};
use super::order::OrderingCriteria;
use super::tail::OnTruncate;
use crate::input::charset::Charset;
use crate::input::frame::{FrameSpec, Oversize, Split, Trim};
use crate::input::options::{
    MultilineConfig, RetryOnFailure, charset, compiled, multiline, retry_on_failure,
};
use crate::operators::operators;
use described::OPTIONS;
pub use files::NamedFile;
use tailwater_golang::regexp;

/// Largest `max_log_size`; a record has to fit into memory several times.
const MAX_LOG_BYTES_MAX: u64 = 256 << 20;
/// Largest `fingerprint_size`.
const FINGERPRINT_BYTES_MAX: u64 = 1 << 20;
/// Open files unless configured.
const OPEN_FILES_MAX: usize = 1024;

/// Where reading starts in files that exist when the receiver starts for the first time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StartAt {
    /// At their end.
    #[default]
    End,
    /// At their beginning.
    Beginning,
}

/// How news of files are found out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WatchMode {
    /// By inotify where it works, by polling where it does not.
    #[default]
    Auto,
    /// By inotify; a directory that cannot be watched is an error in the log, and is polled.
    Inotify,
    /// By polling only.
    Poll,
}

/// Which symbolic links are followed (our own option).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkOptions {
    /// `follow`.
    pub follow: Follow,
    /// `roots`: directories that links may lead to, whoever made them.
    pub roots: Vec<PathBuf>,
}

/// Limits for deleted files that are not read to their end yet (our own option).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeletedFiles {
    /// Unread bytes of deleted files that are held in all; 1 GiB.
    pub hold_bytes_max: u64,
    /// Longest time one is held; 1 hour.
    pub hold_age_max: Duration,
}

/// `header`: leading lines that describe the file.
#[derive(Clone, Debug)]
pub struct HeaderConfig {
    /// Lines that match, from the first one on, are the header.
    pub pattern: Regex,
    /// What turns them into attributes, as written; at least one.
    pub metadata_operators: Vec<Node>,
}

/// All options of the receiver.
#[derive(Clone, Debug)]
pub struct FilelogConfig {
    /// `id` of the input operator, `file_input` unless given: the name under which the collector
    /// stored positions.
    pub operator_id: String,
    /// `include`: at least one, unless there is `files`. With a pattern for each of these.
    pub include: Vec<Glob>,
    /// Own option `files`.
    pub files: Vec<NamedFile>,
    /// `exclude`.
    pub exclude: Vec<Glob>,
    /// `exclude_older_than`: by modification time; zero = off.
    pub exclude_older_than: Duration,
    /// `ordering_criteria` with at least one rule.
    pub ordering: Option<OrderingCriteria>,
    /// `start_at`.
    pub start_at: StartAt,
    /// `poll_interval`; never zero.
    pub poll_interval: Duration,
    /// `fingerprint_size`: bytes by which a file is recognised.
    pub fingerprint_bytes: usize,
    /// `initial_buffer_size`, if given: bytes to read at once.
    pub initial_buffer_bytes: Option<usize>,
    /// `max_log_size`: longest record in bytes of the file.
    pub max_log_bytes: usize,
    /// `max_log_size_behavior`.
    pub oversize: Oversize,
    /// `encoding`.
    pub charset: Charset,
    /// `multiline`, if it has a pattern.
    pub multiline: Option<MultilineConfig>,
    /// `force_flush_period`; zero = never.
    pub force_flush_period: Duration,
    /// `preserve_leading_whitespaces` and `preserve_trailing_whitespaces`.
    pub trim: Trim,
    /// `include_file_*`.
    pub file_attributes: FileAttributeRules,
    /// `compression`.
    pub compression: GzipRule,
    /// `delete_after_read`.
    pub delete_after_read: bool,
    /// `header`.
    pub header: Option<HeaderConfig>,
    /// `acquire_fs_lock`.
    pub acquire_fs_lock: bool,
    /// `file_cache_advise`.
    pub file_cache_advise: bool,
    /// `on_truncate`.
    pub on_truncate: OnTruncate,
    /// `attributes`: values may hold `EXPR(...)`.
    pub attributes: Vec<(String, String)>,
    /// `resource`: values may hold `EXPR(...)`.
    pub resource: Vec<(String, String)>,
    /// `storage`.
    pub storage: Option<ComponentId>,
    /// `retry_on_failure`.
    pub retry_on_failure: RetryOnFailure,
    /// `operators`, as written.
    pub operators: Vec<Node>,
    /// Own option `deleted_files`.
    pub deleted_files: DeletedFiles,
    /// Own option `links`.
    pub links: LinkOptions,
    /// Own option `watch`.
    pub watch: WatchMode,
    /// Own option `rescan_interval`: how often all directories are looked through although nothing
    /// was reported; 30 s. Where nothing is reported it is `poll_interval`.
    pub rescan_interval: Duration,
    /// Own option `open_files_max`: descriptors of this receiver; unless given,
    /// `max_concurrent_files` if that is given, else 1024.
    pub open_files_max: usize,
}

impl FilelogConfig {
    /// The files of this configuration, with links followed as it says.
    pub fn guarded_fs(&self) -> GuardedFs {
        let includes = self.include.iter().flat_map(Glob::roots).collect();
        let rules = LinkRules::new(self.links.follow, &self.links.roots, includes);
        GuardedFs::new(rules)
    }

    /// Finds the files of this configuration.
    pub fn finder(&self) -> Discovery {
        Discovery {
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            exclude_older_than: self.exclude_older_than,
            ordering: self.ordering.clone(),
        }
    }

    /// Decodes and validates `section`; problems go to its errors, defaults take their place. The
    /// caller ends the section.
    pub fn decode(s: &mut Section<'_, '_>) -> FilelogConfig {
        s.describe(OPTIONS);
        let start_at = s.choice(
            "start_at",
            &[("beginning", StartAt::Beginning), ("end", StartAt::End)],
            StartAt::End,
        );
        let charset = charset(s);
        let max_concurrent_files = s.usize_optional("max_concurrent_files", 1..);
        subsumed(s);
        let (include, files) = include(s);
        FilelogConfig {
            operator_id: operator_id(s),
            include,
            files,
            exclude: globs(s, "exclude").unwrap_or_default(),
            exclude_older_than: s.duration("exclude_older_than", Duration::ZERO),
            ordering: ordering::decode(s),
            start_at,
            poll_interval: s.duration_in(
                "poll_interval",
                Duration::from_millis(200),
                Duration::from_nanos(1)..,
            ),
            fingerprint_bytes: s.byte_size("fingerprint_size", 1000, 16..=FINGERPRINT_BYTES_MAX)
                as usize,
            initial_buffer_bytes: s
                .byte_size_optional("initial_buffer_size", 1..=MAX_LOG_BYTES_MAX)
                .map(|n| n as usize),
            max_log_bytes: s.byte_size("max_log_size", 1 << 20, 1..=MAX_LOG_BYTES_MAX) as usize,
            oversize: s.choice(
                "max_log_size_behavior",
                &[("split", Oversize::Split), ("truncate", Oversize::Truncate)],
                Oversize::Split,
            ),
            multiline: multiline(s, charset),
            charset,
            force_flush_period: s.duration("force_flush_period", Duration::from_millis(500)),
            trim: Trim {
                leading: !s.bool("preserve_leading_whitespaces", false),
                trailing: !s.bool("preserve_trailing_whitespaces", false),
            },
            file_attributes: file_attributes(s),
            compression: s.choice(
                "compression",
                &[
                    ("", GzipRule::Never),
                    ("gzip", GzipRule::Always),
                    ("auto", GzipRule::Auto),
                ],
                GzipRule::Never,
            ),
            delete_after_read: delete_after_read(s, start_at),
            header: header(s, start_at),
            acquire_fs_lock: s.bool("acquire_fs_lock", false),
            file_cache_advise: s.bool("file_cache_advise", false),
            on_truncate: s.choice(
                "on_truncate",
                &[
                    ("ignore", OnTruncate::Ignore),
                    ("read_whole_file", OnTruncate::ReadWholeFile),
                    ("read_new", OnTruncate::ReadNew),
                ],
                OnTruncate::Detect,
            ),
            attributes: s.string_map("attributes").unwrap_or_default(),
            resource: s.string_map("resource").unwrap_or_default(),
            storage: s.component_id("storage"),
            retry_on_failure: retry_on_failure(s, "positions move by delivery only"),
            operators: operators(s, "operators"),
            deleted_files: deleted_files(s),
            links: links(s),
            watch: s.choice(
                "watch",
                &[
                    ("auto", WatchMode::Auto),
                    ("inotify", WatchMode::Inotify),
                    ("poll", WatchMode::Poll),
                ],
                WatchMode::Auto,
            ),
            rescan_interval: s.duration_in(
                "rescan_interval",
                Duration::from_secs(30),
                Duration::from_millis(100)..,
            ),
            open_files_max: s
                .usize_optional("open_files_max", 1..)
                .or(max_concurrent_files)
                .unwrap_or(OPEN_FILES_MAX),
        }
    }

    /// The rules by which content is cut into records.
    pub fn frame_spec(&self, charset: Charset) -> FrameSpec {
        let split = match (&self.multiline, charset) {
            (_, Charset::Nop) => Split::None,
            (None, _) => Split::Newline,
            (Some(multiline), _) => multiline.split(),
        };
        let (max_log_bytes, oversize, trim) = (self.max_log_bytes, self.oversize, self.trim);
        FrameSpec {
            split,
            units: charset.units(),
            max_log_bytes,
            oversize,
            trim,
        }
    }
}

fn operator_id(s: &mut Section<'_, '_>) -> String {
    s.one_of("type", &["file_input"], "file_input");
    s.refuse(
        "output",
        "records go to the first of `operators`; give that one an `output` instead",
    );
    s.string_optional("id")
        .filter(|id| !id.is_empty())
        .unwrap_or_else(|| "file_input".into())
}

/// Options without anything to act on.
fn subsumed(s: &mut Section<'_, '_>) {
    if s.u64("max_batches", 0, ..) > 0 {
        s.warn(
            "max_batches",
            "has no effect: files are read in turns of one buffer, so none waits for others",
        );
    }
    if s.u64("polls_to_archive", 0, ..) > 0 {
        s.warn(
            "polls_to_archive",
            "has no effect: positions of files that are gone are kept without it",
        );
    }
}

/// What is selected, by patterns and by name.
fn include(s: &mut Section<'_, '_>) -> (Vec<Glob>, Vec<NamedFile>) {
    let broken = s.errors().len();
    let mut selected = globs(s, "include").unwrap_or_default();
    let named = files::decode(s);
    // A list that is there but wrong was reported already. None that are named are none yet.
    if selected.is_empty() && named.is_none() && s.errors().len() == broken {
        s.invalid("include", "'include' must be specified");
    }
    let (files, patterns): (Vec<_>, Vec<_>) = named.unwrap_or_default().into_iter().unzip();
    selected.extend(patterns);
    (selected, files)
}

/// A list of patterns.
fn globs(s: &mut Section<'_, '_>, key: &str) -> Option<Vec<Glob>> {
    let texts = s.string_list(key)?;
    let mut globs = Vec::with_capacity(texts.len());
    for text in texts {
        match Glob::new(&text) {
            Ok(glob) => globs.push(glob),
            Err(e) => s.invalid(key, format!("{text:?} is no pattern: {e}")),
        }
    }
    Some(globs)
}

/// Compiles a pattern in Go's syntax.
fn compile(s: &mut Section<'_, '_>, key: &str, pattern: &str) -> Option<Regex> {
    compiled(s, key, pattern, regexp::compile(pattern))
}

fn file_attributes(s: &mut Section<'_, '_>) -> FileAttributeRules {
    FileAttributeRules {
        name: s.bool("include_file_name", true),
        path: s.bool("include_file_path", false),
        name_resolved: s.bool("include_file_name_resolved", false),
        path_resolved: s.bool("include_file_path_resolved", false),
        owner: s.bool("include_file_owner_name", false),
        group: s.bool("include_file_owner_group_name", false),
        permissions: s.bool("include_file_permissions", false),
        record_number: s.bool("include_file_record_number", false),
        record_offset: s.bool("include_file_record_offset", false),
    }
}

fn delete_after_read(s: &mut Section<'_, '_>, start_at: StartAt) -> bool {
    let delete = s.bool("delete_after_read", false);
    if delete && start_at == StartAt::End {
        s.invalid(
            "delete_after_read",
            "needs start_at: beginning; what was never read would be deleted otherwise",
        );
    }
    delete
}

fn header(s: &mut Section<'_, '_>, start_at: StartAt) -> Option<HeaderConfig> {
    let header = s.section_if_present("header", |s| {
        let pattern = s.string_required("pattern");
        let operators = operators(s, "metadata_operators");
        if operators.is_empty() {
            s.invalid("metadata_operators", "at least one operator is required");
        }
        let kind = |o: &Node| o.get("type").and_then(Node::as_text).map(str::to_owned);
        let refused = ["filter", "recombine"];
        let mut kinds = operators.iter().filter_map(kind);
        if let Some(kind) = kinds.find(|kind| refused.contains(&kind.as_str())) {
            let message = format!("{kind} cannot be used on header lines");
            s.invalid("metadata_operators", message);
        }
        let pattern = compile(s, "pattern", &pattern?)?;
        Some(HeaderConfig {
            pattern,
            metadata_operators: operators,
        })
    })?;
    if start_at == StartAt::End {
        s.invalid(
            "header",
            "needs start_at: beginning; headers would not be seen otherwise",
        );
    }
    header
}

fn links(s: &mut Section<'_, '_>) -> LinkOptions {
    s.section("links", |s| {
        let follow = [
            ("trusted", Follow::Trusted),
            ("inside", Follow::Inside),
            ("all", Follow::All),
        ];
        let follow = s.choice("follow", &follow, Follow::default());
        let roots = s.string_list("roots").unwrap_or_default();
        if roots.iter().any(|dir| !dir.starts_with('/')) {
            s.invalid("roots", "each must be an absolute path");
        }
        LinkOptions {
            follow,
            roots: roots.into_iter().map(PathBuf::from).collect(),
        }
    })
}

fn deleted_files(s: &mut Section<'_, '_>) -> DeletedFiles {
    s.section("deleted_files", |s| DeletedFiles {
        hold_bytes_max: s.byte_size("hold_bytes_max", 1 << 30, ..),
        hold_age_max: s.duration("hold_age_max", Duration::from_secs(3600)),
    })
}
