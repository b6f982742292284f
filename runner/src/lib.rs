//! An update runner: concurrent, ordered by key, bounded, never deaf, nothing lost.
