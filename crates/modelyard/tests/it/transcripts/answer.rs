//! What is different between a recorded answer and ours: status, headers that matter, body.

use std::collections::BTreeMap;
use std::io::Cursor;

use bytes::Bytes;
use http::HeaderMap;
use modelyard_testkit::TestStream;
use serde_json::Value;
use zip::ZipArchive;

use super::bind::is_id;
use super::compare::{Comparison, Difference};
use super::recorded::Exchange;

/// The headers whose values clients read. `allow` and `x-request-id` are looked at as well.
const HEADERS: [&str; 5] =
    ["content-type", "location", "content-disposition", "cache-control", "x-accel-buffering"];

/// What our server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// Reads an answer whole; of events that never end, as many as were recorded.
    pub async fn read(mut stream: TestStream, exchange: &Exchange) -> Self {
        let endless = exchange.path.starts_with("/health/$stream")
            || exchange.path.starts_with("/health/%24stream");
        let recorded = exchange.response_body.as_deref().unwrap_or_default();
        let enough = endless.then(|| recorded.matches("\n\n").count()).filter(|it| *it > 0);
        let mut body = Vec::new();
        while let Some(bytes) = stream.next_bytes().await {
            body.extend_from_slice(&bytes);
            let events = body.windows(2).filter(|it| it == b"\n\n").count();
            if enough.is_some_and(|enough| events >= enough) {
                break;
            }
        }
        let (status, headers) = (stream.status.as_u16(), std::mem::take(&mut stream.headers));
        Self { status, headers, body: body.into() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|it| it.to_str().ok())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or("<no text>")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

impl Comparison<'_> {
    /// Compares everything. `base` is where our server is, `moved` what was recorded with that
    /// address in it.
    pub fn answers(&mut self, recorded: &Exchange, moved: impl Fn(&str) -> String, ours: &Answer) {
        if recorded.status != ours.status {
            self.found.push(Difference::change("status", recorded.status, ours.status));
        }
        self.headers(recorded, &moved, ours);
        if let Some(entries) = &recorded.zip_entries {
            return self.archives(entries, &ours.body);
        }
        let body = moved(recorded.response_body.as_deref().unwrap_or_default());
        let content_type = recorded.header("content-type").unwrap_or_default();
        match content_type.split(';').next().unwrap_or_default() {
            "text/html" => self.pages(&body, ours.text()),
            "text/event-stream" => self.events(&body, ours.text()),
            "text/plain" => self.metrics(&body, ours.text()),
            _ if body.is_empty() && ours.body.is_empty() => {}
            _ => self.bodies(&body, ours.text()),
        }
    }

    fn headers(&mut self, recorded: &Exchange, moved: &impl Fn(&str) -> String, ours: &Answer) {
        for name in HEADERS {
            let place = format!("header {name}");
            match (recorded.header(name).map(moved), ours.header(name)) {
                (None, None) => {}
                (Some(a), Some(b)) if self.bindings.agree(&a, b) => {}
                (Some(a), Some(b)) => self.found.push(Difference::change(&place, a, b)),
                (Some(a), None) => self.found.push(Difference::lack(&place, a)),
                // More about caching does no harm.
                (None, Some(_)) if name == "cache-control" => {}
                (None, Some(b)) => self.found.push(Difference::addition(&place, b)),
            }
        }
        let id = ours.header("x-request-id");
        if recorded.header("x-request-id").is_some() && !id.is_some_and(is_id) {
            self.found.push(Difference::change("header x-request-id", "an id", id));
        }
        // The peer names the methods of what happens to be its last route.
        let allow = ours.header("allow");
        let is_true =
            |allow: &str| !allow.is_empty() && allow.split(", ").all(|it| it != recorded.method);
        if recorded.header("allow").is_some() && !allow.is_some_and(is_true) {
            self.found.push(Difference::change("header allow", "other methods", allow));
        }
    }

    fn bodies(&mut self, recorded: &str, ours: &str) {
        if let Some((beginning, _)) = recorded.split_once("...<truncated") {
            return self.beginnings(beginning, ours);
        }
        let parsed = (serde_json::from_str::<Value>(recorded), serde_json::from_str::<Value>(ours));
        let (Ok(a), Ok(b)) = parsed else {
            return self.found.push(Difference::change("body", recorded, ours));
        };
        let compact = |it: &Value| it.to_string();
        if compact(&a) == recorded {
            if compact(&b) != ours {
                self.found.push(Difference::change("spaces of the body", "none", ours));
            }
        } else if !self.bindings.agree(recorded, ours) {
            self.found.push(Difference::change("text of the body", recorded, ours));
        }
        self.values("", &a, &b);
    }

    /// Compares what the recording has of a long body: the first elements of a list, or the title of
    /// a document.
    fn beginnings(&mut self, recorded: &str, ours: &str) {
        let Some(list) = recorded.strip_prefix('[') else {
            // Of the document about the API: what the service is called, and its version. Its
            // description goes on for people.
            let card = recorded.find("\"}").map_or(recorded, |end| &recorded[..end]);
            let (title, version) = card.split_once("\",\"version\"").unwrap_or((card, ""));
            if !ours.starts_with(title) || !ours.contains(version) {
                let shown: String = ours.chars().take(card.chars().count()).collect();
                self.found.push(Difference::change("beginning of the body", card, shown));
            }
            return;
        };
        let mut elements = Vec::new();
        let mut rest = list;
        loop {
            let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            let Some(Ok(element)) = stream.next() else { break };
            elements.push(element);
            rest = rest[stream.byte_offset()..].trim_start_matches(',');
        }
        let ours: Value = serde_json::from_str(ours).unwrap_or(Value::Null);
        let mut ours = ours.as_array().cloned().unwrap_or_default();
        elements.retain(|it| self.is_made(it));
        ours.truncate(elements.len());
        self.values("", &elements.into(), &ours.into());
    }

    fn pages(&mut self, recorded: &str, ours: &str) {
        assert_eq!(recorded, "<page omitted>");
        if !ours.to_ascii_lowercase().starts_with("<!doctype html>") {
            self.found.push(Difference::change("page", "a document", ours));
        }
    }

    /// Events without repetition: how often the same is said depends on the time that things take.
    fn events(&mut self, recorded: &str, ours: &str) {
        let read = |text: &str| {
            let events = text.split_terminator("\n\n").filter(|it| !it.is_empty());
            let mut events: Vec<Value> = events
                .map(|it| {
                    let data =
                        it.strip_prefix("data: ").and_then(|it| serde_json::from_str(it).ok());
                    data.unwrap_or_else(|| Value::String(it.to_owned()))
                })
                .collect();
            events.dedup();
            Value::Array(events)
        };
        self.values("", &read(recorded), &read(ours));
    }

    /// Compares names and kinds of metrics; theirs are about Python in part.
    fn metrics(&mut self, recorded: &str, ours: &str) {
        let families = |text: &str| -> BTreeMap<String, String> {
            let lines = text.lines().filter_map(|it| it.strip_prefix("# TYPE "));
            let families = lines.filter_map(|it| it.split_once(' '));
            families.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
        };
        // What is cut off in the middle cannot be known.
        let (recorded, mine) = (recorded.split("...<truncated").next(), families(ours));
        for (name, kind) in families(recorded.unwrap_or_default()) {
            match mine.get(&name) {
                None => self.found.push(Difference::lack(&format!("/{name}"), kind)),
                Some(ours) if *ours == kind => {}
                Some(ours) => {
                    self.found.push(Difference::change(&format!("/{name}"), kind, ours.as_str()));
                }
            }
        }
        let is_sample = |line: &str| {
            line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok())
        };
        for line in ours.lines().filter(|it| !it.starts_with('#') && !is_sample(it)) {
            self.found.push(Difference::change("sample", "a name and a number", line));
        }
    }

    fn archives(&mut self, recorded: &[(String, u64, u64, u16)], ours: &[u8]) {
        let Ok(mut archive) = ZipArchive::new(Cursor::new(ours)) else {
            return self.found.push(Difference::change("body", "a zip archive", "something else"));
        };
        let mut mine = BTreeMap::new();
        for at in 0..archive.len() {
            let file = archive.by_index(at).unwrap();
            mine.insert(file.name().unwrap().into_owned(), file.size());
        }
        for (name, size, ..) in recorded {
            match mine.remove(name) {
                None => self.found.push(Difference::lack(&format!("/{name}"), *size)),
                // The code is another, and so is what it pickles and prints.
                Some(_) if name.ends_with(".py") || name.ends_with(".pickle") => {}
                Some(ours) if ours == *size => {}
                Some(ours) => {
                    let place = format!("/{name} size");
                    self.found.push(Difference::change(&place, *size, ours));
                }
            }
        }
        for (name, size) in mine {
            self.found.push(Difference::addition(&format!("/{name}"), size));
        }
    }
}
