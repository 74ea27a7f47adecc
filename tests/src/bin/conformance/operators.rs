//! Kind `operators`: a chain of operators, records in one by one, records out.

use serde_json::Value as Json;
use tailwater_config::{KeyPath, MemoryEnvironment};
use tailwater_receivers::operators::conformance::run_entries;
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
    if vector["expect"].get("routed").is_some() {
        return Verdict::NotRun("needs records told apart by a router's output".to_owned());
    }
    compare(&vector).into()
}

fn compare(vector: &Json) -> Result<(), String> {
    // JSON is YAML.
    let operators = vector["config"]["operators"].to_string();
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
    let (got, report) = run_entries(&mut chain, &input, NOW_SECONDS * 1_000_000_000);
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
