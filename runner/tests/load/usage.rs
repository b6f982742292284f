//! What a process uses, as the kernel tells it.

use std::fs;

use crate::ALLOCATOR;

/// At one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Resident memory, in KiB.
    pub(crate) resident: u64,
    /// The part of it that is no file: heap and stacks.
    pub(crate) anonymous: u64,
    /// The most that was ever resident.
    pub(crate) peak: u64,
    pub(crate) threads: u64,
    pub(crate) descriptors: u64,
}

impl Usage {
    /// Of the process with this id, or of this one: `"self"`.
    pub(crate) fn of(process: &str) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it is there");
        let field = |name: &str| {
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.and_then(|line| line.split_whitespace().next());
            number
                .and_then(|number| number.parse().ok())
                .expect("the kernel tells")
        };
        let descriptors = fs::read_dir(format!("/proc/{process}/fd"));
        Self {
            resident: field("VmRSS"),
            anonymous: field("RssAnon"),
            peak: field("VmHWM"),
            threads: field("Threads"),
            descriptors: descriptors.expect("it is there").count() as u64,
        }
    }
}

/// The middle one of what `read` finds.
pub(crate) fn median<T>(samples: &[T], read: impl Fn(&T) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(read).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// The largest of what `read` finds.
pub(crate) fn most<T>(samples: &[T], read: impl Fn(&T) -> u64) -> u64 {
    samples.iter().map(read).max().expect("there is one")
}

/// How many bytes of this process are allocated and not freed.
pub(crate) fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    // What is reallocated is counted in both, by the difference.
    stats
        .bytes_allocated
        .saturating_sub(stats.bytes_deallocated)
}
