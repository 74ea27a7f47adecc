use super::*;

const GONE: u64 = 0;
const KEPT: u64 = 1;

fn disk_with(content: &[u8]) -> (SimFs, Box<dyn FsFile>, PathBuf) {
    let fs = SimFs::new(3);
    fs.create_dir(Path::new("/s"), 0o700).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let path = PathBuf::from("/s/f");
    let mut file = fs.create(&path).unwrap();
    file.append(content).unwrap();
    file.sync_data().unwrap();
    fs.sync_dir(Path::new("/s")).unwrap();
    (fs, file, path)
}

#[test]
fn a_crash_takes_only_what_was_not_synchronised() {
    for seed in 0..200 {
        let (fs, mut file, path) = disk_with(b"durable");
        file.append(&[b'x'; 2000]).unwrap();
        fs.crash(seed);
        let left = fs.content(&path).unwrap();
        assert!(left.starts_with(b"durable"), "seed {seed}");
        assert!(left[7..].iter().all(|&b| b == b'x' || b == 0));
        assert!(
            file.append(b"y").is_err(),
            "files of before the crash are dead"
        );
    }
    let (fs, mut file, path) = disk_with(b"a");
    file.append(b"b").unwrap();
    fs.kill();
    assert_eq!(
        fs.content(&path).unwrap(),
        b"ab",
        "a killed process loses nothing written"
    );
}

#[test]
fn names_are_durable_only_once_their_directory_is() {
    let (fs, _file, path) = disk_with(b"a");
    let other = path.with_file_name("g");
    fs.rename(&path, &other).unwrap();
    fs.crash(GONE);
    assert!(fs.content(&path).is_some() && fs.content(&other).is_none());
    fs.rename(&path, &other).unwrap();
    fs.crash(KEPT);
    assert!(fs.content(&path).is_none() && fs.content(&other).is_some());
    fs.rename(&other, &path).unwrap();
    fs.sync_dir(Path::new("/s")).unwrap();
    fs.crash(GONE);
    assert_eq!(fs.content(&path).unwrap(), b"a");
}

#[test]
fn a_full_disk_writes_what_fits_and_says_so() {
    let (fs, mut file, path) = disk_with(b"abc");
    fs.set_capacity_bytes(Some(5));
    let e = file.append(b"defg").unwrap_err();
    assert_eq!(e.kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs.content(&path).unwrap(), b"abcde");
    fs.set_capacity_bytes(None);
    file.append(b"f").unwrap();
}

#[test]
fn after_a_failed_synchronisation_a_later_one_proves_nothing() {
    let mut lies = 0;
    for seed in 0..20 {
        let (fs, mut file, path) = disk_with(b"abc");
        fs.disk().rng = Rng64::new(seed);
        file.append(b"def").unwrap();
        fs.fail_at(fs.operations(), io::ErrorKind::Other);
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        fs.crash(GONE);
        lies += u32::from(fs.content(&path).unwrap() == b"abc");
    }
    assert!(lies > 0);
}

#[test]
fn a_halted_machine_does_nothing_more() {
    let (fs, mut file, path) = disk_with(b"abc");
    fs.halt_at(fs.operations());
    assert!(file.append(b"def").is_err());
    assert!(fs.remove(&path).is_err());
    assert!(file.sync_data().is_err());
    fs.crash(GONE);
    assert_eq!(fs.content(&path).unwrap(), b"abc");
}
