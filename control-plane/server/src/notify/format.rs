//! Notices as others read them. Sources: the API of Alertmanager, version 2 (`api/v2/openapi.yaml`,
//! `postableAlerts`), and its documentation of webhooks (version 4 of the payload).

use serde_json::{Value, json};
use tailwater_telemetry::rfc3339_nano;

use super::outbox::Notice;

/// Alertmanager takes an alert that it is not told again for over after this, ms.
const STANDS_MS: u64 = 300_000;

fn rfc3339(ms: u64) -> String {
    rfc3339_nano(i64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000))
}

fn labels(notice: &Notice) -> Value {
    let alert = notice.about.alert;
    let severity = match alert.is_urgent() {
        true => "critical",
        false => "warning",
    };
    json!({
        "alertname": format!("tailwater_{}", alert.name()),
        "alert": alert.name(),
        "group": notice.about.group,
        "severity": severity,
        "service": "tailwater-control",
    })
}

fn annotations(notice: &Notice) -> Value {
    let group = &notice.about.group;
    let summary = format!("group {group}: {}", notice.about.alert.name());
    json!({"summary": summary, "description": notice.text})
}

/// For `POST /api/v2/alerts`.
pub(super) fn alertmanager(notices: &[Notice], now_ms: u64) -> Value {
    let one = |notice: &Notice| {
        let ends_ms = notice.over_ms.unwrap_or(now_ms + STANDS_MS);
        json!({
            "labels": labels(notice),
            "annotations": annotations(notice),
            "startsAt": rfc3339(notice.since_ms),
            "endsAt": rfc3339(ends_ms),
        })
    };
    notices.iter().map(one).collect()
}

/// For a webhook, as Alertmanager calls them.
pub(super) fn webhook(notices: &[Notice]) -> Value {
    let fires = notices.iter().any(|n| n.over_ms.is_none());
    let one = |notice: &Notice| {
        let about = &notice.about;
        let status = match notice.over_ms {
            Some(_) => "resolved",
            None => "firing",
        };
        json!({
            "status": status,
            "labels": labels(notice),
            "annotations": annotations(notice),
            "startsAt": rfc3339(notice.since_ms),
            "endsAt": notice.over_ms.map(rfc3339),
            // The same as long as it is about the same, so that who is told twice can tell.
            "fingerprint": format!("{}/{}/{}", about.group, about.alert.name(), notice.since_ms),
        })
    };
    json!({
        "version": "4",
        "receiver": "tailwater-control",
        "status": if fires { "firing" } else { "resolved" },
        "groupKey": "tailwater-control",
        "groupLabels": {},
        "commonLabels": {"service": "tailwater-control"},
        "commonAnnotations": {},
        "truncatedAlerts": 0,
        "alerts": notices.iter().map(one).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use tailwater_control_plane::rollout::command::Alert;

    use super::super::outbox::About;
    use super::*;

    #[test]
    fn both_forms_say_what_begins_and_what_is_over() {
        let notice = |alert, over_ms| Notice {
            about: About {
                group: "shop".to_owned(),
                alert,
            },
            since_ms: 1_764_532_800_123,
            text: "why".to_owned(),
            over_ms,
        };
        let notices = [
            notice(Alert::Frozen, None),
            notice(Alert::Paused, Some(1_764_532_860_000)),
        ];
        let alerts = alertmanager(&notices, 1_764_532_800_000);
        assert_eq!(alerts[0]["labels"]["alertname"], "tailwater_frozen");
        assert_eq!(alerts[0]["labels"]["severity"], "critical");
        assert_eq!(alerts[0]["startsAt"], "2025-11-30T20:00:00.123Z");
        assert_eq!(alerts[0]["endsAt"], "2025-11-30T20:05:00Z");
        assert_eq!(alerts[1]["labels"]["severity"], "warning");
        assert_eq!(alerts[1]["endsAt"], "2025-11-30T20:01:00Z");
        let hook = webhook(&notices);
        assert_eq!(hook["status"], "firing");
        assert_eq!(hook["alerts"][1]["status"], "resolved");
        assert!(hook["alerts"][0]["endsAt"].is_null());
        assert_eq!(webhook(&notices[1..])["status"], "resolved");
    }
}
