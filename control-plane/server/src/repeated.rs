//! What is found out again and again is said once in a while.

use std::time::{Duration, Instant};

/// The same is said again after so long.
const PAUSE: Duration = Duration::from_secs(30);

/// What was said last.
#[derive(Debug, Default)]
pub struct Repeated {
    last: Option<(String, Instant)>,
}

impl Repeated {
    /// Whether it is to be said.
    pub fn is_news(&mut self, text: &str) -> bool {
        let now = Instant::now();
        if let Some((last, at)) = &self.last
            && last == text
            && now.duration_since(*at) < PAUSE
        {
            return false;
        }
        self.last = Some((text.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once() {
        let mut said = Repeated::default();
        let news = ["a", "a", "b", "b", "a"].map(|text| said.is_news(text));
        assert_eq!(news, [true, false, true, false, true]);
        said.last = Some(("a".to_owned(), Instant::now() - PAUSE));
        assert!(said.is_news("a"));
    }
}
