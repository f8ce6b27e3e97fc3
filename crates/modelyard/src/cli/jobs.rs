//! `modelyard jobs`: speaks to a running service over HTTP, as any client does.

use std::borrow::Cow;
use std::time::Duration;

use clap::{Args, Subcommand};
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use super::Done;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Debug, Args)]
pub(super) struct JobsCommand {
    #[command(subcommand)]
    verb: Verb,
    /// Where the service is; `…/services/ID` for one of several.
    #[arg(long, global = true, env = "MODELYARD_URL", default_value = "http://127.0.0.1:9090")]
    url: String,
    /// A key of the service, when it wants one.
    #[arg(long, global = true, env = "MODELYARD_KEY", hide_env_values = true)]
    key: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List jobs, newest first.
    List {
        /// Only those in this state: pending, running, completed, failed or canceled.
        #[arg(long)]
        status: Option<String>,
        /// Only those that failed and can be tried again.
        #[arg(long)]
        dead: bool,
        /// How many at most.
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Show the record of a job, and its steps.
    Show {
        /// Which one.
        id: String,
        /// Follow it to its end, with a progress bar.
        #[arg(long, short)]
        follow: bool,
    },
    /// Show what a job printed.
    Logs {
        /// Which one.
        id: String,
        /// Go on until it has ended.
        #[arg(long, short)]
        follow: bool,
    },
    /// Cancel a job; its record stays.
    Cancel {
        /// Which one.
        id: String,
    },
    /// Try a failed job again, as a new one.
    Retry {
        /// Which one.
        id: String,
        /// Follow the new one to its end, with a progress bar.
        #[arg(long, short)]
        follow: bool,
    },
}

impl JobsCommand {
    pub(super) async fn run(self) -> Done {
        match self.ask().await {
            Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ask(self) -> Outcome<()> {
        let Self { verb, url, key } = self;
        // Somebody else in the process may have chosen already, which is as good.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        let mut client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            // Wherever one leads, the key would go along.
            .redirect(reqwest::redirect::Policy::none());
        if url.starts_with("http://") {
            // Nobody needs the certificates of the system, which a small container has not.
            client = client.tls_certs_only([]);
        }
        let client = client.build()?;
        let service = Service { client, url: url.trim_end_matches('/').to_owned(), key };
        match verb {
            Verb::List { status, dead, limit } => service.list(status, dead, limit).await,
            Verb::Show { id, follow: false } => service.show(&id).await,
            Verb::Show { id, follow: true } => service.follow(&id, false).await,
            Verb::Logs { id, follow: true } => service.follow(&id, true).await,
            Verb::Logs { id, follow: false } => service.logs(&id).await,
            Verb::Cancel { id } => {
                let job = service.ask(Method::POST, &format!("/{id}/$cancel")).await?;
                println!("{id} is {}", text(&job, "status"));
                Ok(())
            }
            Verb::Retry { id, follow } => {
                let retried = service.ask(Method::POST, &format!("/{id}/$retry")).await?;
                let id = text(&retried, "job_id").into_owned();
                println!("{id}");
                if follow { service.follow(&id, false).await } else { Ok(()) }
            }
        }
    }
}

/// A running service.
struct Service {
    client: reqwest::Client,
    url: String,
    key: Option<String>,
}

impl Service {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}/api/v1/jobs{path}", self.url));
        match &self.key {
            Some(key) => request.header("X-API-Key", key),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Outcome<Response> {
        let answer = request.send().await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let problem: Value = answer.json().await.unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or("the service says no more");
        Err(format!("{status}: {}", printable(detail)).into())
    }

    async fn ask(&self, method: Method, path: &str) -> Outcome<Value> {
        Ok(self.send(self.request(method, path)).await?.json().await?)
    }

    async fn list(&self, status: Option<String>, dead: bool, limit: u32) -> Outcome<()> {
        let path = if dead { "/$dead-letters" } else { "" };
        let mut query = vec![("limit", limit.to_string())];
        query.extend(status.map(|it| ("status", it)));
        let query: Vec<String> = query.iter().map(|(key, it)| format!("{key}={it}")).collect();
        let found = self.ask(Method::GET, &format!("{path}?{}", query.join("&"))).await?;
        let jobs = found["items"].as_array().cloned().unwrap_or_default();
        println!("{:26}  {:9}  {:16}  {:24}  LABEL", "ID", "STATUS", "KIND", "SUBMITTED");
        for job in &jobs {
            let submitted = text(job, "submitted_at");
            let submitted = submitted.get(..19).unwrap_or_default();
            println!(
                "{:26}  {:9}  {:16}  {submitted:24}  {}",
                text(job, "id"),
                text(job, "status"),
                text(job, "kind"),
                text(job, "label")
            );
        }
        Ok(())
    }

    async fn show(&self, id: &str) -> Outcome<()> {
        let job = self.ask(Method::GET, &format!("/{id}")).await?;
        for (key, value) in job.as_object().into_iter().flatten() {
            match value {
                Value::Null => {}
                Value::String(it) => println!("{key:16} {}", printable(it)),
                other => println!("{key:16} {other}"),
            }
        }
        let steps = self.ask(Method::GET, &format!("/{id}/$steps")).await?;
        for step in steps.as_array().into_iter().flatten() {
            println!("step             {}, {}", text(step, "name"), text(step, "finished_at"));
        }
        Ok(())
    }

    async fn logs(&self, id: &str) -> Outcome<()> {
        let mut after = 0;
        loop {
            let lines = self.ask(Method::GET, &format!("/{id}/$logs?after={after}")).await?;
            let lines = lines.as_array().cloned().unwrap_or_default();
            for line in &lines {
                println!("{}", text(line, "text"));
            }
            match lines.last().and_then(|it| it["seq"].as_i64()) {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }

    /// Follows a job to its end over one or more event streams: one that breaks off is taken up where
    /// it was. Fails when the job does.
    async fn follow(&self, id: &str, lines: bool) -> Outcome<()> {
        let bar = ProgressBar::new(1000);
        bar.set_style(ProgressStyle::with_template("{bar:30} {percent:>3}% {elapsed} {msg}")?);
        bar.enable_steady_tick(Duration::from_millis(200));
        let mut seen = None;
        let mut failures = 0;
        loop {
            match self.follow_once(id, lines, &bar, &mut seen).await {
                Ok(Some(job)) => {
                    bar.finish_and_clear();
                    let status = text(&job, "status");
                    println!("{id} is {status}");
                    return match &*status {
                        "completed" => Ok(()),
                        _ => Err(format!("{id} is {status}: {}", text(&job, "error")).into()),
                    };
                }
                Ok(None) => failures = 0,
                Err(error) if failures >= 5 => return Err(error),
                Err(_) => failures += 1,
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// The record when the job has ended; `None` when the stream did.
    async fn follow_once(
        &self,
        id: &str,
        lines: bool,
        bar: &ProgressBar,
        seen: &mut Option<String>,
    ) -> Outcome<Option<Value>> {
        let mut request = self.request(Method::GET, &format!("/{id}/$stream?logs={lines}"));
        if let Some(seen) = seen {
            request = request.header("Last-Event-ID", seen.as_str());
        }
        let mut stream = self.send(request).await?.bytes_stream();
        let mut pending = Vec::new();
        while let Some(bytes) = stream.next().await {
            pending.extend_from_slice(&bytes?);
            while let Some(end) = pending.windows(2).position(|it| it == b"\n\n") {
                let event: Vec<u8> = pending.drain(..end + 2).collect();
                let event = String::from_utf8_lossy(&event);
                let field = |name: &str| event.lines().find_map(|it| it.strip_prefix(name));
                if let Some(it) = field("id: ") {
                    *seen = Some(it.to_owned());
                }
                let Some(data) = field("data: ") else { continue };
                let data: Value = serde_json::from_str(data)?;
                if field("event: ") == Some("log") {
                    bar.suspend(|| println!("{}", text(&data, "text")));
                    continue;
                }
                show_progress(bar, &data);
                let status = text(&data, "status");
                if matches!(&*status, "completed" | "failed" | "canceled" | "deleted") {
                    return Ok(Some(data));
                }
            }
        }
        Ok(None)
    }
}

fn show_progress(bar: &ProgressBar, job: &Value) {
    let progress = &job["progress"];
    if let Some(fraction) = progress["fraction"].as_f64() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of a thousand"
        )]
        bar.set_position((fraction.clamp(0.0, 1.0) * 1000.0) as u64);
    }
    let message = text(progress, "message");
    let message = if message.is_empty() { text(job, "status") } else { message };
    bar.set_message(message.into_owned());
}

fn text<'a>(value: &'a Value, key: &str) -> Cow<'a, str> {
    printable(value[key].as_str().unwrap_or_default())
}

/// Scripts and clients chose these texts, and a terminal does what control characters say.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let acts = |it: char| it.is_control() && !matches!(it, '\n' | '\t');
    if text.contains(acts) { text.replace(acts, "\u{fffd}").into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_does_not_act_on_the_terminal() {
        assert_eq!(printable("a\tb\nc"), "a\tb\nc");
        assert_eq!(
            printable("a\u{1b}]52;c;eA==\u{7}\u{9b}2J\r"),
            "a\u{fffd}]52;c;eA==\u{fffd}\u{fffd}2J\u{fffd}"
        );
    }
}
