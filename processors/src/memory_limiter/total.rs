//! How much memory this process may use: the limits of its control groups, else the machine's.
//!
//! Sources: Linux' `admin-guide/cgroup-v2.rst` (memory.max), `cgroup-v1/memory.rst`
//! (memory.limit_in_bytes) and proc_meminfo(5).

use std::path::Path;

/// Version 1 says "no limit" by a number near the largest one.
const UNLIMITED_FROM: u64 = 1 << 60;

/// The memory this process may use, in bytes; `None` where the system does not say.
pub fn total_memory_bytes() -> Option<u64> {
    total_under(Path::new("/"))
}

/// As [`total_memory_bytes`], for the system whose root directory is `root`.
fn total_under(root: &Path) -> Option<u64> {
    let meminfo = std::fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let machine = parse_meminfo(&meminfo);
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = root.join("sys/fs/cgroup");
    let mut smallest = machine;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let limit = if controllers.is_empty() {
            least_on_path(&mounts, path, "memory.max")
        } else if controllers.split(',').any(|c| c == "memory") {
            least_on_path(&mounts.join("memory"), path, "memory.limit_in_bytes")
        } else {
            None
        };
        smallest = match (smallest, limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    smallest
}

/// The least limit from the group up to the root of the hierarchy. In a container the path may
/// name a directory that only exists outside; then the root is the container's own group.
fn least_on_path(mount: &Path, group: &str, file: &str) -> Option<u64> {
    let group = Path::new(group.trim_start_matches('/'));
    let limit = |directory: &Path| {
        let text = std::fs::read_to_string(mount.join(directory).join(file)).ok()?;
        text.trim()
            .parse::<u64>()
            .ok()
            .filter(|bytes| *bytes > 0 && *bytes < UNLIMITED_FROM)
    };
    group.ancestors().filter_map(limit).min()
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn system(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        total_under(root.path())
    }

    #[test]
    fn the_smallest_limit_that_applies_wins() {
        let machine = (
            "proc/meminfo",
            "MemTotal:        4194304 kB\nMemFree: 1 kB\n",
        );
        let v2 = ("proc/self/cgroup", "0::/kubepods/pod1/c1\n");
        let v1 = (
            "proc/self/cgroup",
            "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n",
        );
        for (files, want) in [
            (vec![], None),
            (vec![machine], Some(4 * GIB)),
            (
                vec![machine, v2, ("sys/fs/cgroup/memory.max", "max\n")],
                Some(4 * GIB),
            ),
            (
                vec![machine, v2, ("sys/fs/cgroup/memory.max", "1073741824\n")],
                Some(GIB),
            ),
            (
                vec![
                    machine,
                    v2,
                    ("sys/fs/cgroup/kubepods/pod1/c1/memory.max", "max\n"),
                    ("sys/fs/cgroup/kubepods/pod1/memory.max", "2147483648\n"),
                ],
                Some(2 * GIB),
            ),
            (
                vec![
                    machine,
                    v1,
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
                ],
                Some(GIB),
            ),
            (
                vec![
                    machine,
                    v1,
                    (
                        "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes",
                        "9223372036854771712\n",
                    ),
                ],
                Some(4 * GIB),
            ),
            (
                vec![v2, ("sys/fs/cgroup/memory.max", "1073741824")],
                Some(GIB),
            ),
            (
                vec![machine, ("proc/self/cgroup", "rubbish\n::\n")],
                Some(4 * GIB),
            ),
        ] {
            assert_eq!(system(&files), want, "{files:?}");
        }
    }
}
