//! `files`: which files a running agent reads, and how far it is.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::admin::{items, place, show, table, text};
use crate::admin::client::{Ask, Place, Said, ask};
use crate::cli::{FilesArgs, Order};

/// Files that are asked for at once.
const PAGE: usize = 1_000;

/// `tailwater files`.
pub fn files(args: &FilesArgs) -> Result<u8> {
    let said = all(&place(&args.agent)?, args)?;
    show(&args.agent, &said, files_text)
}

/// Page by page, as if it were one answer.
fn all(place: &Place, args: &FilesArgs) -> Result<Said> {
    let wanted = args.limit.unwrap_or(usize::MAX);
    let mut files = Vec::new();
    let mut after = None;
    loop {
        let limit = match args.order {
            // There is one answer.
            Order::Lag => wanted.clamp(1, 10 * PAGE),
            Order::Found => (wanted - files.len()).clamp(1, PAGE),
        };
        let mut said = ask(place, Ask::get(&path(args, limit, after.as_deref())))?;
        if !said.status.is_success() {
            return Ok(said);
        }
        if let Some(Value::Array(page)) = said.body.get_mut("files").map(Value::take) {
            files.extend(page);
        }
        after = said.body["next"].as_str().map(str::to_owned);
        if after.is_none() || files.len() >= wanted {
            said.body["files"] = files.into();
            return Ok(said);
        }
    }
}

fn path(args: &FilesArgs, limit: usize, after: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &limit.to_string());
    let order = match args.order {
        Order::Found => None,
        Order::Lag => Some("lag"),
    };
    let given = [
        ("receiver", args.receiver.as_deref()),
        ("path", args.path.as_deref()),
        ("order", order),
        ("after", after),
    ];
    for (name, value) in given {
        query.extend_pairs(value.map(|value| (name, value)));
    }
    format!("/v1/files?{}", query.finish())
}

/// A path that cannot do anything to a terminal.
pub fn printable(text: &str) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// Where a file is: the path that its records name, and its place if that is another one.
pub fn where_it_is(file: &Value) -> String {
    let path = printable(text(file, "path"));
    match file["place"].as_str() {
        Some(place) => format!("{path} (now {})", printable(place)),
        None => path,
    }
}

/// The receiver, and the exporter if it has several.
pub fn reader(file: &Value) -> String {
    let receiver = text(file, "receiver").to_owned();
    match file["exporter"].as_str() {
        Some(exporter) => format!("{receiver} to {exporter}"),
        None => receiver,
    }
}

fn files_text(body: &Value) -> String {
    let heads = ["LAG", "SECONDS", "SIZE", "READ", "DELIVERED", "STATE"];
    let heads = heads.into_iter().chain(["RECEIVER", "PATH"]);
    let mut rows = vec![heads.map(str::to_owned).collect::<Vec<_>>()];
    let number = |file: &Value, key: &str| match &file[key] {
        Value::Null => "?".to_owned(),
        number => number.to_string(),
    };
    let files = items(body, "files");
    for file in files {
        let numbers = ["lag_bytes", "lag_seconds", "size", "read", "acknowledged"];
        let mut row: Vec<_> = numbers.iter().map(|key| number(file, key)).collect();
        let compressed = match file["compressed"] == true {
            true => ", compressed",
            false => "",
        };
        row.push(format!("{}{compressed}", text(file, "state")));
        row.push(reader(file));
        row.push(where_it_is(file));
        rows.push(row);
    }
    let mut out = table(&rows);
    let sum = |key: &str| -> u64 { files.iter().filter_map(|f| f[key].as_u64()).sum() };
    let _ = write!(
        out,
        "\n{} files, {} bytes behind",
        files.len(),
        sum("lag_bytes")
    );
    match sum("held_deleted_bytes") {
        0 => {}
        held => _ = write!(out, ", {held} of them in deleted files"),
    }
    match body["next"].is_null() {
        true => {}
        false => out.push_str("; there are more"),
    }
    for reader in items(body, "unanswered").iter().filter_map(Value::as_str) {
        let _ = write!(
            out,
            "\n{reader} did not answer: it has not begun, or looks at many files"
        );
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_are_a_table_with_a_sum() {
        let body = json!({
            "generation": 1,
            "files": [
                {"receiver": "file_log", "path": "/a.log", "lag_bytes": 12, "size": 20, "read": 20,
                 "acknowledged": 8, "state": "open", "compressed": false, "held_deleted_bytes": 0},
                {"receiver": "file_log", "exporter": "loki", "path": "/b\u{1b}[2J", "place": "/b.1.gz",
                 "lag_bytes": 0, "lag_seconds": 0.0, "size": 9, "read": 90, "acknowledged": 90,
                 "state": "rotated", "compressed": true, "held_deleted_bytes": 3},
            ],
            "next": "x",
            "unanswered": ["file_log/late"],
        });
        let want = "\
LAG  SECONDS  SIZE  READ  DELIVERED  STATE                RECEIVER          PATH
 12  ?          20    20          8  open                 file_log          /a.log
  0      0.0     9    90         90  rotated, compressed  file_log to loki  /b\\u{1b}[2J (now /b.1.gz)

2 files, 12 bytes behind, 3 of them in deleted files; there are more
file_log/late did not answer: it has not begun, or looks at many files
";
        assert_eq!(files_text(&body), want);
    }

    #[test]
    fn what_is_asked_is_encoded() {
        let args = FilesArgs {
            receiver: Some("file_log/a b".to_owned()),
            path: Some("/x&y/*.log".to_owned()),
            ..FilesArgs::default()
        };
        let want = "/v1/files?limit=5&receiver=file_log%2Fa+b&path=%2Fx%26y%2F*.log&after=c";
        assert_eq!(path(&args, 5, Some("c")), want);
    }
}
