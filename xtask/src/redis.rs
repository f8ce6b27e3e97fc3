//! A Redis of our own for one run, as `postgres` has one of PostgreSQL.

use std::{
    env,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tempfile::TempDir;

use crate::{http, kept::Kept, postgres::is_root, shell};

const PROGRAM: &str = "redis-server";

/// Where tests count: the server that `TEST_REDIS_URL` names, or else one of our own for as long as it is
/// held. Some tests start one more, to kill it.
pub fn of_tests() -> Result<(String, Option<Redis>)> {
    install()?;
    if let Ok(url) = env::var("TEST_REDIS_URL") {
        println!("using the Redis that TEST_REDIS_URL names");
        return Ok((url, None));
    }
    let redis = Redis::start()?;
    Ok((redis.url(), Some(redis)))
}

/// A running server, stopped and removed when dropped.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    _server: Kept,
}

impl Redis {
    /// One that keeps nothing.
    pub fn start() -> Result<Redis> {
        // Twice more, in case somebody takes the port between our look and the server's start.
        for _ in 0..2 {
            if let Ok(redis) = Redis::start_once() {
                return Ok(redis);
            }
        }
        Redis::start_once()
    }

    /// Where to connect.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn start_once() -> Result<Redis> {
        let directory = TempDir::with_prefix("modelyard-redis-")?;
        let port = http::free_port()?;
        let mut command = Command::new(PROGRAM);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--appendonly", "no"]).current_dir(directory.path());
        let mut server = Kept::start(&mut command, directory, "TERM")?;
        let started = Instant::now();
        while !server.log().contains("Ready to accept connections") {
            if let Some(status) = server.ended() {
                bail!("{PROGRAM} ended with {status}:\n{}", server.last_words());
            }
            if started.elapsed() > Duration::from_secs(60) {
                bail!("{PROGRAM} is not ready after a minute:\n{}", server.last_words());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Redis { port, _server: server })
    }
}

/// Installs the server where we may and there is none.
fn install() -> Result<()> {
    if shell::is_installed(PROGRAM, &["--version"]) {
        return Ok(());
    }
    if !(is_root() && shell::is_installed("apt-get", &["--version"])) {
        bail!(
            "there is no Redis here: install a server, so that `{PROGRAM}` is on PATH (Debian: \
             `apt-get install redis-server`)"
        );
    }
    println!("there is no Redis here: installing Debian's package");
    shell::apt_install(PROGRAM)
}
