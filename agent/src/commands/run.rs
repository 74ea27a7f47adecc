//! `tailwater run`: runs the agent until a signal stops it.

use std::os::unix::process::CommandExt;
use std::time::Duration;

use anyhow::Result;
use tailwater_pipeline::graph::StopReport;

use super::check::{Checked, check_offer, complain, mistakes, offer};
use crate::cli::{RunArgs, exit};
use crate::control::{Control, Request, Wanted};
use crate::extensions::opamp;
use crate::offer::{Offer, Reading};
use crate::sandbox::Sandbox;
use crate::signals::Caught;
use crate::supervisor::{Agent, last_good};
use crate::watch::watch;

/// How often health is looked at.
pub const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether what a change has left to do can go on.
pub const CHANGING_INTERVAL: Duration = Duration::from_millis(5);

/// Runs the agent until a signal stops it.
pub fn run(args: &RunArgs) -> Result<u8> {
    let offered = match offer(&args.config) {
        Ok(offered) => offered,
        Err(errors) => return Ok(complain(&errors)),
    };
    let reading = Reading::of(&offered);
    let (checked, refused) = match check_offer(&offered, &reading) {
        // Before the sandbox is made of it, and before anything runs.
        Ok(checked) => (opamp::resume(checked, &offered), Vec::new()),
        Err(errors) => match fall_back(args) {
            Some(checked) => (checked, mistakes(&errors)),
            None => return Ok(complain(&errors)),
        },
    };
    // From the beginning: a signal during a long start must not end the process half-way. Not before
    // the configuration is read: that may wait for a pipe, and nothing is begun until then.
    let (control, requests) = Control::here();
    let signals = Caught::catch()?;
    // Before there is any other thread: what it forbids to all holds for those that come.
    let sandbox = Sandbox::of(&checked);
    let signals = signals.listen(Some(control.clone()))?;
    let restart = control.clone();
    let mut agent = Agent::start(checked, sandbox, control.clone())?;
    agent.runs_last_good(refused);
    *agent.watched().lock().unwrap_or_else(|e| e.into_inner()) = reading.seen();
    if args.watch {
        watch(agent.watched().clone(), control)?;
    }
    let mut looked = agent.clock.now();
    while signals.stops() == 0 && !restart.restarts() {
        agent.take_requests(&requests, &offered);
        let changing = agent.tick();
        let now = agent.clock.now();
        if now.since(looked) >= HOUSEKEEPING_INTERVAL {
            looked = now;
            agent.housekeeping();
        }
        std::thread::park_timeout(match changing {
            true => CHANGING_INTERVAL,
            false => HOUSEKEEPING_INTERVAL,
        });
    }
    let timeout = agent.shutdown_timeout();
    let stopped = agent.stop(timeout, &|| signals.stops() > 1);
    if restart.restarts() && signals.stops() == 0 {
        return Err(begin_anew());
    }
    let aborted = signals.stops() > 1;
    Ok(match stopped {
        StopReport { clean: true, .. } => exit::OK,
        _ if aborted => exit::INTERRUPTED,
        _ => exit::UNDELIVERED,
    })
}

/// Takes the place of this process by a new one of the same program, with the same arguments. What is not
/// delivered is read again. Returns only if that fails; whatever looks after the process starts it then.
fn begin_anew() -> anyhow::Error {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    // A newer program may have been put in its place.
    let there = std::env::current_exe().ok().filter(|path| path.exists());
    let program = there.unwrap_or_else(|| "/proc/self/exe".into());
    let error = std::process::Command::new(&program)
        .arg0(name)
        .args(args)
        .exec();
    anyhow::Error::new(error).context(format!("cannot begin anew as {}", program.display()))
}

/// The newest configuration that was in force, if there is one that is still good.
fn fall_back(args: &RunArgs) -> Option<Checked> {
    if args.no_last_good {
        return None;
    }
    let offer = Offer::saved(&last_good()?)?;
    check_offer(&offer, &Reading::of(&offer)).ok()
}

/// A request to read again what the command line names, whose answer is in the log.
pub fn reread(by: &'static str) -> Request {
    Request {
        wanted: Wanted::Reread,
        by,
        if_generation: None,
        dry_run: false,
        answer: Box::new(|_| {}),
    }
}
