//! Which of several processes over one database leads: the others stand by, and are not asked anything.
//!
//! Agents speak to one process, and what it knows of them is in its memory, so one has them all. It holds a lease in the
//! database. Another one takes that when it was not renewed in time; leases of groups, each with its epoch, fence what the former one
//! may still be at.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tailwater_control_plane::store::{RolloutStore, StoreError};

use crate::groups::LEASE_MS;

/// Of the lease; no group has such a name.
const NAME: &str = "*";
/// Whoever leads renews its lease so often.
const RENEW: Duration = Duration::from_millis(LEASE_MS / 3);
/// Who stands by asks so often.
const ASK: Duration = Duration::from_secs(1);

struct Contest {
    store: Arc<dyn RolloutStore>,
    holder: String,
    until: Mutex<Option<Instant>>,
    /// It has read what the one before kept.
    is_ready: AtomicBool,
}

/// See the module's documentation.
pub struct Leader {
    /// None: there is nobody else.
    contest: Option<Contest>,
}

impl Leader {
    /// There is nobody else: it leads.
    pub fn alone() -> Leader {
        Leader { contest: None }
    }

    /// Others may lead; this process is `holder`.
    pub fn among(store: Arc<dyn RolloutStore>, holder: String) -> Leader {
        Leader {
            contest: Some(Contest {
                store,
                holder,
                until: Mutex::default(),
                is_ready: AtomicBool::new(false),
            }),
        }
    }

    /// Whether it leads, as far as it knows: not before [`Leader::begin`], and not any more when the lease could not be
    /// renewed in time.
    pub fn leads(&self) -> bool {
        let until = |c: &Contest| *c.until.lock().unwrap_or_else(PoisonError::into_inner);
        let is_held = |c: &Contest| {
            c.is_ready.load(Ordering::Acquire)
                && until(c).is_some_and(|until| Instant::now() < until)
        };
        self.contest.as_ref().is_none_or(is_held)
    }

    /// It has the lease, and knows what the one before kept: it leads from now on.
    pub fn begin(&self) {
        if let Some(contest) = &self.contest {
            contest.is_ready.store(true, Ordering::Release);
        }
    }

    /// Takes the lease or renews it. Whether it has it.
    ///
    /// # Errors
    /// What the store says: it is not known then, and [`Leader::leads`] goes on until the lease would have ended.
    pub fn ask(&self) -> Result<bool, StoreError> {
        let Some(contest) = &self.contest else {
            return Ok(true);
        };
        let asked = Instant::now();
        let epoch = contest
            .store
            .lease(NAME, &contest.holder, crate::now_ms(), LEASE_MS)?;
        let until = epoch.map(|_| asked + Duration::from_millis(LEASE_MS));
        *contest.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        Ok(epoch.is_some())
    }

    /// How long to wait before it asks again.
    pub fn pause(&self) -> Duration {
        match self.leads() {
            true => RENEW,
            false => ASK,
        }
    }

    /// Gives the lease back: another one leads at once.
    pub fn resign(&self) {
        let Some(contest) = &self.contest else {
            return;
        };
        *contest.until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Err(error) = contest.store.resign(NAME, &contest.holder) {
            tracing::warn!("others lead only when the lease has ended: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tailwater_control_plane::store::SqliteStore;

    use super::*;

    /// Guarantee: one leads; another one does when it has given the lease back; who is alone leads.
    #[test]
    fn one_leads_at_a_time() {
        let store = Arc::new(SqliteStore::in_memory().unwrap());
        let [a, b] = ["a", "b"].map(|n| Leader::among(store.clone(), n.to_owned()));
        assert!(!a.leads() && !b.leads());
        assert!(a.ask().unwrap() && !b.ask().unwrap() && a.ask().unwrap());
        assert!(!a.leads(), "it does not know yet what there is");
        a.begin();
        assert!(a.leads() && !b.leads());
        assert!(a.pause() > b.pause());
        b.resign();
        assert!(!b.ask().unwrap(), "it was not its own");
        a.resign();
        assert!(b.ask().unwrap() && !a.ask().unwrap());
        b.begin();
        assert!(b.leads() && !a.leads());
        assert!(Leader::alone().leads() && Leader::alone().ask().unwrap());
    }
}
