//! Kind `operators`: a chain of operators, records in one by one, records out.

use std::time::Duration;

use serde_json::Value as Json;
use tailwater_config::{KeyPath, MemoryEnvironment};
use tailwater_receivers::operators::conformance::{marks_behind_router, run_entries};
use tailwater_receivers::operators::{BuildCx, Chain, is_supported};

use crate::case::{Case, Verdict};
use crate::records;

/// 2026-03-10T00:00:00Z; only layouts without a year look at the present.
const NOW_SECONDS: i64 = 1_773_100_800;

/// Runs the case.
pub fn run(case: &Case) -> Verdict {
    let now = jiff::Timestamp::constant(NOW_SECONDS, 0);
    let vector = records::write_now(&case.json, now);
    let operators = vector["config"]["operators"].as_array();
    let types = operators
        .into_iter()
        .flatten()
        .filter_map(|o| o["type"].as_str());
    let missing: Vec<&str> = types.filter(|t| !is_supported(t)).collect();
    if !missing.is_empty() {
        return Verdict::NotRun(format!("needs the operator {}", missing.join(", ")));
    }
    compare(&vector).into()
}

fn compare(vector: &Json) -> Result<(), String> {
    // JSON is YAML.
    let mut operators = vector["config"]["operators"].to_string();
    let outputs = router_outputs(&vector["config"]["operators"]);
    if vector["expect"].get("routed").is_some() {
        operators.truncate(operators.len() - 1);
        operators += &marks_behind_router(&outputs);
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
    let input = records::entries(&vector["input"]["entries"]);
    let now_ns = NOW_SECONDS * 1_000_000_000;
    let (got, report) = run_entries(&mut chain, &input, now_ns, passes(&expect["when"]));
    if (stage == Some("process")) == report.errors.is_empty() {
        return Err(format!("errors: {:?}", report.errors));
    }
    let dropped = report.filtered_total() + report.dropped;
    if expect["dropped"]
        .as_u64()
        .is_some_and(|want| want != dropped)
    {
        return Err(format!(
            "{dropped} dropped instead of {}",
            expect["dropped"]
        ));
    }
    if let Some(routed) = expect["routed"].as_object() {
        return compare_routed(got, routed);
    }
    if expect.get("entries").is_none() {
        return Ok(());
    }
    let fields = expect["compare"].as_array();
    let keep = |entries: Vec<_>| -> Result<Vec<_>, String> {
        entries
            .into_iter()
            .map(|e| records::only(e, fields))
            .collect()
    };
    let (got, want) = (keep(got)?, keep(records::entries(&expect["entries"]))?);
    let same = match expect["order"].as_str() {
        Some("any") => got.len() == want.len() && want.iter().all(|w| got.contains(w)),
        _ => got == want,
    };
    same.then_some(())
        .ok_or_else(|| format!("got {got:?}\n         want {want:?}"))
}

/// How long a vector waits for what comes by the clock: nothing for `immediately`.
fn passes(when: &Json) -> Duration {
    let text = when.as_str().and_then(|w| w.strip_prefix("within:"));
    let span = text.and_then(|t| t.parse::<jiff::SignedDuration>().ok());
    span.map_or(Duration::ZERO, |d| d.unsigned_abs())
}

/// The ids that the routes of routers lead to, each once.
fn router_outputs(operators: &Json) -> Vec<&str> {
    let mut ids = Vec::new();
    for operator in operators.as_array().into_iter().flatten() {
        let routes = operator["routes"].as_array().into_iter().flatten();
        let lists = routes.map(|r| &r["output"]).chain([&operator["default"]]);
        for names in lists {
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
fn compare_routed(
    got: Vec<tailwater_pdata::Entry>,
    want: &serde_json::Map<String, Json>,
) -> Result<(), String> {
    let count: usize = want
        .values()
        .map(|v| v.as_array().map_or(0, Vec::len))
        .sum();
    if got.len() != count {
        return Err(format!("{} records instead of {count}: {got:?}", got.len()));
    }
    for (id, wanted) in want {
        let by = |e: &tailwater_pdata::Entry| e.resource.get("routed") == Some(&id.as_str().into());
        let mut came: Vec<_> = got.iter().filter(|e| by(e)).cloned().collect();
        came.iter_mut()
            .for_each(|e| drop(e.resource.remove("routed")));
        let wanted = records::entries(wanted);
        if came != wanted {
            return Err(format!("by {id} {came:?}\n         want {wanted:?}"));
        }
    }
    Ok(())
}
