//! One operation of the document, as far as its completion looks into it.

use serde_json::{Map, Value, json};

use crate::permissions::is_open;

/// An operation that is being completed.
pub(super) struct Operation<'a> {
    pub(super) path: &'a str,
    pub(super) method: &'a str,
    fields: &'a mut Map<String, Value>,
}

/// Looks at each operation.
pub(super) fn each(root: &mut Map<String, Value>, mut look: impl FnMut(&mut Operation<'_>)) {
    let paths = root.get_mut("paths").and_then(Value::as_object_mut);
    for (path, methods) in paths.into_iter().flatten() {
        for (method, fields) in methods.as_object_mut().into_iter().flatten() {
            if let Some(fields) = fields.as_object_mut() {
                look(&mut Operation { path, method, fields });
            }
        }
    }
}

impl Operation<'_> {
    /// The name of its handler.
    pub(super) fn id(&self) -> &str {
        self.fields.get("operationId").and_then(Value::as_str).unwrap_or_default()
    }

    /// Its group.
    pub(super) fn tag(&self) -> Option<&str> {
        self.fields.get("tags")?.get(0)?.as_str()
    }

    /// Whether it needs no key.
    pub(super) fn is_open(&self) -> bool {
        is_open(self.path)
    }

    pub(super) fn has_body(&self) -> bool {
        self.fields.contains_key("requestBody")
    }

    pub(super) fn has_path_parameters(&self) -> bool {
        self.path.contains('{')
    }

    pub(super) fn has_query(&self) -> bool {
        self.names("query").next().is_some()
    }

    /// The names of its parameters in a place.
    pub(super) fn names(&self, place: &str) -> impl Iterator<Item = &str> {
        let parameters = self.fields.get("parameters").and_then(Value::as_array);
        let here = parameters.into_iter().flatten().filter(move |it| it["in"] == place);
        here.filter_map(|it| it["name"].as_str())
    }

    /// The parameters that its handler describes.
    pub(super) fn own_parameters(&mut self) -> impl Iterator<Item = &mut Value> {
        self.fields.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten()
    }

    pub(super) fn parameters(&mut self) -> &mut Vec<Value> {
        let parameters = self.fields.entry("parameters").or_insert_with(|| json!([]));
        if !parameters.is_array() {
            *parameters = json!([]);
        }
        parameters.as_array_mut().expect("it was made an array")
    }

    /// Adds a parameter that several operations have.
    pub(super) fn add_shared(&mut self, name: &str) {
        self.parameters().push(json!({"$ref": format!("#/components/parameters/{name}")}));
    }

    pub(super) fn insert(&mut self, key: &str, value: Value) {
        self.fields.insert(key.to_owned(), value);
    }

    /// Adds an answer, unless its handler described that itself.
    pub(super) fn add_response(&mut self, status: &str, response: Value) {
        let responses = self.fields.entry("responses").or_insert_with(|| json!({}));
        if let Some(responses) = responses.as_object_mut() {
            responses.entry(status).or_insert(response);
        }
    }

    pub(super) fn response(&mut self, status: &str) -> Option<&mut Map<String, Value>> {
        self.fields.get_mut("responses")?.get_mut(status)?.as_object_mut()
    }

    /// What its body and its answers hold, by media type.
    pub(super) fn contents(&mut self) -> Vec<&mut Map<String, Value>> {
        let mut contents = Vec::new();
        for (key, field) in self.fields.iter_mut() {
            match key.as_str() {
                "requestBody" => contents.push(field),
                "responses" => {
                    contents.extend(field.as_object_mut().into_iter().flat_map(Map::values_mut));
                }
                _ => {}
            }
        }
        let contents = contents.into_iter().filter_map(|it| it.get_mut("content"));
        contents.filter_map(Value::as_object_mut).collect()
    }

    /// Its answers, those that are described elsewhere aside.
    pub(super) fn responses(&mut self) -> impl Iterator<Item = (&str, &mut Map<String, Value>)> {
        let responses = self.fields.get_mut("responses").and_then(Value::as_object_mut);
        responses
            .into_iter()
            .flatten()
            .filter_map(|(status, it)| Some((status.as_str(), it.as_object_mut()?)))
            .filter(|(_, it)| !it.contains_key("$ref"))
    }
}
