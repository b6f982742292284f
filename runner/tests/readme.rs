//! What README.md promises. Its code is compiled with the documentation tests.

mod readme_block;

use readme_block::block;

#[test]
fn the_quick_start_has_fifteen_lines_at_most() {
    let code = block("## Quick start", "```rust");
    assert!(code.iter().any(|line| line.contains("runner::tokio::run")));
    assert!(
        code.len() <= 15,
        "{} lines:\n{}",
        code.len(),
        code.join("\n")
    );
}

/// `.ci/run` runs what it finds below these two markers.
#[test]
fn the_two_commands_need_cargo_only() {
    for marker in ["<!-- demo -->", "<!-- test -->"] {
        let commands = block(marker, "```sh");
        let [command] = commands[..] else {
            panic!("{marker}: {commands:?}");
        };
        assert!(command.starts_with("cargo "), "{command}");
        assert!(command.contains(" --locked"), "{command}");
    }
}
