//! Which batches are shown.

use std::sync::Mutex;
use std::time::Duration;

use tailwater_pipeline::clock::Mono;

const WINDOW: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Window {
    start: Option<Mono>,
    seen: u64,
}

/// In every second the first `initial`, then every `thereafter`-th. Locked once per batch.
pub(super) struct Sampler {
    initial: u64,
    thereafter: u64,
    window: Mutex<Window>,
}

impl Sampler {
    pub fn new(initial: u64, thereafter: u64) -> Sampler {
        Sampler {
            initial,
            thereafter,
            window: Mutex::default(),
        }
    }

    /// Whether a batch that comes now is shown.
    pub fn admits(&self, now: Mono) -> bool {
        let mut w = self.window.lock().unwrap_or_else(|e| e.into_inner());
        if w.start.is_none_or(|start| now.since(start) >= WINDOW) {
            *w = Window {
                start: Some(now),
                seen: 0,
            };
        }
        w.seen += 1;
        let over = w.seen.saturating_sub(self.initial);
        over == 0 || (self.thereafter > 0 && over.is_multiple_of(self.thereafter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_second_and_then_every_nth_are_shown() {
        for (initial, thereafter, expect) in [
            (2, 3, "XX..X..X|XX......|"),
            (2, 1, "XXXXXXXX|XX......|"),
            (1, 0, "X.......|X.......|"),
            (0, 0, "........|........|"),
        ] {
            let s = Sampler::new(initial, thereafter);
            let mut seen = String::new();
            for second in [10, 12] {
                for i in 0..8 {
                    // In the second window only two come.
                    let asked = second == 10 || i < 2;
                    let shown = asked && s.admits(Mono(second * 1_000_000_000 + i));
                    seen.push(if shown { 'X' } else { '.' });
                }
                seen.push('|');
            }
            assert_eq!(seen, expect, "{initial} {thereafter}");
        }
    }
}
