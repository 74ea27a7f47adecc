//! Which files are read, as a running agent tells it: by its admin API and by `tailwater files`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::admin::Way;
use tailwater_tests::agent::binary;
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

/// A configuration that is asked at a socket, and the socket.
fn asked(rig: &Rig) -> (Value, Way) {
    let socket = rig.path("admin.sock");
    let mut config = rig.config();
    config["service"]["admin"] = json!({"socket": socket});
    (config, Way::Socket(socket))
}

/// Exit code, standard output, standard error.
fn files(way: &Way, args: &[&str]) -> (i32, String, String) {
    let Way::Socket(socket) = way else {
        unreachable!("it is made so")
    };
    let mut command = Command::new(binary());
    command.arg("files").args(args).arg("--socket").arg(socket);
    let output = command.stdin(Stdio::null()).output().expect("a process");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("no signal");
    (code, text(&output.stdout), text(&output.stderr))
}

fn list(answer: &Value) -> &[Value] {
    answer["files"].as_array().expect("a list")
}

fn find(answer: &Value, met: impl Fn(&Value) -> bool) -> Option<&Value> {
    list(answer).iter().find(|f| met(f))
}

fn is_at(file: &Value, path: &Path) -> bool {
    let at = file.get("place").unwrap_or(&file["path"]);
    at.as_str() == path.to_str() && file["state"] != "deleted"
}

/// The description of the API says what is in an answer, and nothing else is in it.
fn assert_described(way: &Way, answer: &Value) {
    let described = way.get("/v1/openapi.json").json();
    let schema = &described["components"]["schemas"]["Files"];
    let keys = |v: &Value| -> BTreeSet<String> {
        v.as_object().expect("an object").keys().cloned().collect()
    };
    let names = |v: &Value| -> BTreeSet<String> {
        let list = v.as_array().expect("a list").iter();
        list.map(|n| n.as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(keys(answer), names(&schema["required"]));
    let file = &schema["properties"]["files"]["items"];
    let states = names(&file["properties"]["state"]["enum"]);
    for one in list(answer) {
        assert!(names(&file["required"]).is_subset(&keys(one)), "{one:#}");
        assert!(keys(one).is_subset(&keys(&file["properties"])), "{one:#}");
        assert!(states.contains(one["state"].as_str().expect("a state")));
    }
}

/// Scenario: the sink is away while a log is rotated and another one deleted. Guarantees that each file
/// is told as what it is, with the bytes that only the agent holds, and that all of it is delivered.
#[test]
fn files_are_told_as_what_they_are() {
    let rig = Rig::new("files-told");
    let (config, way) = asked(&rig);
    rig.loki.set_reach(Reach::Refused).expect("a port");
    let agent = rig.start(&config);
    let mut log = rig.writer(1, "app.log", |_| {});
    let mut short = rig.writer(2, "short.log", |_| {});
    log.write_lines(200).expect("written");
    short.write_lines(50).expect("written");
    let (app, gone) = (rig.logs("app.log"), rig.logs("short.log"));
    let size = |path: &Path| fs::metadata(path).expect("a file").len();
    let (app_size, gone_size) = (size(&app), size(&gone));
    let is_read = |answer: &Value, path: &Path, size: u64| {
        let file = find(answer, |f| is_at(f, path));
        file.is_some_and(|f| f["read"] == size && f["size"] == size)
    };
    let answer = wait::for_some(wait::BOUND, || {
        let answer = way.get("/v1/files").json();
        let done = is_read(&answer, &app, app_size) && is_read(&answer, &gone, gone_size);
        done.then_some(answer)
    });
    let answer = answer.unwrap_or_else(|| panic!("not read: {}", tail(&agent.log())));
    assert_described(&way, &answer);
    let file = find(&answer, |f| is_at(f, &app)).expect("it is there");
    let meta = fs::metadata(&app).expect("a file");
    assert_eq!(file["receiver"], "filelog");
    assert_eq!(
        (&file["device"], &file["inode"]),
        (&meta.dev().into(), &meta.ino().into())
    );
    assert_eq!(
        (&file["acknowledged"], &file["lag_bytes"]),
        (&0.into(), &app_size.into())
    );
    assert_eq!(
        (&file["state"], &file["compressed"]),
        (&"open".into(), &false.into())
    );
    assert_eq!(answer["generation"], 1);

    fs::remove_file(&gone).expect("it is there");
    log.rotate().expect("renamed");
    log.write_lines(10).expect("written");
    let rotated = log.rotated().next().expect("one").path.clone();
    let told = wait::for_some(wait::BOUND, || {
        let answer = way.get("/v1/files?order=lag").json();
        let deleted = find(&answer, |f| f["state"] == "deleted").is_some();
        let moved = find(&answer, |f| f["state"] == "rotated").is_some();
        (deleted && moved && list(&answer).len() == 3).then_some(answer)
    });
    let told = told.unwrap_or_else(|| panic!("{}", way.get("/v1/files").body));
    assert_described(&way, &told);
    let old = find(&told, |f| is_at(f, &rotated)).expect("it is told");
    assert_eq!(
        (&old["inode"], &old["path"]),
        (&meta.ino().into(), &json!(app))
    );
    assert_eq!(
        (&old["size"], &old["lag_bytes"]),
        (&app_size.into(), &app_size.into())
    );
    assert_eq!(list(&told)[0], *old, "it is furthest behind: {told:#}");
    let deleted = find(&told, |f| f["state"] == "deleted").expect("it is told");
    assert_eq!(
        (&deleted["path"], deleted.get("place")),
        (&json!(gone), None)
    );
    assert_eq!(deleted["held_deleted_bytes"], gone_size);

    let (code, table, _) = files(&way, &["--path", app.to_str().expect("text")]);
    assert_eq!(code, 0, "{table}");
    assert!(
        table.contains(&format!("(now {})", rotated.display())),
        "{table}"
    );
    assert!(
        table.contains("2 files, ") && !table.contains("short.log"),
        "{table}"
    );
    let pattern = rig.logs("*.log.*");
    let pattern = pattern.to_str().expect("text");
    let (code, json, _) = files(
        &way,
        &["--json", "--receiver", "filelog", "--path", pattern],
    );
    let json: Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!((code, list(&json).len()), (0, 1), "{json:#}");
    let (code, out, err) = files(&way, &["--receiver", "otlp"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.contains("no receiver \"otlp\" reads files") && err.contains("filelog"),
        "{err}"
    );
    for (query, status) in [
        ("limit=0", 400),
        ("size=1", 400),
        ("after=x", 422),
        ("path=[", 422),
        ("order=lag&after=x", 422),
        ("receiver=x", 404),
    ] {
        let reply = way.get(&format!("/v1/files?{query}"));
        assert_eq!(reply.status, status, "{query}: {}", reply.body);
        assert!(reply.json()["error"].is_string());
    }

    rig.loki.set_reach(Reach::Up).expect("a port");
    rig.wait_delivered(&agent);
    let caught_up = wait::within(wait::BOUND, || {
        let answer = way.get("/v1/files").json();
        list(&answer)
            .iter()
            .all(|f| f["lag_bytes"] == 0 && f["held_deleted_bytes"] == 0)
    });
    assert!(caught_up, "{}", way.get("/v1/files").body);
    rig.finish(agent);
}

/// Scenario: ten thousand files, most of them closed for want of descriptors, are told page by page again
/// and again while another log is read, and the configuration changes between. Guarantees that pages hold
/// each file once, and that what is read is delivered once.
#[test]
fn many_files_are_told_page_by_page_while_others_are_read() {
    const FILES: usize = 10_000;
    let rig = Rig::new("files-many");
    let (mut config, way) = asked(&rig);
    let many = rig.path("many");
    fs::create_dir(&many).expect("a directory");
    for n in 0..FILES {
        fs::write(many.join(format!("{n:05}.log")), "0123456789\n").expect("a file");
    }
    let pattern = many.join("*.log");
    config["receivers"]["filelog/many"] = json!({"include": [pattern], "start_at": "end",
               "open_files_max": 200, "poll_interval": "2s"});
    let receivers = &mut config["service"]["pipelines"]["logs"]["receivers"];
    *receivers = json!(["filelog", "filelog/many"]);
    let agent = rig.start(&config);
    let options = LiveOptions {
        lines_per_second: 2_000,
        rotate_every_lines: Some(3_000),
        lines_max: None,
    };
    let live = LiveWriter::start(rig.writer(1, "app.log", |_| {}), options).expect("a thread");
    let whole = |limit: usize| -> Vec<Value> {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/files?receiver=filelog%2Fmany&limit={limit}{after}");
            let reply = way.get(&path);
            assert_eq!(reply.status, 200, "{}", reply.body);
            let page = reply.json();
            assert!(list(&page).len() <= limit);
            found.extend(list(&page).iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return found,
            }
            assert!(found.len() <= FILES, "it does not end");
        }
    };
    let is_shown = || way.get("/v1/generations").json()["generation"] == 1;
    assert!(wait::within(wait::BOUND, is_shown));
    let all_found = wait::within(wait::BOUND, || whole(10_000).len() == FILES);
    assert!(all_found, "{}", tail(&agent.log()));
    for (round, limit) in [997, 1_000, 10_000].into_iter().enumerate() {
        let files = whole(limit);
        let paths: BTreeSet<_> = files.iter().map(|f| f["path"].as_str()).collect();
        assert_eq!((files.len(), paths.len()), (FILES, FILES), "{limit}");
        assert!(files.iter().all(|f| f["lag_bytes"] == 0 && f["size"] == 11));
        let closed = files.iter().filter(|f| f["state"] == "closed").count();
        assert!(closed >= FILES / 2, "{closed} are closed");
        // The thread that answers is another one afterwards, and hears of questions otherwise.
        config["receivers"]["filelog/many"]["watch"] = json!(["poll", "auto", "poll"][round]);
        config["processors"]["batch"]["timeout"] = json!(format!("{}ms", 50 + round));
        assert!(agent.reload(&config), "{}", tail(&agent.log()));
    }
    let worst = way.get("/v1/files?order=lag&limit=5").json();
    assert_eq!((list(&worst).len(), &worst["next"]), (5, &Value::Null));
    let (code, json, _) = files(&way, &["--json", "--receiver", "filelog/many"]);
    let json: Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!((code, list(&json).len()), (0, FILES));
    live.stop().expect("written");
    rig.wait_delivered(&agent);
    rig.finish(agent);
}
