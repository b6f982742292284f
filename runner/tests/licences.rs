//! Every dependency may be used under terms that this workspace allows, and all of them are listed.
//!
//! The list is `licences.txt` beside this file. After a change of dependencies, write it anew and look
//! at the difference:
//!
//! ```sh
//! UPDATE_LICENCES=1 cargo test -p runner --test licences
//! ```
//!
//! It asks cargo about Linux only, so that no system libraries of others are fetched for it; where
//! everything is there, no network is used.

mod workspace;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write,
    fs,
    path::Path,
};

use serde_json::Value;
use workspace::{PUBLISHED, cargo};

/// Terms that ask for no more than that they are passed on.
const ALLOWED: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Further terms, for what only examples, tests and benches of this workspace are built with.
const ALLOWED_HERE: [&str; 1] = ["WTFPL"];

#[test]
fn every_dependency_is_allowed_and_listed() {
    let metadata = metadata();
    let shipped = shipped(&metadata);
    let (mut built_in, mut only_here) = (BTreeMap::new(), BTreeMap::new());
    for package in array(&metadata["packages"]) {
        // What has no source is a member of this workspace.
        if package["source"].is_null() {
            continue;
        }
        let (name, id) = (text(&package["name"]), text(&package["id"]));
        let terms = package["license"].as_str();
        let terms = terms.unwrap_or_else(|| panic!("{name} names no licence"));
        let (list, allowed) = match shipped.contains(id) {
            true => (&mut built_in, ALLOWED.to_vec()),
            false => (&mut only_here, [&ALLOWED[..], &ALLOWED_HERE].concat()),
        };
        assert!(
            is_allowed(terms, &allowed),
            "{name} is under {terms}, of which nothing is allowed in {}",
            file!()
        );
        list.insert(name, terms);
    }
    // Two versions of one crate may fall on both sides.
    only_here.retain(|name, _| !built_in.contains_key(name));
    let mut list = String::from("May be in a bot, by the features that it uses:\n\n");
    write_list(&mut list, &built_in);
    list.push_str("\nIn the examples, tests and benches of this workspace only:\n\n");
    write_list(&mut list, &only_here);

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/licences.txt");
    if env::var_os("UPDATE_LICENCES").is_some() {
        fs::write(&path, &list).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
    let (known, list): (BTreeSet<_>, BTreeSet<_>) =
        (known.lines().collect(), list.lines().collect());
    assert!(
        known == list,
        "licences.txt is out of date: new {:?}, gone {:?}; UPDATE_LICENCES=1 writes it anew",
        list.difference(&known).collect::<Vec<_>>(),
        known.difference(&list).collect::<Vec<_>>()
    );
}

#[test]
fn terms_are_read_as_spdx_says() {
    let allowed = [
        "MIT",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "Unicode-3.0",
    ];
    for (terms, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("MIT/Apache-2.0", true),
        ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
        ("(MIT AND GPL-3.0) OR Unicode-3.0", true),
        ("GPL-3.0 OR (MIT AND LGPL-3.0)", false),
        // AND binds closer than OR.
        ("MIT OR GPL-3.0 AND LGPL-3.0", true),
        ("GPL-3.0 AND LGPL-3.0 OR MIT", true),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
        ("Apache-2.0 WITH other", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(terms, &allowed), expected, "{terms}");
    }
}

fn metadata() -> Value {
    let printed = cargo(&[
        "metadata",
        "--locked",
        "--format-version",
        "1",
        "--all-features",
        "--filter-platform",
        "x86_64-unknown-linux-gnu",
    ]);
    serde_json::from_str(&printed).unwrap()
}

/// The ids of all that the published crates depend on to run, by any path.
fn shipped(metadata: &Value) -> BTreeSet<&str> {
    let published = |package: &&Value| {
        package["source"].is_null() && PUBLISHED.contains(&text(&package["name"]))
    };
    let packages = array(&metadata["packages"]).iter().filter(published);
    let mut open: Vec<&str> = packages.map(|package| text(&package["id"])).collect();
    assert_eq!(open.len(), PUBLISHED.len());
    let nodes: BTreeMap<&str, &Value> = array(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let mut found = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !found.insert(id) {
            continue;
        }
        for dependency in array(&nodes[id]["deps"]) {
            let mut kinds = array(&dependency["dep_kinds"]).iter();
            if kinds.any(|kind| kind["kind"] != "dev") {
                open.push(text(&dependency["pkg"]));
            }
        }
    }
    found
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().expect("cargo says so")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("cargo says so")
}

fn write_list(list: &mut String, crates: &BTreeMap<&str, &str>) {
    for (name, terms) in crates {
        writeln!(list, "{name}: {terms}").unwrap();
    }
}

/// Whether an SPDX expression leaves a choice that is allowed. A slash is the old way to write OR.
fn is_allowed(terms: &str, allowed: &[&str]) -> bool {
    let spaced = terms
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let is_allowed = any(&words, &mut at, allowed);
    is_allowed && at == words.len()
}

fn any(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut found = all(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        found |= all(words, at, allowed);
    }
    found
}

fn all(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut found = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        found &= one(words, at, allowed);
    }
    found
}

fn one(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let Some(word) = words.get(*at) else {
        return false;
    };
    *at += 1;
    if *word == "(" {
        let found = any(words, at, allowed);
        let is_closed = words.get(*at) == Some(&")");
        *at += 1;
        return found && is_closed;
    }
    let mut term = (*word).to_owned();
    if let [with @ "WITH", exception, ..] = &words[*at..] {
        term = format!("{term} {with} {exception}");
        *at += 2;
    }
    allowed.contains(&term.as_str())
}
