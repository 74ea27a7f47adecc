//! What is kept of who sent a request.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::http::request::Parts;
use tailwater_pipeline::client::ClientInfo;

use super::guard::Guard;
use super::room::Share;

/// Who is at the other end of a connection. Requests without anything of their own share it.
#[derive(Clone)]
pub struct Peer {
    client: Arc<ClientInfo>,
    share: Arc<Share>,
}

impl Peer {
    /// One at this address; none for a socket in the file system.
    pub fn at(address: Option<IpAddr>) -> Peer {
        Peer {
            client: Arc::new(ClientInfo::at(address)),
            share: Arc::default(),
        }
    }

    /// What the requests of this connection have taken of what all share.
    pub fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// The sender of a request with this head, with its metadata if that is wanted.
    pub fn sent(&self, head: &Parts, guard: &Guard, metadata: bool) -> Arc<ClientInfo> {
        let auth = guard.attributes(&head.headers);
        if auth.is_empty() && !metadata {
            return self.client.clone();
        }
        let mut client = ClientInfo::clone(&self.client);
        for (name, value) in auth {
            client.add_auth(name, &value);
        }
        if metadata {
            for (name, value) in &head.headers {
                client.add_metadata(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
            }
            // Over HTTP/2 the host is no header.
            if let Some(authority) = head.uri.authority() {
                client.add_metadata(":authority", authority.as_str());
            }
        }
        Arc::new(client)
    }
}
