//! Reads the JSON form of a push request.
//!
//! `{"streams": [{"stream": {"name": "value"}, "values": [["<ns>", "<line>", {"k": "v"}]]}]}`,
//! the metadata object optional. Times and lines must be strings, metadata values too. A stream
//! in the old form (`labels`, `entries`) has neither `stream` nor `values`: it is accepted and
//! holds nothing, as with the real server.

use std::borrow::Cow;

use serde_json::Value;

use super::labels::bare_label_text;
use super::push::{PushEntry, PushRequest, PushStream};
use crate::entry::Pair;

/// Decodes a request; the error is the text of the 400.
pub(super) fn read_push(bytes: &[u8]) -> Result<PushRequest<'static>, String> {
    let root: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let streams = match &root {
        Value::Null => &Value::Null,
        Value::Object(fields) => fields.get("streams").unwrap_or(&Value::Null),
        _ => return Err("loghttp.PushRequest: expected an object".to_owned()),
    };
    let streams = list(streams, "loghttp.PushRequest.Streams")?;
    let streams = streams.iter().map(read_stream).collect::<Result<_, _>>()?;
    Ok(PushRequest { streams })
}

fn list<'v>(value: &'v Value, what: &str) -> Result<&'v [Value], String> {
    match value {
        Value::Null => Ok(&[]),
        Value::Array(items) => Ok(items),
        _ => Err(format!("{what}: expected an array")),
    }
}

fn read_stream(value: &Value) -> Result<PushStream<'static>, String> {
    let Value::Object(fields) = value else {
        return Err("loghttp.LogProtoStream: expected an object".to_owned());
    };
    let labels = match fields.get("stream") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(labels)) => {
            let pair = |(name, value): (&String, &Value)| match value {
                Value::String(value) => Ok((name.clone(), value.clone())),
                _ => Err(format!(
                    "loghttp.LabelSet: value of {name:?} is not a string"
                )),
            };
            labels.iter().map(pair).collect::<Result<_, _>>()?
        }
        Some(_) => return Err("loghttp.LabelSet: expected an object".to_owned()),
    };
    let values = fields.get("values").unwrap_or(&Value::Null);
    let values = list(values, "loghttp.LogProtoStream.Entries")?;
    let entries = values.iter().map(read_entry).collect::<Result<_, _>>()?;
    Ok(PushStream {
        labels: Cow::Owned(bare_label_text(&labels)),
        entries,
    })
}

fn read_entry(value: &Value) -> Result<PushEntry<'static>, String> {
    let items = value.as_array().map_or(&[][..], Vec::as_slice);
    let (ts, line, metadata) = match items {
        [Value::String(ts), Value::String(line)] => (ts, line, Vec::new()),
        [
            Value::String(ts),
            Value::String(line),
            Value::Object(metadata),
        ] => {
            let pair = |(name, value): (&String, &Value)| match value {
                Value::String(value) => Ok((name.clone().into(), value.clone().into())),
                _ => Err(format!(
                    "structured metadata value of {name:?} is not a string"
                )),
            };
            let pairs = metadata
                .iter()
                .map(pair)
                .collect::<Result<Vec<Pair<'_>>, _>>()?;
            (ts, line, pairs)
        }
        _ => return Err("loghttp.Entry: expected [\"<ns>\", \"<line>\", {metadata}]".to_owned()),
    };
    let ts_ns = ts
        .parse()
        .map_err(|_| format!("loghttp.Entry: invalid timestamp {ts:?}"))?;
    Ok(PushEntry {
        ts_ns,
        line: Cow::Owned(line.clone().into_bytes()),
        metadata,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_entries_and_metadata_are_read() {
        let request = read_push(
            br#"{"streams":[{"stream":{"b":"2","a":"1"},
                "values":[["5","x"],["6","y",{"k":"v"}]]}]}"#,
        )
        .unwrap();
        let stream = &request.streams[0];
        assert_eq!(stream.labels, r#"{b="2", a="1"}"#);
        assert_eq!(
            (stream.entries[0].ts_ns, &*stream.entries[0].line),
            (5, &b"x"[..])
        );
        assert_eq!(stream.entries[1].metadata, [("k".into(), "v".into())]);
    }

    #[test]
    fn the_old_form_holds_nothing_and_no_streams_are_none() {
        let old = br#"{"streams":[{"labels":"{a=\"1\"}","entries":[{"ts":"x","line":"y"}]}]}"#;
        let request = read_push(old).unwrap();
        assert_eq!(request.streams.len(), 1);
        assert!(request.streams[0].entries.is_empty());
        for text in ["null", "{}", r#"{"streams":null}"#, r#"{"streams":[]}"#] {
            assert!(
                read_push(text.as_bytes()).unwrap().streams.is_empty(),
                "{text}"
            );
        }
    }

    #[test]
    fn wrong_types_are_refused() {
        for entry in [
            r#"[5,"x"]"#,
            r#"["5.5","x"]"#,
            r#"["5",null]"#,
            r#"["5","x",{"k":1}]"#,
            r#"["5","x",[]]"#,
            r#"["5"]"#,
            r#"["99999999999999999999","x"]"#,
            "{}",
        ] {
            let text = format!(r#"{{"streams":[{{"stream":{{}},"values":[{entry}]}}]}}"#);
            assert!(read_push(text.as_bytes()).is_err(), "{entry}");
        }
        for text in [
            "",
            "[]",
            "{",
            r#"{"streams":1}"#,
            r#"{"streams":[1]}"#,
            r#"{"streams":[{"stream":{"a":1}}]}"#,
            r#"{"streams":[{"stream":[]}]}"#,
        ] {
            assert!(read_push(text.as_bytes()).is_err(), "{text}");
        }
    }
}
