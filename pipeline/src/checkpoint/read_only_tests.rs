//! Scenario: the file system of a store became read-only, as after an error of its disk, and a
//! process starts. Guarantee: it has its positions, says that it cannot save, and saves when it
//! can; two of them never write at once.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Checkpoint, CheckpointError, CheckpointStore, StoreOptions};
use crate::fs::{Fs, FsFile, SimFs};

/// A file system that can be made read-only.
struct Remountable {
    inner: SimFs,
    read_only: AtomicBool,
}

impl Remountable {
    fn writable(&self) -> io::Result<()> {
        match self.read_only.load(Ordering::SeqCst) {
            true => Err(ErrorKind::ReadOnlyFilesystem.into()),
            false => Ok(()),
        }
    }
}

impl Fs for Remountable {
    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.inner.open(path)
    }
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.writable()?;
        self.inner.open_append(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.writable()?;
        self.inner.create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.writable()?;
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.writable()?;
        self.inner.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(dir)
    }
    fn create_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        // As mkdir: a directory that exists needs no writing.
        if self.inner.list(dir).is_err() {
            self.writable()?;
        }
        self.inner.create_dir(dir, mode)
    }
}

fn at(offset: u64) -> Checkpoint {
    Checkpoint {
        offset,
        ..Checkpoint::default()
    }
}

fn open(fs: &Arc<Remountable>) -> Result<CheckpointStore, CheckpointError> {
    let options = StoreOptions::default();
    CheckpointStore::open(fs.clone(), Path::new("/s"), options).map(|(store, _)| store)
}

fn file_system() -> Arc<Remountable> {
    Arc::new(Remountable {
        inner: SimFs::new(0),
        read_only: AtomicBool::new(false),
    })
}

#[test]
fn a_store_on_a_read_only_file_system_is_read_and_saved_once_it_can_be() {
    let fs = file_system();
    let mut store = open(&fs).unwrap();
    store.put(b"a", at(1)).unwrap();
    store.commit().unwrap();
    drop(store);
    fs.read_only.store(true, Ordering::SeqCst);
    let (mut first, mut second) = (open(&fs).unwrap(), open(&fs).unwrap());
    assert_eq!(first.get(b"a"), Some(at(1)));
    first.put(b"a", at(2)).unwrap();
    second.put(b"a", at(3)).unwrap();
    let error = first.commit().unwrap_err().to_string();
    assert!(error.to_lowercase().contains("read-only"), "{error}");
    assert_eq!(first.alarm().map(|a| a.failures), Some(1));
    fs.read_only.store(false, Ordering::SeqCst);
    first.commit().unwrap();
    assert!(first.alarm().is_none());
    let refused = second.commit().unwrap_err();
    assert!(
        matches!(refused, CheckpointError::Locked { .. }),
        "{refused}"
    );
    drop((first, second));
    assert_eq!(open(&fs).unwrap().get(b"a"), Some(at(2)));
}

#[test]
fn a_directory_that_cannot_be_made_is_a_mistake_to_be_shown() {
    let fs = file_system();
    fs.read_only.store(true, Ordering::SeqCst);
    let error = open(&fs).err().expect("there is no directory").to_string();
    assert!(error.contains("cannot use the state directory"), "{error}");
}
