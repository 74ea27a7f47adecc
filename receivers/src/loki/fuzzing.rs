//! What the receiver must do with any push. The body of a fuzz target: it panics where that does not hold.

use bytes::Bytes;

use super::entries::{Problem, Push};
use super::labels::{in_order, parse};
use super::{json, wire};

/// Bytes that columns may take for each byte that came, and besides.
const GROWTH_MAX: usize = 200;
const FREE_BYTES: usize = 64 << 10;

/// A push in the form that its first byte chooses: what is read of it is in proportion to it, and holds
/// together; text that names a stream is read the same again.
pub fn pushes(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else {
        return;
    };
    let body = Bytes::copy_from_slice(body);
    let mut asked = 0;
    let mut room = |bytes: usize| {
        asked += bytes;
        true
    };
    let mut push = Push::new(choice & 2 != 0, 7, &mut room);
    let read = match choice & 1 {
        0 => wire::read(&body, &mut push),
        _ => json::read(&body, &mut push),
    };
    let batches = push.batches;
    assert_ne!(read, Err(Problem::NoRoom), "there was room");
    assert!(
        asked <= body.len() * GROWTH_MAX + FREE_BYTES,
        "{asked} bytes of {}",
        body.len()
    );
    for batch in &batches {
        assert!(!batch.is_empty());
        let mut names = std::collections::HashSet::new();
        for (name, _) in batch.attributes.iter() {
            assert!(names.insert(name.clone()), "{name} twice");
        }
        for row in 0..batch.rows() {
            assert!(batch.time.get(row) >= 0);
            let line = batch
                .body(row)
                .and_then(|b| b.as_text().map(<[u8]>::to_vec));
            assert!(std::str::from_utf8(&line.expect("a line")).is_ok());
            for (name, column) in batch.attributes.iter() {
                let value = batch.value(column, row).and_then(|value| value.as_text());
                let is_text = value.is_none_or(|text| std::str::from_utf8(text).is_ok());
                assert!(is_text, "{name} of {row}");
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(&body)
        && let Ok(labels) = parse(text)
    {
        let quoted = labels.iter().map(|(n, v)| format!("{n:?}={v:?}"));
        let quoted = format!("{{{}}}", quoted.collect::<Vec<_>>().join(", "));
        // Rust writes other escapes than Go reads for some characters.
        if !quoted.contains("\\u{") && !quoted.contains("\\0") {
            assert_eq!(parse(&quoted), Ok(in_order(labels)), "{quoted}");
        }
    }
}
