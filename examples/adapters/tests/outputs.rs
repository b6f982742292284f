//! Both examples print what they are expected to print.
//!
//! Expectations are in `expected`; set `UPDATE_EXPECTED=1` to write them anew, and look at the
//! difference.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

fn check(name: &str) {
    let this = env::current_exe().expect("a test knows its path");
    let profile = this.parent().and_then(Path::parent);
    let binary = profile.expect("tests are in target/<profile>/deps");
    let binary = binary.join(format!("examples/{name}{}", env::consts::EXE_SUFFIX));
    // Every wait in it is bounded.
    let output = Command::new(&binary)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{}: {error}; `cargo test -p adapters` builds it",
                binary.display()
            )
        });
    let printed = String::from_utf8(output.stdout).expect("examples print UTF-8");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{name}: {}\n{errors}",
        output.status
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("expected/{name}.txt"));
    if env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &printed).expect("the expectation can be written");
    }
    let expected = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .replace("\r\n", "\n");
    assert_eq!(
        printed, expected,
        "{name} printed something else; stderr:\n{errors}"
    );
}

#[test]
fn frankenstein() {
    check("frankenstein");
}

#[test]
fn teloxide_core() {
    check("teloxide_core");
}
