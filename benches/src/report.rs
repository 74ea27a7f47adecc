//! Medians and tables.

/// The median of `values`; the mean of the middle two for an even number, NaN for none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// Prints rows under a head as a Markdown table with aligned columns.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|r| r.get(column))
            .map(|c| c.chars().count());
        cells
            .chain([head[column].chars().count(), 3])
            .max()
            .unwrap_or(3)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(i, (cell, &w))| {
                if i == 0 {
                    format!("{cell:<w$}")
                } else {
                    format!("{cell:>w$}")
                }
            });
        format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
    };
    let mut out = line(head.to_vec());
    let rule = |(i, w): (usize, &usize)| {
        if i == 0 {
            "-".repeat(*w)
        } else {
            format!("{}:", "-".repeat(w - 1))
        }
    };
    let rules: Vec<String> = widths.iter().enumerate().map(rule).collect();
    out += &line(rules.iter().map(String::as_str).collect());
    rows.iter()
        .for_each(|row| out += &line(row.iter().map(String::as_str).collect()));
    out
}

/// Bytes as MiB with one decimal.
pub fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0]), 2.5);
        assert!(median([]).is_nan());
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["floor".to_owned(), "1".to_owned()]];
        assert_eq!(
            table(&["agent", "MB/s"], &rows),
            "| agent | MB/s |\n| ----- | ---: |\n| floor |    1 |\n"
        );
    }
}
