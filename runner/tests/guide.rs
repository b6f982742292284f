//! The guide is whole: every chapter is listed, compiled, and leads somewhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where the links and images of a chapter lead, those to other places on the web left out.
fn links(text: &str) -> Vec<String> {
    let mut in_code = false;
    let prose: String = text
        .lines()
        .filter(|line| {
            let is_fence = line.starts_with("```");
            in_code ^= is_fence;
            !in_code && !is_fence
        })
        .collect();
    let targets = prose.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .filter(|target| !target.contains("://"))
        .collect()
}

#[test]
fn every_chapter_is_listed_and_compiled() {
    let chapters: BTreeSet<String> = fs::read_dir(docs())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md") && name != "SUMMARY.md")
        .collect();
    let listed: BTreeSet<String> = links(&read(&docs().join("SUMMARY.md")))
        .into_iter()
        .filter(|link| !link.starts_with("decisions/"))
        .collect();
    assert_eq!(listed, chapters);
    let library = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    for chapter in chapters {
        assert!(
            library.contains(&format!("/docs/{chapter}\"")),
            "the code of {chapter} is not compiled"
        );
    }
}

#[test]
fn every_decision_is_listed() {
    let records: BTreeSet<String> = pages(&docs().join("decisions"))
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let contents = links(&read(&docs().join("SUMMARY.md")));
    let in_contents: BTreeSet<String> = contents
        .iter()
        .filter_map(|link| link.strip_prefix("decisions/"))
        .map(str::to_owned)
        .collect();
    assert_eq!(in_contents, records);
    let index = links(&read(&docs().join("decisions/README.md")));
    for record in records.iter().filter(|record| *record != "README.md") {
        assert!(
            index.contains(record),
            "{record} is missing in the index of decisions"
        );
    }
}

#[test]
fn every_link_leads_to_a_file() {
    let mut seen = 0;
    for folder in [docs().join(".."), docs(), docs().join("decisions")] {
        for path in pages(&folder) {
            for link in links(&read(&path)) {
                let target = folder.join(link.split('#').next().unwrap());
                assert!(target.is_file(), "{}: {link}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "only {seen} links were found");
}

/// The Markdown files of a folder.
fn pages(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

#[test]
fn every_example_that_is_named_exists() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let manifest = read(&folder.join("Cargo.toml")) + &read(&folder.join("adapters/Cargo.toml"));
    let mut named = BTreeSet::new();
    for entry in fs::read_dir(docs()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            for rest in read(&path).split("--example ").skip(1) {
                let name = rest
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next();
                named.extend(name.map(str::to_owned));
            }
        }
    }
    assert!(named.contains("ordering"), "{named:?}");
    for name in named {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "there is no example {name}"
        );
    }
}
