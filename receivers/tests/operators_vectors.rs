//! Runs the test vectors of kind `operators`: facts about the collector's operators, restated as
//! settings, records in and records out (see `source` in each file).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value as Json;
use tailwater_config::{KeyPath, MemoryEnvironment};
use tailwater_pdata::{Entry, Value};
use tailwater_receivers::operators::conformance::{marks_behind_router, run_entries};
use tailwater_receivers::operators::{BuildCx, Chain, is_supported};

/// 2026-03-10T00:00:00Z; only layouts without a year look at it.
const NOW_NS: i64 = 1_773_100_800_000_000_000;

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match n.as_i64() {
            Some(i) => Value::Int(i),
            None => Value::Double(n.as_f64().expect("a finite number")),
        },
        Json::String(s) => Value::str(s),
        Json::Array(a) => Value::List(a.iter().map(value).collect()),
        Json::Object(o) => Value::Map(o.iter().map(|(k, v)| (k.as_str(), value(v))).collect()),
    }
}

fn bytes<const N: usize>(json: &Json) -> [u8; N] {
    let text = json.as_str().unwrap_or_default();
    let mut out = [0; N];
    for (i, byte) in out.iter_mut().enumerate() {
        if let Some(pair) = text.get(2 * i..2 * i + 2) {
            *byte = u8::from_str_radix(pair, 16).expect("hexadecimal");
        }
    }
    out
}

fn entry(json: &Json) -> Entry {
    let map = |key: &str| match json.get(key).map(value) {
        Some(Value::Map(m)) => m,
        _ => Default::default(),
    };
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    let time = json.get("timestamp").and_then(Json::as_str).map_or(0, |t| {
        let time: jiff::Timestamp = t.parse().expect("an RFC 3339 time");
        i64::try_from(time.as_nanosecond()).expect("in range")
    });
    Entry {
        time,
        severity: json["severity_number"].as_u64().unwrap_or(0) as u8,
        severity_text: text("severity_text"),
        body: json.get("body").map(value).unwrap_or_default(),
        attributes: map("attributes"),
        resource: map("resource"),
        scope_name: text("scope_name"),
        trace_id: bytes(&json["trace_id"]),
        span_id: bytes(&json["span_id"]),
        flags: u32::from(bytes::<1>(&json["trace_flags"])[0]),
        ..Entry::default()
    }
}

/// Keeps the fields a vector compares.
fn compared(e: Entry, fields: Option<&Vec<Json>>) -> Entry {
    let Some(fields) = fields else { return e };
    let mut out = Entry::default();
    for field in fields {
        match field.as_str() {
            Some("timestamp") => out.time = e.time,
            Some("body") => out.body = e.body.clone(),
            Some("attributes") => out.attributes = e.attributes.clone(),
            Some("resource") => out.resource = e.resource.clone(),
            other => panic!("this runner cannot compare {other:?} alone"),
        }
    }
    out
}

fn entries(json: &Json) -> Vec<Entry> {
    json.as_array()
        .map(|a| a.iter().map(entry).collect())
        .unwrap_or_default()
}

/// What the vector says against what we do; `Err` says how they differ.
fn run(vector: &Json) -> Result<(), String> {
    // JSON is YAML.
    let mut operators = vector["config"]["operators"].to_string();
    let routed = vector["expect"]["routed"].as_object();
    if routed.is_some() {
        let ids = router_outputs(&vector["config"]["operators"]);
        operators.truncate(operators.len() - 1);
        operators += &marks_behind_router(&ids);
        operators.push(']');
    }
    let operators = tailwater_config::parse(&operators, "vector").map_err(|e| e.to_string())?;
    let nodes = operators.as_list().ok_or("no list of operators")?;
    let mut environment = MemoryEnvironment::new();
    for (name, value) in vector["env"].as_object().into_iter().flatten() {
        environment = environment.with_variable(name, value.as_str().unwrap_or_default());
    }
    let cx = BuildCx {
        path: KeyPath::from("operators"),
        environment: &environment,
    };
    let expect = &vector["expect"];
    let stage = expect["error"]["stage"].as_str();
    let mut chain = match (Chain::build(nodes, &cx), stage) {
        (Err(_), Some("build")) => return Ok(()),
        (Ok(_), Some("build")) => return Err("it was built".to_owned()),
        (Err(e), _) => return Err(format!("not built: {e}")),
        (Ok(chain), _) => chain,
    };
    let input = entries(&vector["input"]["entries"]);
    let when = expect["when"]
        .as_str()
        .and_then(|w| w.strip_prefix("within:"));
    let after = when.map_or(Duration::ZERO, |w| {
        let span: jiff::SignedDuration = w.parse().expect("a time in a vector");
        span.unsigned_abs()
    });
    let (got, report) = run_entries(&mut chain, &input, NOW_NS, after);
    if (stage == Some("process")) == report.errors.is_empty() {
        return Err(format!("errors: {:?}", report.errors));
    }
    let dropped = report.filtered_total() + report.dropped;
    if let Some(want) = expect["dropped"].as_u64()
        && want != dropped
    {
        return Err(format!("{dropped} dropped instead of {want}"));
    }
    if let Some(routed) = routed {
        return compare_routed(&got, routed);
    }
    if expect.get("entries").is_none() {
        return Ok(());
    }
    let fields = expect["compare"].as_array();
    let keep = |e: Vec<Entry>| {
        e.into_iter()
            .map(|e| compared(e, fields))
            .collect::<Vec<_>>()
    };
    let (got, want) = (keep(got), keep(entries(&expect["entries"])));
    let same = match expect["order"].as_str() {
        Some("any") => got.len() == want.len() && want.iter().all(|w| got.iter().any(|g| g == w)),
        _ => got == want,
    };
    if same {
        Ok(())
    } else {
        Err(format!("\n got {got:#?}\nwant {want:#?}"))
    }
}

/// The ids that the routes of routers lead to, each once.
fn router_outputs(operators: &Json) -> Vec<&str> {
    let mut ids = Vec::new();
    for operator in operators.as_array().into_iter().flatten() {
        let routes = operator["routes"].as_array().into_iter().flatten();
        for names in routes.map(|r| &r["output"]).chain([&operator["default"]]) {
            ids.extend(names.as_str());
            ids.extend(
                names
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Json::as_str),
            );
        }
    }
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Compares what came by each output of a router.
fn compare_routed(got: &[Entry], want: &serde_json::Map<String, Json>) -> Result<(), String> {
    let count: usize = want.values().map(|v| entries(v).len()).sum();
    if got.len() != count {
        return Err(format!("{} records instead of {count}: {got:?}", got.len()));
    }
    for (id, wanted) in want {
        let by = |e: &&Entry| e.resource.get("routed") == Some(&id.as_str().into());
        let mut came: Vec<Entry> = got.iter().filter(by).cloned().collect();
        came.iter_mut()
            .for_each(|e| drop(e.resource.remove("routed")));
        if came != entries(wanted) {
            return Err(format!("by {id} {came:#?}"));
        }
    }
    Ok(())
}

/// Writes times out that a vector has as `${NOW:...}`.
fn with_now(text: &str) -> String {
    let now = jiff::Timestamp::from_nanosecond(NOW_NS.into()).expect("in range");
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once("${NOW:") {
        let (form, after) = from.split_once('}').expect("closed");
        out += before;
        out += &now.strftime(form).to_string();
        rest = after;
    }
    out + rest
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for item in std::fs::read_dir(folder).expect("the folder of vectors") {
        let path = item.expect("an entry").path();
        if path.is_dir() {
            out.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "json") {
            out.push(path);
        }
    }
    out.sort();
    out
}

/// Guarantees that the operators do what the collector's do in every case a vector states.
#[test]
fn operators_conform_to_the_vectors() {
    let (mut run_count, mut failed) = (0, Vec::new());
    for path in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")) {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let vector: Json = serde_json::from_str(&with_now(&text)).expect("a vector is JSON");
        if vector["kind"] != "operators" {
            continue;
        }
        let name = vector["id"].as_str().expect("a vector has an id");
        let types = vector["config"]["operators"]
            .as_array()
            .expect("a list of operators");
        let types: Vec<&str> = types.iter().filter_map(|o| o["type"].as_str()).collect();
        assert!(types.iter().all(|t| is_supported(t)), "{name}: {types:?}");
        run_count += 1;
        if let Err(e) = run(&vector) {
            failed.push(format!("{name}: {e}"));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {run_count} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(run_count >= 45, "only {run_count} vectors were run");
}
