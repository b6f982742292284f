//! A copy of the source tree that mutants may break, and its tests.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Error, mutant::Test};

/// Longer than any of the tests takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) struct Tree {
    path: PathBuf,
    /// For logs and builds. The original tree has another one: in a common folder, cargo would mistake what
    /// it built from the copy for a build of the original.
    target: PathBuf,
}

/// How a test went.
pub(crate) enum Run {
    Green,
    Red,
    /// It took too long.
    Endless,
    NoTest,
    NotBuilt,
}

impl Tree {
    /// Copies the working tree, without the files that git ignores.
    pub(crate) fn copy(root: &Path) -> Result<Self, Error> {
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(target) => root.join(target),
            None => root.join("target"),
        };
        let target = target.join("mutants");
        let path = target.join("tree");
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        for name in files(root)? {
            let to = path.join(&name);
            fs::create_dir_all(to.parent().ok_or("a file has no folder")?)?;
            fs::copy(root.join(name), to)?;
        }
        Ok(Self { path, target })
    }

    pub(crate) fn join(&self, path: &Path) -> PathBuf {
        self.path.join(path)
    }

    /// Builds and runs one test. Its output is kept in `target/mutants`.
    pub(crate) fn run(&self, test: &Test, mutant: &str) -> Result<Run, Error> {
        let log_name = format!("{mutant}-{}.log", test.name.replace("::", "-"));
        let log = self.target.join(log_name);
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args(["test", "--locked", "--no-run", "-p", &test.package])
            .args(&test.target)
            .current_dir(&self.path)
            // Set by the cargo that runs this program.
            .env_remove("CARGO_MANIFEST_DIR")
            .stdin(Stdio::null());
        let folder = if test.explores {
            cargo.env("RUSTFLAGS", "--cfg shuttle");
            "shuttle"
        } else {
            "build"
        };
        cargo.env("CARGO_TARGET_DIR", self.target.join(folder));
        let built = cargo.output()?;
        let output = String::from_utf8_lossy(&built.stderr);
        if !built.status.success() {
            fs::write(&log, &*output)?;
            return Ok(Run::NotBuilt);
        }
        let executable = output
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Executable "))
            .filter_map(|line| line.rsplit_once('(')?.1.strip_suffix(')'))
            .next_back()
            .ok_or("cargo did not print the path of the test")?;
        let out = File::create(&log)?;
        let child = Command::new(self.path.join(executable))
            .args(["--exact", &test.name])
            .current_dir(self.path.join(&test.package))
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        let Some(status) = wait(child)? else {
            return Ok(Run::Endless);
        };
        let output = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        Ok(match status.success() {
            true if output.contains("running 0 tests") => Run::NoTest,
            true => Run::Green,
            false => Run::Red,
        })
    }
}

/// The source files of the tree.
pub(crate) fn sources(root: &Path) -> Result<Vec<String>, Error> {
    let mut sources = Vec::new();
    for name in files(root)? {
        if name.ends_with(".rs") {
            sources.push(fs::read_to_string(root.join(name))?);
        }
    }
    Ok(sources)
}

/// The files of the working tree, but for those that git ignores.
fn files(root: &Path) -> Result<Vec<String>, Error> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "-co", "--exclude-standard"])
        .current_dir(root)
        .output()?;
    if !listed.status.success() {
        return Err("git cannot list the files of the tree".into());
    }
    let names = String::from_utf8(listed.stdout)?;
    // Git also lists files whose removal is not committed.
    let names = names
        .split_terminator('\0')
        .filter(|name| root.join(name).is_file());
    Ok(names.map(str::to_owned).collect())
}

/// Waits until a test ends. `None` if it takes too long; then it is killed.
fn wait(mut child: Child) -> Result<Option<ExitStatus>, Error> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if began.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}
