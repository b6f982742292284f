//! The public API, pinned: nothing becomes public, or changes, without being seen.
//!
//! What the crates declare as public is written to a file per crate beside this one, as Rust without
//! bodies, private parts and documentation. After a change that is meant, write them anew and look at
//! the difference:
//!
//! ```sh
//! UPDATE_API=1 cargo test -p runner --test api
//! ```
//!
//! It reads the sources, so that it needs no nightly compiler. That is exact because the lint
//! `unreachable_pub` keeps `pub` to what can be reached from outside. Auto traits such as `Send` are not
//! in it; those are asserted where they are promised.

mod skeleton;
#[path = "../workspace/mod.rs"]
mod workspace;

use std::{env, fs};

use workspace::root;

fn check(name: &str) {
    let source = root().join(name).join("src/lib.rs");
    let declared = skeleton::of_crate(&source);
    let path = root().join(format!("runner/tests/api/{name}.txt"));
    if env::var_os("UPDATE_API").is_some() {
        fs::write(&path, &declared).expect("the snapshot can be written");
    }
    let pinned = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .replace("\r\n", "\n");
    if let Some(difference) = difference(&pinned, &declared) {
        panic!(
            "the public API of {name} has changed:\n{difference}\nif that is meant: \
             UPDATE_API=1 cargo test -p runner --test api"
        );
    }
}

/// The first lines that differ, with those around them.
fn difference(old: &str, new: &str) -> Option<String> {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    if old == new {
        return None;
    }
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let excerpt = |sign: char, lines: &[&str]| -> String {
        let lines = lines.iter().skip(same).take(6);
        lines.map(|line| format!("{sign} {line}\n")).collect()
    };
    let before: String = old[same.saturating_sub(3)..same]
        .iter()
        .map(|line| format!("  {line}\n"))
        .collect();
    Some(before + &excerpt('-', &old) + &excerpt('+', &new))
}

macro_rules! crates {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                check($name);
            }
        )*

        /// A crate that is missing here would not be pinned.
        #[test]
        fn every_library_is_pinned() {
            let mut found: Vec<String> = fs::read_dir(root())
                .unwrap()
                .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
                .filter(|name| name.starts_with("runner"))
                .collect();
            found.sort_unstable();
            let mut pinned = vec![$($name),*];
            pinned.sort_unstable();
            assert_eq!(found, pinned);
        }
    };
}

crates! {
    runner: "runner",
    core: "runner-core",
    http: "runner-http",
    smol: "runner-smol",
    testkit: "runner-testkit",
    tokio: "runner-tokio",
}

#[test]
fn what_is_public_is_seen_and_nothing_else() {
    let source = r#"
        //! Docs.
        mod inner { pub struct Kept; struct Private; pub(crate) fn private() {} }
        mod empty { fn nothing() {} }
        pub use inner::Kept;
        use inner::Private;
        /// Docs.
        #[derive(Clone)]
        #[non_exhaustive]
        pub struct Options { pub size: usize, hidden: u8 }
        pub struct Pair(pub u8, u8);
        impl Options {
            /// Docs.
            #[must_use]
            pub fn size(mut self, size: usize) -> Self { self.size = size; self }
            fn private(&self) {}
            pub const MAX: usize = 1 + 2;
        }
        impl Private { pub fn unreachable(&self) {} }
        impl Clone for Kept { fn clone(&self) -> Self { Kept } }
        impl Clone for Private { fn clone(&self) -> Self { Private } }
        trait Local {}
        impl Local for Options {}
        pub trait Open { fn given(&self) {} fn asked(&self); }
        #[cfg(test)]
        mod tests { pub fn test() {} }
        #[cfg(feature = "x")]
        pub fn optional<T: Send>(value: T) -> impl Send where T: Clone { value }
        macro_rules! made { () => { /** Docs. */ pub struct Made; } }
        made!();
        macro_rules! helper { () => { body } }
        #[cfg(feature = "y")]
        mod gated { pub struct Gated; pub use super::Kept as Again; }
    "#;
    let declared = skeleton::of_source(source);
    for part in [
        "pub use inner::Kept;",
        "#[derive(Clone)]\n#[non_exhaustive]\npub struct Options {\n    pub size: usize,\n    _private: (),\n}",
        "pub struct Pair(pub u8, ());",
        "    #[must_use]\n    pub fn size(self, size: usize) -> Self {}",
        "    pub const MAX: usize = _;",
        "pub struct Kept;\nimpl Clone for Kept {}",
        "#[cfg(feature = \"y\")]\npub struct Gated;",
        "    fn given(&self) {}\n    fn asked(&self);",
        "#[cfg(feature = \"x\")]\npub fn optional<T: Send>(value: T) -> impl Send\nwhere\n    T: Clone,\n{}",
        "pub struct Made;",
        "made!();",
    ] {
        assert!(declared.contains(part), "no {part}\nin {declared}");
    }
    for part in [
        "Private",
        "Local",
        "empty",
        "Docs",
        "test",
        "private()",
        "hidden",
        "unreachable",
        "Again",
        "helper",
    ] {
        assert!(!declared.contains(part), "{part}\nin {declared}");
    }
}
