//! The values that the collector's file input stores: what it knows of the files it has read.
//!
//! Two encodings exist. JSON: a count, then one object per file. Protobuf: a message whose field 1
//! is repeated and has the fields 1 fingerprint {1 first bytes}, 2 offset, 3 number of records, 4
//! attributes as JSON, 5 header is done, 6 flush state, 7 token length state, 8 file type. The
//! first byte tells them apart: a digit, or the tag of field 1.

use serde_json::{Map, Value};

use super::ImportedOffset;

/// What a key of the storage says.
pub(super) struct KeyName {
    pub text: String,
    pub operator_id: String,
    pub archived: bool,
}

/// `<operator>.knownFiles` or, for an archived poll, `<operator>.knownFiles<number>`.
pub(super) fn parse_key(key: &[u8]) -> Option<KeyName> {
    let text = std::str::from_utf8(key).ok()?;
    let (operator_id, name) = text.rsplit_once('.')?;
    let number = name.strip_prefix("knownFiles")?;
    let is_ours = number.bytes().all(|b| b.is_ascii_digit());
    is_ours.then(|| KeyName {
        text: text.to_owned(),
        operator_id: operator_id.to_owned(),
        archived: !number.is_empty(),
    })
}

/// The entries of a value; an entry that makes no sense says why.
///
/// # Errors
/// The value as a whole is in neither form.
pub(super) fn decode(value: &[u8]) -> Result<Vec<Result<ImportedOffset, String>>, String> {
    match value.first() {
        None => Ok(Vec::new()),
        Some(b'0'..=b'9') => decode_json(value),
        Some(&LIST_TAG) => decode_protobuf(value),
        Some(other) => Err(format!(
            "it begins with the byte {other:#04x}: neither JSON nor protobuf"
        )),
    }
}

fn decode_json(value: &[u8]) -> Result<Vec<Result<ImportedOffset, String>>, String> {
    let mut values = serde_json::Deserializer::from_slice(value).into_iter::<Value>();
    let count = match values.next() {
        Some(Ok(count)) => count.as_u64().ok_or("it does not begin with a count")?,
        _ => return Err("it does not begin with a count".to_owned()),
    };
    let mut entries = Vec::new();
    for value in values {
        let value = value.map_err(|e| format!("JSON of entry {}: {e}", entries.len()))?;
        entries.push(entry_of_json(value));
    }
    if entries.len() as u64 != count {
        return Err(format!("it has {} entries and says {count}", entries.len()));
    }
    Ok(entries)
}

fn entry_of_json(mut value: Value) -> Result<ImportedOffset, String> {
    let fingerprint = value
        .pointer("/Fingerprint/first_bytes")
        .and_then(Value::as_str);
    let fingerprint = fingerprint.ok_or("it has no fingerprint")?;
    let first_bytes = base64(fingerprint).ok_or("its fingerprint is not base64")?;
    let number = |name: &str| match value.get(name) {
        None | Some(Value::Null) => Ok(0),
        Some(n) => n.as_u64().ok_or_else(|| format!("{name} is {n}")),
    };
    let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(false);
    let entry = ImportedOffset {
        fingerprint_first_bytes: not_empty(first_bytes)?,
        offset: number("Offset")?,
        record_number: number("RecordNum")?,
        header_done: flag("HeaderFinalized"),
        skips_line: flag("TruncateSkipping"),
        file_type: value
            .get("FileType")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        ..ImportedOffset::default()
    };
    let attributes = match value.get_mut("FileAttributes").map(Value::take) {
        Some(Value::Object(map)) => flatten(map),
        None | Some(Value::Null) => Map::new(),
        Some(other) => return Err(format!("FileAttributes is {other}")),
    };
    Ok(ImportedOffset {
        attributes,
        ..entry
    })
}

/// An empty fingerprint would be the beginning of every file.
fn not_empty(first_bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    if first_bytes.is_empty() {
        Err("its fingerprint is empty".to_owned())
    } else {
        Ok(first_bytes)
    }
}

/// Old versions kept the attributes of the header in a map of their own.
fn flatten(mut attributes: Map<String, Value>) -> Map<String, Value> {
    match attributes.remove("HeaderAttributes") {
        Some(Value::Object(header)) => attributes.extend(header),
        Some(other) => {
            attributes.insert("HeaderAttributes".to_owned(), other);
        }
        None => {}
    }
    attributes
}

/// Standard base64 with padding (RFC 4648, section 4).
fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let data = text
        .strip_suffix(b"==")
        .or(text.strip_suffix(b"="))
        .unwrap_or(text);
    let mut out = Vec::with_capacity(data.len() * 3 / 4);
    for group in data.chunks(4) {
        let mut bits = 0u32;
        for &c in group {
            bits = bits << 6 | u32::from(sextet(c)?);
        }
        bits <<= 6 * (4 - group.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

fn sextet(c: u8) -> Option<u8> {
    match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// The tag of field 1 with a length: how a list of files begins.
const LIST_TAG: u8 = 0x0A;

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A fixed-width number; none of the known fields is one.
    Fixed,
}

/// Calls `visit` with each field's number and content.
fn fields<'a>(
    mut message: &'a [u8],
    visit: &mut dyn FnMut(u64, Field<'a>) -> Result<(), String>,
) -> Result<(), String> {
    let short = || "a protobuf message is cut short or damaged".to_owned();
    let take = |message: &mut &'a [u8], len: u64| {
        let len = usize::try_from(len).ok()?;
        let (head, rest) = message.split_at_checked(len)?;
        *message = rest;
        Some(head)
    };
    while !message.is_empty() {
        let tag = varint(&mut message).ok_or_else(short)?;
        let field = match tag & 7 {
            0 => varint(&mut message).map(Field::Number),
            1 => take(&mut message, 8).map(|_| Field::Fixed),
            2 => varint(&mut message)
                .and_then(|len| take(&mut message, len))
                .map(Field::Bytes),
            5 => take(&mut message, 4).map(|_| Field::Fixed),
            _ => None,
        };
        visit(tag >> 3, field.ok_or_else(short)?)?;
    }
    Ok(())
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn decode_protobuf(value: &[u8]) -> Result<Vec<Result<ImportedOffset, String>>, String> {
    let mut entries = Vec::new();
    fields(value, &mut |number, field| {
        if let (1, Field::Bytes(message)) = (number, field) {
            entries.push(entry_of_protobuf(message));
        }
        Ok(())
    })?;
    Ok(entries)
}

fn entry_of_protobuf(message: &[u8]) -> Result<ImportedOffset, String> {
    let mut entry = ImportedOffset::default();
    let count = |n: u64| match i64::try_from(n) {
        Ok(_) => Ok(n),
        Err(_) => Err(format!("a number is negative: {}", n as i64)),
    };
    fields(message, &mut |number, field| {
        match (number, field) {
            (1, Field::Bytes(fingerprint)) => fields(fingerprint, &mut |number, field| {
                if let (1, Field::Bytes(bytes)) = (number, field) {
                    entry.fingerprint_first_bytes = bytes.to_vec();
                }
                Ok(())
            })?,
            (2, Field::Number(n)) => entry.offset = count(n)?,
            (3, Field::Number(n)) => entry.record_number = count(n)?,
            (4, Field::Bytes(json)) => {
                let attributes = serde_json::from_slice(json);
                let attributes = attributes.map_err(|e| format!("its attributes: {e}"))?;
                entry.attributes = flatten(attributes);
            }
            (5, Field::Number(n)) => entry.header_done = n != 0,
            (8, Field::Bytes(text)) => {
                entry.file_type = String::from_utf8_lossy(text).into_owned();
            }
            // Flush and token length states are of the collector's own reading; unknown fields
            // are of later versions.
            _ => {}
        }
        Ok(())
    })?;
    entry.fingerprint_first_bytes = not_empty(std::mem::take(&mut entry.fingerprint_first_bytes))?;
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, want) in [
            ("", Some("")),
            ("Zg==", Some("f")),
            ("Zm8=", Some("fo")),
            ("Zm9v", Some("foo")),
            ("Zm9vYmFy", Some("foobar")),
            ("Zm9", None),
            ("Zm9*", None),
            ("=m9v", None),
            ("Z===", None),
        ] {
            assert_eq!(base64(text), want.map(|w| w.as_bytes().to_vec()), "{text}");
        }
        assert_eq!(base64("+/+/"), Some(vec![0xFB, 0xFF, 0xBF]));
    }
}
