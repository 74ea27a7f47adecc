//! What `validate` says of extensions that lead to one another, and of exporters that cannot use them.

use std::process::Command;

/// What is printed about a configuration with these extensions and exporters.
fn said(extensions: &str, run: &str, exporter: &str) -> String {
    let yaml = format!(
        "extensions: {{{extensions}}}\n\
         receivers: {{otlp: {{protocols: {{http: {{include_metadata: true}}}}}}}}\n\
         exporters: {{{exporter}}}\n\
         service: {{extensions: [{run}], pipelines: {{logs: {{receivers: [otlp], exporters: [{}]}}}}}}\n",
        exporter.split(':').next().unwrap_or_default(),
    );
    let out = Command::new(env!("CARGO_BIN_EXE_tailwater"))
        .args(["validate", "--config", &format!("yaml:{yaml}")])
        .output()
        .expect("the binary was built for this test");
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.success(), text.is_empty(), "{text}");
    text
}

const OTLP: &str = "otlp_http: {endpoint: 'http://x', auth: {authenticator: headers_setter}}";
const LOKI: &str = "loki: {endpoint: 'http://x/y', auth: {authenticator: headers_setter}}";

#[test]
fn each_mistake_is_named_and_what_is_right_passes() {
    let value = "headers: [{key: x, value: a}]";
    let context = "headers: [{key: x, from_context: a}]";
    let bearer = "bearertokenauth: {token: t}";
    for (extensions, run, exporter, expect) in [
        (
            format!("headers_setter: {{{value}}}"),
            "headers_setter",
            OTLP,
            "",
        ),
        (
            format!("headers_setter: {{{value}}}"),
            "headers_setter",
            LOKI,
            "",
        ),
        (
            format!("headers_setter: {{{context}}}"),
            "headers_setter",
            OTLP,
            "",
        ),
        (
            format!("headers_setter: {{{context}}}"),
            "headers_setter",
            LOKI,
            "exporters::loki::auth::authenticator: extension \"headers_setter\" reads what is known of clients",
        ),
        (
            format!(
                "headers_setter: {{{value}, additional_auth: headers_setter/2}}, headers_setter/2: {{{context}}}"
            ),
            "headers_setter, headers_setter/2",
            LOKI,
            "reads what is known of clients",
        ),
        (
            format!("headers_setter: {{{value}, additional_auth: bearertokenauth}}, {bearer}"),
            "headers_setter, bearertokenauth",
            OTLP,
            "",
        ),
        (
            format!("headers_setter: {{{value}, additional_auth: bearertokenauth}}, {bearer}"),
            "headers_setter",
            OTLP,
            "additional_auth: extension \"bearertokenauth\" does not run",
        ),
        (
            format!("headers_setter: {{{value}, additional_auth: nobody}}"),
            "headers_setter",
            OTLP,
            "additional_auth: extension \"nobody\" is not configured",
        ),
        (
            format!("headers_setter: {{{value}, additional_auth: zpages}}, zpages: {{}}"),
            "headers_setter, zpages",
            OTLP,
            "additional_auth: extension \"zpages\" has no credentials to send",
        ),
        (
            format!("headers_setter: {{{value}, additional_auth: headers_setter}}"),
            "headers_setter",
            OTLP,
            "additional_auth: runs in a circle",
        ),
        (
            format!(
                "headers_setter: {{{value}, additional_auth: headers_setter/2}}, \
                 headers_setter/2: {{{value}, additional_auth: headers_setter}}"
            ),
            "headers_setter, headers_setter/2",
            OTLP,
            "additional_auth: runs in a circle",
        ),
    ] {
        let text = said(&extensions, run, exporter);
        assert_eq!(text.is_empty(), expect.is_empty(), "{extensions}: {text}");
        assert!(text.contains(expect), "{extensions}: {text}");
    }
    let profiles = said("pprof: {}", "pprof", "nop: {}");
    assert!(profiles.contains("take it out"), "{profiles}");
}
