use tailwater_config::{Errors, Section, parse};
use tailwater_opamp::proto::AgentConfigFile;

use super::super::signature::tests::signed;
use super::*;

fn settings(more: &str) -> Settings {
    let yaml = format!(
        "{{server: {{ws: {{endpoint: 'ws://c.example/'}}}}, capabilities: {{accepts_remote_config: true}}{more}}}"
    );
    let node = parse(&yaml, "o.yaml").unwrap();
    let mut errors = Errors::new();
    Settings::decode(&mut Section::new(&node, "extensions::opamp", &mut errors)).unwrap()
}

fn file(body: &[u8], content_type: &str) -> AgentConfigFile {
    AgentConfigFile {
        body: body.to_vec(),
        content_type: content_type.into(),
    }
}

fn reasons(name: &str, file: AgentConfigFile) -> String {
    let files = Files::from([(name.to_owned(), file)]);
    let taken = take(&files, &settings(""), &Remote::default());
    taken.map_or_else(|reasons| reasons.join("\n"), |_| String::new())
}

#[test]
fn files_are_texts_of_yaml_under_names_that_can_be_shown() {
    for content_type in [
        "",
        "text/yaml",
        "Application/YAML; charset=utf-8",
        "application/json",
    ] {
        assert_eq!(
            reasons("a", file(b"a: 1", content_type)),
            "",
            "{content_type}"
        );
    }
    assert!(reasons("a", file(b"a", "text/html")).contains("text/html"));
    assert!(reasons("a", file(&[0xff], "")).contains("UTF-8"));
    assert!(reasons("a\nb", file(b"", "")).contains("control"));
    assert!(reasons(&"a".repeat(257), file(b"", "")).contains("256"));
    assert!(reasons("a", file(b"x:\n  y: '[REDACTED]'", "")).contains("remote a:2:7"));
    let large = vec![b' '; SOURCE_BYTES_MAX + 1];
    assert!(reasons("a", file(&large, "")).contains("too much"));
    let many: Files = (0..257).map(|n| (n.to_string(), file(b"", ""))).collect();
    assert!(take(&many, &settings(""), &Remote::default()).is_err());
}

#[test]
fn files_are_laid_in_the_order_of_their_names_and_none_is_no_layer() {
    let files = Files::from([
        ("b".to_owned(), file(b"2", "")),
        ("".to_owned(), file(b"0", "")),
        ("a".to_owned(), file(b"1", "")),
    ]);
    let layer = take(&files, &settings(""), &Remote::default())
        .unwrap()
        .layer
        .unwrap();
    let names: Vec<&str> = layer.files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["", "a", "b"]);
    let none = take(&Files::new(), &settings(""), &Remote::default()).unwrap();
    assert_eq!(none.layer, None);
}

#[test]
fn versions_grow() {
    let of = |version: u64, text: &str| signed(&[("a", text)], version, 1).0;
    let before = Remote {
        applied: Some(of(7, "x")),
        version: Some(7),
        ..Remote::default()
    };
    let strict = settings("");
    let lax = settings(", remote_config: {allow_older_versions: true}");
    let plain = Files::from([("a".to_owned(), file(b"x", ""))]);
    for (files, good) in [
        (of(8, "y"), true),
        (of(7, "x"), true),
        (of(7, "y"), false),
        (of(6, "x"), false),
        (plain, false),
    ] {
        assert_eq!(take(&files, &strict, &before).is_ok(), good, "{files:?}");
        assert!(take(&files, &lax, &before).is_ok());
        assert!(take(&files, &strict, &Remote::default()).is_ok());
    }
}

#[test]
fn what_is_said_is_said_of_the_file_it_is_about() {
    let names = ["", "a", "a.yaml", SIGNATURE_FILE];
    let files: Files = names
        .iter()
        .map(|n| ((*n).to_owned(), file(b"", "")))
        .collect();
    let reasons = [
        "remote:1:1: of the one without a name",
        "remote a:2:3: of a",
        "remote a.yaml:1:1: of a.yaml",
        "file \"a\": its content type",
        "service::workers cannot change while the agent runs",
    ];
    let outcome = Outcome::Refused(reasons.map(str::to_owned).to_vec());
    let told = Told::of(&[1], &files, &outcome);
    let counts: Vec<_> = told
        .files
        .iter()
        .map(|(n, e)| (n.as_deref(), e.len()))
        .collect();
    let wanted = [
        (Some(""), 1),
        (Some("a"), 2),
        (Some("a.yaml"), 1),
        (None, 1),
    ];
    assert_eq!(counts, wanted);
    assert_eq!(told.status, Status::Failed as i32);
    let json = told.to_json(3, &json!([]));
    assert_eq!(json["hash"], "01");
    assert_eq!(
        (&json["applied"], &json["generation"]),
        (&json!(false), &json!(3))
    );
    assert_eq!(json["files"][3]["file"], Value::Null);
    let good = Told::of(&[1], &files, &Outcome::Applied(vec!["update x".into()]));
    assert_eq!((good.status, good.files.len()), (Status::Applied as i32, 3));
}

/// Guarantee: what is refused for who made it, or for its age, is told from what is refused for what it says.
#[test]
fn what_is_not_trusted_is_told_apart() {
    let (files, key) = signed(&[("a", "x")], 6, 1);
    let before = Remote {
        applied: Some(signed(&[("a", "y")], 7, 1).0),
        version: Some(7),
        ..Remote::default()
    };
    let mut strict = settings("");
    strict.keys = vec![key];
    let of = |files: &Files| distrust(files, &strict, &before);
    assert_eq!(of(&files), Some(Distrust::Outdated));
    assert_eq!(of(&signed(&[("a", "x")], 8, 2).0), Some(Distrust::Unsigned));
    let plain = Files::from([("a".to_owned(), file(b"x", ""))]);
    assert_eq!(of(&plain), Some(Distrust::Unsigned));
    assert_eq!(of(&signed(&[("a", "x: [")], 8, 1).0), None);
    let none = distrust(&plain, &settings(""), &Remote::default());
    assert_eq!(none, None);
}
