//! A name server that says what a test wants, and a process that asks no other.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The port that the C library asks at; it cannot be told another.
const PORT: u16 = 53;

/// How often the thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Bytes of a question's header (RFC 1035, 4.1.1).
const HEADER_BYTES: usize = 12;

/// What questions are answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// These are the addresses of every name; none of them of IPv6.
    Addresses(Vec<Ipv4Addr>),
    /// The server failed (SERVFAIL).
    Failure,
    /// Nothing at all.
    Silence,
}

#[derive(Debug)]
struct Shared {
    says: Mutex<Says>,
    questions: AtomicU64,
    stop: AtomicBool,
}

/// A running name server; it ends on drop.
#[derive(Debug)]
pub struct NameServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// Listens at port 53 of a loopback address.
    ///
    /// # Errors
    /// What binding fails with; the port takes root.
    pub fn start(at: Ipv4Addr, says: Says) -> io::Result<Self> {
        let socket = UdpSocket::bind((at, PORT))?;
        socket.set_read_timeout(Some(LOOK))?;
        let addr = socket.local_addr()?;
        let shared = Arc::new(Shared {
            says: Mutex::new(says),
            questions: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("names".into())
            .spawn(move || serve(&socket, &for_thread))?;
        Ok(Self {
            addr,
            shared,
            thread: Some(thread),
        })
    }

    /// Changes what it says.
    pub fn say(&self, says: Says) {
        *self
            .shared
            .says
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = says;
    }

    /// Questions that arrived so far, answered or not.
    pub fn questions(&self) -> u64 {
        self.shared.questions.load(Ordering::Acquire)
    }

    /// The command in a mount namespace of its own, in which this is the only name server. Its
    /// files are put into `dir`. It takes root.
    ///
    /// # Errors
    /// What writing the files fails with.
    pub fn wrap(&self, command: &Command, dir: &Path) -> io::Result<Command> {
        let resolvers = format!("nameserver {}\n", self.addr.ip());
        let mut script = String::from("true");
        for (name, content) in [
            ("resolv.conf", resolvers.as_str()),
            ("nsswitch.conf", "hosts: dns\n"),
        ] {
            let file = dir.join(name);
            std::fs::write(&file, content)?;
            let file = file.display();
            // Some systems have no nsswitch.conf; the C library asks name servers then, too.
            script +=
                &format!(" && {{ [ ! -e /etc/{name} ] || mount --bind '{file}' /etc/{name}; }}");
        }
        script += " && exec \"$0\" \"$@\"";
        let mut wrapped = Command::new("unshare");
        wrapped
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        Ok(wrapped)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic has been printed.
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, shared: &Shared) {
    let mut packet = [0; 512];
    while !shared.stop.load(Ordering::Acquire) {
        // An error is mostly the end of the wait.
        let Ok((length, from)) = socket.recv_from(&mut packet) else {
            continue;
        };
        shared.questions.fetch_add(1, Ordering::AcqRel);
        let says = shared.says.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = answer(&packet[..length], &says) {
            // Who asked may be gone.
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// The answer to a question (RFC 1035, 4.1), if there is to be one.
fn answer(question: &[u8], says: &Says) -> Option<Vec<u8>> {
    const RECURSION: u8 = 0x80;
    const SERVER_FAILURE: u8 = 2;
    const A: [u8; 2] = [0, 1];
    let name = question.get(HEADER_BYTES..)?;
    // Names of questions are not compressed: they end with an empty label.
    let name_bytes = name.iter().position(|b| *b == 0)? + 1;
    let asked = question.get(HEADER_BYTES..HEADER_BYTES + name_bytes + 4)?;
    let (addresses, code): (&[Ipv4Addr], u8) = match says {
        Says::Silence => return None,
        Says::Failure => (&[], SERVER_FAILURE),
        Says::Addresses(_) if asked[name_bytes..][..2] != A => (&[], 0),
        Says::Addresses(addresses) => (addresses, 0),
    };
    let count = u8::try_from(addresses.len()).ok()?;
    // An answer, with the wish for recursion given back.
    let mut out = vec![
        question[0],
        question[1],
        0x80 | (question[2] & 1),
        RECURSION | code,
    ];
    out.extend([0, 1, 0, count, 0, 0, 0, 0]);
    out.extend(asked);
    for address in addresses {
        // The name is that of the question; A, IN, 0 s, four bytes.
        out.extend([0xc0, HEADER_BYTES as u8, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        out.extend(address.octets());
    }
    Some(out)
}

/// A loopback address of this process: two runs side by side do not meet.
pub fn loopback(number: u8) -> Ipv4Addr {
    let pid = std::process::id();
    let address = Ipv4Addr::new(127, 64 + (pid >> 8 & 63) as u8, pid as u8, number);
    debug_assert!(IpAddr::V4(address).is_loopback());
    address
}
