//! Counts what is in a push request, without building anything.
//!
//! Sources: Loki's `push.proto` (`PushRequest.streams = 1`, `Stream.entries = 2`, `Entry.line = 2`)
//! and OpenTelemetry's `logs_service.proto` and `logs.proto` (`resource_logs = 1`,
//! `scope_logs = 2`, `log_records = 2`, `body = 5`, `AnyValue.string_value = 1`).

use anyhow::{Context, Result, bail};

/// Entries and the bytes of their lines.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Count {
    /// Log entries.
    pub entries: u64,
    /// Bytes of their lines.
    pub line_bytes: u64,
}

/// What is in an uncompressed Loki push request; every line is shown to `seen`.
///
/// # Errors
/// If it is not protobuf.
pub fn loki(body: &[u8], seen: &mut dyn FnMut(&[u8])) -> Result<Count> {
    let mut count = Count::default();
    down(body, &[1, 2], &mut |entry| {
        count.entries += 1;
        down(entry, &[2], &mut |line| {
            count.line_bytes += line.len() as u64;
            seen(line);
            Ok(())
        })
    })?;
    Ok(count)
}

/// What is in an uncompressed OTLP logs request; every line is shown to `seen`.
///
/// # Errors
/// If it is not protobuf.
pub fn otlp(body: &[u8], seen: &mut dyn FnMut(&[u8])) -> Result<Count> {
    let mut count = Count::default();
    down(body, &[1, 2, 2], &mut |record| {
        count.entries += 1;
        down(record, &[5, 1], &mut |line| {
            count.line_bytes += line.len() as u64;
            seen(line);
            Ok(())
        })
    })?;
    Ok(count)
}

/// Calls `found` with every message at the end of the `path` of field numbers.
fn down(
    mut message: &[u8],
    path: &[u64],
    found: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let Some((field, deeper)) = path.split_first() else {
        return found(message);
    };
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let len = match key & 7 {
            0 => {
                varint(&mut message)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?)?,
            5 => 4,
            other => bail!("wire type {other}"),
        };
        let (value, rest) = message.split_at_checked(len).context("cut short")?;
        message = rest;
        if key == field << 3 | 2 {
            down(value, deeper, found)?;
        }
    }
    Ok(())
}

fn varint(from: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first().context("cut short")?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    bail!("a number of more than 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field with bytes in it.
    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, value.len() as u8];
        out.extend_from_slice(value);
        out
    }

    #[test]
    fn entries_and_line_bytes_of_both_protocols_are_counted() {
        let entry = [field(1, &[8, 200, 1]), field(2, b"hello")].concat();
        let stream = [field(1, b"{a=\"b\"}"), field(2, &entry), field(2, &entry)].concat();
        let push = [field(1, &stream), field(1, &stream)].concat();
        let mut lines = Vec::new();
        let mut seen = |line: &[u8]| lines.push(line.to_vec());
        assert_eq!(
            loki(&push, &mut seen).expect("valid"),
            Count {
                entries: 4,
                line_bytes: 20
            }
        );

        let record = [vec![9, 0, 0, 0, 0, 0, 0, 0, 0], field(5, &field(1, b"hi"))].concat();
        let scope = [field(1, b""), field(2, &record)].concat();
        let request = field(1, &[field(1, b""), field(2, &scope)].concat());
        assert_eq!(
            otlp(&request, &mut seen).expect("valid"),
            Count {
                entries: 1,
                line_bytes: 2
            }
        );
        assert_eq!(lines.concat(), b"hellohellohellohellohi");
    }

    #[test]
    fn what_is_no_protobuf_is_an_error() {
        for body in [&[10, 5, 1][..], &[0x80], &[11], &[0xff; 12]] {
            assert!(loki(body, &mut |_| {}).is_err(), "{body:?}");
        }
    }
}
