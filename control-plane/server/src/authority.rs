//! The authority of certificates of agents: each says which agent it is of, lasts for a short time, and is renewed by
//! the agent itself, over a connection that shows the one before. Source: the OpAMP specification, version 0.18,
//! "Agent-initiated CSR Flow" and "Revoking Access".
//!
//! A certificate is known by its number. What was issued is kept before it is given out; what is revoked is kept
//! before anybody is told.

mod files;
mod verify;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{CertificateSigningRequestParams, DnType, DnValue, Issuer, KeyPair};
use sha2::{Digest, Sha256};
use tailwater_control_plane::store::{CertificateRecord, Certificates, StoreError};
use tailwater_opamp::InstanceUid;
use tailwater_opamp::proto::{ConnectionSettingsOffers, OpAmpConnectionSettings, TlsCertificate};
use tailwater_opamp::signature::hex;

use crate::hub::Counts;

pub use self::files::{CA_FILE, init, issue_server};
pub use self::verify::{Shown, Unrevoked};

/// The largest request, bytes.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// So many certificates of an agent count at the same time; a further one takes the place of the oldest.
const LIVE_MAX: usize = 8;
/// So many are known that have not ended.
const CERTIFICATES_MAX: usize = 200_000;
/// An agent gets a certificate at most this often, ms; those that last for a short time more often.
const INTERVAL_MS: u64 = 10_000;
/// So many requests wait for somebody.
const WAITING_MAX: usize = 1_000;
/// A request waits for so long, and so long an agent may ask under the name that it was given, ms.
const WAITING_MS: u64 = 24 * 3_600_000;
/// The author of what an agent got by showing what it had.
const RENEWAL: &str = "certificate";

/// How certificates are issued.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long they last, ms.
    pub lifetime_ms: u64,
    /// The first one of an agent waits for somebody.
    pub approval: bool,
    /// How often agents are to say something, seconds: offered with each certificate, as an offer without it would
    /// switch that off.
    pub heartbeat_seconds: u64,
}

/// Who is at the other end, as far as it shows it.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Its certificate.
    pub certificate: Option<Shown>,
    /// The name of its token.
    pub token: Option<String>,
}

/// How an agent stands that comes without a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It never had one, or they have ended.
    New,
    /// It has one that counts, so this is another agent.
    Certified,
    /// It had one that was revoked.
    Barred,
}

/// What is counted.
#[derive(Debug, Default)]
pub struct Issued {
    /// Certificates.
    pub issued: AtomicU64,
    /// Requests that were refused.
    pub refused: AtomicU64,
}

/// A first request that waits for somebody.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Of which agent.
    pub uid: InstanceUid,
    /// By which token.
    pub author: String,
    /// Since when, ms.
    pub since_ms: u64,
    request: Vec<u8>,
}

#[derive(Default)]
struct State {
    /// By their numbers, without their text.
    certificates: HashMap<String, CertificateRecord>,
    by_uid: HashMap<String, Vec<String>>,
    waiting: BTreeMap<String, Waiting>,
    /// Names that were given to the agent of another name, and when.
    given: HashMap<InstanceUid, (InstanceUid, u64)>,
}

/// See the module's documentation.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    store: Arc<dyn Certificates>,
    terms: Terms,
    state: Mutex<State>,
    /// What is counted.
    pub counts: Issued,
}

/// Nothing of its key is for others to see.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// That of a state directory; [`init`] makes it.
    ///
    /// # Errors
    /// There is none, others can read its key, or what the store says; for people.
    pub fn open(
        dir: &Path,
        store: Arc<dyn Certificates>,
        terms: Terms,
    ) -> Result<Authority, String> {
        let (pem, issuer) = files::load(dir)?;
        let authority = Authority {
            pem,
            issuer,
            store,
            terms,
            state: Mutex::default(),
            counts: Issued::default(),
        };
        authority.reload().map_err(|e| e.to_string())?;
        Ok(authority)
    }

    /// Reads anew what was issued and revoked: another process may have done that.
    ///
    /// # Errors
    /// What the store says.
    pub fn reload(&self) -> Result<(), StoreError> {
        let records = self.store.certificates()?;
        let mut state = self.lock();
        (state.certificates, state.by_uid) = Default::default();
        for record in records {
            state.know(record);
        }
        Ok(())
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How an agent stands that comes without a certificate.
    pub fn standing(&self, uid: InstanceUid, now_ms: u64) -> Standing {
        let state = self.lock();
        let mut standing = Standing::New;
        for record in state.of(uid).filter(|r| r.ends_ms > now_ms) {
            match (record.revoked_ms, record.used_ms) {
                (None, Some(_)) => return Standing::Certified,
                (Some(_), Some(_)) => standing = Standing::Barred,
                // What was never shown may have been lost on its way.
                (_, None) => {}
            }
        }
        standing
    }

    /// Whether a certificate does not count any more, though it has not ended.
    pub fn is_revoked(&self, serial: &str) -> bool {
        let state = self.lock();
        let known = state.certificates.get(serial);
        known.is_some_and(|r| r.revoked_ms.is_some())
    }

    /// Another name was given to the holder of a certificate: it may ask for one under that name.
    pub fn gave(&self, new: InstanceUid, former: InstanceUid, now_ms: u64) {
        let mut state = self.lock();
        let given = &mut state.given;
        given.retain(|_, (_, at)| *at + WAITING_MS > now_ms);
        if given.len() < WAITING_MAX {
            given.insert(new, (former, now_ms));
        }
    }

    /// Whether this name was given to the agent of that other one.
    pub fn has_given(&self, new: InstanceUid, former: InstanceUid, now_ms: u64) -> bool {
        let given = self.lock().given.get(&new).copied();
        given.is_some_and(|(of, at)| of == former && at + WAITING_MS > now_ms)
    }

    /// A certificate is shown by the agent that it is of. The first time, others that were made for it and never shown
    /// stop to count.
    ///
    /// # Errors
    /// What the store says.
    pub fn shown(&self, uid: InstanceUid, serial: &str, now_ms: u64) -> Result<(), StoreError> {
        let changed = {
            let state = self.lock();
            let known = state.certificates.get(serial);
            if known.is_some_and(|r| r.used_ms.is_some()) {
                return Ok(());
            }
            let mut record = known.cloned().unwrap_or_else(|| CertificateRecord {
                // The database was restored since it was made. It ends by itself.
                serial: serial.to_owned(),
                uid: uid.to_string(),
                request: String::new(),
                pem: String::new(),
                author: "not known".to_owned(),
                issued_ms: now_ms,
                ends_ms: now_ms + self.terms.lifetime_ms,
                used_ms: None,
                revoked_ms: None,
            });
            record.used_ms = Some(now_ms);
            let unused = state
                .of(uid)
                .filter(|r| r.used_ms.is_none() && r.revoked_ms.is_none() && r.serial != serial);
            let revoked = unused.map(|r| revoked(r, now_ms));
            revoked.chain([record]).collect::<Vec<_>>()
        };
        self.keep(changed)
    }

    /// Answers the request of an agent: with a certificate, or with none if it waits for somebody.
    ///
    /// # Errors
    /// Why there is none; for people.
    pub fn request(
        &self,
        uid: InstanceUid,
        request: &[u8],
        caller: &Caller,
        now_ms: u64,
    ) -> Result<Option<ConnectionSettingsOffers>, String> {
        let answer = self.answer(uid, request, caller, now_ms);
        if answer.is_err() {
            Counts::add(&self.counts.refused);
        }
        answer
    }

    fn answer(
        &self,
        uid: InstanceUid,
        request: &[u8],
        caller: &Caller,
        now_ms: u64,
    ) -> Result<Option<ConnectionSettingsOffers>, String> {
        let parsed = parsed(uid, request)?;
        if let Some(pem) = self.made_for(uid, request, now_ms)? {
            return Ok(Some(self.offer(pem)));
        }
        let holds = caller.certificate.as_ref().and_then(|c| c.uid);
        let is_known = holds.is_some_and(|h| h == uid || self.has_given(uid, h, now_ms));
        let author = match (is_known, &caller.token) {
            (true, _) => RENEWAL.to_owned(),
            (false, Some(name)) => name.clone(),
            (false, None) => "nobody".to_owned(),
        };
        if !is_known && self.standing(uid, now_ms) != Standing::New {
            return Err(
                "the certificate of this agent was revoked, or another agent has it".to_owned(),
            );
        }
        if !is_known && self.terms.approval {
            return self.wait(uid, request, author, now_ms).map(|()| None);
        }
        let pem = self.issue(uid, &parsed, request, author, now_ms)?;
        Ok(Some(self.offer(pem)))
    }

    /// Has a request wait for somebody.
    fn wait(
        &self,
        uid: InstanceUid,
        request: &[u8],
        author: String,
        now_ms: u64,
    ) -> Result<(), String> {
        let mut state = self.lock();
        state
            .waiting
            .retain(|_, w| w.since_ms + WAITING_MS > now_ms);
        let key = uid.to_string();
        if state.waiting.len() >= WAITING_MAX && !state.waiting.contains_key(&key) {
            return Err("too many requests wait for somebody to approve them".to_owned());
        }
        let since_ms = state.waiting.get(&key).map_or(now_ms, |w| w.since_ms);
        let waiting = Waiting {
            uid,
            author,
            since_ms,
            request: request.to_vec(),
        };
        state.waiting.insert(key, waiting);
        Ok(())
    }

    /// Somebody admits an agent that waits: the certificate, to be given to it.
    ///
    /// # Errors
    /// None waits, or what keeps it from being made; for people.
    pub fn admit(&self, uid: InstanceUid, now_ms: u64) -> Result<ConnectionSettingsOffers, String> {
        let waiting = self.lock().waiting.remove(&uid.to_string());
        let waiting = waiting.ok_or("no request of this agent waits")?;
        let parsed = parsed(uid, &waiting.request)?;
        let pem = self.issue(uid, &parsed, &waiting.request, waiting.author, now_ms)?;
        Ok(self.offer(pem))
    }

    /// All certificates of an agent stop to count, and what waits of it is dropped. How many that were.
    ///
    /// # Errors
    /// There are none, or what the store says; for people.
    pub fn revoke(&self, uid: InstanceUid, now_ms: u64) -> Result<usize, String> {
        let (changed, waited) = {
            let mut state = self.lock();
            let waited = state.waiting.remove(&uid.to_string()).is_some();
            let barred = |r: &CertificateRecord| CertificateRecord {
                // It bars the name, whether it was shown or not.
                used_ms: r.used_ms.or(Some(now_ms)),
                ..revoked(r, now_ms)
            };
            let live = state.of(uid).filter(|r| r.counts(now_ms));
            (live.map(barred).collect::<Vec<_>>(), waited)
        };
        let count = changed.len() + usize::from(waited);
        if count == 0 {
            return Err("this agent has no certificate that counts".to_owned());
        }
        self.keep(changed).map_err(|e| e.to_string())?;
        Ok(count)
    }

    /// All that have not been forgotten, the oldest first, and requests that wait.
    pub fn list(&self) -> (Vec<CertificateRecord>, Vec<Waiting>) {
        let state = self.lock();
        let mut all: Vec<_> = state.certificates.values().cloned().collect();
        all.sort_by(|a, b| (a.issued_ms, &a.serial).cmp(&(b.issued_ms, &b.serial)));
        (all, state.waiting.values().cloned().collect())
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Forgets what has ended.
    ///
    /// # Errors
    /// What the store says.
    pub fn forget_ended(&self, now_ms: u64) -> Result<usize, StoreError> {
        let count = self.store.forget_certificates(now_ms)?;
        let mut state = self.lock();
        let State {
            certificates,
            by_uid,
            ..
        } = &mut *state;
        certificates.retain(|_, r| r.ends_ms >= now_ms);
        by_uid.retain(|_, serials| {
            serials.retain(|s| certificates.contains_key(s));
            !serials.is_empty()
        });
        Ok(count)
    }

    /// What was made for the same request, if it counts: an answer may get lost.
    fn made_for(
        &self,
        uid: InstanceUid,
        request: &[u8],
        now_ms: u64,
    ) -> Result<Option<String>, String> {
        let request = hex(&Sha256::digest(request));
        let serial = {
            let state = self.lock();
            let same = state
                .of(uid)
                .find(|r| r.request == request && r.counts(now_ms));
            same.map(|r| r.serial.clone())
        };
        let Some(serial) = serial else {
            return Ok(None);
        };
        let record = self.store.certificate(&serial).map_err(|e| e.to_string())?;
        Ok(record.map(|r| r.pem))
    }

    fn issue(
        &self,
        uid: InstanceUid,
        parsed: &CertificateSigningRequestParams,
        request: &[u8],
        author: String,
        now_ms: u64,
    ) -> Result<String, String> {
        let replaced = {
            let state = self.lock();
            let mut live: Vec<_> = state.of(uid).filter(|r| r.counts(now_ms)).collect();
            // Those that were never shown go first.
            live.sort_by_key(|r| (r.used_ms.is_some(), r.issued_ms));
            let pause = INTERVAL_MS.min(self.terms.lifetime_ms / 10);
            let has = live.iter().any(|r| r.used_ms.is_some());
            if has && live.iter().any(|r| r.issued_ms + pause > now_ms) {
                return Err("this agent was given a certificate just now".to_owned());
            }
            if state.certificates.len() >= CERTIFICATES_MAX {
                return Err("too many certificates have not ended".to_owned());
            }
            let over = (live.len() + 1).saturating_sub(LIVE_MAX);
            let oldest = live.into_iter().take(over);
            oldest.map(|r| revoked(r, now_ms)).collect::<Vec<_>>()
        };
        let ends_ms = now_ms + self.terms.lifetime_ms;
        let made = files::certificate(uid, parsed, &self.issuer, now_ms, ends_ms)?;
        let record = CertificateRecord {
            serial: made.serial,
            uid: uid.to_string(),
            request: hex(&Sha256::digest(request)),
            pem: made.pem.clone(),
            author,
            issued_ms: now_ms,
            ends_ms,
            used_ms: None,
            revoked_ms: None,
        };
        tracing::info!(agent = %uid, by = record.author, serial = record.serial, "gets a certificate");
        let all = replaced.into_iter().chain([record]).collect();
        self.keep(all).map_err(|e| e.to_string())?;
        Counts::add(&self.counts.issued);
        Ok(made.pem)
    }

    fn offer(&self, pem: String) -> ConnectionSettingsOffers {
        ConnectionSettingsOffers {
            hash: Sha256::digest(&pem).to_vec(),
            opamp: Some(OpAmpConnectionSettings {
                certificate: Some(TlsCertificate {
                    cert: pem.into_bytes(),
                    private_key: Vec::new(),
                    ca_cert: self.pem.clone().into_bytes(),
                }),
                heartbeat_interval_seconds: self.terms.heartbeat_seconds,
                ..OpAmpConnectionSettings::default()
            }),
        }
    }

    /// Keeps what became of certificates, and only then knows it.
    fn keep(&self, records: Vec<CertificateRecord>) -> Result<(), StoreError> {
        for record in records {
            self.store.keep_certificate(&record)?;
            self.lock().know(record);
        }
        Ok(())
    }
}

impl State {
    fn know(&mut self, mut record: CertificateRecord) {
        record.pem = String::new();
        let of_uid = self.by_uid.entry(record.uid.clone()).or_default();
        if !of_uid.contains(&record.serial) {
            of_uid.push(record.serial.clone());
        }
        self.certificates.insert(record.serial.clone(), record);
    }

    fn of(&self, uid: InstanceUid) -> impl Iterator<Item = &CertificateRecord> {
        let serials = self.by_uid.get(&uid.to_string()).into_iter().flatten();
        serials.filter_map(move |s| self.certificates.get(s))
    }
}

/// As it is when it does not count any more.
fn revoked(record: &CertificateRecord, now_ms: u64) -> CertificateRecord {
    CertificateRecord {
        revoked_ms: Some(now_ms),
        ..record.clone()
    }
}

/// Looks at a request: whether who asks has the key, and for whom it is.
fn parsed(uid: InstanceUid, request: &[u8]) -> Result<CertificateSigningRequestParams, String> {
    if request.len() > REQUEST_BYTES_MAX {
        return Err(format!(
            "a request for a certificate has at most {REQUEST_BYTES_MAX} bytes"
        ));
    }
    let text = std::str::from_utf8(request);
    let text = text.map_err(|_| "the request for a certificate is not in PEM form")?;
    let parsed = CertificateSigningRequestParams::from_pem(text)
        .map_err(|e| format!("the request for a certificate cannot be taken: {e}"))?;
    let name = match parsed.params.distinguished_name.get(&DnType::CommonName) {
        Some(DnValue::Utf8String(name)) => Some(name.clone()),
        Some(DnValue::PrintableString(name)) => Some(name.as_str().to_owned()),
        _ => None,
    };
    // Of the subject nothing is taken over; but one of another agent is a mistake, or worse.
    let named = name.and_then(|n| n.parse::<InstanceUid>().ok());
    match named.is_none_or(|n| n == uid) {
        true => Ok(parsed),
        false => Err("the request for a certificate is for another agent than asks".to_owned()),
    }
}

#[cfg(test)]
mod tests;
