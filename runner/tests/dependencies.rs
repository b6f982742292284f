//! A bot compiles no runtime but its own.

mod workspace;

use std::collections::BTreeSet;

use workspace::cargo;

/// The crates that a bot with these features of `runner`, beside the default ones, is built of.
fn crates_of_a_bot_with(features: &str) -> BTreeSet<String> {
    let tree = cargo(&[
        "tree",
        // Whatever compiled this test has fetched all that is needed.
        "--offline",
        "--package",
        "runner",
        "--features",
        features,
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

const TOKIO: [&str; 2] = ["tokio", "runner-tokio"];
const SMOL: [&str; 4] = ["async-executor", "async-io", "async-signal", "runner-smol"];

fn assert_parts(features: &str, with: &[&str], without: &[&str]) {
    let crates = crates_of_a_bot_with(features);
    for name in with {
        assert!(
            crates.contains(*name),
            "{features}: no {name} in {crates:?}"
        );
    }
    for name in without {
        assert!(!crates.contains(*name), "{features}: {name} in {crates:?}");
    }
    // The default features are those of a bot that talks to Telegram.
    assert!(crates.contains("ureq"), "{features}: {crates:?}");
}

#[test]
fn a_bot_on_smol_is_built_without_tokio() {
    assert_parts("smol", &SMOL, &TOKIO);
}

/// hyper itself needs the channels of tokio, and nothing else of it.
#[test]
fn the_async_client_on_smol_brings_no_reactor_of_tokio() {
    assert_parts("smol,hyper", &["hyper"], &["mio", "runner-tokio"]);
}

#[test]
fn a_bot_on_tokio_is_built_without_smol() {
    assert_parts("tokio", &TOKIO, &SMOL);
}

#[test]
fn a_bot_on_a_runtime_of_its_own_is_built_without_both() {
    assert_parts("default", &[], &[&TOKIO[..], &SMOL[..]].concat());
}
