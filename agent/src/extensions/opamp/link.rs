//! One connection to a server: requests over HTTP, or a WebSocket.

mod http;
mod socket;

use std::time::Duration;

use tailwater_exporters::client::{ClientOptions, ClientParts, HttpClient};
use tailwater_opamp::InstanceUid;
use tailwater_opamp::proto::{AgentToServer, ServerToAgent};

use self::http::HttpLink;
use self::socket::SocketLink;
use super::settings::Target;

/// Our name in each request.
const UID_HEADER: &str = "opamp-instance-uid";

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The connection is of no use any more; whether what was sent arrived is not known.
    Lost(String),
    /// The server has too much to do, perhaps for so long.
    Throttled(Option<Duration>, String),
    /// The message is too large for one side; it is not to be sent again.
    TooLarge(String),
}

/// Whom to speak to, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// Where.
    pub target: Target,
    /// How.
    pub client: ClientOptions,
}

/// A connection.
pub enum Link {
    /// By requests.
    Http(Box<HttpLink>),
    /// Over a WebSocket.
    Socket(Box<SocketLink>),
}

impl Link {
    /// Opens one; by requests, nothing is opened before the first.
    pub async fn open(way: &Way, uid: InstanceUid, bytes_max: usize) -> Result<Link, Trouble> {
        let parts = ClientParts {
            response_bytes_max: bytes_max,
            ..ClientParts::new(way.client.clone())
        };
        let client = HttpClient::new(parts).map_err(|e| Trouble::Lost(e.to_string()))?;
        let endpoint = way.target.endpoint.clone();
        match way.target.websocket {
            false => {
                let link = HttpLink::new(client, endpoint, bytes_max);
                Ok(Link::Http(Box::new(link)))
            }
            true => {
                let socket = SocketLink::open(&client, &endpoint, uid, bytes_max).await?;
                Ok(Link::Socket(Box::new(socket)))
            }
        }
    }

    /// Sends a message. By requests, its answer is there when this returns.
    pub async fn send(&mut self, message: &AgentToServer) -> Result<(), Trouble> {
        match self {
            Link::Http(link) => link.send(message).await,
            Link::Socket(link) => link.send(message).await,
        }
    }

    /// The answer that is there already.
    pub fn ready(&mut self) -> Option<ServerToAgent> {
        match self {
            Link::Http(link) => link.answer.take(),
            Link::Socket(_) => None,
        }
    }

    /// The next message, whenever it comes. What was not awaited to the end is not lost.
    pub async fn receive(&mut self) -> Result<ServerToAgent, Trouble> {
        match self {
            Link::Http(_) => std::future::pending().await,
            Link::Socket(link) => link.receive().await,
        }
    }

    /// Ends it in order.
    pub async fn close(self) {
        if let Link::Socket(link) = self {
            link.close().await;
        }
    }
}

fn too_large(what: &str, bytes: usize, bytes_max: usize) -> String {
    format!(
        "{what} of {bytes} bytes is larger than message_bytes_max ({bytes_max}) and is not sent"
    )
}
