//! Which options there are, and what is refused with which words.

use super::stand::settings;

/// Guarantee: what a collector's configuration may say is taken.
#[tokio::test]
async fn what_is_taken() {
    for yaml in [
        "{tcp: {listen_address: '0.0.0.0:54526'}, protocol: rfc5424}",
        "{udp: {listen_address: ':514'}, protocol: RFC3164, location: America/New_York}",
        "{tcp: {listen_address: 'a:1', max_log_size: 1MiB, max_connections: 5, connection_idle_timeout: 1m, \
         add_attributes: true, one_log_per_packet: false, encoding: utf-16le, preserve_leading_whitespaces: true, \
         preserve_trailing_whitespaces: true, multiline: {line_start_pattern: '<'}}, protocol: rfc5424}",
        "{udp: {listen_address: 'a:1', async: {readers: 2, processors: 2, max_queue_length: 10}, \
         one_log_per_packet: true, multiline: {line_end_pattern: 'x', omit_pattern: true}}, protocol: rfc5424}",
        "{tcp: {listen_address: 'a:1'}, udp: {listen_address: 'a:1'}, protocol: rfc3164, \
         allow_skip_pri_header: true, on_error: drop_quiet}",
        "{tcp: {listen_address: 'a:1'}, protocol: rfc5424, enable_octet_counting: true, max_octets: 100}",
        "{tcp: {listen_address: 'a:1'}, protocol: rfc5424, non_transparent_framing_trailer: NUL}",
        "{tcp: {listen_address: '[::1]:1'}, protocol: none, id: x, type: syslog_input, \
         retry_on_failure: {enabled: true, max_elapsed_time: 0}, storage: file_storage, \
         attributes: {a: 'EXPR(attributes.hostname)'}, resource: {b: c}, operators: [{type: noop}], \
         limits: {in_flight_bytes_max: 10MiB}, refuse_unprotected: true}",
    ] {
        if let Err(e) = settings(yaml) {
            panic!("{yaml}: {e}");
        }
    }
}

/// Guarantee: every mistake is an error at its place.
#[tokio::test]
async fn what_is_refused() {
    let tcp = "tcp: {listen_address: 'a:1'}";
    let udp = "udp: {listen_address: 'a:1'}";
    for (yaml, parts) in [
        ("{protocol: rfc5424}".to_owned(), vec!["receivers::syslog: need tcp config or udp config"]),
        (format!("{{{tcp}}}"), vec!["receivers::syslog: protocol is required"]),
        (
            format!("{{{tcp}, protocol: rfc1}}"),
            vec!["test.yaml:1:", "receivers::syslog::protocol", "rfc3164"],
        ),
        (
            format!("{{{tcp}, protocol: rfc5424, location: Nowhere/City}}"),
            vec!["receivers::syslog::location"],
        ),
        (
            format!("{{{udp}, protocol: rfc5424, enable_octet_counting: true}}"),
            vec!["receivers::syslog::enable_octet_counting", "udp"],
        ),
        (
            format!("{{{udp}, protocol: rfc5424, non_transparent_framing_trailer: LF}}"),
            vec!["receivers::syslog::non_transparent_framing_trailer", "udp"],
        ),
        (
            format!("{{{tcp}, protocol: rfc5424, on_error: ignore}}"),
            vec!["receivers::syslog::on_error", "send_quiet"],
        ),
        (
            "{tcp: {listen_addres: 'a:1'}, protocol: rfc5424}".to_owned(),
            vec!["receivers::syslog::tcp", "listen_address"],
        ),
        (
            "{tcp: {listen_address: 'localhost'}, protocol: rfc5424}".to_owned(),
            vec!["receivers::syslog::tcp::listen_address: must be host:port"],
        ),
        (
            "{tcp: {listen_address: 'a:1', max_log_size: 1KiB}, protocol: rfc5424}".to_owned(),
            vec!["receivers::syslog::tcp::max_log_size: must be at least 64KiB"],
        ),
        (
            "{tcp: {listen_address: 'a:1', encoding: klingon}, protocol: rfc5424}".to_owned(),
            vec!["receivers::syslog::tcp::encoding"],
        ),
        (
            "{tcp: {listen_address: 'a:1', multiline: {line_start_pattern: '('}}, protocol: rfc5424}"
                .to_owned(),
            vec!["receivers::syslog::tcp::multiline::line_start_pattern"],
        ),
        (
            "{tcp: {listen_address: 'a:1', tls: {}}, protocol: rfc5424}".to_owned(),
            vec!["receivers::syslog::tcp::tls", "cert_file"],
        ),
        (
            "{udp: {listen_address: 'a:1', async: {readers: 0}}, protocol: rfc5424}".to_owned(),
            vec!["receivers::syslog::udp::async::readers"],
        ),
        (
            "{udp: {listen_address: 'a:1', max_log_size: 1MiB}, protocol: rfc5424}".to_owned(),
            vec!["receivers::syslog::udp", "max_log_size"],
        ),
        (
            format!("{{{tcp}, protocol: rfc5424, operators: [{{type: jsn_parser}}]}}"),
            vec!["receivers::syslog::operators::0::type", "json_parser"],
        ),
        (
            format!("{{{tcp}, protocol: rfc5424, output: x}}"),
            vec!["receivers::syslog::output"],
        ),
        (
            format!("{{{tcp}, protocol: rfc5424, attributes: {{a: 'EXPR((('}}}}"),
            vec!["receivers::syslog::attributes::a"],
        ),
    ] {
        let error = settings(&yaml).err().unwrap_or_else(|| panic!("{yaml}"));
        for part in parts {
            assert!(error.contains(part), "{yaml}: {part:?} is not in\n{error}");
        }
    }
}
