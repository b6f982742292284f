//! What the system knows about this process.

use std::{fs, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// The CPU time that all threads of this process have used.
#[must_use]
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// The memory that is resident, in KiB; `None` where the system has no `/proc`.
#[must_use]
pub fn resident_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// How many threads there are; `None` where the system has no `/proc`.
#[must_use]
pub fn threads() -> Option<u64> {
    Some(fs::read_dir("/proc/self/task").ok()?.count() as u64)
}
