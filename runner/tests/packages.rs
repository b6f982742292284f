//! Each crate that is meant for users can be packaged: what belongs into it is in it, and nothing else.

mod workspace;

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;
use workspace::{PUBLISHED, cargo, root};

fn add_files(folder: &Path, base: &Path, files: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_files(&path, base, files);
        } else {
            let name = path.strip_prefix(base).unwrap().to_str().unwrap();
            files.insert(name.replace('\\', "/"));
        }
    }
}

#[test]
fn a_package_has_what_belongs_to_it_and_nothing_else() {
    for name in PUBLISHED {
        let list = cargo(&[
            "package",
            "--list",
            "--offline",
            "--allow-dirty",
            "-p",
            name,
        ]);
        let list: BTreeSet<String> = list
            .lines()
            .map(|line| line.replace('\\', "/"))
            // Depends on whether this is a clean checkout.
            .filter(|line| line != ".cargo_vcs_info.json")
            .collect();
        let mut expected: BTreeSet<String> = [
            "Cargo.lock",
            "Cargo.toml",
            "Cargo.toml.orig",
            "LICENSE-APACHE",
            "LICENSE-MIT",
            "README.md",
        ]
        .map(str::to_owned)
        .into();
        let folder = root().join(name);
        add_files(&folder.join("src"), &folder, &mut expected);
        assert_eq!(list, expected, "{name}");
    }
}

#[test]
fn a_package_says_what_it_is() {
    let metadata: Value = serde_json::from_str(&cargo(&[
        "metadata",
        "--locked",
        "--offline",
        "--no-deps",
        "--format-version",
        "1",
    ]))
    .unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    for name in PUBLISHED {
        let package = packages.iter().find(|package| package["name"] == name);
        let package = package.unwrap_or_else(|| panic!("there is no {name}"));
        for field in ["description", "license", "readme", "rust_version"] {
            assert!(package[field].is_string(), "{name} has no {field}");
        }
        // The registry takes no more than five of each.
        for field in ["keywords", "categories"] {
            let count = package[field].as_array().unwrap().len();
            assert!((1..=5).contains(&count), "{name}: {count} {field}");
        }
        let docs = &package["metadata"]["docs"]["rs"];
        assert_eq!(docs["all-features"], true, "{name}");
        assert_eq!(
            docs["rustdoc-args"],
            serde_json::json!(["--cfg", "docsrs"]),
            "{name}"
        );
    }
    // Everything else is for this workspace alone.
    for package in packages {
        let name = package["name"].as_str().unwrap();
        assert!(
            PUBLISHED.contains(&name) || package["publish"] == serde_json::json!([]),
            "{name} could be published"
        );
    }
}

#[test]
fn the_licences_in_a_package_are_those_of_the_workspace() {
    for name in PUBLISHED {
        for file in ["LICENSE-APACHE", "LICENSE-MIT"] {
            let here = fs::read(root().join(name).join(file)).unwrap();
            assert!(
                here == fs::read(root().join(file)).unwrap(),
                "{name}/{file}"
            );
        }
    }
}
