//! Questions of a server whether a configuration would be taken: it goes the way of an offer up to the point where
//! something would be touched. See `docs/OPAMP.md`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;
use tailwater_opamp::proto::{AgentConfigFile, CustomMessage};

use super::Driver;
use crate::control::{Answer, Outcome, Request, Wanted};
use crate::extensions::opamp::remote::take;
use crate::extensions::opamp::store::Files;

/// The capability.
pub const DRY_RUN: &str = "io.tailwater.dry-run/v1";
/// Who asked, in the log.
const BY: &str = "OpAMP";
/// So many questions are under way.
pub const CHECKS_MAX: usize = 4;
/// Longest name of a question, bytes.
const NAME_BYTES_MAX: usize = 128;

/// A question.
#[derive(Deserialize)]
struct Question {
    /// Given back with the answer.
    id: String,
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    name: String,
    body: String,
    #[serde(default)]
    content_type: String,
}

impl Question {
    fn files(self) -> (String, Files) {
        let file = |f: File| {
            let file = AgentConfigFile {
                body: f.body.into_bytes(),
                content_type: f.content_type,
            };
            (f.name, file)
        };
        let files = self.files.into_iter().map(file);
        (self.id, files.collect::<BTreeMap<_, _>>())
    }
}

impl Driver {
    /// Has a configuration checked and planned, and nothing done.
    pub(super) fn asked_for_dry_run(&mut self, message: &CustomMessage) {
        let question: Result<Question, _> = serde_json::from_slice(&message.data);
        let question = match question {
            Ok(q) if message.r#type == "check" && q.id.len() <= NAME_BYTES_MAX => q,
            _ => return tracing::warn!("OpAMP: ignored a question that is not understood"),
        };
        let (id, files) = question.files();
        match take(&files, &self.s.settings, &self.remote) {
            Err(reasons) => self.say_checked(&id, Err(&reasons)),
            Ok(taken) => {
                let tell = self.tell_check.clone();
                self.s.lent.control.ask(Request {
                    wanted: Wanted::Layer(taken.layer),
                    by: BY,
                    if_generation: None,
                    dry_run: true,
                    // Of more than are taken in at once some are not answered, and asked again.
                    answer: Box::new(move |answer| drop(tell.try_send((id, answer)))),
                });
            }
        }
    }

    /// What became of it.
    pub(super) fn checked(&mut self, id: String, answer: Answer) {
        match answer.outcome {
            Outcome::Planned(changes) | Outcome::Applied(changes) => {
                self.say_checked(&id, Ok(&changes));
            }
            Outcome::Unchanged => self.say_checked(&id, Ok(&[])),
            Outcome::Refused(reasons) => self.say_checked(&id, Err(&reasons)),
            // The server asks again.
            Outcome::NotKept(_) | Outcome::Superseded | Outcome::Conflict => {}
        }
    }

    fn say_checked(&mut self, id: &str, outcome: Result<&[String], &[String]>) {
        let value = match outcome {
            Ok(changes) => json!({"id": id, "accepted": true, "changes": changes}),
            Err(reasons) => json!({"id": id, "accepted": false, "reasons": reasons}),
        };
        self.client.set_check(CustomMessage {
            capability: DRY_RUN.to_owned(),
            r#type: "checked".to_owned(),
            data: value.to_string().into_bytes(),
        });
    }
}
