//! What framing must do with any bytes, for its tests and for a fuzz target: it panics where it does
//! not hold.

use super::*;

/// What came of a whole file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Run {
    pub(super) records: Vec<Vec<u8>>,
    pub(super) cut: Vec<bool>,
    pub(super) nul_bytes: u64,
    pub(super) truncated_bytes: u64,
    /// Bytes between records.
    pub(super) around: Vec<u8>,
    pub(super) left: Vec<u8>,
    pub(super) state: FrameState,
}

/// Offers `content` in buffers that end at `stops`, flushing at the end if asked to. The state is
/// stored and read back between any two buffers.
pub(super) fn run(spec: &FrameSpec, content: &[u8], stops: &[usize], flush: bool) -> Run {
    let mut stops: Vec<usize> = stops.iter().map(|s| s % (content.len() + 1)).collect();
    stops.sort_unstable();
    stops.push(content.len());
    let (mut r, mut out, mut done, mut searched) = (Run::default(), Frames::default(), 0, 0);
    let mut calls: Vec<_> = stops.iter().map(|s| (*s, Input::More)).collect();
    calls.push((content.len(), if flush { Input::Flush } else { Input::End }));
    if flush {
        // What a flush leaves is a cut character; it goes with the next one.
        calls.push((content.len(), Input::Flush));
    }
    for (stop, input) in calls {
        let buf = &content[done..stop.max(done)];
        r.state = FrameState::decode(&r.state.encode()).expect("a state that was encoded");
        spec.frame_on(&mut r.state, buf, searched, input, &mut out);
        searched = out.searched;
        assert!(searched <= buf.len() - out.consumed);
        let mut at = 0;
        for t in &out.tokens {
            assert!(
                t.start < t.end && t.end <= t.next && at <= t.start as usize,
                "{t:?}"
            );
            r.around.extend_from_slice(&buf[at..t.start as usize]);
            r.records.push(buf[t.range()].to_vec());
            r.cut.push(t.cut);
            at = t.end as usize;
        }
        assert!(at <= out.consumed && out.consumed <= buf.len());
        assert!(out.unfinished <= buf.len() - out.consumed);
        r.around.extend_from_slice(&buf[at..out.consumed]);
        (r.nul_bytes, r.truncated_bytes) = (
            r.nul_bytes + out.nul_bytes,
            r.truncated_bytes + out.truncated_bytes,
        );
        done += out.consumed;
        assert!(
            buf.len() - out.consumed < spec.buffer_bytes_max().max(2),
            "a buffer is enough"
        );
    }
    r.left = content[done..].to_vec();
    if r.left.iter().all(|b| *b == 0) {
        // How much of a hole at the very end is skipped before something follows it is open.
        r.nul_bytes += r.left.len() as u64;
        r.around.append(&mut r.left);
    }
    r
}

/// Patterns whose matches do not move when text is added behind them.
#[cfg(feature = "fuzzing")]
const PATTERNS: [&str; 4] = [r"(?m)^S\d", r"(?m)S\d", "(?m)E[0-9]", r"(?m)^E.$"];

/// Where records end, from a byte.
#[cfg(feature = "fuzzing")]
fn split(byte: u8) -> Split {
    let (which, omit) = (usize::from(byte >> 1) % 6, byte & 1 == 1);
    let pattern = |at: usize| Arc::new(Regex::new(PATTERNS[at]).expect("a fixed pattern"));
    match which {
        0 => Split::Newline,
        1 => Split::None,
        2 | 3 => Split::LineStart {
            pattern: pattern(which - 2),
            omit,
        },
        _ => Split::LineEnd {
            pattern: pattern(which - 2),
            omit,
        },
    }
}

/// Content in buffers of any size: the records are the same as all at once, no longer than allowed,
/// and no byte is unaccounted for. The text of records in any encoding is valid.
///
/// The input: four bytes that choose the rules, four where buffers end, then the content.
#[cfg(feature = "fuzzing")]
pub fn framing(data: &[u8]) {
    let Some(([how, sizes, flags, charset, stops @ ..], content)) = data.split_first_chunk::<8>()
    else {
        return;
    };
    let units = [Units::Utf8, Units::Bytes, Units::Utf16Le, Units::Utf16Be];
    let units = units[usize::from(flags >> 4) % 4];
    let spec = FrameSpec {
        split: split(*how),
        units,
        // Small ones, and some beyond the lookahead.
        max_log_bytes: match sizes {
            0..200 => usize::from(*sizes) + 1,
            _ => usize::from(*sizes - 199) * 512,
        },
        oversize: match flags & 1 {
            0 => Oversize::Split,
            _ => Oversize::Truncate,
        },
        trim: Trim {
            leading: flags & 2 != 0,
            trailing: flags & 4 != 0,
        },
    };
    let content = &content[..units.whole(content.len())];
    let flush = flags & 8 != 0;
    let whole = run(&spec, content, &[], flush);
    accounted(&spec, content, &whole, flush);
    if !matches!(spec.split, Split::None) {
        let at = |i: usize| usize::from(stops[i]) * content.len() / 255;
        let parts = run(&spec, content, &[at(0), at(1), at(2), at(3)], flush);
        assert_eq!(parts, whole);
        let step = usize::from(stops[0]) + 1;
        let steps: Vec<usize> = (0..content.len()).step_by(step).collect();
        // A record that grows is looked at in each call.
        if content.len() / step < 600 {
            assert_eq!(run(&spec, content, &steps, flush), whole);
        }
    }
    decoded(&spec, content, *charset);
}

/// Every byte is in a record, around one, or left; what is around is blank or counted.
#[cfg(feature = "fuzzing")]
fn accounted(spec: &FrameSpec, content: &[u8], r: &Run, flush: bool) {
    let kept: usize = r.records.iter().map(Vec::len).sum();
    assert_eq!(kept + r.around.len() + r.left.len(), content.len());
    let longest = r.records.iter().map(Vec::len).max().unwrap_or_default();
    // The limit is one of what is before the match that ends a record, which none of the patterns
    // has longer than this.
    let ending = match spec.split {
        Split::LineEnd { omit: false, .. } => 5,
        _ => 0,
    };
    assert!(longest <= spec.max_bytes().max(4) + ending, "{longest}");
    let is_blank = |b: &&u8| matches!(**b, b' ' | b'\t' | b'\r' | b'\n');
    let omits = match spec.split {
        Split::LineStart { omit, .. } | Split::LineEnd { omit, .. } => omit,
        Split::Newline | Split::None => false,
    };
    let counted = r.nul_bytes + r.truncated_bytes;
    assert!(counted <= r.around.len() as u64);
    let bytes = matches!(spec.units, Units::Utf8 | Units::Bytes);
    if bytes && !omits {
        let blank = r.around.iter().filter(is_blank).count() as u64;
        assert!(r.around.len() as u64 - blank <= counted, "{r:?}");
    }
    // What a pattern may begin in stays, while the rest of a record is dropped.
    if bytes && flush && !(r.state.skipping && r.left.len() <= LOOKAHEAD_BYTES + 2) {
        assert!(r.left.is_empty(), "{r:?}");
    }
}

/// The text of the records in an encoding that has these units.
#[cfg(feature = "fuzzing")]
fn decoded(spec: &FrameSpec, content: &[u8], choice: u8) {
    use crate::input::charset::Charset;
    use tailwater_pdata::Text;
    let names = match spec.units {
        Units::Utf8 => &["utf-8", "utf-8-raw"][..],
        Units::Bytes => &[
            "latin1",
            "windows-1251",
            "shift_jis",
            "gb18030",
            "big5",
            "nop",
        ],
        Units::Utf16Le => &["utf-16le"],
        Units::Utf16Be => &["utf-16be"],
    };
    let charset = Charset::by_name(names[usize::from(choice >> 1) % names.len()]).expect("a name");
    let (mut state, mut frames) = (FrameState::default(), Frames::default());
    spec.frame(&mut state, content, Input::Flush, &mut frames);
    let mut text = Text::new(content.to_vec().into());
    let mut invalid = 0;
    let at_start = choice & 1 == 1;
    let slices = charset.slices(&mut text, 0, &frames.tokens, at_start, &mut invalid);
    assert_eq!(slices.len(), frames.tokens.len());
    assert!(invalid <= slices.len() as u64);
    for (slice, token) in slices.iter().zip(&frames.tokens) {
        let got = text.get(*slice);
        assert!(got.len() <= 4 * token.range().len());
        if !matches!(charset, Charset::Utf8Raw | Charset::Nop) {
            assert!(std::str::from_utf8(got).is_ok());
        }
    }
}
