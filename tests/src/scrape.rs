//! The agent's own metrics: one scrape, parsed, and the accounting identity in it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// One series at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name of the metric.
    pub name: String,
    /// Labels, sorted by name.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// All series of one scrape.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// In the order sent.
    pub samples: Vec<Sample>,
}

/// The account of one component, in records or in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Account {
    /// Taken in.
    pub read: f64,
    /// Accepted by the destination.
    pub delivered: f64,
    /// Neither delivered nor given up.
    pub in_flight: f64,
    /// Removed on purpose, over all filters.
    pub filtered: f64,
    /// Given up, over all reasons.
    pub dropped: f64,
    /// Settled beyond what was read: always 0.
    pub overdrawn: f64,
}

impl Account {
    /// What read is more than the sum of its parts; 0 when the identity holds.
    pub fn unexplained(&self) -> f64 {
        self.read - self.delivered - self.in_flight - self.filtered - self.dropped
    }
}

impl Scrape {
    /// Gets `/metrics` from `addr`.
    ///
    /// # Errors
    /// What the connection fails with; an answer that is not a 200.
    pub fn fetch(addr: SocketAddr) -> io::Result<Self> {
        let answer = get(addr, "/metrics")?;
        let Some(body) = answer.strip_prefix("HTTP/1.1 200 ") else {
            return Err(io::Error::other(format!("not a 200: {answer:.200}")));
        };
        let body = body.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok(Self {
            samples: body.lines().filter_map(sample).collect(),
        })
    }

    /// The sum of all series `name` whose labels contain `with`.
    pub fn sum(&self, name: &str, with: &[(&str, &str)]) -> f64 {
        let has = |s: &&Sample| {
            s.name == name
                && with
                    .iter()
                    .all(|(k, v)| s.labels.get(*k).is_some_and(|have| have == v))
        };
        self.samples.iter().filter(has).map(|s| s.value).sum()
    }

    /// Whether there is a series of that name.
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|s| s.name == name)
    }

    /// The account of every component in records, by kind and id.
    pub fn accounts(&self) -> BTreeMap<(String, String), Account> {
        self.accounts_in("records")
    }

    /// As [`Scrape::accounts`], in `records` or in `bytes`.
    pub fn accounts_in(&self, unit: &str) -> BTreeMap<(String, String), Account> {
        let prefix = format!("tailwater_{unit}_");
        let mut accounts: BTreeMap<_, Account> = BTreeMap::new();
        for s in &self.samples {
            let (Some(kind), Some(component)) = (s.labels.get("kind"), s.labels.get("component"))
            else {
                continue;
            };
            let account = accounts
                .entry((kind.clone(), component.clone()))
                .or_default();
            match s.name.strip_prefix(&prefix).unwrap_or_default() {
                "read" => account.read += s.value,
                "delivered" => account.delivered += s.value,
                "in_flight" => account.in_flight += s.value,
                "filtered" => account.filtered += s.value,
                "dropped" => account.dropped += s.value,
                "overdrawn" => account.overdrawn += s.value,
                _ => {}
            }
        }
        accounts
    }

    /// What is wrong with the account and the engine whatever happens outside: an identity that
    /// does not hold, a duty that was lost, a panic. Empty when all is well.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for unit in ["records", "bytes"] {
            for (component, a) in self.accounts_in(unit) {
                if a.unexplained() != 0.0 || a.overdrawn != 0.0 {
                    faults.push(format!("{component:?} in {unit}: {a:?}"));
                }
            }
        }
        for name in ["tailwater_tokens_lost", "tailwater_panics"] {
            let count = self.sum(name, &[]);
            if count != 0.0 {
                faults.push(format!("{name} {count}"));
            }
        }
        faults
    }

    /// The sums over the accounts of all components of a kind (`receiver`, `exporter`).
    pub fn account(&self, kind: &str) -> Account {
        let mut sum = Account::default();
        for ((of, _), a) in self.accounts() {
            if of == kind {
                sum.read += a.read;
                sum.delivered += a.delivered;
                sum.in_flight += a.in_flight;
                sum.filtered += a.filtered;
                sum.dropped += a.dropped;
                sum.overdrawn += a.overdrawn;
            }
        }
        sum
    }
}

/// The whole answer to a GET, head and body.
///
/// # Errors
/// What the connection fails with.
pub fn get(addr: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

/// One line of the text form; `None` for comments.
fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, parse_labels(rest.strip_suffix('}')?)?),
        None => (series, BTreeMap::new()),
    };
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: value.parse().ok()?,
    })
}

/// `a="x",b="y"`, with `\\`, `\"` and `\n` in values.
fn parse_labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    c => value.push(c),
                },
                (_, c) => value.push(c),
            }
        };
        labels.insert(name.to_owned(), value);
        rest = after[end + 1..].trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_parsed_and_comments_are_not() {
        let line = r#"m_total{a="x\"y\\z",b="1,2 {}"} 12.5"#;
        let got = sample(line).unwrap();
        assert_eq!((got.name.as_str(), got.value), ("m_total", 12.5));
        assert_eq!(got.labels["a"], "x\"y\\z");
        assert_eq!(got.labels["b"], "1,2 {}");
        assert_eq!(sample("plain 3").unwrap().value, 3.0);
        assert_eq!(sample("# HELP m text"), None);
    }

    #[test]
    fn an_account_adds_up_over_reasons_and_components() {
        let line = |name: &str, extra: &str, value: u32| {
            sample(&format!(
                "{name}{{kind=\"receiver\",component=\"f\"{extra}}} {value}"
            ))
            .unwrap()
        };
        let scrape = Scrape {
            samples: vec![
                line("tailwater_records_read", "", 10),
                line("tailwater_records_delivered", "", 4),
                line("tailwater_records_in_flight", "", 1),
                line("tailwater_records_dropped", ",reason=\"a\"", 2),
                line("tailwater_records_dropped", ",reason=\"b\"", 3),
                line("tailwater_bytes_read", "", 100),
            ],
        };
        let account = scrape.account("receiver");
        assert_eq!((account.dropped, account.unexplained()), (5.0, 0.0));
        assert_eq!(scrape.account("exporter"), Account::default());
        let bytes = scrape.accounts_in("bytes").into_values().next().unwrap();
        assert_eq!((bytes.read, bytes.unexplained()), (100.0, 100.0));
        assert_eq!(scrape.faults().len(), 1, "{:?}", scrape.faults());
        assert_eq!(
            scrape.sum("tailwater_records_dropped", &[("reason", "b")]),
            3.0
        );
    }
}
