use rcgen::Issuer;
use tailwater_config::{Errors, Section, parse};
use tailwater_exporters::client::{ClientParts, HttpClient};
use tailwater_opamp::proto::{Header, Headers, ProxyConnectionSettings, TlsCertificate};
use tailwater_testkit::tempdir::TempDir;

use super::*;

fn local(yaml: &str) -> Settings {
    let node = parse(yaml, "o.yaml").unwrap();
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "extensions::opamp", &mut errors);
    let settings = Settings::decode(&mut section).unwrap();
    assert!(errors.is_empty(), "{errors}");
    settings
}

const WSS: &str = "{server: {ws: {endpoint: 'wss://c.example:4320/v1/opamp', headers: {A: local}}}, \
                   capabilities: {accepts_opamp_connection_settings: true}, \
                   remote_config: {allow_endpoints: ['d.example:443']}}";

fn offered(settings: OpAmpConnectionSettings) -> Offered {
    Offered::new(vec![1], settings, None, None)
}

fn to(url: &str) -> OpAmpConnectionSettings {
    OpAmpConnectionSettings {
        destination_endpoint: url.into(),
        ..OpAmpConnectionSettings::default()
    }
}

fn headers(value: &str) -> Option<Headers> {
    let header = Header {
        key: "A".into(),
        value: value.into(),
    };
    Some(Headers {
        headers: vec![header],
    })
}

#[test]
fn an_offer_without_a_destination_changes_what_it_names() {
    let local = local(WSS);
    let first = offered(OpAmpConnectionSettings {
        headers: headers("one"),
        heartbeat_interval_seconds: 7,
        ..to("https://d.example/v1/opamp")
    });
    let way = first.way(&local).unwrap();
    assert!(!way.target.websocket && way.client.http2);
    assert_eq!(way.client.headers, [("A".to_owned(), "one".to_owned())]);
    assert_eq!(first.interval(&local), Some(Duration::from_secs(7)));
    let second = OpAmpConnectionSettings {
        headers: headers("two"),
        ..to("")
    };
    let second = Offered::new(vec![2], second, Some(&first), None);
    let way = second.way(&local).unwrap();
    assert_eq!(way.target.endpoint.host, "d.example");
    assert_eq!(way.client.headers[0].1, "two");
    // Who asks a server must ask it sometimes.
    assert_eq!(second.interval(&local), Some(local.interval));
    let beat = OpAmpConnectionSettings {
        heartbeat_interval_seconds: 5,
        ..to("")
    };
    let beat = Offered::new(vec![3], beat, Some(&second), None);
    assert!(beat.same_way(&local, &way) && !first.same_way(&local, &way));
    let quiet = offered(to(""));
    assert_eq!(
        quiet.interval(&local),
        None,
        "a WebSocket without heartbeats"
    );
    assert_eq!(quiet.way(&local).unwrap().client, local.client);
}

#[test]
fn what_would_weaken_or_lead_elsewhere_is_refused() {
    let local = local(WSS);
    let tls = |set: fn(&mut TlsConnectionSettings)| {
        let mut tls = TlsConnectionSettings::default();
        set(&mut tls);
        OpAmpConnectionSettings {
            tls: Some(tls),
            ..to("")
        }
    };
    let proxy = OpAmpConnectionSettings {
        proxy: Some(ProxyConnectionSettings {
            url: "http://p.example:1".into(),
            connect_headers: None,
        }),
        ..to("")
    };
    let keyless = OpAmpConnectionSettings {
        certificate: Some(TlsCertificate::default()),
        ..to("")
    };
    for (settings, said) in [
        (to("wss://e.example/"), "allow_endpoints"),
        (to("ws://c.example:4320/v1/opamp"), "without TLS"),
        (to("nonsense"), "ws://"),
        (
            tls(|t| t.insecure_skip_verify = true),
            "insecure_skip_verify",
        ),
        (tls(|t| t.min_version = "1.1".into()), "1.1"),
        (tls(|t| t.cipher_suites = vec!["X".into()]), "cipher_suites"),
        (proxy, "allow_endpoints"),
        (keyless, "no key"),
    ] {
        let refused = offered(settings).way(&local).expect_err(said);
        assert!(refused.contains(said), "{refused}");
    }
    let strict = tls(|t| t.min_version = "TLSv1.3".into());
    let way = offered(strict).way(&local).unwrap();
    assert_eq!(way.client.tls.handshake.min_version, TlsVersion::V13);
}

/// Guarantee: what was offered comes back after a restart, unless the local settings are others by then.
#[test]
fn offers_are_kept_over_the_local_settings_they_were_made_for() {
    let dir = TempDir::new("opamp-connection").unwrap();
    let store = Store::at(dir.path());
    let settings = local(WSS);
    assert_eq!(kept(&store, &settings), Kept::default());
    let all = Kept {
        valid: Some(offered(to("wss://d.example/"))),
        candidate: Some(Offered {
            key: Some("key".into()),
            ..offered(to(""))
        }),
    };
    keep(&store, &settings, &all).unwrap();
    assert_eq!(kept(&store, &settings), all);
    assert_eq!(
        kept(&store, &local(&WSS.replace("local", "other"))),
        Kept::default()
    );
    let unwilling = WSS.replace("connection_settings: true", "connection_settings: false");
    assert_eq!(kept(&store, &local(&unwilling)), Kept::default());
    assert_eq!(
        format!("{all:?}"),
        "Kept { valid: Some(Offered(01)), candidate: Some(Offered(01)) }"
    );
}

/// Guarantee: a certificate that is issued for the key of a request is shown with that key, which never
/// leaves the agent.
#[test]
fn a_certificate_for_our_own_key_is_used_with_it() {
    let uid = InstanceUid::v7(1, [2; 10]);
    let (key, request) = certificate_request(uid).unwrap();
    let csr = request.opamp.unwrap().certificate_request.unwrap().csr;
    let csr = String::from_utf8(csr).unwrap();
    assert!(csr.starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"));
    let lines: Vec<&str> = csr.lines().collect();
    let der = BASE64_STANDARD
        .decode(lines[1..lines.len() - 1].concat())
        .unwrap();
    let uid = uid.to_string();
    assert!(
        der.windows(uid.len()).any(|w| w == uid.as_bytes()),
        "it names the agent"
    );
    assert!(!csr.contains("PRIVATE"));

    let body: String = key.lines().filter(|l| !l.starts_with("-----")).collect();
    let pair = KeyPair::try_from(BASE64_STANDARD.decode(body).unwrap()).unwrap();
    let authority = KeyPair::generate().unwrap();
    let issuer = Issuer::new(CertificateParams::default(), authority);
    let mut params = CertificateParams::default();
    params.not_after = rcgen::date_time_ymd(2090, 1, 2);
    let certificate = params.signed_by(&pair, &issuer).unwrap();
    let settings = OpAmpConnectionSettings {
        certificate: Some(TlsCertificate {
            cert: pem("CERTIFICATE", certificate.der()).into_bytes(),
            ..TlsCertificate::default()
        }),
        ..to("")
    };
    let local = local(WSS);
    let ours = Offered::new(vec![1], settings.clone(), None, Some(&key));
    let way = ours.way(&local).unwrap();
    let client = HttpClient::new(ClientParts::new(way.client));
    assert!(client.is_ok(), "the certificate goes with the key");
    // 2090-01-02T00:00:00Z.
    let (begin, end) = ours.certificate_lasts().unwrap();
    assert_eq!(end, 3_786_998_400);
    assert!(!ours.is_over(end - 1) && ours.is_over(end));
    assert!(!ours.renews(60, end - 61) && ours.renews(60, end - 60));
    // However long before its end it is to be renewed, it is used for a while.
    assert!(!ours.renews(i64::MAX, begin) && ours.renews(i64::MAX, begin + (end - begin) / 2));
    let stranger = certificate_request(InstanceUid::v7(1, [3; 10])).unwrap().0;
    let other = Offered::new(vec![1], settings, None, Some(&stranger));
    let client = HttpClient::new(ClientParts::new(other.way(&local).unwrap().client));
    assert!(client.is_err(), "another key does not");
    // What changes later keeps both.
    let later = Offered::new(vec![2], to(""), Some(&ours), None);
    assert_eq!(
        (later.key.as_deref(), later.certificate_lasts()),
        (Some(&*key), ours.certificate_lasts())
    );
}
