//! Instructions for each update, counted by callgrind: exact to about 1 %, whatever else the machine
//! does.
//!
//! The benchmark calls itself under valgrind, on a runtime with one thread, twice with different
//! numbers of updates, of which it makes equally many; the difference knows nothing of the start and of
//! the making.

use std::{env, io, process::Command};

use super::Runtimes;

/// Whether valgrind is there.
pub(crate) fn available() -> bool {
    let version = Command::new("valgrind").arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

/// Instructions for each update of what `arguments` name.
///
/// # Errors
///
/// If valgrind cannot be run or says nothing that is understood.
pub(crate) fn count(arguments: &[&str], runtime: Runtimes, updates: u64) -> io::Result<f64> {
    let made = 3 * updates;
    let few = total(arguments, runtime, updates, made)?;
    let many = total(arguments, runtime, made, made)?;
    Ok((many as f64 - few as f64) / (2 * updates) as f64)
}

fn total(arguments: &[&str], runtime: Runtimes, updates: u64, made: u64) -> io::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["--profile", "--runtime", runtime.name(), "--updates"])
        .arg(updates.to_string())
        .arg("--made")
        .arg(made.to_string())
        .args(arguments)
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    match collected.map(|(_, number)| number.trim().parse()) {
        Some(Ok(number)) if output.status.success() => Ok(number),
        _ => Err(io::Error::other(format!("callgrind failed: {text}"))),
    }
}
