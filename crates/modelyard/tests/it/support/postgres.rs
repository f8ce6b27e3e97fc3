//! A PostgreSQL of a test's own, which it may treat badly.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::until;

/// A cluster that is gone with the test.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    port: u16,
    server: Child,
    directory: TempDir,
}

impl Postgres {
    /// Makes one, and waits until it answers.
    pub async fn start() -> Self {
        let directory = TempDir::with_prefix("modelyard-postgres-").unwrap();
        let programs = programs();
        if let Some((user, group)) = unprivileged() {
            chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        let mut initdb = command(&programs, "initdb", directory.path());
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        initdb.args(["--no-sync", "--pgdata=data"]);
        let made = initdb.output().await.unwrap();
        assert!(made.status.success(), "{made:?}");
        let port = free_port();
        let server = server(&programs, directory.path(), port);
        let it = Self { programs, port, server, directory };
        it.answers().await;
        it
    }

    /// Makes one whose data, but for its log, is on a disk of so many megabytes: a file system of the
    /// process's own, which goes with it. [`Postgres::data`] is where it can be reached.
    pub async fn on_a_small_disk(megabytes: usize) -> Self {
        /// Mounting takes root, if only in a name space of its own, and PostgreSQL refuses root: so
        /// there is somebody else in another name space inside.
        const SMALL: &str = r#"
            mkdir disk && mount -t tmpfs -o "size=$3m" none disk
            exec unshare --user --map-user=1000 --map-group=1000 sh -ec '
                "$1/initdb" --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync \
                    --waldir="$PWD/wal" --pgdata=disk/data >&2
                exec "$1/postgres" -D disk/data -p "$2" -c listen_addresses=127.0.0.1 \
                    -c unix_socket_directories= -c fsync=off' sh "$1" "$2"
        "#;
        let directory = TempDir::with_prefix("modelyard-postgres-").unwrap();
        let (programs, port) = (programs(), free_port());
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-ec", SMALL, "sh"]);
        command.arg(&programs).args([port.to_string(), megabytes.to_string()]);
        let server = run(command.current_dir(directory.path()), directory.path());
        let it = Self { programs, port, server, directory };
        it.answers().await;
        it
    }

    /// Its data directory, as the process sees it.
    pub fn data(&self) -> PathBuf {
        let directory = self.directory.path().strip_prefix("/").unwrap();
        let root = Path::new("/proc").join(self.server.id().unwrap().to_string()).join("root");
        root.join(directory).join("disk/data")
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// `pg_ctl restart -m immediate`: every connection is torn, and what was committed is recovered
    /// from the log.
    pub async fn restart(&mut self) {
        let pid = Pid::from_raw(self.server.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::QUIT).unwrap();
        self.server.wait().await.unwrap();
        self.server = server(&self.programs, self.directory.path(), self.port);
        self.answers().await;
    }

    async fn answers(&self) {
        let mut ready = command(&self.programs, "pg_isready", self.directory.path());
        ready.args(["--host=127.0.0.1", "--username=postgres", "--port", &self.port.to_string()]);
        ready.stdout(Stdio::null());
        until("PostgreSQL answers", async || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
                && ready.status().await.unwrap().success()
        })
        .await;
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn server(programs: &Path, directory: &Path, port: u16) -> Child {
    let mut command = command(programs, "postgres", directory);
    command.args(["-D", "data", "-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
    // The system goes on when the server does not, so what was written is there.
    command.args(["-c", "unix_socket_directories=", "-c", "fsync=off"]);
    run(&mut command, directory)
}

fn run(command: &mut Command, directory: &Path) -> Child {
    let log = fs_err::OpenOptions::new().create(true).append(true).open(directory.join("log"));
    command.env("LC_ALL", "C");
    command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(log.unwrap().into_parts().0).spawn().unwrap()
}

fn command(programs: &Path, name: &str, directory: &Path) -> Command {
    let mut command = Command::new(programs.join(name));
    command.current_dir(directory).env("LC_ALL", "C");
    if let Some((user, group)) = unprivileged() {
        command.uid(user).gid(group);
    }
    command
}

/// What `PATH` has, or the newest of Debian's versions.
fn programs() -> PathBuf {
    let has = |it: &PathBuf| it.join("initdb").is_file() && it.join("pg_isready").is_file();
    let path = std::env::vars_os().find(|it| it.0 == "PATH").unwrap_or_default().1;
    let debian = fs_err::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |it: &PathBuf| it.file_name()?.to_str()?.parse::<u32>().ok();
    let mut versions: Vec<PathBuf> = debian.map(|it| it.path()).collect();
    versions.sort_by_key(|it| std::cmp::Reverse(version(it)));
    let versions = versions.into_iter().map(|it| it.join("bin"));
    std::env::split_paths(&path).chain(versions).find(has).expect(
        "this test needs the programs of a PostgreSQL server on PATH or in /usr/lib/postgresql",
    )
}

/// Whom to run it as: PostgreSQL refuses to be run by root.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let accounts = fs_err::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let line = accounts.lines().find(|it| it.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map_while(|it| it.parse().ok());
        Some((ids.next()?, ids.next()?))
    };
    Some(find("postgres").or_else(|| find("nobody")).expect("there is somebody who is not root"))
}
