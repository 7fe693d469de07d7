//! How many processes the kernel has killed in a container for want of memory. Where a pod's containers do not see each
//! other's control groups, the shim alone can tell.

use std::fs;

/// Where a container sees the counters of its own control group: of version 2, of version 1.
const COUNTERS: [&str; 2] = [
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
];

/// How many in this container; 0 where it cannot see.
pub(super) fn kills() -> u64 {
    COUNTERS
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .map_or(0, |text| kills_in(&text))
}

/// How many by the text of such a counter.
pub(crate) fn kills_in(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_in_both_versions_and_nothing_else_is() {
        let second = "low 0\nhigh 5\nmax 17\noom 4\noom_kill 3\noom_group_kill 1\n";
        assert_eq!(kills_in(second), 3);
        let first = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
        assert_eq!(kills_in(first), 2);
        assert_eq!(kills_in("oom_kill_disable 1\n"), 0);
    }
}
