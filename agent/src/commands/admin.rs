//! `status`, `graph`, `plan`, `apply`, `rollback`, `reload`: asking and telling an agent that runs.

use std::fmt::Write as _;
use std::io::{IsTerminal, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use hyper::Method;
use serde_json::Value;
use tailwater_pipeline::checkpoint::state_dir;

use crate::admin::client::{Ask, Place, Said, ask};
use crate::cli::{AgentArgs, ChangeArgs, PlaceArgs, exit};

/// Names an agent: the path of its socket, or `http://HOST:PORT`.
const ADMIN: &str = "TAILWATER_ADMIN";
/// The socket below the state directory that is looked for if nothing else is said.
const SOCKET: &str = "admin.sock";

/// Which agent.
pub(super) fn place(args: &AgentArgs) -> Result<Place> {
    place_of(&args.place)
}

/// Which agent.
pub(super) fn place_of(args: &PlaceArgs) -> Result<Place> {
    let token = || match &args.token_file {
        Some(path) => Ok(path.clone()),
        None => bail!("an endpoint wants --token-file, the file of service::admin::token_file"),
    };
    if let Some(path) = &args.socket {
        return Ok(Place::Socket(path.clone()));
    }
    if let Some(url) = &args.endpoint {
        return Place::endpoint(url, token()?);
    }
    let named = std::env::var(ADMIN).ok().filter(|v| !v.is_empty());
    match named {
        Some(url) if url.starts_with("http") => Place::endpoint(&url, token()?),
        Some(path) => Ok(Place::Socket(path.into())),
        None => {
            let socket = state_dir().map(|dir| dir.join(SOCKET)).ok();
            match socket.filter(|s| s.exists()) {
                Some(socket) => Ok(Place::Socket(socket)),
                None => bail!(
                    "which agent? Give --socket PATH, or --endpoint URL and --token-file PATH, or set \
                     {ADMIN}; or let the agent listen at {SOCKET} in its state directory \
                     (service::admin::socket)"
                ),
            }
        }
    }
}

/// Colours, where a person looks.
struct Style(bool);

impl Style {
    fn of_stdout() -> Style {
        Style(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    /// Pads first: what makes the colour takes no room.
    fn paint(&self, good: bool, text: &str, width: usize) -> String {
        let padded = format!("{text:<width$}");
        match (self.0, good) {
            (false, _) => padded,
            (true, true) => format!("\u{1b}[32m{padded}\u{1b}[0m"),
            (true, false) => format!("\u{1b}[31m{padded}\u{1b}[0m"),
        }
    }
}

pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

pub(super) fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn lines<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    items(value, key).iter().filter_map(Value::as_str)
}

/// Rows with columns as wide as their widest cell; numbers stand at the right.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        rows.iter()
            .filter_map(|r| r.get(c))
            .map(|t| t.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let number = cell.starts_with(|c: char| c.is_ascii_digit());
            let _ = match number {
                true => write!(line, "{cell:>width$}  "),
                false => write!(line, "{cell:<width$}  "),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Prints a refusal, and gives the exit code.
pub(super) fn refuse(said: &Said) -> u8 {
    for reason in lines(&said.body, "reasons") {
        eprintln!("{reason}");
    }
    eprintln!("error: {}", text(&said.body, "error"));
    exit::ERROR
}

/// What is printed of an answer that is good: itself, or what `human` makes of it.
pub(super) fn show(
    args: &AgentArgs,
    said: &Said,
    human: impl FnOnce(&Value) -> String,
) -> Result<u8> {
    if args.json {
        say!("{:#}", said.body);
        return Ok(match said.status.is_success() {
            true => exit::OK,
            false => exit::ERROR,
        });
    }
    if !said.status.is_success() {
        return Ok(refuse(said));
    }
    say!("{}", human(&said.body).trim_end());
    Ok(exit::OK)
}

/// `tailwater status`: code 1 if it is not ready.
pub fn status(args: &AgentArgs) -> Result<u8> {
    let place = place(args)?;
    let mut said = ask(&place, Ask::get("/v1/health"))?;
    let kept = ask(&place, Ask::get("/v1/generations"))?;
    if said.status.is_success() && kept.status.is_success() {
        said.body["generation"] = kept.body["generation"].clone();
        let newest = items(&kept.body, "generations").last();
        said.body["in_force"] = newest.cloned().unwrap_or_default();
    }
    let ready = said.body["ready"] == true;
    let code = show(args, &said, |body| {
        let style = Style::of_stdout();
        let word = if ready { "ready" } else { "not ready" };
        let newest = &body["in_force"];
        let mut out = format!("state        {}\n", style.paint(ready, word, 0));
        let _ = writeln!(out, "uptime       {} s", body["uptime_seconds"]);
        let _ = writeln!(
            out,
            "generation   {} since {} by {}",
            body["generation"],
            text(newest, "when"),
            text(newest, "by")
        );
        for reason in lines(body, "reasons") {
            let _ = writeln!(out, "because      {reason}");
        }
        out
    })?;
    Ok(if ready { code } else { exit::ERROR })
}

/// `tailwater graph`.
pub fn graph(args: &AgentArgs) -> Result<u8> {
    let said = ask(&place(args)?, Ask::get("/v1/graph"))?;
    show(args, &said, graph_text)
}

/// What is shown of each node, in this order, where it is counted.
const NUMBERS: [&str; 10] = [
    "items_in",
    "items_out",
    "refused",
    "failed",
    "in_flight",
    "queue_size",
    "queue_capacity",
    "lag_bytes",
    "lag_seconds",
    "stalled_seconds",
];

fn graph_text(body: &Value) -> String {
    let style = Style::of_stdout();
    let mut out = format!("generation {}\n\n", body["generation"]);
    let nodes = items(body, "nodes");
    let width = nodes.iter().map(|n| text(n, "key").chars().count()).max();
    let width = width.unwrap_or(0);
    // Data flows downwards: what takes it in comes first.
    for kind in [
        "receiver",
        "pipeline",
        "processor",
        "connector",
        "exporter",
        "extension",
    ] {
        for node in nodes.iter().filter(|n| text(n, "kind") == kind) {
            let state = text(node, "state");
            let state = style.paint(state == "running", state, 0);
            let _ = writeln!(out, "{:<width$}  {state}", text(node, "key"));
            let numbers = &node["numbers"];
            let shown = NUMBERS.iter().filter(|n| !numbers[**n].is_null());
            let shown: Vec<_> = shown.map(|n| format!("{n} {}", numbers[*n])).collect();
            if !shown.is_empty() {
                let _ = writeln!(out, "    {}", shown.join("  "));
            }
            for reason in lines(node, "reasons") {
                let _ = writeln!(out, "    because {reason}");
            }
        }
    }
    out.push('\n');
    let edge = |e: &Value| vec![text(e, "from").to_owned(), format!("-> {}", text(e, "to"))];
    out + &table(&items(body, "edges").iter().map(edge).collect::<Vec<_>>())
}

/// A file, or standard input for `-`.
fn read(file: &Path) -> Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn changes_text(body: &Value) -> String {
    let generation = &body["generation"];
    let mut out = match text(body, "outcome") {
        "applied" => format!("generation {generation} is in force\n"),
        "planned" => format!("generation {generation} stays in force; it would change:\n"),
        _ => format!("unchanged: it is what generation {generation} is\n"),
    };
    for change in lines(body, "changes") {
        let _ = writeln!(out, "  {change}");
    }
    out
}

/// `tailwater plan FILE`.
pub fn plan(args: &AgentArgs, file: &Path) -> Result<u8> {
    let wanted = Ask {
        method: Method::POST,
        body: read(file)?,
        ..Ask::get("/v1/plan")
    };
    show(args, &ask(&place(args)?, wanted)?, changes_text)
}

/// The path and query of a change.
fn path_of(path: &str, by: &ChangeArgs) -> String {
    match by.dry_run {
        true => format!("{path}?dry_run=true"),
        false => path.to_owned(),
    }
}

/// `tailwater apply FILE`.
pub fn apply(args: &AgentArgs, file: &Path, by: &ChangeArgs) -> Result<u8> {
    let path = path_of("/v1/config", by);
    let wanted = Ask {
        method: Method::PUT,
        body: read(file)?,
        if_generation: by.if_generation,
        ..Ask::get(&path)
    };
    show(args, &ask(&place(args)?, wanted)?, changes_text)
}

/// `tailwater rollback [N]`: to the generation before the one in force, unless one is named.
pub fn rollback(args: &AgentArgs, number: Option<u64>, by: &ChangeArgs) -> Result<u8> {
    let place = place(args)?;
    let mut if_generation = by.if_generation;
    let number = match number {
        Some(number) => number,
        None => {
            let said = ask(&place, Ask::get("/v1/generations"))?;
            if !said.status.is_success() {
                return show(args, &said, |_| String::new());
            }
            let mut kept = items(&said.body, "generations").iter().rev();
            let before = kept.nth(1).and_then(|g| g["number"].as_u64());
            // What is before it holds only as long as it is in force.
            if_generation = if_generation.or(said.body["generation"].as_u64());
            before.context("there is no earlier generation")?
        }
    };
    let path = path_of(&format!("/v1/generations/{number}/apply"), by);
    let wanted = Ask {
        method: Method::POST,
        if_generation,
        ..Ask::get(&path)
    };
    show(args, &ask(&place, wanted)?, changes_text)
}

/// `tailwater reload`.
pub fn reload(args: &AgentArgs) -> Result<u8> {
    let wanted = Ask {
        method: Method::POST,
        ..Ask::get("/v1/reload")
    };
    show(args, &ask(&place(args)?, wanted)?, changes_text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_printed_is_aligned_and_says_what_happened() {
        let rows = [
            vec!["a".into(), "-> bb".into()],
            vec!["ccc".into(), "12".into()],
        ];
        assert_eq!(table(&rows), "a    -> bb\nccc     12\n");
        assert_eq!(Style(true).paint(true, "ok", 3), "\u{1b}[32mok \u{1b}[0m");
        assert_eq!(Style(false).paint(false, "ok", 3), "ok ");
        let body = json!({"generation": 3, "outcome": "applied", "changes": ["add exporter a"]});
        let want = "generation 3 is in force\n  add exporter a\n";
        assert_eq!(changes_text(&body), want);
        let body = json!({"generation": 3, "outcome": "unchanged", "changes": []});
        assert_eq!(
            changes_text(&body),
            "unchanged: it is what generation 3 is\n"
        );
    }

    #[test]
    fn a_graph_shows_what_takes_in_first_and_only_what_is_counted() {
        let node = |kind: &str, key: &str, numbers: Value| json!({"kind": kind, "key": key, "state": "running", "reasons": [], "numbers": numbers});
        let body = json!({
            "generation": 2,
            "nodes": [
                node("exporter", "exporter loki (logs)", json!({"queue_size": 4})),
                node("receiver", "receiver a (logs)", json!({})),
            ],
            "edges": [{"from": "receiver a (logs)", "to": "pipeline logs"}],
        });
        let want = "generation 2\n\n\
                    receiver a (logs)     running\n\
                    exporter loki (logs)  running\n    queue_size 4\n\n\
                    receiver a (logs)  -> pipeline logs\n";
        assert_eq!(graph_text(&body), want);
    }
}
