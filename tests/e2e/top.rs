//! `tailwater top` in a terminal, as a person sees it, and as text where there is none.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::json;
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::admin::Way;
use tailwater_tests::agent::{Agent, binary};
use tailwater_tests::rig::Rig;
use tailwater_tests::terminal::Terminal;
use tailwater_tests::wait;

/// An agent that is asked at a socket, under load.
struct Stand {
    rig: Rig,
    socket: PathBuf,
    agent: Agent,
    live: LiveWriter,
}

impl Stand {
    fn new(label: &str) -> Stand {
        let rig = Rig::new(label);
        let socket = rig.path("admin.sock");
        let mut config = rig.config();
        config["service"]["admin"] = json!({"socket": socket});
        let agent = rig.start(&config);
        let way = Way::Socket(socket.clone());
        let is_shown = || way.get("/v1/generations").json()["generation"] == 1;
        assert!(wait::within(wait::BOUND, is_shown), "{}", agent.log());
        let options = LiveOptions {
            lines_per_second: 1_000,
            rotate_every_lines: None,
            lines_max: None,
        };
        let live = LiveWriter::start(rig.writer(1, "app.log", |_| {}), options);
        Stand {
            rig,
            socket,
            agent,
            live: live.expect("a thread"),
        }
    }

    fn command(&self, locale: &str) -> Command {
        let mut command = Command::new(binary());
        command.args(["top", "--interval", "0.2", "--socket"]);
        command.arg(&self.socket);
        for name in ["LANG", "LC_CTYPE", "NO_COLOR"] {
            command.env_remove(name);
        }
        command.env("LC_ALL", locale).env("TERM", "xterm-256color");
        command
    }

    fn finish(self) {
        self.live.stop().expect("written");
        self.rig.wait_delivered(&self.agent);
        self.rig.finish(self.agent);
    }
}

/// Guarantees that rates are shown and move, that keys do what they say, that the screen follows the
/// window, and that the terminal is as before when it ends.
#[test]
fn it_shows_what_runs_and_takes_keys() {
    let stand = Stand::new("top-keys");
    let mut terminal = Terminal::run(stand.command("C.UTF-8"), 110, 30);
    terminal.expect("exporter loki (logs)");
    terminal.expect("receiver filelog (logs)");
    terminal.expect("generation 1 by start");
    terminal.expect("tailwater ● ready");
    terminal.expect_taken();
    let log = stand.rig.logs("app.log");
    terminal.expect(log.to_str().expect("text"));
    let rate = |terminal: &Terminal| {
        let screen = terminal.screen();
        let line = screen
            .lines()
            .find(|l| l.starts_with("in "))
            .map(str::to_owned);
        let rate = line.as_deref().and_then(|l| l.split("/s").next());
        let rate = rate.and_then(|r| r.strip_prefix("in ")).map(str::to_owned);
        rate.filter(|r| r.starts_with(|c: char| ('1'..='9').contains(&c)))
    };
    let moves = wait::within(wait::BOUND, || rate(&terminal).is_some());
    assert!(moves, "no rate:\n{}", terminal.screen());

    terminal.expect("s order: flow");
    terminal.press("s");
    terminal.expect("s order: state");
    terminal.press("\t");
    terminal.expect("s order: lag");
    terminal.press("s");
    terminal.expect("s order: wait");
    terminal.press("p");
    terminal.expect("PAUSED");
    terminal.press("p\x1b[Z");
    terminal.expect("p pause");
    terminal.expect("s order: state");

    terminal.resize(60, 12);
    let fits = wait::within(wait::BOUND, || {
        let screen = terminal.screen();
        let last = screen.lines().last().unwrap_or_default().to_owned();
        last.starts_with("q quit") && screen.contains("NODE") && !screen.contains("FILE")
    });
    assert!(fits, "{}", terminal.screen());
    terminal.press("q");
    assert!(terminal.end().success());
    terminal.expect_restored();
    stand.finish();
}

/// How often a colour is set (ECMA-48, SGR).
fn colours(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    let sequences = text.split("\x1b[").skip(1);
    let styles = sequences.filter_map(|s| {
        let end = s.find(|c: char| c.is_ascii_alphabetic())?;
        s[end..].starts_with('m').then(|| s[..end].to_owned())
    });
    let is_colour = |style: &String| {
        let first = style.split(';').next().and_then(|n| n.parse().ok());
        matches!(first, Some(30..=38 | 40..=48 | 90..=107))
    };
    styles.filter(is_colour).count()
}

/// Guarantees that the terminal is as before however it is ended, with no colour where none is wanted, and
/// nothing but ASCII where the locale has nothing else.
#[test]
fn it_gives_the_terminal_back_whatever_ends_it() {
    let stand = Stand::new("top-ends");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let mut command = stand.command("C");
        command.env("NO_COLOR", "1");
        let mut terminal = Terminal::run(command, 100, 24);
        terminal.expect("tailwater + ready");
        terminal.expect_taken();
        terminal.signal(signal);
        assert!(terminal.end().success(), "{signal:?}");
        terminal.expect_restored();
        let bytes = terminal.bytes();
        assert!(bytes.is_ascii(), "{signal:?}");
        assert_eq!(colours(&bytes), 0, "{signal:?}");
    }
    let mut terminal = Terminal::run(stand.command("C.UTF-8"), 100, 24);
    terminal.expect("ready");
    let bytes = terminal.bytes();
    assert!(colours(&bytes) > 0);
    terminal.press("\x03");
    assert!(terminal.end().success(), "Ctrl-C");
    terminal.expect_restored();
    stand.finish();
}

/// Guarantees that an agent which is gone is said to be, while what was known stays; and that one that was
/// never there is an error, not a screen.
#[test]
fn an_agent_that_goes_is_missed() {
    let stand = Stand::new("top-gone");
    let mut terminal = Terminal::run(stand.command("C.UTF-8"), 100, 24);
    terminal.expect("ready");
    let command = stand.command("C.UTF-8");
    stand.live.stop().expect("written");
    stand.rig.wait_delivered(&stand.agent);
    stand.rig.finish(stand.agent);
    terminal.expect("no answer");
    terminal.expect("no agent at the socket");
    terminal.expect("receiver filelog (logs)");
    terminal.press("q");
    assert!(terminal.end().success());
    let mut terminal = Terminal::run(command, 100, 24);
    assert_eq!(terminal.end().code(), Some(1));
    assert!(!terminal.bytes().windows(8).any(|w| w == b"\x1b[?1049h"));
    terminal.expect("no agent at the socket");
}

/// Guarantees that where there is no terminal, or with `--once`, one look is printed as plain text.
#[test]
fn one_look_is_text() {
    let stand = Stand::new("top-once");
    let is_text = |text: &str| {
        assert!(text.starts_with("tailwater ready, up "), "{text}");
        assert!(
            text.contains("exporter loki (logs)") && text.contains("app.log"),
            "{text}"
        );
        assert!(!text.contains('\x1b'), "{text}");
    };
    let output = stand.command("C.UTF-8").stdin(Stdio::null()).output();
    let output = output.expect("a process");
    assert!(output.status.success(), "{output:?}");
    is_text(&String::from_utf8_lossy(&output.stdout));
    let mut command = stand.command("C.UTF-8");
    command.arg("--once");
    let mut terminal = Terminal::run(command, 200, 50);
    assert!(terminal.end().success());
    // The list of files is the last of it.
    terminal.expect("app.log");
    is_text(&String::from_utf8_lossy(&terminal.bytes()));
    let bad = Command::new(binary())
        .args(["top", "--interval", "0"])
        .output();
    assert_eq!(bad.expect("a process").status.code(), Some(2));
    stand.finish();
}
