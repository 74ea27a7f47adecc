//! What a walk finds, and what it leaves alone.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::super::logfs::OsLogFs;
use super::*;

fn discovery(dir: &Path, include: &[&str], exclude: &[&str]) -> Discovery {
    let globs = |list: &[&str]| {
        list.iter()
            .map(|p| Glob::new(&format!("{}/{p}", dir.display())).unwrap())
            .collect()
    };
    Discovery {
        include: globs(include),
        exclude: globs(exclude),
        exclude_older_than: Duration::ZERO,
        ordering: None,
    }
}

fn tree(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    dir
}

fn names(dir: &Path, scan: &Scan) -> Vec<String> {
    let name = |f: &FoundFile| {
        f.path
            .strip_prefix(dir)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    scan.files.iter().map(name).collect()
}

fn check(files: &[&str], include: &[&str], exclude: &[&str], want: &[&str]) {
    let dir = tree(files);
    let d = discovery(dir.path(), include, exclude);
    let scan = d.scan(&OsLogFs, 0);
    assert_eq!(
        names(dir.path(), &scan),
        want,
        "{include:?} without {exclude:?}"
    );
    assert!(scan.problems.is_empty(), "{:?}", scan.problems);
    for f in &scan.files {
        assert_eq!(d.look(&OsLogFs, &f.path, 0).as_ref(), Some(f));
        assert!(
            f.path.ancestors().skip(1).all(|a| d.may_hold_matches(a)),
            "{:?}",
            f.path
        );
        assert!(
            scan.dirs.contains(f.path.parent().unwrap()),
            "{:?} is not watched",
            f.path
        );
    }
}

#[test]
fn patterns_find_their_files_sorted_and_once() {
    let files = [
        "a/1.log",
        "a/2.log",
        "a/b/1.log",
        "a/b/2.log",
        "a/b/c/1.log",
        "a/.h.log",
        "z.log",
    ];
    check(&files, &["**/1.log"], &["**/b/**/1.log"], &["a/1.log"]);
    check(
        &files,
        &["**/1.log"],
        &[],
        &["a/1.log", "a/b/1.log", "a/b/c/1.log"],
    );
    check(
        &files,
        &["*/*.log", "a/1.log", "*.log"],
        &[],
        &["a/.h.log", "a/1.log", "a/2.log", "z.log"],
    );
    check(
        &files,
        &["a/**"],
        &["**/2.log"],
        &["a/.h.log", "a/1.log", "a/b/1.log", "a/b/c/1.log"],
    );
    check(
        &files,
        &["a/**/*.log"],
        &["a/*"],
        &["a/b/1.log", "a/b/2.log", "a/b/c/1.log"],
    );
    check(
        &files,
        &["**/b/**/[12].log"],
        &[],
        &["a/b/1.log", "a/b/2.log", "a/b/c/1.log"],
    );
    check(&files, &["{a/b,.}/{1,z}.log"], &[], &["a/b/1.log", "z.log"]);
    check(&files, &["**/b/*"], &[], &["a/b/1.log", "a/b/2.log"]);
    check(&files, &["**.log"], &[], &["z.log"]);
    check(&files, &["nowhere/*.log", "a/none.log"], &[], &[]);
}

#[test]
fn only_what_can_match_is_listed_and_watched() {
    let dir = tree(&[
        "pods/ns_a/app/0.log",
        "pods/ns_b/app/0.log",
        "other/deep/down/0.log",
    ]);
    let d = discovery(dir.path(), &["pods/ns_a*/*/*.log", "later/x/*.log"], &[]);
    let scan = d.scan(&OsLogFs, 0);
    let root = dir.path();
    let want = ["", "pods", "pods/ns_a", "pods/ns_a/app"].map(|d| root.join(d));
    let dirs: Vec<_> = scan
        .dirs
        .iter()
        .map(|d| d.components().collect::<PathBuf>())
        .collect();
    assert_eq!(
        dirs,
        want.iter()
            .map(|d| d.components().collect())
            .collect::<Vec<PathBuf>>()
    );
    assert!(d.may_hold_matches(&root.join("later")) && d.may_hold_matches(&root.join("later/x")));
    assert!(!d.may_hold_matches(&root.join("other")));
    assert!(!d.may_hold_matches(&root.join("pods/ns_b")));
}

#[test]
fn chains_of_links_lead_to_files_whose_directories_are_watched() {
    let dir = tree(&["docker/c1/c1.log"]);
    let at = |p: &str| dir.path().join(p);
    fs::create_dir_all(at("pods/p/app")).unwrap();
    fs::create_dir_all(at("containers")).unwrap();
    symlink("../../../docker/c1/c1.log", at("pods/p/app/0.log")).unwrap();
    symlink(at("pods/p/app/0.log"), at("containers/app.log")).unwrap();
    symlink(at("gone"), at("containers/broken.log")).unwrap();
    symlink("self.log", at("containers/self.log")).unwrap();
    let scan = discovery(dir.path(), &["containers/*.log"], &[]).scan(&OsLogFs, 0);
    assert_eq!(names(dir.path(), &scan), ["containers/app.log"]);
    let target = fs::canonicalize(at("docker/c1/c1.log")).unwrap();
    assert_eq!(scan.files[0].target.as_ref(), Some(&target));
    assert_eq!(
        scan.files[0].meta.id.ino,
        fs::metadata(&target).unwrap().ino()
    );
    assert!(scan.dirs.contains(target.parent().unwrap()));
    let broken: Vec<_> = scan
        .problems
        .iter()
        .map(|(p, e)| (p.clone(), e.to_string()))
        .collect();
    assert_eq!(broken.len(), 2, "{broken:?}");
    assert!(
        broken.iter().all(|(_, e)| e == "the link leads nowhere"),
        "{broken:?}"
    );
}

#[test]
fn loops_of_links_end_and_links_to_directories_are_followed() {
    let dir = tree(&["a/b/1.log", "far/2.log"]);
    let at = |p: &str| dir.path().join(p);
    symlink(at("a"), at("a/b/up")).unwrap();
    symlink(".", at("a/me")).unwrap();
    symlink(at("far"), at("a/far")).unwrap();
    let scan = discovery(dir.path(), &["a/**/*.log"], &[]).scan(&OsLogFs, 0);
    assert_eq!(names(dir.path(), &scan), ["a/b/1.log", "a/far/2.log"]);
    let scan = discovery(dir.path(), &["a/*/*.log"], &[]).scan(&OsLogFs, 0);
    assert_eq!(names(dir.path(), &scan), ["a/b/1.log", "a/far/2.log"]);
}

#[test]
fn a_thicket_of_links_is_walked_once_and_always_alike() {
    let names_of_dirs: Vec<String> = (0..12).map(|i| format!("d{i:02}")).collect();
    let dir = tempfile::tempdir().unwrap();
    for name in &names_of_dirs {
        fs::create_dir_all(dir.path().join("all").join(name)).unwrap();
        fs::write(dir.path().join("all").join(name).join("x.log"), name).unwrap();
        for other in &names_of_dirs {
            let link = dir
                .path()
                .join("all")
                .join(name)
                .join(format!("to-{other}"));
            symlink(dir.path().join("all").join(other), link).unwrap();
        }
    }
    let d = discovery(dir.path(), &["all/**/x.log"], &[]);
    let scan = d.scan(&OsLogFs, 0);
    assert!(
        names_of_dirs
            .iter()
            .all(|n| names(dir.path(), &scan).contains(&format!("all/{n}/x.log")))
    );
    assert!(scan.files.len() <= 12 * 13, "{}", scan.files.len());
    assert_eq!(scan.files, d.scan(&OsLogFs, 0).files);
}

#[test]
fn what_is_nested_too_deep_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let deep: PathBuf = std::iter::repeat_n("d", DEPTH_MAX + 3).collect();
    fs::create_dir_all(dir.path().join(&deep)).unwrap();
    let scan = discovery(dir.path(), &["**/x.log"], &[]).scan(&OsLogFs, 0);
    assert!(
        matches!(scan.problems[..], [(_, Problem::TooDeep)]),
        "{:?}",
        scan.problems
    );
}

#[test]
fn only_regular_files_are_found_and_nothing_else_is_opened() {
    let dir = tree(&["d/ok.log", "d/dir.log/x"]);
    let at = |p: &str| dir.path().join(p);
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, at("d/fifo.log"), fifo, 0o600.into(), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("d/socket.log")).unwrap();
    symlink("/dev/null", at("d/null.log")).unwrap();
    symlink(at("d/fifo.log"), at("d/to-fifo.log")).unwrap();
    let scan =
        discovery(dir.path(), &["d/*.log", "d/fifo.log", "d/null.log"], &[]).scan(&OsLogFs, 0);
    assert_eq!(names(dir.path(), &scan), ["d/ok.log"]);
}

#[test]
fn a_directory_that_cannot_be_listed_is_reported_and_the_rest_is_found() {
    let dir = tree(&["a/1.log", "b/1.log"]);
    let closed = dir.path().join("a");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let scan = discovery(dir.path(), &["*/*.log"], &[]).scan(&OsLogFs, 0);
    let readable = fs::read_dir(&closed).is_ok(); // root may read everything
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    if readable {
        assert_eq!(names(dir.path(), &scan), ["a/1.log", "b/1.log"]);
    } else {
        assert_eq!(names(dir.path(), &scan), ["b/1.log"]);
        assert!(matches!(&scan.problems[..], [(path, Problem::Directory(_))] if *path == closed));
    }
}

#[test]
fn old_files_are_left_out() {
    let dir = tree(&["a.log"]);
    let mut d = discovery(dir.path(), &["*.log"], &[]);
    d.exclude_older_than = Duration::from_secs(10);
    let mtime = d.scan(&OsLogFs, 0).files[0].meta.mtime_ns;
    assert_eq!(d.scan(&OsLogFs, mtime + 10_000_000_000).files.len(), 1);
    assert_eq!(d.scan(&OsLogFs, mtime + 10_000_000_001).files.len(), 0);
    assert!(
        d.look(&OsLogFs, &dir.path().join("a.log"), mtime + 10_000_000_001)
            .is_none()
    );
}

#[test]
fn relative_patterns_give_relative_paths() {
    let d = Discovery {
        include: vec![
            Glob::new("src/**/discover.rs").unwrap(),
            Glob::new("./Cargo.toml").unwrap(),
        ],
        ..discovery(Path::new("/"), &[], &[])
    };
    let found: Vec<_> = d
        .scan(&OsLogFs, 0)
        .files
        .into_iter()
        .map(|f| f.path)
        .collect();
    assert_eq!(
        found,
        [
            Path::new("Cargo.toml"),
            Path::new("src/filelog/discover.rs")
        ]
    );
}

#[test]
fn deep_trees_are_walked() {
    let dir = tempfile::tempdir().unwrap();
    let deep: PathBuf = std::iter::repeat_n("d", 120).collect();
    fs::create_dir_all(dir.path().join(&deep)).unwrap();
    fs::write(dir.path().join(&deep).join("x.log"), "").unwrap();
    let scan = discovery(dir.path(), &["**/x.log"], &[]).scan(&OsLogFs, 0);
    assert_eq!((scan.files.len(), scan.problems.len()), (1, 0));
}
