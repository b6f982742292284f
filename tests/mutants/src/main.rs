//! Mutation tests: breaks the code in one place at a time, and requires that a test fails.
//!
//! Every file in `patches` is a mutant. It names a trap, removes what the code does against it, and lists the
//! tests that must fail then. This program tries it in a copy of the tree. A mutant that does not apply or
//! does not compile proves nothing, and is an error.
//!
//! ```sh
//! cargo run -p mutants             # all of them, half an hour
//! cargo run -p mutants -- NAME..   # these
//! cargo run -p mutants -- --check  # only whether they apply and their tests exist
//! ```

mod mutant;
mod tree;

use std::{fs, path::Path, process::ExitCode};

use self::{
    mutant::{Mutant, Test},
    tree::{Run, Tree},
};

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Error> {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    let only_check = names.iter().any(|name| name == "--check");
    names.retain(|name| name != "--check");
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = (own.parent().and_then(Path::parent)).ok_or("the tree has no root")?;
    let mutants = load(&own.join("patches"), &names)?;
    let mut applying = Vec::new();
    let mut all_well = true;
    let sources = tree::sources(root)?;
    for mutant in mutants {
        for test in mutant.caught_by.iter().filter(|it| !it.is_in(&sources)) {
            println!("NO SUCH TEST    {}: {test}", mutant.name);
            all_well = false;
        }
        match mutant.apply(root) {
            Ok(changed) => applying.push((mutant, changed)),
            Err(error) => {
                println!("DOES NOT APPLY  {}: {error}", mutant.name);
                all_well = false;
            }
        }
    }
    if only_check {
        println!("{} mutants apply", applying.len());
        return Ok(all_well);
    }
    let tree = Tree::copy(root)?;
    println!("| mutant | trap | caught by |\n|---|---|---|");
    let mut caught = 0;
    for (mutant, changed) in &applying {
        let mut verdicts = Vec::new();
        let mut red = true;
        for (path, text) in changed {
            fs::write(tree.join(path), text)?;
        }
        for test in &mutant.caught_by {
            let run = tree.run(test, &mutant.name)?;
            red &= matches!(run, Run::Red | Run::Endless);
            verdicts.push(match run {
                Run::Red => test.to_string(),
                Run::Endless => format!("{test} (does not end)"),
                Run::Green => format!("NOT by {test}"),
                Run::NoTest => format!("{test}: NO SUCH TEST"),
                Run::NotBuilt => format!("{test}: DOES NOT COMPILE"),
            });
        }
        for (path, _) in changed {
            fs::write(tree.join(path), fs::read(root.join(path))?)?;
        }
        println!(
            "| {} | {} | {} |",
            mutant.name,
            mutant.trap,
            verdicts.join(", ")
        );
        caught += usize::from(red);
        all_well &= red;
    }
    // A test that always fails notices nothing. The copy is unchanged again by now.
    let mut tests: Vec<&Test> = applying.iter().flat_map(|(it, _)| &it.caught_by).collect();
    tests.sort_unstable();
    tests.dedup();
    for test in tests {
        if !matches!(tree.run(test, "unchanged")?, Run::Green) {
            println!("{test}: FAILS in the unchanged tree");
            all_well = false;
        }
    }
    println!("{caught} of {} mutants caught", applying.len());
    Ok(all_well)
}

fn load(folder: &Path, names: &[String]) -> Result<Vec<Mutant>, Error> {
    let mut mutants = Vec::new();
    for entry in fs::read_dir(folder)? {
        let mutant = Mutant::read(&entry?.path())?;
        if names.is_empty() || names.contains(&mutant.name) {
            mutants.push(mutant);
        }
    }
    if let Some(unknown) = (names.iter()).find(|name| mutants.iter().all(|it| it.name != **name)) {
        return Err(format!("no mutant is called {unknown}").into());
    }
    mutants.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(mutants)
}
