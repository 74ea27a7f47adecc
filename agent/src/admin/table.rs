//! The table of endpoints.

use hyper::Method;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// The report of health.
    Health,
    /// What this build has.
    Components,
    /// The configuration in force.
    Config,
    /// Another configuration.
    Change,
    /// What another configuration would change.
    Plan,
    /// The generations that are kept.
    Generations,
    /// The configuration of one of them.
    Generation,
    /// Back to one of them.
    Apply,
    /// What the command line names, read again.
    Reload,
    /// The nodes and how they are connected.
    Graph,
    /// The files that are read.
    Files,
    /// An archive for the report of a bug.
    Diagnostics,
    /// What passes an edge.
    Tap,
    /// The description of this API.
    OpenApi,
}

/// A method and a path; `{n}` stands for a number.
pub type Route = (Method, &'static str, Endpoint);

/// All of them.
pub const ROUTES: [Route; 14] = [
    (Method::GET, "/v1/health", Endpoint::Health),
    (Method::GET, "/v1/components", Endpoint::Components),
    (Method::GET, "/v1/config", Endpoint::Config),
    (Method::PUT, "/v1/config", Endpoint::Change),
    (Method::POST, "/v1/plan", Endpoint::Plan),
    (Method::GET, "/v1/generations", Endpoint::Generations),
    (Method::GET, "/v1/generations/{n}", Endpoint::Generation),
    (Method::POST, "/v1/generations/{n}/apply", Endpoint::Apply),
    (Method::POST, "/v1/reload", Endpoint::Reload),
    (Method::GET, "/v1/graph", Endpoint::Graph),
    (Method::GET, "/v1/files", Endpoint::Files),
    (Method::GET, "/v1/diagnostics", Endpoint::Diagnostics),
    (Method::GET, "/v1/tap", Endpoint::Tap),
    (Method::GET, "/v1/openapi.json", Endpoint::OpenApi),
];

/// Why there is nothing.
#[derive(PartialEq, Eq, Debug)]
pub enum Miss {
    /// No such path.
    Path,
    /// The path has these methods.
    Method(Vec<Method>),
}

/// The endpoint of a request, and the number in its path if there is one.
///
/// # Errors
/// There is none.
pub fn find(method: &Method, path: &str) -> Result<(Endpoint, u64), Miss> {
    let method = match *method {
        Method::HEAD => &Method::GET,
        _ => method,
    };
    let mut allowed = Vec::new();
    for (wanted, pattern, endpoint) in &ROUTES {
        match matches(pattern, path) {
            Some(number) if wanted == method => return Ok((*endpoint, number)),
            Some(_) => allowed.push(wanted.clone()),
            None => {}
        }
    }
    Err(match allowed.is_empty() {
        true => Miss::Path,
        false => Miss::Method(allowed),
    })
}

fn matches(pattern: &str, path: &str) -> Option<u64> {
    let Some((before, after)) = pattern.split_once("{n}") else {
        return (pattern == path).then_some(0);
    };
    let number = path.strip_prefix(before)?.strip_suffix(after)?;
    number
        .parse()
        .ok()
        .filter(|_| number.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn paths_and_methods_lead_to_their_endpoint() {
        let get = |path| find(&Method::GET, path);
        assert_eq!(get("/v1/config"), Ok((Endpoint::Config, 0)));
        assert_eq!(find(&Method::HEAD, "/v1/graph"), Ok((Endpoint::Graph, 0)));
        let apply = find(&Method::POST, "/v1/generations/12/apply");
        assert_eq!(apply, Ok((Endpoint::Apply, 12)));
        assert_eq!(get("/v1/generations/7"), Ok((Endpoint::Generation, 7)));
        for path in [
            "/",
            "/v1/config/",
            "/v1/generations/x/apply",
            "/v1/generations/",
            "/v1/generations/7/",
            "/v1/generations/+1/apply",
        ] {
            assert_eq!(get(path), Err(Miss::Path), "{path}");
        }
        let allowed = vec![Method::GET, Method::PUT];
        assert_eq!(
            find(&Method::POST, "/v1/config"),
            Err(Miss::Method(allowed))
        );
    }

    /// Guarantee: the description lists what there is, and nothing else; everything it refers to is in it.
    #[test]
    fn the_description_has_exactly_these_paths() {
        let text = crate::admin::handlers::OPENAPI;
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(value["openapi"], "3.1.0");
        let mut described = BTreeSet::new();
        for (path, item) in value["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                described.insert(format!("{} {path}", method.to_uppercase()));
                assert!(
                    operation["responses"]
                        .as_object()
                        .is_some_and(|r| !r.is_empty())
                );
                assert!(operation["operationId"].is_string() && operation["summary"].is_string());
            }
        }
        let there = ROUTES
            .iter()
            .map(|(method, path, _)| format!("{method} {path}"));
        assert_eq!(described, there.collect());
        for reference in text.split("\"$ref\": \"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(value.pointer(pointer).is_some(), "{pointer}");
        }
        assert!(text.contains("$ref"));
    }
}
