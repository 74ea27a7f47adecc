//! Row 29: the sink's name cannot be resolved, moves to another address, or has an address at which
//! nobody answers.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};
use tailwater_tests::agent::{Agent, free_port};
use tailwater_tests::dns::{NameServer, Says, loopback};
use tailwater_tests::fault_row::{Row, scaled};
use tailwater_tests::front::{Front, Way};
use tailwater_tests::rig::{Rig, tail};
use tailwater_tests::wait;

const PASS: &str = "loss 0; <= 1 question/s; new address used <= 30 s";

/// The longest that a new address may go unused.
const MOVED: Duration = Duration::from_secs(30);

/// An agent that knows its sink by name, and the name server that it asks.
struct Named {
    rig: Rig,
    names: NameServer,
    port: u16,
    /// First number of its loopback addresses.
    base: u8,
}

impl Named {
    fn new(label: &str, base: u8, says: Says) -> Result<Self, String> {
        let unshared = Command::new("unshare").args(["--mount", "true"]).output();
        if !unshared.is_ok_and(|output| output.status.success()) {
            return Err("no mount namespaces; they need root".to_owned());
        }
        let names = NameServer::start(loopback(base), says);
        Ok(Self {
            rig: Rig::new(label),
            names: names.map_err(|e| format!("no name server at port 53: {e}"))?,
            port: free_port().expect("a port"),
            base,
        })
    }

    /// The address of a server, by number.
    fn ip(&self, number: u8) -> Ipv4Addr {
        loopback(self.base + number)
    }

    /// A server at an address, the sink behind it.
    fn front(&self, number: u8) -> Front {
        let at = SocketAddr::from((self.ip(number), self.port));
        Front::start_at(at, self.rig.loki.addr()).expect("a loopback address")
    }

    fn say(&self, numbers: &[u8]) {
        let addresses = numbers.iter().map(|n| self.ip(*n)).collect();
        self.names.say(Says::Addresses(addresses));
    }

    fn start(&self, options: &Value) -> Agent {
        let mut config = self.rig.config();
        let loki = &mut config["exporters"]["loki"];
        loki["endpoint"] = json!(format!("http://sink.test:{}/loki/api/v1/push", self.port));
        for (key, value) in options.as_object().expect("an object") {
            loki[key] = value.clone();
        }
        self.rig.start_by(&config, |command| {
            let dir = self.rig.path("run");
            self.names.wrap(&command, &dir).expect("files")
        })
    }

    /// Writes without end.
    fn load(&self, rate: u64) -> LiveWriter {
        let options = LiveOptions {
            lines_per_second: rate,
            rotate_every_lines: None,
            lines_max: None,
        };
        let writer = self.rig.writer(1, "a.log", |_| {});
        LiveWriter::start(writer, options).expect("a thread")
    }

    /// How long it takes until `front` passes something on.
    fn until_used(&self, agent: &Agent, front: &Front) -> Duration {
        let (begin, before) = (Instant::now(), front.passed());
        let used = wait::within(3 * MOVED, || front.passed() > before);
        assert!(used, "never used\n{}", tail(&agent.log()));
        begin.elapsed()
    }
}

/// Guarantees that lines wait for a name that cannot be resolved, that nobody asks all the time
/// meanwhile, that a sink which is there goes on being used, and that a new address is, whatever
/// the old one does: work, refuse, or take requests and say nothing.
#[test]
fn a_name_that_fails_and_moves_costs_time_only() {
    let failing = scaled(Duration::from_secs(6), Duration::from_secs(300));
    let mut row = Row::new(29, "the name fails, then moves")
        .how(format!(
            "a name server of its own; under writing it fails, then is silent, {} s each, at the start and \
             later with connections cut; then the name moves while the old address works, refuses, swallows \
             requests (timeout: 10s)",
            failing.as_secs()
        ))
        .pass(PASS);
    let named = match Named::new("names", 1, Says::Failure) {
        Ok(named) => named,
        Err(why) => return row.not_shown(why),
    };
    let live = named.load(500);
    let agent = named.start(&json!({"timeout": "10s"}));
    let begin = Instant::now();
    wait::let_pass(failing);
    named.names.say(Says::Silence);
    wait::let_pass(failing);
    let mut rate = named.names.questions() as f64 / begin.elapsed().as_secs_f64();
    assert!(named.names.questions() > 0, "{}", tail(&agent.log()));
    let first = named.front(1);
    named.say(&[1]);
    let after_outage = named.until_used(&agent, &first);

    // The connections break while the name cannot be resolved.
    let (asked, begin) = (named.names.questions(), Instant::now());
    named.names.say(Says::Failure);
    first.set(Way::CutAfter(0));
    assert!(wait::within(wait::BOUND, || first.cuts() > 0));
    first.set(Way::Pass);
    wait::let_pass(failing);
    named.names.say(Says::Silence);
    let during_outage = named.until_used(&agent, &first);
    wait::let_pass(failing);
    let asked = (named.names.questions() - asked) as f64;
    rate = rate.max(asked / begin.elapsed().as_secs_f64());

    let second = named.front(2);
    named.say(&[2]);
    let working = named.until_used(&agent, &second);
    let third = named.front(3);
    named.say(&[3]);
    drop(second);
    let refusing = named.until_used(&agent, &third);
    let fourth = named.front(4);
    named.say(&[4]);
    third.set(Way::Swallow);
    let silent = named.until_used(&agent, &fourth);

    live.stop().expect("written");
    named.rig.wait_delivered(&agent);
    let t = named.rig.finish(agent).totals;
    row.reached(format!("0 of {} lines lost or shown twice", t.written));
    row.held(
        rate <= 1.0,
        format!("{rate:.2} questions/s at most while the name server failed or was silent"),
    );
    row.reached(format!(
        "the sink used {:.1} s after the outage, and after {:.1} s of one with its connections cut",
        after_outage.as_secs_f64(),
        during_outage.as_secs_f64()
    ));
    let slowest = working.max(refusing).max(silent);
    row.held(
        slowest <= MOVED,
        format!(
            "new address used after {:.1} s while the old one worked, {:.1} s while it refused, {:.1} s \
             while it swallowed requests",
            working.as_secs_f64(),
            refusing.as_secs_f64(),
            silent.as_secs_f64()
        ),
    );
    row.record();
}

/// An address that takes no connections and does not say so: its queue is full.
fn full_queue(at: SocketAddr) -> (rustix::fd::OwnedFd, Vec<TcpStream>) {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &at).expect("a loopback address");
    listen(&socket, 0).expect("it listens");
    let wait = Duration::from_millis(300);
    let waiting = std::iter::from_fn(|| TcpStream::connect_timeout(&at, wait).ok());
    let waiting = waiting.collect();
    (socket, waiting)
}

/// Guarantees that an address of two at which nobody answers, in whatever way, costs no lines and
/// hardly any time, although every request makes a connection of its own.
#[test]
fn an_address_that_is_dead_costs_nothing() {
    let mut row = Row::new(29, "one dead address of two")
        .how(
            "the dead one first: refuses; takes no connections and does not say so; takes requests and says \
             nothing (timeout: 2s); resets connections; a connection per request",
        )
        .pass(PASS);
    let mut named = match Named::new("dead", 11, Says::Failure) {
        Ok(named) => named,
        Err(why) => return row.not_shown(why),
    };
    let (mut lines, mut asked, mut figures) = (0, 0, Vec::new());
    let begin = Instant::now();
    for dead in [
        "refuses",
        "takes no connections",
        "says nothing",
        "resets connections",
    ] {
        named.rig = Rig::new("dead");
        // Connections to the servers before may not be over yet.
        named.port = free_port().expect("a port");
        let live_one = named.front(2);
        let at = SocketAddr::from((named.ip(1), named.port));
        let _queue = (dead == "takes no connections").then(|| full_queue(at));
        let way = match dead {
            "says nothing" => Some(Way::Swallow),
            "resets connections" => Some(Way::CutAfter(0)),
            _ => None,
        };
        let _dead_one = way.map(|way| {
            let front = named.front(1);
            front.set(way);
            front
        });
        named.say(&[1, 2]);
        let agent = named.start(&json!({"timeout": "2s", "disable_keep_alives": true}));
        let mut writer = named.rig.writer(1, "a.log", |_| {});
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let begin = Instant::now();
            writer.write_lines(50).expect("written");
            named.rig.wait_delivered(&agent);
            slowest = slowest.max(begin.elapsed());
        }
        assert!(live_one.passed() > 0);
        lines += named.rig.finish(agent).totals.written;
        figures.push((dead, slowest));
        asked = named.names.questions();
    }
    row.reached(format!("0 of {lines} lines lost or shown twice"));
    for (dead, slowest) in figures {
        let slowest = slowest.as_secs_f64();
        row.held(
            slowest <= MOVED.as_secs_f64(),
            format!("{slowest:.1} s at most where it {dead}"),
        );
    }
    let seconds = begin.elapsed().as_secs_f64();
    row.reached(format!(
        "{asked} questions of four agents in {seconds:.0} s"
    ));
    row.record();
}
