//! Numbers that a person takes in at a glance.

/// A number of things: `7`, `0.5`, `12.3k`, `4.0M`.
pub fn count(n: f64) -> String {
    scaled(n, 1000.0, &["", "k", "M", "G", "T"])
}

/// Bytes: `812 B`, `1.5 KiB`.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

fn scaled(mut n: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // What would be rounded up to a step is one.
    while n >= step - 0.5 && unit + 1 < units.len() {
        n /= step;
        unit += 1;
    }
    let digits = usize::from((unit > 0 || n.fract() != 0.0) && n < 99.95);
    format!("{n:.digits$}{}", units[unit])
}

/// Seconds: `0.3s`, `59s`, `2m05s`, `3h07m`, `4d01h`.
pub fn span(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        _ if seconds == 0.0 => "0s".to_owned(),
        0..10 => format!("{seconds:.1}s"),
        10..60 => format!("{whole}s"),
        60..3_600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h{:02}m", whole / 3_600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_or_four() {
        for (n, want) in [
            (0.0, "0"),
            (0.25, "0.2"),
            (7.0, "7"),
            (999.0, "999"),
            (999.6, "1.0k"),
            (1_000.0, "1.0k"),
            (12_345.0, "12.3k"),
            (123_456.0, "123k"),
            (2e15, "2000T"),
        ] {
            assert_eq!(count(n), want, "{n}");
        }
        for (n, want) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
        ] {
            assert_eq!(bytes(n), want, "{n}");
        }
        for (n, want) in [
            (0.0, "0s"),
            (0.34, "0.3s"),
            (59.9, "59s"),
            (125.0, "2m05s"),
            (11_220.0, "3h07m"),
            (349_200.0, "4d01h"),
        ] {
            assert_eq!(span(n), want, "{n}");
        }
    }
}
