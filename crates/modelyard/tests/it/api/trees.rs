//! Trees of artifacts under random changes, compared with what a plain model makes of them.

use std::collections::BTreeMap;

use modelyard_testkit::{TestClient, on_both_databases};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::{create, ids, start};

const PATH: &str = "/api/v1/artifacts";

/// What is done, to artifacts that are picked among those that there are.
#[derive(Clone, Debug)]
enum Change {
    Create(Option<Index>),
    /// Beneath another one, or to the top.
    Move(Index, Option<Index>),
    Delete(Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let parent = || proptest::option::weighted(0.8, any::<Index>());
    let change = prop_oneof![
        3 => parent().prop_map(Change::Create),
        3 => (any::<Index>(), parent()).prop_map(|(it, parent)| Change::Move(it, parent)),
        1 => any::<Index>().prop_map(Change::Delete),
    ];
    proptest::collection::vec(change, 5..25)
}

/// Every artifact with its parent and its level, which stays when the parent goes: what a model has
/// predicted is a prediction without it as well.
#[derive(Default)]
struct Model(BTreeMap<String, (Option<String>, i64)>);

impl Model {
    fn pick(&self, index: &Index) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.keys().nth(index.index(self.0.len())).unwrap().clone())
    }

    /// From an artifact up to its root, itself included.
    fn line<'a>(&'a self, id: &'a str) -> Vec<&'a str> {
        std::iter::successors(Some(id), |it| self.0[*it].0.as_deref()).collect()
    }

    fn level_below(&self, parent: Option<&String>) -> i64 {
        parent.map_or(0, |it| self.0[it].1 + 1)
    }

    /// Its descendants go with it.
    fn put_below(&mut self, id: &str, parent: Option<String>) {
        let by = self.level_below(parent.as_ref()) - self.0[id].1;
        let all: Vec<String> = self.0.keys().cloned().collect();
        let below: Vec<String> = all.into_iter().filter(|it| self.line(it).contains(&id)).collect();
        for it in below {
            self.0.get_mut(&it).unwrap().1 += by;
        }
        self.0.get_mut(id).unwrap().0 = parent;
    }

    fn children<'a>(&'a self, id: &str) -> Vec<&'a str> {
        let below = self.0.iter().filter(|it| it.1.0.as_deref() == Some(id));
        below.map(|it| it.0.as_str()).collect()
    }
}

async fn apply(client: &TestClient, model: &mut Model, change: &Change) {
    let body = |parent: &Option<String>| json!({"data": {}, "parent_id": parent});
    match change {
        Change::Create(parent) => {
            let parent = parent.and_then(|it| model.pick(&it));
            let id = create(client, PATH, &body(&parent)).await;
            let level = model.level_below(parent.as_ref());
            model.0.insert(id, (parent, level));
        }
        Change::Move(it, parent) => {
            let Some(id) = model.pick(it) else { return };
            let parent = parent.and_then(|it| model.pick(&it));
            let answer = client.put(&format!("{PATH}/{id}"), &body(&parent)).await;
            if parent.as_ref().is_some_and(|it| model.line(it).contains(&id.as_str())) {
                assert_eq!(answer.expect(400).body["code"], "artifact_circle");
            } else {
                assert_eq!(answer.expect(200).body["parent_id"], json!(parent));
                model.put_below(&id, parent);
            }
        }
        Change::Delete(it) => {
            let Some(id) = model.pick(it) else { return };
            client.delete(&format!("{PATH}/{id}")).await.expect(204);
            model.0.remove(&id);
            for it in model.0.values_mut().filter(|it| it.0.as_deref() == Some(&id)) {
                it.0 = None;
            }
        }
    }
}

/// The ids of a tree, each with those of its children.
fn shape(node: &Value) -> Value {
    let mut children: Vec<Value> = node["children"].as_array().unwrap().iter().map(shape).collect();
    children.sort_by_key(ToString::to_string);
    json!([node["id"], children])
}

fn expected(model: &Model, id: &str) -> Value {
    let children = model.children(id).into_iter().map(|it| expected(model, it));
    let mut children: Vec<Value> = children.collect();
    children.sort_by_key(ToString::to_string);
    json!([id, children])
}

async fn compare(client: &TestClient, model: &Model) {
    let listed = client.get(PATH).await.expect(200);
    assert_eq!(ids(&listed), model.0.keys().map(String::as_str).collect::<Vec<_>>());
    for item in listed.body.as_array().unwrap() {
        let id = item["id"].as_str().unwrap();
        assert_eq!(item["parent_id"], json!(model.0[id].0), "{id}");
        assert_eq!(item["level"], json!(model.0[id].1), "{id}");
        let tree = client.get(&format!("{PATH}/{id}/$tree")).await.expect(200).body;
        assert_eq!(shape(&tree), expected(model, id), "{tree}");
        let below = client.get(&format!("{PATH}?parent_id={id}&fields=id")).await.expect(200);
        assert_eq!(ids(&below), model.children(id), "{id}");
    }
}

on_both_databases! {
    async fn trees_are_what_a_plain_model_makes_of_the_same_changes(database: TestDatabase) {
        let (server, client) = start(&database).await;
        let handle = Handle::current();
        let config = Config { cases: 30, failure_persistence: None, ..Config::default() };
        let run = TestRunner::new(config).run(&changes(), |changes| {
            let work = async {
                let mut model = Model::default();
                for change in &changes {
                    apply(&client, &mut model, change).await;
                }
                compare(&client, &model).await;
                for id in model.0.keys() {
                    client.delete(&format!("{PATH}/{id}")).await.expect(204);
                }
            };
            tokio::task::block_in_place(|| handle.block_on(work));
            Ok(())
        });
        run.unwrap();
        server.stop().await;
    }
}
