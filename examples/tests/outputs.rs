//! Every example prints what it is expected to print.
//!
//! Runs the binaries that `cargo test` has built beside this one. Expectations are in `expected`; set
//! `UPDATE_EXPECTED=1` to write them anew, and look at the difference.

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
        "{} is missing: `cargo test -p examples` builds it, `cargo test --test outputs` does not; \
         run `cargo build -p examples --examples` first",
        binary.display()
    );
    binary
}

fn run(name: &str) -> Output {
    let child = Command::new(binary(name))
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

fn check(name: &str) {
    let output = run(name);
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

macro_rules! examples {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*

        /// An example that is missing here would never be run.
        #[test]
        fn every_example_is_checked() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
            let mut found: Vec<String> = fs::read_dir(folder)
                .expect("this folder can be read")
                .filter_map(|entry| {
                    let path = entry.expect("this folder can be read").path();
                    let is_source = path.extension().is_some_and(|extension| extension == "rs");
                    let stem = path.file_stem()?.to_str()?.to_owned();
                    is_source.then_some(stem)
                })
                .collect();
            found.sort_unstable();
            let mut checked = vec![$(stringify!($name)),*];
            checked.sort_unstable();
            assert_eq!(found, checked);
        }
    };
}

// `echo` prints timings, and checks itself.
examples! {
    axum_health
    custom_runtime
    custom_sink
    error_policy
    file_supplier
    live_control
    ordering
    several_bots
    session_bot
    timeouts
    unit_test
}
