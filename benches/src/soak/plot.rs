//! A plot of a run as SVG: panels above each other on one axis of time.
//!
//! Colours follow the reader's choice of light or dark.

use std::fmt::Write as _;

use super::trend::Trend;

const WIDTH: f64 = 880.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 54.0;
const PANEL: f64 = 96.0;
const GAP: f64 = 38.0;
const BOTTOM: f64 = 40.0;

/// Points per panel; more would be less than a pixel each.
const BUCKETS: usize = 780;

const STYLE: &str = "<style>\
svg{--ink:#1f2328;--soft:#59636e;--grid:#d1d9e0;--line:#0b6bcb;--trend:#b35900;--paper:#ffffff}\
@media(prefers-color-scheme:dark){svg{--ink:#e6edf3;--soft:#9198a1;--grid:#3d444d;\
--line:#58a6ff;--trend:#f0a05a;--paper:#0d1117}}\
text{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:var(--soft)}\
.title{font-size:15px;font-weight:600;fill:var(--ink)}.name{font-weight:600;fill:var(--ink)}\
.paper{fill:var(--paper)}.grid{stroke:var(--grid);stroke-width:1}\
.line{fill:none;stroke:var(--line);stroke-width:1.3;stroke-linejoin:round}\
.range{fill:var(--line);opacity:.22}\
.trend{stroke:var(--trend);stroke-width:1.6;stroke-dasharray:6 4}.note{fill:var(--trend)}\
</style>";

/// One figure over time.
#[derive(Debug, Clone)]
pub struct Panel {
    /// What it is, with its unit.
    pub name: String,
    /// Seconds since the start, and the value.
    pub points: Vec<(f64, f64)>,
    /// A line through the points from this second on, and what to say of it.
    pub trend: Option<(f64, Trend, String)>,
}

/// The plot of `panels` under a title and a line of text.
pub fn svg(title: &str, text: &str, panels: &[Panel]) -> String {
    let end = panels.iter().flat_map(|p| &p.points).map(|p| p.0);
    let axis = Axis::new(end.fold(1.0, f64::max) / 60.0);
    let height = TOP + panels.len() as f64 * (PANEL + GAP) - GAP + BOTTOM;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\">\n<title>{}</title>\n{STYLE}\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n",
        escaped(title)
    );
    label(&mut out, "title", LEFT, 22.0, "start", title);
    label(&mut out, "", LEFT, 40.0, "start", text);
    for (i, panel) in panels.iter().enumerate() {
        let top = TOP + i as f64 * (PANEL + GAP) + 16.0;
        draw(&mut out, panel, top, PANEL - 16.0, &axis);
    }
    let foot = height - BOTTOM + 18.0;
    for minutes in axis.ticks() {
        let x = axis.x(minutes * 60.0);
        label(&mut out, "", x, foot, "middle", &number(minutes));
    }
    let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
    label(&mut out, "", middle, foot + 16.0, "middle", "minutes");
    out.push_str("</svg>\n");
    out
}

/// The axis of time.
struct Axis {
    minutes: f64,
    step: f64,
}

impl Axis {
    fn new(minutes: f64) -> Axis {
        Axis {
            minutes,
            step: nice_step(minutes / 6.0),
        }
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * seconds / 60.0 / self.minutes
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let step = self.step;
        (0..=(self.minutes / step + 1e-9) as u32).map(move |i| f64::from(i) * step)
    }
}

fn draw(out: &mut String, panel: &Panel, top: f64, height: f64, axis: &Axis) {
    label(out, "name", LEFT, top - 6.0, "start", &panel.name);
    let most = panel.points.iter().map(|p| p.1).fold(0.0, f64::max);
    let step = nice_step((most * 1.05).max(1e-9) / 3.0);
    let steps = (most * 1.05 / step).ceil().max(1.0);
    let y = |value: f64| top + height * (1.0 - value / (steps * step));
    for i in 0..=steps as u32 {
        let value = f64::from(i) * step;
        let (y, right) = (y(value), WIDTH - RIGHT);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>"
        );
        label(out, "", LEFT - 8.0, y + 4.0, "end", &number(value));
    }
    let buckets = buckets(&panel.points);
    let path = |points: &[(f64, f64)]| {
        let mut text = String::new();
        for (i, (x, value)) in points.iter().enumerate() {
            let sign = if i == 0 { "M" } else { "L" };
            let _ = write!(text, "{sign}{:.1} {:.1}", axis.x(*x), y(*value));
        }
        text
    };
    let there = buckets.iter().map(|b| (b.seconds, b.most));
    let back = buckets.iter().rev().map(|b| (b.seconds, b.least));
    let range: Vec<_> = there.chain(back).collect();
    let mean: Vec<_> = buckets.iter().map(|b| (b.seconds, b.mean)).collect();
    let _ = writeln!(out, "<path class=\"range\" d=\"{}Z\"/>", path(&range));
    let _ = writeln!(out, "<path class=\"line\" d=\"{}\"/>", path(&mean));
    if let Some((from, trend, note)) = &panel.trend {
        let to = panel.points.last().map_or(*from, |p| p.0);
        let _ = writeln!(
            out,
            "<line class=\"trend\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            axis.x(*from),
            y(trend.first),
            axis.x(to),
            y(trend.last)
        );
        label(out, "note", WIDTH - RIGHT, top - 6.0, "end", note);
    }
}

/// Neighbouring points as one.
struct Bucket {
    seconds: f64,
    least: f64,
    mean: f64,
    most: f64,
}

fn buckets(points: &[(f64, f64)]) -> Vec<Bucket> {
    let size = points.len().div_ceil(BUCKETS).max(1);
    let bucket = |points: &[(f64, f64)]| Bucket {
        seconds: points.iter().map(|p| p.0).sum::<f64>() / points.len() as f64,
        least: points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min),
        mean: points.iter().map(|p| p.1).sum::<f64>() / points.len() as f64,
        most: points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max),
    };
    points.chunks(size).map(bucket).collect()
}

/// The least of 1, 2 and 5 times a power of ten that is not below `value`.
fn nice_step(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|of| of * power);
    let fits = steps.into_iter().find(|step| *step >= value * 0.999_999);
    fits.unwrap_or(10.0 * power)
}

/// Without needless zeros.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

fn label(out: &mut String, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escaped(text)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::trend::fit;

    #[test]
    fn steps_are_round_and_not_too_small() {
        let steps = [
            (0.9, 1.0),
            (1.0, 1.0),
            (1.1, 2.0),
            (3.0, 5.0),
            (70.0, 100.0),
            (0.03, 0.05),
        ];
        for (value, step) in steps {
            assert!(
                (nice_step(value) - step).abs() < 1e-9,
                "{value}: {}",
                nice_step(value)
            );
        }
    }

    #[test]
    fn long_runs_are_thinned_and_keep_their_peaks() {
        let mut points: Vec<(f64, f64)> = (0..3600).map(|t| (f64::from(t), 1.0)).collect();
        points[1234].1 = 50.0;
        let buckets = buckets(&points);
        assert!(buckets.len() <= BUCKETS);
        assert_eq!(buckets.iter().map(|b| b.most).fold(0.0, f64::max), 50.0);
    }

    #[test]
    fn a_plot_stays_inside_its_frame_and_is_well_formed() {
        let points: Vec<(f64, f64)> = (0..600).map(|t| (f64::from(t), f64::from(t % 7))).collect();
        let trend = fit(&points).map(|t| (0.0, t, "a < b".to_owned()));
        let panel = Panel {
            name: "x & y".into(),
            points,
            trend,
        };
        let svg = svg("title", "text", &[panel]);
        assert!(svg.contains("x &amp; y") && svg.contains("a &lt; b"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        let height = TOP + PANEL + BOTTOM;
        for pair in svg
            .split(['M', 'L'])
            .skip(1)
            .filter_map(|p| p.split_once(' '))
        {
            let y = pair
                .1
                .split(|c: char| c != '.' && !c.is_ascii_digit())
                .next();
            let y: Option<f64> = y.and_then(|y| y.parse().ok());
            assert!(y.is_none_or(|y| (0.0..=height).contains(&y)), "{pair:?}");
        }
    }
}
