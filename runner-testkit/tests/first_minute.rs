//! From an empty folder to a bot that answers, by nothing but what README.md says.
//!
//! Builds two small programs, so it is not part of the normal run:
//! `cargo test -p runner-testkit --test first_minute -- --ignored`. No network is needed; what the
//! workspace was built with is there.

#![cfg(unix)]

mod program;
#[path = "../../runner/tests/readme_block/mod.rs"]
mod readme_block;

use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::{Hash, Hasher},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use program::Program;
use readme_block::block;

/// A block of code in README.md, as a file.
fn text(heading: &str, fence: &str) -> String {
    block(heading, fence).join("\n") + "\n"
}

/// An empty folder with the repository in it. The same one each time, so that what was built for it
/// can be used again; another one for each clone.
fn empty_folder() -> PathBuf {
    let root = fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
    let mut hasher = DefaultHasher::new();
    root.hash(&mut hasher);
    let folder = env::temp_dir().join(format!("runner-first-minute-{:016x}", hasher.finish()));
    match fs::remove_dir_all(&folder) {
        Err(error) if folder.exists() => panic!("{}: {error}", folder.display()),
        _ => {}
    }
    fs::create_dir(&folder).unwrap();
    symlink(&root, folder.join("runner")).unwrap();
    folder
}

/// As in a shell of a person, but offline, and with the target folder and the profile of the
/// workspace, so that its dependencies need not be built again.
fn command(program: &str, folder: &Path) -> Command {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    command
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[ignore = "builds two programs"]
fn the_readme_leads_to_a_bot_that_answers() {
    for runtime in ["tokio", "smol"] {
        let folder = empty_folder();
        let commands = text("<!-- first minute -->", "```sh");
        assert!(commands.contains("--features tokio"), "{commands}");
        let commands = commands.replace("--features tokio", &format!("--features {runtime}"));
        succeeds(command("sh", &folder).args(["-e", "-c", &commands]));
        let bot = folder.join("echo-bot");
        let code = text("## Quick start", "```rust");
        assert!(code.contains("runner::tokio::run("), "{code}");
        let code = code.replace("runner::tokio::run(", &format!("runner::{runtime}::run("));
        fs::write(bot.join("src/main.rs"), code).unwrap();
        // Without a lock cargo would look for the newest of everything.
        fs::copy(folder.join("runner/Cargo.lock"), bot.join("Cargo.lock")).unwrap();
        succeeds(command(env!("CARGO"), &bot).arg("build"));

        let (mut server, url, token) = Program::with_environment();
        let mut bot = command(env!("CARGO"), &bot);
        bot.arg("run")
            .env("BOT_API_URL", url)
            .env("BOT_TOKEN", token);
        // A group of its own, as of a shell: Ctrl-C goes to all of it.
        std::os::unix::process::CommandExt::process_group(&mut bot, 0);
        let bot = bot
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stop = Stop(bot.id());
        server.line("A bot polls.");
        server.type_line("hello");
        assert_eq!(server.line("bot"), "bot to 1000: hello", "{runtime}");
        drop(stop);
        let output = bot.wait_with_output().unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        assert!(report.contains("1 update"), "{runtime}: {report:?}");
        fs::remove_dir_all(folder).unwrap();
    }
}

/// Presses Ctrl-C in a group of processes, when the test fails, too.
struct Stop(u32);

impl Drop for Stop {
    fn drop(&mut self) {
        let group = format!("-{}", self.0);
        let _gone = Command::new("kill").args(["-INT", "--", &group]).status();
    }
}
