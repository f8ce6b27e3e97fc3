//! Sends what was recorded to our server, in order, and keeps what is different.

use std::time::Duration;

use http::Method;
use modelyard_testkit::TestClient;

use super::answer::Answer;
use super::bind::Bindings;
use super::compare::Comparison;
use super::deviations::Deviations;
use super::recorded::Exchange;

/// How long the state of a job, or of the service, may take to become the recorded one.
const PATIENCE: Duration = Duration::from_secs(20);

/// One server that recordings are replayed against.
#[derive(Debug)]
pub struct Replay {
    client: TestClient,
    bindings: Bindings,
    deviations: Deviations,
    tolerance: f64,
    /// Recorded keys, each with ours.
    keys: Vec<(&'static str, String)>,
    scenarios: Vec<String>,
    failures: Vec<String>,
}

impl Replay {
    pub fn new(client: TestClient) -> Self {
        Self {
            client,
            bindings: Bindings::default(),
            deviations: Deviations::read(),
            tolerance: 0.0,
            keys: Vec::new(),
            scenarios: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Lets numbers with a decimal point differ by so many parts of themselves.
    pub fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Shows our keys where recorded ones are shown.
    pub fn with_keys(mut self, keys: impl Into<Vec<(&'static str, String)>>) -> Self {
        self.keys = keys.into();
        self
    }

    /// Replays the recordings of a scenario.
    pub async fn scenario(&mut self, text: &str) {
        let exchanges = Exchange::read_all(text);
        self.scenarios.push(exchanges[0].scenario().to_owned());
        for (at, exchange) in exchanges.iter().enumerate() {
            let again = |it: &Exchange| it.is_poll() && it.path == exchange.path;
            let repeated = exchange.is_poll() && exchanges.get(at + 1).is_some_and(again);
            if !repeated {
                self.exchange(exchange).await;
            }
        }
    }

    async fn exchange(&mut self, exchange: &Exchange) {
        let body = exchange.request_body.as_deref().unwrap_or_default();
        let names_absent =
            self.bindings.names_absent(&exchange.path) || self.bindings.names_absent(body);
        if names_absent || self.deviations.skips(exchange) {
            return;
        }
        let ours = self.send(exchange).await;
        let base = self.client.base().to_owned();
        let mut comparison = Comparison {
            bindings: &mut self.bindings,
            tolerance: self.tolerance,
            found: Vec::new(),
        };
        comparison.answers(exchange, |it| moved(it, &base), &ours);
        let found = comparison.found;
        if self.deviations.status(exchange) == Some(ours.status) && ours.status >= 400 {
            let headers = exchange.header("location").unwrap_or_default();
            self.bindings.never_made(exchange.response_body.as_deref().unwrap_or_default());
            self.bindings.never_made(headers);
        }
        let left = self.deviations.filter(exchange, &ours, found);
        if !left.is_empty() {
            let lines: Vec<String> = left.iter().map(|it| format!("    {it}")).collect();
            self.failures.push(format!("{exchange}\n{}", lines.join("\n")));
        }
    }

    /// Sends a request, again and again while the answer says a state that is on the way to the
    /// recorded one.
    async fn send(&mut self, exchange: &Exchange) -> Answer {
        let path = self.bindings.in_our_ids(&exchange.path);
        let body = exchange.request_body.as_deref().unwrap_or_default();
        let body = self.bindings.in_our_ids(body);
        let state = exchange.state().filter(|_| exchange.method == "GET");
        let from = std::time::Instant::now();
        loop {
            let method: Method = exchange.method.parse().unwrap();
            let mut request = self.client.request(method, &path).body(body.clone());
            for (name, value) in &exchange.request_headers {
                let value = value.as_str().unwrap();
                let ours = self.keys.iter().find(|it| it.0 == value);
                let value = ours.map_or(value, |it| &it.1);
                request = request.header(&name.to_ascii_lowercase(), value);
            }
            let answer = Answer::read(request.open().await, exchange).await;
            let now = answer.json();
            let now = now["status"].as_str();
            let ended = matches!(now, None | Some("completed" | "failed" | "canceled"));
            if state.is_none() || state.as_deref() == now || ended || from.elapsed() > PATIENCE {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Fails with everything that is different and not wanted, or wanted and not different.
    /// `everything` says that this is where deviations of every scenario show.
    pub fn finish(self, everything: bool) {
        let scenarios: Vec<&str> = self.scenarios.iter().map(String::as_str).collect();
        let unused = self.deviations.unused(&scenarios, everything);
        let unused = unused.iter().map(|it| format!("a deviation that does not show: {it}"));
        let failures: Vec<String> = self.failures.iter().cloned().chain(unused).collect();
        let count = failures.len();
        assert!(failures.is_empty(), "{count} differences\n\n{}\n", failures.join("\n"));
    }
}

/// Recorded text as it is where our server is.
fn moved(recorded: &str, base: &str) -> String {
    const RECORDED_AT: &str = "http://127.0.0.1:";
    let mut parts = recorded.split(RECORDED_AT);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(base);
        text.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    text
}
