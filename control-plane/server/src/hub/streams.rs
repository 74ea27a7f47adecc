//! Processes that ask over HTTP under one name, told apart by the numbers of their messages: each counts its own.
//!
//! A number that does not go on is that of another process, or messages were lost, or one is said again. That there
//! are two is certain when both go on: the one that was there first keeps the name.

/// So many are followed at the same time.
const STREAMS_MAX: usize = 8;
/// So often a second one has to go on while the first one does. An answer that gets lost makes a message come
/// again under its number, which looks like a second one until the next message.
const PROOFS: u32 = 2;

#[derive(Clone, Copy, Debug)]
struct Stream {
    /// Its newest number.
    sequence: u64,
    begun_ms: u64,
    seen_ms: u64,
    /// How often it went on after the first one did, since it began.
    proofs: u32,
}

/// See the module's documentation. The first one is the owner of the name.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams {
    all: Vec<Stream>,
}

impl Streams {
    /// Takes the number of a message. Whether it is of another process than the one whose name this is. One that was
    /// not heard for `silence_ms` is gone.
    pub fn hear(&mut self, sequence: u64, now_ms: u64, silence_ms: u64) -> bool {
        self.all.retain(|s| s.seen_ms + silence_ms > now_ms);
        let goes_on = |s: &Stream| s.sequence.wrapping_add(1) == sequence;
        let Some(index) = self.all.iter().position(goes_on) else {
            if self.all.len() == STREAMS_MAX {
                // The owner stays, and the newest are of most use.
                self.all.remove(1);
            }
            self.all.push(Stream {
                sequence,
                begun_ms: now_ms,
                seen_ms: now_ms,
                proofs: 0,
            });
            return false;
        };
        let owner_seen_ms = self.all[0].seen_ms;
        let stream = &mut self.all[index];
        let is_proof =
            index > 0 && owner_seen_ms > stream.begun_ms && owner_seen_ms >= stream.seen_ms;
        (stream.sequence, stream.seen_ms) = (sequence, now_ms);
        stream.proofs += u32::from(is_proof);
        let is_other = stream.proofs >= PROOFS;
        if is_other {
            self.all.remove(index);
        }
        is_other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: u64 = 90_000;

    /// What is said of each message of a process, every second; `said` are numbers.
    fn run(said: &[u64]) -> Vec<bool> {
        let mut streams = Streams::default();
        let times = (1..).map(|i| i * 1_000);
        let hear = |(sequence, now): (&u64, u64)| streams.hear(*sequence, now, SILENCE);
        said.iter().zip(times).map(hear).collect()
    }

    fn first(said: &[u64]) -> Option<usize> {
        run(said).iter().position(|other| *other)
    }

    /// Guarantee: of two that live under one name the second is found out soon, however their numbers lie; one
    /// process is never taken for two by what can happen to it.
    #[test]
    fn two_are_told_apart_and_one_is_one() {
        assert_eq!(first(&[10, 0, 11, 1, 12, 2]), Some(5));
        assert_eq!(first(&[5, 5, 6, 6, 7, 7]), Some(5), "in step");
        assert_eq!(
            first(&[5, 6, 5, 7, 6, 8, 7]),
            Some(6),
            "one behind the other"
        );
        assert_eq!(first(&[5, 9, 6, 10, 7, 11]), Some(5));
        // A process, and what can happen to it.
        for one in [
            &[1, 2, 3, 4, 5, 6][..],
            // It was started anew.
            &[7, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
            // Messages were lost.
            &[1, 2, 4, 5, 9, 10, 11],
            // Answers were lost, so that messages came again.
            &[1, 2, 2, 3, 4, 4, 5, 6, 6, 7],
            &[1, 1, 1, 1, 2, 3, 3, 3, 4],
            // It was started anew again and again.
            &[0, 1, 0, 1, 0, 1, 2, 0],
        ] {
            assert_eq!(first(one), None, "{one:?}");
        }
    }

    /// Guarantee: of many clones all but one get another name, whatever their order is.
    #[test]
    fn of_many_clones_one_keeps_the_name() {
        let mut streams = Streams::default();
        let mut clones: Vec<u64> = (0..6).map(|i| 100 * i).collect();
        let mut now = 0;
        let mut renamed = Vec::new();
        for _round in 0..20 {
            clones.retain_mut(|sequence| {
                now += 1_000;
                let other = streams.hear(*sequence, now, SILENCE);
                if other {
                    renamed.push(*sequence / 100);
                }
                *sequence += 1;
                !other
            });
        }
        renamed.sort_unstable();
        assert_eq!(renamed, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn who_is_not_heard_any_more_leaves_its_name() {
        let mut streams = Streams::default();
        assert!(!streams.hear(7, 0, SILENCE));
        for i in 0..200 {
            assert!(!streams.hear(i, 10 + i * 1_000, SILENCE), "{i}");
        }
        // It comes back: now the other one was there first.
        let mut found = Vec::new();
        for i in 0..4 {
            let now = 300_000 + i * 1_000;
            found.push(streams.hear(8 + i, now, SILENCE * 10));
            assert!(!streams.hear(200 + i, now + 500, SILENCE * 10));
        }
        assert_eq!(found, [false, false, true, false]);
    }
}
