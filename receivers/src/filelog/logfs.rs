//! The file system as the tailer sees it: few calls, replaceable by a simulated one.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Which file this is, as the kernel tells. Not enough alone: inodes are reused at once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Default)]
pub struct FileId {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Birth time in ns since the epoch, 0 where the file system has none.
    pub birth_ns: i64,
}

/// What a stat tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Identity.
    pub id: FileId,
    /// Size in bytes.
    pub size: u64,
    /// Modification time, ns since the epoch.
    pub mtime_ns: i64,
    /// Number of names the file has; 0 = deleted but open.
    pub links: u64,
}

/// What there is at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A device, FIFO or socket.
    Other,
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The name.
    pub name: OsString,
    /// What it is, where the listing tells; links are not followed.
    pub kind: Option<Kind>,
    /// The number of its inode. Not everywhere the one that a look at it tells.
    pub ino: u64,
}

/// Whose a file is and who may do what with it, as in stat(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Mode bits.
    pub mode: u32,
}

/// An open log file.
pub trait LogFile: Send + Sync {
    /// Appends up to `max` bytes from `offset` to `buf`; 0 = end of file.
    fn read_at(&self, offset: u64, max: usize, buf: &mut Vec<u8>) -> io::Result<usize>;
    /// As [`LogFile::read_at`], but less than `max` only at the end of the file. Some file systems
    /// give less than there is; where bytes are evidence, that must not look like other bytes.
    fn read_whole_at(&self, offset: u64, max: usize, buf: &mut Vec<u8>) -> io::Result<usize> {
        let mut done = 0;
        while done < max {
            match self.read_at(offset + done as u64, max - done, buf)? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }
    /// Where the next written part begins, at `from` or behind it; `None` if there is none. What is
    /// not known to be a hole is taken for written.
    fn next_data(&self, from: u64) -> io::Result<Option<u64>>;
    /// Stats the open file.
    fn meta(&self) -> io::Result<Meta>;
    /// Tells the kernel that the pages read so far are not needed again.
    fn forget_pages(&self) -> io::Result<()>;
    /// Tries to take a shared advisory lock without waiting; false if someone holds it.
    fn try_lock_shared(&self) -> io::Result<bool>;
    /// Gives the lock back.
    fn unlock(&self) -> io::Result<()>;
}

/// An open file that several look at.
impl LogFile for Arc<dyn LogFile> {
    fn read_at(&self, offset: u64, max: usize, buf: &mut Vec<u8>) -> io::Result<usize> {
        (**self).read_at(offset, max, buf)
    }

    fn read_whole_at(&self, offset: u64, max: usize, buf: &mut Vec<u8>) -> io::Result<usize> {
        (**self).read_whole_at(offset, max, buf)
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        (**self).next_data(from)
    }

    fn meta(&self) -> io::Result<Meta> {
        (**self).meta()
    }

    fn forget_pages(&self) -> io::Result<()> {
        (**self).forget_pages()
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        (**self).try_lock_shared()
    }

    fn unlock(&self) -> io::Result<()> {
        (**self).unlock()
    }
}

/// Opens and looks at files by path.
pub trait LogFs: Send + Sync {
    /// Opens a regular file for reading; anything else is an error, without side effects on it.
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;
    /// What is at `path` itself, a link included.
    fn look(&self, path: &Path) -> io::Result<(Kind, Meta)>;
    /// What `path` leads to, following links.
    fn look_through(&self, path: &Path) -> io::Result<(Kind, Meta)>;
    /// Lists a directory. After an error some of the names may have been given.
    fn list(&self, dir: &Path, each: &mut dyn FnMut(Entry)) -> io::Result<()>;
    /// Whose the file is that `path` leads to.
    fn owner(&self, path: &Path) -> io::Result<Owner>;
    /// The path without symbolic links.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;
    /// Stats what `path` leads to, following links.
    fn meta(&self, path: &Path) -> io::Result<Meta> {
        Ok(self.look_through(path)?.1)
    }
    /// Names in a directory.
    fn names(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        self.list(dir, &mut |e| names.push(PathBuf::from(e.name)))?;
        Ok(names)
    }
    /// Deletes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// Names of directories are read in pieces of this size.
const LISTING_BYTES: usize = 16 << 10;

/// The operating system's file system.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsLogFs;

fn meta_of(m: &fs::Metadata) -> Meta {
    let birth = m
        .created()
        .ok()
        .and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    Meta {
        id: FileId {
            dev: m.dev(),
            ino: m.ino(),
            birth_ns: birth.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(0)),
        },
        size: m.size(),
        mtime_ns: m
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(m.mtime_nsec()),
        links: m.nlink(),
    }
}

fn kind_of(t: fs::FileType) -> Kind {
    match () {
        () if t.is_file() => Kind::File,
        () if t.is_dir() => Kind::Dir,
        () if t.is_symlink() => Kind::Link,
        () => Kind::Other,
    }
}

/// What a listing says of an entry; not every file system's does.
fn listed_kind(t: rustix::fs::FileType) -> Option<Kind> {
    match t {
        rustix::fs::FileType::RegularFile => Some(Kind::File),
        rustix::fs::FileType::Directory => Some(Kind::Dir),
        rustix::fs::FileType::Symlink => Some(Kind::Link),
        rustix::fs::FileType::Unknown => None,
        _ => Some(Kind::Other),
    }
}

struct OsLogFile(File);

impl LogFile for OsLogFile {
    fn read_at(&self, offset: u64, max: usize, buf: &mut Vec<u8>) -> io::Result<usize> {
        if max == 0 {
            return Ok(0);
        }
        let start = buf.len();
        if buf.capacity() - start < max {
            buf.reserve_exact(max);
        }
        // More than `max` may be read where the buffer has more room; that is cut off again.
        loop {
            match rustix::io::pread(&self.0, rustix::buffer::spare_capacity(buf), offset) {
                Ok(n) => {
                    buf.truncate(start + max);
                    return Ok(n.min(max));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        // The descriptor's offset, which this moves, is not used by anything else.
        match rustix::fs::seek(&self.0, rustix::fs::SeekFrom::Data(from)) {
            Ok(data) => Ok(Some(data)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // The file system does not tell.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(Some(from)),
            Err(e) => Err(e.into()),
        }
    }

    fn meta(&self) -> io::Result<Meta> {
        Ok(meta_of(&self.0.metadata()?))
    }

    fn forget_pages(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(
            &self.0,
            0,
            None,
            rustix::fs::Advice::DontNeed,
        )?)
    }

    fn try_lock_shared(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.0, rustix::fs::FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(
            &self.0,
            rustix::fs::FlockOperation::Unlock,
        )?)
    }
}

/// An open file, if it is a regular one.
pub(super) fn log_file(file: File) -> io::Result<Box<dyn LogFile>> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(Box::new(OsLogFile(file)));
    }
    let what = match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{what}, not a regular file"),
    ))
}

impl LogFs for OsLogFs {
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        // O_NONBLOCK: opening a FIFO that took the place of a file must not hang.
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)?;
        log_file(file)
    }

    fn look(&self, path: &Path) -> io::Result<(Kind, Meta)> {
        let m = fs::symlink_metadata(path)?;
        Ok((kind_of(m.file_type()), meta_of(&m)))
    }

    fn look_through(&self, path: &Path) -> io::Result<(Kind, Meta)> {
        let m = fs::metadata(path)?;
        Ok((kind_of(m.file_type()), meta_of(&m)))
    }

    fn list(&self, dir: &Path, each: &mut dyn FnMut(Entry)) -> io::Result<()> {
        use rustix::fs::{CWD, Mode, OFlags, RawDir};
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, dir, flags, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); LISTING_BYTES];
        let mut entries = RawDir::new(dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                each(Entry {
                    name: OsStr::from_bytes(name).to_owned(),
                    kind: listed_kind(entry.file_type()),
                    ino: entry.ino(),
                });
            }
        }
        Ok(())
    }

    fn owner(&self, path: &Path) -> io::Result<Owner> {
        let m = fs::metadata(path)?;
        Ok(Owner {
            uid: m.uid(),
            gid: m.gid(),
            mode: m.mode(),
        })
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}
