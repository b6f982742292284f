//! Both examples print what they are expected to print.

#[path = "../../tests/check/mod.rs"]
mod check;

use check::check;

#[test]
fn frankenstein() {
    check("frankenstein", &[]);
}

#[test]
fn teloxide_core() {
    check("teloxide_core", &[]);
}
