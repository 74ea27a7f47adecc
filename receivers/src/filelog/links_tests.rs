use std::os::unix::fs::{PermissionsExt, lchown, symlink};

use super::super::discover::{Discovery, Problem};
use super::super::glob::Glob;
use super::*;

const ME: u32 = 500;
const POD: u32 = 1000;
const OTHER: u32 = 2000;

fn rules(follow: Follow, roots: &[&Path], includes: &[&Path]) -> LinkRules {
    let own = |list: &[&Path]| list.iter().map(|p| p.to_path_buf()).collect::<Vec<_>>();
    LinkRules {
        user: ME,
        ..LinkRules::new(follow, &own(roots), own(includes))
    }
}

/// A directory for logs, one of its neighbours, and what both are called without links.
fn dirs() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (logs, data) = (root.join("logs"), root.join("data"));
    fs::create_dir(&logs).unwrap();
    fs::create_dir(&data).unwrap();
    (dir, logs, data)
}

/// Guarantee: what root, this user or the owner of a file linked to it is followed, what others
/// linked to it is not unless everybody may read it where logs are; where secrets are, nothing is
/// followed; and what is named in the configuration is followed whoever made the link.
#[test]
fn a_link_counts_by_who_made_it_and_where_it_leads() {
    let (_dir, logs, data) = dirs();
    let (inside, outside) = (logs.join("x"), data.join("x"));
    let (etc, kubelet) = (Path::new("/etc/x"), Path::new("/var/lib/kubelet/pods/1/x"));
    let volume = Path::new("/var/lib/kubelet/pods/1/volumes/kubernetes.io~empty-dir/v/x");
    let secret = 0o600;
    /// Owners of links, what they lead to, its owner and mode; by the rules trusted, inside, all and
    /// with the directory named.
    type Case<'a> = (&'a [u32], &'a Path, u32, u32, [bool; 4]);
    let cases: [Case<'_>; 12] = [
        (&[0], &inside, OTHER, secret, [true, true, true, true]),
        (&[ME], &inside, OTHER, secret, [true, true, true, true]),
        (&[POD], &inside, POD, secret, [true, true, true, true]),
        (&[POD], &inside, OTHER, secret, [false, false, true, true]),
        (&[POD], &inside, OTHER, 0o644, [true, true, true, true]),
        (&[0], &outside, OTHER, secret, [true, false, true, true]),
        (&[POD], &outside, POD, secret, [true, false, true, true]),
        (&[POD], &outside, 0, 0o644, [false, false, true, true]),
        (
            &[0, POD, 0],
            &outside,
            0,
            secret,
            [false, false, true, true],
        ),
        (&[0], etc, 0, secret, [false, false, true, true]),
        (&[0], kubelet, 0, secret, [false, false, true, true]),
        (&[0], volume, 0, secret, [true, false, true, true]),
    ];
    for (owners, path, owner, mode, want) in cases {
        let target = Target { path, owner, mode };
        let named = [
            logs.as_path(),
            &data,
            Path::new("/etc"),
            Path::new("/var/lib"),
        ];
        let got = [
            rules(Follow::Trusted, &[], &[&logs]),
            rules(Follow::Inside, &[], &[&logs]),
            rules(Follow::All, &[], &[&logs]),
            rules(Follow::Trusted, &named, &[&logs]),
        ]
        .map(|rules| rules.judge(owners, &target).is_ok());
        // A directory that does not exist names nothing.
        let exists = path
            .ancestors()
            .any(|dir| named.contains(&dir) && dir.is_dir());
        let want = [
            want[0],
            want[1],
            want[2],
            if exists { want[3] } else { want[0] },
        ];
        assert_eq!(got, want, "{owners:?} -> {path:?} of {owner}, {mode:o}");
    }
}

/// Guarantee: a walk ends where the kernel ends, over links of every form.
#[test]
fn a_walk_ends_where_the_kernel_ends() {
    let (_dir, logs, data) = dirs();
    fs::create_dir_all(data.join("a/b")).unwrap();
    fs::write(data.join("a/b/file"), "x").unwrap();
    for (target, name) in [
        ("../data/a/b/file", "relative"),
        ("./relative", "chain"),
        ("../data/a", "dir"),
        ("../data/a/b/../b/./file", "dots"),
        ("loop", "loop"),
        ("gone", "dangling"),
        ("dir/b", "dir2"),
    ] {
        symlink(target, logs.join(name)).unwrap();
    }
    symlink(data.join("a/b/file"), logs.join("absolute")).unwrap();
    let rules = rules(Follow::All, &[], &[&logs]);
    for path in [
        "relative",
        "chain",
        "absolute",
        "dots",
        "dir/b/file",
        "dir2/file",
        "dir2/../b/file",
        "dir",
        "loop",
        "dangling",
        "relative/below",
        "nothing",
    ] {
        let path = logs.join(path);
        let walked = rules
            .walk(&path, true)
            .map(|f| (f.stat.st_ino, f.name.is_none()));
        let kernel = fs::metadata(&path);
        match (walked, kernel) {
            (Ok((inode, is_dir)), Ok(m)) => {
                use std::os::unix::fs::MetadataExt;
                assert_eq!((inode, is_dir), (m.ino(), m.is_dir()), "{path:?}");
            }
            (Err(a), Err(b)) => assert_eq!(a.raw_os_error(), b.raw_os_error(), "{path:?}"),
            (a, b) => panic!("{path:?}: {:?} but {:?}", a.err(), b.err()),
        }
    }
}

/// Guarantee: links on the way to the directory that the configuration names are followed, whoever
/// made them and wherever they lead; and a plain file below is opened.
#[test]
fn what_the_configuration_names_is_not_judged() {
    let (dir, logs, data) = dirs();
    let link = dir.path().join("link");
    symlink(&data, &link).unwrap();
    if lchown(&link, Some(POD), None).is_err() {
        println!("SKIPPED: links of other users: only root can make them");
        return;
    }
    fs::write(data.join("a.log"), "plain").unwrap();
    symlink(data.join("a.log"), data.join("own.log")).unwrap();
    let fs = GuardedFs::new(rules(Follow::Inside, &[], &[&link, &logs]));
    for name in ["a.log", "own.log"] {
        let mut text = Vec::new();
        let file = fs.open(&link.join(name)).unwrap();
        file.read_at(0, 100, &mut text).unwrap();
        assert_eq!(text, b"plain", "{name}");
    }
    // From elsewhere it is a link like others.
    let secret = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(data.join("a.log"), secret).unwrap();
    symlink(link.join("a.log"), logs.join("x.log")).unwrap();
    assert!(fs.open(&logs.join("x.log")).is_err());
}

/// Guarantee: somebody who writes among the logs cannot have a file read, found or deleted that
/// they may not: not by a link, not by a directory that is one, and not by putting it there after
/// the file was found. What is left out is said.
#[test]
fn a_link_to_the_file_of_another_user_is_neither_found_opened_nor_deleted() {
    let (_dir, logs, data) = dirs();
    let secret = data.join("secret.log");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(logs.join("pod")).unwrap();
    fs::write(logs.join("pod/secret.log"), "harmless").unwrap();
    symlink(&secret, logs.join("link.log")).unwrap();
    symlink(&data, logs.join("dir")).unwrap();
    for link in ["link.log", "dir"] {
        if lchown(logs.join(link), Some(POD), None).is_err() {
            println!("SKIPPED: links of other users: only root can make them");
            return;
        }
    }
    let pattern = |p: &str| Glob::new(&logs.join(p).to_string_lossy()).unwrap();
    let finder = Discovery {
        include: vec![
            pattern("*.log"),
            pattern("*/*.log"),
            pattern("**/secret.log"),
        ],
        exclude: Vec::new(),
        exclude_older_than: std::time::Duration::ZERO,
        ordering: None,
    };
    let fs_of = |follow| GuardedFs::new(LinkRules::new(follow, &[], vec![logs.clone()]));
    let guarded = fs_of(Follow::Trusted);
    let names = |fs: &GuardedFs| {
        let found = finder.scan(fs, 0).files.into_iter();
        found.map(|f| f.path).collect::<Vec<_>>()
    };
    assert_eq!(names(&guarded), [logs.join("pod/secret.log")]);
    assert_eq!(names(&fs_of(Follow::All)).len(), 3);
    let refused = finder.scan(&guarded, 0).problems.into_iter();
    let mut refused: Vec<PathBuf> = refused
        .filter(|(_, p)| matches!(p, Problem::Refused(_)))
        .map(|(path, _)| path)
        .collect();
    refused.sort();
    refused.dedup();
    assert_eq!(refused, [logs.join("dir"), logs.join("link.log")]);
    // It was a directory when it was looked at.
    fs::rename(logs.join("pod"), logs.join("old")).unwrap();
    fs::rename(logs.join("dir"), logs.join("pod")).unwrap();
    for path in ["link.log", "pod/secret.log"] {
        let error = guarded.open(&logs.join(path)).err().expect(path);
        assert!(Refusal::of(&error).is_some(), "{path}: {error}");
        assert!(fs_of(Follow::All).open(&logs.join(path)).is_ok(), "{path}");
    }
    let error = guarded.remove(&logs.join("pod/secret.log")).unwrap_err();
    assert!(Refusal::of(&error).is_some() && secret.exists(), "{error}");
    // Its own name is its own.
    guarded.remove(&logs.join("link.log")).unwrap();
    assert!(secret.exists() && !logs.join("link.log").exists());
}

/// Guarantee: what took the place of a file and is none is not opened, with a link before it or not.
#[test]
fn only_regular_files_are_opened() {
    let (_dir, logs, data) = dirs();
    rustix::fs::mknodat(CWD, data.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    symlink(data.join("fifo"), logs.join("fifo.log")).unwrap();
    symlink(&data, logs.join("dir.log")).unwrap();
    let fs = GuardedFs::new(LinkRules::new(Follow::Trusted, &[], vec![logs.clone()]));
    for path in [
        data.join("fifo"),
        logs.join("fifo.log"),
        logs.join("dir.log"),
        logs,
    ] {
        let error = fs.open(&path).err().expect("no log file");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path:?}");
    }
}

/// Guarantee: what is remembered of a link is not believed once it leads elsewhere, be it by the link
/// itself, by one on its way, or because the file there is another.
#[test]
fn a_remembered_link_is_looked_at_again_when_it_has_changed() {
    let (_dir, logs, data) = dirs();
    let (one, two) = (data.join("one"), data.join("two"));
    for dir in [&one, &two] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("0.log"), "x\n").unwrap();
    }
    let (way, link) = (data.join("way"), logs.join("a.log"));
    symlink(&one, &way).unwrap();
    symlink(way.join("0.log"), &link).unwrap();
    let guarded = GuardedFs::new(LinkRules::new(Follow::Trusted, &[], vec![logs.clone()]));
    let leads_to = |to: &Path| {
        for _ in 0..2 {
            let file = guarded.look_through(&link).unwrap().1.id;
            assert_eq!(file, OsLogFs.look(to).unwrap().1.id);
            assert_eq!(guarded.resolve(&link).unwrap(), to);
        }
    };
    leads_to(&one.join("0.log"));
    fs::rename(one.join("0.log"), one.join("1.log")).unwrap();
    fs::write(one.join("0.log"), "y\n").unwrap();
    leads_to(&one.join("0.log"));
    fs::remove_file(&way).unwrap();
    symlink(&two, &way).unwrap();
    leads_to(&two.join("0.log"));
    fs::remove_file(&link).unwrap();
    symlink(one.join("1.log"), &link).unwrap();
    leads_to(&one.join("1.log"));
    // The same file, under another name.
    fs::rename(one.join("1.log"), one.join("2.log")).unwrap();
    symlink(one.join("2.log"), one.join("1.log")).unwrap();
    leads_to(&one.join("2.log"));
    // To a secret that was no target before.
    fs::remove_file(&link).unwrap();
    symlink("/etc/shadow", &link).unwrap();
    let error = guarded.look_through(&link).unwrap_err();
    assert!(Refusal::of(&error).is_some(), "{error}");
}
