//! Doubles as the collector shows them.

/// Six digits behind the point, as `%f` of Go.
pub(super) fn fixed(value: f64) -> String {
    special(value).unwrap_or_else(|| format!("{value:.6}"))
}

/// As few digits as tell it from others, with an exponent where it is very large or small, as `%v`
/// of Go: below 1e-4, and from 1e21 on.
pub(super) fn shortest(value: f64) -> String {
    if let Some(name) = special(value) {
        return name;
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..21).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// The name of what is no number of digits.
fn special(value: f64) -> Option<String> {
    let name = match value {
        v if v.is_nan() => "NaN",
        f64::INFINITY => "+Inf",
        f64::NEG_INFINITY => "-Inf",
        _ => return None,
    };
    Some(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_look_as_in_the_collector() {
        for (value, short, long) in [
            (0.0, "0", "0.000000"),
            (-0.0, "-0", "-0.000000"),
            (1.5, "1.5", "1.500000"),
            (-0.6971067811865476, "-0.6971067811865476", "-0.697107"),
            (1e-4, "0.0001", "0.000100"),
            (1.25e-5, "1.25e-05", "0.000013"),
            (
                1e20,
                "100000000000000000000",
                "100000000000000000000.000000",
            ),
            (1e21, "1e+21", "1000000000000000000000.000000"),
            (f64::NAN, "NaN", "NaN"),
            (f64::INFINITY, "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf"),
        ] {
            assert_eq!((&*shortest(value), &*fixed(value)), (short, long));
        }
    }
}
