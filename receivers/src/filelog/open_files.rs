//! How many files a receiver has open.

/// Descriptors that are left to the rest of the process: sockets, the store of positions, the log.
const DESCRIPTORS_RESERVED: usize = 40;

/// How many files may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// So many stay open when they are at rest.
    pub budget: usize,
    /// So many are not exceeded while files wait for their delivery and cannot be closed.
    pub most: usize,
}

impl OpenFiles {
    /// What is configured, but never more than half of what the process may open; half as much
    /// again at most. What the process needs for itself is left to it.
    fn of(configured: usize, limit: Option<u64>) -> OpenFiles {
        let limit = limit
            .and_then(|l| usize::try_from(l).ok())
            .unwrap_or(usize::MAX);
        let room = limit.saturating_sub(DESCRIPTORS_RESERVED).max(1);
        let budget = configured.min(limit / 2).clamp(1, room);
        let most = budget.saturating_add(budget / 2).min(room);
        OpenFiles { budget, most }
    }

    /// An equal part of it for each of `n`, at least one file.
    pub fn part(self, n: usize) -> OpenFiles {
        OpenFiles {
            budget: (self.budget / n).max(1),
            most: (self.most / n).max(1),
        }
    }

    /// As [`OpenFiles::of`], with the limit of this process.
    pub fn within_limits(configured: usize) -> OpenFiles {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        OpenFiles::of(configured, limit.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_leave_room_for_everything_else() {
        let of = |configured, limit| {
            let open = OpenFiles::of(configured, limit);
            (open.budget, open.most)
        };
        assert_eq!(of(1024, None), (1024, 1536));
        assert_eq!(of(1024, Some(524_288)), (1024, 1536));
        assert_eq!(of(1024, Some(1024)), (512, 768));
        assert_eq!(of(1024, Some(64)), (24, 24));
        assert_eq!(of(5, Some(1024)), (5, 7));
        assert_eq!(
            of(1024, Some(10)),
            (1, 1),
            "nothing works, and reading least"
        );
        let part = OpenFiles::of(1024, None).part(3);
        assert_eq!((part.budget, part.most), (341, 512));
    }
}
