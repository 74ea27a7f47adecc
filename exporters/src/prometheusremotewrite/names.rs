//! Names of metrics and labels, as OpenTelemetry's rules for Prometheus have them.
//!
//! From the compatibility specification of OpenTelemetry and from the names that the collector's
//! exporter gives (contrib v0.155), since dashboards hold those names.

use std::borrow::Cow;

/// What decides about the suffixes of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameKind {
    /// A gauge: a unit of `1` makes it a ratio.
    Gauge,
    /// A sum that never falls: `total`.
    Counter,
    /// Everything else.
    Other,
}

/// How names are made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Naming {
    /// What Prometheus did not allow before version 3 becomes `_`.
    pub escape: bool,
    /// Names end with their unit and kind.
    pub suffixes: bool,
    /// Stands in front of all names, with `_`; empty = nothing.
    pub namespace: String,
}

impl Default for Naming {
    fn default() -> Naming {
        Naming {
            escape: true,
            suffixes: true,
            namespace: String::new(),
        }
    }
}

impl Naming {
    /// The name of a metric; empty if nothing can be made of it.
    pub fn metric(&self, name: &str, unit: &str, kind: NameKind) -> String {
        let made = match (self.escape, self.suffixes) {
            (true, true) => self.escaped_with_suffixes(name, unit, kind),
            (true, false) => self.escaped(name),
            (false, _) => self.unescaped(name, unit, kind),
        };
        if made.bytes().all(|b| b == b'_') && made != name {
            return String::new();
        }
        made
    }

    /// The name of a metric that is not made of one that came.
    pub(super) fn own(&self, name: &str) -> String {
        match self.prefix() {
            Some(prefix) => format!("{prefix}_{name}"),
            None => name.into(),
        }
    }

    /// The namespace as it stands in names.
    fn prefix(&self) -> Option<Cow<'_, str>> {
        if self.namespace.is_empty() {
            return None;
        }
        Some(match self.escape {
            true => Cow::Owned(joined(&self.namespace, is_metric_char)),
            false => Cow::Borrowed(&self.namespace),
        })
    }

    /// Words of letters, digits and colons, joined by single underscores.
    fn escaped_with_suffixes(&self, name: &str, unit: &str, kind: NameKind) -> String {
        let mut words: Vec<&str> = words(name, is_word_char).collect();
        let (main, per) = units(unit);
        let (main, per) = (
            joined(main, is_word_char),
            per.map(|per| joined(per, is_word_char)).unwrap_or_default(),
        );
        if !main.is_empty() && !words.contains(&&*main) {
            words.push(&main);
        }
        if !per.is_empty() && !words.contains(&&*per) {
            words.extend(["per", &per]);
        }
        if let Some(suffix) = kind_suffix(unit, kind) {
            words.retain(|word| *word != suffix);
            words.push(suffix);
        }
        let prefix = self.prefix();
        if let Some(prefix) = &prefix {
            words.insert(0, prefix);
        }
        not_a_digit_first(words.join("_"), "_")
    }

    fn escaped(&self, name: &str) -> String {
        let name = joined(name, is_metric_char);
        match self.prefix() {
            Some(prefix) => format!("{prefix}_{name}"),
            None => not_a_digit_first(name, "_"),
        }
    }

    /// The name as it is, with suffixes if they are wanted and not at its end.
    fn unescaped(&self, name: &str, unit: &str, kind: NameKind) -> String {
        let mut name = self.own(name);
        if !self.suffixes {
            return name;
        }
        let suffix = kind_suffix(unit, kind);
        if let Some(suffix) = suffix {
            cut(&mut name, suffix);
        }
        let (main, per) = units(unit);
        let per = per.map(|per| format!("per_{per}"));
        if let Some(per) = &per {
            cut(&mut name, per);
        }
        if !main.is_empty() && !name.ends_with(main) {
            name = format!("{name}_{main}");
        }
        for end in per.as_deref().into_iter().chain(suffix) {
            name = format!("{name}_{end}");
        }
        name
    }

    /// The unit in words, for metadata.
    pub(super) fn unit(&self, unit: &str) -> String {
        let (main, per) = units(unit);
        let text = match (main, per) {
            (main, None) => main.to_owned(),
            ("", Some(per)) => format!("per_{per}"),
            (main, Some(per)) => format!("{main}_per_{per}"),
        };
        match self.escape {
            true => joined(&text, is_word_char),
            false => text,
        }
    }

    /// The name of a label.
    pub(super) fn label<'a>(&self, key: &'a str) -> Cow<'a, str> {
        match self.escape {
            true => label(key),
            false => Cow::Borrowed(key),
        }
    }
}

/// A name of a label that any Prometheus takes. Names with `__` in front are kept, as they are
/// meant for Prometheus itself.
pub(super) fn label(key: &str) -> Cow<'_, str> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let blank = |c: char| c == '_' || !valid(c);
    let mut chars = key.chars();
    let prefix = match (chars.next(), chars.next()) {
        (Some(first), _) if first.is_ascii_digit() => "key_",
        (Some(first), second) if blank(first) && !second.is_some_and(blank) => "key",
        _ => "",
    };
    if prefix.is_empty() && key.chars().all(valid) {
        return Cow::Borrowed(key);
    }
    let clean = |c: char| if valid(c) { c } else { '_' };
    Cow::Owned(prefix.chars().chain(key.chars().map(clean)).collect())
}

fn kind_suffix(unit: &str, kind: NameKind) -> Option<&'static str> {
    match kind {
        NameKind::Counter => Some("total"),
        NameKind::Gauge if unit == "1" => Some("ratio"),
        NameKind::Gauge | NameKind::Other => None,
    }
}

fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

fn is_metric_char(c: char) -> bool {
    is_word_char(c) || c == '_'
}

fn words(text: &str, part: fn(char) -> bool) -> impl Iterator<Item = &str> {
    text.split(move |c| !part(c))
        .filter(|word| !word.is_empty())
}

fn joined(text: &str, part: fn(char) -> bool) -> String {
    words(text, part).collect::<Vec<_>>().join("_")
}

fn not_a_digit_first(name: String, prefix: &str) -> String {
    match name.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("{prefix}{name}"),
        false => name,
    }
}

/// Cuts `suffix` and the character in front of it off the end.
fn cut(name: &mut String, suffix: &str) {
    if let Some(rest) = name.strip_suffix(suffix)
        && let Some((at, _)) = rest.char_indices().next_back()
        && at > 0
    {
        name.truncate(at);
    }
}

/// The words for a unit of UCUM and for what stands behind its `/`; units in braces are no units.
fn units(unit: &str) -> (&str, Option<&str>) {
    let (main, per) = match unit.split_once('/') {
        Some((main, per)) => (main.trim(), per.trim()),
        None => (unit.trim(), ""),
    };
    let real = |text: &str| !text.is_empty() && !text.contains(['{', '}']);
    let main = if real(main) { main_unit(main) } else { "" };
    (main, real(per).then(|| per_unit(per)))
}

/// The names that the collector gives, misspellings included: changing one would rename metrics.
fn main_unit(unit: &str) -> &str {
    match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "1" => "",
        "%" => "percent",
        other => other,
    }
}

fn per_unit(unit: &str) -> &str {
    match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use NameKind::{Counter, Gauge, Other};

    fn naming(escape: bool, suffixes: bool, namespace: &str) -> Naming {
        Naming {
            escape,
            suffixes,
            namespace: namespace.into(),
        }
    }

    #[test]
    fn names_have_words_units_and_kinds() {
        for (name, unit, kind, want) in [
            // Words are split at all that is neither letter nor digit, and joined by one underscore.
            (
                "http.server.duration",
                "s",
                Other,
                "http_server_duration_seconds",
            ),
            ("__a--b..c__", "", Other, "a_b_c"),
            ("a:b", "", Other, "a:b"),
            ("größe", "By", Gauge, "gr_e_bytes"),
            // Units.
            ("size", "By", Gauge, "size_bytes"),
            ("io", "KiBy", Counter, "io_kibibytes_total"),
            ("t", "Cel", Gauge, "t_celsius"),
            ("used", "%", Gauge, "used_percent"),
            ("speed", "m/s", Gauge, "speed_meters_per_second"),
            ("speed", " m / m ", Gauge, "speed_meters_per_minute"),
            ("rate", "By/d", Gauge, "rate_bytes_per_day"),
            ("rate", "1/s", Gauge, "rate_per_second"),
            ("rate", "{req}/s", Gauge, "rate_per_second"),
            ("rate", "By/{req}", Gauge, "rate_bytes"),
            ("rate", "By/", Gauge, "rate_bytes"),
            ("n", "{items}", Gauge, "n"),
            ("n", "packets", Counter, "n_packets_total"),
            ("n", "foo bar/baz", Gauge, "n_foo_bar_per_baz"),
            ("n", "°F", Gauge, "n_F"),
            // What is there already is not added.
            ("disk.bytes.used", "By", Gauge, "disk_bytes_used"),
            ("reads.per.second", "1/s", Other, "reads_per_second"),
            // Kinds. What is there already moves to the end.
            ("requests", "", Counter, "requests_total"),
            ("requests", "1", Counter, "requests_total"),
            ("total.requests", "s", Counter, "requests_seconds_total"),
            ("requests", "", Other, "requests"),
            ("usage", "1", Gauge, "usage_ratio"),
            ("ratio.usage", "1", Gauge, "usage_ratio"),
            ("usage", "1", Other, "usage"),
            // The first character is not a digit.
            ("2xx.responses", "", Counter, "_2xx_responses_total"),
            // Nothing is left.
            ("", "", Gauge, ""),
            ("???", "", Gauge, ""),
        ] {
            let got = naming(true, true, "").metric(name, unit, kind);
            assert_eq!(got, want, "{name} {unit} {kind:?}");
        }
    }

    #[test]
    fn the_namespace_stands_in_front() {
        let n = naming(true, true, "app");
        assert_eq!(n.metric("2xx", "s", Counter), "app_2xx_seconds_total");
        assert_eq!(n.own("target_info"), "app_target_info");
        let odd = naming(true, true, "2 my-app");
        assert_eq!(odd.metric("x", "", Gauge), "_2_my_app_x");
        assert_eq!(
            naming(true, false, "my-app").metric("x", "", Gauge),
            "my_app_x"
        );
        assert_eq!(
            naming(false, false, "my-app").metric("x", "", Gauge),
            "my-app_x"
        );
    }

    #[test]
    fn without_suffixes_names_are_only_made_valid() {
        for (name, want) in [
            ("http.server.duration", "http_server_duration"),
            ("__a--b__", "__a_b__"),
            ("a:b", "a:b"),
            (".a.", "a"),
            ("2xx", "_2xx"),
            ("_", "_"),
            ("?", ""),
        ] {
            let got = naming(true, false, "").metric(name, "s", Counter);
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn names_that_are_not_escaped_keep_their_characters() {
        for (name, unit, kind, want) in [
            (
                "http.server.duration",
                "s",
                Other,
                "http.server.duration_seconds",
            ),
            ("a.seconds", "s", Other, "a.seconds"),
            ("größe", "By", Gauge, "größe_bytes"),
            ("a.total", "s", Counter, "a_seconds_total"),
            ("a", "1", Gauge, "a_ratio"),
            ("a.ratio", "1", Gauge, "a_ratio"),
            ("speed", "m/s", Counter, "speed_meters_per_second_total"),
            ("speed.per_second", "m/s", Gauge, "speed_meters_per_second"),
            ("total", "", Counter, "total_total"),
        ] {
            let got = naming(false, true, "").metric(name, unit, kind);
            assert_eq!(got, want, "{name} {unit} {kind:?}");
        }
        assert_eq!(naming(false, false, "").metric("a.b", "s", Counter), "a.b");
    }

    #[test]
    fn labels_are_made_valid() {
        let n = naming(true, true, "");
        for (key, want) in [
            ("http.method", "http_method"),
            ("k8s.pod/name", "k8s_pod_name"),
            ("a..b", "a__b"),
            ("ok_1", "ok_1"),
            ("1st", "key_1st"),
            ("_private", "key_private"),
            (".a", "key_a"),
            ("__reserved__", "__reserved__"),
            ("..a", "__a"),
            ("_", "key_"),
            ("é", "key_"),
            ("", ""),
        ] {
            assert_eq!(n.label(key), want, "{key}");
        }
        assert_eq!(naming(false, true, "").label("a.b"), "a.b");
    }

    #[test]
    fn units_in_metadata_are_words() {
        let n = naming(true, true, "");
        for (unit, want) in [
            ("s", "seconds"),
            ("By/s", "bytes_per_second"),
            ("1/s", "per_second"),
            ("1", ""),
            ("{x}", ""),
        ] {
            assert_eq!(n.unit(unit), want, "{unit}");
        }
    }
}
