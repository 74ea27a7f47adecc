use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver as Inbox, channel};

use tailwater_control_plane::rollout::command::Alert;
use tailwater_control_plane::rollout::repair::Firing;

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

/// Guarantee: each receiver is told on its own, again after a failure, and of what is over; the next process does
/// not tell it again; what it was told is gone with another address.
#[tokio::test]
async fn receivers_are_told_again_until_they_take_it() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, managed) = standin(&[200]);
    let (hook, hooked) = standin(&[500, 404, 200]);
    let start = |hook: &str| {
        let hook = Target::parse(&format!("{hook}/secret-path")).unwrap();
        let manager = Target::parse(&manager).unwrap();
        let receivers = vec![(Kind::Alertmanager, manager), (Kind::Webhook, hook)];
        let notifier = Arc::new(Notifier::new(receivers, dir.path()));
        let (stop, stopped) = watch::channel(false);
        (notifier.clone(), stop, tokio::spawn(notifier.run(stopped)))
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
    let kept = std::fs::read_to_string(dir.path().join("notified-webhook-1.json")).unwrap();
    assert!(!kept.contains("secret-path"), "{kept}");
}

/// A webhook that is told, as a process with its files in `dir`; and what stops it.
fn telling(
    hook: &str,
    dir: &Path,
) -> (
    Arc<Notifier>,
    watch::Sender<bool>,
    tokio::task::JoinHandle<()>,
) {
    let hook = Target::parse(hook).unwrap();
    let notifier = Arc::new(Notifier::new(vec![(Kind::Webhook, hook)], dir));
    let (stop, stopped) = watch::channel(false);
    (notifier.clone(), stop, tokio::spawn(notifier.run(stopped)))
}

fn fingerprint(request: &str) -> String {
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    body["alerts"][0]["fingerprint"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Guarantee: a process that ends between the answer and the file has the next one say it once more, under the same
/// fingerprint, be it that it fires or that it is over, and the one after that says nothing; one that ends before the answer
/// loses nothing.
#[tokio::test]
async fn what_was_taken_and_not_kept_is_said_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notified-webhook-0.json");
    // What is kept is written to this first; so it cannot be.
    let blocked = file.with_extension("new");
    let (hook, hooked) = standin(&[200]);
    let block = || std::fs::create_dir(&blocked).unwrap();
    let unblock = || std::fs::remove_dir(&blocked).unwrap();
    let mut prints = Vec::new();
    for (alerts, status) in [
        (firing("three rollbacks"), "firing"),
        (FiringAlerts::new(), "resolved"),
    ] {
        block();
        let mut times = 0;
        for is_kept in [false, true, true] {
            if is_kept && blocked.is_dir() {
                unblock();
            }
            let (notifier, stop, task) = telling(&hook, dir.path());
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
    let (notifier, _stop, task) = telling(&at, dir.path());
    notifier.set("shop", &firing("again"));
    let (mut stream, _) = tokio::task::spawn_blocking(move || silent.accept().unwrap())
        .await
        .unwrap();
    let asked = tokio::task::spawn_blocking(move || request(&mut stream)).await;
    assert!(asked.unwrap().contains("again"));
    task.abort();
    let (notifier, stop, task) = telling(&hook, dir.path());
    notifier.set("shop", &firing("again"));
    assert!(next(&hooked).await.contains("again"));
    stop.send_replace(true);
    task.await.unwrap();
}
