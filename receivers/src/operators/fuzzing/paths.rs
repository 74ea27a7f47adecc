//! Paths of container logs.

use crate::operators::kubelet_path::metadata;

/// What a path says about its container: parts of the path, in their order.
pub fn container_paths(path: &[u8]) {
    let Some(parts) = metadata(path) else { return };
    let path = String::from_utf8_lossy(path);
    let mut rest = &*path;
    for part in parts {
        let part = part.as_ref().to_display_string();
        assert!(!part.is_empty(), "{path}");
        let at = rest.find(&*part).expect("a part of the path");
        rest = &rest[at + part.len()..];
    }
}
