//! `ordering_criteria`: sorts the files found by what their names say and keeps the first ones.
//!
//! As in the collector (its fileconsumer/matcher): `regex` is applied to the path and must match;
//! the rules of `sort_by` are applied one after the other, so the last one weighs most; a value
//! that cannot be read takes its file out, which is reported; `top_n` files of each group stay.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use regex::bytes::Regex;

use super::discover::FoundFile;
use tailwater_golang::strptime::{Layout, Zone};

/// The validated `ordering_criteria`.
#[derive(Clone, Debug)]
pub struct OrderingCriteria {
    /// Finds the named values in a path; present if any rule needs one.
    pub regex: Option<Regex>,
    /// The first capture names the group of a file; without it all files are one group.
    pub group_by: Option<Regex>,
    /// Files to keep of each group, at least 1.
    pub top_n: usize,
    /// At least one rule.
    pub sort_by: Vec<SortRule>,
}

/// One rule of `sort_by`.
#[derive(Clone, Debug)]
pub struct SortRule {
    /// What is compared.
    pub by: SortKey,
    /// Smallest, or oldest, first.
    pub ascending: bool,
}

/// What a rule compares.
#[derive(Clone, Debug)]
pub enum SortKey {
    /// A whole number in the named capture.
    Number(String),
    /// The text of the named capture, by bytes.
    Text(String),
    /// A time in the named capture.
    Time {
        /// Name of the capture.
        key: String,
        /// How it is written.
        layout: Layout,
        /// Zone of times without one.
        zone: Zone,
    },
    /// The modification time; files older than the age (zero = any) are left out.
    Modified {
        /// `max_time`.
        max_age: Duration,
    },
}

/// A file that was left out because its name does not say what it has to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// `regex` or `group_by` does not match.
    #[error("the path does not match {0} of ordering_criteria")]
    NoMatch(&'static str),
    /// A value cannot be read as its rule says.
    #[error("{key} is {found:?}, which is not {wanted}")]
    Value {
        /// The capture.
        key: String,
        /// Its text.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
}

/// A value to sort by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Number(i64),
    Text(Vec<u8>),
}

/// The group of a file, and its values.
type Judged = (Vec<u8>, Vec<Value>);

struct Item {
    file: FoundFile,
    /// One per rule.
    values: Vec<Value>,
}

impl OrderingCriteria {
    /// Sorts `files`, keeps the first of each group and puts the groups one after the other, by
    /// name. `now_ns` is the wall time. Files that were left out for an error come second.
    pub fn apply(
        &self,
        files: Vec<FoundFile>,
        now_ns: i64,
    ) -> (Vec<FoundFile>, Vec<(FoundFile, OrderError)>) {
        let mut groups: BTreeMap<Vec<u8>, Vec<Item>> = BTreeMap::new();
        let mut errors = Vec::new();
        for file in files {
            match self.item(&file, now_ns) {
                Ok(Some((group, values))) => {
                    groups.entry(group).or_default().push(Item { file, values });
                }
                Ok(None) => {}
                Err(e) => errors.push((file, e)),
            }
        }
        let mut kept = Vec::new();
        for mut items in groups.into_values() {
            items.sort_by(|a, b| self.compare(a, b));
            kept.extend(items.into_iter().take(self.top_n).map(|item| item.file));
        }
        (kept, errors)
    }

    /// The last rule weighs most; files that are equal in all rules keep the order of paths.
    fn compare(&self, a: &Item, b: &Item) -> Ordering {
        let by_rule = self
            .sort_by
            .iter()
            .zip(a.values.iter().zip(&b.values))
            .rev();
        by_rule
            .map(|(rule, (a, b))| if rule.ascending { a.cmp(b) } else { b.cmp(a) })
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// Group and values of a file; `None` if it is too old.
    fn item(&self, file: &FoundFile, now_ns: i64) -> Result<Option<Judged>, OrderError> {
        let path = file.path.as_os_str().as_bytes();
        let group = match &self.group_by {
            None => Vec::new(),
            Some(regex) => {
                let captures = regex
                    .captures(path)
                    .ok_or(OrderError::NoMatch("group_by"))?;
                captures
                    .get(1)
                    .map(|m| m.as_bytes().to_vec())
                    .unwrap_or_default()
            }
        };
        let captures = match &self.regex {
            None => None,
            Some(regex) => Some(regex.captures(path).ok_or(OrderError::NoMatch("regex"))?),
        };
        let text = |key: &str| {
            captures
                .as_ref()
                .and_then(|c| c.name(key))
                .map(|m| m.as_bytes())
                .unwrap_or_default()
        };
        let mut values = Vec::with_capacity(self.sort_by.len());
        for rule in &self.sort_by {
            let bad = |key: &str, wanted| {
                let found = String::from_utf8_lossy(text(key)).into_owned();
                OrderError::Value {
                    key: key.to_owned(),
                    found,
                    wanted,
                }
            };
            values.push(match &rule.by {
                SortKey::Number(key) => {
                    let number = std::str::from_utf8(text(key))
                        .ok()
                        .and_then(|t| t.parse().ok());
                    Value::Number(number.ok_or_else(|| bad(key, "a whole number"))?)
                }
                SortKey::Text(key) => Value::Text(text(key).to_vec()),
                SortKey::Time { key, layout, zone } => {
                    let time = layout.parse_time(text(key), zone, now_ns);
                    Value::Number(time.map_err(|_| bad(key, "a time of the given layout"))?)
                }
                SortKey::Modified { max_age } => {
                    let age = now_ns.saturating_sub(file.meta.mtime_ns);
                    if !max_age.is_zero() && i128::from(age) >= max_age.as_nanos() as i128 {
                        return Ok(None);
                    }
                    Value::Number(file.meta.mtime_ns)
                }
            });
        }
        Ok(Some((group, values)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filelog::logfs::{FileId, Meta};
    use tailwater_golang::strptime::LayoutType;

    fn file(path: &str, mtime_ns: i64) -> FoundFile {
        let meta = Meta {
            id: FileId::default(),
            size: 1,
            mtime_ns,
            links: 1,
        };
        FoundFile {
            path: path.into(),
            meta,
            target: None,
        }
    }

    fn rule(by: SortKey, ascending: bool) -> SortRule {
        SortRule { by, ascending }
    }

    fn criteria(regex: &str, top_n: usize, sort_by: Vec<SortRule>) -> OrderingCriteria {
        let regex = (!regex.is_empty()).then(|| Regex::new(regex).unwrap());
        OrderingCriteria {
            regex,
            group_by: None,
            top_n,
            sort_by,
        }
    }

    fn check(c: &OrderingCriteria, paths: &[&str], want: &[&str], want_errors: usize) {
        let files = paths.iter().zip(1..).map(|(p, at)| file(p, at)).collect();
        let (kept, errors) = c.apply(files, 1_000);
        let kept: Vec<_> = kept.iter().map(|f| f.path.to_str().unwrap()).collect();
        assert_eq!(kept, want);
        assert_eq!(errors.len(), want_errors, "{errors:?}");
    }

    #[test]
    fn numbers_sort_as_numbers_and_bad_ones_leave_their_file_out() {
        let number = |asc| vec![rule(SortKey::Number("n".into()), asc)];
        let regex = r"\.(?P<n>[a-z0-9]+)$";
        let paths = ["a.2", "a.10", "a.1", "a.x", "other"];
        check(
            &criteria(regex, 9, number(true)),
            &paths,
            &["a.1", "a.2", "a.10"],
            2,
        );
        check(&criteria(regex, 1, number(false)), &paths, &["a.10"], 2);
        check(&criteria(regex, 9, number(true)), &["a.x"], &[], 1);
    }

    #[test]
    fn times_are_compared_as_instants_and_the_newest_is_kept() {
        let layout = Layout::parse("%Y%m%d%H", LayoutType::Strptime).unwrap();
        let time = SortKey::Time {
            key: "t".into(),
            layout,
            zone: Zone::utc(),
        };
        let c = criteria(r"err\.(?P<t>\d{10})", 1, vec![rule(time, false)]);
        check(
            &c,
            &["err.2023020611", "err.2023020612", "err.2023020610"],
            &["err.2023020612"],
            0,
        );
    }

    #[test]
    fn the_last_rule_weighs_most() {
        let rules = vec![
            rule(SortKey::Number("n".into()), true),
            rule(SortKey::Text("s".into()), false),
        ];
        let c = criteria(r"(?P<s>[a-z])(?P<n>\d)", 9, rules);
        check(&c, &["a1", "b2", "a0", "b1"], &["b1", "b2", "a0", "a1"], 0);
    }

    #[test]
    fn every_group_keeps_its_first_files() {
        let mut c = criteria(
            r"(?P<n>\d)$",
            1,
            vec![rule(SortKey::Number("n".into()), false)],
        );
        c.group_by = Some(Regex::new("^([a-z])").unwrap());
        check(&c, &["b1", "a1", "a2", "b3", "1"], &["a2", "b3"], 1);
    }

    #[test]
    fn modification_times_sort_and_limit() {
        let by = |max_age| {
            rule(
                SortKey::Modified {
                    max_age: Duration::from_nanos(max_age),
                },
                false,
            )
        };
        check(
            &criteria("", 2, vec![by(0)]),
            &["a", "b", "c"],
            &["c", "b"],
            0,
        );
        check(
            &criteria("", 9, vec![by(999)]),
            &["a", "b", "c"],
            &["c", "b"],
            0,
        );
    }
}
