//! Answers on their way back to the thread of the listeners.
//!
//! To wake a thread takes about as long as to send a small request, so it is woken once for all answers
//! that come at the same time, not for each.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

/// See the module's documentation. `T` is what is answered.
pub struct Answers<T> {
    ready: Mutex<Vec<(oneshot::Sender<T>, T)>>,
    news: Notify,
}

impl<T> Default for Answers<T> {
    fn default() -> Answers<T> {
        Answers {
            ready: Mutex::default(),
            news: Notify::new(),
        }
    }
}

impl<T: Send + 'static> Answers<T> {
    /// Has [`Answers::deliver`] tell `to`, soon. From a runtime it is woken after those who can go on now, who
    /// may have answers, too.
    pub fn tell(self: &Arc<Self>, to: oneshot::Sender<T>, answer: T) {
        let mut ready = self.lock();
        ready.push((to, answer));
        // Who told the first of them has it woken.
        let first = ready.len() == 1;
        drop(ready);
        if !first {
            return;
        }
        let wake = WakeOnDrop(self.clone());
        if let Ok(runtime) = Handle::try_current() {
            // A runtime that ends drops it, which wakes, too.
            runtime.spawn(async move { drop(wake) });
        }
    }

    /// Tells those who wait, for ever. To be run where they are.
    pub async fn deliver(self: Arc<Self>) {
        loop {
            self.news.notified().await;
            for (to, answer) in std::mem::take(&mut *self.lock()) {
                // Fails only if nobody waits any more.
                let _ = to.send(answer);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(oneshot::Sender<T>, T)>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct WakeOnDrop<T>(Arc<Answers<T>>);

impl<T> Drop for WakeOnDrop<T> {
    fn drop(&mut self) {
        self.0.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
    }

    /// Guarantee: every answer arrives, whether it comes from a runtime, from a thread without one, or from one
    /// that ends before it could wake anybody.
    #[test]
    fn all_arrive() {
        let answers: Arc<Answers<u32>> = Arc::default();
        let listeners = runtime();
        listeners.spawn(answers.clone().deliver());
        let waiting: Vec<_> = (0..300)
            .map(|number| {
                let (to, told) = oneshot::channel();
                let answers = answers.clone();
                std::thread::spawn(move || match number % 3 {
                    0 => answers.tell(to, number),
                    1 => runtime().block_on(async {
                        answers.tell(to, number);
                        tokio::task::yield_now().await;
                    }),
                    // The runtime ends at once.
                    _ => runtime().block_on(async { answers.tell(to, number) }),
                });
                told
            })
            .collect();
        listeners.block_on(async {
            for (number, told) in (0..).zip(waiting) {
                assert_eq!(told.await, Ok(number));
            }
        });
    }

    /// Guarantee: answers that come together wake once, behind those who can go on now.
    #[test]
    fn what_comes_together_is_told_together() {
        let answers: Arc<Answers<u32>> = Arc::default();
        runtime().block_on(async {
            let mut woken = std::pin::pin!(answers.news.notified());
            for number in 0..10 {
                let (to, _) = oneshot::channel();
                answers.tell(to, number);
                let now = std::future::poll_fn(|cx| Poll::Ready(woken.as_mut().poll(cx)));
                assert!(now.await.is_pending(), "after answer {number}");
            }
            woken.await;
            let mut again = std::pin::pin!(answers.news.notified());
            tokio::task::yield_now().await;
            let now = std::future::poll_fn(|cx| Poll::Ready(again.as_mut().poll(cx)));
            assert!(now.await.is_pending(), "it is woken once");
        });
        assert_eq!(answers.lock().len(), 10);
    }
}
