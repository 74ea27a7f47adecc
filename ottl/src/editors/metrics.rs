//! Editors of metrics as a whole. What they do with one is the scene's to know.

use crate::ast::{At, Call};
use crate::compile::{Bound, Compiler};
use crate::error::{Fault, Mistake};
use crate::expr::Expr;
use crate::field::{Context, Kind, listed};
use crate::functions::{Arg, Param, Takes, opt, p};
use crate::scene::{Cx, SceneMut};
use crate::value::Val;

/// What an editor does with a metric.
#[derive(Clone, PartialEq, Debug)]
pub enum MetricEdit {
    /// A gauge becomes a sum.
    GaugeToSum {
        /// Of the sum.
        delta: bool,
        /// Of the sum.
        monotonic: bool,
    },
    /// A sum becomes a gauge.
    SumToGauge,
    /// A metric like it is added.
    Copy,
    /// The sums of a histogram or summary are added as a metric.
    ExtractSum {
        /// Of the sum.
        monotonic: bool,
        /// Behind the name.
        suffix: Box<str>,
    },
    /// The counts of a histogram or summary are added as a metric.
    ExtractCount {
        /// Of the sum.
        monotonic: bool,
        /// Behind the name.
        suffix: Box<str>,
    },
    /// The averages of a histogram or summary are added as a metric.
    ExtractAverage {
        /// Of the sum.
        monotonic: bool,
        /// Behind the name.
        suffix: Box<str>,
    },
    /// A percentile of a histogram is added as a gauge; anything else is left alone.
    ExtractPercentile {
        /// From 0 to 100.
        percentile: f64,
        /// Behind the name.
        suffix: Box<str>,
    },
    /// The sums or counts of a summary are added as a metric; anything else is left alone.
    SummaryTo {
        /// Counts instead of sums.
        counts: bool,
        /// Of the sum.
        delta: bool,
        /// Of the sum.
        monotonic: bool,
        /// Behind the name.
        suffix: Box<str>,
    },
    /// The quantiles of a summary are added as a gauge.
    QuantilesToGauge {
        /// The attribute that says which quantile it is.
        key: Box<str>,
        /// Behind the name.
        suffix: Box<str>,
    },
    /// Values are multiplied.
    Scale {
        /// By this.
        factor: f64,
    },
    /// Points with equal attributes become one, after attributes were left out.
    Aggregate {
        /// The name of the function.
        function: Box<str>,
        /// The attributes that stay; without a list all of them.
        attributes: Option<Box<[Box<str>]>>,
    },
    /// Points with equal attributes become one, after values of an attribute became another one.
    AggregateValues {
        /// The name of the function.
        function: Box<str>,
        /// The attribute.
        attribute: Box<str>,
        /// The values that become another one.
        values: Box<[Box<str>]>,
        /// What they become.
        value: Box<str>,
    },
    /// Of a histogram's point, the bucket that ends at a bound becomes part of the next one.
    MergeBuckets {
        /// The bound.
        bound: f64,
    },
    /// Of a histogram's point, neighbouring buckets are put together until there are so many at most.
    LimitBuckets {
        /// At least 1.
        most: usize,
    },
}

/// Texts that a metric gets, where they are given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetricTexts {
    /// Its name.
    pub name: Option<Vec<u8>>,
    /// What it is, for people.
    pub description: Option<Vec<u8>>,
    /// Its unit.
    pub unit: Option<Vec<u8>>,
}

/// An editor of metrics, ready to be carried out.
#[derive(Clone, Debug)]
pub(crate) struct MetricEditor {
    edit: MetricEdit,
    /// Name, description and unit.
    texts: [Option<Expr>; 3],
}

/// An editor, what it takes, and the contexts it can stand in.
type Row = (&'static str, &'static [Param], &'static [Context]);

const TEXT: Takes = Takes::Value(Kind::Text);
const TEMPORALITY: Takes = Takes::OneOf(&["delta", "cumulative"]);
const FUNCTION: Takes = Takes::OneOf(&["sum", "max", "min", "mean", "median", "count"]);
const METRIC: &[Context] = &[Context::Metric];
const POINT: &[Context] = &[Context::DataPoint];
const BOTH: &[Context] = &[Context::DataPoint, Context::Metric];

const SUMMARY: &[Param] = &[
    p("aggregation_temporality", TEMPORALITY),
    p("is_monotonic", Takes::Bool),
    opt("suffix", Takes::Text),
];
const EXTRACT: &[Param] = &[p("is_monotonic", Takes::Bool), opt("suffix", Takes::Text)];

const EDITORS: [Row; 13] = [
    (
        "aggregate_on_attribute_value",
        &[
            p("aggregation_function", FUNCTION),
            p("attribute", Takes::Text),
            p("values", Takes::Texts),
            p("new_value", Takes::Text),
        ],
        METRIC,
    ),
    (
        "aggregate_on_attributes",
        &[
            p("aggregation_function", FUNCTION),
            opt("attributes", Takes::Texts),
        ],
        METRIC,
    ),
    (
        "convert_gauge_to_sum",
        &[
            p("aggregation_temporality", TEMPORALITY),
            p("is_monotonic", Takes::Bool),
        ],
        METRIC,
    ),
    ("convert_sum_to_gauge", &[], METRIC),
    ("convert_summary_count_val_to_sum", SUMMARY, BOTH),
    (
        "convert_summary_quantile_val_to_gauge",
        &[
            opt("attribute_key", Takes::Text),
            opt("suffix", Takes::Text),
        ],
        METRIC,
    ),
    ("convert_summary_sum_val_to_sum", SUMMARY, BOTH),
    (
        "copy_metric",
        &[
            opt("name", TEXT),
            opt("description", TEXT),
            opt("unit", TEXT),
        ],
        METRIC,
    ),
    ("extract_avg_metric", EXTRACT, METRIC),
    ("extract_count_metric", EXTRACT, METRIC),
    (
        "extract_percentile_metric",
        &[p("percentile", Takes::Number), opt("suffix", Takes::Text)],
        METRIC,
    ),
    ("extract_sum_metric", EXTRACT, METRIC),
    (
        "merge_histogram_buckets",
        &[
            p("bound", Takes::Number),
            opt(
                "method",
                Takes::OneOf(&["remove_explicit_bound", "limit_buckets"]),
            ),
        ],
        POINT,
    ),
];

/// Apart from the others: what it takes is their longest line.
const SCALE: Row = (
    "scale_metric",
    &[p("multiplier", Takes::Number), opt("unit", TEXT)],
    METRIC,
);

fn rows() -> impl Iterator<Item = &'static Row> {
    EDITORS.iter().chain([&SCALE])
}

/// Names of all of them.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    rows().map(|(name, ..)| *name)
}

/// What the name of an editor of metrics says that a statement is about.
pub(crate) fn context_of(editor: &str) -> Option<Context> {
    let found = rows().find(|(name, ..)| *name == editor)?;
    found.2.last().copied()
}

/// Compiles the call if it is one of an editor of metrics.
pub(crate) fn compile(
    compiler: &Compiler,
    call: &At<Call>,
) -> Option<Result<MetricEditor, Mistake>> {
    let row = rows().find(|(name, ..)| *name == call.it.name)?;
    Some(bound(compiler, call, row))
}

fn bound(
    compiler: &Compiler,
    call: &At<Call>,
    (name, params, contexts): &Row,
) -> Result<MetricEditor, Mistake> {
    if !contexts.contains(&compiler.context) {
        let why = format!(
            "{name} is about metrics: it stands in the context {}, not in {}",
            listed(contexts.iter().map(|c| c.name())),
            compiler.context.name()
        );
        return Err(Mistake::new(call.at, why));
    }
    let args = compiler.bind(call.at, name, params, &call.it.args)?;
    let args = args.into_iter().map(|bound| match bound {
        Bound::Arg(arg) => arg,
        Bound::Target(_) => Arg::Absent,
    });
    let mut args = Args(args.collect::<Vec<_>>().into_iter());
    made(name, &mut args).map_err(|why| Mistake::new(call.at, why))
}

/// Bound arguments, one after another. The table says what each is.
struct Args(std::vec::IntoIter<Arg>);

impl Args {
    fn next(&mut self) -> Arg {
        self.0.next().unwrap_or(Arg::Absent)
    }

    fn bool(&mut self) -> bool {
        matches!(self.next(), Arg::Bool(true))
    }

    fn number(&mut self) -> f64 {
        match self.next() {
            Arg::Number(d) => d,
            _ => 0.0,
        }
    }

    fn text(&mut self, default: &str) -> Box<str> {
        match self.next() {
            Arg::Text(text) => text,
            _ => default.into(),
        }
    }

    fn texts(&mut self) -> Option<Box<[Box<str>]>> {
        match self.next() {
            Arg::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    fn delta(&mut self) -> bool {
        &*self.text("") == "delta"
    }

    fn expr(&mut self) -> Option<Expr> {
        match self.next() {
            Arg::Value(expr) => Some(expr),
            _ => None,
        }
    }
}

/// An editor of its arguments, in the order of the table.
fn made(name: &str, args: &mut Args) -> Result<MetricEditor, String> {
    let mut texts = [None, None, None];
    let edit = match name {
        "aggregate_on_attribute_value" => MetricEdit::AggregateValues {
            function: args.text(""),
            attribute: args.text(""),
            values: args.texts().unwrap_or_default(),
            value: args.text(""),
        },
        "aggregate_on_attributes" => MetricEdit::Aggregate {
            function: args.text(""),
            attributes: args.texts(),
        },
        "convert_gauge_to_sum" => MetricEdit::GaugeToSum {
            delta: args.delta(),
            monotonic: args.bool(),
        },
        "convert_sum_to_gauge" => MetricEdit::SumToGauge,
        "convert_summary_count_val_to_sum" => MetricEdit::SummaryTo {
            counts: true,
            delta: args.delta(),
            monotonic: args.bool(),
            suffix: args.text("_count"),
        },
        "convert_summary_sum_val_to_sum" => MetricEdit::SummaryTo {
            counts: false,
            delta: args.delta(),
            monotonic: args.bool(),
            suffix: args.text("_sum"),
        },
        "convert_summary_quantile_val_to_gauge" => MetricEdit::QuantilesToGauge {
            key: args.text("quantile"),
            suffix: args.text(".quantiles"),
        },
        "copy_metric" => {
            texts = [args.expr(), args.expr(), args.expr()];
            MetricEdit::Copy
        }
        "extract_count_metric" => MetricEdit::ExtractCount {
            monotonic: args.bool(),
            suffix: args.text("_count"),
        },
        "extract_avg_metric" => MetricEdit::ExtractAverage {
            monotonic: args.bool(),
            suffix: args.text("_avg"),
        },
        "extract_percentile_metric" => percentile(args)?,
        "extract_sum_metric" => MetricEdit::ExtractSum {
            monotonic: args.bool(),
            suffix: args.text("_sum"),
        },
        "merge_histogram_buckets" => merge(args)?,
        _ => {
            let factor = args.number();
            texts[2] = args.expr();
            MetricEdit::Scale { factor }
        }
    };
    Ok(MetricEditor { edit, texts })
}

fn percentile(args: &mut Args) -> Result<MetricEdit, String> {
    let percentile = args.number();
    if !(0.0..=100.0).contains(&percentile) {
        return Err(format!(
            "percentile must be between 0 and 100, got {percentile}"
        ));
    }
    Ok(MetricEdit::ExtractPercentile {
        percentile,
        suffix: args.text(&format!("_p{percentile}")),
    })
}

fn merge(args: &mut Args) -> Result<MetricEdit, String> {
    let bound = args.number();
    if &*args.text("") != "limit_buckets" {
        return Ok(MetricEdit::MergeBuckets { bound });
    }
    // More buckets than this has no point.
    let is_number = bound >= 1.0 && bound.trunc() == bound && bound <= f64::from(u32::MAX);
    match is_number {
        true => Ok(MetricEdit::LimitBuckets {
            most: bound as usize,
        }),
        false => Err(format!(
            "with the method limit_buckets there has to be a positive whole number, not {bound}"
        )),
    }
}

impl MetricEditor {
    /// Changes the metric of the scene.
    pub fn run(&self, scene: &mut dyn SceneMut, now_ns: i64) -> Result<(), Fault> {
        let text = |expr: &Option<Expr>| {
            let Some(expr) = expr else {
                return Ok(None);
            };
            let cx = Cx {
                scene: &*scene,
                now_ns,
            };
            match expr.eval(&cx)? {
                Val::Str(text) => Ok(Some(text.into_owned())),
                other => Err(Fault::Kind {
                    place: "an editor of metrics",
                    wanted: "text",
                    found: other.kind(),
                }),
            }
        };
        let [name, description, unit] = &self.texts;
        let texts = MetricTexts {
            name: text(name)?,
            description: text(description)?,
            unit: text(unit)?,
        };
        scene.edit_metric(&self.edit, texts)
    }
}
