//! Random kills: SIGKILL at any moment, while files rotate and the sink fails, loses nothing and
//! repeats nothing that Loki would show.
//!
//! `TAILWATER_KILLS` (default 100) and `TAILWATER_SEED` (default 1) choose how many and which.

use std::time::{Duration, Instant};

use tailwater_testkit::rng::Rng;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_testkit::writer::{Compress, Format, Naming, Rotation};
use tailwater_tests::rig::Rig;
use tailwater_tests::wait;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} must be a number: {text:?}")),
        Err(_) => default,
    }
}

/// Two plain logs, one that is compressed when rotated, and two of containers, all growing.
fn writers(rig: &Rig, seed: u64) -> Vec<LiveWriter> {
    let rename = |naming, compress| Rotation::RenameCreate {
        naming,
        keep: 1_000,
        compress,
        late_lines: 3,
    };
    let kinds = [
        (Format::Plain, rename(Naming::Numbered, Compress::Never)),
        (Format::Plain, rename(Naming::Numbered, Compress::Delayed)),
        (Format::Cri, rename(Naming::Kubernetes, Compress::Delayed)),
        (Format::Cri, rename(Naming::Kubernetes, Compress::Never)),
    ];
    let start = |(id, (format, rotation))| {
        let (dir, id) = (
            if format == Format::Cri {
                "cri"
            } else {
                "plain"
            },
            id as u32,
        );
        let writer = rig.writer(id, &format!("{dir}/app{id}.log"), |o| {
            (o.format, o.rotation, o.seed) = (format, rotation, seed);
            (o.stderr, o.partial_bytes_max, o.pad_bytes) = (0.2, 150, 20..=200);
        });
        let (lines_per_second, every) = (1_500, 1_000 + 400 * u64::from(id));
        let options = LiveOptions {
            lines_per_second,
            rotate_every_lines: Some(every),
            lines_max: None,
        };
        LiveWriter::start(writer, options).expect("a thread")
    };
    kinds.into_iter().enumerate().map(start).collect()
}

#[test]
fn kills_at_any_moment_lose_nothing_and_show_nothing_twice() {
    let (kills, seed) = (
        setting("TAILWATER_KILLS", 100),
        setting("TAILWATER_SEED", 1),
    );
    let begin = Instant::now();
    let rig = Rig::new("kill9");
    for dir in ["plain", "cri"] {
        std::fs::create_dir(rig.logs(dir)).expect("a directory");
    }
    let mut config = rig.container_config("containerd");
    let mut plain = config["receivers"]["filelog"].clone();
    config["receivers"]["filelog"]["include"] = rig.logs("cri/*.log").to_str().into();
    plain["include"] = rig.logs("plain/*.log").to_str().into();
    plain.as_object_mut().expect("a map").remove("operators");
    config["receivers"]["filelog/plain"] = plain;
    config["service"]["pipelines"]["logs"]["receivers"] = vec!["filelog", "filelog/plain"].into();
    rig.loki.set_faults(|f| {
        (f.status_500, f.status_503, f.status_429) = (0.08, 0.04, 0.04);
        (f.reset_before, f.reset_after) = (0.05, 0.05);
        f.delay = Duration::from_millis(3);
    });
    let live = writers(&rig, seed);
    let mut rng = Rng::new(seed);
    for _ in 0..kills {
        let agent = rig.spawn(&config);
        // Most kills hit an agent at work, some one that is still starting.
        let life = if rng.chance(0.2) {
            rng.below(60)
        } else {
            60 + rng.below(500)
        };
        wait::let_pass(Duration::from_millis(life));
        agent.kill();
    }
    for writer in live {
        writer.stop().expect("written");
    }
    rig.loki.set_faults(|f| *f = Default::default());
    let agent = rig.start(&config);
    rig.wait_delivered_within(&agent, Duration::from_secs(90));
    agent.stop_clean();
    let t = rig.oracle.report().totals;
    println!(
        "kills {kills} seed {seed}: written {} delivered {} lost {} repeated {} (shown by Loki {}) \
         in {:.1} s",
        t.written,
        t.delivered,
        t.missing,
        t.duplicates_raw,
        t.duplicates_after_dedup + t.duplicates_unclassified,
        begin.elapsed().as_secs_f64(),
    );
    rig.assert_faultless();
}
