//! Content that was damaged where it is kept is never given out as if it were right.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use modelyard_kernel::background::compute;
use modelyard_testkit::on_both_databases;

use super::content::{blobs, files};
use super::{noise, start, upload};

/// Status and body as they come over the wire, and whether the body was as long as it was to be.
struct Raw {
    status: u16,
    body: Vec<u8>,
    whole: bool,
}

/// Asks without a client that would hide how the answer ends.
fn ask(address: SocketAddr, path: &str, header: &str) -> Raw {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n\r\n"
    )
    .unwrap();
    let mut all = Vec::new();
    // Cut off, a connection may end in an error as well as in silence.
    let _cut = stream.read_to_end(&mut all);
    let Some(end) = all.windows(4).position(|it| it == b"\r\n\r\n").map(|it| it + 4) else {
        // Cut off before it began.
        return Raw { status: 0, body: Vec::new(), whole: false };
    };
    let head = String::from_utf8_lossy(&all[..end]).to_lowercase();
    let length = head.lines().find_map(|it| it.strip_prefix("content-length: "));
    let length = length.unwrap_or_else(|| panic!("{header}: {head}"));
    let (body, length) = (all[end..].to_vec(), length.parse::<usize>().unwrap());
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Raw { status, whole: body.len() == length, body }
}

on_both_databases! {
    async fn damage_cuts_the_answer_off_and_gives_no_wrong_byte(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let text = "line of text\n".repeat(300_000);
        for content in [noise(23, 3 << 20), text.into_bytes()] {
            let path = upload(&client, "application/octet-stream", content.clone()).await;
            let path = format!("{path}/$download");
            let address = server.address();
            let get = async |header: &str| {
                let (path, header) = (path.clone(), header.to_owned());
                compute(move || ask(address, &path, &header)).await.unwrap()
            };
            let good = get("").await;
            assert!(good.whole && good.body == content);

            let object = files(&blobs(&database)).pop().unwrap();
            let sound = fs_err::read(&object).unwrap();
            let mut flipped = sound.clone();
            let at = sound.len() * 2 / 3;
            flipped[at] ^= 0x40;
            let cut = sound[..at].to_vec();
            for damaged in [flipped, cut, Vec::new()] {
                fs_err::write(&object, damaged).unwrap();
                for header in ["", "range: bytes=2000000-2999999", "range: bytes=-1000000"] {
                    let bad = get(header).await;
                    let expected = match header {
                        "" => &content[..],
                        "range: bytes=2000000-2999999" => &content[2_000_000..3_000_000],
                        _ => &content[content.len() - 1_000_000..],
                    };
                    if (1..300).contains(&bad.status) {
                        assert!(expected.starts_with(&bad.body), "wrong bytes: {header}");
                        assert!(!bad.whole || bad.body == expected, "{header}");
                    } else if bad.status > 0 {
                        assert!(bad.status >= 500, "{header}: {}", bad.status);
                    }
                    let noticed = bad.status >= 500 || !bad.whole;
                    assert!(!header.is_empty() || noticed, "the damage went unnoticed");
                }
            }
            fs_err::remove_file(&object).unwrap();
            let gone = get("").await;
            assert!(gone.status >= 500 || !gone.whole);
            fs_err::write(&object, sound).unwrap();
            assert!(get("").await.body == content);
            client.delete(path.trim_end_matches("/$download")).await.expect(204);
            fs_err::remove_file(&object).unwrap();
        }
        server.stop().await;
    }
}
