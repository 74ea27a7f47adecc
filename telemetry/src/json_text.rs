//! Text for people and for JSON: nothing that a terminal or a parser could take for a command.

/// Appends `text` with every character escaped that could end a string, a line, or steer a
/// terminal: quotes and backslash when `quoted`, control characters of both sets, line and
/// paragraph separators, and the marks that change the direction of writing.
pub(crate) fn push_escaped(out: &mut String, text: &str, quoted: bool) {
    for c in text.chars() {
        match c {
            '"' | '\\' if quoted => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
}

/// Appends `text` as a JSON string.
pub(crate) fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text, true);
    out.push('"');
}

/// `text` as a JSON string.
pub(crate) fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_json_string(&mut out, text);
    out
}

/// A double as JSON; what JSON cannot say becomes text.
pub(crate) fn json_f64(value: f64) -> String {
    if value.is_finite() {
        value.to_string()
    } else {
        format!("\"{value}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_strings_survive_a_parser() {
        let nasty = "a\"b\\c\n\t\u{1b}[31m\u{7f}\u{9b}\u{2028}\u{202e}\u{e9}\u{1f600}";
        let parsed: String = serde_json::from_str(&json_string(nasty)).unwrap();
        assert_eq!(parsed, nasty);
    }

    #[test]
    fn nothing_is_left_that_steers_a_terminal() {
        let mut out = String::new();
        push_escaped(&mut out, "\u{1b}[2J\u{9b}x\r\n\u{202e}", false);
        assert_eq!(out, "\\u001b[2J\\u009bx\\r\\n\\u202e");
    }
}
