//! Runs an example that `cargo test` has built beside the test, and compares what it prints.
//!
//! Expectations are in `expected` beside the manifest; set `UPDATE_EXPECTED=1` to write them anew, and
//! look at the difference.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// An example ends by itself within seconds; on a busy machine it may take longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// `target/<profile>/examples/<name>`, seen from `target/<profile>/deps/<this test>`.
fn binary(name: &str) -> PathBuf {
    let this = env::current_exe().expect("a test knows its path");
    let profile = this
        .parent()
        .and_then(Path::parent)
        .expect("tests are in target/<profile>/deps");
    let binary = profile
        .join("examples")
        .join(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(
        binary.is_file(),
        "{} is missing: `cargo test -p {package}` builds it, `cargo test --test outputs` does not; \
         run `cargo build -p {package} --examples` first",
        binary.display(),
        package = env!("CARGO_PKG_NAME"),
    );
    binary
}

fn run(name: &str, arguments: &[&str]) -> Output {
    let child = Command::new(binary(name))
        .args(arguments)
        .env_remove("BOT_TOKEN")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the example starts");
    let (done, output) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    output
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| panic!("{name} did not end within {PATIENCE:?}"))
        .expect("its output can be read")
}

/// Fails unless the example of that name succeeds and prints what it is expected to print.
pub(crate) fn check(name: &str, arguments: &[&str]) {
    let output = run(name, arguments);
    let printed = String::from_utf8(output.stdout).expect("examples print UTF-8");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{name}: {}\n{errors}",
        output.status
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("expected")
        .join(format!("{name}.txt"));
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
