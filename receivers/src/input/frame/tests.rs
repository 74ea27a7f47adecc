//! What framing guarantees, by rule, by vector and by property.

use proptest::prelude::*;

use super::fuzzing::run;
use super::*;

fn spec(split: Split, max_log_bytes: usize) -> FrameSpec {
    FrameSpec {
        split,
        units: Units::Utf8,
        max_log_bytes,
        oversize: Oversize::Split,
        trim: Trim::default(),
    }
}

fn newline(max: usize) -> FrameSpec {
    spec(Split::Newline, max)
}

fn re(pattern: &str) -> Arc<Regex> {
    Arc::new(Regex::new(&format!("(?m){pattern}")).unwrap())
}

fn starts(pattern: &str, omit: bool) -> FrameSpec {
    spec(
        Split::LineStart {
            pattern: re(pattern),
            omit,
        },
        1 << 20,
    )
}

fn ends(pattern: &str, omit: bool) -> FrameSpec {
    spec(
        Split::LineEnd {
            pattern: re(pattern),
            omit,
        },
        1 << 20,
    )
}

fn check(spec: &FrameSpec, content: &str, want: &[&str], left: &str) {
    for flush in [false, true] {
        let r = run(spec, content.as_bytes(), &[], flush);
        let got: Vec<_> = r
            .records
            .iter()
            .map(|b| String::from_utf8_lossy(b))
            .collect();
        if !flush {
            assert_eq!(got, want, "{content:?}");
            assert_eq!(String::from_utf8_lossy(&r.left), left, "{content:?}");
        } else {
            assert_eq!(r.left, b"", "{content:?}");
        }
    }
}

#[test]
fn lines_end_at_lf_and_are_trimmed_and_blank_ones_skipped() {
    check(&newline(99), "a\r\n\n b\t \n \t\nlast", &["a", "b"], "last");
    check(&newline(99), "", &[], "");
    check(&newline(99), "\r\n\r\n", &[], "");
    let mut keep = newline(99);
    keep.trim = Trim::NONE;
    check(&keep, " a \r\n\n\tb", &[" a "], "\tb");
    keep.trim.leading = true;
    check(&keep, " a \r\n", &["a "], "");
}

#[test]
fn tokens_say_where_and_as_which_record_they_begin() {
    let (spec, mut state, mut out) = (newline(4), FrameState::default(), Frames::default());
    spec.frame(&mut state, b"\n a\n\r\n \nabcdef\n", Input::More, &mut out);
    let got: Vec<_> = out
        .tokens
        .iter()
        .map(|t| (t.index, t.from, t.start))
        .collect();
    assert_eq!(got, [(1, 1, 2), (4, 8, 8), (5, 12, 12)]);
    assert_eq!(out.records, 6);
    let omit = starts("S ", true);
    omit.frame(&mut state, b"S aS  bS c", Input::Flush, &mut out);
    let got: Vec<_> = out
        .tokens
        .iter()
        .map(|t| (t.index, t.from, t.start))
        .collect();
    assert_eq!(got, [(0, 0, 2), (1, 3, 6), (2, 7, 9)]);
}

#[test]
fn a_flush_gives_out_the_unfinished_record_and_nothing_twice() {
    let r = run(&newline(99), b"a\nb ", &[], true);
    assert_eq!(r.records, [b"a".to_vec(), b"b".to_vec()]);
    // The line goes on after it was flushed: the rest is a record of its own.
    let (spec, mut state, mut out) = (newline(99), FrameState::default(), Frames::default());
    spec.frame(&mut state, b"hal", Input::Flush, &mut out);
    assert_eq!((out.tokens.len(), out.consumed), (1, 3));
    spec.frame(&mut state, b"f\n", Input::More, &mut out);
    assert_eq!(
        out.tokens,
        [Token {
            from: 0,
            index: 0,
            start: 0,
            end: 1,
            next: 2,
            cut: false
        }]
    );
}

#[test]
fn a_flush_leaves_a_character_that_is_not_complete() {
    let (spec, mut state, mut out) = (newline(99), FrameState::default(), Frames::default());
    spec.frame(&mut state, b"a\xe2\x82", Input::Flush, &mut out);
    assert_eq!((out.tokens.len(), out.consumed, out.unfinished), (1, 1, 2));
    spec.frame(&mut state, b"\xe2\x82", Input::Flush, &mut out);
    assert_eq!((out.tokens.len(), out.consumed, out.unfinished), (1, 2, 0));
}

#[test]
fn long_records_are_split_between_characters() {
    check(
        &newline(4),
        "abcdefghij\nx\n",
        &["abcd", "efgh", "ij", "x"],
        "",
    );
    check(
        &newline(4),
        "abcdefgh\r\nabcd\r\n",
        &["abcd", "efgh", "abcd"],
        "",
    );
    check(
        &newline(4),
        "ab\u{20ac}\u{20ac}c\n",
        &["ab", "\u{20ac}", "\u{20ac}c"],
        "",
    );
    let r = run(&newline(4), b"abcdefghij\nx\n", &[], false);
    assert_eq!(r.cut, [true, true, false, false]);
}

/// Guarantee: a buffer as long as is said to be needed is enough to go on, whatever follows the start of
/// a truncated record that is shorter than what patterns look ahead. A file stood still here.
#[test]
fn what_is_dropped_needs_no_longer_buffer_than_is_said() {
    for units in [Units::Utf8, Units::Utf16Be] {
        let spec = FrameSpec {
            oversize: Oversize::Truncate,
            max_log_bytes: 30,
            units,
            ..starts("(?m)S[0-9]", false)
        };
        // At some length a match ends where the buffer does.
        let first = LOOKAHEAD_BYTES / units.size();
        for at in first..first + 100 {
            let record = |fill: usize| ["S1".to_owned(), "y".repeat(fill)].concat();
            let text = [record(at), record(2 * LOOKAHEAD_BYTES)].concat();
            let wide = |c: u8| {
                if units == Units::Utf8 {
                    vec![c]
                } else {
                    vec![0, c]
                }
            };
            let content: Vec<u8> = text.bytes().flat_map(wide).collect();
            let (mut state, mut out, mut done) = (FrameState::default(), Frames::default(), 0);
            while content.len() - done > spec.buffer_bytes_max() {
                let buf = &content[done..][..spec.buffer_bytes_max()];
                spec.frame(&mut state, buf, Input::More, &mut out);
                assert!(out.consumed > 0, "{units:?} {at}: {done}");
                done += out.consumed;
            }
        }
    }
}

#[test]
fn truncation_drops_the_rest_in_constant_memory_and_counts_it() {
    let mut spec = newline(4);
    spec.oversize = Oversize::Truncate;
    let r = run(&spec, b"abcdefghij\r\nabcd\nabcde\n", &[], false);
    assert_eq!(r.records, [b"abcd", b"abcd", b"abcd"]);
    assert_eq!(
        (r.truncated_bytes, &r.cut[..]),
        (10, &[true, false, true][..])
    );
    let (mut state, mut out) = (FrameState::default(), Frames::default());
    spec.frame(&mut state, &[b'x'; 100], Input::More, &mut out);
    assert_eq!(
        (out.tokens.len(), out.consumed, out.truncated_bytes),
        (1, 100, 96)
    );
    assert_ne!(state.encode(), b"", "the state has to survive a restart");
    spec.frame(&mut state, b"xx\nok\n", Input::More, &mut out);
    assert_eq!((out.tokens.len(), out.truncated_bytes), (1, 3));
    let multi = FrameSpec {
        oversize: Oversize::Truncate,
        max_log_bytes: 5,
        ..starts("^S", false)
    };
    let r = run(&multi, b"S12345678\nS2\nS3\n", &[], true);
    assert_eq!(r.records, [&b"S1234"[..], b"S2", b"S3"]);
}

#[test]
fn holes_of_nul_are_skipped_and_counted() {
    let mut content = vec![0u8; 10_000];
    content.extend_from_slice(b"first\nsec\0ond\n");
    content.extend_from_slice(&[b"part", &[0; 3_000][..], b"after\n"].concat());
    for stops in [&[][..], &[1, 5_000, 9_999, 10_003, 12_000]] {
        let r = run(&newline(64), &content, stops, false);
        assert_eq!(r.records, [&b"first"[..], b"sec\0ond", b"part", b"after"]);
        assert_eq!(r.nul_bytes, 13_000);
    }
    let mut truncate = newline(64);
    truncate.oversize = Oversize::Truncate;
    assert_eq!(
        run(&truncate, &content, &[], false).records.len(),
        4,
        "a hole ends a record"
    );
}

#[test]
fn nuls_at_the_end_wait_for_what_will_be_written_there() {
    let mut content = b"a\n".to_vec();
    content.extend_from_slice(&[0; 40]);
    let (spec, mut state, mut out) = (newline(64), FrameState::default(), Frames::default());
    spec.frame(&mut state, &content, Input::Flush, &mut out);
    assert_eq!((out.consumed, out.unfinished, out.nul_bytes), (2, 0, 0));
}

#[test]
fn records_start_with_a_match() {
    let s = starts(r"^LOG \d+ ", false);
    check(
        &s,
        "head\nLOG 1 a\n b\nx LOG 7 \nLOG 2 c\n",
        &["head", "LOG 1 a\n b\nx LOG 7"],
        "LOG 2 c\n",
    );
    check(
        &starts(r"LOG \d+ ", true),
        "LOG 1 a LOG 2 bLOG 3 c",
        &["a", "b"],
        "LOG 3 c",
    );
    // A match that ends where the text ends may go on.
    check(&starts(r"L\d+", false), "L1 a L2", &[], "L1 a L2");
    let r = run(&starts(r"L\d+ ", true), b"L1 a L2 b", &[], true);
    assert_eq!(
        r.records,
        [b"a", b"b"],
        "the pattern is omitted from what is flushed, too"
    );
}

#[test]
fn records_end_with_a_match() {
    check(
        &ends("END$", false),
        "a\nEND\nb END\nc",
        &["a\nEND", "b END"],
        "\nc",
    );
    check(&ends("END", true), "a ENDENDb ENDx", &["a", "b"], "x");
    check(&ends("END", false), "a END", &[], "a END");
    let r = run(&ends("END", true), b"a END", &[], true);
    assert_eq!(r.records, [b"a"]);
}

#[test]
fn an_anchor_does_not_match_where_a_record_was_split() {
    let mut s = starts("^x", false);
    s.max_log_bytes = 4;
    let r = run(&s, b"xaaaxbbbxccc\nxd\n", &[], true);
    assert_eq!(r.records, [&b"xaaa"[..], b"xbbb", b"xccc", b"xd"]);
    assert_eq!(r.cut, [true, true, true, false]);
    // Flushed inside a line, then the line goes on with what looks like a start.
    let (s, mut state, mut out) = (
        starts("^x", false),
        FrameState::default(),
        Frames::default(),
    );
    s.frame(&mut state, b"xa", Input::Flush, &mut out);
    s.frame(&mut state, b"xb\nxc\n", Input::More, &mut out);
    assert_eq!(out.consumed, 3, "xb is the rest of the first line");
}

#[test]
fn patterns_that_match_nothing_do_not_stop_or_loop() {
    check(&starts("^", false), "a\nb\nc", &["a", "b"], "c");
    check(&ends("x*", false), "abxc", &["a", "bx"], "c");
    check(&ends("$", false), "a\nb\nc", &["a", "b"], "\nc");
}

#[test]
fn utf16_is_framed_by_units() {
    for units in [Units::Utf16Le, Units::Utf16Be] {
        let code = |s: &str| -> Vec<u8> {
            let bytes = |u: u16| {
                if units == Units::Utf16Le {
                    u.to_le_bytes()
                } else {
                    u.to_be_bytes()
                }
            };
            s.encode_utf16().flat_map(bytes).collect()
        };
        // U+0A0A and U+0D0A hold bytes that look like line ends.
        let text = "\t\u{a0a}a\u{d0a} \r\n\nb\u{1f600}\nc";
        let spec = FrameSpec {
            units,
            ..newline(99)
        };
        let r = run(&spec, &code(text), &[1, 3, 7, 11], true);
        assert_eq!(
            r.records,
            [code("\u{a0a}a\u{d0a}"), code("b\u{1f600}"), code("c")]
        );
        let split = FrameSpec {
            units,
            ..newline(5)
        };
        let r = run(&split, &code("a\u{1f600}bc\n"), &[], false);
        assert_eq!(r.records, [code("a"), code("\u{1f600}"), code("bc")]);
        let multi = FrameSpec {
            units,
            ..starts("^\u{e4}\\d", false)
        };
        let text = format!(
            "\u{e4}1 {}\n\u{e4}2 \u{1f600}\n\u{e4}3",
            "\u{1f600}z".repeat(3_000)
        );
        let r = run(&multi, &code(&text), &[5_001], true);
        let want: Vec<_> = text.split('\n').map(code).collect();
        assert_eq!(r.records, want);
        let r = run(&spec, &[vec![0; 64], code("x\n")].concat(), &[], false);
        assert_eq!((r.records, r.nul_bytes), (vec![code("x")], 64));
    }
}

/// Bytes searched while `content` grows by `step` bytes from call to call.
fn scanned(spec: &FrameSpec, content: &[u8], step: usize) -> u64 {
    let (mut state, mut out) = (FrameState::default(), Frames::default());
    let (mut done, mut searched, mut sum) = (0, 0, 0);
    for stop in (0..=content.len()).step_by(step) {
        spec.frame_on(
            &mut state,
            &content[done..stop],
            searched,
            Input::End,
            &mut out,
        );
        searched = out.searched;
        done += out.consumed;
        sum += out.scanned;
    }
    sum
}

#[test]
fn a_record_that_grows_is_searched_once() {
    let mut content = b"S1 first\n".to_vec();
    content.extend(b" at some.place(Somewhere:12)\n".repeat(10_000));
    content.extend_from_slice(b"S2 E\n");
    let len = content.len() as u64;
    for (what, spec) in [
        ("line_start_pattern", starts(r"^S\d", false)),
        ("line_end_pattern", ends(r"E$", false)),
    ] {
        // Each call looks once more at what a match could begin in.
        let calls = len.div_ceil(1_000);
        let most = len + calls * (LOOKAHEAD_BYTES as u64 + 1_000);
        let sum = scanned(&spec, &content, 1_000);
        assert!(sum <= most, "{what}: {sum} of {len}");
        // All at once: what is found is searched once, and what is left once more.
        let sum = scanned(&spec, &content, content.len());
        assert!(sum <= 3 * len, "{what}: {sum} of {len}");
    }
}

#[test]
fn a_line_that_is_cut_is_searched_a_bounded_number_of_times() {
    for oversize in [Oversize::Split, Oversize::Truncate] {
        for units in [Units::Utf8, Units::Utf16Le] {
            let spec = FrameSpec {
                oversize,
                units,
                ..newline(4_096)
            };
            let content = vec![b'x'; 4 << 20];
            let sum = scanned(&spec, &content, 256 << 10);
            assert!(sum <= 4 * (4 << 20), "{oversize:?} {units:?}: {sum}");
        }
    }
}

#[test]
fn what_was_searched_may_be_filled_later_where_it_was_nul() {
    let spec = starts(r"^S\d", false);
    let (mut state, mut out) = (FrameState::default(), Frames::default());
    let mut content = b"S1 a\n".to_vec();
    content.resize(20_000, 0);
    spec.frame(&mut state, &content, Input::End, &mut out);
    let searched = out.searched;
    content[5..10].copy_from_slice(b"S2 b\n");
    spec.frame_on(&mut state, &content, searched, Input::End, &mut out);
    assert_eq!(out.tokens.len(), 1, "S1 ends where S2 begins");
}

#[test]
fn nop_gives_out_what_there_is() {
    let s = spec(Split::None, 4);
    let mut out = Frames::default();
    s.frame(
        &mut FrameState::default(),
        b"\0 abcd\nef",
        Input::More,
        &mut out,
    );
    assert_eq!((out.tokens.len(), out.consumed), (2, 8));
    s.frame(&mut FrameState::default(), b"f", Input::End, &mut out);
    assert_eq!((out.tokens.len(), out.consumed), (1, 1));
}

#[test]
fn stored_states_are_checked() {
    for bytes in [&[0][..], &[2], &[4], &[1, 1], &[3, 1, 1], &[7, 1]] {
        assert_eq!(FrameState::decode(bytes), Err(DamagedState), "{bytes:?}");
    }
}

#[test]
fn the_flush_clock_waits_for_a_period_without_growth() {
    let (ms, mut clock) = (Duration::from_millis, FlushClock::default());
    assert!(!clock.is_due(10, ms(0), ms(500)));
    assert!(!clock.is_due(10, ms(499), ms(500)));
    assert!(!clock.is_due(11, ms(501), ms(500)), "it grew");
    assert_eq!(clock.due_at(ms(500)), Some(ms(1001)));
    assert!(clock.is_due(11, ms(1001), ms(500)));
    assert!(!clock.is_due(11, ms(9999), ms(0)), "zero means never");
    clock.clear();
    assert_eq!(clock.due_at(ms(500)), None);
}

fn any_spec() -> impl Strategy<Value = FrameSpec> {
    let split = prop_oneof![
        3 => Just(Split::Newline),
        1 => (any::<bool>()).prop_map(|omit| Split::LineStart { pattern: re(r"^S\d"), omit }),
        1 => (any::<bool>()).prop_map(|omit| Split::LineStart { pattern: re(r"S\d"), omit }),
        1 => (any::<bool>()).prop_map(|omit| Split::LineEnd { pattern: re("E[0-9]"), omit }),
        1 => (any::<bool>()).prop_map(|omit| Split::LineEnd { pattern: re("^E.$"), omit }),
    ];
    let units = prop_oneof![
        3 => Just(Units::Utf8), 1 => Just(Units::Bytes),
        1 => Just(Units::Utf16Le), 1 => Just(Units::Utf16Be),
    ];
    (
        split,
        units,
        1usize..40,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(split, units, max_log_bytes, cut, leading, trailing)| FrameSpec {
                split,
                units,
                max_log_bytes,
                oversize: if cut {
                    Oversize::Truncate
                } else {
                    Oversize::Split
                },
                trim: Trim { leading, trailing },
            },
        )
}

/// Text of line ends, blanks, patterns, long runs and holes.
fn any_content() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[ab \t]{0,6}",
        3 => Just("\n".to_owned()),
        1 => Just("\r\n".to_owned()),
        2 => Just("S1".to_owned()),
        2 => Just("E2".to_owned()),
        1 => Just("\u{20ac}\u{1f600}".to_owned()),
        1 => (1usize..120).prop_map(|n| "\0".repeat(n)),
        1 => (1usize..120).prop_map(|n| "y".repeat(n)),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn property_records_do_not_depend_on_where_buffers_end(
        spec in any_spec(), text in any_content(), wide in any::<bool>(), flush in any::<bool>(),
        stops in proptest::collection::vec(0usize..600, 0..8),
    ) {
        let mut content: Vec<u8> = match spec.units {
            Units::Utf16Le if wide => text.iter().flat_map(|b| [*b, 0]).collect(),
            Units::Utf16Be if wide => text.iter().flat_map(|b| [0, *b]).collect(),
            _ => text,
        };
        content.truncate(spec.units.whole(content.len()));
        let whole = run(&spec, &content, &[], flush);
        let parts = run(&spec, &content, &stops, flush);
        prop_assert_eq!(&parts, &whole);
        let each: Vec<usize> = (0..content.len()).collect();
        prop_assert_eq!(&run(&spec, &content, &each, flush), &whole);
    }

    #[test]
    fn property_nor_do_long_records_that_grow_bit_by_bit(
        spec in any_spec(), omit in any::<bool>(), at_end in any::<bool>(), flush in any::<bool>(),
        pieces in proptest::collection::vec(
            ("[ab]{0,3}(S1|E2|\n|\nS1|E2\n)?", 0usize..9_000), 1..6,
        ),
        stops in proptest::collection::vec(0usize..30_000, 0..12), max in 1_000usize..40_000,
    ) {
        let pattern = re(if at_end { r"E\d" } else { r"^S\d" });
        let split = match at_end {
            true => Split::LineEnd { pattern, omit },
            false => Split::LineStart { pattern, omit },
        };
        let spec = FrameSpec { split, units: Units::Utf8, max_log_bytes: max, ..spec };
        let piece = |(text, n): &(String, usize)| text.clone() + &"y".repeat(*n);
        let content = pieces.iter().map(piece).collect::<String>().into_bytes();
        let whole = run(&spec, &content, &[], flush);
        prop_assert_eq!(&run(&spec, &content, &stops, flush), &whole);
    }

    #[test]
    fn property_every_byte_is_accounted_for(
        spec in any_spec(), content in any_content(), flush in any::<bool>(),
    ) {
        let spec = FrameSpec { units: Units::Bytes, ..spec };
        let omits = match spec.split {
            Split::LineStart { omit, .. } | Split::LineEnd { omit, .. } => omit,
            Split::Newline | Split::None => false,
        };
        let r = run(&spec, &content, &[], flush);
        let kept: usize = r.records.iter().map(Vec::len).sum();
        prop_assert_eq!(kept + r.around.len() + r.left.len(), content.len());
        let is_blank = |b: &&u8| matches!(**b, b' ' | b'\t' | b'\r' | b'\n');
        let blank = r.around.iter().filter(is_blank).count() as u64;
        let counted = r.nul_bytes + r.truncated_bytes;
        if !omits {
            // Blanks among what was truncated are counted there; nothing else is uncounted.
            prop_assert!(r.around.len() as u64 - blank <= counted, "{:?}", r);
        }
        prop_assert!(counted <= r.around.len() as u64);
        if spec.oversize == Oversize::Split && !omits && flush {
            let text = |b: &&u8| !matches!(**b, b' ' | b'\t' | b'\r' | b'\n' | 0);
            let want: Vec<u8> = content.iter().filter(text).copied().collect();
            let got: Vec<u8> = r.records.concat().iter().filter(text).copied().collect();
            prop_assert_eq!(got, want, "no text is lost");
        }
    }
}
