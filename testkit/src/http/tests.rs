use super::*;
use std::io::{Read, Write};

/// Answers with what it was sent: `<method> <path> <body length> <body>`.
struct Echo;

impl Handler for Echo {
    fn on_head(&self, head: &Request, stop: &StopSignal) -> Option<Reply> {
        match head.path.as_str() {
            "/early" => Some(Reply::Send(Response::text(429, "early"))),
            "/reset" => Some(Reply::Close),
            "/hang" => {
                stop.wait_for_stop();
                Some(Reply::Close)
            }
            _ => None,
        }
    }

    fn body_bytes_max(&self) -> usize {
        1_000
    }

    fn on_oversized(&self, _: &Request, bytes: usize) -> Response {
        Response::text(413, format!("{bytes}"))
    }

    fn on_request(&self, request: Request, _: &StopSignal) -> Reply {
        if request.path == "/close" {
            return Reply::Close;
        }
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let text = format!("{} {} {} {body}", request.method, request.path, body.len());
        let mut response = Response::text(200, text);
        if request.path == "/slow" {
            response.pace = Pace::Slow {
                bytes: 1,
                pause: Duration::from_millis(1),
            };
        }
        Reply::Send(response)
    }
}

fn server() -> Server {
    Server::start(Arc::new(Echo), ServerLimits::default()).unwrap()
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

/// Sends bytes, closes the sending side and returns all that comes back.
fn talk(server: &Server, bytes: &[u8]) -> String {
    let mut stream = connect(server);
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    // A reset in the middle still leaves what came before it.
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn requests_on_one_connection_are_answered_in_turn() {
    let server = server();
    let answer = talk(
        &server,
        b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n\
          POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
          2\r\nxy\r\n3;e=1\r\nz01\r\n0\r\nT: v\r\n\r\n",
    );
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
    for part in ["POST /a 3 abc", "GET /b 0 ", "POST /c 5 xyz01"] {
        assert!(answer.contains(part), "{answer}");
    }
    assert_eq!(server.connections_accepted(), 1);
}

#[test]
fn a_client_waiting_for_permission_gets_it_before_its_body_is_read() {
    let server = server();
    let mut stream = connect(&server);
    let head = b"POST /a HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hi").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("POST /a 2 hi"), "{answer}");
}

#[test]
fn limits_are_answered_not_crossed() {
    let server = server();
    let big_head = [
        b"GET / HTTP/1.1\r\nx: ".as_slice(),
        &[b'y'; 70_000],
        b"\r\n\r\n",
    ]
    .concat();
    assert!(talk(&server, &big_head).starts_with("HTTP/1.1 431 "));
    let big_body = [
        b"POST / HTTP/1.1\r\nContent-Length: 300000\r\n\r\n".as_slice(),
        &[b'y'; 300_000],
    ];
    let answer = talk(&server, &big_body.concat());
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("300000"),
        "{answer}"
    );
    let chunk = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n";
    assert!(talk(&server, chunk).starts_with("HTTP/1.1 413 "));
    let bad = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc";
    assert!(talk(&server, bad).starts_with("HTTP/1.1 400 "));
    assert!(talk(&server, b"nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
}

#[test]
fn truncated_requests_end_the_connection_without_an_answer() {
    let server = server();
    for text in [
        "",
        "GET /",
        "GET / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab",
    ] {
        assert_eq!(talk(&server, text.as_bytes()), "", "{text}");
    }
}

#[test]
fn handlers_may_answer_early_close_or_write_slowly() {
    let server = server();
    let early = talk(
        &server,
        b"POST /early HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    );
    assert!(
        early.starts_with("HTTP/1.1 429 ") && early.ends_with("early"),
        "{early}"
    );
    assert_eq!(
        talk(
            &server,
            b"POST /reset HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
        ),
        ""
    );
    assert_eq!(talk(&server, b"GET /close HTTP/1.1\r\n\r\n"), "");
    assert!(talk(&server, b"GET /slow HTTP/1.1\r\n\r\n").ends_with("GET /slow 0 "));
}

#[test]
fn more_connections_than_allowed_are_turned_away() {
    let limits = ServerLimits {
        connections_max: 1,
        ..ServerLimits::default()
    };
    let server = Server::start(Arc::new(Echo), limits).unwrap();
    let mut first = connect(&server);
    first.write_all(b"GET /a HTTP/1.1\r\n\r\n").unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).unwrap();
    assert!(talk(&server, b"").starts_with("HTTP/1.1 503 "));
    assert_eq!(server.connections_open(), 1);
}

#[test]
fn refusing_and_listening_again_keep_the_port() {
    let server = server();
    let addr = server.addr();
    let mut held = connect(&server);
    held.write_all(b"GET /hold HTTP/1.1\r\n\r\n").unwrap();
    held.read_exact(&mut [0]).unwrap();
    server.refuse();
    let mut rest = String::new();
    held.read_to_string(&mut rest)
        .expect("the connection ends, it does not time out");
    assert_eq!(
        TcpStream::connect(addr).unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
    server.refuse();
    server.listen_again().unwrap();
    server.listen_again().unwrap();
    assert_eq!(server.addr(), addr);
    assert!(talk(&server, b"GET /a HTTP/1.1\r\n\r\n").contains(" 200 "));
}

#[test]
fn dropping_the_server_ends_hanging_requests() {
    let server = server();
    let mut stream = connect(&server);
    stream.write_all(b"GET /hang HTTP/1.1\r\n\r\n").unwrap();
    let give_up = Instant::now() + Duration::from_secs(10);
    while server.connections_open() == 0 && Instant::now() < give_up {
        std::thread::yield_now();
    }
    let begin = Instant::now();
    drop(server);
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
}
