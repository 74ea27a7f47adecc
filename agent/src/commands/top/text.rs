//! One look as text, for whatever is no terminal.

use std::fmt::Write as _;

use super::super::admin::table;
use super::draw::Looks;
use super::look::Look;
use super::numbers::{bytes, count, span};
use super::view::{FileRow, NodeRow, View};

/// What `second` shows, with the rates since `first`.
pub fn text(first: &Look, second: &Look) -> String {
    let view = View::new(Some(first), second);
    let (number, when, by) = &view.generation;
    let ready = if view.ready { "ready" } else { "not ready" };
    let mut out = format!(
        "tailwater {ready}, up {}, generation {number} by {by} since {when}\n",
        span(view.uptime_seconds as f64)
    );
    for reason in &view.reasons {
        let _ = writeln!(out, "because {reason}");
    }
    out.push('\n');
    let heads = [
        "", "NODE", "STATE", "IN/s", "OUT/s", "LAG", "BEHIND", "QUEUE",
    ];
    let heads = heads.into_iter().chain(["IN FLIGHT", "ERRORS"]);
    let mut rows = vec![heads.map(str::to_owned).collect()];
    rows.extend(view.nodes.iter().map(node));
    out += &table(&rows);
    out.push('\n');
    let heads = ["LAG", "BEHIND", "SIZE", "STATE", "RECEIVER", "FILE"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(view.files.iter().map(file));
    out + &table(&rows)
}

/// Where there is no number.
fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn node(n: &NodeRow) -> Vec<String> {
    let ascii = Looks {
        colours: false,
        unicode: false,
    };
    let whole = |n: Option<u64>| or_dash(n.map(|n| n.to_string()));
    vec![
        ascii.shape(n.mark).to_owned(),
        n.key.clone(),
        n.state.clone(),
        or_dash(n.rate_in.map(count)),
        or_dash(n.rate_out.map(count)),
        or_dash(n.lag_bytes.map(bytes)),
        or_dash(n.lag_seconds.map(span)),
        or_dash(n.queue.map(|(size, room)| format!("{size}/{room}"))),
        whole(n.in_flight),
        whole(n.errors),
    ]
}

fn file(f: &FileRow) -> Vec<String> {
    vec![
        bytes(f.lag_bytes),
        or_dash(f.lag_seconds.map(span)),
        bytes(f.size),
        f.state.clone(),
        f.reader.clone(),
        f.path.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::look_at;
    use super::*;
    use std::time::Instant;

    #[test]
    fn one_look_is_text_without_any_escape() {
        let start = Instant::now();
        let text = text(&look_at(start, 0, 100), &look_at(start, 2, 300));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "tailwater not ready, up 1h02m, generation 3 by SIGHUP since 2026-01-02T03:04:05Z"
        );
        assert_eq!(
            lines[1],
            "because exporter \"loki\": nothing accepted for 40 s"
        );
        let exporter = lines.iter().find(|l| l.contains("exporter loki")).unwrap();
        let cells: Vec<&str> = exporter.split_whitespace().collect();
        assert_eq!(cells[..4], ["!", "exporter", "loki", "(logs)"]);
        assert_eq!(
            cells[6..],
            ["100", "100", "-", "40s", "90/1000", "500", "2"]
        );
        assert!(text.contains("/var/log/app.log (now /var/log/app.log.1)"));
        assert!(text.is_ascii() && !text.contains('\u{1b}'));
    }
}
