//! What cargo measures: the benches of their own, and the trees of dependencies.

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    process::{Command, Stdio},
};

use benches::data::Data;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A part has a name to be chosen by; it is told whether to be quick.
type Part = (&'static str, fn(bool) -> Outcome<Data>);

pub(crate) const PARTS: [Part; 3] = [
    ("queue", |quick| bench(&["--bench", "queue"], quick)),
    ("fetch", |quick| {
        bench(&["--features", "models", "--bench", "fetch"], quick)
    }),
    ("dependencies", |_| dependencies()),
];

fn bench(which: &[&str], quick: bool) -> Outcome<Data> {
    let mut args = vec!["bench", "--locked", "--package", "benches"];
    args.extend(which);
    args.extend(["--", "--csv"]);
    if quick {
        args.push("--quick");
    }
    Ok(Data::parse(&cargo(&args)?))
}

fn dependencies() -> Outcome<Data> {
    let mut data = Data::default();
    let core = crates(&["--package", "runner-core"])? - 1;
    let bot = ["--package", "runner", "--features"];
    let smol = crates(&[&bot[..], &["smol"]].concat())?;
    let tokio = crates(&[&bot[..], &["tokio"]].concat())?;
    let hyper = crates(&[&bot[..], &["smol,hyper", "--no-default-features"]].concat())?;
    for (implementation, runtime, count) in [
        ("core", "-", core),
        ("bot ureq", "smol", smol),
        ("bot with ureq", "tokio", tokio),
        ("bot with hyper", "smol", hyper),
    ] {
        data.set(
            "dependencies",
            implementation,
            runtime,
            "crates",
            count as f64,
        );
    }
    Ok(data)
}

/// How many crates there are in a tree, its root included.
fn crates(which: &[&str]) -> Outcome<usize> {
    let mut args = vec!["tree", "--locked"];
    args.extend(which);
    args.extend(["--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    let tree = cargo(&args)?;
    // A crate that is in the tree twice is marked where it comes again.
    let lines = tree.lines().map(|line| line.trim_end_matches(" (*)"));
    Ok(lines
        .filter(|line| !line.is_empty())
        .collect::<BTreeSet<_>>()
        .len())
}

/// What cargo prints; what it says about its progress passes through.
fn cargo(args: &[&str]) -> Outcome<String> {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo {} has failed", args.join(" ")).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
