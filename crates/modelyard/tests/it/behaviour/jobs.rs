//! What clients can ask of jobs, beyond the contract, over HTTP and from the command line.

use http::Method;
use modelyard_testkit::{TestClient, TestResponse, on_both_databases};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::program::{BINARY, Program, Project, plain};
use crate::support::{config, ended, running, submitted, train_body, until};

/// Prints, tells its progress, and waits until its mark exists.
const TALKS: &str = r#"
echo one; echo two
echo '{"progress": 0.5, "message": "half"}' >> "$MODELYARD_PROGRESS"
while [ ! -e "$1" ]; do sleep 0.05; done
echo three; echo trained > model
"#;

async fn train(client: &TestClient, query: &str, key: &str, body: &Value) -> TestResponse {
    let request = client.request(Method::POST, &format!("/api/v1/ml/$train{query}"));
    request.header("idempotency-key", key).json(body).send().await
}

/// The texts of the lines in events, and the id of the last event.
fn read(events: &str) -> (Vec<String>, Option<String>) {
    let lines = events.split("\n\n").filter(|it| it.contains("event: log"));
    let lines = lines.filter_map(|it| it.lines().find_map(|it| it.strip_prefix("data: ")));
    let texts = lines.map(|it| serde_json::from_str::<Value>(it).unwrap()["text"].clone());
    let id = events.lines().filter_map(|it| it.strip_prefix("id: ")).next_back();
    (texts.map(|it| it.as_str().unwrap().to_owned()).collect(), id.map(ToOwned::to_owned))
}

on_both_databases! {
    async fn a_job_is_followed_line_by_line_and_taken_up_where_it_was_left(database: TestDatabase) {
        let project = Project::new(TALKS);
        let mut serve = project.serve();
        serve.arg("--database").arg(&database.url);
        let program = Program::start(serve).await;
        let client = &program.client;
        let body = train_body(&config(client, json!({})).await);

        let first = train(client, "?label=talks&priority=3", "monday", &body).await.expect(202);
        let job = submitted(&first).job;
        let again = train(client, "?label=talks&priority=3", "monday", &body).await.expect(202);
        assert_eq!(again.body, first.body);
        let other = train_body(&config(client, json!({})).await);
        let refused = train(client, "", "monday", &other).await.expect(422);
        assert_eq!(refused.body["code"], "idempotency_key_reused");

        running(client, &job).await;
        let path = format!("/api/v1/jobs/{job}");
        until("two lines are there", async || {
            client.get(&format!("{path}/$logs")).await.expect(200).body.as_array().unwrap().len() == 2
        })
        .await;
        let record = client.get(&path).await.expect(200).body;
        assert_eq!((&record["label"], &record["priority"]), (&json!("talks"), &json!(3)));
        assert_eq!(record["log_tail"], json!(["one", "two"]));
        until("its progress is there", async || {
            client.get(&path).await.expect(200).body["progress"]["message"] == "half"
        })
        .await;

        let follow = format!("{path}/$stream?logs=true&poll_interval=0.05");
        let mut stream = client.request(Method::GET, &follow).open().await;
        let mut events = String::new();
        while !events.contains("\"status\"") {
            events.push_str(&String::from_utf8_lossy(&stream.next_bytes().await.unwrap()));
        }
        // Torn off.
        drop(stream);
        let (lines, last) = read(&events);
        assert_eq!((lines, last.as_deref()), (vec!["one".to_owned(), "two".to_owned()], Some("2")));
        fs_err::write(project.mark(), "").unwrap();
        let rest = client.request(Method::GET, &follow).header("last-event-id", "2").send().await;
        let (lines, _) = read(&rest.text());
        assert_eq!(lines, ["three"]);
        assert!(rest.text().trim_end().rsplit("data: ").next().unwrap().contains("\"completed\""));
    }

    async fn a_script_has_the_same_key_in_every_attempt(database: TestDatabase) {
        let project = Project::new(
            "echo $MODELYARD_JOB_ID $MODELYARD_IDEMPOTENCY_KEY
            [ -e \"$1\" ] || { touch \"$1\"; exit 75; }; echo trained > model",
        );
        let mut serve = project.serve();
        serve.arg("--database").arg(&database.url);
        let program = Program::start(serve).await;
        let client = &program.client;
        let body = train_body(&config(client, json!({})).await);
        let job = submitted(&client.post("/api/v1/ml/$train", &body).await.expect(202)).job;
        let record = ended(client, &job).await;
        assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(2)));
        let lines = client.get(&format!("/api/v1/jobs/{job}/$logs")).await.expect(200).body;
        let said = json!(format!("{job} {job}-run"));
        let lines: Vec<&Value> = lines.as_array().unwrap().iter().map(|it| &it["text"]).collect();
        assert_eq!(lines, [&said, &said]);
    }

    async fn a_job_is_cancelled_and_tried_again_from_the_command_line(database: TestDatabase) {
        let project = Project::new("[ -e \"$1\" ] || { echo no; exit 4; }; echo trained > model");
        let mut serve = project.serve();
        serve.arg("--database").arg(&database.url);
        let program = Program::start(serve).await;
        let client = &program.client;
        let jobs = async |arguments: &[&str]| {
            let mut command = Command::new(BINARY);
            command.arg("jobs").args(arguments).args(["--url", client.base()]);
            let done = plain(command).output().await.unwrap();
            let said = [done.stdout, done.stderr].concat();
            (done.status.success(), String::from_utf8(said).unwrap())
        };
        let id = config(client, json!({})).await;
        let failed = submitted(&client.post("/api/v1/ml/$train", &train_body(&id)).await.expect(202));
        assert_eq!(ended(client, &failed.job).await["status"], "failed");
        let (went_well, said) = jobs(&["list", "--dead"]).await;
        assert!(went_well && said.contains(&failed.job) && said.contains("ml.train"), "{said}");
        let (went_well, said) = jobs(&["logs", &failed.job]).await;
        assert!(went_well && said.trim() == "no", "{said}");

        fs_err::write(project.mark(), "").unwrap();
        let (went_well, said) = jobs(&["retry", &failed.job, "--follow"]).await;
        assert!(went_well && said.contains("is completed"), "{said}");
        let (went_well, said) = jobs(&["retry", &failed.job]).await;
        assert!(!went_well && said.contains("is not among the dead letters"), "{said}");

        client.request(Method::POST, "/api/v1/queues/train/$pause").send().await.expect(204);
        let waits = submitted(&client.post("/api/v1/ml/$train", &train_body(&id)).await.expect(202));
        let (went_well, said) = jobs(&["cancel", &waits.job]).await;
        assert!(went_well && said.contains("is canceled"), "{said}");
        let (went_well, said) = jobs(&["show", &waits.job]).await;
        assert!(went_well && said.contains("canceled"), "{said}");
        client.request(Method::POST, "/api/v1/queues/train/$resume").send().await.expect(204);
        assert_eq!(client.get(&format!("/api/v1/jobs/{}", waits.job)).await.body["status"], "canceled");
        let (went_well, said) = jobs(&["show", "01K72PWT05GEXK1S24AVKAZ9VE"]).await;
        assert!(!went_well && said.contains("404"), "{said}");
    }
}
