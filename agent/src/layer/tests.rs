use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::commands::check::{check_offer, mistakes};
use tailwater_testkit::tempdir::TempDir;

const LOCAL: &str = "
receivers: {file_log: {include: [LOGS/*.log], storage: file_storage}}
exporters: {loki: {endpoint: 'http://loki.example:3100/loki/api/v1/push', labels: {static: {job: '${env:PATH}'}}}}
extensions:
  file_storage: {directory: STATE}
  opamp:
    server: {ws: {endpoint: 'ws://c.example/v1/opamp'}}
    capabilities: {accepts_remote_config: true}
    remote_config: RULES
service:
  extensions: [file_storage, opamp]
  pipelines: {logs: {receivers: [file_log], exporters: [loki]}}
";

struct Stand {
    dir: TempDir,
    rules: String,
}

impl Stand {
    fn new(rules: &str) -> Stand {
        let dir = TempDir::new("layer").unwrap();
        for sub in ["logs", "state", "more"] {
            fs::create_dir(dir.join(sub)).unwrap();
        }
        symlink("/etc", dir.join("more/out")).unwrap();
        Stand {
            rules: rules.replace("MORE", &dir.join("more").display().to_string()),
            dir,
        }
    }

    /// What comes of layers over the local configuration, as YAML or as all reasons.
    fn lay(&self, files: &[&str]) -> Result<String, String> {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let text = LOCAL
            .replace("LOGS", &path("logs"))
            .replace("STATE", &path("state"));
        let text = text.replace("RULES", &self.rules);
        let named = files.iter().enumerate();
        let files = named.map(|(i, f)| (format!("{i}.yaml"), f.replace("DIR", &path(""))));
        let offer = Offer {
            sources: vec![Source::Yaml(text)],
            layer: Some(Arc::new(Layer {
                files: files.collect(),
            })),
            ..Offer::default()
        };
        match check_offer(&offer, &Reading::of(&offer)) {
            Ok(checked) => Ok(tailwater_config::to_yaml(&checked.loaded.root)),
            Err(errors) => Err(mistakes(&errors).join("\n")),
        }
    }
}

#[test]
fn layers_lie_over_the_local_configuration_in_their_order() {
    let stand = Stand::new("{}");
    let whole = stand
        .lay(&[
            "exporters: {loki: {labels: {static: {a: x, b: x}}}}",
            "exporters: {loki: {labels: {static: {b: y}}}}\nservice: {extensions: [file_storage]}",
        ])
        .unwrap();
    for part in ["a: x", "b: \"y\"", "- opamp", "- file_storage"] {
        assert!(
            whole.contains(part) || whole.contains(&part.replace('"', "")),
            "{part}: {whole}"
        );
    }
    let wrong = stand
        .lay(&["", "receivers: {file_log: {includ: x}}"])
        .unwrap_err();
    assert!(wrong.contains("remote 1.yaml:1:"), "{wrong}");
}

/// Guarantee: what a layer names and the local configuration does not is refused, and nothing of it is read.
/// A program that the local configuration does not run.
const RUNS: &str = "receivers: {journald: {journalctl_path: 'DIR/more/x', directory: 'DIR/more'}}\n\
                    service: {pipelines: {logs/j: {receivers: [journald], exporters: [loki]}}}";

#[test]
fn what_is_neither_local_nor_allowed_is_refused() {
    let stand = Stand::new("{}");
    for (text, said) in [
        (
            "receivers: {file_log: {include: ['/etc/*.conf']}}",
            "allow_read",
        ),
        (
            "receivers: {file_log: {include: ['DIR/more/*.log']}}",
            "allow_read",
        ),
        (
            "receivers: {file_log: {include: ['DIR/logs/../more/*.log']}}",
            "allow_read",
        ),
        (
            "exporters: {loki: {endpoint: 'http://loki.example:3101/x'}}",
            "allow_endpoints",
        ),
        (
            "exporters: {loki: {proxy_url: 'http://p.example:1'}}",
            "allow_endpoints",
        ),
        (
            "exporters: {loki: {dead_letter_file: 'DIR/more/x'}}",
            "allow_write",
        ),
        (
            "exporters: {loki: {labels: {static: {x: '${env:HOME}'}}}}",
            "allow_variables",
        ),
        // The local one may use it where nobody sees it.
        (
            "exporters: {loki: {labels: {static: {x: '${env:PATH}'}}}}",
            "allow_variables",
        ),
        (
            "exporters: {loki: {labels: {static: {x: '${yaml:${env:PATH}}'}}}}",
            "allow_variables",
        ),
        (
            "exporters: {loki: {labels: {static: {x: '${env:NO_SUCH:-${env:PATH}}'}}}}",
            "allow_variables",
        ),
        (
            "exporters: {loki: {labels: {static: {x: '${HOME}'}}}}",
            "allow_variables",
        ),
        (
            "exporters: {loki: {labels: {static: {x: '${file:/etc/hostname}'}}}}",
            "allow_read",
        ),
        (
            "extensions: {opamp: {capabilities: {accepts_remote_config: false}}}",
            "extensions::opamp",
        ),
        (RUNS, "runs "),
        ("extensions: null", "opamp"),
        (
            "extensions: {opamp/other: {}}\nservice: {extensions: [opamp/other]}",
            "opamp",
        ),
        ("service: null", "pipeline"),
        ("service: {admin: {socket: /tmp/x}}", "service::admin"),
        ("service: {sandbox: {read: [/]}}", "service::sandbox"),
        ("service: {workers: 3}", "service::workers"),
        (
            "service: {telemetry: {logs: {output_paths: [DIR/more/log]}}}",
            "allow_write",
        ),
    ] {
        let refused = stand.lay(&[text]).expect_err(text);
        assert!(refused.contains(said), "{text}: {refused}");
    }
    let without = "extensions: {opamp: null}\nservice: {extensions: [file_storage], \
                   pipelines: {logs: {receivers: [file_log], exporters: [loki]}}}";
    let refused = stand.lay(&["service: null", without]).unwrap_err();
    assert!(refused.contains("opamp"), "{refused}");
}

#[test]
fn what_is_local_or_allowed_is_taken() {
    let stand = Stand::new(
        "{allow_read: [MORE], allow_write: [MORE], allow_endpoints: ['*.loki.example:*'], \
         allow_variables: [HOME]}",
    );
    for text in [
        "receivers: {file_log: {include: ['DIR/logs/sub/*.log', 'DIR/more/*/*.log']}}",
        "exporters: {loki: {endpoint: 'http://LOKI.example:3100/other'}}",
        "exporters: {loki: {endpoint: 'https://a.b.loki.example/x'}}",
        "exporters: {loki: {dead_letter_file: 'DIR/more/x'}}",
        "exporters: {loki: {labels: {static: {x: '${env:HOME} $${env:PATH}'}}}}",
        "service: {extensions: [file_storage]}",
    ] {
        stand.lay(&[text]).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
    let file = stand.dir.join("more/text");
    fs::write(&file, "${env:PATH}").unwrap();
    let within = "exporters: {loki: {labels: {static: {x: '${file:DIR/more/text}'}}}}";
    assert!(
        stand
            .lay(&[within])
            .unwrap_err()
            .contains("allow_variables"),
        "in a file"
    );
    fs::write(&file, "plain").unwrap();
    assert!(stand.lay(&[within]).unwrap().contains("x: plain"));
    let through = "receivers: {file_log: {include: ['DIR/more/out/*.conf']}}";
    assert!(
        stand.lay(&[through]).unwrap_err().contains("allow_read"),
        "by a link"
    );
    // What may be written is not to be run.
    let refused = stand.lay(&[RUNS]).unwrap_err();
    assert!(refused.contains("runs "), "{refused}");
}

#[test]
fn a_configuration_that_takes_no_layer_is_as_it_is_without() {
    let mut local = LOCAL
        .replace("LOGS", "/var/log")
        .replace("STATE", "/var/lib/x");
    local = local
        .replace("RULES", "{}")
        .replace("accepts_remote_config: true", "");
    let offer = Offer {
        sources: vec![Source::Yaml(local)],
        layer: Some(Arc::new(Layer {
            files: vec![("a".into(), "nonsense: 1".into())],
        })),
        ..Offer::default()
    };
    let checked = check_offer(&offer, &Reading::of(&offer)).map_err(|e| e.to_string());
    assert_eq!(checked.map(|c| c.offer.layer).unwrap(), None);
}

#[test]
fn rules_for_servers_name_hosts_and_ports() {
    let rules = Rules {
        servers: ["a.example:1", "*.b.example:*", "[::1]:2"]
            .map(str::to_owned)
            .to_vec(),
        ..Rules::default()
    };
    for good in [
        "a.example:1",
        "A.EXAMPLE:1",
        "x.b.example:9",
        "x.y.b.example:1",
        "[::1]:2",
    ] {
        assert!(rules.allows_server(good), "{good}");
    }
    for bad in [
        "a.example:2",
        "b.example:9",
        "xb.example:1",
        "[::1]:3",
        "unix:/a",
        "a.example",
    ] {
        assert!(!rules.allows_server(bad), "{bad}");
    }
}
