//! What is wanted, how it is found, compared and written.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::{Change, Wanted};

/// The uid of the folder.
pub const FOLDER_UID: &str = "tailwater";
/// The uid of the data source for Loki.
pub const LOKI_UID: &str = "tailwater-loki";
/// The uid of the data source for Prometheus.
pub const PROMETHEUS_UID: &str = "tailwater-prometheus";

/// The dashboards of this version.
pub const DASHBOARDS: [&str; 2] = [
    include_str!("../../../../deploy/grafana/agent.json"),
    include_str!("../../../../deploy/grafana/control-plane.json"),
];

/// Names that differ in a list of changes at most.
const NAMED_MAX: usize = 8;

/// One of them. The value is what is wanted of it.
pub(super) enum Object {
    DataSource(Value),
    Folder(Value),
    Dashboard(Value),
}

/// All that is wanted, in the order in which one needs the other.
pub(super) fn of(wanted: &Wanted) -> Vec<Object> {
    let source = |kind: &str, uid: &str, name: &str, url: &Option<String>| {
        let url = url.as_ref()?;
        Some(Object::DataSource(json!({
            "uid": uid, "name": name, "type": kind, "access": "proxy", "url": url,
        })))
    };
    let loki = source("loki", LOKI_UID, "Tailwater: Loki", &wanted.loki);
    let prometheus = source(
        "prometheus",
        PROMETHEUS_UID,
        "Tailwater: Prometheus",
        &wanted.prometheus,
    );
    let mut all: Vec<Object> = loki.into_iter().chain(prometheus).collect();
    all.push(Object::Folder(
        json!({"uid": FOLDER_UID, "title": wanted.folder}),
    ));
    // They are part of the program, and a test reads them.
    let dashboards = DASHBOARDS
        .iter()
        .filter_map(|text| serde_json::from_str(text).ok());
    all.extend(dashboards.map(Object::Dashboard));
    all
}

impl Object {
    fn wanted(&self) -> &Value {
        match self {
            Object::DataSource(value) | Object::Folder(value) | Object::Dashboard(value) => value,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Object::DataSource(_) => "data source",
            Object::Folder(_) => "folder",
            Object::Dashboard(_) => "dashboard",
        }
    }

    pub(super) fn uid(&self) -> &str {
        self.wanted()["uid"].as_str().unwrap_or_default()
    }

    pub(super) fn name(&self) -> &str {
        let key = match self {
            Object::DataSource(_) => "name",
            Object::Folder(_) | Object::Dashboard(_) => "title",
        };
        self.wanted()[key].as_str().unwrap_or_default()
    }

    /// Where it is looked at.
    pub(super) fn path(&self) -> String {
        let below = match self {
            Object::DataSource(_) => "/api/datasources/uid",
            Object::Folder(_) => "/api/folders",
            Object::Dashboard(_) => "/api/dashboards/uid",
        };
        format!("{below}/{}", self.uid())
    }

    /// What there is to do; an error if what is there cannot become what is wanted.
    pub(super) fn compare(&self, there: Option<&Value>) -> Result<Change, String> {
        let Some(there) = there else {
            return Ok(Change::Create);
        };
        let own = match self {
            Object::Dashboard(_) => &there["dashboard"],
            Object::DataSource(_) | Object::Folder(_) => there,
        };
        let mut differ = Vec::new();
        for (key, value) in self.wanted().as_object().into_iter().flatten() {
            // Grafana counts these itself.
            if !matches!(key.as_str(), "id" | "version") {
                differences(key, value, &own[key], &mut differ);
            }
        }
        if differ.is_empty() {
            return Ok(Change::Unchanged);
        }
        let differ = shortened(differ);
        let what = differ.join(", ");
        match self {
            Object::DataSource(wanted) if there["type"] != wanted["type"] => Err(format!(
                "there is a data source of type {} under the uid {:?}: remove it, or give it another uid",
                there["type"],
                self.uid()
            )),
            Object::DataSource(_) if there["readOnly"] == true => Err(format!(
                "it is provisioned by a file of Grafana, which alone can change it (it differs in {what})"
            )),
            Object::Dashboard(_) if there["meta"]["provisioned"] == true => Err(format!(
                "it is provisioned by a file of Grafana, which alone can change it (it differs in {what})"
            )),
            _ => Ok(Change::Update(differ)),
        }
    }

    /// What makes it, or changes it. The version of what is there goes along, so that nothing newer is written over.
    pub(super) fn request(&self, there: Option<&Value>) -> (Method, String, Value) {
        match (self, there) {
            (Object::DataSource(wanted), None) => {
                (Method::POST, "/api/datasources".to_owned(), wanted.clone())
            }
            (Object::DataSource(wanted), Some(there)) => {
                (Method::PUT, self.path(), laid_over(there, wanted))
            }
            (Object::Folder(wanted), None) => {
                (Method::POST, "/api/folders".to_owned(), wanted.clone())
            }
            (Object::Folder(wanted), Some(there)) => {
                let body = json!({"title": wanted["title"], "version": there["version"]});
                (Method::PUT, self.path(), body)
            }
            (Object::Dashboard(wanted), there) => {
                let mut dashboard = wanted.clone();
                let own = there.map(|t| &t["dashboard"]);
                dashboard["id"] = own.map_or(Value::Null, |d| d["id"].clone());
                dashboard["version"] = own.map_or(json!(0), |d| d["version"].clone());
                // Whoever moved it elsewhere wants it there.
                let folder = match there {
                    Some(there) => there["meta"]["folderUid"].clone(),
                    None => json!(FOLDER_UID),
                };
                let body = json!({
                    "dashboard": dashboard,
                    "folderUid": folder,
                    "message": concat!("tailwater-control ", env!("CARGO_PKG_VERSION")),
                    "overwrite": false,
                });
                (Method::POST, "/api/dashboards/db".to_owned(), body)
            }
        }
    }
}

/// What is there, with what is wanted in its place. What only answers have is left out.
fn laid_over(there: &Value, wanted: &Value) -> Value {
    const OF_ANSWERS: [&str; 5] = [
        "readOnly",
        "secureJsonFields",
        "typeLogoUrl",
        "accessControl",
        "apiVersion",
    ];
    let mut body: Map<String, Value> = there.as_object().cloned().unwrap_or_default();
    body.retain(|key, _| !OF_ANSWERS.contains(&key.as_str()));
    for (key, value) in wanted.as_object().into_iter().flatten() {
        body.insert(key.clone(), value.clone());
    }
    Value::Object(body)
}

/// Where what is wanted is not what is there. Grafana adds things of its own to objects: these are no difference.
fn differences(path: &str, wanted: &Value, there: &Value, out: &mut Vec<String>) {
    match (wanted, there) {
        (Value::Object(map), Value::Object(_)) => {
            for (key, value) in map {
                differences(&format!("{path}.{key}"), value, &there[key], out);
            }
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            for (n, (item, other)) in items.iter().zip(others).enumerate() {
                differences(&format!("{path}[{n}]"), item, other, out);
            }
        }
        (wanted, there) if same(wanted, there) => {}
        _ => out.push(path.to_owned()),
    }
}

/// Numbers are the same in any spelling.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn shortened(mut differ: Vec<String>) -> Vec<String> {
    if differ.len() > NAMED_MAX {
        let more = differ.len() - NAMED_MAX;
        differ.truncate(NAMED_MAX);
        differ.push(format!("{more} more"));
    }
    differ
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashboards_are_what_they_are_known_by() {
        let all = of(&Wanted {
            folder: "F".into(),
            loki: None,
            prometheus: None,
        });
        assert_eq!(all.len(), 1 + DASHBOARDS.len());
        for object in &all {
            assert!(!object.uid().is_empty() && object.uid().len() <= 40);
            assert!(!object.name().is_empty());
        }
    }

    /// Guarantee: what Grafana or somebody else adds is no difference, what is missing or another is one, by its path.
    #[test]
    fn differences_are_of_what_is_wanted() {
        let wanted = json!({"a": {"b": [1, {"c": 2}]}, "d": "x"});
        for (there, expected) in [
            (json!({"a": {"b": [1.0, {"c": 2, "own": 1}]}, "d": "x"}), ""),
            (json!({"a": {"b": [1, {"c": 3}]}, "d": "x"}), ".a.b[1].c"),
            (json!({"a": {"b": [1]}, "d": "y"}), ".a.b .d"),
            (json!({}), ".a .d"),
        ] {
            let mut out = Vec::new();
            differences("", &wanted, &there, &mut out);
            assert_eq!(out.join(" "), expected, "{there}");
        }
    }
}
