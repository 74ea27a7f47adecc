//! How many files a receiver has open.

/// Descriptors that are left to the rest of the process: sockets, the store of positions, the log.
const DESCRIPTORS_RESERVED: usize = 40;

/// So many files may be open: what is configured, but never more than half of what the process may
/// open, and what the process needs for itself is left to it. When they are used up, further files
/// wait until some are read and delivered; only generations that rotation may take away at any
/// moment do not. Each of `lanes` has an equal part of it, and at least one.
pub fn within_limits(configured: usize, lanes: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    (within(configured, limit.current) / lanes.max(1)).max(1)
}

fn within(configured: usize, limit: Option<u64>) -> usize {
    let limit = limit
        .and_then(|l| usize::try_from(l).ok())
        .unwrap_or(usize::MAX);
    let room = limit.saturating_sub(DESCRIPTORS_RESERVED).max(1);
    configured.min(limit / 2).clamp(1, room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_leave_room_for_everything_else() {
        assert_eq!(within(1024, None), 1024);
        assert_eq!(within(1024, Some(524_288)), 1024);
        assert_eq!(within(1024, Some(1024)), 512);
        assert_eq!(within(1024, Some(64)), 24);
        assert_eq!(within(5, Some(1024)), 5);
        assert_eq!(
            within(1024, Some(10)),
            1,
            "nothing works, and reading least"
        );
        assert_eq!(within_limits(12, 3), within_limits(12, 1) / 3);
        assert_eq!(within_limits(1, 3), 1, "each lane has one");
    }
}
