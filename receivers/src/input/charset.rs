//! Character encodings of files: records are decoded first and trimmed then.

use bytes::Bytes;
use encoding_rs::Encoding as Table;
use tailwater_pdata::{LogsBatch, Slice, Text, Value};

use super::frame::{Token, Units};

/// `encoding`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Charset {
    /// UTF-8; invalid bytes become U+FFFD and are counted.
    Utf8,
    /// UTF-8 as it is, valid or not.
    Utf8Raw,
    /// UTF-16, little endian.
    Utf16Le,
    /// UTF-16, big endian.
    Utf16Be,
    /// ISO 8859-1: each byte is the character of its number. The WHATWG standard takes the name
    /// for windows-1252, the collector does not.
    Latin1,
    /// One of the WHATWG Encoding Standard's legacy encodings.
    Table(&'static Table),
    /// No text at all: bodies are bytes.
    Nop,
}

impl Charset {
    /// The encoding of a name as the collector and IANA spell it.
    pub fn by_name(name: &str) -> Option<Charset> {
        let lower = name.to_ascii_lowercase();
        Some(match lower.as_str() {
            "" | "utf-8" | "utf8" | "ascii" | "us-ascii" => Charset::Utf8,
            "utf-8-raw" | "utf8-raw" => Charset::Utf8Raw,
            "utf-16" | "utf16" | "utf-16le" | "utf16le" | "utf16-le" => Charset::Utf16Le,
            "utf-16be" | "utf16be" | "utf16-be" => Charset::Utf16Be,
            "nop" => Charset::Nop,
            "iso-8859-1" | "iso_8859-1" | "iso8859-1" | "iso_8859-1:1987" | "iso-ir-100"
            | "latin1" | "l1" | "ibm819" | "cp819" | "csisolatin1" => Charset::Latin1,
            other => {
                let spelled = other.replace('-', "_");
                let table = Table::for_label(other.as_bytes())
                    .or_else(|| Table::for_label(spelled.as_bytes()))?;
                Charset::Table(table)
            }
        })
    }

    /// What a byte order mark at the start of a file says, for files that are taken for UTF-8.
    pub fn by_mark(head: &[u8]) -> Option<Charset> {
        match head {
            [0xff, 0xfe, ..] => Some(Charset::Utf16Le),
            [0xfe, 0xff, ..] => Some(Charset::Utf16Be),
            _ => None,
        }
    }

    /// How characters are made of bytes, for the splitter.
    pub fn units(self) -> Units {
        match self {
            Charset::Utf8 | Charset::Utf8Raw => Units::Utf8,
            Charset::Utf16Le => Units::Utf16Le,
            Charset::Utf16Be => Units::Utf16Be,
            Charset::Latin1 | Charset::Table(_) | Charset::Nop => Units::Bytes,
        }
    }

    /// The text of `tokens`, which are ranges of the shared buffer behind its first `skip` bytes.
    /// `invalid` counts records that had to be repaired; a byte order mark is left out when
    /// `at_start`.
    pub fn slices(
        self,
        text: &mut Text,
        skip: usize,
        tokens: &[Token],
        at_start: bool,
        invalid: &mut u64,
    ) -> Vec<Slice> {
        let shared = text.shared().clone();
        let raw = |t: &Token| Slice::shared(skip as u32 + t.start, t.end - t.start);
        let mut slices: Vec<Slice> = match self {
            Charset::Nop | Charset::Utf8Raw => tokens.iter().map(raw).collect(),
            Charset::Utf8 => {
                // One check for all of them; line by line only if it fails. A record can still end
                // inside a character, if it may not be as long as one or a pattern matches there.
                let valid = std::str::from_utf8(&shared[skip..]);
                let mut repair = |t: &Token| {
                    let range = t.range();
                    if valid.is_ok_and(|text| text.get(range.clone()).is_some()) {
                        return raw(t);
                    }
                    let bytes = &shared[skip..][range];
                    match std::str::from_utf8(bytes) {
                        Ok(_) => raw(t),
                        Err(_) => {
                            *invalid += 1;
                            text.push(String::from_utf8_lossy(bytes).as_bytes())
                        }
                    }
                };
                tokens.iter().map(&mut repair).collect()
            }
            Charset::Utf16Le | Charset::Utf16Be | Charset::Latin1 | Charset::Table(_) => {
                let mut decode = |t: &Token| {
                    let bytes = &shared[skip..][t.range()];
                    let (decoded, repaired) = self.decode(bytes);
                    *invalid += u64::from(repaired);
                    text.push(decoded.as_bytes())
                };
                tokens.iter().map(&mut decode).collect()
            }
        };
        if at_start
            && self != Charset::Nop
            && let Some(first) = slices.first_mut()
            && text.get(*first).starts_with("\u{feff}".as_bytes())
        {
            *first = first.part(3, usize::MAX);
        }
        slices
    }

    /// The text of `bytes`, and whether something in it had to be repaired.
    pub fn decode(self, bytes: &[u8]) -> (String, bool) {
        let unit = |from: fn([u8; 2]) -> u16| {
            let units = bytes.chunks_exact(2).map(move |c| from([c[0], c[1]]));
            let mut repaired = false;
            let text = char::decode_utf16(units)
                .map(|c| {
                    c.unwrap_or_else(|_| {
                        repaired = true;
                        char::REPLACEMENT_CHARACTER
                    })
                })
                .collect();
            (text, repaired)
        };
        match self {
            Charset::Utf16Le => unit(u16::from_le_bytes),
            Charset::Utf16Be => unit(u16::from_be_bytes),
            Charset::Latin1 => (bytes.iter().map(|b| char::from(*b)).collect(), false),
            Charset::Table(table) => {
                let (text, repaired) = table.decode_without_bom_handling(bytes);
                (text.into_owned(), repaired)
            }
            _ => (String::from_utf8_lossy(bytes).into_owned(), false),
        }
    }
}

/// Bodies as bytes values instead of text.
pub fn raw_bodies(batch: &mut LogsBatch) {
    for row in 0..batch.rows() {
        let bytes = batch
            .body(row)
            .and_then(|b| b.as_text())
            .map(Bytes::copy_from_slice);
        if let Some(bytes) = bytes {
            let cell = batch.big_cell(Value::Bytes(bytes));
            batch.set_body(row, cell);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::frame::{FrameSpec, FrameState, Frames, Input, Oversize, Split, Trim};

    fn run(charset: Charset, content: &[u8]) -> (Vec<String>, u64) {
        let spec = FrameSpec {
            split: Split::Newline,
            units: charset.units(),
            max_log_bytes: 1 << 20,
            oversize: Oversize::Split,
            trim: Trim::default(),
        };
        let mut frames = Frames::default();
        spec.frame(
            &mut FrameState::default(),
            content,
            Input::Flush,
            &mut frames,
        );
        assert_eq!(frames.consumed, content.len());
        let mut text = Text::new(content.to_vec().into());
        let mut invalid = 0;
        let slices = charset.slices(&mut text, 0, &frames.tokens, true, &mut invalid);
        let lines = slices
            .iter()
            .map(|s| String::from_utf8_lossy(text.get(*s)).into_owned());
        (lines.collect(), invalid)
    }

    #[test]
    fn records_are_decoded_before_they_are_trimmed() {
        let le = |s: &str| {
            s.encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<_>>()
        };
        let be = |s: &str| {
            s.encode_utf16()
                .flat_map(u16::to_be_bytes)
                .collect::<Vec<_>>()
        };
        let text = "\u{feff}first\r\n\tsec\u{f6}nd \u{1f600}\nthird";
        let want = ["first", "sec\u{f6}nd \u{1f600}", "third"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(run(Charset::Utf16Le, &le(text)), (want.clone(), 0));
        assert_eq!(run(Charset::Utf16Be, &be(text)), (want.clone(), 0));
        assert_eq!(run(Charset::Utf8, text.as_bytes()), (want, 0));
        let sjis = Charset::by_name("shift-jis").unwrap();
        assert_eq!(run(sjis, b"\x93\xfa\x96{\n").0, ["\u{65e5}\u{672c}"]);
    }

    #[test]
    fn invalid_bytes_are_replaced_and_counted() {
        assert_eq!(
            run(Charset::Utf8, b"\xc5\nok\n"),
            (vec!["\u{fffd}".into(), "ok".into()], 1)
        );
        assert_eq!(
            run(Charset::Utf16Le, &[0x00, 0xd8, 0x41, 0x00, 0x0a, 0x00]).1,
            1
        );
    }

    /// Characters that are longer than a record may be, and patterns that match inside of them.
    #[test]
    fn parts_of_a_character_are_replaced_and_counted_in_valid_text_too() {
        let inside = regex::bytes::Regex::new("x*").unwrap();
        let at_ends = Split::LineEnd {
            pattern: std::sync::Arc::new(inside),
            omit: false,
        };
        for (split, max_log_bytes) in [(Split::Newline, 1), (at_ends, 1 << 20)] {
            let spec = FrameSpec {
                split,
                units: Units::Utf8,
                max_log_bytes,
                oversize: Oversize::Split,
                trim: Trim::default(),
            };
            let (content, mut frames) = ("\u{e4}b\n".as_bytes(), Frames::default());
            let mut state = FrameState::default();
            spec.frame(&mut state, content, Input::Flush, &mut frames);
            let (mut text, mut invalid) = (Text::new(content.to_vec().into()), 0);
            let slices = Charset::Utf8.slices(&mut text, 0, &frames.tokens, false, &mut invalid);
            let lines = slices.iter().map(|s| std::str::from_utf8(text.get(*s)));
            let lines: Result<Vec<_>, _> = lines.collect();
            assert_eq!((lines, invalid), (Ok(vec!["\u{fffd}", "\u{fffd}", "b"]), 2));
        }
    }

    #[test]
    fn every_documented_name_is_known() {
        for name in [
            "utf-8",
            "utf-8-raw",
            "utf-16",
            "utf-16le",
            "utf-16be",
            "ascii",
            "us-ascii",
            "big5",
            "nop",
            "shift_jis",
            "GBK",
            "iso-8859-1",
            "windows-1252",
            "euc-kr",
        ] {
            assert!(Charset::by_name(name).is_some(), "{name}");
        }
        assert!(Charset::by_name("klingon").is_none());
    }
}
