//! The HTTP surface as its document promises it: lists, several changes at once, conditions,
//! content, and the document itself.

mod bulk;
mod conditions;
mod content;
mod damage;
mod heads;
mod lists;
mod memory;
mod openapi;
mod tags;
mod trees;
mod walks;

use modelyard::{ModelError, Server, ServiceBuilder};
use modelyard_testkit::{TestClient, TestDatabase, TestResponse};
use serde_json::{Map, Value, json};

use crate::peer_model;
use crate::support::{self, settings, until};

/// A service with everything that one may have.
pub fn service() -> ServiceBuilder {
    peer_model::service()
        .with_shell_tasks()
        .with_task("echo", |it: Map<String, Value>| async move { Ok(it) })
        .with_task("fail", |_: Map<String, Value>| async move {
            Err::<Value, _>(ModelError::of("ValueError", "as it should"))
        })
}

/// That service, running.
pub async fn start(database: &TestDatabase) -> (Server, TestClient) {
    support::start(service().build().unwrap(), settings(database)).await
}

/// The id of a new item.
pub async fn create(client: &TestClient, path: &str, body: &Value) -> String {
    id_of(&client.post(path, body).await.expect(201))
}

pub fn id_of(answer: &TestResponse) -> String {
    answer.body["id"].as_str().unwrap_or_else(|| panic!("no id in {}", answer.body)).to_owned()
}

/// The id of a job that is completed, once there is one.
pub async fn completed_job(client: &TestClient) -> String {
    let mut found = Vec::new();
    until("a job is completed", async || {
        found = ids(&client.get("/api/v1/jobs?status=completed").await.expect(200));
        !found.is_empty()
    })
    .await;
    found.remove(0)
}

/// A config named `name`.
pub fn config(name: &str) -> Value {
    json!({"name": name, "data": {}})
}

/// The path of a stored artifact with binary content.
pub async fn upload(client: &TestClient, media: &str, content: impl Into<bytes::Bytes>) -> String {
    let request = client.request(http::Method::POST, "/api/v1/artifacts/$upload");
    let answer = request.header("content-type", media).body(content).send().await.expect(201);
    format!("/api/v1/artifacts/{}", id_of(&answer))
}

/// The items of a list, whichever way it is paged.
#[track_caller]
pub fn items(answer: &TestResponse) -> Vec<Value> {
    let body = &answer.body;
    let list = body.as_array().or_else(|| body["items"].as_array());
    list.unwrap_or_else(|| panic!("{} {body}", answer.status)).clone()
}

/// The ids of a list, in its order.
#[track_caller]
pub fn ids(answer: &TestResponse) -> Vec<String> {
    items(answer).iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
}

/// Bytes that nothing can compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A text for a query.
pub fn encode(text: &str) -> String {
    text.bytes().map(|it| format!("%{it:02X}")).collect()
}
