//! Random numbers, a stream of its own for each thing that is decided by chance. So one more thing
//! does not change what the others of a seed are.

use tailwater_pipeline::clock::Rng64;

/// The stream of a seed for something.
pub fn stream(seed: u64, what: &str) -> Rng64 {
    let mut hash = 0xCBF2_9CE4_8422_2325 ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for b in what.bytes() {
        hash = (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3);
    }
    let mut rng = Rng64::new(hash);
    Rng64::new(rng.next_u64())
}

/// The streams of a run.
pub struct Dice {
    /// Who does something next, and how much time passes.
    pub turn: Rng64,
    /// What writers and rotators do.
    pub writers: Rng64,
    /// Which lines blank ones stand before.
    pub blank: Rng64,
    /// Who acts in the middle of a call of the agent, and when a call is its last.
    pub inside: Rng64,
    /// Which calls to the disk fail, and how.
    pub disk: Rng64,
    /// What the kernel writes back, and what a power cut leaves.
    pub power: Rng64,
    /// News that are late or lost.
    pub news: Rng64,
    /// The network and Loki.
    pub network: Rng64,
    /// Lives of the agent: what they are seeded with, pauses, deadlines.
    pub lives: Rng64,
}

impl Dice {
    /// Those of a seed.
    pub fn new(seed: u64) -> Dice {
        let stream = |what| stream(seed, what);
        Dice {
            turn: stream("turn"),
            writers: stream("writers"),
            blank: stream("blank"),
            inside: stream("inside"),
            disk: stream("disk"),
            power: stream("power"),
            news: stream("news"),
            network: stream("network"),
            lives: stream("lives"),
        }
    }
}

/// True in `per_mille` of a thousand cases.
pub fn chance(rng: &mut Rng64, per_mille: u64) -> bool {
    per_mille > 0 && rng.below(1000) < per_mille
}

/// One of some values.
pub fn one_of<T: Copy, const N: usize>(rng: &mut Rng64, values: [T; N]) -> T {
    values[rng.below(N as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_and_by_what_they_are_for() {
        let first = |seed, what| stream(seed, what).next_u64();
        assert_eq!(first(1, "a"), first(1, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
        assert_ne!(first(1, "a"), first(2, "a"));
    }
}
