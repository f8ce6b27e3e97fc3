//! Where the program lives its lives: a project whose trainings write a ledger, and a database.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use modelyard_testkit::TestClient;
use rustix::process::Signal;
use tokio::process::Command;
use tokio::sync::watch;

use super::ledger::{self, Line, TRAIN};
use crate::support::program::{BINARY, Program, Project, Starting, plain, serve};
use crate::support::{SECRET, files, until};

/// How long the end of a process may take.
const SOON: Duration = Duration::from_secs(20);

/// Everything of one node that outlives the program.
#[derive(Debug)]
pub(super) struct Site {
    project: Arc<Project>,
    data: PathBuf,
    /// Where content is that several nodes share.
    blobs: Option<PathBuf>,
    database: String,
    concurrency: usize,
    /// Whether the program that serves does no jobs.
    serves_only: bool,
    /// The program that serves now.
    server: watch::Sender<Option<TestClient>>,
}

impl Site {
    /// A site on the database at this address.
    pub(super) fn new(database: &str, concurrency: usize) -> Self {
        let (project, database) = (Arc::new(Project::new(TRAIN)), database.to_owned());
        let (data, server) = (project.data(), watch::Sender::new(None));
        Self { project, data, blobs: None, database, concurrency, serves_only: false, server }
    }

    /// A site with a store of content that others may share.
    pub(super) fn shared(database: &str) -> Self {
        let mut site = Self::new(database, 1);
        let blobs = site.project.path().with_file_name("shared-blobs");
        fs_err::create_dir(&blobs).unwrap();
        site.blobs = Some(blobs);
        site
    }

    /// Two nodes on one database and one store of content.
    pub(super) fn pair(database: &str) -> (Self, Self) {
        let first = Self::shared(database);
        let second = first.beside("data-2");
        (first, second)
    }

    /// Another node on the same database and store of content, with data of its own.
    pub(super) fn beside(&self, data: &str) -> Self {
        let data = self.project.path().with_file_name(data);
        let mut other = self.without_workers();
        other.data = data;
        other.serves_only = self.serves_only;
        other.server = watch::Sender::new(None);
        other
    }

    /// The same node, which does no jobs when it serves.
    pub(super) fn without_workers(&self) -> Self {
        Self {
            project: Arc::clone(&self.project),
            data: self.data.clone(),
            blobs: self.blobs.clone(),
            database: self.database.clone(),
            concurrency: self.concurrency,
            serves_only: true,
            server: self.server.clone(),
        }
    }

    /// The program, as it is started here.
    pub(super) fn serve(&self) -> Command {
        let mut command = self.equipped(serve(&self.project.path(), &self.data));
        if self.serves_only {
            command.arg("--no-workers");
        }
        command
    }

    fn equipped(&self, mut command: Command) -> Command {
        if let Some(blobs) = &self.blobs {
            command.env("MODELYARD_BLOBS__URL", format!("file://{}", blobs.display()));
        }
        command.arg("--database").arg(&self.database);
        command.env("MODELYARD_ACCESS__SECRET", SECRET);
        command.env("MODELYARD_JOBS__CONCURRENCY", self.concurrency.to_string());
        // What the tests leave running they do not wait for.
        command.env("MODELYARD_JOBS__DRAIN", "1ms").env("MODELYARD_SERVER__DRAIN", "100ms");
        let log = fs_err::OpenOptions::new().create(true).append(true).open(self.log());
        command.stderr(log.unwrap().into_parts().0);
        command
    }

    /// Starts a process that does jobs and nothing else.
    pub(super) fn work(&self) -> Starting {
        let mut command = Command::new(BINARY);
        command.arg("worker").arg(self.project.path()).arg("--data-dir").arg(&self.data);
        command.args(["--queues", "train,predict,batch"]);
        Starting::new(self.equipped(plain(command)))
    }

    /// Works until `moment`, wherever it is then.
    pub(super) async fn work_until(&self, moment: Duration) {
        let mut process = self.work();
        tokio::time::sleep(moment).await;
        if let Some(status) = process.has_ended() {
            panic!("it ended by itself: {status}");
        }
        process.signal(Signal::KILL);
        process.ended(SOON).await;
    }

    /// Asks a process that works to stop, and looks at what it leaves behind.
    pub(super) async fn stop_working(&self, mut process: Starting) {
        process.signal(Signal::TERM);
        let status = process.ended(SOON).await;
        assert!(status.success(), "{status}");
        self.nothing_is_left().await;
    }

    /// Whoever serves now, and when that changes.
    pub(super) fn server(&self) -> watch::Receiver<Option<TestClient>> {
        self.server.subscribe()
    }

    /// Lives until `moment`, wherever it is then.
    pub(super) async fn live(&self, moment: Duration) {
        let mut process = Starting::new(self.serve());
        let serving = async {
            self.server.send_replace(process.serves().await);
            std::future::pending::<()>().await;
        };
        let _its_time_has_come = tokio::time::timeout(moment, serving).await;
        if let Some(status) = process.has_ended() {
            panic!("it ended by itself: {status}");
        }
        process.signal(Signal::KILL);
        process.ended(SOON).await;
        self.server.send_replace(None);
    }

    /// Lives until a training has begun, and dies in the middle of it.
    pub(super) async fn live_until_begun(&self) {
        let begun = self.ledger().len();
        let program = self.start().await;
        until("a training begins", async || self.ledger().len() > begun).await;
        self.kill(program).await;
    }

    /// Ends a life.
    pub(super) async fn kill(&self, mut program: Program) {
        program.signal(Signal::KILL);
        program.ended(SOON).await;
        self.server.send_replace(None);
    }

    /// Lives until it ends by itself, at a place where it was told to.
    pub(super) async fn live_until(&self, place: &str, within: Duration) {
        use std::os::unix::process::ExitStatusExt;

        let mut command = self.serve();
        command.env("MODELYARD_FAILPOINT", place);
        let mut process = Starting::new(command);
        self.server.send_replace(process.serves().await);
        let ended = tokio::time::timeout(within, process.ended(within)).await;
        let status = ended.unwrap_or_else(|_| panic!("it never gets to {place}"));
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{place}: {status}");
        self.server.send_replace(None);
    }

    /// Lives until [`Site::stop`].
    pub(super) async fn start(&self) -> Program {
        let program = Program::start(self.serve()).await;
        self.server.send_replace(Some(program.client.clone()));
        program
    }

    /// Asks the program to stop, and looks at what it leaves behind.
    pub(super) async fn stop(&self, mut program: Program) {
        program.signal(Signal::TERM);
        let status = program.ended(SOON).await;
        assert!(status.success(), "{status}");
        self.server.send_replace(None);
        self.nothing_is_left().await;
    }

    /// Looks at what an ended program left behind: no process, no workspace, no stray file.
    async fn nothing_is_left(&self) {
        until("no process is left", async || self.processes().is_empty()).await;
        let left = self.workspaces();
        assert!(left.is_empty(), "stray directories: {:?}", files(&self.data.join("work")));
        for it in entries(&self.data) {
            let name = it.file_name().unwrap().to_str().unwrap();
            let known = ["lock", "node", "secret", "blobs", "work"].contains(&name)
                || name.starts_with("modelyard.db");
            assert!(known, "a stray {name}");
        }
    }

    /// Whether other nodes share its work.
    pub(super) fn is_one_of_several(&self) -> bool {
        self.blobs.is_some()
    }

    /// What trainings did so far.
    pub(super) fn ledger(&self) -> Vec<Line> {
        ledger::read(&self.project.mark())
    }

    /// Workspaces that are there now.
    pub(super) fn workspaces(&self) -> Vec<PathBuf> {
        entries(&self.data.join("work"))
    }

    /// The command lines of processes that belong to a workspace of this site.
    pub(super) fn processes(&self) -> Vec<String> {
        let mark = format!("MODELYARD_WORKSPACE={}", self.data.display());
        let ours = |process: &Path| {
            let environment = fs_err::read(process.join("environ")).unwrap_or_default();
            environment.split(|it| *it == 0).any(|it| it.starts_with(mark.as_bytes()))
        };
        let found = entries(Path::new("/proc")).into_iter().filter(|it| ours(it));
        let line = |it: PathBuf| fs_err::read(it.join("cmdline")).unwrap_or_default();
        found.map(|it| String::from_utf8_lossy(&line(it)).replace('\0', " ")).collect()
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs_err::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<&str> =
                log.lines().filter(|it| !it.contains(" INFO request ")).collect();
            println!("its last words:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|it| it.path()).filter(|it| !it.as_os_str().as_bytes().is_empty()).collect()
}
