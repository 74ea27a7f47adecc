//! The stage `timestamp`.

use tailwater_config::Node;

use super::{QUIET, Stages};
use crate::note::Weight;
use crate::options::Options;
use crate::yaml::Map;

impl Stages<'_> {
    pub(super) fn timestamp(&mut self, node: &Node, path: &str) {
        let mut o = Options::new(node, path);
        let source = o.text("source").unwrap_or_default();
        let format = o.text("format").unwrap_or_default();
        let fallbacks = o.texts("fallback_formats");
        let location = o.text("location");
        let on_failure = o.text("action_on_failure");
        if on_failure.as_deref() != Some("skip") {
            let say = "action_on_failure is fudge, the time of the line before: here a line whose time cannot be read has \
                       the time at which it was read";
            self.say(Weight::Decide, node, path, say);
        }
        self.rest(o);
        let from = self.field_of(&source);
        // The last one that can read it wins, so the first one comes last.
        let formats = fallbacks.iter().rev().chain([&format]);
        for format in formats {
            let mut op = self.op("time_parser", [("parse_from", &from)]);
            layout(format, &mut op);
            if let Some(location) = &location {
                op.set("location", location.as_str());
            }
            op.set(QUIET.0, QUIET.1);
            self.push(op, []);
        }
    }
}

/// Sets what reads a format of Promtail.
fn layout(format: &str, op: &mut Map) {
    let epoch = match format {
        "Unix" => Some("s"),
        "UnixMs" => Some("ms"),
        "UnixUs" => Some("us"),
        "UnixNs" => Some("ns"),
        _ => None,
    };
    if let Some(unit) = epoch {
        op.set("layout_type", "epoch").set("layout", unit);
        return;
    }
    // The layouts that the package time of Go has names for.
    let layout = match format {
        "ANSIC" => "Mon Jan _2 15:04:05 2006",
        "UnixDate" => "Mon Jan _2 15:04:05 MST 2006",
        "RubyDate" => "Mon Jan 02 15:04:05 -0700 2006",
        "RFC822" => "02 Jan 06 15:04 MST",
        "RFC822Z" => "02 Jan 06 15:04 -0700",
        "RFC850" => "Monday, 02-Jan-06 15:04:05 MST",
        "RFC1123" => "Mon, 02 Jan 2006 15:04:05 MST",
        "RFC1123Z" => "Mon, 02 Jan 2006 15:04:05 -0700",
        "RFC3339" => "2006-01-02T15:04:05Z07:00",
        "RFC3339Nano" => "2006-01-02T15:04:05.999999999Z07:00",
        own => own,
    };
    op.set("layout_type", "gotime").set("layout", layout);
}
