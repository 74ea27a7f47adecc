//! `tap`: watching what passes a node of an agent that runs.

pub mod line;

use std::io::IsTerminal;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::admin::{items, place, refuse, text};
use crate::admin::client::{Ask, Follow, Followed, ask, follow};
use crate::cli::{AgentArgs, TapArgs, exit};

/// What was seen of a tap.
#[derive(Default)]
struct Seen {
    records: u64,
    /// As the agent said last.
    passed: u64,
    missed: u64,
    end: Option<String>,
}

/// `tailwater tap NODE`.
pub fn tap(args: &AgentArgs, tap: &TapArgs) -> Result<u8> {
    let place = place(args)?;
    let graph = ask(&place, Ask::get("/v1/graph"))?;
    if !graph.status.is_success() {
        return Ok(refuse(&graph));
    }
    let key = key(&graph.body, &tap.node)?;
    if std::io::stderr().is_terminal() {
        // There may be nothing to see for a while.
        eprintln!("waiting for what passes {key}; Ctrl-C ends it");
    }
    let path = path(&key, tap);
    let mut seen = Seen::default();
    let mut take = |bytes: &[u8], enough: bool| {
        let value: Value = serde_json::from_slice(bytes).context("a line of a tap is JSON")?;
        let counts = take_line(&value, &mut seen);
        if args.json {
            say!("{}", String::from_utf8_lossy(bytes));
        } else if let Some(record) = value.get("record") {
            say!("{}", line::of(record));
        }
        // What passed up to now is said soon; then it is known what was left out.
        Ok(match enough && counts {
            true => Follow::Enough,
            false => Follow::On,
        })
    };
    match follow(&place, &path, &mut take)? {
        Followed::Refused(said) => return Ok(refuse(&said)),
        Followed::Ended => {}
        Followed::Broken => {
            eprintln!("{}", seen.summary());
            bail!("the agent or the connection to it has gone");
        }
    }
    eprintln!("{}", seen.summary());
    Ok(exit::OK)
}

/// Takes note of a line. True if it says how much passed.
fn take_line(value: &Value, seen: &mut Seen) -> bool {
    if value.get("record").is_some() {
        seen.records += 1;
    }
    if let Some(end) = value["end"].as_str() {
        seen.end = Some(end.to_owned());
    }
    let Some(passed) = value["passed"].as_u64() else {
        return false;
    };
    seen.passed = passed;
    seen.missed = value["missed"].as_u64().unwrap_or(0);
    true
}

impl Seen {
    fn summary(&self) -> String {
        // The agent may not have said yet that these passed.
        let passed = self.passed.max(self.records);
        let left_out = passed - self.records;
        let mut out = format!(
            "{} shown, {passed} passed, {left_out} left out",
            self.records
        );
        if self.missed > 0 {
            out += &format!(" ({} of them too fast for here)", self.missed);
        }
        match &self.end {
            Some(end) => format!("{out}: {end}"),
            None => out,
        }
    }
}

/// The key of the node that is meant: a key, or the id of one node alone.
fn key(graph: &Value, wanted: &str) -> Result<String> {
    let nodes = items(graph, "nodes")
        .iter()
        .filter(|n| text(n, "kind") != "extension");
    let keys: Vec<(&str, &str)> = nodes.map(|n| (text(n, "key"), text(n, "id"))).collect();
    if keys.iter().any(|(key, _)| *key == wanted) {
        return Ok(wanted.to_owned());
    }
    let named: Vec<&str> = keys
        .iter()
        .filter(|(_, id)| *id == wanted)
        .map(|(key, _)| *key)
        .collect();
    let list = |keys: &[&str]| keys.iter().map(|k| format!("\n  {k}")).collect::<String>();
    match named[..] {
        [one] => Ok(one.to_owned()),
        [] => {
            let all: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
            bail!("no node {wanted:?} in the agent; it has{}", list(&all))
        }
        _ => bail!(
            "{wanted:?} may be one of these; name it whole{}",
            list(&named)
        ),
    }
}

fn path(key: &str, tap: &TapArgs) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("node", key);
    if tap.before {
        query.append_pair("side", "in");
    }
    if tap.after {
        query.append_pair("side", "out");
    }
    query.append_pair("rate", &tap.rate.to_string());
    if let Some(limit) = tap.limit {
        query.append_pair("limit", &limit.to_string());
    }
    query.append_pair("seconds", &tap.seconds.to_string());
    format!("/v1/tap?{}", query.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_is_named_by_its_key_or_by_an_id_that_is_enough() {
        let node = |kind: &str, key: &str, id: &str| json!({"kind": kind, "key": key, "id": id});
        let graph = json!({"nodes": [
            node("extension", "extension x", "x"),
            node("receiver", "receiver otlp (logs)", "otlp"),
            node("exporter", "exporter otlp (logs)", "otlp"),
            node("pipeline", "pipeline logs", "logs"),
        ]});
        let of = |wanted| key(&graph, wanted).map_err(|e| e.to_string());
        assert_eq!(of("logs"), Ok("pipeline logs".into()));
        assert_eq!(
            of("exporter otlp (logs)"),
            Ok("exporter otlp (logs)".into())
        );
        let both = of("otlp").unwrap_err();
        assert!(
            both.contains("\n  receiver otlp (logs)\n  exporter otlp (logs)"),
            "{both}"
        );
        let none = of("x").unwrap_err();
        assert!(
            none.contains("pipeline logs") && !none.contains("extension"),
            "{none}"
        );
    }

    #[test]
    fn a_query_says_what_is_wanted_and_the_end_says_what_was() {
        let mut tap = TapArgs {
            node: String::new(),
            before: false,
            after: true,
            rate: 5,
            limit: Some(7),
            seconds: 9,
        };
        let want = "/v1/tap?node=exporter+a%2Fb+%28logs%29&side=out&rate=5&limit=7&seconds=9";
        assert_eq!(path("exporter a/b (logs)", &tap), want);
        (tap.before, tap.after, tap.limit) = (true, false, None);
        assert_eq!(path("x", &tap), "/v1/tap?node=x&side=in&rate=5&seconds=9");
        let mut seen = Seen::default();
        assert!(!take_line(&json!({"record": {}}), &mut seen));
        assert_eq!(seen.summary(), "1 shown, 1 passed, 0 left out");
        let counts = json!({"passed": 30, "left_out": 29, "missed": 4});
        assert!(take_line(&counts, &mut seen));
        assert!(!take_line(&json!({"end": "9 s are over"}), &mut seen));
        let want = "1 shown, 30 passed, 29 left out (4 of them too fast for here): 9 s are over";
        assert_eq!(seen.summary(), want);
    }
}
