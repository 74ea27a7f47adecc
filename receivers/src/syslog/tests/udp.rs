//! Datagrams.

use tailwater_pipeline::{Admission, Outcome};

use super::stand::Stand;

fn yaml(udp: &str, more: &str) -> String {
    format!("{{udp: {{listen_address: '127.0.0.1:0'{udp}}}, protocol: rfc3164{more}}}")
}

/// Guarantee: each datagram is a message, whatever lines are in it, without what senders put behind it; its
/// fields, severity and time are found, and who sent it.
#[tokio::test]
async fn a_datagram_is_a_message() {
    let stand = Stand::new(&yaml(", add_attributes: true", ", resource: {site: a}"));
    let sender = stand.sender().await;
    for text in [
        "<34>Oct 11 22:14:15 mymachine su: 'su root' failed\n\0",
        "no\nsyslog",
        "\n",
    ] {
        sender.send(text.as_bytes()).await.unwrap();
    }
    stand.until_delivered(2).await;
    let delivered = stand.delivered();
    let first = &delivered[0];
    assert!(first.starts_with("18 "), "{first}");
    let (peer, host) = (sender.local_addr().unwrap().port(), stand.udp());
    for part in [
        "<34>Oct 11 22:14:15 mymachine su: 'su root' failed | ",
        "appname=su facility=4 facility_text=auth hostname=mymachine message='su root' failed",
        "net.transport=IP.UDP",
        &format!("net.peer.ip=127.0.0.1 net.peer.name=127.0.0.1 net.peer.port={peer}"),
        &format!("net.host.ip=127.0.0.1 net.host.name=127.0.0.1 net.host.port={host}"),
        "priority=34 site=a",
    ] {
        assert!(first.contains(part), "{part:?} is not in {first}");
    }
    assert!(
        delivered[1].starts_with("0 0 no\nsyslog | "),
        "{}",
        delivered[1]
    );
    let accepted = stand.metric("otelcol_receiver_accepted_log_records", "transport=\"udp\"");
    assert_eq!(accepted, 2.0);
}

/// Guarantee: `multiline` splits a datagram, and `one_log_per_packet` leaves it as it is.
#[tokio::test]
async fn datagrams_are_split_as_configured() {
    let multiline = ", multiline: {line_start_pattern: '<\\d+>'}";
    for (udp, expect) in [
        (multiline, vec!["<1>a", "<1>b\nc"]),
        (", one_log_per_packet: true", vec!["  <1>a\n<1>b\nc"]),
        ("", vec!["<1>a\n<1>b\nc"]),
    ] {
        let stand = Stand::new(&yaml(udp, ", on_error: send_quiet"));
        let sender = stand.sender().await;
        sender.send(b"  <1>a\n<1>b\nc\n").await.unwrap();
        stand.until_delivered(expect.len()).await;
        let bodies: Vec<String> = stand
            .delivered()
            .iter()
            .map(|r| r["0 0 ".len()..r.len() - 3].to_owned())
            .collect();
        assert_eq!(bodies, expect, "{udp}");
    }
}

/// Guarantee: without room datagrams are dropped and counted, of each lane its own: what is read is delivered
/// or dropped, exactly.
#[tokio::test]
async fn without_room_datagrams_are_dropped_and_counted() {
    let yaml = yaml("", ", limits: {in_flight_bytes_max: 2MiB}");
    let stand = Stand::with_lanes(&yaml, &["one", "two"], &Default::default());
    let [one, two] = &stand.destinations[..] else {
        panic!("two lanes");
    };
    two.admit(Admission::Closed);
    let sender = stand.sender().await;
    let long = format!("<34>Oct 11 22:14:15 mymachine su: {}", "x".repeat(8000));
    let mut sent = 0;
    while stand.no_room(1) < 10 {
        sender.send(long.as_bytes()).await.unwrap();
        sent += 1;
        // None is lost in the kernel.
        stand
            .until("it came", |s| s.account(0).read.records == sent)
            .await;
        assert!(sent < 10_000);
    }
    stand
        .until("the other lane has all", |_| one.count() as u64 == sent)
        .await;
    assert_eq!(stand.no_room(0), 0);
    two.admit(Admission::Open);
    let dropped = stand.no_room(1);
    stand
        .until("the rest is delivered", |_| {
            two.count() as u64 + dropped == sent
        })
        .await;
    let refused = stand.metric("otelcol_receiver_refused_log_records", "transport=\"udp\"");
    assert_eq!(refused, dropped as f64);
    let datagrams = stand.metric("tailwater_receiver_dropped_datagrams", "syslog");
    assert_eq!(datagrams, dropped as f64);
    // There is room again.
    sender.send(long.as_bytes()).await.unwrap();
    stand
        .until("again", |_| two.count() as u64 + dropped == sent + 1)
        .await;
}

/// Guarantee: what comes back undelivered is offered again until it is delivered, and counted once.
#[tokio::test]
async fn what_comes_back_is_offered_again() {
    let mut stand = Stand::new(&yaml("", ""));
    stand.destination().set(Some(Outcome::Retry));
    let sender = stand.sender().await;
    sender.send(b"<34>Oct 11 22:14:15 h a: b").await.unwrap();
    stand
        .until("offered again", |s| s.destination().offered() >= 3)
        .await;
    assert_eq!(stand.account(0).in_flight.records, 1);
    stand.destination().set(Some(Outcome::Delivered));
    stand.until_delivered(1).await;
    assert_eq!(stand.account(0).delivered.records, 1);
    stand.stop().await;
}
