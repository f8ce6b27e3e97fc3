//! A PostgreSQL of our own for one run: made in a temporary directory, on a free loopback port,
//! gone when the run is over.

use std::{
    env, fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{http, kept::Kept, shell};

/// Safety costs time and buys a database nothing that lives for one run. Two hundred connections,
/// because every test opens a pool of its own.
const FOR_TESTS: &[&str] = &[
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=200",
    "autovacuum=off",
];

/// As it is installed, with its queries counted.
const FOR_FIGURES: &[&str] = &["shared_preload_libraries=pg_stat_statements"];

/// Where tests make their databases: the server that `TEST_DATABASE_URL` names, or else one of our
/// own for as long as it is held.
pub fn of_tests() -> Result<(String, Option<Postgres>)> {
    if let Ok(url) = env::var("TEST_DATABASE_URL") {
        println!("using the PostgreSQL that TEST_DATABASE_URL names");
        return Ok((url, None));
    }
    let postgres = Postgres::start()?;
    Ok((postgres.url(), Some(postgres)))
}

/// A running cluster, stopped and removed when dropped.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    programs: PathBuf,
    _server: Kept,
}

impl Postgres {
    /// One that is quick and not safe.
    pub fn start() -> Result<Postgres> {
        Postgres::start_with(FOR_TESTS)
    }

    /// One as an operator has it.
    pub fn start_for_figures() -> Result<Postgres> {
        Postgres::start_with(FOR_FIGURES)
    }

    /// What it says of itself, such as `postgres (PostgreSQL) 17.2`.
    pub fn version(&self) -> Result<String> {
        let version = shell::read(Command::new(self.programs.join("postgres")).arg("--version"))?;
        Ok(version.trim().to_owned())
    }

    fn start_with(settings: &[&str]) -> Result<Postgres> {
        let programs = programs()?;
        let user = User::unprivileged()?;
        // Twice more, in case somebody takes the port between our look and the server's start.
        for _ in 0..2 {
            if let Ok(postgres) = Postgres::start_once(&programs, user, settings) {
                return Ok(postgres);
            }
        }
        Postgres::start_once(&programs, user, settings)
    }

    /// Where to connect, as a superuser, without a password.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn start_once(programs: &Path, user: Option<User>, settings: &[&str]) -> Result<Postgres> {
        let directory = TempDir::with_prefix("modelyard-postgres-")?;
        let data = directory.path().join("data");
        fs::create_dir(&data)?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
        let program = |name: &str| {
            let mut command = Command::new(programs.join(name));
            command.current_dir(directory.path()).env("LC_ALL", "C");
            if let Some(User { uid, gid }) = user {
                command.uid(uid).gid(gid);
            }
            command
        };
        if let Some(User { uid, gid }) = user {
            chown(&data, Some(uid), Some(gid))?;
            chown(directory.path(), Some(uid), Some(gid))?;
        }

        let made = program("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"])
            .args(["--no-sync", "--no-instructions", "--pgdata"])
            .arg(&data)
            .output()
            .context("cannot run initdb")?;
        if !made.status.success() {
            bail!("initdb ended with {}:\n{}", made.status, String::from_utf8_lossy(&made.stderr));
        }

        let port = http::free_port()?;
        let mut command = program("postgres");
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        let reachable = ["listen_addresses=127.0.0.1", "unix_socket_directories="];
        for setting in reachable.iter().chain(settings) {
            command.args(["-c", setting]);
        }
        // INT is PostgreSQL's fast shutdown: it does not wait for the clients to leave.
        let mut server = Kept::start(&mut command, directory, "INT")?;
        let started = Instant::now();
        while !server.log().contains("ready to accept connections") {
            if let Some(status) = server.ended() {
                bail!("postgres ended with {status}:\n{}", server.last_words());
            }
            if started.elapsed() > Duration::from_secs(60) {
                bail!("postgres is not ready after a minute:\n{}", server.last_words());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(Postgres { port, programs: programs.to_owned(), _server: server })
    }
}

/// The directory of `initdb` and `postgres`, installing them where we may.
fn programs() -> Result<PathBuf> {
    if let Some(found) = find_programs() {
        return Ok(found);
    }
    if !(is_root() && shell::is_installed("apt-get", &["--version"])) {
        bail!(
            "there is no PostgreSQL here: install a server, so that `initdb` and `postgres` are on \
             PATH or under /usr/lib/postgresql (Debian: `apt-get install postgresql`), or set \
             TEST_DATABASE_URL to one that is running"
        );
    }
    install()?;
    find_programs().context("Debian's postgresql package is installed and brought no initdb")
}

/// What PATH has, or the newest of Debian's versions.
fn find_programs() -> Option<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = debian
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(versions.into_iter().rev().map(|(_, directory)| directory))
        .find(|it| it.join("initdb").is_file() && it.join("postgres").is_file())
}

fn install() -> Result<()> {
    println!("there is no PostgreSQL here: installing Debian's package");
    // The package would make a cluster and start it; nobody asked for one.
    shell::apt_install("postgresql-common")?;
    let settings = Path::new("/etc/postgresql-common/createcluster.conf");
    let text = fs::read_to_string(settings).unwrap_or_default();
    fs::write(settings, format!("{text}\ncreate_main_cluster = false\n"))
        .with_context(|| format!("cannot write {}", settings.display()))?;
    shell::apt_install("postgresql")
}

/// PostgreSQL refuses to run as root.
#[derive(Debug, Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// Whom to run the server as: `None` is ourselves, who are not root.
    fn unprivileged() -> Result<Option<User>> {
        if !is_root() {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        let user = ["postgres", "nobody"].iter().find_map(|name| User::named(name, &accounts));
        Ok(Some(user.context("PostgreSQL refuses to run as root, and there is no other user")?))
    }

    fn named(name: &str, accounts: &str) -> Option<User> {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(User { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    }
}

pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let accounts = "root:x:0:0::/:/bin/sh\nnobody2:x:7:8::/:\nnobody:x:65534:65533::/:\n";
        let user = User::named("nobody", accounts).unwrap();
        assert_eq!((user.uid, user.gid), (65534, 65533));
        assert!(User::named("postgres", accounts).is_none());
    }
}
