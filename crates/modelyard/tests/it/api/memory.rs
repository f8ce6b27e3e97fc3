//! Content of any size goes through the real program in constant memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use modelyard_testkit::{TestDatabase, on_both_databases};
use sha2::{Digest, Sha256};

use super::noise;

const PIECE: usize = 64 << 10;
const PIECES: u64 = 800;

/// The program, killed when the test ends.
struct Program {
    child: Child,
    port: u16,
}

impl Program {
    fn start(database: &TestDatabase, project: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(env!("CARGO_BIN_EXE_modelyard"))
            .arg("serve")
            .arg(project)
            .args(["--port", &port.to_string(), "--database", &database.url, "--data-dir"])
            .arg(database.dir().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let program = Self { child, port };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "the program does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        program
    }

    /// The most memory it has had so far, in bytes.
    fn peak(&self) -> u64 {
        let status = fs_err::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        BufReader::new(stream)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Reads status line and headers.
fn head(stream: &mut BufReader<TcpStream>) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => return lines,
            line => lines.push(line.to_lowercase()),
        }
    }
}

fn length(head: &[String]) -> usize {
    head.iter().find_map(|it| it.strip_prefix("content-length: ")).unwrap().parse().unwrap()
}

/// Sends the content in chunks whose number is not known beforehand. Returns the artifact's path.
fn send(program: &Program, whole: &mut Sha256) -> String {
    let mut stream = program.connect();
    let to = stream.get_mut();
    to.write_all(
        b"POST /api/v1/artifacts/$upload HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
    )
    .unwrap();
    for number in 0..PIECES {
        let piece = noise(2 * number + 1, PIECE);
        whole.update(&piece);
        write!(to, "{PIECE:x}\r\n").unwrap();
        to.write_all(&piece).unwrap();
        to.write_all(b"\r\n").unwrap();
    }
    to.write_all(b"0\r\n\r\n").unwrap();
    let head = head(&mut stream);
    assert!(head[0].starts_with("http/1.1 201"), "{head:?}");
    let location = head.iter().find_map(|it| it.strip_prefix("location: ")).unwrap();
    let at = location.find("/api/").unwrap();
    location[at..].to_uppercase().replace("/API/V1/ARTIFACTS", "/api/v1/artifacts")
}

fn receive(program: &Program, path: &str) -> Sha256 {
    let mut stream = program.connect();
    write!(stream.get_mut(), "GET {path}/$download HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let head = head(&mut stream);
    assert!(head[0].starts_with("http/1.1 200"), "{head:?}");
    let (mut left, mut whole, mut buffer) = (length(&head), Sha256::new(), vec![0; PIECE]);
    while left > 0 {
        let many = left.min(buffer.len());
        let read = stream.read(&mut buffer[..many]).unwrap();
        assert_ne!(read, 0, "cut off with {left} bytes left");
        whole.update(&buffer[..read]);
        left -= read;
    }
    whole
}

on_both_databases! {
    async fn fifty_megabytes_go_up_and_down_in_constant_memory(database: TestDatabase) {
        let project = database.dir().join("project");
        fs_err::create_dir(&project).unwrap();
        fs_err::write(project.join("MLproject"), "name: memory\nentry_points:\n  train:\n    \
            command: \"true\"\n  predict:\n    command: \"true\"\n").unwrap();
        let check = move || {
            let program = Program::start(&database, &project);
            let before = program.peak();
            let mut sent = Sha256::new();
            let path = send(&program, &mut sent);
            let received = receive(&program, &path);
            assert_eq!(received.finalize(), sent.finalize());
            let grown = program.peak().saturating_sub(before);
            let content = PIECES * PIECE as u64;
            // A few chunks are in flight at a time, each in the hands of a thread or two.
            assert!(grown < 32 << 20, "{grown} bytes more for {content}");
        };
        tokio::task::spawn_blocking(check).await.unwrap();
    }
}
