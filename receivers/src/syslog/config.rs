//! The options of the receiver.
//!
//! Names and defaults are those of the collector's syslog receiver: its inputs for TCP and UDP, with the
//! options of its parser beside them. What is ours is marked as such.

use std::time::Duration;

use tailwater_config::{Errors, Key, Node, NodeValue, Section};

use super::framing::Framing;
use crate::input::charset::Charset;
use crate::input::frame::{FrameSpec, Oversize, Split, Trim};
use crate::input::options::{MultilineConfig, charset, multiline, retry_on_failure};
use crate::listen::{Listen, TlsOptions};
use crate::operators::{MessageOptions, OnError, operators};

/// Options of the receiver that are those of the operator `syslog_parser`.
const PARSER: [&str; 7] = [
    "protocol",
    "location",
    "enable_octet_counting",
    "allow_skip_pri_header",
    "non_transparent_framing_trailer",
    "max_octets",
    "on_error",
];
/// Least `max_log_size`, as in the collector.
const MAX_LOG_BYTES_LEAST: u64 = 64 << 10;
/// Largest `max_log_size`; a message has to fit into memory several times.
const MAX_LOG_BYTES_MOST: u64 = 256 << 20;
/// Longest message over TCP unless configured.
const MAX_LOG_BYTES: u64 = 1 << 20;
/// Connections unless configured.
const CONNECTIONS_MAX: usize = 1024;

/// Options of the receiver.
#[derive(Clone, Debug)]
pub struct SyslogConfig {
    /// `tcp`.
    pub tcp: Option<TcpOptions>,
    /// `udp`.
    pub udp: Option<UdpOptions>,
    /// The operator that takes messages apart, as if it was written in `operators`.
    pub parser: Node,
    /// `operators`, as written: what comes behind it.
    pub operators: Vec<Node>,
    /// `attributes`: values may hold `EXPR(...)`.
    pub attributes: Vec<(String, String)>,
    /// `resource`: values may hold `EXPR(...)`.
    pub resource: Vec<(String, String)>,
    /// Own option `limits::in_flight_bytes_max`: bytes of messages that are not delivered yet. Default 64 MiB.
    pub in_flight_bytes_max: usize,
    /// Own option `refuse_unprotected`: do not start at an address that others reach without TLS and client
    /// certificates. Default false: a warning.
    pub refuse_unprotected: bool,
}

/// `tcp`.
#[derive(Clone, Debug)]
pub struct TcpOptions {
    /// `listen_address`.
    pub listen: Listen,
    /// `tls`.
    pub tls: Option<TlsOptions>,
    /// What both ways in have.
    pub text: TextOptions,
    /// Where messages end.
    pub framing: Framing,
    /// `max_connections`: more are closed at once. 0 (the default) = 1024.
    pub connections_max: usize,
    /// `connection_idle_timeout`: one on which nothing comes for so long is closed. Default: never.
    pub idle_timeout: Option<Duration>,
}

/// `udp`.
#[derive(Clone, Debug)]
pub struct UdpOptions {
    /// `listen_address`.
    pub listen: Listen,
    /// What both ways in have.
    pub text: TextOptions,
    /// Where messages end in a datagram.
    pub framing: Framing,
}

/// What messages are made of.
#[derive(Clone, Copy, Debug)]
pub struct TextOptions {
    /// `encoding`.
    pub charset: Charset,
    /// `add_attributes`: `net.*`, which say who sent a message and where it came in. Default false.
    pub add_attributes: bool,
}

/// How the parser's options have messages framed (RFC 6587).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Marks {
    None,
    Counted,
    Trailer(u8),
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
    ("tcp", "Messages over TCP; it or `udp` is needed."),
    (
        "tcp::listen_address",
        "Where it listens: `host:port`, `:port` for all addresses.",
    ),
    (
        "tcp::tls",
        "TLS; with `client_ca_file` clients must show a certificate.",
    ),
    ("tcp::enabled", "False: as if the section was not there."),
    ("udp::enabled", "False: as if the section was not there."),
    (
        "tcp::tls::enabled",
        "False: as if the section was not there.",
    ),
    (
        "udp::async::enabled",
        "False: as if the section was not there.",
    ),
    (
        "tcp::max_log_size",
        "From 64KiB; a longer message becomes several records. 0 means 1MiB.",
    ),
    (
        "tcp::max_connections",
        "One more is closed at once; 0 means 1024.",
    ),
    (
        "tcp::connection_idle_timeout",
        "A connection on which nothing comes for so long is closed; 0 = never.",
    ),
    (
        "udp",
        "Messages over UDP: a datagram is a message, unless there is `multiline`.",
    ),
    (
        "udp::listen_address",
        "Where it listens: `host:port`, `:port` for all addresses.",
    ),
    (
        "udp::async",
        "Accepted with a warning: datagrams are read while others are processed.",
    ),
    ("udp::async::readers", "Has nothing to act on."),
    ("udp::async::processors", "Has nothing to act on."),
    ("udp::async::max_queue_length", "Has nothing to act on."),
    ("protocol", "Which form messages have. Required."),
    (
        "location",
        "Time zone of times without one, a name of the IANA database; UTC unless set.",
    ),
    (
        "allow_skip_pri_header",
        "Messages may come without a priority.",
    ),
    (
        "enable_octet_counting",
        "With `tcp`: the length of each message stands before it (RFC 6587). What begins with no length goes to the end of its line.",
    ),
    (
        "max_octets",
        "Longest message with such a length, in bytes; 0 means 8192.",
    ),
    (
        "non_transparent_framing_trailer",
        "With `tcp`: what stands behind each message.",
    ),
    (
        "on_error",
        "What becomes of a message that cannot be taken apart; it is passed on as it is, unless this says otherwise.",
    ),
    (
        "type",
        "The type of the collector's operator; says nothing more.",
    ),
    (
        "id",
        "The type of the collector's operator; says nothing more.",
    ),
    (
        "storage",
        "Accepted with a warning: there are no positions.",
    ),
    (
        "operators",
        "What is done to records behind the parser, one after another.",
    ),
    (
        "attributes",
        "Constant attributes of records; values may hold `EXPR(...)`.",
    ),
    (
        "resource",
        "Constant attributes of the resource; values may hold `EXPR(...)`.",
    ),
    ("limits", "own: What all messages together may use."),
    (
        "limits::in_flight_bytes_max",
        "own: Memory of messages that are not delivered yet; several destinations have equal shares. Messages of which not all has come may take half as much again; where that is taken, they are cut.",
    ),
    (
        "refuse_unprotected",
        "own: Do not start at an address that others reach without TLS and `client_ca_file`, or over UDP; otherwise a loud warning.",
    ),
];

impl SyslogConfig {
    /// Reads the section of the receiver; problems go to its errors. What is wrong with the options of the
    /// parser is found when the chain is built.
    pub fn decode(s: &mut Section<'_, '_>) -> SyslogConfig {
        s.describe(OPTIONS);
        let parser = parser(s);
        let marks = marks(&parser);
        let tcp = s.optional_section("tcp", false, |t| TcpOptions::decode(t, marks));
        let udp = s.optional_section("udp", false, UdpOptions::decode);
        if tcp.is_none() && udp.is_none() {
            s.error("need tcp config or udp config");
        }
        if udp.is_some() && marks != Marks::None {
            let key = match marks {
                Marks::Counted => "enable_octet_counting",
                _ => "non_transparent_framing_trailer",
            };
            s.invalid(key, "is not compatible with udp: a datagram is a message");
        }
        s.one_of("type", &["syslog_input"], "syslog_input");
        s.string_optional("id");
        s.refuse(
            "output",
            "records go to the first of `operators`; give that one an `output` instead",
        );
        if s.component_id("storage").is_some() {
            s.warn(
                "storage",
                "has no effect: there are no positions to store; an exporter with a storage keeps what is \
                 not delivered",
            );
        }
        retry_on_failure(s, "what was not delivered is offered again");
        SyslogConfig {
            tcp,
            udp,
            parser,
            operators: operators(s, "operators"),
            attributes: s.string_map("attributes").unwrap_or_default(),
            resource: s.string_map("resource").unwrap_or_default(),
            in_flight_bytes_max: s.section("limits", |l| {
                let bytes = l.byte_size("in_flight_bytes_max", 64 << 20, 1 << 20..=1 << 40);
                usize::try_from(bytes).unwrap_or(usize::MAX)
            }),
            refuse_unprotected: s.bool("refuse_unprotected", false),
        }
    }
}

/// The options of the parser, as an operator of its own.
fn parser(s: &mut Section<'_, '_>) -> Node {
    let span = s.span().clone();
    let key = |text: &str, span| Key {
        text: text.to_owned(),
        span,
    };
    let fixed = |name: &str, value: &str| {
        let value = NodeValue::Str(value.to_owned());
        (key(name, span.clone()), Node::new(value, span.clone()))
    };
    let mut entries = vec![
        fixed("type", "syslog_parser"),
        // The collector's name for it.
        fixed("id", "syslog_input_internal_parser"),
    ];
    if s.is_recording() {
        // They are read with the operators.
        MessageOptions::decode(s);
        s.choice("on_error", &OnError::ALL, OnError::Send);
        return Node::new(NodeValue::Map(entries), span);
    }
    for name in PARSER {
        if let Some(node) = s.node(name) {
            entries.push((key(name, s.span_of(name)), node.clone()));
        }
    }
    Node::new(NodeValue::Map(entries), span)
}

/// What the parser's options say of framing. Mistakes in them are told by the parser.
fn marks(parser: &Node) -> Marks {
    let mut errors = Errors::new();
    let mut s = Section::new(parser, "", &mut errors);
    let trailers = [("LF", b'\n'), ("NUL", 0)];
    if s.bool("enable_octet_counting", false) {
        return Marks::Counted;
    }
    let trailer = s.choice_optional("non_transparent_framing_trailer", &trailers);
    trailer.map_or(Marks::None, Marks::Trailer)
}

/// What TCP and UDP have in common.
struct Input {
    text: TextOptions,
    trim: Trim,
    multiline: Option<MultilineConfig>,
    one_per_packet: bool,
}

/// What its options do.
const INPUT: &[(&str, &str)] = &[
    (
        "add_attributes",
        "Adds `net.transport`, `net.peer.ip`, `net.peer.port`, `net.peer.name`, `net.host.ip`, `net.host.port`, `net.host.name`. Names are the addresses: they are not looked up.",
    ),
    (
        "preserve_leading_whitespaces",
        "White space in front of a message stays. Counted messages stay as they are.",
    ),
    (
        "preserve_trailing_whitespaces",
        "White space behind a message stays. Of datagrams, control characters at their end do not belong to the message.",
    ),
    (
        "multiline",
        "What begins or ends a message, in place of the end of a line. A match at the end of what has come waits for more, or for the end of the connection.",
    ),
    (
        "one_log_per_packet",
        "UDP: a datagram is passed on with the white space around it; TCP: all that comes over a connection is one message.",
    ),
];

impl Input {
    fn decode(s: &mut Section<'_, '_>) -> Input {
        s.describe(INPUT);
        let charset = charset(s);
        let input = Input {
            text: TextOptions {
                charset,
                add_attributes: s.bool("add_attributes", false),
            },
            trim: Trim {
                leading: !s.bool("preserve_leading_whitespaces", false),
                trailing: !s.bool("preserve_trailing_whitespaces", false),
            },
            multiline: multiline(s, charset),
            one_per_packet: s.bool("one_log_per_packet", false),
        };
        if input.one_per_packet && input.multiline.is_some() {
            s.warn(
                "multiline",
                "has no effect with one_log_per_packet: nothing is split",
            );
        }
        input
    }

    fn text(&self, split: Split, max_log_bytes: usize, trim: Trim) -> Framing {
        Framing::Text(FrameSpec {
            split,
            units: self.text.charset.units(),
            max_log_bytes,
            oversize: Oversize::Split,
            trim,
        })
    }
}

impl TcpOptions {
    fn decode(s: &mut Section<'_, '_>, marks: Marks) -> TcpOptions {
        let input = Input::decode(s);
        let size = s.byte_size("max_log_size", 0, ..=MAX_LOG_BYTES_MOST);
        if size != 0 && size < MAX_LOG_BYTES_LEAST {
            s.invalid("max_log_size", "must be at least 64KiB");
        }
        let size = if size == 0 { MAX_LOG_BYTES } else { size };
        let bytes_max = usize::try_from(size).unwrap_or(usize::MAX);
        let units = input.text.charset.units();
        let framing = match (&input.multiline, marks) {
            // A connection is one message.
            _ if input.one_per_packet => input.text(Split::None, bytes_max, Trim::NONE),
            (_, Marks::Counted) => Framing::Counted { bytes_max },
            (Some(multiline), _) => input.text(multiline.split(), bytes_max, input.trim),
            (None, Marks::Trailer(0)) => Framing::Trailer {
                byte: 0,
                units,
                trim: input.trim,
                bytes_max,
            },
            (None, _) if input.text.charset == Charset::Nop => {
                input.text(Split::None, bytes_max, input.trim)
            }
            (None, _) => input.text(Split::Newline, bytes_max, input.trim),
        };
        if input.multiline.is_some() && marks == Marks::Counted {
            s.warn(
                "multiline",
                "has no effect with enable_octet_counting: the length says where a message ends",
            );
        }
        TcpOptions {
            listen: Listen::decode_address(s, "listen_address"),
            tls: s.optional_section("tls", false, TlsOptions::decode),
            text: input.text,
            framing,
            connections_max: match s.usize("max_connections", 0, ..=1_000_000) {
                0 => CONNECTIONS_MAX,
                n => n,
            },
            idle_timeout: Some(s.duration("connection_idle_timeout", Duration::ZERO))
                .filter(|time| !time.is_zero()),
        }
    }
}

impl UdpOptions {
    fn decode(s: &mut Section<'_, '_>) -> UdpOptions {
        let input = Input::decode(s);
        let units = input.text.charset.units();
        let framing = match &input.multiline {
            _ if input.one_per_packet => Framing::Whole {
                units,
                trim: Trim::NONE,
            },
            // A datagram has no more.
            Some(multiline) => input.text(multiline.split(), 64 << 10, input.trim),
            None => Framing::Whole {
                units,
                trim: input.trim,
            },
        };
        let is_async = s.optional_section("async", false, |a| {
            a.usize("readers", 1, 1..);
            a.usize("processors", 1, 1..);
            a.usize("max_queue_length", 100, 1..);
        });
        if is_async.is_some() {
            s.warn(
                "async",
                "has no visible effect: datagrams are read while others are processed, and what waits is \
                 bounded by limits::in_flight_bytes_max",
            );
        }
        UdpOptions {
            listen: Listen::decode_address(s, "listen_address"),
            text: input.text,
            framing,
        }
    }
}
