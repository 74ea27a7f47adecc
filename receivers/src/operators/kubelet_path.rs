//! What the path of a container's log file says about the container.
//!
//! The kubelet writes `/var/log/pods/<namespace>_<pod>_<uid>/<container>/<restarts>.log`, and adds
//! `.YYYYMMDD-HHMMSS` when it rotates. Paths of Windows nodes, with backslashes, are taken as well.

use std::sync::OnceLock;

use regex::bytes::Regex;
use tailwater_pdata::Value;

/// Resource attributes of a container, in the order of [`NAMES`].
pub(super) type Metadata = [Value; 5];

/// The names of the attributes, as the semantic conventions have them.
pub(super) const NAMES: [&str; 5] = [
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.pod.uid",
    "k8s.container.name",
    "k8s.container.restart_count",
];

fn pattern() -> &'static Regex {
    static PATTERN: OnceLock<Regex> = OnceLock::new();
    const TEXT: &str = concat!(
        r"^.*[/\\]([^_]+)_([^_]+)_([a-f0-9\-]+)[/\\]([^\._]+)[/\\]",
        r"([0-9]+)\.log(?:\.[0-9]{8}-[0-9]{6})?$"
    );
    PATTERN.get_or_init(|| Regex::new(TEXT).expect("a fixed pattern that the tests compile"))
}

/// What `path` says; `None` if it is not such a path.
pub(super) fn metadata(path: &[u8]) -> Option<Metadata> {
    let found = pattern().captures(path)?;
    let (_, parts): (_, [&[u8]; 5]) = found.extract();
    Some(parts.map(|p| Value::str(String::from_utf8_lossy(p))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_kubelet_name_the_container() {
        let uid = "49cc7c1fd3702c40b2686ea7486091d3";
        let want = ["some", "kube-1", uid, "kube44", "1"].map(Value::from);
        for path in [
            format!("/var/log/pods/some_kube-1_{uid}/kube44/1.log"),
            format!("/var/log/pods/some_kube-1_{uid}/kube44/1.log.20250219-233547"),
            format!(r"C:\var\log\pods\some_kube-1_{uid}\kube44\1.log"),
        ] {
            assert_eq!(metadata(path.as_bytes()), Some(want.clone()), "{path}");
        }
        for path in [
            String::new(),
            "/var/log/syslog".to_owned(),
            format!("/var/log/pods/some_kube-1_{uid}/kube44/x.log"),
            format!("/var/log/pods/some_kube-1_{uid}/kube44/1.log.gz"),
            format!("/var/log/pods/some_kube-1_{uid}/kube.44/1.log"),
            "/var/log/pods/some_kube-1_XYZ/kube44/1.log".to_owned(),
        ] {
            assert_eq!(metadata(path.as_bytes()), None, "{path}");
        }
    }
}
