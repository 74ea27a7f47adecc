//! What a run reached, in words.

use serde_json::Value;

/// The record for readers, as a section of docs/FAULTS.md.
pub fn section(record: &Value) -> String {
    let number = |name: &str| number(record, &[name]);
    let word = |name: &str| record[name].as_str().unwrap_or_default();
    let account = &record["account"];
    let mut out = format!(
        "## Soak\n\n\
         {} logs, {:.2} MB and {:.0} lines a second in all, each log rotated every few seconds ({} rotations: renamed,\n\
         compressed at once or later, old ones deleted{}), {} of {} requests failed on purpose.\n\
         {:.0} minutes, begun {}, commit {}: `{}`.\n\n\
         ![The run over time](faults/soak.svg)\n\n\
         | what | figure |\n|---|---|\n",
        record["files"],
        number("bytes_per_second") / 1e6,
        number("lines_per_second"),
        record["rotations"],
        match account["copytruncate"].is_null() {
            true => "",
            false => "; one log in six copied and cut",
        },
        account["requests_failed"],
        account["requests"],
        number("minutes"),
        word("begin"),
        word("commit"),
        word("command"),
    );
    for (what, figure) in figures(record) {
        out += &format!("| {what} | {figure} |\n");
    }
    out
}

fn figures(record: &Value) -> Vec<(&'static str, String)> {
    let number = |name: &str| number(record, &[name]);
    let count = |name: &str| record["account"][name].to_string();
    let mut rows = vec![
        ("lines written", count("written")),
        ("lines delivered", count("delivered")),
        ("lost", count("lost")),
        ("shown twice", count("shown_twice")),
        (
            "damaged or invented",
            count("damaged") + ", " + &count("invented"),
        ),
        ("sent again, which Loki shows once", count("sent_again")),
        ("out of order", count("out_of_order")),
        (
            "resident memory, MiB",
            format!(
                "{}; peak {:.1}",
                trend(record, "resident_mib"),
                number("resident_mib_peak")
            ),
        ),
        (
            "open descriptors",
            format!(
                "{}; {} at most",
                trend(record, "descriptors"),
                number("descriptors_most")
            ),
        ),
        (
            "threads",
            format!(
                "{}; {} at most",
                trend(record, "threads"),
                number("threads_most")
            ),
        ),
        (
            "age of the oldest line under way, seconds",
            format!(
                "median {:.1}, at most {:.1}",
                number("lag_seconds_median"),
                number("lag_seconds_most")
            ),
        ),
        (
            "bytes under way, MB",
            format!(
                "median {:.2}, at most {:.2}",
                number("lag_bytes_median") / 1e6,
                number("lag_bytes_most") / 1e6
            ),
        ),
        (
            "CPU, percent of a core",
            format!("{:.1}", number("cpu_percent_of_a_core")),
        ),
    ];
    if let Some(copied) = record["account"]["copytruncate"].as_object() {
        let told = copied.iter().map(|(name, n)| format!("{name} {n}"));
        let told: Vec<String> = told.collect();
        rows.push((
            "of these by copytruncate",
            told.join(", ").replace('_', " "),
        ));
    }
    rows
}

/// A straight line through a figure, in words.
fn trend(record: &Value, name: &str) -> String {
    let of = |field: &str| number(record, &[name, field]);
    format!(
        "{:+.2} an hour (standard error {:.2}) from minute {:.0} on, from {:.1} to {:.1}",
        of("per_hour"),
        of("error_per_hour"),
        number(record, &["trends_from_minute"]),
        of("first"),
        of("last"),
    )
}

fn number(record: &Value, path: &[&str]) -> f64 {
    let at = path.iter().fold(record, |value, name| &value[*name]);
    at.as_f64().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_told_and_what_is_missing_is_not_made_up() {
        let record = json!({
            "account": {"written": 7, "lost": 0},
            "threads": {"per_hour": 0.5, "error_per_hour": 0.25, "first": 9, "last": 9.5},
            "trends_from_minute": 10,
            "threads_most": 10,
        });
        let text = section(&record);
        assert!(text.contains("| lines written | 7 |\n"), "{text}");
        let threads =
            "+0.50 an hour (standard error 0.25) from minute 10 on, from 9.0 to 9.5; 10 at most";
        assert!(text.contains(threads), "{text}");
        assert!(text.contains("| open descriptors | NaN an hour"), "{text}");
    }
}
