//! Events of the real kernel, with bounded waits, and of an imagined one.

use std::fs;
use std::io::Write;

use super::*;

const ENOUGH: Duration = Duration::from_secs(10);

fn watch(dirs: &[&Path]) -> Watch {
    let mut w = Watch::new(WatchMode::Auto);
    w.follow(&dirs.iter().map(|d| d.to_path_buf()).collect());
    assert!(!w.is_polling(), "{}", w.why_polling());
    assert_eq!(
        w.wait(ENOUGH).unwrap(),
        [WatchEvent::Rescan],
        "new directories ask for a scan"
    );
    w
}

/// Waits until `want` came, in this order; other events may come between them.
fn expect(w: &mut Watch, want: &[WatchEvent]) {
    let (mut want, mut got) = (want.iter().peekable(), Vec::new());
    let end = Instant::now() + ENOUGH;
    while want.peek().is_some() {
        assert!(
            Instant::now() < end,
            "missing {:?}, got {got:?}",
            want.peek()
        );
        for event in w.wait(Duration::from_millis(200)).unwrap() {
            if want.peek() == Some(&&event) {
                want.next();
            }
            got.push(event);
        }
    }
}

#[test]
fn creation_writing_renaming_and_deletion_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut w = watch(&[dir.path()]);
    let (a, b) = (dir.path().join("a.log"), dir.path().join("b.log"));
    fs::write(&a, "x").unwrap();
    fs::rename(&a, &b).unwrap();
    fs::remove_file(&b).unwrap();
    fs::create_dir(&a).unwrap();
    use WatchEvent::{Appeared, Gone, Modified};
    expect(
        &mut w,
        &[
            Appeared(a.clone()),
            Modified(a.clone()),
            Gone(a.clone()),
            Appeared(b.clone()),
            Gone(b),
            Appeared(a),
        ],
    );
}

#[test]
fn a_change_of_permissions_is_told_as_if_the_file_were_new() {
    let dir = tempfile::tempdir().unwrap();
    let a = dir.path().join("a.log");
    fs::write(&a, "x").unwrap();
    let mut w = watch(&[dir.path()]);
    for (path, mode) in [(&*a, 0o600), (dir.path(), 0o700)] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(path, mode).unwrap();
    }
    expect(&mut w, &[WatchEvent::Appeared(a), WatchEvent::Rescan]);
}

#[test]
fn many_writes_are_one_event_but_a_new_file_of_the_name_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (a, other) = (dir.path().join("a"), dir.path().join("o"));
    let mut w = watch(&[dir.path()]);
    let (mut fa, mut fo) = (
        fs::File::create(&a).unwrap(),
        fs::File::create(&other).unwrap(),
    );
    for _ in 0..300 {
        fa.write_all(b"x").unwrap();
        fo.write_all(b"x").unwrap();
    }
    fs::remove_file(&a).unwrap();
    fs::write(&a, "new").unwrap();
    let events = w.wait(ENOUGH).unwrap();
    let count = |e: &WatchEvent| events.iter().filter(|x| *x == e).count();
    assert_eq!(count(&WatchEvent::Modified(other)), 1);
    assert_eq!(count(&WatchEvent::Modified(a.clone())), 2);
    assert_eq!(
        (
            count(&WatchEvent::Gone(a.clone())),
            count(&WatchEvent::Appeared(a))
        ),
        (1, 2)
    );
}

#[test]
fn a_directory_that_is_moved_or_deleted_is_told_and_no_longer_watched() {
    let dir = tempfile::tempdir().unwrap();
    let (sub, moved) = (dir.path().join("sub"), dir.path().join("moved"));
    fs::create_dir(&sub).unwrap();
    let mut w = watch(&[&sub]);
    fs::rename(&sub, &moved).unwrap();
    expect(&mut w, &[WatchEvent::Gone(sub.clone())]);
    assert!(w.paths.is_empty() && w.by_path.is_empty());
    fs::create_dir(&sub).unwrap();
    w.follow(&BTreeSet::from([sub.clone()]));
    expect(&mut w, &[WatchEvent::Rescan]);
    fs::write(moved.join("x"), "x").unwrap();
    fs::write(sub.join("y"), "y").unwrap();
    let events = w.wait(ENOUGH).unwrap();
    assert_eq!(events[0], WatchEvent::Appeared(sub.join("y")), "{events:?}");
    fs::remove_dir_all(&sub).unwrap();
    expect(
        &mut w,
        &[WatchEvent::Gone(sub.join("y")), WatchEvent::Gone(sub)],
    );
}

#[test]
fn links_to_one_directory_each_get_their_events_and_may_change() {
    let dir = tempfile::tempdir().unwrap();
    let at = |p: &str| dir.path().join(p);
    fs::create_dir(at("one")).unwrap();
    fs::create_dir(at("two")).unwrap();
    std::os::unix::fs::symlink("one", at("link")).unwrap();
    let mut w = watch(&[&at("one"), &at("link")]);
    fs::write(at("one/f"), "").unwrap();
    let mut events = w.wait(ENOUGH).unwrap();
    events.sort_by_key(|e| format!("{e:?}"));
    assert_eq!(
        events,
        ["link/f", "one/f"].map(|p| WatchEvent::Appeared(at(p)))
    );
    fs::remove_file(at("link")).unwrap();
    std::os::unix::fs::symlink("two", at("link")).unwrap();
    w.follow(&BTreeSet::from([at("one"), at("link")]));
    expect(&mut w, &[WatchEvent::Rescan]);
    fs::write(at("two/g"), "").unwrap();
    expect(&mut w, &[WatchEvent::Appeared(at("link/g"))]);
}

#[test]
fn what_is_not_asked_for_any_more_is_silent() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs::create_dir(&a).unwrap();
    fs::create_dir(&b).unwrap();
    let mut w = watch(&[&a, &b]);
    w.follow(&BTreeSet::from([b.clone()]));
    fs::write(a.join("x"), "x").unwrap();
    fs::create_dir(b.join("y")).unwrap();
    assert_eq!(w.wait(ENOUGH).unwrap(), [WatchEvent::Appeared(b.join("y"))]);
}

#[test]
fn an_overflow_asks_for_one_rescan() {
    let dir = tempfile::tempdir().unwrap();
    let mut w = watch(&[dir.path()]);
    let inotify = w.inotify.take().unwrap();
    let (mut seen, mut events) = (HashSet::new(), Vec::new());
    let overflow = Raw {
        wd: -1,
        flags: ReadFlags::QUEUE_OVERFLOW,
        name: b"",
    };
    w.absorb(&inotify, &overflow, &mut seen, &mut events);
    w.absorb(&inotify, &overflow, &mut seen, &mut events);
    let stale = Raw {
        wd: 9_999,
        flags: ReadFlags::MODIFY,
        name: b"x",
    };
    w.absorb(&inotify, &stale, &mut seen, &mut events);
    assert_eq!(events, [WatchEvent::Rescan]);
}

#[test]
fn polling_waits_and_can_be_woken() {
    let mut w = Watch::new(WatchMode::Poll);
    w.follow(&BTreeSet::from([PathBuf::from("/")]));
    assert!(w.is_polling() && w.why_polling().contains("configured"));
    assert_eq!(w.wait(Duration::from_millis(1)).unwrap(), []);
    let waker = w.waker();
    let begin = Instant::now();
    let thread = std::thread::spawn(move || waker.wake());
    assert_eq!(w.wait(ENOUGH * 6).unwrap(), []);
    assert!(begin.elapsed() < ENOUGH * 5);
    thread.join().unwrap();
}

#[test]
fn directories_that_cannot_be_watched_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut w = Watch::new(WatchMode::Auto);
    // Not there, and no directory: gone since they were listed, which is no reason to poll.
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    w.follow(&BTreeSet::from([dir.path().join("gone"), file]));
    assert!(!w.is_polling() && w.by_path.is_empty());
    w.unwatched.insert("/a".into(), no_watch(Errno::NOSPC));
    w.unwatched.insert("/b".into(), no_watch(Errno::ACCESS));
    w.explain();
    assert!(w.is_polling() && w.why_polling().contains("max_user_watches"));
    assert!(w.why_polling().ends_with("(and 1 more)"));
    assert!(no_instance(Errno::MFILE).contains("max_user_instances"));
    w.follow(&BTreeSet::from([dir.path().to_path_buf()]));
    assert!(
        !w.is_polling() && w.why_polling().is_empty(),
        "it is tried again"
    );
}

#[test]
fn local_file_systems_are_not_polled() {
    assert_eq!(silent_file_system(Path::new("/proc")), None);
    assert_eq!(silent_file_system(Path::new("/no/such/place")), None);
    for (magic, name) in [
        (0x6969, "nfs"),
        (0xfe53_4d42, "smb2"),
        (0x4750_4653, "gpfs"),
    ] {
        assert_eq!(silent_by_magic(magic), Some(name));
    }
    // ext4, xfs, btrfs, tmpfs, overlay.
    for magic in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630] {
        assert_eq!(silent_by_magic(magic), None);
    }
}
