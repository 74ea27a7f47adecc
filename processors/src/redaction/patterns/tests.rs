//! What each pattern finds, and what it does not.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

static FINDERS: LazyLock<Vec<(&str, Finder)>> = LazyLock::new(|| {
    let find = |p: &Named| (p.name, Finder::named(p.name).unwrap());
    ALL.iter().map(find).collect()
});

/// `text` with what the pattern finds in brackets.
fn marked(name: &str, text: &[u8]) -> String {
    let (_, finder) = FINDERS.iter().find(|(n, _)| *n == name).unwrap();
    let (mut out, mut at) = (Vec::new(), 0);
    finder.each(text, |range| {
        assert!(range.start >= at && range.start < range.end && range.end <= text.len());
        out.extend_from_slice(&text[at..range.start]);
        out.push(b'<');
        out.extend_from_slice(&text[range.clone()]);
        out.push(b'>');
        at = range.end;
    });
    out.extend_from_slice(&text[at..]);
    assert_eq!(finder.is_in(text), at > 0, "{name}: {text:?}");
    String::from_utf8_lossy(&out).into_owned()
}

/// Each row is a text with what is found in it in brackets.
fn check(name: &str, rows: &[&str]) {
    for row in rows {
        let text = row.replace(['<', '>'], "");
        assert_eq!(marked(name, text.as_bytes()), *row, "{name}");
    }
}

#[test]
fn email_addresses() {
    check(
        "email",
        &[
            "from <ann.o+x@mail.example.com>, to <b_c%d@x-y.co>.",
            "user=<jo@example.com>&x=1",
            "\"<müller@bücher.example>\"",
            "<a@b.xn--p1ai>",
            "no@host @example.com a@b.1 a@.com x@y",
            "git+ssh://<git@github.com>/x",
            "a@b@<c@d.org>",
        ],
    );
}

// Numbers that schemes give for tests.
#[test]
fn card_numbers_pass_luhn_and_begin_as_issuers_do() {
    check(
        "card",
        &[
            "<4111111111111111>",
            "pan=<4111 1111 1111 1111>, cvv 123",
            "<4111-1111-1111-1111> 12/27",
            "1234 <4111 1111 1111 1111> 999",
            "<378282246310005> <3782 822463 10005>",
            "<30569309025904> <3056 930902 5904>",
            "<5555555555554444>;<2223003122003222>;<6011111111111117>",
            "<3530111333300000> <4222222222222> <6200000000000005>",
            "card_<4111111111111111>_x",
            // Luhn fails; a length that Visa has not; no issuer; part of something longer.
            "4111111111111112 411111111111116 1111111111111117",
            "x4111111111111111 4111111111111111x 41111111111111111111",
            "4111 1111-1111 1111 41 11 11 11 11 11 11 11 411 1111 1111 1111",
            // Times, a fraction, a trace id.
            "1700000000000 1700000000000000000 0.4111111111111111",
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "",
        ],
    );
}

// ISO 13616 registry's examples.
#[test]
fn ibans_have_right_check_digits() {
    check(
        "iban",
        &[
            "<DE89370400440532013000>",
            "to <DE89 3704 0044 0532 0130 00> PLEASE",
            "<GB29 NWBK 6016 1331 9268 19>, <NO93 8601 1117 947>",
            "<BE68 5390 0754 7034> PAID",
            "<MT84MALT011000012345MTLCAST001S>",
            "DE88370400440532013000 de89370400440532013000 XDE89370400440532013000",
            "<DE89 370400440532013000>",
        ],
    );
}

#[test]
fn numbers_of_social_security() {
    check(
        "us_ssn",
        &[
            "ssn: <123-45-6789>.",
            "000-12-3456 666-12-3456 900-12-3456 123-00-4567 123-45-0000",
            "123-45-67890 1-123-45-6789 123456789",
        ],
    );
}

#[test]
fn telephone_numbers_with_a_plus() {
    check(
        "phone",
        &[
            "call <+1 (555) 010-0199>!",
            "<+4930123456>, <+49-30-123 456>",
            "+0123456789 a+4930123456 ++4930123456 0049301234567 +1234",
        ],
    );
}

#[test]
fn ipv4_addresses() {
    check(
        "ipv4",
        &[
            "<192.168.0.1>:8080 <10.0.0.1>/8 from <255.255.255.255>.",
            "[<1.2.3.4>] ip=<010.001.000.001>, <1.2.3.4>-<5.6.7.8>",
            "256.1.1.1 1.2.3 1.2.3.4.5 v1.2.3.4 1.2.3.4a 1.2.3.4.example.com 1..2.3.4",
            "::ffff:<1.2.3.4>",
        ],
    );
}

#[test]
fn ipv6_addresses() {
    check(
        "ipv6",
        &[
            "<2001:db8::1>, <fe80::1>%eth0 [<::1>]:443",
            "<2001:db8:0:0:0:0:0:1>:8080",
            "client <2001:db8::1>: refused, time:<2001:db8::1>",
            "addr:<2001:db8::1>. <::ffff:192.0.2.1>",
            "<fe80::1>:denied <2001:db8::>",
            "12:34:56 2024-10-04T19:21:48+00:00 aa:bb:cc:dd:ee:ff std::string a::b :: x",
            "12345::1 1:2:3:4:5:6:7:8:9:a:b 1:2:3",
        ],
    );
}

#[test]
fn hardware_addresses() {
    check(
        "mac",
        &[
            "<00:1A:2b:3c:4d:5e> <00-1a-2b-3c-4d-5e>, x",
            "00:1a:2b:3c:4d 00:1a:2b:3c:4d:5e:6f 00:1a-2b:3c:4d:5e 001a2b3c4d5e",
        ],
    );
}

#[test]
fn tokens_and_keys() {
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";
    check(
        "jwt",
        &[
            &format!("t=<{jwt}>;"),
            "eyJhbGciOiJIUzI1NiJ9.x",
            "eyJ.eyJ.x",
        ],
    );
    check("jwt", &["<eyJhbGciOiJkaXIifQ..aXY.Y2lwaGVy.dGFn>"]);
    check(
        "bearer_token",
        &[
            "Authorization: Bearer <abc>",
            r#""authorization":"bearer <x.y-z=>""#,
            r#"{\"Authorization\":\"Bearer <abc>\"}"#,
            "sent BEARER <0123456789abcdef> and",
            "bearer of news, the bearer instructions",
        ],
    );
    check(
        "basic_auth",
        &[
            "Proxy-Authorization: Basic <dXNlcjpwYXNz>",
            "basic authentication",
        ],
    );
    check(
        "url_credentials",
        &[
            "postgres://app:<s3cret>@db:5432/x amqp://:<p@ss>@mq",
            "https://example.com:443/a@b http://user@host/ https://a/?x=b:c@d",
        ],
    );
    check(
        "aws_key",
        &[
            "<AKIAIOSFODNN7EXAMPLE> <ASIAIOSFODNN7EXAMPLE>",
            "aws_secret_access_key = <wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY>",
            r#""AwsSecretAccessKey":"<wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY>""#,
            "AKIAIOSFODNN7EXAMPL XAKIAIOSFODNN7EXAMPLE wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        ],
    );
    let long = "0123456789abcdefghijABCDEFGHIJ0123456789";
    check("github_token", &[&format!("<ghp_{long}> ghx_{long}")]);
    check("github_token", &[&format!("<github_pat_{long}>")]);
    check(
        "gitlab_token",
        &["<glpat-0123456789abcdefghij> glpat-short"],
    );
    check(
        "google_api_key",
        &["key=<AIza01234567890123456789012345678901234> AIzaShort"],
    );
    check("slack_token", &["<xoxb-0123456789-abc> xoxz-0123456789"]);
    // Built, so that nobody takes it for a key that is in use.
    let stripe = ["sk", "live", "0123456789abcdef"].join("_");
    check("stripe_key", &[&format!("<{stripe}> sk_livery_1")]);
}

#[test]
fn private_keys_are_found_also_without_their_end() {
    let begin = "-----BEGIN RSA PRIVATE KEY-----";
    let end = "-----END RSA PRIVATE KEY-----";
    check(
        "private_key",
        &[
            &format!("a\n<{begin}\nMIIB\n{end}>\nb"),
            &format!("<{begin}\\nMIIB\\n{end}> x <{begin} torn off>"),
            "-----BEGIN PUBLIC KEY-----",
        ],
    );
}

#[test]
fn passwords_that_are_given_a_name() {
    check(
        "password",
        &[
            "password=<hunter2> user=x",
            "PWD: <a}b> Secret=<x>&token=y",
            r#"{"password":"<a \"b\" c>","n":1}"#,
            r#"{"api_key":<12345>,"client_secret":<1>}"#,
            r#"{\"password\":\"<x\",\"n\":1}>"#,
            "db_passwd='<it is>' refresh-token = <t>",
            "password reset for ann, secretary: x, password={}, password=",
        ],
    );
}

#[test]
fn every_pattern_has_a_name_of_its_own_and_compiles() {
    for (i, pattern) in ALL.iter().enumerate() {
        assert!(ALL[..i].iter().all(|p| p.name != pattern.name));
        let finder = Finder::named(pattern.name).unwrap();
        assert!(!finder.is_in(b""), "{}", pattern.name);
        assert!(
            !finder.is_in(b"GET /index.html 200 in 12ms"),
            "{}",
            pattern.name
        );
    }
    assert!(Finder::named("emails").is_none());
}

proptest! {
    /// Guarantees that patterns give ranges in order, within the text, and never panic, on any bytes.
    #[test]
    fn any_bytes_are_searched(text in proptest::collection::vec(
        prop_oneof![Just(b':'), Just(b'.'), Just(b' '), Just(b'-'), Just(b'@'), Just(b'4'), Just(b'a'), any::<u8>()],
        0..200,
    )) {
        for pattern in ALL {
            marked(pattern.name, &text);
        }
    }

    /// Guarantees that a card number is found wherever it stands, and that one other digit hides it.
    #[test]
    fn a_card_is_found_in_any_text(digits in proptest::collection::vec(0u8..10, 14), before in "[ a-z:=]{0,20}", flip in 0usize..15) {
        let mut number = vec![4u8];
        number.extend(digits);
        let sum: u32 = number.iter().rev().enumerate().map(|(i, d)| {
            let d = u32::from(*d);
            if i % 2 == 0 { if d > 4 { 2 * d - 9 } else { 2 * d } } else { d }
        }).sum();
        number.push(((10 - sum % 10) % 10) as u8);
        let text = |n: &[u8]| n.iter().map(|d| char::from(b'0' + d)).collect::<String>();
        let line = format!("{before} {}", text(&number));
        prop_assert_eq!(marked("card", line.as_bytes()), format!("{before} <{}>", text(&number)));
        number[flip + 1] = (number[flip + 1] + 1) % 10;
        let line = format!("{before} {}", text(&number));
        prop_assert_eq!(marked("card", line.as_bytes()), line);
    }
}
