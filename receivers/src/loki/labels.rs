//! The text that names a stream: `{job="a", host='b'}`.
//!
//! Source: the text form of a metric in Prometheus, promql/parser; strings are those of Go.

use tailwater_golang::quote::unquote;

/// Labels in order of their names, each name once.
pub type Labels = Vec<(String, String)>;

/// Reads `text`. Where a name comes twice, the last one counts. Labels without a value, and those whose names
/// begin with two underscores, which belong to Loki, are left out.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Labels, String> {
    let mut rest = Rest(text);
    let mut labels = Labels::new();
    let problem = |what: &str, at: &Rest<'_>| {
        let place = text.len() - at.0.len();
        let shown: String = text.chars().take(200).collect();
        format!("labels {shown:?}: {what} at byte {place}")
    };
    rest.space();
    // A name in front is that of a metric.
    rest.name();
    rest.space();
    if !rest.take('{') {
        return Err(problem("expected {", &rest));
    }
    loop {
        rest.space();
        if rest.take('}') {
            break;
        }
        let quoted = matches!(rest.0.as_bytes().first(), Some(b'"' | b'\'' | b'`'));
        let name = match quoted {
            true => rest.string(),
            false => rest.name().map(str::to_owned),
        };
        let name = name.ok_or_else(|| problem("expected the name of a label", &rest))?;
        rest.space();
        if rest.take('=') {
            rest.space();
            let value = rest.string();
            let value = value.ok_or_else(|| problem("expected a quoted value", &rest))?;
            labels.push((name, value));
            rest.space();
        } else if !quoted {
            return Err(problem("expected =", &rest));
        }
        // Else it is the name of a metric.
        if !rest.take(',') {
            if rest.take('}') {
                break;
            }
            return Err(problem("expected , or }", &rest));
        }
    }
    rest.space();
    if !rest.0.is_empty() {
        return Err(problem("expected the end", &rest));
    }
    Ok(in_order(labels))
}

/// The labels as the receiver keeps them; see [`parse`].
pub fn in_order(mut labels: Labels) -> Labels {
    labels.reverse();
    labels.sort_by(|a, b| a.0.cmp(&b.0));
    labels.dedup_by(|later, first| later.0 == first.0);
    labels.retain(|(name, value)| !value.is_empty() && !name.starts_with("__"));
    labels
}

/// What is not read yet.
struct Rest<'t>(&'t str);

impl<'t> Rest<'t> {
    fn space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, wanted: char) -> bool {
        match self.0.strip_prefix(wanted) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// `[a-zA-Z_:][a-zA-Z0-9_:]*`.
    fn name(&mut self) -> Option<&'t str> {
        let part = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b':';
        let length = self.0.bytes().take_while(|b| part(*b)).count();
        let (name, rest) = self.0.split_at(length);
        let first = name.bytes().next()?;
        if first.is_ascii_digit() {
            return None;
        }
        self.0 = rest;
        Some(name)
    }

    fn string(&mut self) -> Option<String> {
        let bytes = self.0.as_bytes();
        let quote = *bytes.first()?;
        let mut at = 1;
        loop {
            match *bytes.get(at)? {
                b if b == quote => break,
                b'\\' if quote != b'`' => at += 2,
                _ => at += 1,
            }
        }
        let literal = bytes.get(..=at)?;
        let mut out = Vec::new();
        let inner = match quote {
            b'"' | b'`' => match unquote(literal, &mut out)? {
                true => literal.get(1..at)?.to_vec(),
                false => out,
            },
            b'\'' => {
                let double = in_double_quotes(literal.get(1..at)?);
                match unquote(&double, &mut out)? {
                    true => double.get(1..double.len() - 1)?.to_vec(),
                    false => out,
                }
            }
            _ => return None,
        };
        self.0 = self.0.get(at + 1..)?;
        String::from_utf8(inner).ok()
    }
}

/// What stands in single quotes as a literal of Go, which has none around more than one character.
fn in_double_quotes(inner: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => match bytes.next() {
                Some(b'\'') => out.push(b'\''),
                // No literal in single quotes has it.
                Some(b'"') => out.extend_from_slice(b"\\'"),
                Some(other) => out.extend_from_slice(&[b'\\', *other]),
                None => out.push(b'\\'),
            },
            other => out.push(*other),
        }
    }
    out.push(b'"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match parse(text) {
            Ok(labels) => {
                let labels = labels.iter().map(|(n, v)| format!("{n}={v:?}"));
                labels.collect::<Vec<_>>().join(" ")
            }
            Err(problem) => problem,
        }
    }

    #[test]
    fn labels_of_streams() {
        for (text, expect) in [
            ("{}", ""),
            (" { } ", ""),
            (r#"{a="b"}"#, r#"a="b""#),
            (r#"{b="2", a="1",}"#, r#"a="1" b="2""#),
            (r#"metric{a="1"}"#, r#"a="1""#),
            ("{a=`x\\y`}", r#"a="x\\y""#),
            (r#"{a="x\"\\\n\u00e4\x41"}"#, r#"a="x\"\\\näA""#),
            (r#"{a='it\'s "q" \\ '}"#, r#"a="it's \"q\" \\ ""#),
            (r#"{a="1", a="2"}"#, r#"a="2""#),
            (r#"{a="", b="1"}"#, r#"b="1""#),
            (r#"{__a__="1", _b="2"}"#, r#"_b="2""#),
            (r#"{"a.b"="1", "name"}"#, r#"a.b="1""#),
            (r#"{a="}, {"}"#, r#"a="}, {""#),
        ] {
            assert_eq!(read(text), expect, "{text}");
        }
    }

    #[test]
    fn texts_that_name_no_stream() {
        for (text, part) in [
            ("", "expected { at byte 0"),
            ("{", "the name of a label at byte 1"),
            ("{a}", "expected = at byte 2"),
            ("{a=}", "a quoted value at byte 3"),
            (r#"{a="x}"#, "a quoted value at byte 3"),
            (r#"{a="x"#, "a quoted value at byte 3"),
            ("{a=\"x\ny\"}", "a quoted value"),
            (r#"{a="x\q"}"#, "a quoted value"),
            (r#"{a='x\"'}"#, "a quoted value"),
            (r#"{a="x" b="y"}"#, "expected , or } at byte 7"),
            (r#"{a-b="x"}"#, "expected = at byte 2"),
            (r#"{1="x"}"#, "the name of a label"),
            (r#"{a="x"} b"#, "expected the end at byte 8"),
            (r#"{a=~"x"}"#, "a quoted value at byte 3"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }
}
