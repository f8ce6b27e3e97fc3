//! A small HTTP/1.1 client on one kept-alive connection: light enough to load a server with, and to
//! ask it whether it is up.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::kept::Kept;

/// Longer than any answer takes, so that a server which hangs fails a run instead of stopping it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A loopback port that nobody listens on.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no loopback port")?;
    Ok(listener.local_addr().context("no loopback port")?.port())
}

/// Waits until `GET /health` answers 200.
pub fn wait_until_healthy(server: &mut Kept, port: u16, limit: Duration) -> Result<()> {
    let started = Instant::now();
    loop {
        let healthy = Connection::open(port).and_then(|mut it| it.send("GET", "/health", b""));
        if healthy.is_ok_and(|answer| answer.status == 200) {
            return Ok(());
        }
        if let Some(status) = server.ended() {
            bail!("the server ended with {status}:\n{}", server.last_words());
        }
        if started.elapsed() > limit {
            bail!("the server is not healthy after {limit:?}:\n{}", server.last_words());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// The cookie that it sets, as a browser sends it: `name=value`.
    pub cookie: Option<String>,
}

impl Answer {
    /// The body as JSON, of an answer in the two hundreds.
    pub fn json(&self) -> Result<Value> {
        let text = String::from_utf8_lossy(&self.body);
        ensure!((200..300).contains(&self.status), "status {}: {text}", self.status);
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {text}"))
    }
}

/// A connection to a server on this machine, opened again when the server closed it.
#[derive(Debug)]
pub struct Connection {
    port: u16,
    stream: BufReader<TcpStream>,
    closed: bool,
    line: String,
}

impl Connection {
    pub fn open(port: u16) -> Result<Connection> {
        Ok(Connection { port, stream: connect(port)?, closed: false, line: String::new() })
    }

    /// One request and its whole answer; a body that is not empty is sent as JSON.
    pub fn send(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        self.send_with(method, path, &[], body)
    }

    /// Like [`Connection::send`], with more headers.
    pub fn send_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        if self.closed {
            self.stream = connect(self.port)?;
            self.closed = false;
        }
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n").into_bytes();
        for (name, value) in headers {
            write!(request, "{name}: {value}\r\n")?;
        }
        if !body.is_empty() || method != "GET" {
            write!(
                request,
                "content-type: application/json\r\ncontent-length: {}\r\n",
                body.len()
            )?;
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request).context("cannot send a request")?;
        self.read_answer().with_context(|| format!("no answer to {method} {path}"))
    }

    fn read_answer(&mut self) -> Result<Answer> {
        let status = self.read_line()?.split(' ').nth(1).and_then(|it| it.parse().ok());
        let status = status.context("not an HTTP/1.1 status line")?;
        let (mut length, mut chunked, mut closes, mut cookie) = (None, false, false, None);
        loop {
            let line = self.read_line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.parse::<usize>()?),
                "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
                "connection" => closes = value.eq_ignore_ascii_case("close"),
                "set-cookie" => cookie = value.split(';').next().map(str::to_owned),
                _ => {}
            }
        }
        self.closed = closes;
        let mut body = Vec::new();
        if chunked {
            loop {
                let size = usize::from_str_radix(self.read_line()?.trim(), 16)?;
                self.read_exactly(size, &mut body)?;
                self.read_line()?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = length {
            self.read_exactly(length, &mut body)?;
        }
        Ok(Answer { status, body, cookie })
    }

    fn read_line(&mut self) -> Result<&str> {
        self.line.clear();
        let read = self.stream.read_line(&mut self.line).context("cannot read an answer")?;
        ensure!(read > 0, "the server closed the connection");
        Ok(self.line.trim_end())
    }

    fn read_exactly(&mut self, length: usize, body: &mut Vec<u8>) -> Result<()> {
        let read = (&mut self.stream).take(length as u64).read_to_end(body)?;
        ensure!(read == length, "the answer was cut short");
        Ok(())
    }
}

fn connect(port: u16) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("nobody listens on port {port}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::with_capacity(64 * 1024, stream))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Answers one connection with `script`, whatever it is asked.
    fn server(script: &'static [u8]) -> Connection {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(script).unwrap();
        });
        Connection::open(port).unwrap()
    }

    #[test]
    fn an_answer_with_a_length_is_read_to_its_end() {
        let mut connection = server(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"a\": 1}");
        let answer = connection.send("GET", "/", b"").unwrap();
        assert_eq!(answer.json().unwrap()["a"], 1);
        assert_eq!(answer.cookie, None);
    }

    #[test]
    fn a_cookie_is_read_without_its_attributes() {
        let mut connection = server(
            b"HTTP/1.1 204 No Content\r\nSet-Cookie: a=b=; Path=/\r\nContent-Length: 0\r\n\r\n",
        );
        let answer = connection.send_with("GET", "/", &[("accept", "*/*")], b"").unwrap();
        assert_eq!(answer.cookie.as_deref(), Some("a=b="));
    }

    #[test]
    fn an_answer_in_chunks_is_put_together() {
        let mut connection = server(
            b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        );
        let answer = connection.send("GET", "/", b"").unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (404, b"abcde".as_slice()));
    }

    #[test]
    fn an_answer_that_is_cut_short_is_an_error() {
        let mut connection = server(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{}");
        assert!(connection.send("GET", "/", b"").is_err());
    }
}
