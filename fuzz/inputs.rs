//! Inputs for tests that call the bodies of the fuzz targets: part of each crate that has some.

use std::{fs, path::Path};

use proptest::prelude::*;

/// Every input that the fuzz target has kept, with those that once failed among them.
pub(crate) fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let files = fs::read_dir(folder.join(target)).expect("the corpus is in the tree");
    let inputs: Vec<_> = files
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect();
    assert!(!inputs.is_empty());
    inputs
}

/// An input of the corpus with some bytes replaced, or any bytes.
pub(crate) fn input(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let known = prop::sample::select(corpus(target));
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let damaged = (known, changes).prop_map(|(mut input, changes)| {
        for (at, byte) in changes {
            if !input.is_empty() {
                let at = at.index(input.len());
                input[at] = byte;
            }
        }
        input
    });
    prop_oneof![3 => damaged, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}
