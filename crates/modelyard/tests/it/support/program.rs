//! The program itself: started as an operator starts it, signalled, killed.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use modelyard_testkit::TestClient;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The built program.
pub const BINARY: &str = env!("CARGO_BIN_EXE_modelyard");

/// A directory with a project of two shell scripts and room for a server's data.
#[derive(Debug)]
pub struct Project {
    directory: TempDir,
}

impl Project {
    /// A project whose training is this script. Its first argument is [`Project::mark`], and it
    /// must leave a file `model`; prediction copies the future.
    pub fn new(train: &str) -> Self {
        let directory = TempDir::with_prefix("modelyard-program-").unwrap();
        let it = Self { directory };
        let project = it.path();
        fs_err::create_dir(&project).unwrap();
        let manifest = format!(
            "[service]\nid = \"scripts\"\ndisplay_name = \"Scripts\"\n\n[runner]\n\
             train = \"sh train.sh {}\"\n\
             predict = \"cp {{future_file}} {{output_file}}\"\n",
            it.mark().display()
        );
        fs_err::write(project.join("modelyard.toml"), manifest).unwrap();
        fs_err::write(project.join("train.sh"), train).unwrap();
        it
    }

    /// The directory of the project.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("project")
    }

    /// The data directory of its server.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A path that only this project's scripts know: they may make a file of it, and it stands in
    /// the command line of the processes that it is given to.
    pub fn mark(&self) -> PathBuf {
        self.directory.path().join("mark")
    }

    /// Workspaces that are there now.
    pub fn workspaces(&self) -> Vec<PathBuf> {
        let entries = fs_err::read_dir(self.data().join("work")).into_iter().flatten().flatten();
        entries.map(|it| it.path()).collect()
    }

    /// The command lines of its scripts' processes that are there now.
    pub fn processes(&self) -> Vec<String> {
        let mark = self.mark().display().to_string();
        let entries = fs_err::read_dir("/proc").unwrap().flatten();
        let lines = entries.filter_map(|it| fs_err::read(it.path().join("cmdline")).ok());
        let lines = lines.map(|it| String::from_utf8_lossy(&it).replace('\0', " "));
        // The shell that starts a command has it in its own command line.
        lines.filter(|it| it.contains(&mark)).collect()
    }

    /// `modelyard serve` for it, which listens where there is room.
    pub fn serve(&self) -> Command {
        serve(&self.path(), &self.data())
    }
}

impl Drop for Project {
    /// A test that fails must leave nothing running.
    fn drop(&mut self) {
        for entry in fs_err::read_dir("/proc").into_iter().flatten().flatten() {
            let line = fs_err::read(entry.path().join("cmdline")).unwrap_or_default();
            let mark = self.mark().display().to_string();
            let pid = entry.file_name().to_str().and_then(|it| Pid::from_raw(it.parse().ok()?));
            if let Some(pid) = pid.filter(|_| String::from_utf8_lossy(&line).contains(&mark)) {
                let _gone_already = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// `modelyard serve` on a free port, with nothing of the tester's environment but the path.
pub fn serve(project: &Path, data: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("serve").arg(project).arg("--data-dir").arg(data);
    let mut command = plain(command);
    command.env("MODELYARD_SERVER__PORT", "0");
    command
}

/// A command without the tester's environment, ended with the test.
pub fn plain(mut command: Command) -> Command {
    let path = std::env::vars_os().find(|it| it.0 == "PATH");
    command.env_clear().envs(path).kill_on_drop(true).stdin(Stdio::null());
    command
}

/// A program that was started and may not serve yet.
#[derive(Debug)]
pub struct Starting {
    child: Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Starting {
    /// Starts it.
    pub fn new(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines: Some(lines) }
    }

    /// A client of it, once it says where it listens; none when it ends before.
    pub async fn serves(&mut self) -> Option<TestClient> {
        let mut lines = self.lines.take()?;
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some((_, url)) = line.split_once(" is served at ") {
                return Some(TestClient::new(url));
            }
        }
        None
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let ended = tokio::time::timeout(within, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("it has not ended within {within:?}")).unwrap()
    }

    /// How it ended, if it did.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

/// A running program.
#[derive(Debug)]
pub struct Program {
    process: Starting,
    /// Speaks to it.
    pub client: TestClient,
}

impl Program {
    /// Starts it, and waits until it says where it listens.
    pub async fn start(command: Command) -> Self {
        let mut process = Starting::new(command);
        let served = tokio::time::timeout(Duration::from_secs(30), process.serves()).await;
        let Some(client) = served.expect("it serves within half a minute") else {
            panic!("it ends before it serves: {:?}", process.child.wait().await);
        };
        Self { process, client }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        self.process.ended(within).await
    }

    /// The most memory that it has had at once, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = fs_err::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let peak = status.lines().find_map(|it| it.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    }
}
