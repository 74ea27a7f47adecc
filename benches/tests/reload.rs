//! The judge of reloads, judged: what an agent loses and repeats is found, and nothing is found where nothing
//! is.

use std::path::Path;
use std::time::Duration;

use tailwater_benches::reload::peers::{Kind, Peer};
use tailwater_benches::reload::run::{Load, Outcome, run};
use tailwater_benches::reload::stand_in::{Manner, REST};

fn outcome(manner: Manner) -> Outcome {
    let load = Load {
        bytes_per_second: 400_000,
        files: 2,
        line_bytes: 200,
        rotate: Duration::from_secs(1),
        keep: 5,
        calm: Duration::from_millis(200),
        time: Duration::from_secs(3),
        every: Duration::from_millis(500),
    };
    let bin = Path::new(env!("CARGO_BIN_EXE_reload"));
    let peer = Peer::new(Kind::StandIn(manner), bin).expect("a peer");
    let work = tempfile::tempdir().expect("a folder");
    let outcome = run(&peer, &load, work.path()).expect("it runs");
    assert!(outcome.reloads >= 3 && !outcome.died, "{outcome:?}");
    assert_eq!((outcome.failed, outcome.damaged), (0, 0), "{outcome:?}");
    assert!(outcome.written > 1_000, "{outcome:?}");
    outcome
}

/// Guarantee: an agent that loses, repeats and rests at each reload is found out.
#[test]
fn what_a_faulty_agent_loses_and_repeats_is_found() {
    let outcome = outcome(Manner::Faulty);
    assert!(outcome.lost > 0 && outcome.repeated > 0, "{outcome:?}");
    assert!(outcome.gap >= REST, "{outcome:?}");
}

/// Guarantee: of an agent that does neither, nothing is said.
#[test]
fn of_a_sound_agent_nothing_is_found() {
    let outcome = outcome(Manner::Sound);
    assert_eq!((outcome.lost, outcome.repeated), (0, 0), "{outcome:?}");
}
