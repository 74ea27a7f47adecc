//! Which filters and outputs get what an input takes in: tags and the patterns that match them.

use regex::Regex;

use super::source::Properties;

/// The tags of an input.
pub struct Tags {
    pattern: String,
    sample: String,
}

/// How a pattern stands to the tags of an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Matches {
    /// To all of them.
    All,
    /// Perhaps to some.
    Some,
    /// To none.
    None,
}

impl Tags {
    /// Those that `tag` makes; a star in it stands for the path of a file, whose slashes become dots.
    pub fn new(tag: &str, paths: &[String]) -> Tags {
        let path = paths.first().map_or("x", String::as_str);
        let path = path
            .trim_start_matches('/')
            .replace('/', ".")
            .replace('*', "x");
        Tags {
            pattern: tag.to_owned(),
            sample: tag.replacen('*', &path, 1),
        }
    }

    /// How `match` or `match_regex` of a section stands to them. Without either nothing matches.
    pub fn of(&self, section: &mut Properties<'_>) -> Matches {
        if let Some(pattern) = section.text("match") {
            let one_of_many = self.pattern.contains('*');
            return match glob(&pattern, &self.sample) {
                true if one_of_many && pattern != "*" && !covers(&pattern, &self.pattern) => {
                    Matches::Some
                }
                true => Matches::All,
                false if one_of_many && overlaps(pattern.as_bytes(), self.pattern.as_bytes()) => {
                    Matches::Some
                }
                false => Matches::None,
            };
        }
        let pattern = section
            .text("match_regex")
            .and_then(|p| Regex::new(&p).ok());
        match pattern {
            Some(pattern) if pattern.is_match(&self.sample) => Matches::All,
            _ => Matches::None,
        }
    }
}

/// Whether a pattern with stars matches a text.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whether a pattern with a star at its end matches whatever the stars of another one stand for.
fn covers(pattern: &str, of: &str) -> bool {
    let fixed = of.split('*').next().unwrap_or_default();
    match pattern.strip_suffix('*') {
        Some(prefix) => !prefix.contains('*') && fixed.starts_with(prefix),
        None => false,
    }
}

/// Whether there is a text that both patterns match.
fn overlaps(a: &[u8], b: &[u8]) -> bool {
    // Which ends of `b` what is left of `a` could meet, for each beginning of `a`, from the end.
    let mut next = vec![false; b.len() + 1];
    for i in (0..=a.len()).rev() {
        let mut now = vec![false; b.len() + 1];
        for j in (0..=b.len()).rev() {
            now[j] = match (a.get(i), b.get(j)) {
                (None, None) => true,
                (Some(b'*'), _) => next[j] || (j < b.len() && now[j + 1]),
                (_, Some(b'*')) => now[j + 1] || (i < a.len() && next[j]),
                (Some(x), Some(y)) => x == y && next[j + 1],
                _ => false,
            };
        }
        next = now;
    }
    next[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_tags_are_made() {
        for (pattern, text, expect) in [
            ("*", "a", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
        ] {
            assert_eq!(glob(pattern, text), expect, "{pattern} {text}");
        }
        for (a, b, expect) in [
            ("kube.*", "kube.var.log.containers.x*", true),
            ("kube.*", "host.*", false),
            ("*x", "y*", true),
            ("ab", "ab", true),
            ("ab", "a", false),
        ] {
            assert_eq!(overlaps(a.as_bytes(), b.as_bytes()), expect, "{a} {b}");
        }
    }

    #[test]
    fn tags_with_a_star_take_the_path() {
        let paths = ["/var/log/containers/*.log".to_owned()];
        let tags = Tags::new("kube.*", &paths);
        assert_eq!(tags.sample, "kube.var.log.containers.x.log");
    }
}
