//! `top`: a running agent, live in a terminal; or one look at it as text.

mod app;
mod draw;
mod look;
mod numbers;
mod text;
mod view;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TryRecvError, channel, sync_channel,
};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};

use self::app::{App, Key};
pub use self::draw::Looks;
use self::draw::draw;
use self::look::{Look, look};
use super::admin::place_of;
use crate::admin::client::Place;
use crate::cli::{TopArgs, exit};

/// How long a key, or an end by signal, may wait for an answer.
const ATTENTION: Duration = Duration::from_millis(50);
/// Files that are shown at most.
const FILES_MAX: usize = 100;

/// `tailwater top`.
pub fn top(args: &TopArgs) -> Result<u8> {
    let place = place_of(&args.place)?;
    let interval = Duration::from_secs_f64(args.interval);
    // An agent that does not answer at all is said so in words, not on a screen that is cleared.
    let first = look(&place, FILES_MAX)?;
    if args.once || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        thread::sleep(interval);
        let second = look(&place, FILES_MAX)?;
        say!("{}", text::text(&first, &second).trim_end());
        return Ok(exit::OK);
    }
    let ended = end_by_signal()?;
    let looks = look_on(place, interval)?;
    // From here on a panic restores the terminal as well.
    let mut terminal = ratatui::try_init().context("cannot use this terminal")?;
    let mut app = App::new(first);
    let result = run(&mut terminal, &mut app, &looks, &ended);
    drop(terminal);
    let restored = ratatui::try_restore();
    result?;
    restored.context("cannot restore the terminal; `reset` does")?;
    Ok(exit::OK)
}

/// Raised when a signal asks to end.
fn end_by_signal() -> Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    let raise = ended.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot listen for signals")?;
    let guard = runtime.enter();
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ];
    let mut signals = Vec::new();
    for kind in kinds {
        signals.push(signal(kind).context("cannot listen for signals")?);
    }
    drop(guard);
    let listen = move || {
        let any = async {
            std::future::poll_fn(|cx| {
                let mut came = signals.iter_mut().map(|s| s.poll_recv(cx).is_ready());
                match came.any(|c| c) {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                }
            })
            .await
        };
        runtime.block_on(any);
        raise.store(true, Ordering::Release);
    };
    let thread = thread::Builder::new().name("signals".into());
    thread.spawn(listen).context("cannot listen for signals")?;
    Ok(ended)
}

/// What was seen, or why nothing was.
type Seen = Result<Look, String>;

/// Looks again and again, in a thread of its own: an agent that answers late does not hold up keys.
fn look_on(place: Place, interval: Duration) -> Result<Looking> {
    // One that nobody has taken yet is enough.
    let (tell, looks): (SyncSender<Seen>, _) = sync_channel(1);
    let (stop, stopped) = channel::<()>();
    let looking = move || {
        while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            let seen = look(&place, FILES_MAX).map_err(|e| format!("{e:#}"));
            if tell.send(seen).is_err() {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("look".into());
    thread.spawn(looking).context("cannot look again")?;
    Ok(Looking { looks, _stop: stop })
}

/// Ends when it is dropped.
struct Looking {
    looks: Receiver<Seen>,
    _stop: std::sync::mpsc::Sender<()>,
}

fn run(
    terminal: &mut DefaultTerminal,
    app: &mut App,
    looking: &Looking,
    ended: &AtomicBool,
) -> Result<()> {
    let looks = Looks::of_environment();
    terminal.draw(|frame| draw(frame, app, &looks))?;
    while !ended.load(Ordering::Acquire) {
        let mut changed = false;
        loop {
            match looking.looks.try_recv() {
                Ok(seen) => app.take(seen),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => bail!("nobody asks the agent any more"),
            }
            changed = true;
        }
        if event::poll(ATTENTION).context("the terminal is gone")? {
            match event::read().context("the terminal is gone")? {
                Event::Key(pressed) => match key(pressed) {
                    Some(Key::Quit) => return Ok(()),
                    Some(key) => app.press(key),
                    None => {}
                },
                // The next drawing looks at the size.
                Event::Resize(..) => {}
                _ => continue,
            }
            changed = true;
        }
        if changed {
            terminal.draw(|frame| draw(frame, app, &looks))?;
        }
    }
    Ok(())
}

fn key(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    Some(match event.code {
        KeyCode::Char('c' | 'd') if control => Key::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
        KeyCode::Char('s') => Key::Sort,
        KeyCode::Char('p' | ' ') => Key::Pause,
        KeyCode::Tab | KeyCode::BackTab => Key::Tab,
        KeyCode::Up | KeyCode::Char('k') => Key::Move(-1),
        KeyCode::Down | KeyCode::Char('j') => Key::Move(1),
        KeyCode::PageUp => Key::Move(-10),
        KeyCode::PageDown => Key::Move(10),
        KeyCode::Home => Key::Move(i32::MIN),
        KeyCode::End => Key::Move(i32::MAX),
        _ => return None,
    })
}
