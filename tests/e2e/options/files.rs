//! Options about files: which ones, from where, what is known of them, and what becomes of them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tailwater_tests::rig::tail;
use tailwater_tests::stand::{Record, Stand, bodies, gz, sorted, texts};
use tailwater_tests::wait;

/// Guarantees which files are read.
#[test]
fn files_are_chosen_as_the_options_say() {
    let old = SystemTime::now() - Duration::from_secs(3 * 3_600);
    let make = |stand: &Stand| {
        for name in [
            "a.log",
            "b.log",
            "sub/c.log",
            "sub/deep/d.log",
            "sub/deep/e.txt",
            "f.log.1",
        ] {
            stand.write(name, format!("{name}\n"));
        }
        let b = fs::File::options()
            .append(true)
            .open(stand.rig.logs("b.log"));
        b.expect("there").set_modified(old).expect("a time set");
    };
    let rows: [(&str, &[&str], Value, &[&str]); 6] = [
        ("one directory", &["*.log"], json!({}), &["a.log", "b.log"]),
        (
            "any depth",
            &["**/*.log"],
            json!({}),
            &["a.log", "b.log", "sub/c.log", "sub/deep/d.log"],
        ),
        (
            "alternatives and classes",
            &["{a,sub/deep/e}.{log,txt}", "[!ab]*.log*"],
            json!({}),
            &["a.log", "f.log.1", "sub/deep/e.txt"],
        ),
        (
            "exclude",
            &["**/*.log"],
            json!({"exclude": ["**/deep/*", "**/a.*"]}),
            &["b.log", "sub/c.log"],
        ),
        (
            "exclude_older_than",
            &["*.log"],
            json!({"exclude_older_than": "1h"}),
            &["a.log"],
        ),
        (
            "exclude_older_than a longer time",
            &["*.log"],
            json!({"exclude_older_than": "5h"}),
            &["a.log", "b.log"],
        ),
    ];
    for (name, include, mut options, want) in rows {
        let mut stand = Stand::new(&json!({}));
        make(&stand);
        let dir = stand.dir();
        if let Some(exclude) = options["exclude"].as_array() {
            let below = exclude
                .iter()
                .filter_map(Value::as_str)
                .map(|g| dir.join(g));
            options["exclude"] = json!(below.collect::<Vec<_>>());
        }
        let include: Vec<PathBuf> = include.iter().map(|g| dir.join(g)).collect();
        stand.set(&json!({ "include": include }));
        stand.set(&options);
        assert_eq!(sorted(&stand.run(want.len())), want, "{name}");
    }
}

/// Guarantees `ordering_criteria` in all its fields: which files stay, of which group.
#[test]
fn ordering_criteria_choose_files() {
    let number =
        |ascending| json!({"sort_type": "numeric", "regex_key": "n", "ascending": ascending});
    let regex = r"(?P<name>[a-z]+)\.(?P<t>\d{10})\.(?P<n>\d+)\.log$";
    let rows = [
        (
            "top_n is 1",
            json!({"regex": regex, "sort_by": [number(false)]}),
            vec!["b.10"],
        ),
        (
            "top_n",
            json!({"regex": regex, "top_n": 2, "sort_by": [number(true)]}),
            vec!["a.1", "b.2"],
        ),
        (
            "group_by",
            json!({"regex": regex, "group_by": r"/([a-z]+)\.\d+", "sort_by": [number(false)]}),
            vec!["a.9", "b.10"],
        ),
        (
            "alphabetical",
            json!({"regex": regex, "sort_by": [
                {"sort_type": "alphabetical", "regex_key": "n", "ascending": false}]}),
            vec!["a.9"],
        ),
        (
            "timestamp with layout and location",
            json!({"regex": regex, "sort_by": [{"sort_type": "timestamp", "regex_key": "t",
                "layout": "%Y%m%d%H", "location": "Europe/Berlin"}]}),
            vec!["b.2"],
        ),
        (
            "mtime",
            json!({"sort_by": [{"sort_type": "mtime"}]}),
            vec!["a.1"],
        ),
    ];
    for (name, criteria, want) in rows {
        let stand = Stand::new(&json!({"ordering_criteria": criteria}));
        let files = [
            "a.2026010110.1",
            "a.2026010111.9",
            "b.2026010112.2",
            "b.2026010109.10",
        ];
        for (age, file) in files.into_iter().enumerate() {
            let (letter, n) = (&file[..1], file.rsplit('.').next().unwrap_or_default());
            let file = format!("{file}.log");
            stand.write(&file, format!("{letter}.{n}\n"));
            let at = SystemTime::now() - Duration::from_secs(60 * (1 + age as u64));
            let open = fs::File::options().append(true).open(stand.rig.logs(&file));
            open.expect("there").set_modified(at).expect("a time set");
        }
        assert_eq!(sorted(&stand.run(want.len())), want, "{name}");
    }
}

/// Guarantees `start_at` and its default: `end` leaves out what is there at the very first start,
/// `beginning` does not, and files that appear later are read as a whole in any case.
#[test]
fn start_at_is_about_the_first_start_only() {
    for (start_at, want) in [
        (json!("beginning"), &["new", "old", "younger"][..]),
        (json!("end"), &["new", "younger"]),
        (Value::Null, &["new", "younger"]),
    ] {
        let stand = Stand::new(&json!({"start_at": start_at}));
        stand.write("a.log", "old\n");
        let agent = stand.start();
        stand.wait_open(&agent, 1.0);
        stand.append("a.log", "new\n");
        stand.write("later.log", "younger\n");
        stand.wait(&agent, want.len());
        agent.stop_clean();
        assert_eq!(sorted(&stand.records()), want, "{start_at}");
    }
}

/// Guarantees each attribute of a file, and that none but the name comes unasked.
#[test]
fn attributes_of_files_are_those_asked_for() {
    let attribute = |option: &str, key: &str| {
        let stand = Stand::new(&json!({ option: true }));
        stand.write("real.txt", "one\n\n two\n");
        symlink(stand.rig.logs("real.txt"), stand.rig.logs("link.log")).expect("a link");
        let mode = fs::Permissions::from_mode(0o640);
        fs::set_permissions(stand.rig.logs("real.txt"), mode).expect("a mode set");
        let records = stand.run(2);
        let meta = fs::metadata(stand.rig.logs("real.txt")).expect("there");
        let real = fs::canonicalize(stand.rig.logs("real.txt")).expect("there");
        let values: Vec<Value> = records
            .iter()
            .map(|r| {
                let only: Vec<&String> = r.attributes.as_object().expect("a map").keys().collect();
                assert_eq!(only, [key], "{option}");
                r.attributes[key].clone()
            })
            .collect();
        (values, stand.rig.logs("link.log"), real, meta)
    };
    let twice = |v: Value| vec![v.clone(), v];
    let (got, ..) = attribute("include_file_name", "log.file.name");
    assert_eq!(got, twice(json!("link.log")));
    let (got, link, ..) = attribute("include_file_path", "log.file.path");
    assert_eq!(got, twice(json!(link)));
    let (got, ..) = attribute("include_file_name_resolved", "log.file.name_resolved");
    assert_eq!(got, twice(json!("real.txt")));
    let (got, _, real, _) = attribute("include_file_path_resolved", "log.file.path_resolved");
    assert_eq!(got, twice(json!(real)));
    let name_of = |file: &str, id: u32| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text
            .lines()
            .find(|l| l.split(':').nth(2) == Some(&id.to_string()));
        let name = line.and_then(|l| l.split(':').next());
        name.map_or_else(|| id.to_string(), str::to_owned)
    };
    let (got, _, _, meta) = attribute("include_file_owner_name", "log.file.owner.name");
    assert_eq!(got, twice(json!(name_of("/etc/passwd", meta.uid()))));
    let (got, _, _, meta) = attribute("include_file_owner_group_name", "log.file.owner.group.name");
    assert_eq!(got, twice(json!(name_of("/etc/group", meta.gid()))));
    let (got, ..) = attribute("include_file_permissions", "log.file.permissions");
    assert_eq!(got, twice(json!("640")));
    // A blank line is no record, but it has a number.
    let (got, ..) = attribute("include_file_record_number", "log.file.record_number");
    assert_eq!(got, [json!(1), json!(3)]);
    // Where the line begins, before trimming.
    let (got, ..) = attribute("include_file_record_offset", "log.file.record_offset");
    assert_eq!(got, [json!(0), json!(5)]);
    let stand = Stand::new(&json!({"include_file_name": null}));
    stand.write("a.log", "x\n");
    let records = stand.run(1);
    assert_eq!(
        records[0].attributes,
        json!({"log.file.name": "a.log"}),
        "the default"
    );
    assert_eq!(records[0].resource, json!({}));
}

/// Guarantees that record numbers go on over a restart.
#[test]
fn record_numbers_and_offsets_go_on_after_a_restart() {
    let stand = Stand::new(&json!({
        "include_file_record_number": true, "include_file_record_offset": true,
    }));
    stand.write("a.log", "one\n\ntwo\n");
    stand.run(2);
    stand.append("a.log", "three\n");
    let records = stand.run(3);
    let at = |r: &Record| {
        let number = |key: &str| r.attributes[key].as_i64();
        (
            number("log.file.record_number"),
            number("log.file.record_offset"),
        )
    };
    let got: Vec<_> = records.iter().map(at).collect();
    assert_eq!(
        got,
        [(Some(1), Some(0)), (Some(3), Some(5)), (Some(4), Some(9))]
    );
}

/// Guarantees `compression`: all files, those with the magic bytes, or none; members that are
/// appended later are read, and a plain file that is compressed later is not read again.
#[test]
fn compressed_files_are_read_as_the_option_says() {
    let stand = Stand::new(&json!({"compression": "gzip"}));
    stand.write("a.log", gz("one\ntwo\n"));
    let agent = stand.start();
    stand.wait(&agent, 2);
    stand.append("a.log", gz("three\n"));
    stand.wait(&agent, 3);
    agent.stop_clean();
    assert_eq!(stand.bodies(), texts(&["one", "two", "three"]));

    let stand = Stand::new(&json!({"compression": "auto"}));
    stand.write("a.log", gz("packed\n"));
    stand.write("b.log", "plain\n");
    assert_eq!(sorted(&stand.run(2)), ["packed", "plain"]);

    let mut stand = Stand::new(&json!({"compression": "auto"}));
    stand.set(&json!({"include": [stand.rig.logs("*.log*")]}));
    stand.write("a.log", "one\ntwo\n");
    stand.run(2);
    stand.append("a.log", "three\n");
    let whole = fs::read_to_string(stand.rig.logs("a.log")).expect("there");
    stand.write("a.log.gz", gz(&whole));
    fs::remove_file(stand.rig.logs("a.log")).expect("there");
    assert_eq!(bodies(&stand.run(3)), texts(&["one", "two", "three"]));

    let stand = Stand::new(&json!({}));
    stand.write("a.log", gz("packed\n"));
    stand.write("b.log", "plain\n");
    let got = sorted(&stand.run(2));
    assert!(!got.contains(&"packed".to_owned()) && got.contains(&"plain".to_owned()));
}

/// Guarantees that a file goes away once everything of it is delivered, and not before: not when its
/// writer has not written anything yet, either.
#[test]
fn files_are_deleted_after_reading_when_asked() {
    let stand = Stand::new(&json!({"delete_after_read": true}));
    stand.write("a.log", "one\ntwo");
    stand.write("empty.log", "");
    let agent = stand.start();
    stand.wait(&agent, 2);
    let gone = wait::within(wait::BOUND, || !stand.rig.logs("a.log").exists());
    assert!(gone, "still there\n{}", tail(&agent.log()));
    stand.write("b.log", "three\n");
    stand.wait(&agent, 3);
    stand.append("empty.log", "four\n");
    stand.wait(&agent, 4);
    let gone = wait::within(wait::BOUND, || !stand.rig.logs("empty.log").exists());
    assert!(gone, "still there\n{}", tail(&agent.log()));
    agent.stop_clean();
    assert_eq!(stand.bodies(), texts(&["one", "two", "three", "four"]));
}

/// Guarantees that `acquire_fs_lock` leaves a file alone as long as somebody else has it locked,
/// and that lines longer than the buffer come through with it.
#[test]
fn a_locked_file_is_left_alone() {
    use rustix::fs::{FlockOperation, flock};
    let stand = Stand::new(&json!({
        "acquire_fs_lock": true, "initial_buffer_size": "4KiB", "max_log_size": "8MiB",
    }));
    // The buffer grows eleven times for it, which is more often than a file at rest is looked at.
    let long = "z".repeat(6_000_000);
    stand.write("a.log", format!("first\n{long}\nlast\n"));
    let file = fs::File::open(stand.rig.logs("a.log")).expect("there");
    flock(&file, FlockOperation::LockExclusive).expect("a lock");
    stand.write("b.log", "free\n");
    let agent = stand.start();
    stand.wait(&agent, 1);
    // Several poll intervals.
    wait::let_pass(Duration::from_millis(300));
    assert_eq!(stand.bodies(), texts(&["free"]));
    flock(&file, FlockOperation::Unlock).expect("unlocked");
    stand.wait(&agent, 4);
    agent.stop_clean();
    assert_eq!(stand.bodies(), texts(&["free", "first", &long, "last"]));
}

/// Guarantees that dropping pages from the cache changes nothing that is read.
#[test]
fn file_cache_advise_changes_nothing_that_is_read() {
    let stand = Stand::new(&json!({"file_cache_advise": true}));
    stand.write("a.log", "one\n");
    let agent = stand.start();
    stand.wait(&agent, 1);
    stand.append("a.log", "two\n");
    stand.wait(&agent, 2);
    agent.stop_clean();
    assert_eq!(stand.bodies(), texts(&["one", "two"]));
}

/// Guarantees `on_truncate` in each form, for a file that begins as before.
#[test]
fn on_truncate_decides_about_a_file_that_was_cut() {
    let first = "the same first line\nsecond\nthird\n";
    let cut = "the same first line\n";
    for (rule, want) in [
        (Value::Null, &["the same first line", "new 1"][..]),
        (json!("read_whole_file"), &["the same first line", "new 1"]),
        (json!("read_new"), &["new 1"]),
        (json!("ignore"), &["behind the old end"]),
    ] {
        let stand = Stand::new(&json!({"on_truncate": rule}));
        stand.write("a.log", first);
        let agent = stand.start();
        stand.wait(&agent, 3);
        let file = fs::File::options()
            .write(true)
            .open(stand.rig.logs("a.log"));
        file.expect("there").set_len(cut.len() as u64).expect("cut");
        // The agent has to see the cut before the file grows again.
        let seen = wait::within(wait::BOUND, || {
            let truncated = agent.scrape().sum("tailwater_files_truncated", &[]);
            truncated >= 1.0 || rule == json!("ignore")
        });
        assert!(seen, "{rule}: not noticed\n{}", tail(&agent.log()));
        if rule == json!("ignore") {
            // Up to the old end nothing is read; behind it, reading goes on.
            stand.append("a.log", &first[cut.len()..]);
            stand.append("a.log", "behind the old end\n");
        } else {
            stand.append("a.log", "new 1\n");
        }
        stand.wait(&agent, 3 + want.len());
        agent.stop_clean();
        assert_eq!(stand.bodies()[3..], texts(want), "{rule}");
    }
}

/// Guarantees `on_truncate` for a file that was cut and has grown past what was read before anyone
/// looked, with the agent there and away: `ignore` goes on at the offset, in whatever is there.
#[test]
fn on_truncate_decides_about_a_file_that_was_cut_and_has_grown_again() {
    let first = "the same first line\nsecond\nthird\n";
    let again = "the same first line\nSECOND\nTHIRD\nnext\n";
    let anew = ["the same first line", "SECOND", "THIRD", "next"];
    for (rule, want) in [
        (Value::Null, &anew[..]),
        (json!("read_whole_file"), &anew),
        (json!("read_new"), &anew),
        (json!("ignore"), &["next"]),
    ] {
        for running in [true, false] {
            let stand = Stand::new(&json!({"on_truncate": rule, "fingerprint_size": 16}));
            stand.write("a.log", first);
            let mut agent = stand.start();
            stand.wait(&agent, 3);
            // In place and at once: no look at it can fall between cut and growth.
            let overwrite = || {
                let file = fs::File::options()
                    .write(true)
                    .open(stand.rig.logs("a.log"));
                file.expect("there")
                    .write_all(again.as_bytes())
                    .expect("written");
            };
            if running {
                overwrite();
            } else {
                agent.stop_clean();
                overwrite();
                agent = stand.start();
            }
            stand.wait(&agent, 3 + want.len());
            stand.append("a.log", "last\n");
            stand.wait(&agent, 4 + want.len());
            agent.stop_clean();
            let got = stand.bodies();
            assert_eq!(got[3..got.len() - 1], texts(want), "{rule} {running}");
            assert_eq!(got.last(), Some(&json!("last")), "{rule} {running}");
        }
    }
}

/// Guarantees that more files than may be open are all read, and that late lines of each arrive.
#[test]
fn more_files_than_descriptors_are_all_read() {
    let stand = Stand::new(&json!({"max_concurrent_files": 8}));
    for i in 0..50 {
        stand.write(&format!("{i:02}.log"), format!("{i:02} a\n"));
    }
    let agent = stand.start();
    stand.wait(&agent, 50);
    for i in 0..50 {
        stand.append(&format!("{i:02}.log"), format!("{i:02} b\n"));
    }
    stand.wait(&agent, 100);
    let open = || agent.scrape().sum("otelcol_fileconsumer_open_files", &[]);
    assert!(
        wait::within(wait::BOUND, || open() <= 8.0),
        "{} are open",
        open()
    );
    agent.stop_clean();
    let want: BTreeSet<String> = (0..50)
        .flat_map(|i| [format!("{i:02} a"), format!("{i:02} b")])
        .collect();
    assert_eq!(
        sorted(&stand.records()),
        want.into_iter().collect::<Vec<_>>()
    );
}

/// Guarantees that files with the same first bytes, as many as `fingerprint_size`, are two files.
#[test]
fn files_that_begin_alike_are_told_apart() {
    let stand = Stand::new(&json!({"fingerprint_size": 16}));
    let head = "the same header of all files\n";
    stand.write("a.log", format!("{head}a\n"));
    stand.write("b.log", format!("{head}b\n"));
    let got = sorted(&stand.run(4));
    let head = head.trim();
    assert_eq!(got, ["a", "b", head, head]);
}

/// Guarantees that polling finds new files and lines without notifications, as soon as
/// `poll_interval` says, and that it is said once in the log.
#[test]
fn polling_works_and_is_said_once() {
    let stand = Stand::new(&json!({"watch": "poll", "poll_interval": "50ms"}));
    stand.write("a.log", "one\n");
    let agent = stand.start();
    stand.wait(&agent, 1);
    stand.append("a.log", "two\n");
    stand.write("sub.log", "three\n");
    stand.wait(&agent, 3);
    let said = agent.log().matches("found by looking at them").count();
    assert_eq!(said, 1, "{}", agent.log());
    agent.stop_clean();
    assert_eq!(sorted(&stand.records()), ["one", "three", "two"]);
}
