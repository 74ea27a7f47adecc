//! Waiting for a condition with a bound, and for time to pass where time itself is the scenario.

use std::time::{Duration, Instant};

/// Time between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// Most things happen within milliseconds; this is for a machine that is busy with other work.
pub const BOUND: Duration = Duration::from_secs(30);

/// Waits until `met` holds, at most `bound`; whether it did.
pub fn within(bound: Duration, mut met: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    loop {
        if met() {
            return true;
        }
        if begin.elapsed() > bound {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits until `probe` gives something, at most `bound`.
pub fn for_some<T>(bound: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let mut found = None;
    within(bound, || {
        found = probe();
        found.is_some()
    });
    found
}

/// Lets `time` pass. Only where the scenario is made of time (a file that lives for a second, a
/// kill at a random instant, proof that nothing happens), never to wait for a result.
pub fn let_pass(time: Duration) {
    std::thread::sleep(time);
}
