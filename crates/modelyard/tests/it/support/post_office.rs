//! Where the mails of a server go.

use std::time::Duration;

use modelyard_kernel::Background;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A server that takes mails, and gives the tokens of their links.
pub async fn post_office(background: &Background) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tokens, received) = mpsc::channel(16);
    let owner = background.clone();
    background.spawn(async move {
        loop {
            let connection = tokio::select! {
                it = listener.accept() => it.unwrap().0,
                () = owner.stopping().cancelled() => return,
            };
            let tokens = tokens.clone();
            owner.spawn(async move {
                let _client_went_away = take(connection, tokens).await;
            });
        }
    });
    (port, received)
}

async fn take(connection: TcpStream, tokens: mpsc::Sender<String>) -> std::io::Result<()> {
    let mut stream = BufReader::new(connection);
    stream.write_all(b"220 office ESMTP\r\n").await?;
    let (mut line, mut data) = (String::new(), None::<String>);
    while stream.read_line(&mut line).await? > 0 {
        let said = std::mem::take(&mut line);
        let reply = match &mut data {
            Some(mail) if said.trim_end() != "." => {
                mail.push_str(&said);
                continue;
            }
            Some(mail) => {
                let plain = mail.replace("=\r\n", "").replace("=3D", "=");
                if let Some((_, rest)) = plain.split_once("#token=") {
                    let _nobody_waits = tokens.try_send(rest.chars().take(43).collect());
                }
                data = None;
                "250 taken"
            }
            None if said.starts_with("EHLO") => "250-office\r\n250 AUTH PLAIN",
            None if said.starts_with("AUTH") => "235 welcome",
            None if said.starts_with("DATA") => {
                data = Some(String::new());
                "354 go on"
            }
            None => "250 ok",
        };
        stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
        stream.flush().await?;
    }
    Ok(())
}

/// The token of the next mail.
pub async fn mailed(tokens: &mut mpsc::Receiver<String>) -> String {
    let received = tokio::time::timeout(Duration::from_secs(20), tokens.recv()).await;
    received.expect("the mail comes").unwrap()
}
