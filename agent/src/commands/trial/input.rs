//! Where what is tried comes from.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;
use tailwater_pdata::Entry;

use super::record::from_json;
use crate::cli::TryArgs;

/// Largest file of records.
const ENTRIES_BYTES_MAX: u64 = 64 << 20;

/// What is tried.
pub enum Input {
    /// Content of a file, with the path that it is taken to have.
    Lines(Box<dyn Read>, PathBuf),
    /// Records.
    Entries(Vec<Entry>),
}

/// Opens what the command line names.
///
/// # Errors
/// It cannot be read, or nothing is named and nothing is piped in.
pub fn open(args: &TryArgs) -> Result<Input> {
    if let Some(file) = &args.entries {
        let name = file.display();
        let mut text = String::new();
        let read = reader(file)?
            .take(ENTRIES_BYTES_MAX + 1)
            .read_to_string(&mut text);
        read.with_context(|| format!("cannot read {name}"))?;
        if text.len() as u64 > ENTRIES_BYTES_MAX {
            bail!(
                "{name}: more than {} MiB of records",
                ENTRIES_BYTES_MAX >> 20
            );
        }
        return Ok(Input::Entries(entries(&text).with_context(|| {
            format!("{name} holds no records for --entries")
        })?));
    }
    let file = match &args.input {
        Some(file) => file.clone(),
        None if std::io::stdin().is_terminal() => {
            bail!("nothing to try: pipe lines in, or give --input FILE or --entries FILE")
        }
        None => "-".into(),
    };
    let path = match (&args.path, file.to_str()) {
        (Some(path), _) => path.clone(),
        (None, Some("-")) => "/dev/stdin".into(),
        (None, _) => std::path::absolute(&file)?,
    };
    Ok(Input::Lines(reader(&file)?, path))
}

fn reader(file: &Path) -> Result<Box<dyn Read>> {
    if file == Path::new("-") {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let open = || -> std::io::Result<Box<dyn Read>> {
        let mut opened = File::open(file)?;
        // It is read to its end or not at all.
        if opened.metadata()?.is_dir() {
            return Err(std::io::ErrorKind::IsADirectory.into());
        }
        let mut magic = [0; 2];
        let known = opened.read(&mut magic)?;
        if known == 2 && magic == [0x1f, 0x8b] {
            let text = "it is compressed: pipe `gzip -dc FILE` into --input -";
            return Err(std::io::Error::other(text));
        }
        let head = std::io::Cursor::new(magic).take(known as u64);
        Ok(Box::new(head.chain(opened)))
    };
    open().with_context(|| format!("cannot read {}", file.display()))
}

/// The records of a text: an array of them, an object with `entries` or with `input.entries`, as test
/// vectors are written, or one record per line.
fn entries(text: &str) -> Result<Vec<Entry>> {
    let whole: Result<Json, _> = serde_json::from_str(text);
    let records = match whole {
        Ok(Json::Array(records)) => records,
        Ok(json) => {
            let lists = [&json["entries"], &json["input"]["entries"]];
            let records = lists.into_iter().find_map(Json::as_array).cloned();
            records.unwrap_or_else(|| vec![json])
        }
        Err(_) => {
            let mut records = Vec::new();
            for (i, line) in text.lines().enumerate() {
                if !line.trim().is_empty() {
                    let record = serde_json::from_str(line);
                    records.push(record.with_context(|| format!("line {}", i + 1))?);
                }
            }
            records
        }
    };
    let record = |(i, json)| from_json(json).with_context(|| format!("record {}", i + 1));
    records.iter().enumerate().map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_in_several_forms() {
        for text in [
            r#"[{"body":"a"},{"body":"b"}]"#,
            r#"{"entries":[{"body":"a"},{"body":"b"}]}"#,
            r#"{"kind":"operators","input":{"entries":[{"body":"a"},{"body":"b"}]}}"#,
            "{\"body\":\"a\"}\n\n{\"body\":\"b\"}\n",
        ] {
            let entries = entries(text).unwrap();
            let bodies: Vec<_> = entries.iter().map(|e| format!("{:?}", e.body)).collect();
            assert_eq!(bodies, ["Str(\"a\")", "Str(\"b\")"], "{text}");
        }
        assert_eq!(entries(r#"{"body":"a"}"#).unwrap().len(), 1);
        assert!(entries("").unwrap().is_empty());
        for (text, want) in [
            ("{\"body\":\"a\"}\nnot json", "line 2"),
            (r#"[{"body":"a"},{"x":1}]"#, "record 2"),
        ] {
            let error = format!("{:#}", entries(text).unwrap_err());
            assert!(error.contains(want), "{error}");
        }
    }
}
