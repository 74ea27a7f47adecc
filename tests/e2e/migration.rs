//! Moving from another agent: what it had read is not read again, and nothing is left out, also of
//! files that were rotated between its last save and the first start here.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine;
use serde_json::json;
use tailwater_tests::agent::run_once;
use tailwater_tests::stand::{Stand, gz, sorted};
use tailwater_tests::wait;

/// Lines `from..to` of a file called `name`.
fn lines(name: &str, from: usize, to: usize) -> String {
    (from..to).map(|i| format!("{name} {i}\n")).collect()
}

/// A file that the other agent had read the first `read` bytes of when it had `seen`.
struct Known<'a> {
    seen: &'a str,
    read: usize,
}

/// The collector's value in JSON.
fn json_value(files: &[Known<'_>]) -> Vec<u8> {
    let mut out = format!("{}\n", files.len());
    for f in files {
        let first = &f.seen.as_bytes()[..f.seen.len().min(1000)];
        let first = base64::engine::general_purpose::STANDARD.encode(first);
        let entry = json!({"Fingerprint": {"first_bytes": first}, "Offset": f.read});
        out += &format!("{entry}\n");
    }
    out.into_bytes()
}

fn varint(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2], &varint(content.len())[..], content].concat()
}

/// The same as protobuf.
fn protobuf_value(files: &[Known<'_>]) -> Vec<u8> {
    let entry = |f: &Known<'_>| {
        let first = &f.seen.as_bytes()[..f.seen.len().min(1000)];
        let fingerprint = field(1, &field(1, first));
        field(1, &[&fingerprint, &[2 << 3][..], &varint(f.read)].concat())
    };
    files.iter().flat_map(entry).collect()
}

fn page(id: u64, flags: u16, count: u16, body: &[u8]) -> Vec<u8> {
    const PAGE: usize = 4096;
    let pages = (16 + body.len()).div_ceil(PAGE);
    let mut out = [
        &id.to_le_bytes()[..],
        &flags.to_le_bytes(),
        &count.to_le_bytes(),
        &(pages as u32 - 1).to_le_bytes(),
        body,
    ]
    .concat();
    out.resize(pages * PAGE, 0);
    out
}

fn leaf(flags: u32, key: &[u8], value: &[u8]) -> Vec<u8> {
    let sizes = [flags, 16, key.len() as u32, value.len() as u32];
    let head: Vec<u8> = sizes.into_iter().flat_map(u32::to_le_bytes).collect();
    [&head, key, value].concat()
}

/// A bbolt database with one key in the bucket `default`: two metas, a free list, the root and the
/// bucket's page.
fn bbolt(key: &[u8], value: &[u8]) -> Vec<u8> {
    let bucket = page(4, 2, 1, &leaf(0, key, value));
    let count = 4 + (bucket.len() / 4096) as u64;
    let meta = |id: u64| {
        let mut body = Vec::new();
        for n in [0xED0C_DAEDu32, 2, 4096, 0] {
            body.extend(n.to_le_bytes());
        }
        for n in [3u64, 0, 2, count, 5 + id] {
            body.extend(n.to_le_bytes());
        }
        let sum = body.iter().fold(0xCBF2_9CE4_8422_2325u64, |h, b| {
            (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01B3)
        });
        body.extend(sum.to_le_bytes());
        page(id, 4, 0, &body)
    };
    let place = [4u64.to_le_bytes(), 0u64.to_le_bytes()].concat();
    let root = page(3, 2, 1, &leaf(1, b"default", &place));
    [meta(0), meta(1), page(2, 16, 0, &[]), root, bucket].concat()
}

/// Runs `checkpoints import` with these arguments; what it printed on success.
fn import(stand: &Stand, args: &[&str]) -> String {
    let state = stand.rig.state();
    let all = [&["checkpoints", "import"], args].concat();
    let out = run_once(&all, &state).expect("the binary runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        out.status.success(),
        "{}{}",
        text(&out.stdout),
        text(&out.stderr)
    );
    text(&out.stdout)
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// Files as another agent leaves them, and what happened until the import.
fn rotated_since(stand: &Stand) -> Vec<String> {
    // Quiet: read to its end, and longer since.
    stand.write("quiet.log", lines("quiet", 0, 20));
    // Renamed with lines that were not read; the new file is longer than what was read of it.
    let old = stand.rig.logs("renamed.log");
    stand.write("renamed.log", lines("renamed", 0, 40));
    fs::rename(&old, stand.rig.logs("renamed.log.1")).expect("renamed");
    stand.write("renamed.log", lines("renamed", 40, 140));
    // Renamed and compressed.
    stand.write("packed.log.1.gz", gz(&lines("packed", 0, 40)));
    stand.write("packed.log", lines("packed", 40, 140));
    let mut want = Vec::new();
    for (name, from, to) in [("quiet", 10, 20), ("renamed", 10, 140), ("packed", 10, 140)] {
        want.extend(lines(name, from, to).lines().map(str::to_owned));
    }
    want.sort();
    want
}

/// Guarantees that after the import exactly what the other agent had not read comes, with the
/// default `start_at: end`, and nothing more after another line.
fn goes_on(stand: &Stand, mut want: Vec<String>) {
    let agent = stand.start();
    stand.wait(&agent, want.len());
    stand.append("renamed.log", "one more\n");
    stand.wait(&agent, want.len() + 1);
    agent.stop_clean();
    want.push("one more".to_owned());
    want.sort();
    assert_eq!(sorted(&stand.records()), want);
}

#[test]
fn the_collectors_offsets_are_taken_over_in_both_forms() {
    for in_json in [true, false] {
        let stand = Stand::new(&json!({"start_at": null}));
        let files = ["quiet", "renamed", "packed"]
            .map(|name| (lines(name, 0, 20), lines(name, 0, 10).len()));
        let known: Vec<_> = files
            .iter()
            .map(|(seen, read)| Known { seen, read: *read })
            .collect();
        let value = match in_json {
            true => json_value(&known),
            false => protobuf_value(&known),
        };
        let database = stand.rig.path("receiver_filelog_");
        fs::write(&database, bbolt(b"file_input.knownFiles", &value)).expect("written");
        let want = rotated_since(&stand);
        let pattern = stand.rig.logs("*.log");
        let args = [
            "--from",
            "collector",
            path_text(&database),
            "--include",
            path_text(&pattern),
        ];
        let told = import(&stand, &args);
        assert!(
            told.contains("3 positions taken over, 0 left out"),
            "{told}"
        );
        goes_on(&stand, want);
    }
}

#[test]
fn promtails_positions_are_taken_over() {
    let stand = Stand::new(&json!({"start_at": null}));
    let positions = stand.rig.path("positions.yaml");
    // The files that it read are older than its save, the ones that took their places younger.
    stand.write("quiet.log", lines("quiet", 0, 20));
    stand.write("renamed.log", lines("renamed", 0, 40));
    let entry = |name: &str| {
        let path = stand.rig.logs(&format!("{name}.log"));
        format!("  {}: \"{}\"\n", path_text(&path), lines(name, 0, 10).len())
    };
    let text = ["quiet", "renamed", "packed"].map(entry).concat();
    let born = fs::metadata(stand.rig.logs("renamed.log")).and_then(|m| m.created());
    // Times of files come from a clock that ticks every few milliseconds.
    let ticked = wait::within(wait::BOUND, || {
        fs::write(&positions, format!("positions:\n{text}")).expect("written");
        let saved = fs::metadata(&positions).and_then(|m| m.modified());
        match (&born, saved) {
            (Ok(born), Ok(saved)) => saved > *born,
            _ => true,
        }
    });
    assert!(ticked);
    let saved = fs::metadata(&positions)
        .and_then(|m| m.modified())
        .expect("a time");
    let probe = stand.rig.path("probe");
    let ticked = wait::within(wait::BOUND, || {
        fs::write(&probe, "x").expect("written");
        fs::metadata(&probe)
            .and_then(|m| m.modified())
            .expect("a time")
            > saved
    });
    assert!(ticked);
    fs::rename(
        stand.rig.logs("renamed.log"),
        stand.rig.logs("renamed.log.1"),
    )
    .expect("renamed");
    stand.write("renamed.log", lines("renamed", 40, 140));
    stand.write("packed.log.1.gz", gz(&lines("packed", 0, 40)));
    stand.write("packed.log", lines("packed", 40, 140));
    let mut want = Vec::new();
    for (name, from, to) in [("quiet", 10, 20), ("renamed", 10, 140), ("packed", 10, 140)] {
        want.extend(lines(name, from, to).lines().map(str::to_owned));
    }
    let told = import(&stand, &["--from", "promtail", path_text(&positions)]);
    assert!(
        told.contains("3 positions taken over, 0 left out"),
        "{told}"
    );
    goes_on(&stand, want);
}

/// Guarantees that a container's log that was rotated and compressed several times since goes on in
/// the generation that was read.
#[test]
fn promtails_position_leads_into_the_generation_that_it_was_in() {
    let container = json!({"type": "container", "add_metadata_from_filepath": false});
    let stand = Stand::new(&json!({"start_at": null, "operators": [container]}));
    let line = |n: usize| {
        format!(
            "2024-03-04T05:{:02}:{:02}Z stdout F {n:04}\n",
            n / 60,
            n % 60
        )
    };
    let text = |from: usize, to: usize| -> String { (from..to).map(line).collect() };
    // Of equal lines, so that the offset fits in each of them.
    stand.write("0.log.20240304-050500.gz", gz(&text(0, 600)));
    stand.write("0.log.20240304-051500.gz", gz(&text(600, 1200)));
    stand.write("0.log.20240304-052500", text(1200, 1800));
    stand.write("0.log", text(1800, 2400));
    let positions = stand.rig.path("positions.yaml");
    let (log, read) = (stand.rig.logs("0.log"), text(600, 900).len());
    let entry = format!("positions:\n  {}: \"{read}\"\n", path_text(&log));
    fs::write(&positions, entry).expect("written");
    // When line 900 had not been written yet: 05:15:00.
    let saved = SystemTime::UNIX_EPOCH + Duration::from_millis(1_709_529_299_500);
    let file = fs::File::options().append(true).open(&positions);
    let touched = file.and_then(|file| file.set_modified(saved));
    touched.expect("the time is set");
    let told = import(&stand, &["--from", "promtail", path_text(&positions)]);
    let taken = format!(
        "{read:>14}  {}",
        path_text(&stand.rig.logs("0.log.20240304-051500.gz"))
    );
    assert!(told.contains(&taken), "{told}");
    let mut want: Vec<String> = (900..2400).map(|n| format!("{n:04}")).collect();
    // What was made at the moment of a start, as far as clocks tell, would be news.
    let last = fs::metadata(&log).and_then(|m| m.modified());
    let last = last.expect("a time");
    let aged = wait::within(wait::BOUND, || {
        last.elapsed()
            .is_ok_and(|age| age > Duration::from_millis(100))
    });
    assert!(aged);
    let agent = stand.start();
    stand.wait(&agent, want.len());
    stand.append("0.log", line(2400));
    stand.wait(&agent, want.len() + 1);
    agent.stop_clean();
    want.push("2400".to_owned());
    assert_eq!(sorted(&stand.records()), want);
}

/// Guarantees that what is no such file is an error with its reason, and no panic.
#[test]
fn wrong_files_are_refused_with_a_reason() {
    let stand = Stand::new(&json!({}));
    let garbage = stand.rig.path("garbage");
    fs::write(&garbage, [0xffu8; 10_000]).expect("written");
    let garbage = path_text(&garbage);
    let mut damaged = bbolt(b"file_input.knownFiles", b"1\n{\"Fingerprint\":");
    let no_json = stand.rig.path("no_json");
    fs::write(&no_json, &damaged).expect("written");
    damaged.truncate(4 * 4096 + 7);
    let cut = stand.rig.path("cut");
    fs::write(&cut, &damaged).expect("written");
    for (from, file, want) in [
        ("collector", garbage, "not a bbolt database"),
        ("collector", path_text(&no_json), "cannot be read"),
        ("collector", path_text(&cut), "damaged"),
        ("collector", "/dev/zero", "not a regular file"),
        ("collector", "/nonexistent", "No such file"),
        ("promtail", garbage, "not a positions file"),
        ("promtail", "/dev/zero", "not a regular file"),
        ("promtail", "/nonexistent", "No such file"),
    ] {
        let args = [
            "checkpoints",
            "import",
            "--from",
            from,
            file,
            "--include",
            "/tmp/*.none",
        ];
        let out = run_once(&args, &stand.rig.state()).expect("the binary runs");
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{from} {file}: {text}");
        assert!(text.contains(want), "{from} {file}: {text}");
    }
}
