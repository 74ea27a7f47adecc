//! `env`: what `OTEL_RESOURCE_ATTRIBUTES` says: `key=value,key=value`, values percent-encoded.
//!
//! Source: OpenTelemetry's specification, "Specifying resource information via an environment variable", and what the
//! collector takes: up to 256 characters of ASCII in keys and values, `+` for a space.

use tailwater_config::Environment;
use tailwater_pdata::Map;

use super::detection::{Detected, Detector};

/// The variable, and its old name.
const VARIABLES: [&str; 2] = ["OTEL_RESOURCE_ATTRIBUTES", "OTEL_RESOURCE"];
const LENGTH_MAX: usize = 256;

/// The attributes, which are read once: the environment of a process does not change.
pub(super) struct Env(Map);

impl Env {
    /// Reads the variable.
    ///
    /// # Errors
    /// It is not as it has to be.
    pub fn new(env: &dyn Environment) -> Result<Env, String> {
        for name in VARIABLES {
            let text = env.variable(name).unwrap_or_default();
            let text = text.to_string_lossy();
            if !text.trim().is_empty() {
                let map = parse(text.trim());
                return map.map(Env).map_err(|e| format!("variable {name}: {e}"));
            }
        }
        Ok(Env(Map::new()))
    }
}

impl Detector for Env {
    fn name(&self) -> &'static str {
        "env"
    }

    fn detect(&self) -> Detected<'_> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

fn parse(text: &str) -> Result<Map, String> {
    let mut map = Map::new();
    // A comma at the end ends the last pair.
    for pair in text.strip_suffix(',').unwrap_or(text).split(',') {
        let bad = |why: &str| format!("{pair:?} {why}");
        let (key, value) = pair.split_once('=').ok_or_else(|| bad("has no ="))?;
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() {
            return Err(bad("has no key"));
        }
        if !pair.is_ascii() || key.len().max(value.len()) > LENGTH_MAX {
            return Err(bad("has more than 256 characters, or others than ASCII"));
        }
        let value = decoded(value).ok_or_else(|| bad("is not percent-encoded as it should be"))?;
        map.insert(key, value);
    }
    Ok(map)
}

fn decoded(text: &str) -> Option<String> {
    let (mut out, mut bytes) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_config::MemoryEnvironment;

    fn map(name: &str, text: &str) -> Result<Map, String> {
        let env = MemoryEnvironment::new().with_variable(name, text);
        Env::new(&env).map(|env| env.0)
    }

    #[test]
    fn pairs_are_attributes() {
        let cases: [(&str, &[(&str, &str)]); 6] = [
            ("", &[]),
            ("  ", &[]),
            ("a=1", &[("a", "1")]),
            (" a = 1 , b.c=x%20y+z ,", &[("a", "1"), ("b.c", "x y z")]),
            ("a=", &[("a", "")]),
            ("a=b=c,a=d", &[("a", "d")]),
        ];
        for (text, want) in cases {
            let want = Map::from_iter(want.iter().copied());
            assert_eq!(map(VARIABLES[0], text), Ok(want.clone()), "{text:?}");
            assert_eq!(map(VARIABLES[1], text), Ok(want), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_pair_is_named() {
        let long = format!("a={}", "x".repeat(257));
        for text in [
            "a", "a=1,,b=2", "=1", "a=%4", "a=%zz", "a=%ff", "ä=1", &long,
        ] {
            let error = map(VARIABLES[0], text).unwrap_err();
            assert!(
                error.contains("OTEL_RESOURCE_ATTRIBUTES"),
                "{text:?}: {error}"
            );
        }
    }
}
