//! What a configuration uses of the file system, for the sandbox the agent shuts itself into, and
//! where it sends to, for what a remote configuration may name.
//!
//! Each kind of component says it for its own settings, so whoever builds the sandbox knows no
//! component by name. A place that is missing here is closed to the component.

use std::io::Read;
use std::path::{Path, PathBuf};

/// What is done with a place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Use {
    /// Read.
    Read,
    /// Read, and delete files.
    ReadAndDelete,
    /// Create, write, rename and delete files.
    Write,
    /// Create and delete sockets to listen at.
    Listen,
    /// Read and execute.
    Execute,
}

/// A directory with everything below it, or a file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// Where.
    pub path: PathBuf,
    /// What for.
    pub usage: Use,
    /// It is a directory that whoever uses it creates, with this mode, if it is missing.
    pub create_mode: Option<u32>,
}

/// The places of a component, or of a whole configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reach {
    /// Where logs are: directories, each with everything below it. They may be replaced by others
    /// of the same name, and they may not exist yet.
    pub logs: Vec<Place>,
    /// Everything else.
    pub places: Vec<Place>,
    /// Servers and proxies that connections are made to, as `host:port`.
    pub servers: Vec<String>,
    /// The system's database of users and groups is read while data moves.
    pub user_names: bool,
}

impl Reach {
    /// Logs below a directory, which are deleted once they are read if `delete` is set.
    pub fn logs_below(&mut self, dir: impl Into<PathBuf>, delete: bool) {
        let usage = if delete {
            Use::ReadAndDelete
        } else {
            Use::Read
        };
        self.logs.push(Place {
            path: dir.into(),
            usage,
            create_mode: None,
        });
    }

    /// A file that is read and may be replaced by another of the same name, also by a change of a
    /// link on the way: so the directories that hold it, by its name and by what that leads to
    /// now, are read as a whole.
    pub fn reads_file(&mut self, path: &Path) {
        self.place(directory_of(path), Use::Read, None);
        if let Ok(target) = path.canonicalize() {
            self.place(directory_of(&target), Use::Read, None);
        }
    }

    /// A file or directory of the system, with all below it, that is read as it is.
    pub fn reads(&mut self, path: impl Into<PathBuf>) {
        self.place(path.into(), Use::Read, None);
    }

    /// A file that is written, and files beside it that it is renamed to. `create` if its
    /// directory is made where it is missing.
    pub fn writes_file(&mut self, path: &Path, create: bool) {
        let dir = directory_of(path);
        // A device or the stream of a process is used as it is; there is nothing beside it.
        if dir.starts_with("/dev") || dir.starts_with("/proc") {
            self.place(path.to_path_buf(), Use::Write, None);
        } else {
            self.place(dir, Use::Write, create.then_some(0o777));
        }
    }

    /// A file, or a directory with everything below it.
    pub fn reads_below(&mut self, path: &Path) {
        self.place(path.to_path_buf(), Use::Read, None);
    }

    /// A program that is run, with what its first line runs it with if it is a script; or a directory of
    /// programs.
    pub fn executes(&mut self, path: &Path) {
        self.place(path.to_path_buf(), Use::Execute, None);
        if let Some(interpreter) = interpreter_of(path) {
            self.place(interpreter, Use::Execute, None);
        }
    }

    /// A server or proxy, as `host:port`.
    pub fn connects_to(&mut self, host_port: impl Into<String>) {
        self.servers.push(host_port.into());
    }

    /// A socket that is listened at.
    pub fn listens_at(&mut self, path: &Path) {
        self.place(directory_of(path), Use::Listen, None);
    }

    /// A directory in which everything is written; made with `create_mode` if it is missing.
    pub fn writes_below(&mut self, dir: impl Into<PathBuf>, create_mode: Option<u32>) {
        self.place(dir.into(), Use::Write, create_mode);
    }

    fn place(&mut self, path: PathBuf, usage: Use, create_mode: Option<u32>) {
        self.places.push(Place {
            path,
            usage,
            create_mode,
        });
    }
}

/// What a script begins with, behind `#!`. Source: execve(2).
fn interpreter_of(path: &Path) -> Option<PathBuf> {
    let mut head = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    // A directory has no content.
    file.take(256).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let name = std::str::from_utf8(line).ok()?.split_whitespace().next()?;
    Some(PathBuf::from(name))
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(reach: &Reach) -> Vec<&Path> {
        reach.places.iter().map(|p| p.path.as_path()).collect()
    }

    /// Guarantee: a secret of Kubernetes, a link to a link in a directory that is swapped, and a
    /// certificate that is a link to another directory stay readable when they are replaced.
    #[test]
    fn a_file_is_reached_by_its_name_and_by_where_it_is() {
        let root = std::env::temp_dir().join(format!("tailwater-reach-{}", std::process::id()));
        let root = std::fs::create_dir(&root)
            .and_then(|()| root.canonicalize())
            .unwrap();
        std::fs::create_dir(root.join("live")).unwrap();
        std::fs::create_dir(root.join("archive")).unwrap();
        std::fs::write(root.join("archive/cert1.pem"), "x").unwrap();
        std::os::unix::fs::symlink("../archive/cert1.pem", root.join("live/cert.pem")).unwrap();
        let mut reach = Reach::default();
        reach.reads_file(&root.join("live/cert.pem"));
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(paths(&reach), [root.join("live"), root.join("archive")]);
    }

    #[test]
    fn what_is_written_has_its_directory_but_a_device_has_none() {
        let mut reach = Reach::default();
        reach.writes_file(Path::new("out.json"), false);
        reach.writes_file(Path::new("/data/out.json"), true);
        reach.writes_file(Path::new("/dev/stderr"), false);
        assert_eq!(paths(&reach), [".", "/data", "/dev/stderr"].map(Path::new));
        assert_eq!(reach.places[1].create_mode, Some(0o777));
    }
}
