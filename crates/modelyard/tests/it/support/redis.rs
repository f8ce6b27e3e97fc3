//! A Redis of a test's own, which it may treat badly.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::until;

/// A server that is gone with the test.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    server: Child,
    directory: TempDir,
}

impl Redis {
    /// Starts one, and waits until it answers.
    pub async fn start() -> Self {
        let directory = TempDir::with_prefix("modelyard-redis-").unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let server = server(&directory, port);
        let it = Self { port, server, directory };
        it.answers().await;
        it
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it as a crash does. What it remembered is lost.
    pub async fn kill(&mut self) {
        self.server.kill().await.unwrap();
    }

    /// Starts it again.
    pub async fn revive(&mut self) {
        self.server = server(&self.directory, self.port);
        self.answers().await;
    }

    async fn answers(&self) {
        let port = self.port;
        until("Redis answers", async || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
            .await;
    }
}

fn server(directory: &TempDir, port: u16) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--save", "", "--appendonly", "no"]);
    command.current_dir(directory.path()).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| {
        panic!("redis-server cannot be started ({error}): install it, or run `cargo xtask test`")
    })
}
