//! Which options there are, their defaults, and what is refused.

use std::time::Duration;

use super::*;
use crate::listen::Family;
use crate::server::{Encoding, Keepalive, Limits};
use tailwater_config::{Errors, parse};
use tailwater_pipeline::tls::TlsVersion;

fn decode(yaml: &str) -> Result<(OtlpConfig, Errors), Errors> {
    let node = parse(yaml, "test.yaml")?;
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "receivers::otlp", &mut errors);
    let config = OtlpConfig::decode(&mut section);
    section.finish();
    if errors.is_empty() {
        Ok((config, errors))
    } else {
        Err(errors)
    }
}

fn good(yaml: &str) -> OtlpConfig {
    decode(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}")).0
}

fn pem(name: &str) -> String {
    format!(
        "{}/../exporters/src/client/test_certs/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

#[test]
fn defaults_are_those_of_the_collector() {
    let c = good("protocols: {grpc: , http: }");
    let (grpc, http) = (c.server.grpc.unwrap(), c.server.http.unwrap());
    assert_eq!(grpc.listen.endpoint.to_string(), "localhost:4317");
    assert_eq!(http.listen.endpoint.to_string(), "localhost:4318");
    assert_eq!(grpc.message_bytes_max, 4 << 20);
    assert_eq!(grpc.keepalive, Keepalive::default());
    assert_eq!(http.body_bytes_max, 20 << 20);
    let paths = &c.paths;
    assert_eq!(
        [&paths.logs[..], &paths.metrics, &paths.traces],
        ["/v1/logs", "/v1/metrics", "/v1/traces"]
    );
    assert_eq!(http.encodings, Encoding::ALL);
    let minute = Some(Duration::from_secs(60));
    assert_eq!((http.header_timeout, http.idle_timeout), (minute, minute));
    assert_eq!(http.write_timeout, Some(Duration::from_secs(30)));
    assert!(http.read_timeout.is_none() && http.keep_alive);
    assert!(grpc.tls.is_none() && http.tls.is_none() && http.cors.is_none());
    assert_eq!(c.server.limits, Limits::default());
    assert!(!c.server.refuse_unprotected);
    let only = good("protocols: {http: {endpoint: ':1'}, grpc: {enabled: false}}");
    assert!(only.server.grpc.is_none() && only.server.http.is_some());
}

#[test]
fn every_option_has_its_effect() {
    let c = good(&format!(
        r#"
protocols:
  grpc:
    endpoint: 127.0.0.1:1
    transport: tcp4
    max_recv_msg_size_mib: 7
    max_concurrent_streams: 8
    read_buffer_size: 1
    write_buffer_size: 1
    include_metadata: true
    keepalive:
      server_parameters:
        max_connection_idle: 1s
        max_connection_age: 2s
        max_connection_age_grace: 3s
        time: 4s
        timeout: 5s
      enforcement_policy: {{min_time: 1s, permit_without_stream: true}}
    tls:
      cert_file: {cert}
      key_file: {key}
      client_ca_file: {ca}
      client_ca_file_reload: true
      ca_file: /nowhere
      min_version: "1.2"
      max_version: "1.2"
      cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]
      curve_preferences: [P384, X25519]
      reload_interval: 6s
  http:
    endpoint: unix:///run/a.sock
    logs_url_path: l
    metrics_url_path: /m
    traces_url_path: /t
    max_request_body_size: 9
    compression_algorithms: ["", gzip]
    response_headers: {{X-A: b}}
    auth: {{authenticator: basicauth, request_params: [X-Token]}}
    middlewares: []
    dialer: {{timeout: 1s}}
    read_timeout: 1s
    read_header_timeout: 2s
    write_timeout: 3s
    idle_timeout: 4s
    keep_alives_enabled: false
    cors:
      allowed_origins: ["https://*.example.com"]
      allowed_headers: [X-Key]
      exposed_headers: [X-B]
      max_age: 7
limits:
  in_flight_bytes_max: 2MiB
  requests_max: 3
  connections_max: 4
  body_timeout: 5s
  decode_timeout: 7s
  request_timeout: 6s
refuse_unprotected: true
"#,
        cert = pem("server1.pem"),
        key = pem("server1.key"),
        ca = pem("ca1.pem"),
    ));
    let seconds = Duration::from_secs;
    let grpc = c.server.grpc.unwrap();
    assert_eq!(grpc.listen.family, Family::V4);
    assert_eq!((grpc.message_bytes_max, grpc.streams_max), (7 << 20, 8));
    let expect = Keepalive {
        idle_max: Some(seconds(1)),
        age_max: Some(seconds(2)),
        age_grace: Some(seconds(3)),
        ping_after: seconds(4),
        ping_timeout: seconds(5),
    };
    assert_eq!(grpc.keepalive, expect);
    let tls = grpc.tls.unwrap();
    assert!(tls.client_ca.is_some() && tls.client_ca_reload);
    let handshake = &tls.handshake;
    assert_eq!(
        (handshake.min_version, handshake.max_version),
        (TlsVersion::V12, TlsVersion::V12)
    );
    assert_eq!(handshake.suites.len(), 1);
    assert_eq!(handshake.curves.len(), 2);
    assert_eq!(tls.reload_interval, seconds(6));
    let http = c.server.http.unwrap();
    assert_eq!(http.listen.endpoint.to_string(), "unix:///run/a.sock");
    assert_eq!(c.paths.logs, "/l");
    assert_eq!(
        (c.paths.metrics, c.paths.traces),
        ("/m".into(), "/t".into())
    );
    assert_eq!(
        (http.body_bytes_max, http.encodings),
        (9, vec![Encoding::Gzip])
    );
    assert_eq!(http.response_headers["x-a"], "b");
    assert_eq!(http.auth.as_deref(), Some("basicauth"));
    assert_eq!(http.auth_params, ["x-token"]);
    assert_eq!(
        (http.read_timeout, http.header_timeout),
        (Some(seconds(1)), Some(seconds(2)))
    );
    assert_eq!(
        (http.write_timeout, http.idle_timeout),
        (Some(seconds(3)), Some(seconds(4)))
    );
    assert!(!http.keep_alive);
    let cors = http.cors.unwrap();
    let page = "https://a.Example.com";
    assert_eq!(cors.allow_origin(page), Some(page));
    assert_eq!(cors.allow_origin("https://example.com"), None);
    assert!(cors.allows_headers("x-key, Content-Type") && !cors.allows_headers("x-other"));
    assert_eq!((cors.exposed(), cors.max_age()), (Some("X-B"), Some(7)));
    let limits = Limits {
        in_flight_bytes_max: 2 << 20,
        requests_max: 3,
        connections_max: 4,
        body_timeout: seconds(5),
        decode_timeout: seconds(7),
        request_timeout: seconds(6),
    };
    assert_eq!(c.server.limits, limits);
    assert!(c.server.refuse_unprotected);
}

#[test]
fn what_is_not_supported_or_wrong_is_refused_by_name() {
    for (yaml, part) in [
        ("", "at least one of grpc and http"),
        ("protocols:", "at least one of grpc and http"),
        ("protocols: {grcp: }", "grpc"),
        ("protocols: {grpc: {auth: {}}}", "authenticator is required"),
        (
            "protocols: {http: {auth: {authenticator: a, request_params: ['x y']}}}",
            "http::auth::request_params",
        ),
        (
            "protocols: {grpc: {auth: {authenticator: a, request_params: [x]}}}",
            "grpc::auth::request_params",
        ),
        (
            "protocols: {http: {include_tls_metadata: true}}",
            "nothing reads",
        ),
        (
            "protocols: {http: {middlewares: [{id: a}]}}",
            "`limits` bounds requests",
        ),
        ("protocols: {http: {endpoint: nowhere}}", "host:port"),
        (
            "protocols: {http: {endpoint: 'http://a:1'}}",
            "without a scheme",
        ),
        ("protocols: {http: {transport: udp}}", "unix"),
        ("protocols: {http: {logs_url_path: 'a b'}}", "path of a URL"),
        (
            "protocols: {http: {compression_algorithms: [br]}}",
            "gzip, zstd",
        ),
        (
            "protocols: {http: {response_headers: {'a b': c}}}",
            "not a header name",
        ),
        (
            "protocols: {http: {response_headers: {a: \"b\\n\"}}}",
            "cannot carry",
        ),
        ("protocols: {http: {tls: }}", "are required"),
        (
            "protocols: {http: {tls: {cert_pem: x, key_pem: s3cret}}}",
            "tls::cert_pem",
        ),
        (
            "protocols: {http: {tls: {cert_file: /c, key_file: /k, max_version: '1.1'}}}",
            "1.2 is the oldest",
        ),
        (
            "protocols: {http: {tls: {cert_file: /c, key_file: /k, cipher_suites: [TLS_RSA]}}}",
            "TLS_ECDHE",
        ),
        (
            "protocols: {http: {tls: {cert_file: /c, key_file: /k, curve_preferences: [P521]}}}",
            "X25519, P256, P384",
        ),
        (
            "{protocols: {http: }, limits: {requests_max: 0}}",
            "requests_max",
        ),
        (
            "{protocols: {http: }, limits: {in_flight_bytes_max: 10}}",
            "in_flight_bytes_max",
        ),
    ] {
        let errors = decode(yaml)
            .err()
            .unwrap_or_else(|| panic!("accepted: {yaml}"));
        let text = errors.to_string();
        assert!(text.contains(part), "{yaml}: {text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}
