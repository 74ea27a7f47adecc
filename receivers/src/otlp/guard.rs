//! Who may send: the extension that `auth::authenticator` names.

use std::sync::Arc;

use hyper::HeaderMap;
use tailwater_pipeline::auth::{Authenticators, ServerAuth};
use tokio::sync::Semaphore;

use super::status::{Code, Status};

/// Senders that are checked at the same time. A check may be slow on purpose, so that guessing is; many
/// at once would take the processors from everything else.
const CHECKS_MAX: usize = 2;

/// Checks the senders of one listener.
#[derive(Clone)]
pub struct Guard(Option<(Arc<dyn ServerAuth>, Arc<Semaphore>)>);

impl Guard {
    /// The guard that `id` names; without a name everybody may send.
    ///
    /// # Errors
    /// There is no such extension, or it has nothing to check by.
    pub fn named(id: Option<&str>, all: &Authenticators) -> Result<Guard, String> {
        let Some(id) = id else { return Ok(Guard(None)) };
        let server = all.server(id).ok_or_else(|| {
            format!("the authenticator {id:?} is not an extension that checks senders")
        })?;
        Ok(Guard(Some((server, Arc::new(Semaphore::new(CHECKS_MAX))))))
    }

    /// Whether the sender of a request with these headers may send.
    ///
    /// # Errors
    /// The answer: `Unauthenticated`.
    pub async fn check(&self, headers: &HeaderMap) -> Result<(), Status> {
        let Some((server, places)) = &self.0 else {
            return Ok(());
        };
        if server.is_known(headers) {
            return Ok(());
        }
        let _place = places.acquire().await;
        let (server, headers) = (server.clone(), headers.clone());
        let checked = tokio::task::spawn_blocking(move || server.check(&headers)).await;
        match checked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(denied)) => Err(Status::new(Code::Unauthenticated, denied.to_string())),
            // The check panicked, or the receiver stops.
            Err(_) => Err(Status::unavailable("the sender cannot be checked now")),
        }
    }
}
