//! Answers as tables.

use serde_json::Value;
use tailwater_telemetry::rfc3339_nano;

/// Columns, each as wide as it has to be.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|h| h.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut out = line(head.to_vec());
    for row in rows {
        out += &line(row.iter().map(String::as_str).collect());
    }
    out
}

/// Nothing that moves the cursor.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect(),
        other => other.to_string(),
    }
}

/// A digest, short.
fn digest(value: &Value) -> String {
    let text = text(value);
    match text.len() == 64 && text.is_ascii() {
        true => text[..12].to_owned(),
        false => text,
    }
}

fn time(value: &Value) -> String {
    let ms = value.as_u64().unwrap_or(0);
    rfc3339_nano(i64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000))
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

/// All agents.
pub fn agents(answer: &Value) -> String {
    let row = |agent: &Value| {
        let is = |key: &str, yes: &str, no: &str| match agent[key].as_bool() {
            Some(true) => yes.to_owned(),
            Some(false) => no.to_owned(),
            None => "-".to_owned(),
        };
        vec![
            text(&agent["uid"]),
            text(&agent["group"]),
            text(&agent["host"]),
            is("connected", "connected", "away"),
            is("healthy", "healthy", "unhealthy"),
            digest(&agent["runs"]),
            match (agent["enrolled"].as_bool(), agent["configurable"].as_bool()) {
                (Some(false), _) => "no certificate yet".to_owned(),
                (_, Some(true)) => text(&agent["refused"]),
                _ => "not configurable".to_owned(),
            },
        ]
    };
    let rows: Vec<_> = list(answer, "agents").map(row).collect();
    table(
        &["UID", "GROUP", "HOST", "", "HEALTH", "RUNS", "REFUSED"],
        &rows,
    )
}

/// One agent.
pub fn agent(answer: &Value) -> String {
    let mut out = agents(&serde_json::json!({"agents": [answer]}));
    let row = |r: &Value| vec![time(&r["since_ms"]), digest(&r["runs"])];
    let rows: Vec<_> = list(answer, "ran").map(row).collect();
    out += "\n";
    out += &table(&["SINCE", "RUNS"], &rows);
    out
}

/// Sources.
pub fn sources(answer: &Value) -> String {
    let row = |s: &Value| {
        let agent = match s["host"].is_null() {
            true => text(&s["agent"]),
            false => text(&s["host"]),
        };
        let paths = s["paths"].as_array().map_or(0, Vec::len);
        let path = match paths {
            0 | 1 => text(&s["paths"][0]),
            n => format!("{} and {} more", text(&s["paths"][0]), n - 1),
        };
        let state = match s["connected"].as_bool() {
            Some(true) => text(&s["state"]),
            _ => format!("{} (agent away)", text(&s["state"])),
        };
        let lag = text(&s["lag_bytes"]);
        let kind = text(&s["kind"]);
        vec![
            agent,
            kind,
            state,
            time(&s["since_ms"]),
            lag,
            text(&s["id"]),
            path,
        ]
    };
    let rows: Vec<_> = list(answer, "sources").map(row).collect();
    let head = ["AGENT", "KIND", "STATE", "SINCE", "LAG BYTES", "ID", "PATH"];
    let mut out = table(&head, &rows);
    let (total, left_out) = (answer["total"].as_u64(), answer["left_out"].as_u64());
    if total > Some(rows.len() as u64) {
        out += &format!("{} of {}\n", rows.len(), total.unwrap_or(0));
    }
    if left_out > Some(0) {
        out += &format!(
            "{} more that agents had no room to report\n",
            left_out.unwrap_or(0)
        );
    }
    out
}

/// How a source came where it is.
pub fn history(answer: &Value) -> String {
    let generation = |m: &Value| {
        let ns = m["generation"].as_i64().unwrap_or(0);
        rfc3339_nano(ns)
    };
    let row = |m: &Value| {
        vec![
            generation(m),
            text(&m["from"]),
            text(&m["to"]),
            text(&m["reason"]),
        ]
    };
    let rows: Vec<_> = list(answer, "history").map(row).collect();
    table(&["GENERATION", "FROM", "TO", "BECAUSE"], &rows)
}

/// All groups.
pub fn rollouts(answer: &Value) -> String {
    let row = |group: &Value| {
        let candidate = &group["candidate"];
        vec![
            text(&group["group"]),
            text(&group["phase"]),
            digest(&group["good"]["digest"]),
            text(&group["good"]["generation"]),
            digest(&candidate["digest"]),
            text(&candidate["stage"]),
            match group["frozen"].as_bool() {
                Some(true) => "frozen".to_owned(),
                _ => text(&candidate["paused"]),
            },
        ]
    };
    let rows: Vec<_> = list(answer, "rollouts").map(row).collect();
    table(
        &[
            "GROUP",
            "PHASE",
            "GOOD",
            "GENERATION",
            "CANDIDATE",
            "STAGE",
            "WAITS",
        ],
        &rows,
    )
}

/// One group.
pub fn rollout(answer: &Value) -> String {
    let mut out = rollouts(&serde_json::json!({"rollouts": [answer]}));
    for (name, reason) in answer["quarantine"].as_object().into_iter().flatten() {
        out += &format!(
            "quarantined {}: {}\n",
            &digest(&Value::String(name.clone())),
            text(reason)
        );
    }
    for alert in list(answer, "alerts") {
        let [name, what] = ["alert", "text"].map(|key| text(&alert[key]));
        out += &format!("alert {name} since {}: {what}\n", time(&alert["since_ms"]));
    }
    if let Some(repair) = answer["repair"].as_str().filter(|r| *r != "none") {
        out += &format!("agents that are not back: {repair}\n");
    }
    let row = |s: &Value| vec![time(&s["at_ms"]), text(&s["phase"]), text(&s["input"])];
    let rows: Vec<_> = list(answer, "steps").map(row).collect();
    out += "\n";
    out += &table(&["AT", "PHASE", "INPUT"], &rows);
    out
}

/// Certificates, and requests that wait.
pub fn certificates(answer: &Value) -> String {
    let row = |c: &Value| {
        let cells = ["uid", "state", "author", "serial"].map(|key| text(&c[key]));
        let ends = time(&c["ends_ms"]);
        let [uid, state, author, serial] = cells;
        vec![uid, state, ends, author, serial]
    };
    let mut rows: Vec<_> = list(answer, "certificates").map(row).collect();
    let waits = |w: &Value| {
        let since = format!("since {}", time(&w["since_ms"]));
        vec![
            text(&w["uid"]),
            "waits".to_owned(),
            since,
            text(&w["author"]),
        ]
    };
    rows.extend(list(answer, "waiting").map(waits));
    table(&["UID", "STATE", "ENDS", "BY", "SERIAL"], &rows)
}

/// Who did what.
pub fn audit(answer: &Value) -> String {
    let row = |e: &Value| {
        vec![
            time(&e["at_ms"]),
            text(&e["who"]),
            text(&e["role"]),
            text(&e["group"]),
            text(&e["action"]),
            text(&e["detail"]),
        ]
    };
    let rows: Vec<_> = list(answer, "entries").map(row).collect();
    table(&["AT", "WHO", "ROLE", "GROUP", "ACTION", "DETAIL"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be_and_hold_no_control_characters() {
        let answer = json!({"agents": [
            {"uid": "u", "group": "a\u{1b}[2J", "connected": true, "healthy": false, "configurable": true,
             "runs": "ab".repeat(32), "refused": null},
        ]});
        let shown = agents(&answer);
        assert_eq!(
            shown,
            "UID  GROUP   HOST             HEALTH     RUNS          REFUSED\n\
             u    a [2J  -     connected  unhealthy  abababababab  -\n"
                .replace(
                    "GROUP   HOST             HEALTH",
                    "GROUP  HOST             HEALTH"
                )
        );
    }
}
