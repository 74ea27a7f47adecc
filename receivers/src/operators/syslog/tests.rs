use super::*;

/// What a message says, as text: priority, version, host, app, process, id, message.
type Shown = (Option<u8>, Option<i64>, [Option<String>; 5]);

fn shown(text: &[u8], m: &Message) -> Shown {
    let spans = [m.hostname, m.appname, m.proc_id, m.msg_id, m.message];
    let text =
        |span: Span| span.map(|(from, to)| String::from_utf8_lossy(&text[from..to]).into_owned());
    (m.priority, m.version, spans.map(text))
}

fn old(text: &[u8]) -> Result<Message, RecordError> {
    rfc3164::read(text, 0, text.len(), true)
}

fn new(text: &[u8]) -> Result<Message, RecordError> {
    rfc5424::read(text, 0, text.len(), true)
}

#[test]
fn messages_of_rfc_3164_are_read_as_they_are_found() {
    for (text, priority, host, app, process, message) in [
        (
            &b"<34>Oct 11 22:14:15 1.2.3.4 apache: test message"[..],
            Some(34),
            "1.2.3.4",
            "apache",
            "",
            "test message",
        ),
        (
            b"<0>Oct  1 22:14:15 h su[12]: x: y",
            Some(0),
            "h",
            "su",
            "12",
            "x: y",
        ),
        (
            b"<13>Feb 05 00:00:00 h app: m",
            Some(13),
            "h",
            "app",
            "",
            "m",
        ),
        (
            b"<13>  Oct 11 22:14:15   h  m m",
            Some(13),
            "h",
            "",
            "",
            "m m",
        ),
        (b"Oct 11 22:14:15 h a: b", None, "h", "a", "", "b"),
        (
            b"<13>Oct 11 22:14:15 app: no host",
            Some(13),
            "",
            "app",
            "",
            "no host",
        ),
        (b"<13>Oct 11 22:14:15 word", Some(13), "", "", "", "word"),
        (
            b"<13>Oct 11 22:14:15 two words\n",
            Some(13),
            "two",
            "",
            "",
            "words",
        ),
        (b"<13>Oct 11 22:14:15 - -: m", Some(13), "", "", "", "m"),
        (
            b"<13>Oct 11 22:14:15 h %ASA-6-1:x",
            Some(13),
            "h",
            "%ASA-6-1",
            "",
            "%ASA-6-1:x",
        ),
        (
            b"<13>Oct 11 22:14:15 h a[1] b",
            Some(13),
            "h",
            "a",
            "1",
            "a[1] b",
        ),
        (
            b"<13>Oct 11 22:14:15 h caf\xc3\xa9\tx",
            Some(13),
            "h",
            "",
            "",
            "caf\u{e9}\tx",
        ),
    ] {
        let m = old(text).unwrap_or_else(|e| panic!("{}: {e}", text.escape_ascii()));
        let some = |t: &str| (!t.is_empty()).then(|| t.to_owned());
        let want = [some(host), some(app), some(process), None, some(message)];
        assert_eq!(
            shown(text, &m),
            (priority, None, want),
            "{}",
            text.escape_ascii()
        );
        assert!(matches!(m.time, Stamp::Yearless(..)));
    }
    for text in [
        &b""[..],
        b"<13>",
        b"<192>Oct 11 22:14:15 h m",
        b"<013>Oct 11 22:14:15 h m",
        b"<13>oct 11 22:14:15 h m",
        b"<13>Oct 1 22:14:15 h m",
        b"<13>Oct 32 22:14:15 h m",
        b"<13>Oct 11 24:14:15 h m",
        b"<13>Oct 11 22:14:60 h m",
        b"<13>Oct 11 22:14:15",
        b"<13>Oct 11 22:14:15 ",
        b"<13>Oct 11 22:14:15 h a\x01b",
        b"<13>Oct 11 22:14:15 h a\nb",
    ] {
        assert!(old(text).is_err(), "{}", text.escape_ascii());
    }
}

#[test]
fn messages_of_rfc_5424_are_read_by_their_grammar() {
    let text = br#"<86>1 2015-08-05T21:58:59.693Z h app 23 ID [a@1 k="v" q="a\"b\]\\"][b] text "#;
    let m = new(text).expect("a message");
    let some = |t: &str| Some(t.to_owned());
    let want = [
        some("h"),
        some("app"),
        some("23"),
        some("ID"),
        some("text "),
    ];
    assert_eq!(shown(text, &m), (Some(86), Some(1), want));
    assert_eq!(m.time, Stamp::At(1_438_811_939_693_000_000));
    let data: Map = [
        (
            "a@1",
            Value::Map([("k", "v"), ("q", "a\"b]\\")].into_iter().collect()),
        ),
        ("b", Value::Map(Map::new())),
    ]
    .into_iter()
    .collect();
    assert_eq!(m.structured_data, Some(data));

    let text = b"<0>999 - - - - - -";
    let m = new(text).expect("a message of nothing");
    assert_eq!(shown(text, &m), (Some(0), Some(999), [const { None }; 5]));
    assert_eq!((m.time, m.structured_data), (Stamp::None, None));

    let text = b"1 2015-08-05T23:58:59+02:00 h a - - -  m";
    let m = new(text).expect("a message without a priority");
    assert_eq!(m.time, Stamp::At(1_438_811_939_000_000_000));
    assert_eq!(shown(text, &m).2[4], some(" m"));

    let long = "x".repeat(33);
    for text in [
        "<86>0 - - - - - -",
        "<86>1234 - - - - - -",
        "<86>1 2015-08-05 - - - - -",
        "<86>1 2015-02-30T00:00:00Z - - - - -",
        "<86>1 2015-08-05T00:00:00.1234567Z - - - - -",
        "<86>1 2015-08-05T00:00:00 - - - - -",
        "<86>1 - - - - -",
        "<86>1 - - - - - -x",
        "<86>1 - - - - - [a k=v]",
        "<86>1 - - - - - [a k=\"]\"]",
        "<86>1 - - - - - [a k=\"\\n\"]",
        "<86>1 - - - - - [a k=\"v\"",
        "<86>1 - - - - - [a][a]",
        "<86>1 - - - - - []",
        &format!("<86>1 - - - - - [{long}]"),
        &format!("<86>1 - - - - {long} -"),
        "<86>1 - \u{e9} - - - -",
    ] {
        assert!(new(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn lengths_stand_before_messages() {
    assert_eq!(counted(b"12 <1>", 20), Ok((3, 12)));
    for text in [
        &b""[..],
        b"x",
        b"012 <",
        b"12<1>",
        b"21 <1>",
        b"99999999999999999999 <1>",
    ] {
        assert!(counted(text, 20).is_err(), "{}", text.escape_ascii());
    }
}
