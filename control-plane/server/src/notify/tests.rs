use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver as Inbox, channel};

use tailwater_control_plane::rollout::command::Alert;
use tailwater_control_plane::rollout::repair::Firing;
use tailwater_control_plane::store::{SqliteStore, StoreError};

use super::*;

/// Answers each request with the next of these statuses, the last one from then on; gives the requests.
fn standin(statuses: &'static [u16]) -> (String, Inbox<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (say, said) = channel();
    std::thread::spawn(move || {
        for (i, stream) in listener.incoming().take(50).enumerate() {
            let Ok(mut stream) = stream else { return };
            let status = statuses[i.min(statuses.len() - 1)];
            let request = request(&mut stream);
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 6\r\n\r\nanswer");
            if stream.write_all(answer.as_bytes()).is_err() || say.send(request).is_err() {
                return;
            }
        }
    });
    (format!("http://{at}"), said)
}

fn request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| {
                let (name, value) = l.split_once(':')?;
                let is_it = name.eq_ignore_ascii_case("content-length");
                is_it.then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return text,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}

fn firing(text: &str) -> FiringAlerts {
    let firing = Firing {
        since_ms: 1_000,
        text: text.to_owned(),
        generation: 0,
    };
    FiringAlerts::from([(Alert::Frozen, firing)])
}

async fn next(said: &Inbox<String>) -> String {
    for _ in 0..3_000 {
        match said.try_recv() {
            Ok(request) => return request,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("nothing came");
}

/// A store that cannot write while it is told so.
struct Flaky {
    inner: SqliteStore,
    refuses: AtomicBool,
}

impl Flaky {
    fn new() -> Arc<Flaky> {
        Arc::new(Flaky {
            inner: SqliteStore::in_memory().unwrap(),
            refuses: AtomicBool::new(false),
        })
    }
}

impl Notified for Flaky {
    fn notified(&self, receiver: &str) -> Result<Option<String>, StoreError> {
        self.inner.notified(receiver)
    }

    fn keep_notified(&self, receiver: &str, body: &str) -> Result<(), StoreError> {
        match self.refuses.load(Ordering::Relaxed) {
            true => Err(StoreError::Damaged("a test".to_owned())),
            false => self.inner.keep_notified(receiver, body),
        }
    }
}

type Telling = (
    Arc<Notifier>,
    watch::Sender<bool>,
    tokio::task::JoinHandle<()>,
);

/// A process that tells these; and what stops it.
fn telling(receivers: Vec<(Kind, Target)>, store: &Arc<Flaky>) -> Telling {
    let store: Arc<dyn Notified> = store.clone();
    let notifier = Arc::new(Notifier::new(receivers, &store));
    let (stop, stopped) = watch::channel(false);
    (notifier.clone(), stop, tokio::spawn(notifier.run(stopped)))
}

/// Guarantee: each receiver is told on its own, again after a failure, and of what is over; the next process does
/// not tell it again; what it was told is gone with another address.
#[tokio::test]
async fn receivers_are_told_again_until_they_take_it() {
    let store = Flaky::new();
    let (manager, managed) = standin(&[200]);
    let (hook, hooked) = standin(&[500, 404, 200]);
    let start = |hook: &str| {
        let hook = Target::parse(&format!("{hook}/secret-path")).unwrap();
        let manager = Target::parse(&manager).unwrap();
        let receivers = vec![(Kind::Alertmanager, manager), (Kind::Webhook, hook)];
        telling(receivers, &store)
    };
    let (notifier, stop, task) = start(&hook);
    notifier.set("shop", &firing("three rollbacks"));
    let first = next(&managed).await;
    assert!(first.starts_with("POST /api/v2/alerts HTTP/1.1"), "{first}");
    assert!(
        first.contains(r#""description":"three rollbacks""#),
        "{first}"
    );
    for _ in 0..3 {
        let said = next(&hooked).await;
        assert!(said.starts_with("POST /secret-path HTTP/1.1"), "{said}");
        assert!(said.contains(r#""status":"firing""#), "{said}");
    }
    for _ in 0..500 {
        if notifier.counts()[1].1 == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let counts = notifier.counts();
    assert_eq!(counts[0], (Kind::Alertmanager, 1, 0));
    assert_eq!(counts[1], (Kind::Webhook, 1, 2));
    stop.send_replace(true);
    task.await.unwrap();
    // It died while it fired, and it is over since.
    let (notifier, stop, task) = start(&hook);
    notifier.set("shop", &FiringAlerts::new());
    let over = next(&hooked).await;
    assert!(over.contains(r#""status":"resolved""#), "{over}");
    let over = next(&managed).await;
    assert!(over.contains(r#""alert":"frozen""#), "{over}");
    stop.send_replace(true);
    task.await.unwrap();
    let kept = store.notified("webhook/1").unwrap().expect("it is kept");
    assert!(!kept.contains("secret-path"), "{kept}");
}

/// A process that tells a webhook.
fn telling_hook(hook: &str, store: &Arc<Flaky>) -> Telling {
    telling(vec![(Kind::Webhook, Target::parse(hook).unwrap())], store)
}

fn fingerprint(request: &str) -> String {
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    body["alerts"][0]["fingerprint"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Guarantee: a process that ends between the answer and the store has the next one say it once more, under the same
/// fingerprint, be it that it fires or that it is over, and the one after that says nothing; one that ends before the answer
/// loses nothing.
#[tokio::test]
async fn what_was_taken_and_not_kept_is_said_once_more() {
    let store = Flaky::new();
    let (hook, hooked) = standin(&[200]);
    let mut prints = Vec::new();
    for (alerts, status) in [
        (firing("three rollbacks"), "firing"),
        (FiringAlerts::new(), "resolved"),
    ] {
        let mut times = 0;
        for refuses in [true, false, false] {
            store.refuses.store(refuses, Ordering::Relaxed);
            let (notifier, stop, task) = telling_hook(&hook, &store);
            notifier.set("shop", &alerts);
            if times < 2 {
                let said = next(&hooked).await;
                assert!(said.contains(&format!(r#""status":"{status}""#)), "{said}");
                prints.push(fingerprint(&said));
                times += 1;
                // It has heard the answer.
                while notifier.counts()[0].1 == 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            } else {
                // As long as it takes to look again.
                tokio::time::sleep(LOOK + Duration::from_millis(200)).await;
                assert!(hooked.try_recv().is_err(), "it was said already");
            }
            stop.send_replace(true);
            task.await.unwrap();
        }
    }
    assert_eq!(prints.len(), 4);
    assert!(prints.iter().all(|p| *p == prints[0]), "{prints:?}");

    // The next one has no answer yet when its process ends.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("http://{}", silent.local_addr().unwrap());
    let (notifier, _stop, task) = telling_hook(&at, &store);
    notifier.set("shop", &firing("again"));
    let (mut stream, _) = tokio::task::spawn_blocking(move || silent.accept().unwrap())
        .await
        .unwrap();
    let asked = tokio::task::spawn_blocking(move || request(&mut stream)).await;
    assert!(asked.unwrap().contains("again"));
    task.abort();
    let (notifier, stop, task) = telling_hook(&hook, &store);
    notifier.set("shop", &firing("again"));
    assert!(next(&hooked).await.contains("again"));
    stop.send_replace(true);
    task.await.unwrap();
}
