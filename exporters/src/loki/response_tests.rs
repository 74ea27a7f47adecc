//! Every row of the table of Loki's answers.

use super::*;
use proptest::prelude::*;

const STREAM: &str = r#"{app="a", job="x}\"y"}"#;

fn answer(status: u16, body: &str) -> Answer {
    classify(status, body, &[204])
}

fn partial(status: u16, body: &str) -> Vec<(DropReason, Option<u64>, Option<String>, Which)> {
    match answer(status, body) {
        Answer::Partial(list) => {
            let fields = |r: Refusal| (r.reason, r.entries, r.stream, r.which);
            list.into_iter().map(fields).collect()
        }
        other => panic!("{other:?} for {body}"),
    }
}

#[test]
fn only_204_is_success() {
    assert_eq!(answer(204, ""), Answer::Delivered);
    assert_eq!(answer(200, ""), Answer::Hold(Reach::Destination));
    assert_eq!(
        answer(260, "ingestion blocked for user t until '2030'"),
        Answer::Hold(Reach::Tenant)
    );
    assert_eq!(answer(302, ""), Answer::Hold(Reach::Destination));
    assert_eq!(classify(200, "", &[200, 204]), Answer::Delivered);
}

#[test]
fn entry_errors_of_the_distributor_are_partial_and_exact() {
    let old = format!(
        "entry for stream '{STREAM}' has timestamp too old: 2025-11-01T00:00:00Z, oldest acceptable timestamp is: 2025-11-23T14:53:28Z"
    );
    let long = format!(
        "max entry size '262144' bytes exceeded for stream '{STREAM}' while adding an entry with length '300000' bytes"
    );
    let new = format!("entry for stream '{STREAM}' has timestamp too new: 2025-11-23T14:53:28Z");
    let bound = 1_763_909_608_000_000_000;
    let stream = Some(STREAM.to_owned());
    assert_eq!(
        partial(
            400,
            &format!("12 errors like: {old}; 3 errors like: {long}")
        ),
        [
            (
                DropReason::TooOld,
                Some(12),
                stream.clone(),
                Which::Before(bound)
            ),
            (
                DropReason::LineTooLong,
                Some(3),
                stream.clone(),
                Which::LongerThan(262_144)
            ),
        ]
    );
    assert_eq!(
        partial(400, &new),
        [(
            DropReason::TooNew,
            Some(1),
            stream.clone(),
            Which::From(bound)
        )]
    );
    for text in [
        "stream '{a=\"b\"}' has structured metadata too large: '70000' bytes, limit: '65536' bytes",
        "stream '{a=\"b\"}' has too many structured metadata labels: '200', limit: '128'",
    ] {
        let want = (
            DropReason::InvalidMetadata,
            Some(1),
            Some("{a=\"b\"}".into()),
            Which::Any,
        );
        assert_eq!(partial(400, text), [want]);
    }
}

#[test]
fn label_errors_concern_the_whole_stream() {
    for text in [
        "entry for stream '{a=\"b\"}' has 16 label names; limit 15",
        "stream '{a=\"b\"}' has label name too long: 'x'",
        "stream '{a=\"b\"}' has label value too long: 'x'",
        "stream '{a=\"b\"}' has duplicate label name: 'x'",
    ] {
        let want = (
            DropReason::InvalidLabels,
            None,
            Some("{a=\"b\"}".into()),
            Which::Any,
        );
        assert_eq!(partial(400, text), [want]);
    }
}

#[test]
fn the_trailer_of_an_ingester_is_exact_though_its_list_is_capped() {
    let line = |n: i32| {
        format!(
            "entry with timestamp 2025-11-23 10:00:{n:02} +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2025-11-23T10:00:{n:02}Z, oldest acceptable timestamp is: 2025-11-23T14:53:28Z',\n"
        )
    };
    let list: String = (0..10).map(line).collect();
    let body = format!("{list}user 'fake', total ignored: 37 out of 500 for stream: {STREAM}");
    let bound = Which::Before(1_763_909_608_000_000_000);
    let want = (
        DropReason::TooFarBehind,
        Some(37),
        Some(STREAM.to_owned()),
        bound,
    );
    assert_eq!(partial(400, &body), [want]);
    let unknown = "entry with timestamp x ignored, reason: 'y',\ntotal ignored: 4 out of 9 for stream: {a=\"b\"}";
    let want = (
        DropReason::Rejected,
        Some(4),
        Some("{a=\"b\"}".into()),
        Which::Any,
    );
    assert_eq!(partial(400, unknown), [want]);
}

#[test]
fn what_rejects_a_whole_request_is_isolated_split_dropped_or_held() {
    use Answer::*;
    for (status, body, want) in [
        (
            400,
            "couldn't parse labels: 1:3: parse error",
            Isolate(DropReason::InvalidLabels),
        ),
        (400, "snappy: corrupt input", Isolate(DropReason::Rejected)),
        (
            400,
            "rpc error: tenant ID contains unsupported character '/'",
            Hold(Reach::Tenant),
        ),
        (400, "multiple org IDs present", Hold(Reach::Tenant)),
        (
            400,
            "entry for stream is missing required labels env",
            Hold(Reach::Request),
        ),
        (401, "no org id", Hold(Reach::Destination)),
        (403, "", Hold(Reach::Destination)),
        (404, "404 page not found", Hold(Reach::Destination)),
        (413, "request body too large", Split),
        (
            422,
            "error at least one valid stream is required",
            Drop(DropReason::EncodeError),
        ),
        (
            500,
            "label name is empty",
            Isolate(DropReason::InvalidMetadata),
        ),
        (
            500,
            "normalization for \"_\" resulted in invalid name \"_\"",
            Isolate(DropReason::InvalidMetadata),
        ),
        (
            500,
            "ResourceExhausted: grpc: received message larger than max (5 vs. 4)",
            Split,
        ),
        (
            500,
            "no schema config found for time 1",
            Isolate(DropReason::TooOld),
        ),
        (500, "oops", Retry(Reach::Request)),
        (502, "", Retry(Reach::Request)),
        (
            503,
            "cannot accept more requests",
            Retry(Reach::Destination),
        ),
        (504, "", Retry(Reach::Request)),
        (429, "too many requests", Retry(Reach::Tenant)),
        (418, "", Isolate(DropReason::Rejected)),
    ] {
        assert_eq!(answer(status, body), want, "{status} {body}");
    }
}

#[test]
fn a_429_says_whom_it_concerns_and_at_which_rate() {
    let tenant = |total| {
        format!(
            "Ingestion rate limit exceeded for user fake (limit: 4194304 bytes/sec) while attempting to ingest '9' lines totaling '{total}' bytes, reduce log volume"
        )
    };
    for total in [1_000_000, 7_000_000] {
        let rate = Some(4_194_304);
        assert_eq!(answer(429, &tenant(total)), Answer::TenantRate { rate });
    }
    let rate = None;
    assert_eq!(
        answer(429, "Ingestion rate limit exceeded"),
        Answer::TenantRate { rate }
    );
    let stream = |labels: Option<&str>, limit| Answer::RetryStream {
        labels: labels.map(str::to_owned),
        limit,
    };
    let rate = |bytes| StreamLimit::Rate(Some(bytes));
    for (limit, want) in [
        ("3MB", rate(3 << 20)),
        ("1.5KB", rate(1_536)),
        ("300000B", rate(300_000)),
        ("2GB", rate(2 << 30)),
        ("", StreamLimit::Rate(None)),
    ] {
        let text = format!(
            "entry with timestamp x ignored, reason: 'Per stream rate limit exceeded (limit: {limit}/sec) while attempting to ingest for stream '{STREAM}' totaling 245B, consider splitting a stream',\nuser 'fake', total ignored: 4 out of 9 for stream: {STREAM}"
        );
        assert_eq!(answer(429, &text), stream(Some(STREAM), want));
    }
    let limit = format!(
        "Maximum active stream limit exceeded when trying to create stream {STREAM}, reduce the number of active streams"
    );
    assert_eq!(
        answer(429, &limit),
        stream(Some(STREAM), StreamLimit::Count)
    );
    let text = "maximum active stream limit exceeded";
    assert_eq!(answer(429, text), stream(None, StreamLimit::Count));
    // Both statuses, for the last of the entries that failed decides which it is.
    let mixed = "entry with timestamp x ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec)',\ntotal ignored: 4 out of 9 for stream: {a=\"b\"}";
    for status in [400, 429] {
        assert_eq!(
            answer(status, mixed),
            stream(Some("{a=\"b\"}"), rate(3 << 20))
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_answer_makes_it_panic(
        status in 100u16..600,
        pieces in proptest::collection::vec(prop_oneof![
            Just("7 errors like: ".to_owned()), Just(TRAILER.to_owned()), Just("99999999999999999999 out of".into()),
            Just("for stream: {".into()), Just("stream '{a=\"".into()), Just("max entry size '".into()),
            Just("has timestamp too old".into()), Just("oldest acceptable timestamp is: 2025-1".into()),
            Just("entry with timestamp ".into()), Just("per stream rate limit exceeded limit: ".into()),
            Just("totaling ".into()), ".{0,12}",
        ], 0..9),
    ) {
        answer(status, &pieces.concat());
    }
}
