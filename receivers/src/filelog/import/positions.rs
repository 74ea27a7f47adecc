//! Promtail's positions file: YAML, `positions:` with a map of paths to offsets as strings.

use std::path::PathBuf;

use tailwater_config::{Key, Node, NodeValue, parse_bytes};

use super::{ImportError, Imported, ImportedPosition};

/// Prefixes of keys that are no paths: the systemd journal's cursor, and cursors of other targets.
const OTHER_TARGETS: [&str; 2] = ["journal-", "cursor-"];

/// Reads a positions file. Entries that are no files (`journal-`, `cursor-`), and offsets that are
/// no numbers, are left out with a note.
///
/// # Errors
/// The text is no YAML, or does not have the map.
pub fn read_positions(text: &[u8]) -> Result<Imported<ImportedPosition>, ImportError> {
    let wrong = ImportError::NotPositions;
    let root = parse_bytes(text, "positions").map_err(|e| wrong(e.to_string()))?;
    let Some(positions) = root.get("positions") else {
        return Err(wrong("it has no key `positions`".to_owned()));
    };
    let mut imported = Imported::default();
    if positions.is_null() {
        return Ok(imported);
    }
    let Some(entries) = positions.as_map() else {
        return Err(wrong(format!(
            "`positions` is {}, not a map",
            positions.type_name()
        )));
    };
    for (key, value) in entries {
        match entry(key, value) {
            Ok(position) => imported.files.push(position),
            Err(note) => imported.notes.push(note),
        }
    }
    Ok(imported)
}

fn entry(key: &Key, value: &Node) -> Result<ImportedPosition, String> {
    let name = &key.text;
    if OTHER_TARGETS.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(format!(
            "{name:?} left out: the place in a journal or another service"
        ));
    }
    let offset = match &value.value {
        NodeValue::Str(text) => text.parse::<u64>().ok(),
        NodeValue::Int(offset) => u64::try_from(*offset).ok(),
        _ => None,
    };
    match offset {
        Some(offset) => Ok(ImportedPosition {
            path: PathBuf::from(name),
            offset,
        }),
        None => Err(format!(
            "{name:?} left out: its offset is {}",
            value.describe()
        )),
    }
}
