//! Decodes `ordering_criteria`.

use std::time::Duration;

use regex::bytes::Regex;
use tailwater_config::Section;

use super::compile;
use crate::filelog::order::{OrderingCriteria, SortKey, SortRule};
use tailwater_golang::strptime::{Layout, LayoutType, Zone};

/// The criteria, or `None` if there is no `sort_by`: without it the collector neither sorts nor
/// limits.
pub(super) fn decode(s: &mut Section<'_, '_>) -> Option<OrderingCriteria> {
    s.section_if_present("ordering_criteria", |s| {
        let pattern = s.string("regex", "");
        let regex = if pattern.is_empty() {
            None
        } else {
            compile(s, "regex", &pattern)
        };
        let group = s.string("group_by", "");
        let group_by = if group.is_empty() {
            None
        } else {
            compile(s, "group_by", &group)
        };
        if group_by.as_ref().is_some_and(|g| g.captures_len() < 2) {
            s.warn(
                "group_by",
                "has no capture that names the group, such as (...): all files are one group",
            );
        }
        let top_n = match s.usize("top_n", 0, ..) {
            0 => 1,
            n => n,
        };
        let sort_by = s.section_list("sort_by", rule).unwrap_or_default();
        if sort_by.is_empty() {
            if s.has("top_n") || s.has("group_by") {
                s.warn("sort_by", "without it ordering_criteria has no effect");
            }
            return None;
        }
        let sort_by: Vec<SortRule> = sort_by.into_iter().flatten().collect();
        if pattern.is_empty() && sort_by.iter().any(|r| capture(&r.by).is_some()) {
            s.invalid(
                "regex",
                "'regex' must be specified when 'sort_by' is specified",
            );
        }
        check_captures(s, regex.as_ref(), &sort_by);
        Some(OrderingCriteria {
            regex,
            group_by,
            top_n,
            sort_by,
        })
    })
    .flatten()
}

/// The capture a rule reads.
fn capture(by: &SortKey) -> Option<&str> {
    match by {
        SortKey::Number(key) | SortKey::Text(key) | SortKey::Time { key, .. } => Some(key),
        SortKey::Modified { .. } => None,
    }
}

/// A rule that reads a capture that is not in the pattern would leave every file out.
fn check_captures(s: &mut Section<'_, '_>, regex: Option<&Regex>, rules: &[SortRule]) {
    let Some(regex) = regex else { return };
    for key in rules.iter().filter_map(|r| capture(&r.by)) {
        if !regex.capture_names().flatten().any(|name| name == key) {
            s.invalid(
                "regex",
                format!("has no capture named {key:?}, which sort_by asks for"),
            );
        }
    }
}

fn rule(s: &mut Section<'_, '_>) -> Option<SortRule> {
    let kinds = ["numeric", "alphabetical", "timestamp", "mtime"];
    let kind = s.one_of_optional("sort_type", &kinds);
    if kind.is_none() && !s.has("sort_type") {
        s.error("'sort_type' must be specified");
    }
    let key = s.string("regex_key", "");
    let ascending = s.bool("ascending", false);
    let layout = s.string("layout", "");
    let location = s.string("location", "UTC");
    let max_age = s.duration("max_time", Duration::ZERO);
    let kind = kind?;
    if kind != "mtime" && key.is_empty() {
        s.invalid("regex_key", "regex key must be specified");
    }
    let by = match kind {
        "numeric" => SortKey::Number(key),
        "alphabetical" => SortKey::Text(key),
        "timestamp" => time(s, key, &layout, &location)?,
        // The collector always puts the newest first here.
        _ if ascending => {
            s.invalid(
                "ascending",
                "cannot be used with mtime: the newest file is always the first",
            );
            return None;
        }
        _ => SortKey::Modified { max_age },
    };
    Some(SortRule { by, ascending })
}

fn time(s: &mut Section<'_, '_>, key: String, layout: &str, location: &str) -> Option<SortKey> {
    if layout.is_empty() {
        s.invalid("layout", "layout must be specified");
        return None;
    }
    let layout = Layout::parse(layout, LayoutType::Strptime);
    let zone = if location.eq_ignore_ascii_case("utc") {
        Ok(Zone::utc())
    } else {
        Zone::named(location)
    };
    match (layout, zone) {
        (Ok(layout), Ok(zone)) => return Some(SortKey::Time { key, layout, zone }),
        (Err(e), _) => s.invalid("layout", e.to_string()),
        (_, Err(e)) => s.invalid("location", e.to_string()),
    }
    None
}
