//! Editors that replace text.

use std::borrow::Cow;

use regex::bytes::Regex;
use tailwater_golang::regexp;
use tailwater_pdata::{Map, Value};

use crate::compile::Target;
use crate::error::Fault;
use crate::expr::Expr;
use crate::functions::{Arg, Function};
use crate::scene::{Cx, Nothing, SceneMut};
use crate::value::{Stored, Val};

use super::write::{read, with_map, write};

/// What comes in place of a match.
#[derive(Clone, Debug)]
pub(crate) struct Replacement {
    text: Expr,
    function: Option<&'static Function>,
    /// What is in front of and behind it.
    frame: Option<(Box<str>, Box<str>)>,
    /// The whole text is replaced, and groups mean nothing.
    whole: bool,
}

/// Longest text that replacing makes, in bytes.
const MADE_BYTES_MAX: usize = 16 << 20;

impl Replacement {
    pub fn new(
        text: Expr,
        function: Option<&'static Function>,
        frame: Option<Box<str>>,
    ) -> Replacement {
        let frame = frame.and_then(|f| {
            let (front, behind) = f.split_once("%s")?;
            Some((front.into(), behind.into()))
        });
        Replacement {
            text,
            function,
            frame,
            whole: false,
        }
    }

    pub fn whole(self, whole: bool) -> Replacement {
        Replacement { whole, ..self }
    }

    /// The replacement as it is written, for one record.
    fn template(&self, scene: &dyn SceneMut, now_ns: i64) -> Result<Vec<u8>, Fault> {
        let cx = Cx { scene, now_ns };
        match self.text.eval(&cx)? {
            Val::Str(text) => Ok(text.into_owned()),
            other => Err(Fault::Kind {
                place: "a replacement",
                wanted: "text",
                found: other.kind(),
            }),
        }
    }

    /// Appends what comes in place of a match: `text`, after the function, in its frame.
    fn finish(&self, text: Vec<u8>, now_ns: i64, out: &mut Vec<u8>) -> Result<(), Fault> {
        let text = match self.function {
            None => text,
            Some(function) => {
                let args = [Arg::Value(Expr::Const(Val::Str(Cow::Owned(text))))];
                let cx = Cx {
                    scene: &Nothing,
                    now_ns,
                };
                match (function.run)(&args, &cx)? {
                    Val::Str(text) => text.into_owned(),
                    other => {
                        return Err(Fault::Kind {
                            place: "a replacement",
                            wanted: "text",
                            found: other.kind(),
                        });
                    }
                }
            }
        };
        match &self.frame {
            None => out.extend_from_slice(&text),
            Some((front, behind)) => {
                out.extend_from_slice(front.as_bytes());
                out.extend_from_slice(&text);
                out.extend_from_slice(behind.as_bytes());
            }
        }
        if out.len() > MADE_BYTES_MAX {
            return Err(Fault::failed("a replacement", "the result is too long"));
        }
        Ok(())
    }

    /// What becomes of `text`; `None` if nothing in it matches.
    fn apply(
        &self,
        pattern: &Regex,
        template: &[u8],
        text: &[u8],
        now_ns: i64,
    ) -> Result<Option<Vec<u8>>, Fault> {
        if !pattern.is_match(text) {
            return Ok(None);
        }
        // Each reference to a group may be as long as the text.
        let references = template.iter().filter(|b| **b == b'$').count();
        let longest = references
            .saturating_mul(text.len())
            .saturating_add(template.len());
        if longest > MADE_BYTES_MAX {
            return Err(Fault::failed("a replacement", "the result may be too long"));
        }
        let mut out = Vec::with_capacity(text.len() + 16);
        if self.whole {
            self.finish(template.to_vec(), now_ns, &mut out)?;
            return Ok(Some(out));
        }
        let mut last = 0;
        for found in pattern.captures_iter(text) {
            let Some(all) = found.get(0) else { continue };
            if regexp::is_within_character(text, all.range()) {
                continue;
            }
            out.extend_from_slice(&text[last..all.start()]);
            last = all.end();
            if self.function.is_none() && self.frame.is_none() {
                found.expand(template, &mut out);
                if out.len() > MADE_BYTES_MAX {
                    return Err(Fault::failed("a replacement", "the result is too long"));
                }
            } else {
                let mut expanded = Vec::new();
                found.expand(template, &mut expanded);
                self.finish(expanded, now_ns, &mut out)?;
            }
        }
        out.extend_from_slice(&text[last..]);
        Ok(Some(out))
    }
}

/// Replaces in the text that the target is; anything else stays as it is.
pub(super) fn one(
    target: &Target,
    pattern: &Regex,
    with: &Replacement,
    scene: &mut dyn SceneMut,
    now_ns: i64,
) -> Result<(), Fault> {
    let new = {
        let Val::Str(text) = read(target, scene, now_ns)? else {
            return Ok(());
        };
        if !pattern.is_match(&text) {
            return Ok(());
        }
        let template = with.template(scene, now_ns)?;
        with.apply(pattern, &template, &text, now_ns)?
    };
    match new {
        Some(new) => write(target, Stored::Text(new), scene, now_ns),
        None => Ok(()),
    }
}

/// Replaces in each text of a map, or in its keys.
pub(super) fn all(
    target: &Target,
    pattern: &Regex,
    keys: bool,
    with: &Replacement,
    scene: &mut dyn SceneMut,
    now_ns: i64,
) -> Result<(), Fault> {
    let template = with.template(scene, now_ns)?;
    with_map(target, scene, now_ns, &mut |map| {
        let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let mut entries = Vec::with_capacity(map.len());
        let (mut any, mut made) = (false, 0);
        for (key, value) in map.iter() {
            let (mut key, mut value) = (key.clone(), value.clone());
            let text = match (&value, keys) {
                (_, true) => Some(key.as_bytes()),
                (Value::Str(text), false) => Some(text.as_bytes()),
                _ => None,
            };
            let new = match text {
                Some(text) => with.apply(pattern, &template, text, now_ns)?,
                None => None,
            };
            if let Some(new) = new {
                any = true;
                made += new.len();
                if made > MADE_BYTES_MAX {
                    return Err(Fault::failed("a replacement", "the results are too long"));
                }
                match keys {
                    true => key = lossy(new).into(),
                    false => value = Value::from(lossy(new)),
                }
            }
            entries.push((key, value));
        }
        if any {
            *map = match keys {
                true => Map::from_entries(entries),
                false => Map::from_unique(entries),
            };
        }
        Ok(())
    })
}
