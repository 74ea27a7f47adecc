//! Grok: regular expressions made of named ones, `%{NUMBER:duration:int}`.
//!
//! The names and what they match are those of Logstash; the expressions are our own, without looking
//! around, which a regular engine cannot do. What a pattern is made of is put together when the
//! configuration is read.

use std::collections::HashMap;

use regex::bytes::Regex;
use tailwater_golang::regexp;
use tailwater_pdata::{Key, Map, Value};

use super::Arg;

/// A pattern, and what its groups are.
#[derive(Clone, Debug)]
pub(crate) struct Grok {
    pattern: Regex,
    /// By the number of the group.
    groups: Vec<Option<Group>>,
}

#[derive(Clone, Debug)]
struct Group {
    name: Key,
    becomes: Becomes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Becomes {
    Text,
    Int,
    Double,
    Bool,
}

/// Longest expression that a pattern may become, in bytes.
const EXPANDED_BYTES_MAX: usize = 64 << 10;
/// Patterns within each other.
const DEPTH_MAX: usize = 32;

/// How groups are called that stand for `%{...}`: their number is behind it.
const PREFIX: &str = "grok_";

/// Makes the pattern of `ExtractGrokPatterns` of its arguments.
pub(super) fn prepare(args: &mut [Arg]) -> Result<(), String> {
    let (args, last) = args.split_at_mut(args.len().min(3));
    let named_only = matches!(args.get(2), Some(Arg::Bool(true)));
    let mut own = HashMap::new();
    if let Some(Arg::Texts(definitions)) = last.first() {
        for definition in definitions {
            let (name, pattern) = definition.split_once('=').ok_or_else(|| {
                format!("{definition:?} is no definition such as NAME=expression")
            })?;
            if name.contains(':') {
                return Err(format!("the name {name:?} of a definition has a colon"));
            }
            own.insert(name, pattern);
        }
    }
    if let Some(arg) = args.get_mut(1)
        && let Arg::Text(text) = arg
    {
        let grok = Grok::compile(text, named_only, &own)?;
        *arg = Arg::Grok(Box::new(grok));
    }
    Ok(())
}

impl Grok {
    fn compile(text: &str, named_only: bool, own: &HashMap<&str, &str>) -> Result<Grok, String> {
        let mut expansion = Expansion {
            own,
            named_only,
            out: String::new(),
            groups: Vec::new(),
        };
        expansion.pattern(text, 0)?;
        let Expansion { out, groups, .. } = expansion;
        let pattern = regexp::compile(&out)
            .map_err(|e| format!("{text:?} does not become a regular expression: {e}"))?;
        let group = |name: Option<&str>| {
            let name = name?;
            let made = name
                .strip_prefix(PREFIX)
                .and_then(|n| n.parse::<usize>().ok());
            let plain = || Group {
                name: name.into(),
                becomes: Becomes::Text,
            };
            Some(
                made.and_then(|n| groups.get(n).cloned())
                    .unwrap_or_else(plain),
            )
        };
        let groups: Vec<Option<Group>> = pattern.capture_names().map(group).collect();
        if named_only && groups.iter().flatten().next().is_none() {
            return Err("the pattern has no named group, such as %{WORD:name}".into());
        }
        Ok(Grok { pattern, groups })
    }

    /// What the groups are in `text`; empty ones are left out, and without a match there are none.
    pub fn extract(&self, text: &[u8]) -> Result<Map, &'static str> {
        let mut entries: Vec<(Key, Value)> = Vec::new();
        let Some(found) = self.pattern.captures(text) else {
            return Ok(Map::new());
        };
        for (i, group) in self.groups.iter().enumerate() {
            let (Some(group), Some(part)) = (group, found.get(i)) else {
                continue;
            };
            if part.is_empty() {
                continue;
            }
            let part = String::from_utf8_lossy(part.as_bytes());
            let value = match group.becomes {
                Becomes::Text => Value::from(part.into_owned()),
                Becomes::Int => Value::Int(part.parse().map_err(|_| "a group is no integer")?),
                Becomes::Double => Value::Double(part.parse().map_err(|_| "a group is no number")?),
                Becomes::Bool => match &*part {
                    "1" | "t" | "T" | "true" | "TRUE" | "True" => Value::Bool(true),
                    "0" | "f" | "F" | "false" | "FALSE" | "False" => Value::Bool(false),
                    _ => return Err("a group is no boolean"),
                },
            };
            entries.push((group.name.clone(), value));
        }
        Ok(Map::from_entries(entries))
    }
}

/// A pattern that becomes an expression.
struct Expansion<'d> {
    own: &'d HashMap<&'d str, &'d str>,
    named_only: bool,
    out: String,
    groups: Vec<Group>,
}

impl Expansion<'_> {
    fn pattern(&mut self, text: &str, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err("the patterns are nested too deeply, or in a circle".into());
        }
        let mut rest = text;
        while let Some(at) = rest.find("%{") {
            self.put(&rest[..at])?;
            rest = &rest[at..];
            match rest
                .split_once('}')
                .and_then(|(head, behind)| Some((Reference::read(&head[2..])?, behind)))
            {
                Some((reference, behind)) => {
                    self.reference(&reference, depth)?;
                    rest = behind;
                }
                // Anything else is part of the expression.
                None => {
                    self.put("%{")?;
                    rest = &rest[2..];
                }
            }
        }
        self.put(rest)
    }

    fn put(&mut self, text: &str) -> Result<(), String> {
        self.out.push_str(text);
        match self.out.len() > EXPANDED_BYTES_MAX {
            true => Err("the pattern becomes too long".into()),
            false => Ok(()),
        }
    }

    fn reference(&mut self, reference: &Reference<'_>, depth: usize) -> Result<(), String> {
        let known = || PATTERNS.iter().find(|(n, _)| *n == reference.pattern);
        let own = self.own.get(reference.pattern).copied();
        let inner = own.or_else(|| known().map(|(_, p)| *p)).ok_or_else(|| {
            let names = PATTERNS.iter().map(|(n, _)| *n);
            let near = tailwater_config::nearest(reference.pattern, names);
            let near = near.map_or(String::new(), |n| format!("; did you mean {n:?}?"));
            format!(
                "the pattern {} is not known; define it in pattern_definitions{near}",
                reference.pattern
            )
        })?;
        let becomes = match reference.kind {
            None | Some("string") => Becomes::Text,
            Some("int" | "long") => Becomes::Int,
            Some("double" | "float") => Becomes::Double,
            Some("bool" | "boolean") => Becomes::Bool,
            Some(other) => {
                return Err(format!(
                    "the type {other} of a group is none of string, int, long, float, double, bool, boolean"
                ));
            }
        };
        let name = match reference.name {
            None if self.named_only => None,
            name => Some(name.unwrap_or(reference.pattern)),
        };
        match name {
            None => self.put("(?:")?,
            Some(name) => {
                let n = self.groups.len();
                self.groups.push(Group {
                    name: name.into(),
                    becomes,
                });
                self.put(&format!("(?P<{PREFIX}{n}>"))?;
            }
        }
        self.pattern(inner, depth + 1)?;
        self.put(")")
    }
}

/// `NAME`, `NAME:group` or `NAME:group:type`.
struct Reference<'t> {
    pattern: &'t str,
    name: Option<&'t str>,
    kind: Option<&'t str>,
}

impl<'t> Reference<'t> {
    fn read(text: &'t str) -> Option<Reference<'t>> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is = |text: &str, more: &str| {
            !text.is_empty() && text.chars().all(|c| word(c) || more.contains(c))
        };
        let mut parts = text.split(':');
        let pattern = parts.next().filter(|p| is(p, ""))?;
        let (name, kind, more) = (parts.next(), parts.next(), parts.next());
        if name.is_some_and(|n| !is(n, "+.")) || more.is_some() {
            return None;
        }
        Some(Reference {
            pattern,
            name,
            kind: kind.filter(|k| is(k, "")),
        })
    }
}

/// What each name matches.
const PATTERNS: &[(&str, &str)] = &[
    ("WORD", r"\b\w+\b"),
    ("NOTSPACE", r"\S+"),
    ("SPACE", r"\s*"),
    ("DATA", r".*?"),
    ("GREEDYDATA", r".*"),
    ("QUOTEDSTRING", r#""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"#),
    ("QS", "%{QUOTEDSTRING}"),
    // Numbers.
    ("INT", r"[+-]?[0-9]+"),
    ("BASE10NUM", r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"),
    ("NUMBER", "%{BASE10NUM}"),
    ("BASE16NUM", r"[+-]?(?:0x)?[0-9A-Fa-f]+"),
    (
        "BASE16FLOAT",
        r"[+-]?(?:0x)?[0-9A-Fa-f]+(?:\.[0-9A-Fa-f]*)?",
    ),
    ("POSINT", r"\b[1-9][0-9]*\b"),
    ("NONNEGINT", r"\b[0-9]+\b"),
    ("BOOL", "true|false"),
    (
        "UUID",
        r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    ),
    (
        "URN",
        r"urn:[0-9A-Za-z][0-9A-Za-z-]{0,31}:[0-9A-Za-z()+,.:=@;$_!*'/?#-]+",
    ),
    // Networks.
    ("CISCOMAC", r"(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}"),
    ("WINDOWSMAC", r"(?:[0-9A-Fa-f]{2}-){5}[0-9A-Fa-f]{2}"),
    ("COMMONMAC", r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}"),
    ("MAC", "%{CISCOMAC}|%{WINDOWSMAC}|%{COMMONMAC}"),
    (
        "IPV4",
        r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[0-9]{1,2})\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[0-9]{1,2})",
    ),
    (
        "IPV6",
        r"(?:(?:[0-9A-Fa-f]{1,4}:){6}(?:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}|%{IPV4})|(?:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,5})?::(?:(?:[0-9A-Fa-f]{1,4}:){0,5}(?:%{IPV4}|[0-9A-Fa-f]{1,4}))?)(?:%[0-9A-Za-z]+)?",
    ),
    ("IP", "%{IPV6}|%{IPV4}"),
    (
        "HOSTNAME",
        r"\b[0-9A-Za-z][0-9A-Za-z-]{0,62}(?:\.[0-9A-Za-z][0-9A-Za-z-]{0,62})*(?:\.|\b)",
    ),
    ("HOST", "%{HOSTNAME}"),
    ("IPORHOST", "%{IP}|%{HOSTNAME}"),
    ("HOSTPORT", "%{IPORHOST}:%{POSINT}"),
    ("USERNAME", r"[0-9A-Za-z._-]+"),
    ("USER", "%{USERNAME}"),
    ("EMAILLOCALPART", r"[A-Za-z][0-9A-Za-z_.+=:-]*"),
    ("EMAILADDRESS", "%{EMAILLOCALPART}@%{HOSTNAME}"),
    // Paths.
    ("UNIXPATH", r"(?:/[\w%!$@:.,+~-]*)+"),
    ("WINPATH", r"(?:[A-Za-z]+:|\\)(?:\\[^\\?*]*)+"),
    ("PATH", "%{UNIXPATH}|%{WINPATH}"),
    ("TTY", r"/dev/(?:pts|tty[pq]?)(?:\w+)?/?[0-9]+"),
    ("URIPROTO", r"[A-Za-z][0-9A-Za-z+.-]+"),
    ("URIHOST", "%{IPORHOST}(?::%{POSINT})?"),
    ("URIPATH", r"(?:/[0-9A-Za-z$.+!*'(){},~:;=@#%&_-]*)+"),
    ("URIQUERY", r"[0-9A-Za-z$.+!*'|(){},~@#%&/=:;_?\[\]<>-]*"),
    ("URIPARAM", r"\?%{URIQUERY}"),
    ("URIPATHPARAM", r"%{URIPATH}(?:\?%{URIQUERY})?"),
    (
        "URI",
        r"%{URIPROTO}://(?:%{USER}(?::[^@]*)?@)?(?:%{URIHOST})?(?:%{URIPATHPARAM})?",
    ),
    // Dates and times.
    (
        "MONTH",
        r"\b(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:tember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b",
    ),
    ("MONTHNUM", "0[1-9]|1[0-2]"),
    ("MONTHDAY", "0[1-9]|[12][0-9]|3[01]|[1-9]"),
    (
        "DAY",
        r"\b(?:Mon(?:day)?|Tue(?:sday)?|Wed(?:nesday)?|Thu(?:rsday)?|Fri(?:day)?|Sat(?:urday)?|Sun(?:day)?)\b",
    ),
    ("YEAR", "(?:[0-9]{2}){1,2}"),
    ("HOUR", "2[0-3]|[01]?[0-9]"),
    ("MINUTE", "[0-5][0-9]"),
    // There are leap seconds.
    ("SECOND", "(?:[0-5][0-9]|60)(?:[:.,][0-9]+)?"),
    ("TIME", "%{HOUR}:%{MINUTE}(?::%{SECOND})?"),
    ("DATE_US", "%{MONTHNUM}[/-]%{MONTHDAY}[/-]%{YEAR}"),
    ("DATE_EU", "%{MONTHDAY}[./-]%{MONTHNUM}[./-]%{YEAR}"),
    ("DATE", "%{DATE_US}|%{DATE_EU}"),
    ("DATESTAMP", "%{DATE}[- ]%{TIME}"),
    ("TZ", "[PMACE][SED]T|UTC"),
    ("ISO8601_TIMEZONE", "Z|[+-]%{HOUR}(?::?%{MINUTE})"),
    ("ISO8601_SECOND", "%{SECOND}"),
    (
        "TIMESTAMP_ISO8601",
        "%{YEAR}-%{MONTHNUM}-%{MONTHDAY}[T ]%{HOUR}:?%{MINUTE}(?::?%{SECOND})?(?:%{ISO8601_TIMEZONE})?",
    ),
    (
        "DATESTAMP_RFC822",
        "%{DAY} %{MONTH} %{MONTHDAY} %{YEAR} %{TIME} %{TZ}",
    ),
    (
        "DATESTAMP_RFC2822",
        "%{DAY}, %{MONTHDAY} %{MONTH} %{YEAR} %{TIME} %{ISO8601_TIMEZONE}",
    ),
    (
        "DATESTAMP_OTHER",
        "%{DAY} %{MONTH} %{MONTHDAY} %{TIME} %{TZ} %{YEAR}",
    ),
    (
        "DATESTAMP_EVENTLOG",
        "%{YEAR}%{MONTHNUM}%{MONTHDAY}%{HOUR}%{MINUTE}%{SECOND}",
    ),
    ("SYSLOGTIMESTAMP", "%{MONTH} +%{MONTHDAY} %{TIME}"),
    ("HTTPDATE", "%{MONTHDAY}/%{MONTH}/%{YEAR}:%{TIME} %{INT}"),
    // Syslog and web servers.
    ("PROG", r"[!-Z\\^-~]+"),
    ("SYSLOGPROG", r"%{PROG}(?:\[[0-9]+\])?"),
    ("SYSLOGHOST", "%{IPORHOST}"),
    ("SYSLOGFACILITY", r"<%{NONNEGINT}\.%{NONNEGINT}>"),
    (
        "SYSLOGBASE",
        "%{SYSLOGTIMESTAMP:timestamp} (?:%{SYSLOGFACILITY} )?%{SYSLOGHOST:host.name} %{SYSLOGPROG}:",
    ),
    (
        "SYSLOGBASE2",
        "(?:%{SYSLOGTIMESTAMP:timestamp}|%{TIMESTAMP_ISO8601:timestamp})(?: %{SYSLOGFACILITY})?(?: %{SYSLOGHOST:host.name})?(?: %{SYSLOGPROG}:)?",
    ),
    ("SYSLOGLINE", "%{SYSLOGBASE2} %{GREEDYDATA:message}"),
    ("SYSLOG5424PRINTASCII", "[!-~]+"),
    ("SYSLOG5424PRI", "<%{NONNEGINT:log.syslog.priority:int}>"),
    ("SYSLOG5424SD", r"\[%{DATA}\]+"),
    (
        "SYSLOG5424BASE",
        "%{SYSLOG5424PRI}%{NONNEGINT:system.syslog.version} +(?:-|%{TIMESTAMP_ISO8601:timestamp}) +(?:-|%{IPORHOST:host.name}) +(?:-|%{SYSLOG5424PRINTASCII:process.command}) +(?:-|%{POSINT:process.pid:int}) +(?:-|%{SYSLOG5424PRINTASCII:event.code}) +(?:-|%{SYSLOG5424SD:system.syslog.structured_data})?",
    ),
    ("SYSLOG5424LINE", "%{SYSLOG5424BASE} +%{GREEDYDATA:message}"),
    ("CRON_ACTION", "[A-Z ]+"),
    (
        "CRONLOG",
        r"%{SYSLOGBASE} \(%{USER:user.name}\) %{CRON_ACTION:system.cron.action} \(%{DATA:message}\)",
    ),
    ("HTTPDUSER", "%{EMAILADDRESS}|%{USER}"),
    (
        "HTTPDERROR_DATE",
        "%{DAY} %{MONTH} %{MONTHDAY} %{TIME} %{YEAR}",
    ),
    (
        "HTTPD20_ERRORLOG",
        r"\[%{HTTPDERROR_DATE:timestamp}\] \[%{LOGLEVEL:log.level}\] (?:\[client %{IPORHOST:source.address}\] )?%{GREEDYDATA:message}",
    ),
    (
        "HTTPD_COMMONLOG",
        r#"%{IPORHOST:source.address} (?:-|%{HTTPDUSER:apache.access.user.identity}) (?:-|%{HTTPDUSER:user.name}) \[%{HTTPDATE:timestamp}\] "(?:%{WORD:http.request.method} %{NOTSPACE:url.original}(?: HTTP/%{NUMBER:http.version})?|%{DATA})" (?:-|%{INT:http.response.status_code:int}) (?:-|%{INT:http.response.body.size:int})"#,
    ),
    (
        "HTTPD_COMBINEDLOG",
        r#"%{HTTPD_COMMONLOG} "(?:-|%{DATA:http.request.referrer})" "(?:-|%{DATA:user_agent.original})""#,
    ),
    ("COMMONAPACHELOG", "%{HTTPD_COMMONLOG}"),
    ("COMBINEDAPACHELOG", "%{HTTPD_COMBINEDLOG}"),
    // Java.
    (
        "JAVACLASS",
        r"(?:[A-Za-z$_][0-9A-Za-z$_]*\.)*[A-Za-z$_][0-9A-Za-z$_]*",
    ),
    ("JAVAMETHOD", "<(?:cl)?init>|[A-Za-z$_][0-9A-Za-z$_]*"),
    ("JAVAFILE", "[0-9A-Za-z$_. -]+"),
    ("JAVALOGMESSAGE", ".*"),
    (
        "JAVASTACKTRACEPART",
        r"%{SPACE}at %{JAVACLASS:java.log.origin.class.name}\.%{JAVAMETHOD:log.origin.function}\(%{JAVAFILE:log.origin.file.name}(?::%{INT:log.origin.file.line:int})?\)",
    ),
    (
        "LOGLEVEL",
        "(?i:alert|trace|debug|notice|info(?:rmation)?|warn(?:ing)?|err(?:or)?|crit(?:ical)?|fatal|severe|emerg(?:ency)?)",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: each pattern that is known becomes an expression.
    #[test]
    fn every_pattern_is_one() {
        for (name, _) in PATTERNS {
            for named_only in [false, true] {
                let text = format!("%{{{name}:x}}");
                let made = Grok::compile(&text, named_only, &HashMap::new());
                made.unwrap_or_else(|e| panic!("{name}: {e}"));
            }
        }
    }

    #[test]
    fn patterns_match_whole_texts_of_their_kind() {
        for (name, yes, no) in [
            (
                "IPV6",
                &[
                    "::1",
                    "fe80::1%eth0",
                    "2001:db8::ff00:42:8329",
                    "1:2:3:4:5:6:7:8",
                    "::",
                    "::ffff:10.0.0.1",
                ][..],
                &["1:2", "g::1"][..],
            ),
            (
                "IPV4",
                &["10.0.0.1", "255.255.255.255"],
                &["256.0.0.1", "1.2.3"],
            ),
            (
                "TIMESTAMP_ISO8601",
                &["2026-03-01T13:05:09.250Z", "2026-03-01 13:05:09,1+01:00"],
                &["2026-13-01T00:00"],
            ),
            (
                "HTTPDATE",
                &["10/Oct/2000:13:55:36 -0700"],
                &["10/Foo/2000:13:55:36 -0700"],
            ),
            ("SYSLOGTIMESTAMP", &["Mar  1 13:05:09"], &["1 Mar 13:05:09"]),
            ("LOGLEVEL", &["INFO", "warning", "Err"], &["loud"]),
            ("QUOTEDSTRING", &[r#""a \" b""#, "'x'"], &[r#""a"#]),
            ("NUMBER", &["-1.5", ".5", "7"], &["1.", "x"]),
            (
                "URI",
                &["https://u:p@example.com:8080/a/b?x=1"],
                &["example.com"],
            ),
            (
                "UUID",
                &["123e4567-e89b-12d3-a456-426614174000"],
                &["123e4567"],
            ),
        ] {
            let whole = format!("^(?:%{{{name}}})$");
            let grok = Grok::compile(&whole, false, &HashMap::new()).unwrap();
            for text in yes {
                assert!(grok.pattern.is_match(text.as_bytes()), "{name}: {text}");
            }
            for text in no {
                assert!(!grok.pattern.is_match(text.as_bytes()), "{name}: {text}");
            }
        }
    }

    /// Guarantee: definitions in a circle, or that grow without end, are refused.
    #[test]
    fn definitions_end() {
        let circle = HashMap::from([("A", "%{B}"), ("B", "%{A}")]);
        assert!(
            Grok::compile("%{A}", false, &circle)
                .unwrap_err()
                .contains("circle")
        );
        let names: Vec<(String, String)> = (0..20)
            .map(|i| (format!("P{i}"), format!("%{{P{}}}%{{P{}}}", i + 1, i + 1)))
            .collect();
        let mut growing: HashMap<&str, &str> = names
            .iter()
            .map(|(n, p)| (n.as_str(), p.as_str()))
            .collect();
        growing.insert("P20", "x");
        assert!(
            Grok::compile("%{P0}", true, &growing)
                .unwrap_err()
                .contains("too long")
        );
    }
}
