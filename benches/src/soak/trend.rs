//! Does a figure grow? A straight line through it by least squares.

/// A straight line through points of (seconds, value).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// Value per second.
    pub slope: f64,
    /// Standard error of the slope if the points were independent of each other. Neighbours in
    /// time are not, so the true one is larger.
    pub slope_error: f64,
    /// The line's value at the first point.
    pub first: f64,
    /// The line's value at the last point.
    pub last: f64,
}

/// The line with the least squared distance to `points`; none for fewer than three points, or for
/// points of one time only.
pub fn fit(points: &[(f64, f64)]) -> Option<Trend> {
    if points.len() < 3 {
        return None;
    }
    let n = points.len() as f64;
    let mean_t = points.iter().map(|p| p.0).sum::<f64>() / n;
    let mean_v = points.iter().map(|p| p.1).sum::<f64>() / n;
    let spread: f64 = points.iter().map(|p| (p.0 - mean_t).powi(2)).sum();
    if spread <= 0.0 {
        return None;
    }
    let with = points.iter().map(|p| (p.0 - mean_t) * (p.1 - mean_v));
    let slope = with.sum::<f64>() / spread;
    let at = |t: f64| mean_v + slope * (t - mean_t);
    let rest: f64 = points.iter().map(|p| (p.1 - at(p.0)).powi(2)).sum();
    Some(Trend {
        slope,
        slope_error: (rest / (n - 2.0) / spread).sqrt(),
        first: at(points.first()?.0),
        last: at(points.last()?.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_and_noise_is_not_a_slope() {
        let line: Vec<(f64, f64)> = (0..100)
            .map(|t| (f64::from(t), 5.0 + 0.25 * f64::from(t)))
            .collect();
        let found = fit(&line).expect("a line");
        assert!((found.slope - 0.25).abs() < 1e-12 && found.slope_error < 1e-9);
        assert!((found.first - 5.0).abs() < 1e-9 && (found.last - 29.75).abs() < 1e-9);
        let noise: Vec<(f64, f64)> = (0..100)
            .map(|t| (f64::from(t), if t % 2 == 0 { 9.0 } else { 11.0 }))
            .collect();
        let found = fit(&noise).expect("a line");
        assert!(found.slope.abs() < 2.0 * found.slope_error, "{found:?}");
    }

    #[test]
    fn too_few_points_have_no_trend() {
        assert_eq!(fit(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(fit(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }
}
