//! Container lines whose parts are in several files: begun in one, ended in what rotation put in
//! its place, with the agent there all the time, killed or stopped somewhere on the way.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tailwater_tests::agent::{Agent, run_once};
use tailwater_tests::rig::tail;
use tailwater_tests::stand::Stand;
use tailwater_tests::wait;

/// A part that is left alone is passed on as a record after 5 s.
const PART_SHOWS: Duration = Duration::from_secs(6);

/// Parts that are written at once: second, stream, tag, text.
type Part = (u32, &'static str, &'static str, &'static str);

/// Where lines are split.
struct Layout {
    name: &'static str,
    /// The content of each file, the oldest first, as it is written bit by bit.
    files: &'static [&'static [&'static [Part]]],
    /// Second of the time, stream and text of each line.
    lines: &'static [(u32, &'static str, &'static str)],
    /// Whole lines stand behind a part that is still open. Positions stay before it, so a stop sends
    /// these lines again, equal to the byte.
    open_over_stop: bool,
}

const LAYOUTS: [Layout; 4] = [
    Layout {
        name: "two files",
        files: &[
            &[&[(1, "stdout", "F", "before"), (2, "stdout", "P", "one ")]],
            &[&[(3, "stdout", "F", "two"), (4, "stdout", "F", "after")]],
        ],
        lines: &[
            (1, "stdout", "before"),
            (2, "stdout", "one two"),
            (4, "stdout", "after"),
        ],
        open_over_stop: false,
    },
    Layout {
        name: "three files",
        files: &[
            &[&[(1, "stdout", "P", "one ")]],
            &[&[(2, "stdout", "P", "two ")]],
            &[&[(3, "stdout", "F", "three")]],
        ],
        lines: &[(1, "stdout", "one two three")],
        open_over_stop: false,
    },
    Layout {
        name: "both streams",
        files: &[
            &[&[(1, "stdout", "P", "one "), (2, "stderr", "P", "uno ")]],
            &[&[(3, "stderr", "F", "due"), (4, "stdout", "F", "two")]],
        ],
        lines: &[(1, "stdout", "one two"), (2, "stderr", "uno due")],
        open_over_stop: false,
    },
    // One line is whole and delivered while the other one is not, and a file in between has none
    // of its parts.
    Layout {
        name: "one stream late",
        files: &[
            &[&[(1, "stdout", "P", "one "), (2, "stderr", "P", "uno ")]],
            &[&[(3, "stderr", "F", "due"), (4, "stderr", "F", "whole")]],
            &[&[(5, "stderr", "F", "more")], &[(6, "stdout", "F", "two")]],
        ],
        lines: &[
            (1, "stdout", "one two"),
            (2, "stderr", "uno due"),
            (4, "stderr", "whole"),
            (5, "stderr", "more"),
        ],
        open_over_stop: true,
    },
];

/// What happens to the agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Around {
    Nothing,
    /// Killed when it has read this many of the pieces, before the next one is written.
    KillAfterPiece(usize),
    StopAfterPiece(usize),
    /// Killed this many ms after the last line arrived.
    KillAtTheEnd(u64),
    StopAtTheEnd,
}

type Seen = (String, String, String);

fn time_of(second: u32) -> String {
    // 2026-01-02T03:04:00Z
    format!("{}", (1_767_323_040 + u64::from(second)) * 1_000_000_000)
}

fn seen(stand: &Stand) -> Vec<Seen> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let one = |r: &tailwater_tests::stand::Record| {
        let stream = text(&r.attributes["log.iostream"]);
        (r.time_ns.clone(), stream, text(&r.body))
    };
    stand.records().iter().map(one).collect()
}

fn wanted(lines: &[(u32, &str, &str)]) -> BTreeSet<Seen> {
    let one = |&(s, stream, text): &(u32, &str, &str)| (time_of(s), stream.into(), text.into());
    lines.iter().map(one).collect()
}

/// One agent after the other on one directory.
struct Play {
    stand: Stand,
    agent: Option<Agent>,
    /// Bytes that this agent has to have read.
    unread: u64,
    rotated: Vec<(u64, u64)>,
}

impl Play {
    fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("one runs")
    }

    fn write(&mut self, piece: &[Part]) {
        let line = |(second, stream, tag, text): &Part| {
            format!("2026-01-02T03:04:{second:02}Z {stream} {tag} {text}\n")
        };
        let text: String = piece.iter().map(line).collect();
        self.unread += text.len() as u64;
        self.stand.append("app.log", text);
    }

    /// Waits until everything written so far is read, by this agent or an earlier one.
    fn wait_read(&self) -> Result<(), String> {
        let wanted = self.unread as f64;
        let read = || {
            let accounts = self.agent().scrape().accounts_in("bytes");
            let receivers = accounts.iter().filter(|((kind, _), _)| kind == "receiver");
            receivers.map(|(_, a)| a.read).sum::<f64>()
        };
        let done = wait::within(wait::BOUND, || read() >= wanted);
        done.then_some(())
            .ok_or_else(|| format!("{} of {wanted} bytes read", read()))
    }

    fn restart(&mut self, kill: bool) {
        match self.agent.take() {
            Some(agent) if kill => agent.kill(),
            Some(agent) => agent.stop_clean(),
            None => {}
        }
        // What the next one reads again is not known.
        self.unread = 0;
    }

    fn rotate(&mut self) {
        let at = |n: usize| match n {
            0 => self.stand.rig.logs("app.log"),
            n => self.stand.rig.logs(&format!("app.log.{n}")),
        };
        let meta = fs::metadata(at(0)).expect("there");
        for n in (0..self.rotated.len() + 1).rev() {
            fs::rename(at(n), at(n + 1)).expect("renamed");
        }
        self.stand.write("app.log", "");
        self.rotated.push((meta.ino(), meta.len()));
    }

    fn wait_lines(&self, lines: &[(u32, &str, &str)]) -> Result<(), String> {
        let wanted = wanted(lines);
        let all = || wanted.is_subset(&seen(&self.stand).into_iter().collect());
        let done = wait::within(wait::BOUND, all);
        done.then_some(())
            .ok_or_else(|| format!("{:?} instead of {wanted:?}", seen(&self.stand)))
    }

    /// Where the stored positions are, by inode.
    fn positions(&self) -> Vec<(u64, u64)> {
        let out = run_once(&["checkpoints", "export"], &self.stand.rig.state());
        let out = out.expect("it ran").stdout;
        let position = |line: &str| {
            let p: Value = serde_json::from_str(line).ok()?;
            Some((p["inode"].as_u64()?, p["offset"].as_u64()?))
        };
        String::from_utf8_lossy(&out)
            .lines()
            .filter_map(position)
            .collect()
    }
}

fn play(layout: &Layout, around: Around) -> Result<(), String> {
    let stand = Stand::new(&json!({"operators": [
        {"type": "container", "format": "containerd", "add_metadata_from_filepath": false},
    ]}));
    stand.write("app.log", "");
    let agent = Some(stand.start());
    let mut play = Play {
        stand,
        agent,
        unread: 0,
        rotated: Vec::new(),
    };
    let result = act(&mut play, layout, around);
    let log = play.agent.as_ref().map(Agent::log).unwrap_or_default();
    result.map_err(|e| format!("{} {around:?}: {e}\n{}", layout.name, tail(&log)))
}

fn act(play: &mut Play, layout: &Layout, around: Around) -> Result<(), String> {
    // That there is such a file is on disk: before, a kill makes it a first start.
    let saved = || {
        let scrape = play.agent().scrape();
        let count = |name| scrape.sum(name, &[]);
        count("otelcol_fileconsumer_open_files") == 1.0
            && count("tailwater_checkpoint_entries") >= 1.0
            && count("tailwater_checkpoint_unsaved_entries") == 0.0
    };
    if !wait::within(wait::BOUND, saved) {
        return Err("the file's position is not saved".to_owned());
    }
    let mut pieces = 0;
    for (i, file) in layout.files.iter().enumerate() {
        if i > 0 {
            play.rotate();
        }
        for piece in *file {
            if play.agent.is_none() {
                play.agent = Some(play.stand.start());
            }
            play.write(piece);
            play.wait_read()?;
            pieces += 1;
            match around {
                Around::KillAfterPiece(n) if n == pieces => play.restart(true),
                Around::StopAfterPiece(n) if n == pieces => play.restart(false),
                _ => {}
            }
        }
    }
    if play.agent.is_none() {
        play.agent = Some(play.stand.start());
    }
    play.wait_lines(layout.lines)?;
    match around {
        Around::KillAtTheEnd(ms) => {
            wait::let_pass(Duration::from_millis(ms));
            play.restart(true);
        }
        Around::StopAtTheEnd => play.restart(false),
        _ => {}
    }
    if play.agent.is_none() {
        play.agent = Some(play.stand.start());
    }
    wait::let_pass(PART_SHOWS);
    if around == Around::Nothing {
        // Nobody holds a file that is gone and done with.
        for n in 1..=play.rotated.len() {
            let path = play.stand.rig.logs(&format!("app.log.{n}"));
            fs::remove_file(path).expect("there");
        }
        let open = || {
            play.agent()
                .scrape()
                .sum("otelcol_fileconsumer_open_files", &[])
        };
        let closed = wait::within(wait::BOUND, || open() == 1.0);
        closed
            .then_some(())
            .ok_or_else(|| format!("{} files are open", open()))?;
    }
    play.write(&[(59, "stdout", "F", "the end")]);
    let lines = [layout.lines, &[(59, "stdout", "the end")]].concat();
    play.wait_lines(&lines)?;
    play.restart(false);
    let got = seen(&play.stand);
    let distinct: BTreeSet<Seen> = got.iter().cloned().collect();
    let again = match around {
        Around::Nothing | Around::StopAtTheEnd => false,
        Around::StopAfterPiece(_) => layout.open_over_stop,
        Around::KillAfterPiece(_) | Around::KillAtTheEnd(_) => true,
    };
    if distinct != wanted(&lines) || (!again && got.len() > distinct.len()) {
        return Err(format!("{got:?} instead of {:?}", wanted(&lines)));
    }
    let live = fs::metadata(play.stand.rig.logs("app.log")).expect("there");
    let positions = play.positions();
    for file in play.rotated.iter().chain([&(live.ino(), live.len())]) {
        if !positions.contains(file) {
            return Err(format!("{file:?} is not in {positions:?}"));
        }
    }
    Ok(())
}

/// Guarantees that a line whose parts are in several files is one record with the time of its first
/// part, whatever happens to the agent on the way: never a part of it alone or with another line's,
/// nothing twice but what a kill or an open part leaves, which is the same in time and text and so
/// one entry in Loki; and that all of its files are done with afterwards.
#[test]
fn a_line_that_is_split_over_files_is_delivered_whole() {
    let mut cells = Vec::new();
    for layout in &LAYOUTS {
        let pieces: usize = layout.files.iter().map(|f| f.len()).sum();
        let mut around = vec![Around::Nothing, Around::StopAtTheEnd];
        around.extend([0, 20, 300, 1_100].map(Around::KillAtTheEnd));
        around.extend((1..pieces).map(Around::KillAfterPiece));
        around.extend((1..pieces).map(Around::StopAfterPiece));
        cells.extend(around.into_iter().map(|a| (layout, a)));
    }
    let queue = Mutex::new(cells.into_iter());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no panic in between").next();
                    let Some((layout, around)) = next else { return };
                    if let Err(e) = play(layout, around) {
                        failed.lock().expect("no panic in between").push(e);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic in between");
    assert!(
        failed.is_empty(),
        "{}:\n{}",
        failed.len(),
        failed.join("\n")
    );
}
