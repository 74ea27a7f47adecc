//! Lists of attributes within an item: of the events and links of spans, and of exemplars.

use std::borrow::Cow;

use super::super::schema::{Field, Kind, Message, Sort};
use super::super::wire::{Fields, Raw, put_bytes};
use super::{Attributes, Writer};

impl Writer<'_> {
    /// Shows the lists in the item `buf` to the editor; the item with what it changed, if it did.
    pub(super) fn within(&mut self, message: &'static Message, buf: &[u8]) -> Option<Vec<u8>> {
        let mut written: Option<Vec<u8>> = None;
        let mut start = 0;
        let mut fields = Fields::new(buf, 0);
        loop {
            let from = fields.at();
            let Some((number, raw)) = fields.next() else {
                break;
            };
            let field = message.fields.iter().find(|f| f.number == number);
            let (Some(list), Raw::Len(at, to)) = (field.and_then(list_in), raw) else {
                continue;
            };
            let mut attributes = Attributes {
                buf: Cow::Borrowed(&buf[at..to]),
                number: list,
                pool: &mut self.pool,
            };
            self.editor.within(&mut attributes);
            let Some(changed) = attributes.into_changed() else {
                continue;
            };
            let out = written.get_or_insert_with(|| {
                let mut out = self.pool.pop().unwrap_or_default();
                out.clear();
                out
            });
            out.extend_from_slice(&buf[start..from]);
            put_bytes(out, number, &changed);
            start = fields.at();
            self.pool.push(changed);
        }
        let mut written = written?;
        written.extend_from_slice(&buf[start..]);
        Some(written)
    }
}

/// The number of the list of attributes in the messages of a field.
fn list_in(field: &Field) -> Option<u32> {
    let Kind::Message(message, Sort::Other) = field.kind else {
        return None;
    };
    let is_list = |f: &&Field| matches!(f.kind, Kind::Message(_, Sort::Pair));
    message.fields.iter().find(is_list).map(|f| f.number)
}
