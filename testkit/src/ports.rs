//! Ports for servers that go away and come back.
//!
//! The system gives a port that nobody listens at to the next who asks for any: to a server of another test, say, that then
//! takes what was meant for the one which is away. So these are out of its range, and each is given once.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below those that Linux gives out by itself (`ip_local_port_range`), to connections for example.
const PORTS: Range<u16> = 16_000..32_000;

/// Listens on 127.0.0.1, at a port that is given to nobody else in this process.
///
/// # Errors
/// What binding fails with, if that is so with all of them.
pub fn listen() -> io::Result<TcpListener> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Other processes begin elsewhere.
    let first = std::process::id().wrapping_mul(997);
    let mut last = io::ErrorKind::AddrInUse.into();
    for _ in PORTS {
        let n = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u32;
        let port = PORTS.start + n as u16;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return Ok(listener),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// An address of 127.0.0.1 that was free a moment ago, at a port that is given to nobody else in this process.
///
/// # Errors
/// As [`listen`].
pub fn free_addr() -> io::Result<SocketAddr> {
    listen()?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_never_by_the_system() {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let low: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        let mut ports: Vec<u16> = (0..100).map(|_| free_addr().unwrap().port()).collect();
        assert!(ports.iter().all(|p| *p < low), "{ports:?} from {low}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 100);
    }
}
