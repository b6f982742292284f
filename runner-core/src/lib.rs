//! Pulls updates, hands them to a handler: in order by key, bounded, timed, on any async runtime.
