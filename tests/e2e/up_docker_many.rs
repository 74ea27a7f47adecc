//! `tailwater up` with a real Docker Engine that has much to do, or that is started again in the middle.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tailwater_tests::admin::Way;
use tailwater_tests::agent::Agent;
use tailwater_tests::docker::Engine;
use tailwater_tests::docker::sink::{BOUND, Sink, Written, spread};
use tailwater_tests::fault_row::scaled;
use tailwater_tests::rig::tail;
use tailwater_tests::wait;

/// Far beyond what a container's first line takes, and within what a user would wait.
const FIRST_LINE_MAX: Duration = Duration::from_secs(30);
/// Lines of a container that lives for a moment.
const SHORT_LINES: u64 = 40;
/// A container that is stopped writes until then.
const ENDLESS: u64 = 1_000_000;
/// Between two of its lines.
const PAUSE_US: u64 = 20_000;

/// An Engine with these options; where none can run the test is skipped and says so.
macro_rules! engine {
    ($options:expr) => {
        match Engine::start_with($options) {
            Ok(engine) => engine,
            Err(why) => {
                println!("SKIPPED: containers of a Docker Engine: {why}");
                return;
            }
        }
    };
}

fn watched(agent: &Agent) {
    let watched = || agent.log().contains("the Docker Engine is watched");
    assert!(wait::within(BOUND, watched), "{}", agent.log());
}

/// Waits until nothing is tailed any more: what is in force names no log of a container. The agent's own log leaves out
/// lines that are alike.
fn none_left(agent: &Agent, sink: &Sink) {
    let way = Way::Socket(sink.path("state").join("admin.sock"));
    let config = || way.try_ask("GET", "/v1/config", &[], b"");
    let none = || config().is_ok_and(|r| r.status == 200 && !r.body.contains("-json.log"));
    assert!(
        wait::within(BOUND, none),
        "{:?}\n{}",
        config(),
        tail(&agent.log())
    );
}

/// What was not read because it was gone too soon is said in the log.
fn assert_none_missed(agent: &Agent) {
    let log = agent.log();
    for text in ["had opened none of its files", "cannot be read"] {
        assert!(!log.contains(text), "{log}");
    }
}

/// Starts containers one after the other, `every` so long: each second one lives for less than 2 s and takes its log
/// along, the others write until they are stopped. The names of both kinds.
fn start_all(engine: &Engine, count: u32, every: Duration) -> (Vec<String>, Vec<String>) {
    let names = |is_short: bool| {
        let name = move |n: u32| format!("{}-{n}", if is_short { "short" } else { "long" });
        let own = (0..count).filter(move |n| (n % 2 == 0) == is_short);
        own.map(name).collect()
    };
    let begin = Instant::now();
    let next = Mutex::new(0);
    // Starting one takes the Engine longer than the time between two.
    let work = || {
        loop {
            let n = {
                let mut next = next.lock().expect("not poisoned");
                *next += 1;
                *next - 1
            };
            if n >= count {
                return;
            }
            wait::let_pass((every * n).saturating_sub(begin.elapsed()));
            match n % 2 {
                // 0.2 s of lines, and up to 1.6 s more.
                0 => {
                    let stay = u64::from(n * 37 % 1_600);
                    engine.write(&format!("short-{n}"), &["--rm"], SHORT_LINES, 5_000, stay);
                }
                _ => engine.write(&format!("long-{n}"), &[], ENDLESS, PAUSE_US, 0),
            }
        }
    };
    std::thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(work)));
    });
    println!("{count} containers were started in {:?}", begin.elapsed());
    (names(true), names(false))
}

/// Guarantees that of many containers that start one after the other, half of which live for less than two seconds
/// and take their logs along, each line is delivered once; that those that are stopped in the middle of writing are
/// drained and deregistered; and that nothing takes longer than a user would wait. Says how long it took: 30
/// containers in 10 s, in the long form 100 within a minute.
#[test]
fn many_containers_come_and_go_and_no_line_is_lost() {
    let engine = engine!(&[]);
    let sink = Sink::new("up-docker-many");
    let agent = sink.up(&engine, "event_stream");
    watched(&agent);
    let (count, over) = scaled((30, 10), (100, 60));
    let (short, long) = start_all(&engine, count, Duration::from_secs(over) / count);
    let short: Vec<&str> = short.iter().map(String::as_str).collect();
    sink.expect(&short, SHORT_LINES, &agent);
    let mut stop = vec!["stop", "--time", "0"];
    stop.extend(long.iter().map(String::as_str));
    engine.docker(&stop);
    let written: Vec<Written> = long.iter().flat_map(|name| engine.logged(name)).collect();
    sink.expect_all(&written, &agent);
    none_left(&agent, &sink);
    assert_none_missed(&agent);
    sink.assert_once();
    let expected = written.len() + short.len() * SHORT_LINES as usize;
    assert_eq!(sink.lines(), expected);
    let first = sink.first_delays();
    assert_eq!(first.len(), count as usize);
    println!("first line written to delivered: {}", spread(&first));
    println!("any line: {}", spread(&sink.all_delays()));
    println!(
        "from the Engine's time of it: {}",
        spread(&sink.delays_since_engine())
    );
    println!(
        "slower than 1 s: {}",
        sink.slower_than(Duration::from_secs(1))
    );
    println!("the agent used {:.2} s of CPU", agent.cpu_seconds());
    assert!(
        first.last().is_some_and(|d| *d < FIRST_LINE_MAX),
        "{first:?}"
    );
    agent.stop_clean();
}

/// How an Engine goes away.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Term,
    Kill,
}

/// An Engine with containers that write is ended and started again under `up`. What it has of them in its files
/// arrives, once; what goes on after it came back is tailed, and so is what starts then.
fn restart(end: End, live_restore: bool) {
    let options: &[&str] = match live_restore {
        true => &["--live-restore"],
        false => &[],
    };
    let mut engine = engine!(options);
    let sink = Sink::new("up-docker-again");
    let agent = sink.up(&engine, "event_stream");
    watched(&agent);
    // Those that are started again by the Engine go on in the same file.
    let again: Vec<String> = (0..2).map(|n| format!("again-{n}")).collect();
    let once: Vec<String> = (0..3).map(|n| format!("once-{n}")).collect();
    let grace = ["--stop-timeout", "1"];
    for name in &once {
        engine.write(name, &grace, ENDLESS, 5_000, 0);
    }
    for name in &again {
        let options = [&grace[..], &["--restart", "always"]].concat();
        engine.write(name, &options, ENDLESS, 5_000, 0);
    }
    let of = |names: &[String]| -> Vec<String> { names.to_vec() };
    let mut all = [of(&once), of(&again)].concat();
    let refs: Vec<&str> = all.iter().map(String::as_str).collect();
    sink.expect(&refs, 100, &agent);
    match end {
        End::Term => engine.end(),
        End::Kill => engine.kill(),
    }
    let lost = || agent.log().contains("it is tried again until it is there");
    assert!(wait::within(BOUND, lost), "{}", tail(&agent.log()));
    engine.begin();
    let began = Instant::now();
    let late: Vec<String> = (0..2).map(|n| format!("late-{n}")).collect();
    for name in &late {
        engine.write(name, &grace, 200, 1_000, 600_000);
    }
    let refs: Vec<&str> = late.iter().map(String::as_str).collect();
    sink.expect(&refs, 200, &agent);
    println!("tailed again {:?} after the Engine", began.elapsed());
    // Whatever it did with the others is over.
    let settled = |name: &String| {
        let state = ["inspect", "--format", "{{.State.Status}}", name];
        let state = engine.docker(&state);
        (state == "running") == (live_restore || again.contains(name))
    };
    assert!(wait::within(BOUND, || all.iter().all(settled)));
    wait::let_pass(Duration::from_secs(1));
    all.extend(late);
    let mut stop = vec!["stop", "--time", "0"];
    stop.extend(all.iter().map(String::as_str));
    engine.docker(&stop);
    let mut written = Vec::new();
    for name in &all {
        let logged = engine.logged(name);
        // What the Engine itself did not write down when it was killed is nobody's any more.
        let starts = logged.iter().filter(|w| w.number == 0).count();
        let gaps = logged.windows(2);
        let gaps = gaps.filter(|w| w[1].number != 0 && w[1].number != w[0].number + 1);
        let gaps = gaps.count();
        println!(
            "{end:?}, live-restore {live_restore}: {name}: {} lines, {starts} starts, {gaps} gaps in the Engine's file",
            logged.len()
        );
        written.extend(logged);
    }
    sink.expect_all(&written, &agent);
    none_left(&agent, &sink);
    assert_none_missed(&agent);
    sink.assert_once();
    assert_eq!(sink.lines(), written.len());
    let mut remove = vec!["rm", "--force"];
    remove.extend(all.iter().map(String::as_str));
    engine.docker(&remove);
    agent.stop_clean();
}

/// Guarantees that an Engine that is stopped and started again costs no line of its containers, which end with it.
#[test]
fn an_engine_that_is_stopped_takes_no_line_along() {
    restart(End::Term, false);
}

/// Guarantees the same of one that is stopped while its containers go on.
#[test]
fn containers_that_outlive_their_engine_lose_no_line() {
    restart(End::Term, true);
}

/// Guarantees the same of one that is killed, and ends its containers when it comes back.
#[test]
fn an_engine_that_is_killed_takes_no_line_along() {
    restart(End::Kill, false);
}

/// Guarantees the same of one that is killed while its containers go on.
#[test]
fn containers_that_outlive_the_death_of_their_engine_lose_no_line() {
    restart(End::Kill, true);
}
