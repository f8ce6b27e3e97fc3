//! Content of any size goes through the real program in constant memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use modelyard_kernel::background::compute;
use modelyard_testkit::on_both_databases;
use sha2::{Digest, Sha256};

use super::noise;
use crate::support::program::{self, Program};

const PIECE: usize = 64 << 10;
const PIECES: u64 = 800;

fn connect(address: &str) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    BufReader::new(stream)
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
fn send(address: &str, whole: &mut Sha256) -> String {
    let mut stream = connect(address);
    let to = stream.get_mut();
    to.write_all(
        b"POST /api/v1/artifacts/$upload HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n",
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

fn receive(address: &str, path: &str) -> Sha256 {
    let mut stream = connect(address);
    write!(stream.get_mut(), "GET {path}/$download HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
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
        let mut command = program::serve(&project, &database.dir().join("data"));
        command.arg("--database").arg(&database.url);
        let program = Program::start(command).await;
        let address = program.client.base().strip_prefix("http://").unwrap().to_owned();
        let before = program.peak_memory();
        let check = move || {
            let mut sent = Sha256::new();
            let path = send(&address, &mut sent);
            let received = receive(&address, &path);
            assert_eq!(received.finalize(), sent.finalize());
        };
        compute(check).await.unwrap();
        let grown = program.peak_memory().saturating_sub(before);
        let content = PIECES * PIECE as u64;
        // A few chunks are in flight at a time, each in the hands of a thread or two.
        assert!(grown < 32 << 20, "{grown} bytes more for {content}");
    }
}
