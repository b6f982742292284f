//! The code in README.md.

const README: &str = include_str!("../../../README.md");

/// The lines of the first block of code that opens with `fence`, below `heading`.
pub(crate) fn block(heading: &str, fence: &str) -> Vec<&'static str> {
    let mut lines = README.lines();
    assert!(
        lines.any(|line| line == heading),
        "README.md has no line {heading:?}"
    );
    assert!(
        lines.any(|line| line.starts_with(fence)),
        "nothing opens with {fence:?} below {heading:?}"
    );
    lines.take_while(|line| *line != "```").collect()
}
