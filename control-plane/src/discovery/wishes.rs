//! What owners of containers ask for, by labels of Docker or annotations of pods under one set of names.
//!
//! | name | value | |
//! |---|---|---|
//! | `tailwater.io/logs` | `true`, `false` | whether it is tailed |
//! | `tailwater.io/parser` | `none`, `json`, `logfmt` | what it writes |
//! | `tailwater.io/tenant` | a name | the tenant its lines go to |
//!
//! With a dot and the name of a container behind them, as in `tailwater.io/parser.proxy`, they are about that container of
//! a pod alone, and win. Whoever may start a container may ask, so none of it becomes part of a path or an address, and
//! only tenants that the operator lists are possible.

use std::collections::{BTreeMap, BTreeSet};

/// What the names begin with.
const PREFIX: &str = "tailwater.io/";
/// As much of a value is repeated to people.
const SHOWN_CHARS: usize = 64;

/// What containers may ask for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    /// Only those that ask for it are tailed.
    pub opt_in: bool,
    /// Tenants that may be named.
    pub tenants: BTreeSet<String>,
}

/// What a container writes, as it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Parser {
    /// Lines that are not taken apart.
    #[default]
    None,
    /// A JSON object each line.
    Json,
    /// Pairs of keys and values.
    Logfmt,
}

const PARSERS: [(&str, Parser); 3] = [
    ("none", Parser::None),
    ("json", Parser::Json),
    ("logfmt", Parser::Logfmt),
];

/// How a container is tailed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wish {
    /// What it writes.
    pub parser: Parser,
    /// The tenant its lines go to, in place of that of all others.
    pub tenant: Option<String>,
    /// What it asked for in vain, for people.
    pub unheeded: Option<String>,
}

/// Reads what is asked for by `own`, which are labels or annotations; `container` is the name of a container of a pod.
/// None if it is not to be tailed.
///
/// # Errors
/// It asks for what may not be guessed at; the text says for what.
pub fn read(
    own: &BTreeMap<String, String>,
    container: Option<&str>,
    rules: &Rules,
) -> Result<Option<Wish>, String> {
    let value = |name: &str| {
        let general = format!("{PREFIX}{name}");
        let special = container.and_then(|c| own.get(&format!("{general}.{c}")));
        special.or_else(|| own.get(&general)).map(|v| v.trim())
    };
    match value("logs") {
        None if rules.opt_in => return Ok(None),
        None | Some("true") => {}
        Some("false") => return Ok(None),
        Some(other) => {
            return Err(format!(
                "{PREFIX}logs is {:?}, which is neither true nor false",
                shown(other)
            ));
        }
    }
    let tenant = value("tenant").filter(|t| !t.is_empty());
    if let Some(tenant) = tenant
        && !rules.tenants.contains(tenant)
    {
        return Err(format!(
            "{PREFIX}tenant is {:?}, which --tenant does not allow",
            shown(tenant)
        ));
    }
    let mut wish = Wish {
        tenant: tenant.map(str::to_owned),
        ..Wish::default()
    };
    if let Some(name) = value("parser") {
        match PARSERS.iter().find(|(known, _)| *known == name) {
            Some((_, parser)) => wish.parser = *parser,
            None => {
                wish.unheeded = Some(format!(
                    "{PREFIX}parser is {:?}; there are none, json and logfmt",
                    shown(name)
                ));
            }
        }
    }
    Ok(Some(wish))
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = of
            .iter()
            .map(|(k, v)| (format!("{PREFIX}{k}"), (*v).into()));
        own.collect()
    }

    #[test]
    fn what_is_asked_for_is_read() {
        let rules = Rules {
            opt_in: false,
            tenants: BTreeSet::from(["shop".into()]),
        };
        let wish = |parser, tenant: Option<&str>| Wish {
            parser,
            tenant: tenant.map(Into::into),
            unheeded: None,
        };
        let plain = wish(Parser::None, None);
        for (of, container, expect) in [
            (vec![], None, Some(plain.clone())),
            (vec![("logs", "true")], None, Some(plain.clone())),
            (vec![("logs", "false")], Some("web"), None),
            (
                vec![("logs", "false"), ("logs.web", "true")],
                Some("web"),
                Some(plain.clone()),
            ),
            (vec![("logs.web", "false")], Some("web"), None),
            (vec![("logs.web", "false")], Some("db"), Some(plain.clone())),
            (
                vec![("parser", "json"), ("parser.proxy", "logfmt")],
                Some("web"),
                Some(wish(Parser::Json, None)),
            ),
            (
                vec![("parser", "json"), ("parser.proxy", " logfmt ")],
                Some("proxy"),
                Some(wish(Parser::Logfmt, None)),
            ),
            (
                vec![("tenant", "shop")],
                None,
                Some(wish(Parser::None, Some("shop"))),
            ),
            (vec![("tenant", "")], None, Some(plain)),
        ] {
            let found = read(&own(&of), container, &rules);
            assert_eq!(found, Ok(expect), "{of:?} {container:?}");
        }
    }

    /// Guarantee: what nobody allowed is not done, and what is not understood is not guessed at.
    #[test]
    fn what_is_not_allowed_is_refused() {
        let rules = Rules::default();
        let long = "x".repeat(10_000);
        for (of, about) in [
            (
                ("tenant", "shop"),
                "\"shop\", which --tenant does not allow",
            ),
            (("tenant", "../a"), "does not allow"),
            (("tenant", &long), "does not allow"),
            (("logs", "off"), "neither true nor false"),
        ] {
            let error = read(&own(&[of]), None, &rules).unwrap_err();
            assert!(error.contains(about) && error.len() < 200, "{error}");
        }
        let wish = read(&own(&[("parser", "nginx")]), None, &rules);
        let wish = wish.unwrap().unwrap();
        assert_eq!(wish.parser, Parser::None);
        assert!(wish.unheeded.unwrap().contains("\"nginx\""));
    }

    #[test]
    fn with_opt_in_only_those_that_ask_are_tailed() {
        let rules = Rules {
            opt_in: true,
            ..Rules::default()
        };
        assert_eq!(read(&own(&[]), Some("web"), &rules), Ok(None));
        for of in [("logs", "true"), ("logs.web", "true")] {
            assert!(read(&own(&[of]), Some("web"), &rules).unwrap().is_some());
        }
    }
}
