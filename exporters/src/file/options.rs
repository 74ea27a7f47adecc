//! Options of the exporter `file`, as the collector names them.

use std::path::PathBuf;

/// `format`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Form {
    /// JSON, one request per line.
    #[default]
    Json,
    /// Protobuf, each request behind its length.
    Proto,
}

/// `rotation`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RotationOptions {
    /// Size in bytes from which the next line goes to a new file (`max_megabytes`, default 100).
    pub max_bytes: u64,
    /// Backups older than this many days are removed (`max_days`); 0 = none, the default.
    pub max_days: u64,
    /// Backups kept (`max_backups`, default 100); 0 = all.
    pub max_backups: usize,
    /// Times in backup names are local (`localtime`), not UTC.
    pub localtime: bool,
}

impl Default for RotationOptions {
    fn default() -> RotationOptions {
        RotationOptions {
            max_bytes: 100 << 20,
            max_days: 0,
            max_backups: 100,
            localtime: false,
        }
    }
}

/// Options of the exporter `file`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileOptions {
    /// `path`.
    pub path: PathBuf,
    /// `rotation`, if present. The file is then appended to at the start.
    pub rotation: Option<RotationOptions>,
    /// `append`: go on at the end of an existing file. Default false: it is emptied at the start.
    pub append: bool,
    /// `create_directory`: make the directory of `path` if it is missing. Default false.
    pub create_directory: bool,
    /// `format`. Default json.
    pub form: Form,
    /// `compression: zstd`: each request is a frame, behind its length. Default false.
    pub compressed: bool,
    /// Bytes that may wait to be written before sources pause (an option of our own).
    /// Default 16 MiB.
    pub queue_bytes_max: u64,
}

impl FileOptions {
    /// The defaults with `path`.
    pub fn new(path: impl Into<PathBuf>) -> FileOptions {
        FileOptions {
            path: path.into(),
            rotation: None,
            append: false,
            create_directory: false,
            form: Form::Json,
            compressed: false,
            queue_bytes_max: 16 << 20,
        }
    }
}
