//! Senders: so many requests at a time, each sent when another was answered.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;

use super::wire::{Carrier, Client};

/// What is sent, and how.
#[derive(Clone, Debug)]
pub struct Load {
    /// Of which protocol.
    pub carrier: Carrier,
    /// Where to.
    pub path: &'static str,
    /// The body of each request.
    pub plain: Bytes,
    /// Whether it is compressed.
    pub zip: bool,
    /// Requests at a time.
    pub in_flight: usize,
}

/// Sends loads to one program over connections that stay.
pub struct Sender {
    client: Arc<Client>,
    load: Load,
    packed: Bytes,
    runtime: tokio::runtime::Runtime,
}

impl Sender {
    /// A sender to `to`.
    ///
    /// # Errors
    /// There is no runtime.
    pub fn new(to: SocketAddr, load: Load) -> Result<Sender> {
        let client = Arc::new(Client::new(to, load.carrier));
        Ok(Sender {
            packed: client.pack(&load.plain, load.zip)?,
            client,
            load,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
        })
    }

    /// Sends `requests` and waits until each is answered with success.
    ///
    /// # Errors
    /// One is not.
    pub fn send(&self, requests: u64) -> Result<()> {
        let (lanes, load) = (self.load.in_flight as u64, &self.load);
        let sending = (0..lanes).map(|lane| {
            let (client, packed) = (self.client.clone(), self.packed.clone());
            let (path, zip) = (load.path, load.zip);
            let share = requests / lanes + u64::from(lane < requests % lanes);
            async move {
                for _ in 0..share {
                    client.send(path, packed.clone(), zip).await?;
                }
                Ok::<_, anyhow::Error>(())
            }
        });
        self.runtime.block_on(async {
            let mut all = tokio::task::JoinSet::new();
            for lane in sending {
                all.spawn(lane);
            }
            while let Some(done) = all.join_next().await {
                done?.context("a request was not answered with success")?;
            }
            Ok(())
        })
    }
}
