//! A door that clients come in by: opened, and said how well it is kept.

use tailwater_pipeline::factory::NodeCx;
use tailwater_pipeline::listeners::Lent;

use super::bind::{open, open_datagrams};
use super::endpoint::Listen;
use super::tls_options::TlsOptions;

/// What comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    /// Connections.
    Streams,
    /// UDP.
    Datagrams,
}

/// What is known of a listener before it is opened.
pub struct Door<'a> {
    /// What comes in.
    pub carrier: Carrier,
    /// What is spoken there, for messages.
    pub protocol: &'a str,
    /// The option that its address comes from.
    pub option: &'a str,
    /// Where it is.
    pub listen: &'a Listen,
    /// Its certificates.
    pub tls: Option<&'a TlsOptions>,
    /// Whether senders have to say who they are.
    pub auth: bool,
    /// It is not opened where others reach it unprotected.
    pub refuse_unprotected: bool,
}

impl Door<'_> {
    /// Listens, without taking anything in yet, and says in the log where; loudly where others reach an
    /// address that is not protected.
    ///
    /// # Errors
    /// It cannot be opened, or is not protected and has to be.
    pub fn open(&self, cx: &NodeCx) -> Result<Lent, String> {
        let endpoint = &self.listen.endpoint;
        let opened = match self.carrier {
            Carrier::Streams => open(self.listen, &cx.listeners, &cx.runtime),
            Carrier::Datagrams => open_datagrams(self.listen, &cx.listeners, &cx.runtime),
        };
        let bound = opened.map_err(|e| {
            format!(
                "cannot listen on {endpoint} ({e}); another process may use it: set {} to another address",
                self.option
            )
        })?;
        let place = bound.place();
        let known = self
            .tls
            .is_some_and(|tls| self.auth || tls.client_ca.is_some());
        if bound.is_exposed() && !known {
            let what = match self.tls {
                None if self.auth => {
                    "without TLS: whoever is on the way can read what is sent, credentials too"
                }
                None => {
                    "without TLS: whoever reaches the address can send and can read what is sent"
                }
                Some(_) => "without client certificates or auth: whoever reaches it can send",
            };
            if self.refuse_unprotected {
                return Err(format!(
                    "{place} is {what} (refuse_unprotected); set tls with client_ca_file or auth, or an \
                     endpoint on a loopback address"
                ));
            }
            tracing::warn!(
                receiver = %cx.id,
                protocol = self.protocol,
                address = place,
                "UNPROTECTED LISTENER {what}; refuse_unprotected: true makes this an error"
            );
        }
        tracing::info!(receiver = %cx.id, protocol = self.protocol, address = place, "listening");
        Ok(bound)
    }
}
