//! One connection, from its first message to its last.

use std::pin::pin;
use std::time::Duration;

use tailwater_opamp::Event;
use tailwater_opamp::proto::ServerToAgent;
use tokio::time::{Instant, sleep_until, timeout};

use super::dry_run::DRY_RUN;
use super::{Driver, LOOK_INTERVAL, stopped};
use crate::extensions::opamp::link::{Link, Trouble, Way};

/// How long an answer may be waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection that lasted so long was a good one: losing it is no reason to wait.
const STEADY: Duration = Duration::from_secs(30);
/// How long the last messages may take, each.
const LAST_TIMEOUT: Duration = Duration::from_millis(800);
/// How long settings that are tried may take to show that they work.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// How a connection ended.
pub enum Ended {
    /// The agent ends.
    Stopped,
    /// Other settings are to be tried, or to be used again.
    Switched,
    /// It is of no use any more.
    Lost {
        /// Why; for people.
        text: String,
        /// It was a good one for a while.
        steady: bool,
        /// How long not to try.
        wait: Option<Duration>,
    },
}

/// What a connection knows of itself.
struct Session {
    answered: bool,
    /// Since when an answer is waited for.
    waiting: Option<Instant>,
    begun: Instant,
}

impl Driver {
    /// Connects by `way` and speaks until that ends.
    pub(super) async fn session(&mut self, way: &Way) -> Ended {
        let mut stop = self.stop.clone();
        let bytes_max = self.s.settings.message_bytes_max;
        let opening = Link::open(way, self.client.uid(), bytes_max);
        let mut link = tokio::select! {
            link = opening => match link {
                Ok(link) => link,
                Err(trouble) => return self.lost(trouble, None),
            },
            () = stopped(&mut stop) => return Ended::Stopped,
        };
        self.client.connected();
        self.client.set_interval(self.interval());
        let mut session = Session {
            answered: false,
            waiting: None,
            begun: Instant::now(),
        };
        let ended = self.speak(&mut link, &mut session).await;
        self.s.metrics.connected.set(0);
        match &ended {
            Ended::Stopped | Ended::Switched => {
                // A server that has gone cannot be told.
                let farewell = self.client.farewell();
                if let Ok(Ok(())) = timeout(LAST_TIMEOUT, link.send(&farewell)).await {
                    self.client.sent();
                }
                link.close().await;
            }
            Ended::Lost { .. } => {}
        }
        ended
    }

    async fn speak(&mut self, link: &mut Link, session: &mut Session) -> Ended {
        let mut stop = self.stop.clone();
        let mut look = Instant::now();
        loop {
            if let Some(ended) = self.say(link, session).await {
                return ended;
            }
            let silence = session.waiting.map(|since| since + ANSWER_TIMEOUT);
            let trial = self
                .candidate
                .as_ref()
                .map(|_| session.begun + TRIAL_TIMEOUT);
            let patience = silence.into_iter().chain(trial).min();
            let due = self.client.deadline().map(|d| d.saturating_sub(self.now()));
            let due = due.map(|d| Instant::now() + d);
            let wake = [Some(look), patience, due].into_iter().flatten().min();
            tokio::select! {
                () = stopped(&mut stop) => return Ended::Stopped,
                received = link.receive() => match received {
                    Ok(message) => {
                        if let Some(ended) = self.heard(message, session).await {
                            return ended;
                        }
                    }
                    Err(trouble) => return self.lost(trouble, Some(session)),
                },
                Some(answer) = self.answers.recv() => {
                    self.answered(answer).await;
                    self.look().await;
                }
                Some((question, answer)) = self.checks.recv() => self.checked(question, answer),
                () = sleep_until(wake.unwrap_or(look)) => {
                    let now = Instant::now();
                    if patience.is_some_and(|p| now >= p) {
                        let text = "the server does not answer".to_owned();
                        return self.lost(Trouble::Lost(text), Some(session));
                    }
                    if now >= look {
                        look = now + LOOK_INTERVAL;
                        self.look().await;
                        self.ask_for_certificate();
                    }
                }
            }
        }
    }

    /// Says everything there is to say.
    async fn say(&mut self, link: &mut Link, session: &mut Session) -> Option<Ended> {
        let mut stop = self.stop.clone();
        loop {
            let message = self.client.take(self.now())?;
            let sent = {
                let mut sending = pin!(link.send(&message));
                tokio::select! {
                    sent = &mut sending => sent,
                    // What is half said is said to the end, if that does not take long.
                    () = stopped(&mut stop) => match timeout(LAST_TIMEOUT, sending).await {
                        Ok(sent) => sent,
                        Err(_) => {
                            self.client.lost();
                            return Some(Ended::Stopped);
                        }
                    },
                }
            };
            match sent {
                Ok(()) => {
                    self.s.metrics.messages_sent.inc();
                    self.client.sent();
                }
                Err(Trouble::TooLarge(text)) => {
                    tracing::error!("OpAMP: {text}");
                    self.client.discard();
                    continue;
                }
                Err(trouble) => {
                    self.client.lost();
                    return Some(self.lost(trouble, Some(session)));
                }
            }
            match link.ready() {
                Some(answer) => {
                    if let Some(ended) = self.heard(answer, session).await {
                        return Some(ended);
                    }
                }
                None => session.waiting = session.waiting.or(Some(Instant::now())),
            }
        }
    }

    /// Takes an answer. Some if the connection ends by it.
    async fn heard(&mut self, message: ServerToAgent, session: &mut Session) -> Option<Ended> {
        session.waiting = None;
        self.s.metrics.messages_received.inc();
        let good = message.error_response.is_none();
        if !session.answered && good {
            session.answered = true;
            self.s.metrics.connected.set(1);
            tracing::info!(uid = %self.client.uid(), "OpAMP: the server answers");
            self.confirm().await;
        }
        for event in self.client.received(message) {
            match event {
                Event::Apply(offer) => self.apply(offer).await,
                Event::Connection(offer) => {
                    if self.try_settings(*offer).await {
                        return Some(Ended::Switched);
                    }
                    self.client.set_interval(self.interval());
                }
                Event::Renamed(uid) => self.renamed(uid).await,
                Event::Throttled(wait) => {
                    let text = "the server has too much to do".to_owned();
                    return Some(self.lost(Trouble::Throttled(wait, text), Some(session)));
                }
                Event::Refused(text) => {
                    tracing::warn!("OpAMP: the server refused a message: {text}");
                }
                Event::Custom(message) if message.capability == DRY_RUN => {
                    self.asked_for_dry_run(&message);
                }
                Event::Custom(message) => self.asked_for_state(&message),
                Event::Restart => {
                    tracing::warn!("OpAMP: the server has this agent begin anew");
                    self.s.lent.control.restart();
                }
                Event::Ignored(what) => {
                    tracing::warn!("OpAMP: ignored what the server sent: {what}");
                }
            }
        }
        None
    }

    fn lost(&mut self, trouble: Trouble, session: Option<&Session>) -> Ended {
        let (text, wait) = match trouble {
            Trouble::Lost(text) | Trouble::TooLarge(text) => (text, None),
            Trouble::Throttled(asked, text) => {
                let random = self.random();
                (text, Some(self.backoff.throttled(asked, random)))
            }
        };
        let steady = session.is_some_and(|s| s.answered && s.begun.elapsed() >= STEADY);
        Ended::Lost { text, steady, wait }
    }
}
