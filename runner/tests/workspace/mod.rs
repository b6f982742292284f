//! The workspace, as tests of it see it from outside.

#![allow(dead_code, reason = "not every test that has a copy uses all of it")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The crates that users build.
pub(crate) const PUBLISHED: [&str; 6] = [
    "runner",
    "runner-core",
    "runner-http",
    "runner-smol",
    "runner-testkit",
    "runner-tokio",
];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What cargo prints when it succeeds.
pub(crate) fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .current_dir(root())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
