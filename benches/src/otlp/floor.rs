//! The floor: receives requests and sends them on, by the libraries that the agent uses too.
//!
//! It looks at nothing, decides nothing and keeps nothing. What is compressed is inflated and compressed
//! again, since the agent has to look at what it takes. A request is answered when the destination has
//! answered. Nothing that receives before it sends with these libraries takes less, but by sending
//! the compressed bytes on as they are.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::TcpListener;

use super::wire::{Carrier, Client, Message, serve};

/// Listens at `at` and sends to `to` for ever, on this thread.
///
/// # Errors
/// It cannot listen.
pub fn run(at: SocketAddr, to: SocketAddr, carrier: Carrier, zip: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(at).await.context("cannot listen")?;
        let client = Arc::new(Client::new(to, carrier));
        let pass_on = move |message: Message| {
            let client = client.clone();
            async move {
                let packed = client.pack(&message.plain, zip)?;
                client.send(&message.path, packed, zip).await
            }
        };
        serve(listener, carrier, pass_on).await
    })
}
