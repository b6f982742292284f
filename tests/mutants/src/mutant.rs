//! One mutant: what it changes in the code, and which tests must fail.
//!
//! ```text
//! trap: what goes wrong
//! file: path/from/the/root.rs
//! caught by: runner-core --test stop some_test
//! caught by: runner-core --lib some::module::tests::some_test
//! caught by: schedules handle::some_test
//! <<<<
//! text that occurs exactly once
//! ====
//! what stands there instead
//! >>>>
//! ```
//!
//! White space does not count, so mutants survive formatting. A `file:` holds for the changes that follow it,
//! up to the next one. `schedules` stands for the tests in `runner-core/src/schedules`.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use crate::Error;

pub(crate) struct Mutant {
    pub(crate) name: String,
    pub(crate) trap: String,
    pub(crate) caught_by: Vec<Test>,
    changes: Vec<Change>,
}

struct Change {
    file: PathBuf,
    find: String,
    replace: String,
}

/// A test that must fail.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    /// Whether it explores the schedules of threads, which needs another build.
    pub(crate) explores: bool,
    pub(crate) package: String,
    /// `--lib`, or `--test` and its name.
    pub(crate) target: Vec<String>,
    pub(crate) name: String,
}

impl Mutant {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(path)?;
        Self::parse(&name, &text).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let mut this = Self {
            name: name.to_owned(),
            trap: String::new(),
            caught_by: Vec::new(),
            changes: Vec::new(),
        };
        let mut file = None;
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line == "<<<<" {
                let mut until = |end: &str| {
                    let part: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
                    part.join("\n")
                };
                this.changes.push(Change {
                    file: file.clone().ok_or("no file is named")?,
                    find: until("===="),
                    replace: until(">>>>"),
                });
            } else if let Some(trap) = line.strip_prefix("trap: ") {
                this.trap = trap.to_owned();
            } else if let Some(path) = line.strip_prefix("file: ") {
                file = Some(PathBuf::from(path));
            } else if let Some(test) = line.strip_prefix("caught by: ") {
                this.caught_by.push(Test::parse(test)?);
            } else if !line.is_empty() {
                return Err(format!("not understood: {line}").into());
            }
        }
        if this.trap.is_empty() || this.caught_by.is_empty() || this.changes.is_empty() {
            return Err("trap, test or change is missing".into());
        }
        Ok(this)
    }

    /// The changed files, with their new texts.
    pub(crate) fn apply(&self, root: &Path) -> Result<Vec<(PathBuf, String)>, Error> {
        let mut changed: Vec<(PathBuf, String)> = Vec::new();
        for change in &self.changes {
            let known = changed.iter().position(|(path, _)| *path == change.file);
            let index = match known {
                Some(index) => index,
                None => {
                    let text = fs::read_to_string(root.join(&change.file))
                        .map_err(|error| format!("{}: {error}", change.file.display()))?;
                    changed.push((change.file.clone(), text));
                    changed.len() - 1
                }
            };
            let text = &changed[index].1;
            let (start, end) = find_once(text, &change.find)
                .map_err(|count| format!("{count} places instead of one: {}", change.find))?;
            let text = [&text[..start], &change.replace, &text[end..]].concat();
            changed[index].1 = text;
        }
        Ok(changed)
    }
}

impl Test {
    fn parse(text: &str) -> Result<Self, Error> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let (name, target) = words.split_last().ok_or("no test is named")?;
        match target {
            [schedules] if schedules == "schedules" => Ok(Self {
                explores: true,
                package: "runner-core".to_owned(),
                target: vec!["--lib".to_owned()],
                name: format!("schedules::{name}"),
            }),
            [package, target @ ..] if !target.is_empty() => Ok(Self {
                explores: false,
                package: package.clone(),
                target: target.to_vec(),
                name: name.clone(),
            }),
            _ => Err(format!("package, target and test are needed: {text}").into()),
        }
    }

    /// Whether one of these source files has a function of its name.
    pub(crate) fn is_in(&self, sources: &[String]) -> bool {
        let function = self.name.rsplit("::").next().unwrap_or(&self.name);
        let [plain, generic] = ['(', '<'].map(|next| format!("fn {function}{next}"));
        (sources.iter()).any(|source| source.contains(&plain) || source.contains(&generic))
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.name)
    }
}

/// The place in `text` where the words of `find` follow each other. The error is how many such places there
/// are.
fn find_once(text: &str, find: &str) -> Result<(usize, usize), usize> {
    let words: Vec<&str> = find.split_whitespace().collect();
    let Some(first) = words.first() else {
        return Err(0);
    };
    let places: Vec<(usize, usize)> = text
        .match_indices(first)
        .filter_map(|(start, _)| {
            let mut rest = &text[start..];
            for (index, word) in words.iter().enumerate() {
                if index > 0 {
                    rest = rest.trim_start();
                }
                rest = rest.strip_prefix(word)?;
            }
            Some((start, text.len() - rest.len()))
        })
        .collect();
    match places[..] {
        [place] => Ok(place),
        _ => Err(places.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_another_layout_and_only_if_it_is_unique() {
        let text = "fn a() {\n    one(\n        two);\n}\n";
        let (start, end) = find_once(text, "one( two);").unwrap();
        assert_eq!(&text[start..end], "one(\n        two);");
        assert_eq!(find_once(text, "three"), Err(0));
        assert_eq!(find_once("x; x;", "x;"), Err(2));
        assert_eq!(find_once(text, ""), Err(0));
    }

    #[test]
    fn a_patch_names_trap_files_tests_and_changes() {
        let text = "trap: t\nfile: a.rs\ncaught by: schedules b::c\n\
                    caught by: runner-core --test d e\n<<<<\nx\n====\n>>>>\n";
        let mutant = Mutant::parse("name", text).unwrap();
        assert_eq!(mutant.caught_by[0].name, "schedules::b::c");
        assert_eq!(mutant.caught_by[1].target, ["--test", "d"]);
        assert_eq!(mutant.changes[0].replace, "");
        let sources = ["async fn f() {}\nfn e() {}".to_owned()];
        let exist = mutant.caught_by.iter().map(|test| test.is_in(&sources));
        assert!(exist.eq([false, true]));
        assert!(Mutant::parse("name", "trap: t\n").is_err());
        assert!(Mutant::parse("name", "nonsense\n").is_err());
    }
}
