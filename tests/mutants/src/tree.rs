//! A copy of the tree that may be broken, and the tests of that copy.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Error, mutant::Test};

/// Longer than any of the tests takes, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) struct Tree {
    path: PathBuf,
    /// The folder of logs and of what is built. Not that of the original: cargo would take what was
    /// built of the copy for up to date there, however much the original was changed since.
    target: PathBuf,
}

/// How a test went.
pub(crate) enum Run {
    Green,
    Red,
    /// It was given up.
    Endless,
    NoTest,
    NotBuilt,
}

impl Tree {
    /// Copies what git knows of or would, as it is now.
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
        let listed = Command::new("git")
            .args(["ls-files", "-z", "-co", "--exclude-standard"])
            .current_dir(root)
            .output()?;
        if !listed.status.success() {
            return Err("git cannot list the files of the tree".into());
        }
        for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
            let from = root.join(name);
            // One that was removed and is not committed.
            if !from.is_file() {
                continue;
            }
            let to = path.join(name);
            fs::create_dir_all(to.parent().ok_or("a file has no folder")?)?;
            fs::copy(from, to)?;
        }
        Ok(Self { path, target })
    }

    pub(crate) fn join(&self, path: &Path) -> PathBuf {
        self.path.join(path)
    }

    /// Builds one test as the tree is now and runs it. What it says is kept in `target/mutants`.
    pub(crate) fn run(&self, test: &Test, mutant: &str) -> Result<Run, Error> {
        let log_name = format!("{mutant}-{}.log", test.name.replace("::", "-"));
        let log = self.target.join(log_name);
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args(["test", "--locked", "--no-run", "-p", &test.package])
            .args(&test.target)
            .current_dir(&self.path)
            // Set by the cargo that runs this, for its own package.
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
        let said = String::from_utf8_lossy(&built.stderr);
        if !built.status.success() {
            fs::write(&log, &*said)?;
            return Ok(Run::NotBuilt);
        }
        let executable = said
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Executable "))
            .filter_map(|line| line.rsplit_once('(')?.1.strip_suffix(')'))
            .next_back()
            .ok_or("cargo has not told where the test is")?;
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
        let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        Ok(match status.success() {
            true if said.contains("running 0 tests") => Run::NoTest,
            true => Run::Green,
            false => Run::Red,
        })
    }
}

/// Waits for the end of a test, but not for ever.
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
