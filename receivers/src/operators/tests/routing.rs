//! Routers.

use super::*;

const ROUTER: &str = r#"[
    {"type":"router","routes":[
        {"expr":"attributes.n > 1","output":"many","attributes":{"way":"n=EXPR(body)"}},
        {"expr":"body startsWith 'a'","output":["left","right"]}],
     "default":"other"},
    {"type":"add","id":"many","field":"attributes.at","value":"many","output":"end"},
    {"type":"add","id":"left","field":"attributes.at","value":"left","output":"end"},
    {"type":"add","id":"right","field":"attributes.at","value":"right","output":"end"},
    {"type":"add","id":"other","field":"attributes.at","value":"other","output":"end"},
    {"type":"noop","id":"end"}]"#;

fn with(body: &str, n: impl Into<Value>) -> Entry {
    Entry {
        attributes: map(&[("n", n.into())]),
        ..text(body)
    }
}

fn ways(out: &[Entry]) -> Vec<(String, String)> {
    let shown = |v: &Value| v.as_ref().to_display_string();
    let at = |e: &Entry| e.attributes.get("at").map(shown).unwrap_or_default();
    out.iter().map(|e| (shown(&e.body), at(e))).collect()
}

#[test]
fn the_first_route_that_matches_takes_a_record() {
    let entries = [
        with("ab", 1),
        with("x", 5),
        with("y", 0),
        with("ac", 7),
        with("az", "text"),
    ];
    let (out, cx) = run(&mut chain(ROUTER), &entries);
    let want = [
        ("x", "many"),
        ("ac", "many"),
        ("ab", "left"),
        ("az", "left"),
        ("ab", "right"),
        ("az", "right"),
        ("y", "other"),
    ];
    let want = want.map(|(b, at)| (b.to_owned(), at.to_owned()));
    assert_eq!(ways(&out), want);
    assert_eq!(out[0].attributes.get("way"), Some(&"n=x".into()));
    assert_eq!(out[2].attributes.get("way"), None);
    // The expression that fails on a record does not match it, which is told.
    assert_eq!((cx.report.errors[0].records, cx.report.dropped), (1, 0));
}

#[test]
fn what_no_route_takes_is_dropped_and_counted() {
    let operators = r#"[{"type":"router","id":"r","routes":[{"expr":"body == 'a'","output":"o"}]},
        {"type":"noop","id":"o"}]"#;
    let (out, cx) = run(&mut chain(operators), &[text("a"), text("b"), text("c")]);
    assert_eq!(out, [text("a")]);
    assert_eq!(cx.report.filtered, [("r".into(), 2)]);
    let fails = r#"[{"type":"router","routes":[{"expr":"true","output":"o",
        "attributes":{"x":"EXPR(attributes.n)"}}]},{"type":"noop","id":"o"}]"#;
    let (out, cx) = run(&mut chain(fails), &[with("a", 1), with("b", "t")]);
    assert_eq!((out.len(), cx.report.dropped), (1, 1));
}

#[test]
fn routers_are_checked_when_they_are_built() {
    for (operators, want) in [
        (r#"[{"type":"router"}]"#, "routes or default is required"),
        (
            r#"[{"type":"router","routes":[{"expr":"true"}]}]"#,
            "output is required",
        ),
        (
            r#"[{"type":"router","routes":[{"output":"x"}]}]"#,
            "expr is required",
        ),
        (
            r#"[{"type":"router","routes":[{"expr":"1","output":"router"}]}]"#,
            "has to be bool",
        ),
        (
            r#"[{"type":"router","routes":[{"expr":"true","output":"x"}]}]"#,
            "no operator with the id \"x\"",
        ),
        (
            r#"[{"type":"router","routes":[{"expr":"true","output":"a"}]},
                {"type":"noop","id":"a","output":"router"}]"#,
            "leads back",
        ),
    ] {
        let e = refused(operators);
        assert!(e.contains(want), "{operators}:\n{e}");
    }
}
