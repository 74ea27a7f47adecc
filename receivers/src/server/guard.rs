//! Who may send: the extension that `auth::authenticator` names.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::HeaderMap;
use tailwater_pipeline::auth::{Authenticators, ServerAuth};
use tokio::sync::Semaphore;

use super::status::{Code, Status};

/// Senders that are checked at the same time. A check may be slow on purpose, so that guessing is; many
/// at once would take the processors from everything else.
pub const CHECKS_MAX: usize = 2;
/// Senders that are or wait to be checked, at most; more are told to come again. Those that are known need
/// no check and do not wait behind those that only say who they are.
const WAITING_MAX: usize = 64;

/// Checks the senders of one listener.
#[derive(Clone)]
pub struct Guard(Option<Arc<Checks>>);

struct Checks {
    server: Arc<dyn ServerAuth>,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Counts one who waits, or is checked.
struct Waiting(Arc<Checks>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

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
        Ok(Guard(Some(Arc::new(Checks {
            server,
            places: Arc::new(Semaphore::new(CHECKS_MAX)),
            waiting: AtomicUsize::new(0),
        }))))
    }

    /// What is known of a sender that may send.
    pub fn attributes(&self, headers: &HeaderMap) -> Vec<(&'static str, String)> {
        let checks = self.0.as_ref();
        checks.map_or_else(Vec::new, |checks| checks.server.attributes(headers))
    }

    /// Whether the sender of a request with these headers may send.
    ///
    /// # Errors
    /// The answer: `Unauthenticated`, or to come again if too many are to be checked.
    pub async fn check(&self, headers: &HeaderMap) -> Result<(), Status> {
        let Some(checks) = &self.0 else {
            return Ok(());
        };
        if checks.server.is_known(headers) {
            return Ok(());
        }
        let before = checks.waiting.fetch_add(1, Ordering::AcqRel);
        let waiting = Waiting(checks.clone());
        if before >= WAITING_MAX {
            return Err(Status::unavailable("too many senders are to be checked"));
        }
        let place = checks.places.clone().acquire_owned().await;
        // Whoever was checked before may be the same.
        if checks.server.is_known(headers) {
            return Ok(());
        }
        let headers = headers.clone();
        let checked = tokio::task::spawn_blocking(move || {
            let denied = waiting.0.server.check(&headers);
            // A check goes on when its sender goes away.
            drop((place, waiting));
            denied
        });
        let checked = checked.await;
        match checked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(denied)) => Err(Status::new(Code::Unauthenticated, denied.to_string())),
            // The check panicked, or the receiver stops.
            Err(_) => Err(Status::unavailable("the sender cannot be checked now")),
        }
    }
}
