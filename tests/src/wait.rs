//! Waiting for a condition with a bound, and for time to pass where time itself is the scenario.

use std::time::{Duration, Instant};

use crate::disk_stall::Watch;

/// Time between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);
/// The same where each look starts a process.
const ASK_PAUSE: Duration = Duration::from_millis(100);

/// Most things happen within milliseconds; this is for a machine that is busy with other work.
pub const BOUND: Duration = Duration::from_secs(30);

/// The most that a bound is put off for a disk that does not answer: a test ends all the same.
const STALLED_MAX: Duration = Duration::from_secs(300);

/// Waits until `met` holds, at most `bound`; whether it did. Time in which the machine's disk does not answer
/// is not counted: positions wait for it, whatever the agent does.
pub fn within(bound: Duration, met: impl FnMut() -> bool) -> bool {
    looking(PAUSE, bound, met)
}

/// As [`within`], of what is seen by running a program: looked at less often, as that takes processor time from the
/// tests beside it.
pub fn by_asking(bound: Duration, met: impl FnMut() -> bool) -> bool {
    looking(ASK_PAUSE, bound, met)
}

fn looking(pause: Duration, bound: Duration, mut met: impl FnMut() -> bool) -> bool {
    let (begin, watch) = (Instant::now(), Watch::start());
    loop {
        if met() {
            return true;
        }
        if begin.elapsed() > bound + watch.stalled().min(STALLED_MAX) {
            return false;
        }
        std::thread::sleep(pause);
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
