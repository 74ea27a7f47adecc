use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tailwater_pipeline::ack::NoSink;
use tailwater_pipeline::clock::{Clock, SystemClock};
use tailwater_pipeline::{AckWindow, Front};

use super::test_server::*;
use super::*;
use crate::delivery::test_sockets::Sockets;
use crate::delivery::*;

struct Accepts200;

impl Judge<Acks> for Accepts200 {
    fn judge(
        &self,
        _: &mut OutgoingRequest<Acks>,
        result: Result<Reply, SendError>,
    ) -> Verdict<Acks> {
        match result {
            Ok(reply) if reply.status == 200 => Verdict::Delivered,
            Ok(reply) => Verdict::Retry {
                scope: RetryScope::Destination,
                after: None,
                cause: reply.status.as_str().into(),
            },
            Err(e) => e.verdict(),
        }
    }
}

/// Everything is delivered, each lane in order, over real sockets and through a destination that
/// first closes connections and then says 503.
#[test]
fn a_destination_that_comes_back_gets_everything_in_order() {
    let (tx, arrived) = std::sync::mpsc::channel();
    let server = Server::start(move |n, mut stream| {
        while let Some(request) = receive(&mut stream) {
            match n {
                0 | 1 => return,
                2 => answer(&mut stream, "503 Busy", ""),
                _ => {
                    tx.send(request.body).unwrap();
                    answer(&mut stream, "200 OK", "");
                }
            }
            if n == 2 {
                return;
            }
        }
    });
    let clock = Arc::new(SystemClock::default());
    let retry = RetryOptions {
        initial_interval: Duration::from_millis(1),
        ..RetryOptions::default()
    };
    let queue = QueueOptions {
        num_consumers: 3,
        ..QueueOptions::default()
    };
    let parts = DeliveryParts {
        name: "t".into(),
        queue,
        retry,
        seed: 1,
        clock: clock.clone(),
    };
    let mut delivery: Delivery<Acks> = Delivery::new(parts);
    let sockets = Sockets::new();
    let sender = HttpSender::new(
        Arc::new(client(ClientOptions::default())),
        server.endpoint("/"),
    );
    delivery.start(&sockets.handle, Arc::new(sender), Arc::new(Accepts200));
    let mut window: AckWindow<u8> = AckWindow::new(Arc::new(NoSink), 0);
    for n in 0..60u8 {
        let mut acks = Acks::new();
        acks.add(window.reserve(n, 1, 1), 1);
        let body = vec![Bytes::copy_from_slice(&[n])];
        let lanes = vec![u64::from(n % 4)];
        let r = OutgoingRequest::new(body, Arc::default(), None, lanes, 1, acks);
        delivery.handle().submit(r);
    }
    let got: Vec<u8> = (0..60)
        .map(|_| arrived.recv_timeout(LONG).unwrap()[0])
        .collect();
    for lane in 0..4 {
        let of_lane: Vec<u8> = got.iter().copied().filter(|n| n % 4 == lane).collect();
        assert!(of_lane.is_sorted(), "lane {lane}: {of_lane:?}");
    }
    assert_eq!(delivery.stop(clock.now().after(LONG)), 0);
    let mut positions = Vec::new();
    assert_eq!(window.advance(|s| positions.push(s.position)), Front::Empty);
    assert_eq!(positions, (0..60).collect::<Vec<u8>>());
}
