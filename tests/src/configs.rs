//! Configurations that several tests start from.

/// A correct one with a receiver, an operator, a processor and an exporter, to be spoilt or extended.
pub const GOOD: &str = r#"receivers:
  filelog:
    include: [/var/log/app/*.log]
    start_at: beginning
    poll_interval: 200ms
    operators:
      - type: regex_parser
        regex: '^(?P<time>\S+) (?P<level>\S+) '
        severity: {parse_from: attributes.level}
processors:
  batch:
    timeout: 1s
exporters:
  loki:
    endpoint: http://127.0.0.1:3100/loki/api/v1/push
    headers:
      Authorization: Bearer hunter2
    labels:
      static: {job: app}
service:
  pipelines:
    logs:
      receivers: [filelog]
      processors: [batch]
      exporters: [loki]
"#;
