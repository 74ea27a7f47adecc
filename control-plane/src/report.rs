//! What an agent tells the control plane of a fleet of its sources: all of them, whole, within limits.
//!
//! It is a snapshot, so that one that is lost is made up for by the next, and a source that is not in it any more has ended.
//! Its JSON is described in `docs/OPAMP.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Format, Origin, State};

/// The custom capability of OpAMP.
pub const CAPABILITY: &str = "io.tailwater.sources/v1";
/// The type of its message.
pub const TYPE: &str = "sources";
/// So many sources of an agent are told at most.
pub const SOURCES_MAX: usize = 1_000;
/// So many paths of a source.
pub const PATHS_MAX: usize = 4;
/// The longest id, and the longest path, bytes.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// So many labels of a source.
pub const LABELS_MAX: usize = 16;
/// The longest name and the longest value of a label, bytes.
pub const LABEL_BYTES_MAX: usize = 256;
/// The largest report, bytes.
pub const REPORT_BYTES_MAX: usize = 2 << 20;

/// A source as an agent tells it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reported {
    /// What it is called on its machine, see [`crate::model::Descriptor::id`].
    pub id: String,
    /// Who found it.
    pub kind: Origin,
    /// What is in its files.
    pub format: Format,
    /// Its files.
    pub paths: Vec<String>,
    /// Where it is in its life.
    pub state: State,
    /// Of the newest thing that was said of whether it is there, ns since the epoch.
    pub generation: i64,
    /// Since when it is in its state, ms since the epoch.
    pub since_ms: u64,
    /// Bytes that are on disk and not delivered.
    pub lag_bytes: u64,
    /// After the rule of [`crate::discovery::labels`].
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Reported {
    /// Whether it is within the limits that can be kept by nothing but leaving it out.
    fn is_fit(&self) -> bool {
        let is_text = |t: &String| {
            !t.is_empty() && t.len() <= TEXT_BYTES_MAX && !t.chars().any(char::is_control)
        };
        let fits = |(k, v): (&String, &String)| {
            !k.is_empty() && k.len() <= LABEL_BYTES_MAX && v.len() <= LABEL_BYTES_MAX
        };
        is_text(&self.id)
            && self.paths.len() <= PATHS_MAX
            && self.paths.iter().all(is_text)
            && self.labels.len() <= LABELS_MAX
            && self.labels.iter().all(fits)
            && self.generation > 0
    }
}

/// See the module's documentation.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// In the order of their ids, each once.
    pub sources: Vec<Reported>,
    /// So many more there are, for which there is no room here.
    #[serde(default)]
    pub left_out: u64,
}

impl Report {
    /// Of these sources, and of `left_out` that are not among them: as many as there is room for.
    pub fn of(sources: impl IntoIterator<Item = Reported>, left_out: u64) -> Report {
        let mut all = BTreeMap::new();
        let mut report = Report {
            sources: Vec::new(),
            left_out,
        };
        for mut source in sources {
            source.paths.truncate(PATHS_MAX);
            match source.is_fit() {
                true => drop(all.insert(source.id.clone(), source)),
                false => report.left_out += 1,
            }
        }
        report.left_out += all.len().saturating_sub(SOURCES_MAX) as u64;
        report.sources = all.into_values().take(SOURCES_MAX).collect();
        report
    }

    /// As somebody sent it: what is none of what it may be is counted as left out.
    ///
    /// # Errors
    /// It is no report; for people.
    pub fn read(bytes: &[u8]) -> Result<Report, String> {
        #[derive(Deserialize)]
        struct Raw {
            sources: Vec<serde_json::Value>,
            #[serde(default)]
            left_out: u64,
        }
        if bytes.len() > REPORT_BYTES_MAX {
            return Err(format!("it has {} bytes", bytes.len()));
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let count = raw.sources.len();
        let read = raw.sources.into_iter().map(serde_json::from_value);
        let good: Vec<Reported> = read.filter_map(Result::ok).collect();
        let bad = (count - good.len()) as u64;
        Ok(Report::of(good, raw.left_out.saturating_add(bad)))
    }

    /// As it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Structures of texts and numbers always have a JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether two differ in more than in how far behind sources are.
    pub fn differs(&self, other: &Report) -> bool {
        let same = |(a, b): (&Reported, &Reported)| {
            let (lag, of) = (b.lag_bytes, a);
            Reported {
                lag_bytes: lag,
                ..of.clone()
            } == *b
        };
        self.left_out != other.left_out
            || self.sources.len() != other.sources.len()
            || !self.sources.iter().zip(&other.sources).all(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(id: &str) -> Reported {
        Reported {
            id: id.into(),
            kind: Origin::File,
            format: Format::Plain,
            paths: vec!["/var/log/a.log".into()],
            state: State::Live,
            generation: 7,
            since_ms: 1,
            lag_bytes: 0,
            labels: BTreeMap::from([("log.file.pattern".into(), "/var/log/a.log".into())]),
        }
    }

    /// Guarantee: a report is never larger than its limits, says how many it has no room for, and reads back as it was.
    #[test]
    fn reports_are_bounded_and_read_back() {
        let many = (0..SOURCES_MAX + 5).map(|n| source(&format!("file:/{n:05}")));
        let report = Report::of(many, 2);
        assert_eq!((report.sources.len(), report.left_out), (SOURCES_MAX, 7));
        let bytes = report.to_bytes();
        assert!(bytes.len() < REPORT_BYTES_MAX);
        assert_eq!(Report::read(&bytes).unwrap(), report);
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        let mut labelled = source("file:/a");
        labelled.labels = (0..LABELS_MAX + 1)
            .map(|n| (n.to_string(), String::new()))
            .collect();
        let mut wide = source("file:/b");
        wide.paths = vec!["/p".into(); PATHS_MAX + 3];
        let report = Report::of([source(&long), labelled, wide, source("a\nb")], 0);
        assert_eq!((report.sources.len(), report.left_out), (1, 3));
        assert_eq!(report.sources[0].paths.len(), PATHS_MAX);
    }

    #[test]
    fn what_is_none_of_it_is_counted_or_refused() {
        let good = serde_json::to_value(source("file:/a")).unwrap();
        let mut of_others = good.clone();
        of_others["kind"] = "journal".into();
        let text = serde_json::json!({"sources": [good, of_others, 5], "left_out": 1}).to_string();
        let report = Report::read(text.as_bytes()).unwrap();
        assert_eq!((report.sources.len(), report.left_out), (1, 3));
        assert!(Report::read(b"{}").is_err());
        assert!(Report::read(&vec![b' '; REPORT_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn lag_alone_makes_no_other_report() {
        let one = Report::of([source("file:/a")], 0);
        let mut other = one.clone();
        other.sources[0].lag_bytes = 5;
        assert!(!one.differs(&other));
        other.sources[0].state = State::Draining;
        assert!(one.differs(&other));
    }
}
