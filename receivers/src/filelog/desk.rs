//! Where a receiver is asked which files it reads. Its own thread answers, between two turns.

use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use tailwater_pipeline::files::{FilesAnswer, FilesQuery, TailedFiles};

use super::watch::Waker;

/// Questions that wait at most; more are not answered.
const QUESTIONS_MAX: usize = 64;

/// A question, and who gets the answer.
pub struct Question {
    /// What is asked.
    pub query: FilesQuery,
    /// Who gets the answer.
    pub answer: FilesAnswer,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Desk {
    questions: Sender<Question>,
    /// Of the thread that answers; none as long as there is none.
    wake: Mutex<Option<Waker>>,
}

impl Desk {
    /// A desk, and where its questions come out.
    pub fn new() -> (Desk, Receiver<Question>) {
        let (questions, asked) = bounded(QUESTIONS_MAX);
        let wake = Mutex::new(None);
        (Desk { questions, wake }, asked)
    }

    /// The thread that answers is woken by this from now on; `None`: there is none any more.
    pub fn woken_by(&self, waker: Option<Waker>) {
        *self.wake.lock().unwrap_or_else(PoisonError::into_inner) = waker;
    }
}

impl TailedFiles for Desk {
    fn ask(&self, query: FilesQuery, answer: FilesAnswer) {
        let wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wake) = &*wake
            && self.questions.try_send(Question { query, answer }).is_ok()
        {
            wake.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use tailwater_pipeline::files::{FilesPage, FilesPart};

    use super::super::config::WatchMode;
    use super::super::watch::Watch;
    use super::*;

    /// Asks; gives where the answer comes out.
    fn ask(desk: &Desk) -> Receiver<FilesPage> {
        let (tell, told) = bounded(1);
        let query = FilesQuery {
            paths: None,
            part: FilesPart::After(0),
            limit: 1,
        };
        desk.ask(query, Box::new(move |page| drop(tell.send(page))));
        told
    }

    /// Guarantee: nobody waits for an answer that will not come, and questions do not pile up.
    #[test]
    fn who_cannot_answer_is_known_at_once() {
        let (desk, asked) = Desk::new();
        assert!(ask(&desk).recv().is_err(), "it has not begun");
        desk.woken_by(Some(Watch::new(WatchMode::Poll).waker()));
        let told: Vec<_> = (0..=QUESTIONS_MAX).map(|_| ask(&desk)).collect();
        assert_eq!(asked.len(), QUESTIONS_MAX);
        assert!(told[QUESTIONS_MAX].recv().is_err(), "too many ask");
        let Question { answer, .. } = asked.recv().unwrap();
        answer(FilesPage::default());
        assert!(told[0].recv().is_ok());
        desk.woken_by(None);
        assert!(ask(&desk).recv().is_err(), "it has ended");
    }
}
