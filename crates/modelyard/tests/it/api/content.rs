//! Content of artifacts: up, down, in ranges, and how it is kept.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::Method;
use modelyard_testkit::{TestClient, TestDatabase, TestResponse, on_both_databases};
use serde_json::{Value, json};

use super::{id_of, noise, start, upload};
use crate::support::settings;

/// Every file below a directory.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

pub fn blobs(database: &TestDatabase) -> PathBuf {
    settings(database).data.dir.join("blobs")
}

fn kept_bytes(database: &TestDatabase) -> u64 {
    files(&blobs(database)).iter().map(|it| it.metadata().unwrap().len()).sum()
}

async fn range(client: &TestClient, path: &str, headers: &[(&str, &str)]) -> TestResponse {
    let request = client.request(Method::GET, path);
    headers.iter().fold(request, |it, (name, value)| it.header(name, value)).send().await
}

on_both_databases! {
    async fn what_goes_up_comes_down(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let parent = upload(&client, "application/zip", noise(1, 10)).await;
        let parent = parent.rsplit('/').next().unwrap();
        // Nothing, little, exactly a chunk, and a bit more than several.
        for length in [0, 1, 1000, 1 << 20, (3 << 20) + 17] {
            let content = Bytes::from(noise(7, length));
            let path = format!("/api/v1/artifacts/$upload?parent_id={parent}&tags=raw,+big&filename=a.bin");
            let request = client.request(Method::POST, &path).header("content-type", "image/png");
            let made = request.body(content.clone()).send().await.expect(201);
            let id = id_of(&made);
            assert!(made.header("location").unwrap().ends_with(&format!("/api/v1/artifacts/{id}")));
            assert_eq!(made.body["tags"], json!(["raw", "big"]));
            assert_eq!(made.body["parent_id"], parent);
            assert_eq!(made.body["level"], 1);
            let data = &made.body["data"];
            assert_eq!(data["content_size"], length, "{data}");
            assert_eq!(data["metadata"]["filename"], "a.bin");
            assert_eq!(data["content"]["_type"], "bytes", "{data}");
            let down = client.get(&format!("/api/v1/artifacts/{id}/$download")).await.expect(200);
            assert_eq!(down.bytes, content, "{length}");
            assert_eq!(down.header("content-type"), Some("image/png"));
            assert_eq!(down.header("content-length"), Some(length.to_string().as_str()));
            assert_eq!(down.header("accept-ranges"), Some("bytes"));
            let name = format!("attachment; filename=artifact_{id}.png");
            assert_eq!(down.header("content-disposition"), Some(name.as_str()));
        }
        let unknown = "/api/v1/artifacts/$upload?parent_id=01ARZ3NDEKTSV4RRFFQ69G5FAV";
        client.request(Method::POST, unknown).body("x").send().await.expect(409);
        client.request(Method::POST, "/api/v1/artifacts/$upload?parent_id=x").body("x").send().await.expect(422);
        server.stop().await;
    }

    async fn ranges_are_given_as_the_rfc_has_them(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let length = (2 << 20) + 100;
        let content = noise(11, length);
        let path = format!("{}/$download", upload(&client, "application/octet-stream", content.clone()).await);
        let etag = client.get(&path).await.header("etag").unwrap().to_owned();
        let chunk = 1 << 20;
        for (asked, from, until) in [
            ("bytes=0-0".to_owned(), 0, 1),
            ("bytes=0-99".to_owned(), 0, 100),
            (format!("bytes={}-{}", chunk - 5, chunk + 4), chunk - 5, chunk + 5),
            (format!("bytes={chunk}-"), chunk, length),
            ("bytes=-7".to_owned(), length - 7, length),
            (format!("bytes=5-{}", length * 2), 5, length),
            (format!("bytes=-{}", length * 2), 0, length),
        ] {
            let part = range(&client, &path, &[("range", &asked)]).await.expect(206);
            assert!(part.bytes == content[from..until], "{asked}");
            let says = format!("bytes {from}-{}/{length}", until - 1);
            assert_eq!(part.header("content-range"), Some(says.as_str()), "{asked}");
            assert_eq!(part.header("content-length"), Some((until - from).to_string().as_str()));
            assert_eq!(part.header("etag"), Some(etag.as_str()));
        }
        // None, or more than one: the whole, as the RFC allows.
        for asked in ["bytes=9-5", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=-"] {
            let whole = range(&client, &path, &[("range", asked)]).await.expect(200);
            assert_eq!(whole.bytes.len(), length, "{asked}");
            assert_eq!(whole.header("content-range"), None, "{asked}");
        }
        for asked in [format!("bytes={length}-"), "bytes=-0".to_owned()] {
            let refused = range(&client, &path, &[("range", &asked)]).await.expect(416);
            assert_eq!(refused.body["code"], "range_unsatisfiable");
            let says = format!("bytes */{length}");
            assert_eq!(refused.header("content-range"), Some(says.as_str()), "{asked}");
        }
        let same = [("range", "bytes=0-9"), ("if-range", etag.as_str())];
        assert_eq!(range(&client, &path, &same).await.expect(206).bytes, content[..10]);
        let other = [("range", "bytes=0-9"), ("if-range", "\"other\"")];
        assert_eq!(range(&client, &path, &other).await.expect(200).bytes.len(), length);
        let fresh = [("range", "bytes=0-9"), ("if-none-match", etag.as_str())];
        range(&client, &path, &fresh).await.expect(304);
        server.stop().await;
    }

    async fn the_same_content_is_kept_once(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let content = noise(13, 300_000);
        let first = upload(&client, "application/zip", content.clone()).await;
        let once = files(&blobs(&database));
        assert_eq!(once.len(), 1);
        let mut paths = vec![first];
        for _ in 0..3 {
            paths.push(upload(&client, "application/zip", content.clone()).await);
        }
        let (a, b) = tokio::join!(
            upload(&client, "application/zip", content.clone()),
            upload(&client, "application/zip", content.clone()),
        );
        paths.extend([a, b]);
        assert_eq!(files(&blobs(&database)), once);
        for path in paths {
            let down = client.get(&format!("{path}/$download")).await.expect(200);
            assert!(down.bytes == content);
            // Whoever has another reference keeps it.
            client.delete(&path).await.expect(204);
        }
        upload(&client, "application/zip", noise(17, 300_000)).await;
        assert_eq!(files(&blobs(&database)).len(), 2);
        server.stop().await;
    }

    async fn text_is_kept_compressed_and_noise_as_it_is(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let text: String = (0..200_000).map(|it| format!("{it},north,{}\n", it % 7)).collect();
        let path = upload(&client, "text/csv", text.clone()).await;
        let kept = kept_bytes(&database);
        assert!(kept * 3 < text.len() as u64, "{kept} of {}", text.len());
        let down = client.get(&format!("{path}/$download")).await.expect(200);
        assert!(down.bytes == text.as_bytes());
        assert_eq!(down.header("content-type"), Some("text/csv; charset=utf-8"));
        let some = [("range", "bytes=1500000-1500009")];
        let part = range(&client, &format!("{path}/$download"), &some).await.expect(206);
        assert_eq!(part.bytes, text.as_bytes()[1_500_000..1_500_010]);
        upload(&client, "application/zip", noise(19, 1 << 20)).await;
        assert_eq!(kept_bytes(&database), kept + (1 << 20));
        server.stop().await;
    }

    async fn large_json_comes_back_as_it_was(database: TestDatabase) {
        let (server, client) = start(&database).await;
        // Kept apart from its row, with keys before and behind it.
        let content: Vec<Value> = (0..30_000).map(|it| json!({"row": it, "pi": 3.25})).collect();
        let data = json!({"b": 1, "content": content, "a": {"content": "inner"}, "\"quoted\"": "\u{e9}"});
        let body = json!({"data": data, "tags": ["data"]});
        let made = client.post("/api/v1/artifacts", &body).await.expect(201);
        assert_eq!(made.body["data"].to_string(), data.to_string());
        let path = format!("/api/v1/artifacts/{}", id_of(&made));
        let again = client.get(&path).await.expect(200);
        assert_eq!(again.bytes, made.bytes);
        let listed = client.get("/api/v1/artifacts").await.expect(200);
        assert_eq!(listed.body[0]["data"].as_object().unwrap().len(), 3, "without its content");
        let replaced = client.put(&path, &json!({"data": [1]})).await.expect(200);
        assert_eq!(replaced.body["data"], json!([1]));
        server.stop().await;
    }
}
