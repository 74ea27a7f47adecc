//! The `syslog_parser` operator: messages of RFC 3164 and RFC 5424, and their framing by RFC 6587.
//!
//! What it takes is what the collector's parser takes. Values stay where they are in the text; the
//! priority becomes severity, and the time stamp the time of the record. A message of RFC 5424 that
//! has none keeps the time it had, which the collector calls an error.

mod rfc3164;
mod rfc5424;

use tailwater_config::Section;
use tailwater_pdata::{Cell, LogsBatch, Map, Slice, Value};

use super::operator::{Operator, OperatorCx, Rows};
use super::options::parsed;
use super::parsing::{Parsing, push_names};
use super::record_error::RecordError;
use tailwater_golang::strptime::{Layout, LayoutType, Zone};

/// Names of what is found.
const NAMES: [&str; 10] = [
    "priority",
    "facility",
    "facility_text",
    "version",
    "hostname",
    "appname",
    "proc_id",
    "msg_id",
    "message",
    "structured_data",
];

/// Keywords of the facilities, by their number (RFC 5427).
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "security", "console", "cron2", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// Severity number of OTLP and text of each severity of syslog.
const SEVERITIES: [(u8, &str); 8] = [
    (21, "emerg"),
    (19, "alert"),
    (18, "crit"),
    (17, "err"),
    (13, "warning"),
    (10, "notice"),
    (9, "info"),
    (5, "debug"),
];

/// Longest message with octet counting in bytes, if nothing is set (RFC 5425).
const OCTETS_MAX: usize = 8192;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Rfc3164,
    Rfc5424,
    None,
}

/// How a message is marked off from what is around it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    None,
    /// Its length stands before it; no more than so many bytes.
    OctetCounting(usize),
    /// This byte stands behind it.
    Trailer(u8),
}

/// A range of the text.
type Span = Option<(usize, usize)>;

/// What a message says.
#[derive(Debug, Default, PartialEq)]
struct Message {
    priority: Option<u8>,
    version: Option<i64>,
    time: Stamp,
    hostname: Span,
    appname: Span,
    proc_id: Span,
    msg_id: Span,
    message: Span,
    structured_data: Option<Map>,
}

/// The time of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Stamp {
    #[default]
    None,
    /// Month, day and time of day, as text.
    Yearless(usize, usize),
    /// ns since the epoch.
    At(i64),
}

/// See the module.
#[derive(Debug)]
pub(super) struct SyslogParser {
    parsing: Parsing,
    protocol: Protocol,
    framing: Framing,
    skip_pri: bool,
    zone: Zone,
    /// The form of a time without a year.
    stamp: Layout,
    names: Vec<Slice>,
    texts: Vec<Slice>,
    fields: Vec<(Slice, Cell)>,
}

impl SyslogParser {
    pub(super) fn decode(s: &mut Section<'_, '_>) -> Option<SyslogParser> {
        let parsing = Parsing::decode("syslog_parser", s);
        let MessageOptions {
            protocol,
            framing,
            skip_pri,
            zone,
        } = MessageOptions::decode(s);
        let stamp = Layout::parse("Jan _2 15:04:05", LayoutType::Gotime);
        Some(SyslogParser {
            parsing,
            protocol,
            framing,
            skip_pri,
            zone: zone?,
            stamp: stamp.expect("a layout of Go's"),
            names: Vec::new(),
            texts: Vec::new(),
            fields: Vec::new(),
        })
    }

    fn read(&self, text: &[u8]) -> Result<Message, RecordError> {
        let (from, to) = match self.framing {
            Framing::None => (0, text.len()),
            Framing::OctetCounting(most) if self.protocol == Protocol::None => {
                // The length is taken away, not looked at.
                (counted(text, most).map_or(0, |(from, _)| from), text.len())
            }
            Framing::OctetCounting(most) => {
                let (from, len) = counted(text, most)?;
                match text.len().checked_sub(from + len) {
                    Some(0) => {}
                    Some(1) if text.last() == Some(&b'\n') => {}
                    Some(_) => return Err(error("text behind the message", from + len)),
                    None => return Err(error("shorter than the length says", from)),
                }
                (from, from + len)
            }
            Framing::Trailer(trailer) => {
                (0, text.len() - usize::from(text.last() == Some(&trailer)))
            }
        };
        let skip_pri = self.skip_pri && self.framing == Framing::None;
        match self.protocol {
            Protocol::Rfc3164 => rfc3164::read(text, from, to, skip_pri),
            Protocol::Rfc5424 => rfc5424::read(text, from, to, skip_pri),
            Protocol::None => {
                let priority = Reader {
                    text: &text[..to],
                    at: from,
                }
                .priority();
                Ok(Message {
                    priority: priority.ok(),
                    message: Some((from, to)),
                    ..Message::default()
                })
            }
        }
    }

    fn apply(&mut self, batch: &mut LogsBatch, row: usize, now_ns: i64) -> Result<(), RecordError> {
        let text = self.parsing.text(batch, row)?;
        let m = self.read(batch.text.get(text))?;
        let time = match m.time {
            _ if self.parsing.sets_time() => None,
            Stamp::None => None,
            Stamp::At(ns) => Some(ns),
            Stamp::Yearless(from, to) => {
                let stamp = &batch.text.get(text)[from..to];
                Some(self.stamp.parse_time(stamp, &self.zone, now_ns)?)
            }
        };
        self.fields.clear();
        let mut add = |name: usize, cell| self.fields.push((self.names[name], cell));
        if let Some(priority) = m.priority {
            add(0, Cell::Int(i64::from(priority)));
            add(1, Cell::Int(i64::from(priority / 8)));
            add(2, Cell::Str(self.texts[usize::from(priority / 8)]));
        }
        if let Some(version) = m.version {
            add(3, Cell::Int(version));
        }
        let spans = [m.hostname, m.appname, m.proc_id, m.msg_id, m.message];
        for (i, span) in spans.into_iter().enumerate() {
            if let Some((from, to)) = span {
                add(4 + i, Cell::Str(text.part(from, to - from)));
            }
        }
        if let Some(data) = m.structured_data {
            let cell = batch.big_cell(Value::Map(data));
            self.fields.push((self.names[9], cell));
        }
        self.parsing.set(batch, row, &self.fields);
        let rows = batch.rows();
        if let Some(ns) = time {
            batch.time.each_mut(rows)[row] = ns;
        }
        if let Some(priority) = m.priority {
            let severity = usize::from(priority % 8);
            batch.severity.each_mut(rows)[row] = SEVERITIES[severity].0;
            let text = self.texts[FACILITIES.len() + severity];
            batch.set_severity_text(row, Cell::Str(text));
        }
        Ok(())
    }
}

impl Operator for SyslogParser {
    fn process(&mut self, batch: &mut LogsBatch, rows: &mut Rows, cx: &mut OperatorCx) {
        self.parsing.begin(batch);
        push_names(&NAMES, batch, &mut self.names);
        let mut texts = FACILITIES.to_vec();
        texts.extend(SEVERITIES.map(|(_, text)| text));
        push_names(&texts, batch, &mut self.texts);
        for row in 0..rows.len() {
            if !rows.is_active(row) {
                continue;
            }
            if let Err(e) = self.apply(batch, row, cx.now_ns) {
                rows.fail(row, || e);
            }
        }
        self.parsing.finish(batch, rows, cx);
    }
}

/// What messages look like: the options that the receiver has, too.
pub(crate) struct MessageOptions {
    protocol: Protocol,
    framing: Framing,
    skip_pri: bool,
    /// `None` if there is no such zone, which was reported.
    zone: Option<Zone>,
}

/// What its options do.
const OPTIONS: &[(&str, &str)] = &[
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
        "The length of the message stands before it (RFC 6587).",
    ),
    (
        "max_octets",
        "Longest message with such a length, in bytes; 0 means 8192.",
    ),
    (
        "non_transparent_framing_trailer",
        "What stands behind the message.",
    ),
];

impl MessageOptions {
    /// Reads them.
    pub(crate) fn decode(s: &mut Section<'_, '_>) -> MessageOptions {
        s.describe(OPTIONS);
        let protocols = [
            ("rfc3164", Protocol::Rfc3164),
            ("rfc5424", Protocol::Rfc5424),
            ("none", Protocol::None),
        ];
        let given = s.has("protocol");
        let protocol = s.choice_any_case("protocol", &protocols, Protocol::Rfc5424);
        if !given {
            s.error("protocol is required: rfc3164, rfc5424 or none");
        }
        let zone = match s.str_optional("location").filter(|name| !name.is_empty()) {
            Some(name) => parsed(s, "location", Zone::named(name)),
            None => Some(Zone::utc()),
        };
        let skip_pri = s.bool("allow_skip_pri_header", false);
        MessageOptions {
            protocol,
            framing: framing(s, protocol),
            skip_pri,
            zone,
        }
    }
}

/// The options that say how messages are framed.
fn framing(s: &mut Section<'_, '_>, protocol: Protocol) -> Framing {
    let counting = s.bool("enable_octet_counting", false);
    let octets_max = match s.usize("max_octets", 0, ..) {
        0 => OCTETS_MAX,
        set => set,
    };
    let trailers = [("LF", b'\n'), ("NUL", 0)];
    let trailer = s.choice_optional("non_transparent_framing_trailer", &trailers);
    if trailer.is_some() && protocol != Protocol::Rfc5424 {
        let key = "non_transparent_framing_trailer";
        s.invalid(key, "goes with protocol rfc5424 only");
    }
    match (counting, trailer) {
        (true, Some(_)) => {
            s.error(
                "only one of enable_octet_counting and non_transparent_framing_trailer can be set",
            );
            Framing::None
        }
        (true, None) => Framing::OctetCounting(octets_max),
        (false, Some(trailer)) => Framing::Trailer(trailer),
        (false, None) => Framing::None,
    }
}

/// Where a message with its length before it begins, and its length in bytes.
fn counted(text: &[u8], most: usize) -> Result<(usize, usize), RecordError> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || text[0] == b'0' {
        return Err(error("expected the length of the message", 0));
    }
    if text.get(digits) != Some(&b' ') {
        return Err(error("expected a blank behind the length", digits));
    }
    let number = std::str::from_utf8(&text[..digits]).unwrap_or_default();
    match number.parse::<usize>() {
        Ok(len) if len <= most => Ok((digits + 1, len)),
        _ => Err(error("longer than max_octets", 0)),
    }
}

fn error(what: &'static str, at: usize) -> RecordError {
    RecordError::Format {
        format: "a syslog message",
        what,
        at,
    }
}

/// Reads a message from its beginning on. `text` ends where it ends.
struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn fail<T>(&self, what: &'static str) -> Result<T, RecordError> {
        Err(error(what, self.at))
    }

    fn byte(&mut self, byte: u8, what: &'static str) -> Result<(), RecordError> {
        match self.peek() == Some(byte) {
            true => self.at += 1,
            false => return self.fail(what),
        }
        Ok(())
    }

    /// Takes bytes that `is` is true for, `least` to `most` of them.
    fn run(
        &mut self,
        least: usize,
        most: usize,
        what: &'static str,
        is: impl Fn(u8) -> bool,
    ) -> Result<(usize, usize), RecordError> {
        let start = self.at;
        let rest = &self.text[start..];
        let found = rest.iter().take_while(|b| is(**b)).count();
        if !(least..=most).contains(&found) {
            self.at += found.min(most);
            return self.fail(what);
        }
        self.at += found;
        Ok((start, self.at))
    }

    /// A number of exactly `digits` digits from `least` to `most`.
    fn number(
        &mut self,
        digits: usize,
        least: u32,
        most: u32,
        what: &'static str,
    ) -> Result<u32, RecordError> {
        let end = (self.at + digits).min(self.text.len());
        let written = &self.text[self.at..end];
        let value = written.iter().try_fold(0u32, |n, b| {
            b.is_ascii_digit().then(|| n * 10 + u32::from(b - b'0'))
        });
        match value {
            Some(n) if written.len() == digits && (least..=most).contains(&n) => {
                self.at = end;
                Ok(n)
            }
            _ => self.fail(what),
        }
    }

    /// `<0>` to `<191>`.
    fn priority(&mut self) -> Result<u8, RecordError> {
        const WHAT: &str = "expected a priority from <0> to <191>";
        self.byte(b'<', WHAT)?;
        let start = self.at;
        let (from, to) = self.run(1, 3, WHAT, |b| b.is_ascii_digit())?;
        let digits = &self.text[from..to];
        let value = digits
            .iter()
            .fold(0u32, |n, b| n * 10 + u32::from(b - b'0'));
        let is_padded = digits.len() > 1 && digits[0] == b'0';
        match u8::try_from(value) {
            Ok(priority @ 0..=191) if !is_padded => {
                self.byte(b'>', WHAT)?;
                Ok(priority)
            }
            _ => Err(error(WHAT, start)),
        }
    }

    /// The priority, unless it may be left out and is.
    fn optional_priority(&mut self, skip: bool) -> Result<Option<u8>, RecordError> {
        match skip && self.peek() != Some(b'<') {
            true => Ok(None),
            false => self.priority().map(Some),
        }
    }

    /// Hours, minutes and seconds.
    fn time_of_day(&mut self, what: &'static str) -> Result<[u32; 3], RecordError> {
        let hour = self.number(2, 0, 23, what)?;
        self.byte(b':', what)?;
        let minute = self.number(2, 0, 59, what)?;
        self.byte(b':', what)?;
        Ok([hour, minute, self.number(2, 0, 59, what)?])
    }
}

#[cfg(test)]
mod tests;
