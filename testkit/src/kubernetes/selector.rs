//! Selectors of labels and fields.

use serde_json::Value;

/// Whether an object is among those that both select.
pub(super) fn selects(labels: &str, fields: &str, object: &Value) -> bool {
    let label = |key: &str| object["metadata"]["labels"][key].as_str();
    let field = |key: &str| {
        let mut at = object;
        for part in key.split('.') {
            at = &at[part];
        }
        Some(at.as_str().unwrap_or_default())
    };
    terms(labels).all(|term| holds(term, label)) && terms(fields).all(|term| holds(term, field))
}

fn terms(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|term| !term.is_empty())
}

fn holds<'o>(term: &str, value: impl Fn(&str) -> Option<&'o str>) -> bool {
    if let Some((key, wanted)) = term.split_once("!=") {
        return value(key) != Some(wanted);
    }
    if let Some((key, wanted)) = term.split_once('=') {
        return value(key) == Some(wanted.trim_start_matches('='));
    }
    match term.strip_prefix('!') {
        Some(key) => value(key).is_none(),
        None => value(term).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn terms_are_all_to_hold() {
        let pod = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"nodeName": "n1"}});
        for (labels, fields, want) in [
            ("", "", true),
            ("app=a", "spec.nodeName=n1", true),
            ("app==a,!tier", "", true),
            ("app!=a", "", false),
            ("app", "spec.nodeName!=n1", false),
            ("tier", "", false),
            ("", "spec.nodeName=n2", false),
        ] {
            assert_eq!(selects(labels, fields, &pod), want, "{labels} {fields}");
        }
    }
}
