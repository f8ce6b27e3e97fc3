//! The recordings: one exchange a line, with real servers of the contract.

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

/// A request and the answer that it got.
#[derive(Debug, Deserialize)]
pub struct Exchange {
    pub scenario: String,
    pub seq: u32,
    pub note: Option<String>,
    pub method: String,
    pub path: String,
    pub request_headers: Map<String, Value>,
    pub request_body: Option<String>,
    pub status: u16,
    response_headers: Vec<(String, String)>,
    /// None when the body was bytes.
    pub response_body: Option<String>,
    /// Name, size, compressed size and method of each file in a zip archive.
    pub zip_entries: Option<Vec<(String, u64, u64, u16)>>,
}

impl Exchange {
    /// Reads a recording.
    pub fn read_all(text: &str) -> Vec<Self> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// `s05` of `s05-ml_errors`.
    pub fn scenario(&self) -> &str {
        self.scenario.split('-').next().unwrap_or(&self.scenario)
    }

    /// `s05#16`.
    pub fn short(&self) -> String {
        format!("{}#{}", self.scenario(), self.seq)
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response_headers.iter().find(|it| it.0 == name).map(|it| it.1.as_str())
    }

    /// Whether this is one of several looks at a job that was waited for.
    pub fn is_poll(&self) -> bool {
        self.note.as_deref() == Some("poll")
    }

    /// The body, when it is JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(self.response_body.as_deref()?).ok()
    }

    /// What the body says in its `status`.
    pub fn state(&self) -> Option<String> {
        Some(self.json()?.get("status")?.as_str()?.to_owned())
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{} {} {}", self.scenario, self.seq, self.method, self.path)
    }
}
