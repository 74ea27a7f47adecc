//! Where everything ends: takes requests and counts their items.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use tailwater_pdata::Signal;
use tailwater_pdata::otlp::{Encoded, Limits};

use super::wire::{Carrier, Message, serve};

/// A destination on a thread of its own, which ends with the process.
pub struct Destination {
    address: SocketAddr,
    items: Arc<AtomicU64>,
}

impl Destination {
    /// Listens on a free port of the loopback interface.
    ///
    /// # Errors
    /// It cannot.
    pub fn start(carrier: Carrier) -> Result<Destination> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let items = Arc::new(AtomicU64::new(0));
        let counter = items.clone();
        std::thread::spawn(move || {
            let take = move |message: Message| {
                let counted = count(carrier, &message);
                if let Ok(items) = counted {
                    counter.fetch_add(items, Ordering::SeqCst);
                }
                std::future::ready(counted.map(|_| ()))
            };
            runtime.block_on(serve(listener, carrier, take))
        });
        Ok(Destination { address, items })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Items that have arrived since it started.
    pub fn items(&self) -> u64 {
        self.items.load(Ordering::SeqCst)
    }
}

fn count(carrier: Carrier, message: &Message) -> Result<u64> {
    let is = |signal: &Signal| carrier.path(*signal) == message.path;
    let Some(signal) = Signal::ALL.into_iter().find(is) else {
        bail!("unknown path {}", message.path);
    };
    let encoded = Encoded::parse(signal, message.plain.clone(), &Limits::default())?;
    Ok(encoded.items() as u64)
}
