//! For which agent a connection may speak.

use std::sync::Arc;

use tailwater_opamp::InstanceUid;

use crate::authority::{Authority, Caller, Standing};

/// Why a connection does not speak for an agent any more.
pub const REVOKED: &str = "the certificate of this agent was revoked";

/// What certificates are needed, and what they are worth.
#[derive(Debug, Default)]
pub struct Trust {
    /// Issues certificates; each agent needs one of its own then.
    pub authority: Option<Arc<Authority>>,
    /// A certificate of somebody else is needed.
    pub needs_certificate: bool,
}

/// As what a connection speaks for an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaks {
    /// As the agent.
    Fully,
    /// To get a certificate, and for nothing else.
    ToEnrol,
    /// Not: that is another agent. It gets another name.
    UnderAnother,
    /// Not at all, for this reason.
    Not(&'static str),
}

impl Trust {
    /// Whether the certificate of a connection was revoked since it was shown.
    pub fn is_revoked(&self, caller: &Caller) -> bool {
        match (&self.authority, &caller.certificate) {
            (Some(authority), Some(shown)) => authority.is_revoked(&shown.serial),
            _ => false,
        }
    }

    /// As what it speaks for an agent.
    pub fn speaks(&self, uid: InstanceUid, caller: &Caller, now_ms: u64) -> Speaks {
        const OTHER: Speaks =
            Speaks::Not("the certificate is of another agent than this instance_uid");
        if self.is_revoked(caller) {
            return Speaks::Not(REVOKED);
        }
        let shows = caller.certificate.as_ref();
        let Some(authority) = &self.authority else {
            return match shows.and_then(|c| c.uid) {
                Some(named) if named != uid => OTHER,
                _ => Speaks::Fully,
            };
        };
        match shows.map(|c| c.uid) {
            Some(Some(named)) if named == uid => Speaks::Fully,
            Some(Some(named)) if authority.has_given(uid, named, now_ms) => Speaks::ToEnrol,
            Some(_) => OTHER,
            None => match authority.standing(uid, now_ms) {
                Standing::New => Speaks::ToEnrol,
                Standing::Certified => Speaks::UnderAnother,
                Standing::Barred => Speaks::Not(REVOKED),
            },
        }
    }
}
