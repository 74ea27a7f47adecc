//! What the server offers, and what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use tailwater_opamp::proto::{AgentConfigMap, AgentRemoteConfig, ConnectionSettingsOffers, Status};
use tailwater_opamp::{Event, InstanceUid};

use super::{Applying, Driver, Expected};
use crate::admin::shown::InForce;
use crate::control::{Answer, Outcome, Request, Wanted};
use crate::extensions::opamp::connection::{Kept, Offered, certificate_request, keep};
use crate::extensions::opamp::remote::{ATTEMPTS_MAX, Distrust, Taken, Told, distrust, take};
use crate::extensions::opamp::store::{Files, Remote};

/// Who asked, in the log and among the generations.
const BY: &str = "OpAMP";
/// How often a certificate is asked for at most, under the same name.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(3600);
/// Those that are renewed shortly before their end are asked for more often, but not more than this.
const CERTIFICATE_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How often an offer makes way for newer requests.
const SUPERSEDED_MAX: u32 = 10;

impl Driver {
    /// Goes on with what was being put into force when the agent ended.
    pub(super) async fn take_up_again(&mut self) {
        if self.remote.status != Status::Applying as i32 {
            return;
        }
        let offered = self.remote.offered.clone().unwrap_or_default();
        let hash = self.remote.hash.clone();
        if self.remote.attempts >= ATTEMPTS_MAX {
            let times = self.remote.attempts;
            let text = format!("the agent ended {times} times while it put this into force");
            let event = self.client.resume(remote_config(&hash, offered.clone()));
            if let Event::Apply(_) = event {
                let outcome = Outcome::Refused(vec![text]);
                self.settle(hash, offered, None, outcome).await;
            }
            return;
        }
        if let Event::Apply(offer) = self.client.resume(remote_config(&hash, offered)) {
            self.apply(offer).await;
        }
    }

    /// Puts a configuration into force, or says why not.
    pub(super) async fn apply(&mut self, offer: AgentRemoteConfig) {
        let mut next = Some(offer);
        while let Some(offer) = next.take() {
            let since = self.now();
            let hash = offer.config_hash;
            let files = offer.config.unwrap_or_default().config_map;
            let refused = match take(&files, &self.s.settings, &self.remote) {
                Ok(taken) => match self.begin_applying(&hash, &files).await {
                    Ok(()) => {
                        self.applying = Some(Applying {
                            hash,
                            files,
                            taken,
                            superseded: 0,
                            since,
                        });
                        return self.ask();
                    }
                    Err(text) => vec![text],
                },
                Err(reasons) => {
                    match distrust(&files, &self.s.settings, &self.remote) {
                        Some(Distrust::Unsigned) => self.s.metrics.offers_unsigned.inc(),
                        Some(Distrust::Outdated) => self.s.metrics.offers_outdated.inc(),
                        None => {}
                    }
                    reasons
                }
            };
            for reason in &refused {
                tracing::error!(by = BY, "configuration refused: {reason}");
            }
            let outcome = Outcome::Refused(refused);
            next = self.settle(hash, files, None, outcome).await;
        }
    }

    /// Keeps what is tried before it is tried: what cannot be kept would be gone after a restart.
    async fn begin_applying(&mut self, hash: &[u8], files: &Files) -> Result<(), String> {
        let same = self.remote.status == Status::Applying as i32 && self.remote.hash == hash;
        self.remote = Remote {
            hash: hash.to_vec(),
            status: Status::Applying as i32,
            error: String::new(),
            attempts: if same { self.remote.attempts + 1 } else { 1 },
            offered: Some(files.clone()),
            ..self.remote.clone()
        };
        let remote = self.remote.clone();
        self.kept(move |store| store.set_remote(&remote)).await
    }

    fn ask(&mut self) {
        let Some(applying) = &self.applying else {
            return;
        };
        let tell = self.tell.clone();
        self.s.lent.control.ask(Request {
            wanted: Wanted::Layer(applying.taken.layer.clone()),
            by: BY,
            if_generation: None,
            dry_run: false,
            // There is room: one change is asked for at a time.
            answer: Box::new(move |answer| drop(tell.try_send(answer))),
        });
    }

    /// What became of the change that was asked for.
    pub(super) async fn answered(&mut self, answer: Answer) {
        let Some(mut applying) = self.applying.take() else {
            return;
        };
        if answer.outcome == Outcome::Superseded && applying.superseded < SUPERSEDED_MAX {
            applying.superseded += 1;
            self.applying = Some(applying);
            return self.ask();
        }
        let Applying {
            hash,
            files,
            taken,
            since,
            ..
        } = applying;
        let took = self.now().saturating_sub(since);
        let next = self.settle(hash, files, Some(taken), answer.outcome).await;
        if self.remote.status == Status::Applied as i32 {
            self.state.applied_in = Some(took);
        }
        if let Some(next) = next {
            self.apply(next).await;
        }
    }

    /// Says and keeps what came of an offer. Gives the next one.
    async fn settle(
        &mut self,
        hash: Vec<u8>,
        files: Files,
        taken: Option<Taken>,
        outcome: Outcome,
    ) -> Option<AgentRemoteConfig> {
        let told = Told::of(&hash, &files, &outcome);
        let good = told.status == Status::Applied as i32;
        match good {
            true => self.s.metrics.offers_applied.inc(),
            false => self.s.metrics.offers_refused.inc(),
        }
        let lines = told
            .files
            .iter()
            .flat_map(|(_, errors)| errors.iter().cloned());
        let error = lines.collect::<Vec<_>>().join("\n");
        self.remote.hash = hash.clone();
        self.remote.status = told.status;
        self.remote.error = error.clone();
        self.remote.offered = None;
        self.remote.attempts = 0;
        if let (true, Some(taken)) = (good, taken) {
            if self.remote.applied.as_ref() != Some(&files) {
                self.remote.previous = self.remote.applied.replace(files.clone());
            }
            self.remote.version = match self.s.settings.allow_older {
                true => taken.version,
                false => taken.version.max(self.remote.version),
            };
            self.expected = Some(Expected {
                hash,
                layer: taken.layer,
                files,
            });
        }
        self.compared = None;
        self.told = Some(told);
        self.keep_remote().await;
        let event = self.client.settle(if good { Ok(()) } else { Err(error) });
        match event {
            Some(Event::Apply(next)) => Some(next),
            _ => None,
        }
    }

    async fn keep_remote(&self) {
        let remote = self.remote.clone();
        if let Err(error) = self.kept(move |store| store.set_remote(&remote)).await {
            tracing::error!(error, "OpAMP: after a restart this will not be known");
        }
    }

    /// Whether what was offered is still in force: somebody here may have put something else into force.
    pub(super) async fn compare(&mut self, in_force: &Arc<InForce>) {
        let Some(expected) = &self.expected else {
            return;
        };
        let is = in_force.layer == expected.layer;
        let mut remote = self.remote.clone();
        if remote.hash == expected.hash {
            let newest = in_force.generations.last().map_or("", |g| &g.by);
            let number = in_force.generation;
            let text =
                format!("not in force any more: generation {number} is, asked for by {newest}");
            self.client
                .set_in_force(if is { Ok(()) } else { Err(text.clone()) });
            (remote.status, remote.error) = match is {
                true => (Status::Applied as i32, String::new()),
                false => (Status::Failed as i32, text),
            };
        }
        // What a start is to begin with.
        let is_previous = |files: &Files| {
            let taken = take(files, &self.s.settings, &Remote::default());
            in_force.layer.is_some() && taken.is_ok_and(|t| t.layer == in_force.layer)
        };
        remote.applied = match is {
            true => Some(expected.files.clone()),
            false => remote.previous.clone().filter(is_previous),
        };
        if remote == self.remote {
            return;
        }
        self.remote = remote;
        self.keep_remote().await;
    }

    /// The server gave the agent another name.
    pub(super) async fn renamed(&mut self, uid: InstanceUid) {
        tracing::info!(%uid, "OpAMP: the server gave this instance another name");
        let configured = self.s.settings.instance_uid;
        if let Err(error) = self.kept(move |store| store.rename(uid, configured)).await {
            tracing::error!(
                error,
                "OpAMP: the name will be the former one after a restart"
            );
        }
        // A certificate names the agent, and so does the request for one.
        self.key = None;
        self.asked = None;
        self.renew = true;
        self.ask_for_certificate();
    }

    /// Looks at settings that are offered. True if they are to be tried over another connection.
    pub(super) async fn try_settings(&mut self, offer: ConnectionSettingsOffers) -> bool {
        let Some(opamp) = offer.opamp else {
            return false;
        };
        let current = self.way();
        let offered = Offered::new(offer.hash, opamp, self.valid.as_ref(), self.key.as_deref());
        let hash = offered.hash.clone();
        if let Err(text) = offered.way(&self.s.settings) {
            tracing::error!("OpAMP: offered settings are refused: {text}");
            self.client.connection_status(hash, Status::Failed, &text);
            return false;
        }
        let same = current.is_ok_and(|way| offered.same_way(&self.s.settings, &way));
        let kept = match same {
            true => Kept {
                valid: Some(offered.clone()),
                candidate: None,
            },
            false => Kept {
                valid: self.valid.clone(),
                candidate: Some(offered.clone()),
            },
        };
        if let Err(text) = self.keep_settings(kept).await {
            self.client.connection_status(hash, Status::Failed, &text);
            return false;
        }
        if same {
            self.valid = Some(offered);
            self.client.connection_status(hash, Status::Applied, "");
            return false;
        }
        self.client.connection_status(hash, Status::Applying, "");
        self.candidate = Some(offered);
        true
    }

    /// The server answered: what was tried works.
    pub(super) async fn confirm(&mut self) {
        let Some(offered) = self.candidate.take() else {
            return;
        };
        tracing::info!("OpAMP: the offered settings work and are used from now on");
        let hash = offered.hash.clone();
        if offered.settings.certificate.is_some() {
            self.key = None;
            self.renew = false;
            self.client.set_request(None);
        }
        self.valid = Some(offered.clone());
        let kept = Kept {
            valid: Some(offered),
            candidate: None,
        };
        if let Err(error) = self.keep_settings(kept).await {
            tracing::error!(error, "OpAMP: after a restart they will be tried again");
        }
        self.client.connection_status(hash, Status::Applied, "");
    }

    /// What was tried does not work: back to what did.
    pub(super) async fn revert(&mut self, text: &str) {
        let Some(offered) = self.candidate.take() else {
            return;
        };
        tracing::error!(
            "OpAMP: the offered settings do not work, the former ones are used again: {text}"
        );
        if offered.settings.certificate.is_some() {
            // Another one is asked for later, not over and over.
            self.key = None;
            self.client.set_request(None);
        }
        let kept = Kept {
            valid: self.valid.clone(),
            candidate: None,
        };
        if let Err(error) = self.keep_settings(kept).await {
            tracing::error!(error, "OpAMP: after a restart they will be tried again");
        }
        self.client
            .connection_status(offered.hash, Status::Failed, text);
    }

    async fn keep_settings(&self, kept: Kept) -> Result<(), String> {
        let settings = self.s.settings.clone();
        self.kept(move |store| keep(store, &settings, &kept)).await
    }

    /// Asks for a certificate where there is none of ours, or it ends soon.
    pub(super) fn ask_for_certificate(&mut self) {
        let Some(before) = self.s.settings.certificate else {
            return;
        };
        let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
        let unix = self.unix_seconds();
        let renews = self.valid.as_ref().is_none_or(|v| v.renews(seconds, unix));
        // Certificates that never last as long as is wanted are no reason to ask all the time.
        let pause = CERTIFICATE_INTERVAL
            .min(before / 2)
            .max(CERTIFICATE_INTERVAL_MIN);
        let now = self.now();
        let lately = self.asked.is_some_and(|at| now < at + pause);
        if lately || !(renews || self.renew) || self.candidate.is_some() {
            return;
        }
        self.asked = Some(now);
        if self.key.is_some() {
            // It was not answered, or refused.
            return self.client.repeat_request();
        }
        if self.valid.as_ref().is_some_and(|v| v.is_over(unix)) {
            tracing::error!("OpAMP: the certificate of this agent has ended; asks for another one");
        }
        match certificate_request(self.client.uid()) {
            Ok((key, request)) => {
                self.key = Some(key);
                self.client.set_request(Some(request));
            }
            Err(text) => tracing::error!("OpAMP: {text}"),
        }
    }
}

fn remote_config(hash: &[u8], files: Files) -> AgentRemoteConfig {
    AgentRemoteConfig {
        config: Some(AgentConfigMap { config_map: files }),
        config_hash: hash.to_vec(),
    }
}
