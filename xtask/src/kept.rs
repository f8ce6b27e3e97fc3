//! Servers that never outlive us: not after a failure, a panic, Ctrl-C, or `kill -9`.
//!
//! Beside each server runs a keeper, a few lines of shell that read from a pipe whose other end only
//! we hold. The pipe closes when we drop it and also when we die, in whatever way; then the keeper
//! stops the server and removes its directory. So there is no signal to handle here.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// `$1` is the polite signal, `$2` the server's process and process group, `$3` its directory.
const KEEPER: &str = r#"
cat >/dev/null
kill -s "$1" "$2" 2>/dev/null
tries=0
while kill -0 "$2" 2>/dev/null && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -s KILL -- "-$2" 2>/dev/null
rm -rf -- "$3"
"#;

/// A running server in a process group and a directory of its own.
#[derive(Debug)]
pub struct Kept {
    server: Child,
    keeper: Child,
    directory: PathBuf,
}

impl Kept {
    /// Starts `server`. Its output goes to [`Kept::log`]; `polite` is the signal that asks it to
    /// stop (`TERM`, `INT`), and ten seconds later it is killed.
    pub fn start(server: &mut Command, directory: TempDir, polite: &str) -> Result<Kept> {
        let log = File::create(directory.path().join("log")).context("cannot create a log file")?;
        let name = server.get_program().to_string_lossy().into_owned();
        let server = server
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share the log file")?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let directory = directory.keep();
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper", polite, &server.id().to_string()])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start the keeper of {name}"))?;
        Ok(Kept { server, keeper, directory })
    }

    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.server.try_wait().ok().flatten()
    }

    /// Everything the server printed so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of [`Kept::log`], for an error message.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // In this order: the keeper waits for the server to be gone, and it is gone once reaped.
        let _ = self.server.wait();
        let _ = self.keeper.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_a_server_ends_it_and_removes_its_directory() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().to_owned();
        let kept =
            Kept::start(Command::new("sleep").arg("600"), directory, "TERM").expect("it starts");
        let process = kept.id().to_string();
        assert!(is_alive(&process) && path.exists());
        drop(kept);
        assert!(!is_alive(&process));
        assert!(!path.exists());
    }

    fn is_alive(process: &str) -> bool {
        let output = Command::new("kill").args(["-0", process]).output().unwrap();
        output.status.success()
    }
}
