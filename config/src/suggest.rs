//! The nearest valid spelling of a mistyped name.

/// The candidate nearest to `word`, if near enough to be what was meant: at most one edit for
/// short words, a third of the length for longer ones. Case and the difference between `-` and
/// `_` count as one edit at most.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = normalize(word);
    if wanted.len() > WORD_CHARS_MAX {
        return None;
    }
    let limit = (wanted.len() / 3).max(1);
    candidates
        .into_iter()
        .filter(|c| *c != word)
        .map(|c| (distance(&wanted, &normalize(c)), c))
        .filter(|(d, c)| *d <= limit && *d < c.chars().count())
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Longer words are not compared: the cost grows with the square.
const WORD_CHARS_MAX: usize = 128;

fn normalize(word: &str) -> Vec<char> {
    word.chars()
        .take(WORD_CHARS_MAX + 1)
        .map(|c| unify(c.to_ascii_lowercase()))
        .collect()
}

fn unify(c: char) -> char {
    if c == '-' { '_' } else { c }
}

/// Edits (insert, delete, replace, swap of neighbours) that turn one word into the other:
/// the optimal string alignment distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = last;
        last = row;
    }
    last[b.len()]
}

/// Most names that a message lists.
const LISTED_MAX: usize = 64;

/// Names as a message lists them: joined by commas, an empty one in quotes, not too many.
pub(crate) fn name_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names
        .into_iter()
        .map(|name| if name.is_empty() { "\"\"" } else { name });
    let mut list = names
        .by_ref()
        .take(LISTED_MAX)
        .collect::<Vec<_>>()
        .join(", ");
    let more = names.count();
    if more > 0 {
        list.push_str(&format!(", ... ({more} more)"));
    }
    if list.is_empty() {
        "none".to_owned()
    } else {
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_is_not() {
        let names = ["beginning", "end", "include", "exclude", "poll_interval"];
        for (word, expect) in [
            ("beginnig", Some("beginning")),
            ("edn", Some("end")),
            ("inculde", Some("include")),
            ("Poll-Interval", Some("poll_interval")),
            ("poll_intreval", Some("poll_interval")),
            ("x", None),
            ("nothing_like_it", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names), expect, "{word}");
        }
    }

    #[test]
    fn swapped_neighbours_are_one_edit() {
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        assert_eq!(distance(&chars("ab"), &chars("ba")), 1);
        assert_eq!(distance(&chars("kitten"), &chars("sitting")), 3);
        assert_eq!(distance(&chars(""), &chars("abc")), 3);
    }
}
