//! The little of a file system that durable state needs, injected so that a simulation decides
//! what survives a crash.
//!
//! [`OsFs`] is the operating system's; [`SimFs`] keeps files in memory, loses what was not
//! synchronised, fills up, and fails when it is told to. Log files are read through an interface
//! of the receiver that reads them, not through this one.

mod sim;

pub use sim::SimFs;

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

/// Permission bits of files that are created: state tells what is logged, others need not know.
const FILE_MODE: u32 = 0o600;

/// An open file.
pub trait FsFile: Send {
    /// Reads up to `buf.len()` bytes at `offset` (in bytes); 0 = end of file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at the end. After an error any part of them may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Length in bytes.
    fn byte_len(&self) -> io::Result<u64>;
    /// Cuts the file to `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Makes content and length durable (not the name: see [`Fs::sync_dir`]). After an error
    /// nothing is known about the content, and a later success proves nothing: the kernel reports
    /// a lost page once.
    fn sync_data(&mut self) -> io::Result<()>;
    /// Takes the file's exclusive advisory lock (`flock`) without waiting; false if another open
    /// file holds it. Closing the file gives it back.
    fn try_lock_exclusive(&self) -> io::Result<bool>;
}

/// Names and files. Paths are absolute, or relative to the working directory.
pub trait Fs: Send + Sync {
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;
    /// Opens a file for reading and appending; creates it, readable by its owner only, if there
    /// is none.
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;
    /// As [`Fs::open_append`], and empties the file.
    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;
    /// Gives a file another name in the same directory, replacing what had that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable: files created, renamed and removed.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;
    /// Creates a directory and its missing parents with the given permission bits; does nothing
    /// if it exists.
    fn create_dir(&self, dir: &Path, mode: u32) -> io::Result<()>;
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

struct OsFile(File);

impl FsFile for OsFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read_at(buf, offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn try_lock_exclusive(&self) -> io::Result<bool> {
        match rustix::fs::flock(
            &self.0,
            rustix::fs::FlockOperation::NonBlockingLockExclusive,
        ) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

impl Fs for OsFs {
    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        Ok(Box::new(OsFile(File::open(path)?)))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(FILE_MODE);
        Ok(Box::new(OsFile(options.open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut file = self.open_append(path)?;
        file.truncate(0)?;
        Ok(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match File::open(dir)?.sync_all() {
            // Some network and FUSE file systems cannot sync a directory: there is no more to do.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
            done => done,
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let names = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name()));
        let mut names = names.collect::<io::Result<Vec<OsString>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(mode).create(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own that is removed at the end.
    struct TestDir(std::path::PathBuf);

    impl TestDir {
        fn new(name: &str) -> TestDir {
            let dir = std::env::temp_dir().join(format!("tw-fs-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            TestDir(dir)
        }
    }

    impl Drop for TestDir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// What both file systems must do alike.
    fn check_contract(fs: &dyn Fs, root: &Path) {
        let dir = root.join("a/b");
        fs.create_dir(&dir, 0o700).unwrap();
        fs.create_dir(&dir, 0o700).unwrap();
        let (one, two) = (dir.join("one"), dir.join("two"));
        assert_eq!(fs.open(&one).err().unwrap().kind(), io::ErrorKind::NotFound);
        assert_eq!(
            fs.rename(&one, &two).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        assert_eq!(fs.remove(&one).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(
            fs.list(&root.join("x")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );

        let mut file = fs.create(&one).unwrap();
        file.append(b"hello ").unwrap();
        file.append(b"world").unwrap();
        let mut buf = [0; 8];
        assert_eq!(file.read_at(6, &mut buf).unwrap(), 5);
        assert_eq!(&buf[..5], b"world");
        assert_eq!(file.read_at(11, &mut buf).unwrap(), 0);
        file.truncate(5).unwrap();
        file.append(b"!").unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.byte_len().unwrap(), 6);

        fs.rename(&one, &two).unwrap();
        fs.sync_dir(&dir).unwrap();
        assert_eq!(fs.list(&dir).unwrap(), ["two"]);
        let again = fs.open_append(&two).unwrap();
        assert_eq!(again.byte_len().unwrap(), 6);
        assert!(file.try_lock_exclusive().unwrap());
        assert!(
            !again.try_lock_exclusive().unwrap(),
            "the lock is exclusive"
        );
        drop(file);
        assert!(
            again.try_lock_exclusive().unwrap(),
            "closing gives the lock back"
        );
        assert_eq!(fs.create(&two).unwrap().byte_len().unwrap(), 0);
        fs.remove(&two).unwrap();
        assert!(fs.list(&dir).unwrap().is_empty());
    }

    #[test]
    fn the_real_and_the_simulated_file_system_keep_one_contract() {
        let dir = TestDir::new("contract");
        check_contract(&OsFs, &dir.0);
        check_contract(&SimFs::new(1), Path::new("/state"));
    }

    #[test]
    fn what_is_created_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = TestDir::new("mode");
        OsFs.create_dir(&dir.0, 0o700).unwrap();
        OsFs.create(&dir.0.join("f")).unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.0), 0o700);
        assert_eq!(mode(&dir.0.join("f")) & 0o077, 0);
    }
}
