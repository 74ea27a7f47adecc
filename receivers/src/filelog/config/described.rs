//! What the options do, for whoever reads or writes them.

/// By their paths below the receiver.
pub(super) const OPTIONS: &[(&str, &str)] = &[
    (
        "include",
        "Glob patterns of files, `**` and `{a,b}` included. Required, unless there is `files`.",
    ),
    (
        "files",
        "own: Files by name, each with a resource of its own. May be empty. One that is not named any more keeps its resource until it is read to its end.",
    ),
    ("files::0::path", "The file: absolute, no pattern."),
    (
        "files::0::resource",
        "Attributes of the resource, over those of `resource`; no `EXPR`.",
    ),
    ("exclude", "Glob patterns of files that are left out."),
    (
        "exclude_older_than",
        "Files that were changed longer ago are left out; 0 = none.",
    ),
    (
        "ordering_criteria",
        "Which of the files are read, by what their names or times say.",
    ),
    (
        "ordering_criteria::regex",
        "Pattern with named groups, which `sort_by` compares; of paths.",
    ),
    (
        "ordering_criteria::group_by",
        "Pattern whose first group names the group of a file: `top_n` is of each.",
    ),
    (
        "ordering_criteria::top_n",
        "How many files are read; 0 means 1.",
    ),
    (
        "ordering_criteria::sort_by",
        "How files are put in order; the first rule that tells two apart counts.",
    ),
    (
        "ordering_criteria::sort_by::0::sort_type",
        "What is compared: the group `regex_key` as a number, text or time, or the time of the last change. Required.",
    ),
    (
        "ordering_criteria::sort_by::0::regex_key",
        "Name of the group of `regex`; not for mtime.",
    ),
    (
        "ordering_criteria::sort_by::0::ascending",
        "The least first; not for mtime, where the newest is always first.",
    ),
    (
        "ordering_criteria::sort_by::0::layout",
        "Of timestamp: the layout, in the directives of strptime. Required there.",
    ),
    (
        "ordering_criteria::sort_by::0::location",
        "Of timestamp: the time zone, a name of the IANA database.",
    ),
    (
        "ordering_criteria::sort_by::0::max_time",
        "Of mtime: files that were changed longer ago are left out; 0 = none.",
    ),
    (
        "start_at",
        "Where reading begins in files that exist at the very first start. Files that appear later are read from their beginning.",
    ),
    (
        "poll_interval",
        "How often files are looked at where notifications do not work.",
    ),
    (
        "fingerprint_size",
        "First bytes of a file by which its content is recognised.",
    ),
    (
        "initial_buffer_size",
        "Bytes that are read at once; 256KiB unless set.",
    ),
    ("max_log_size", "Longest record. What is longer is cut."),
    (
        "max_log_size_behavior",
        "What becomes of the rest of a longer record: another record, or nothing.",
    ),
    (
        "multiline",
        "What begins or ends a record, in place of the end of a line. One of the two patterns.",
    ),
    (
        "force_flush_period",
        "An unfinished last line is passed on after so long; 0 = never.",
    ),
    (
        "preserve_leading_whitespaces",
        "White space in front of a record stays.",
    ),
    (
        "preserve_trailing_whitespaces",
        "White space behind a record stays.",
    ),
    ("include_file_name", "Adds the attribute `log.file.name`."),
    ("include_file_path", "Adds the attribute `log.file.path`."),
    (
        "include_file_name_resolved",
        "Adds `log.file.name_resolved`: the name behind symbolic links.",
    ),
    (
        "include_file_path_resolved",
        "Adds `log.file.path_resolved`: the path behind symbolic links.",
    ),
    ("include_file_owner_name", "Adds `log.file.owner.name`."),
    (
        "include_file_owner_group_name",
        "Adds `log.file.owner.group.name`.",
    ),
    ("include_file_permissions", "Adds `log.file.permissions`."),
    (
        "include_file_record_number",
        "Adds `log.file.record_number`. Blank lines have a number, but are no records.",
    ),
    (
        "include_file_record_offset",
        "Adds `log.file.record_offset`: the bytes before the record.",
    ),
    (
        "compression",
        "Files are compressed: always, or those whose first bytes say so.",
    ),
    (
        "delete_after_read",
        "Files are deleted when everything is delivered, to all destinations. Needs `start_at: beginning`.",
    ),
    (
        "header",
        "Leading lines that match are no records: what operators find in them becomes attributes of all records of the file, whatever `multiline` says. Needs `start_at: beginning`.",
    ),
    ("header::pattern", "Pattern of these lines."),
    (
        "header::metadata_operators",
        "Operators for these lines, any but `filter` and `recombine`.",
    ),
    ("acquire_fs_lock", "A file is locked while it is read."),
    (
        "file_cache_advise",
        "The kernel is told that what was read is not needed in its cache any more.",
    ),
    (
        "on_truncate",
        "What is done when a file became shorter: read from its beginning, read on, or read what is new. Unless set, new content is recognised and read from its beginning; see [DELIVERY](DELIVERY.md#rotation).",
    ),
    (
        "id",
        "The name under which the collector stored positions; `file_input` unless set.",
    ),
    (
        "type",
        "The type of the collector's operator; says nothing more.",
    ),
    (
        "max_batches",
        "Accepted with a warning: nothing here for it to act on.",
    ),
    (
        "polls_to_archive",
        "Accepted with a warning: nothing here for it to act on.",
    ),
    (
        "max_concurrent_files",
        "Open files; `open_files_max` wins. 1024 unless set.",
    ),
    (
        "storage",
        "A `file_storage` for positions. They are kept without it, too.",
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
    (
        "watch",
        "own: How news of files comes: by inotify, by looking, or by inotify where that works.",
    ),
    (
        "rescan_interval",
        "own: How often all directories are looked at completely, whatever was notified.",
    ),
    (
        "open_files_max",
        "own: Descriptors of this receiver, at most half of what the process may open. 1024 unless set.",
    ),
    (
        "links",
        "own: Symbolic links, see [SECURITY](SECURITY.md#symbolic-links).",
    ),
    (
        "links::follow",
        "own: Which are followed: those whose makers are trusted, those that stay inside, or all.",
    ),
    (
        "links::roots",
        "own: Directories that links may lead to, whoever made them; absolute.",
    ),
    (
        "deleted_files",
        "own: Files that are deleted before they are read to their end.",
    ),
    (
        "deleted_files::hold_bytes_max",
        "own: Unread bytes of deleted files that are kept open in all.",
    ),
    (
        "deleted_files::hold_age_max",
        "own: How long one is kept open at most.",
    ),
];
