//! Scenario: operators put records together, and hold some back after nearly every read. Guarantee:
//! positions move on all the same, never past what was not delivered, and nothing is lost or repeated.

use super::*;

const FIRST: &str = "include: [DIR/*.log]\nstart_at: beginning\noperators: [{type: recombine, \
    combine_field: body, is_first_entry: 'body matches \"^[a-z]\"'}]\n";
const FIRST_V2: &str = "include: [DIR/*.log]\nstart_at: beginning\nattributes: {v: two}\n\
    operators: [{type: recombine, combine_field: body, is_first_entry: 'body matches \"^[a-z]\"'}]\n";

/// A log with a line each second.
fn trickle(rig: &mut Rig, lines: std::ops::Range<usize>) -> Vec<String> {
    let mut out = Vec::new();
    for i in lines {
        rig.write("0.log", &format!("line {i:04}\n"));
        rig.pass_ms(1_000);
        out.extend(rig.take());
    }
    out
}

/// Guarantee: while a log goes on, what is stored is the place of the record that is held.
#[test]
fn positions_move_on_while_a_record_is_held() {
    let mut rig = Rig::with(FIRST);
    let texts = trickle(&mut rig, 0..8);
    let want: Vec<String> = (0..7).map(|i| format!("line {i:04}")).collect();
    assert_eq!(texts, want);
    rig.pass_ms(500);
    assert_eq!(rig.stored(ID), [70], "the last one is held");
    rig.write("0.log", "-1\n");
    rig.pass_ms(1_000);
    rig.write("0.log", "-2\nnext\n");
    rig.pass_ms(1_000);
    let (texts, parts) = rig.take_of("a");
    assert_eq!(texts, ["line 0007\n-1\n-2"]);
    assert_eq!(rig.stored(ID), [70], "not before it is delivered");
    settle(parts, Outcome::Delivered);
    rig.pass_ms(500);
    assert_eq!(rig.stored(ID), [86], "before `next`");
    rig.pass_ms(6_000);
    assert_eq!(rig.take(), ["next"]);
    rig.pass_ms(500);
    assert_eq!(rig.stored(ID), [91]);
}

/// Guarantee: what is handed back is read again from the first record of its group on, and so is a
/// group that is held.
#[test]
fn what_is_handed_back_is_put_together_again() {
    let mut rig = Rig::with(FIRST);
    rig.write("0.log", "a\n1\nb\n2\nc\n");
    rig.pass_ms(500);
    let (texts, parts) = rig.take_of("a");
    assert_eq!(texts, ["a\n1", "b\n2"]);
    settle(parts, Outcome::Delivered);
    rig.pass_ms(500);
    assert_eq!(rig.stored(ID), [8]);
    rig.write("0.log", "3\nd\n");
    rig.pass_ms(500);
    let (texts, parts) = rig.take_of("a");
    assert_eq!(texts, ["c\n3"]);
    settle(parts, Outcome::Retry);
    rig.pass_ms(500);
    assert_eq!(rig.take(), ["c\n3"]);
    rig.write("0.log", "4\n");
    rig.pass_ms(6_500);
    assert_eq!(rig.take(), ["d\n4"]);
    rig.pass_ms(500);
    assert_eq!(rig.stored(ID), [16]);
}

/// Guarantee: a group goes on in the file that rotation brings, and both files answer for it.
#[test]
fn a_group_goes_on_over_rotation() {
    let mut rig = Rig::with(FIRST);
    rig.write("0.log", "a\nb\n1\n");
    rig.pass_ms(500);
    assert_eq!(rig.take(), ["a"]);
    rig.pass_ms(500);
    assert_eq!(rig.stored(ID), [2]);
    fs::rename(rig.path("0.log"), rig.path("0.log.20240101-000005")).unwrap();
    rig.write("0.log", "2\nc\n");
    rig.pass_ms(1_500);
    let (texts, parts) = rig.take_of("a");
    assert_eq!(texts, ["b\n1\n2"]);
    assert_eq!(rig.stored(ID), [0, 2], "not before it is delivered");
    settle(parts, Outcome::Delivered);
    rig.pass_ms(500);
    assert_eq!(rig.stored(ID), [2, 6]);
    rig.pass_ms(6_500);
    assert_eq!(rig.take(), ["c"]);
    rig.pass_ms(500);
    assert_eq!(rig.stored(ID), [4, 6]);
}

/// Guarantee: new settings come into force for a log that never rests.
#[test]
fn new_settings_come_into_force_while_lines_come() {
    let mut rig = Rig::with(FIRST);
    trickle(&mut rig, 0..3);
    rig.configure(FIRST_V2, &["a"]);
    let texts = trickle(&mut rig, 3..10);
    let line = |i: usize| format!("line {i:04}");
    let by_old = texts.iter().take_while(|t| !t.ends_with("v=two")).count();
    assert!(by_old <= 4, "{texts:?}");
    let want = (2..)
        .zip(&texts)
        .map(|(i, text)| match text.strip_suffix(" v=two") {
            Some(text) => text == line(i),
            None => *text == line(i) && i - 2 < by_old,
        });
    assert!(want.into_iter().all(|same| same), "{texts:?}");
    rig.pass_ms(6_000);
    assert_eq!(rig.take(), [format!("{} v=two", line(9))]);
    rig.pass_ms(500);
    assert_eq!(rig.stored(ID), [100]);
}
