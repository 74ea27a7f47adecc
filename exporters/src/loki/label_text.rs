//! Label sets as text: `{a="b", c="d"}`, names in order, values quoted as Go quotes strings.

/// Appends `value` in quotes. Loki reads it with `strconv.Unquote`, so control characters are
/// escaped; everything else stays as it is.
pub(super) fn put_quoted(value: &str, out: &mut String) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                const HEX: [char; 16] = [
                    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
                ];
                let code = c as u32;
                out.push_str("\\u");
                (0..4).rev().for_each(|i| {
                    out.push(HEX[(code >> (4 * i) & 15) as usize]);
                });
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The text of a set of labels, for tests. `labels` must be in order of names.
#[cfg(test)]
fn write<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::from("{");
    for (name, value) in labels {
        if out.len() > 1 {
            out.push_str(", ");
        }
        out.push_str(name);
        out.push('=');
        put_quoted(value, &mut out);
    }
    out.push('}');
    out
}

/// Reads a label set that we or Loki wrote: names and values (escapes as they stand), in order of
/// names. `None` if it is not one.
pub(super) fn parse(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut rest = text.strip_prefix('{')?.trim_start();
    let mut pairs = Vec::new();
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start().strip_prefix('"')?;
        let end = closing_quote(after)?;
        pairs.push((name.trim(), &after[..end]));
        rest = after[end + 1..].trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    if rest != "}" {
        return None;
    }
    pairs.sort_unstable();
    Some(pairs)
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|b| {
        let quote = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        quote
    })
}

/// True if `theirs`, printed by Loki, is our stream `ours`: Loki adds `service_name` to labels that
/// lack it and `__stream_shard__` to streams that it divides.
pub(super) fn same_stream(ours: &str, theirs: &str) -> bool {
    if ours == theirs {
        return true;
    }
    let (Some(ours), Some(theirs)) = (parse(ours), parse(theirs)) else {
        return false;
    };
    let added = |name: &str| name == "__stream_shard__" || name == "service_name";
    let sent = |name: &str| ours.iter().any(|(n, _)| *n == name);
    let theirs = theirs.iter().filter(|(n, _)| !added(n) || sent(n));
    ours.iter().eq(theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_so_that_loki_can_read_them() {
        let text = write([("a", "x\"\\\n\t\r\u{1}\u{7f}\u{e9}"), ("b", "")]);
        assert_eq!(
            text,
            "{a=\"x\\\"\\\\\\n\\t\\r\\u0001\\u007f\u{e9}\", b=\"\"}"
        );
        let pairs = parse(&text).unwrap();
        assert_eq!(pairs.len(), 2);
        assert_eq!(parse("{}"), Some(vec![]));
        for bad in ["", "{", "{a=\"b\"", "{a=b}", "{a=\"b\" x", "a=\"b\"}"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn streams_are_found_in_spite_of_labels_that_loki_adds() {
        let ours = r#"{app="a", job="b=\"c\", d"}"#;
        for (theirs, want) in [
            (ours, true),
            (r#"{job="b=\"c\", d", app="a"}"#, true),
            (r#"{app="a", job="b=\"c\", d", service_name="a"}"#, true),
            (r#"{__stream_shard__="3", app="a", job="b=\"c\", d"}"#, true),
            (r#"{app="a", job="b"}"#, false),
            (r#"{app="a", job="b=\"c\", d", x="y"}"#, false),
            ("", false),
        ] {
            assert_eq!(same_stream(ours, theirs), want, "{theirs}");
        }
        assert!(!same_stream(
            r#"{service_name="a"}"#,
            r#"{service_name="b"}"#
        ));
    }
}
