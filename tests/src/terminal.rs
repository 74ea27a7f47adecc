//! A terminal that a test looks at: a pseudo-terminal, and what a person would see on it.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::wait;

/// What came from the program: as a screen, and byte by byte.
struct Seen {
    parser: vt100::Parser,
    bytes: Vec<u8>,
}

/// A program that runs in a terminal. Dropping it ends the program.
pub struct Terminal {
    master: File,
    /// Keeps the settings of the terminal readable when the program has ended.
    slave: OwnedFd,
    child: Child,
    seen: Arc<Mutex<Seen>>,
}

impl Terminal {
    /// Runs `command` in a terminal of so many columns and rows.
    ///
    /// # Panics
    /// When there is no pseudo-terminal, or no process.
    pub fn run(mut command: Command, columns: u16, rows: u16) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a pseudo-terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let slave = ioctl_tiocgptpeer(&master, flags).expect("the other end");
        set_size(&slave, columns, rows);
        let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn();
        let child = child.expect("a process");
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(Seen {
            parser: vt100::Parser::new(size(rows), size(columns), 0),
            bytes: Vec::new(),
        }));
        let (mut from, to) = (master.try_clone().expect("a descriptor"), seen.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It ends with an error when the last descriptor of the other end is closed.
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                let mut seen = to.lock().unwrap_or_else(PoisonError::into_inner);
                seen.parser.process(&buffer[..n]);
                seen.bytes.extend_from_slice(&buffer[..n]);
            }
        });
        Terminal {
            master,
            slave,
            child,
            seen,
        }
    }

    /// Presses keys.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("a terminal");
    }

    /// Gives the window another size, and tells the program.
    pub fn resize(&self, columns: u16, rows: u16) {
        set_size(&self.slave, columns, rows);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.parser.screen_mut().set_size(size(rows), size(columns));
        drop(seen);
        self.signal(Signal::WINCH);
    }

    /// Sends a signal to the program.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
    }

    /// The screen as text.
    pub fn screen(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.parser.screen().contents()
    }

    /// All that the program has written.
    pub fn bytes(&self) -> Vec<u8> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.bytes.clone()
    }

    /// True while the program has a screen of its own.
    fn is_alternate(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.parser.screen().alternate_screen()
    }

    /// True while the cursor is hidden.
    fn hides_cursor(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.parser.screen().hide_cursor()
    }

    /// True while keys are shown and lines are edited, as a shell needs it.
    ///
    /// # Panics
    /// When the terminal is gone.
    fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("a terminal").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits until the screen holds `text`.
    ///
    /// # Panics
    /// When it does not within [`wait::BOUND`].
    pub fn expect(&self, text: &str) {
        let there = wait::within(wait::BOUND, || self.screen().contains(text));
        assert!(there, "no {text:?} on the screen:\n{}", self.screen());
    }

    /// Waits for the end of the program.
    ///
    /// # Panics
    /// When it does not end within [`wait::BOUND`].
    pub fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait::within(wait::BOUND, || {
            status = self.child.try_wait().expect("a process");
            status.is_some()
        });
        status.unwrap_or_else(|| panic!("it goes on:\n{}", self.screen()))
    }

    /// Waits until the program has taken the whole terminal: a screen of its own without a cursor, and each
    /// key at once.
    ///
    /// # Panics
    /// When it does not within [`wait::BOUND`].
    pub fn expect_taken(&self) {
        let is_taken = || self.is_alternate() && self.hides_cursor() && !self.is_cooked();
        let taken = wait::within(wait::BOUND, is_taken);
        assert!(taken, "the terminal is a shell's:\n{}", self.screen());
    }

    /// Waits until the terminal is as a shell needs it: what a program wrote last is on its way for a
    /// while.
    ///
    /// # Panics
    /// When it is not within [`wait::BOUND`].
    pub fn expect_restored(&self) {
        let is_restored = || !self.is_alternate() && !self.hides_cursor() && self.is_cooked();
        let restored = wait::within(wait::BOUND, is_restored);
        assert!(
            restored,
            "the terminal is not as before:\n{}",
            self.screen()
        );
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(cells: u16) -> NonZero<u16> {
    NonZero::new(cells).expect("a window has room")
}

fn set_size(terminal: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).expect("a terminal");
}
