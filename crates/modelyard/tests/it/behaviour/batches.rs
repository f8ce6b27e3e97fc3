//! Batches: a file becomes one job and one result, whatever happens in between.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use http::Method;
use modelyard_kernel::db::query;
use modelyard_testkit::{TestClient, TestResponse, on_both_databases};
use parquet::file::reader::{FileReader, SerializedFileReader};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::program::{Program, Project};
use crate::support::{
    Submitted, assert_refused, config, ended, start_model, submitted, text, train_with, until,
};

const PREDICT: &str = "/api/v1/ml/$batch-predict";
const TRAIN: &str = "/api/v1/ml/$batch-train";

/// Two locations with a month that is known and one that is not.
const ROWS: &str = "time_period,location,rainfall,disease_cases\r\n\
    2026-01,north,1.5,3\r\n2026-02,north,2.0,\r\n2026-01,south,,1\r\n2026-02,south,0.5,\r\n";

async fn send(
    client: &TestClient,
    path: &str,
    media: &str,
    body: impl Into<Vec<u8>>,
) -> TestResponse {
    let request = client.request(Method::POST, path).header("content-type", media);
    request.body(body.into()).send().await
}

/// A training to predict with.
async fn training(client: &TestClient) -> String {
    let id = config(client, json!({})).await;
    let trained = train_with(client, &id).await;
    assert_eq!(ended(client, &trained.job).await["status"], "completed");
    trained.artifact
}

async fn metadata(client: &TestClient, it: &Submitted) -> Value {
    client.get(&format!("/api/v1/artifacts/{}/$metadata", it.artifact)).await.expect(200).body
}

async fn download(client: &TestClient, it: &Submitted) -> TestResponse {
    client.get(&format!("/api/v1/artifacts/{}/$download", it.artifact)).await.expect(200)
}

/// What a batch that went well says of itself, and its result.
async fn result(client: &TestClient, answer: &TestResponse) -> (Value, String) {
    let it = submitted(&answer.clone().expect(202));
    let job = ended(client, &it.job).await;
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!(job["artifact_id"], *it.artifact);
    (metadata(client, &it).await, download(client, &it).await.text())
}

/// A file of as many rows, all to be predicted for.
fn many(rows: usize) -> String {
    let mut file = "time_period,location,rainfall\n".to_owned();
    for row in 0..rows {
        let _infallible = writeln!(file, "2026-01,place {row},{row}.5");
    }
    file
}

on_both_databases! {
    async fn a_file_gives_the_same_result_in_every_format(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = training(&client).await;
        let path = format!("{PREDICT}?artifact_id={id}&group_by=location&chunk_rows=1");
        let objects = [
            json!({"time_period": "2026-01", "location": "north", "rainfall": 1.5, "disease_cases": 3}),
            json!({"time_period": "2026-02", "location": "north", "rainfall": 2.0}),
            json!({"time_period": "2026-01", "location": "south", "disease_cases": 1}),
            json!({"time_period": "2026-02", "location": "south", "rainfall": 0.5, "disease_cases": null}),
        ];
        let frame = json!({
            "columns": ["time_period", "location", "rainfall", "disease_cases"],
            "data": [["2026-01", "north", 1.5, 3], ["2026-02", "north", 2.0, null],
                ["2026-01", "south", null, 1], ["2026-02", "south", 0.5, ""]],
        });
        let lines: String = objects.iter().map(|it| format!("{it}\n\n")).collect();
        let bodies = [
            ("text/csv; charset=utf-8", ROWS.to_owned()),
            ("application/x-ndjson", lines),
            ("application/json", json!(objects).to_string()),
            ("application/json", frame.to_string()),
        ];
        for (media, body) in bodies {
            let answer = send(&client, &path, media, body).await;
            let (metadata, result) = result(&client, &answer).await;
            assert_eq!(
                result,
                "time_period,location,rainfall,sample_0\r\n\
                 2026-02,north,2.0,3\r\n2026-02,south,0.5,3\r\n",
                "{media}"
            );
            assert_eq!(metadata["rows"], 4);
            assert_eq!(metadata["predicted_rows"], 2);
            assert_eq!(metadata["historic_rows"], 2);
            assert_eq!(metadata["failed_rows"], 0);
            assert_eq!(metadata["chunks"], 2);
            let it = submitted(&answer);
            let artifact = client.get(&format!("/api/v1/artifacts/{}", it.artifact)).await.body;
            assert_eq!(artifact["data"]["type"], "ml_batch_prediction");
            assert_eq!(artifact["data"]["content_type"], "text/csv");
            assert_eq!(artifact["parent_id"], *id);
            let job = ended(&client, &it.job).await;
            assert_eq!(job["kind"], "ml.batch-predict");
            assert_eq!(job["queue"], "batch");
            assert_eq!(job["progress"]["fraction"], 1.0);
            assert_eq!(job["progress"]["counters"], json!({"rows": 4.0, "failed_rows": 0.0, "chunks": 2.0}));
        }
        let answer = send(&client, &format!("{path}&output=ndjson"), "text/csv", ROWS).await;
        let (_, result) = result(&client, &answer).await;
        assert_eq!(result.lines().next(), Some(
            r#"{"time_period":"2026-02","location":"north","rainfall":2.0,"sample_0":3}"#
        ));
        server.stop().await;
    }

    async fn a_parquet_file_has_the_types_of_the_whole_result(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = training(&client).await;
        let path = format!("{PREDICT}?artifact_id={id}&chunk_rows=1&output=parquet");
        let rows = "{\"place\": \"a\", \"rain\": 1, \"note\": 1}\n\
            {\"place\": \"b\", \"rain\": 2.5, \"note\": \"x\"}\n\
            {\"place\": \"c\", \"rain\": null, \"note\": null}\n";
        let answer = send(&client, &path, "application/x-ndjson", rows).await;
        let it = submitted(&answer.expect(202));
        assert_eq!(ended(&client, &it.job).await["status"], "completed");
        let answer = download(&client, &it).await;
        assert_eq!(answer.headers["content-type"], "application/vnd.apache.parquet");
        let file = SerializedFileReader::new(answer.bytes.clone()).unwrap();
        let rows = file.get_row_iter(None).unwrap();
        let rows: Vec<String> = rows.map(|row| row.unwrap().to_string()).collect();
        assert_eq!(rows, [
            "{place: \"a\", rain: 1.0, note: \"1\", sample_0: 3}",
            "{place: \"b\", rain: 2.5, note: \"x\", sample_0: 3}",
            "{place: \"c\", rain: null, note: null, sample_0: 3}",
        ]);
        server.stop().await;
    }

    async fn rows_that_cannot_be_read_are_listed_and_the_others_are_predicted_for(
        database: TestDatabase
    ) {
        let (server, client) = start_model(&database).await;
        let id = training(&client).await;
        let path = format!("{PREDICT}?artifact_id={id}&chunk_rows=2");
        let file = "{\"location\": \"a\"}\n{\"location\": \"b\"\n[]\n{\"location\": \"c\"}\n\
            {\"location\": {}}\n{\"location\": \"d\"}\n{\"location\": 12345678901234567890123}\n";
        let (metadata, result) =
            result(&client, &send(&client, &path, "application/x-ndjson", file).await).await;
        assert_eq!(result, "location,sample_0\r\na,3\r\nc,3\r\nd,3\r\n");
        assert_eq!(metadata["failed_rows"], 4);
        assert_eq!(metadata["predicted_rows"], 3);
        let rows: Vec<&Value> =
            metadata["failures"].as_array().unwrap().iter().map(|it| &it["first_row"]).collect();
        assert_eq!(rows, [2, 3, 5, 7], "{metadata}");
        assert!(text(&metadata["failures"][0]["error"]).starts_with("the row cannot be read: EOF"));
        server.stop().await;
    }

    async fn a_batch_of_which_nothing_can_be_used_has_failed(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = training(&client).await;
        let path = format!("{PREDICT}?artifact_id={id}");
        let known = "location,disease_cases\na,1\n";
        let it = submitted(&send(&client, &path, "text/csv", known).await.expect(202));
        let job = ended(&client, &it.job).await;
        assert_eq!(job["status"], "failed");
        assert_eq!(job["error"], "ValueError: no row of the file is to be predicted for");
        assert_eq!(metadata(&client, &it).await["status"], "failed");
        server.stop().await;
    }

    async fn a_file_is_let_go_of_by_its_last_batch_that_completes(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = training(&client).await;
        let keeps = async || {
            let mut conn = database.db.conn().await.unwrap();
            let all: Vec<(i64,)> = query("SELECT keeps FROM blobs WHERE refs <= 0 AND keeps > 0")
                .fetch_all(&mut conn).await.unwrap();
            all.into_iter().map(|it| it.0).collect::<Vec<_>>()
        };
        let path = format!("{PREDICT}?artifact_id={id}");
        // It waits, and its file with it. Asked for twice, it is one.
        client.post("/api/v1/queues/batch/$pause", &json!({})).await.expect(204);
        let wait = async || {
            let request = client.request(Method::POST, &path).header("content-type", "text/csv");
            request.header("idempotency-key", "later").body(ROWS).send().await
        };
        wait().await.expect(202);
        wait().await.expect(202);
        assert_eq!(keeps().await, [1]);
        let path = format!("{path}&queue=train");
        result(&client, &send(&client, &path, "text/csv", ROWS).await).await;
        until("one needs the file", async || keeps().await == [1]).await;
        // One that failed may be tried again.
        let known = "location,disease_cases\na,1\n";
        let it = submitted(&send(&client, &path, "text/csv", known).await.expect(202));
        assert_eq!(ended(&client, &it.job).await["status"], "failed");
        assert_eq!(keeps().await, [1, 1]);
        server.stop().await;
    }

    async fn what_no_batch_can_be_made_of_is_refused_at_once(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = training(&client).await;
        let before = client.get("/api/v1/jobs").await.body.as_array().unwrap().len();
        let predict = format!("{PREDICT}?artifact_id={id}");
        let refused = [
            (PREDICT.to_owned(), "text/csv", ROWS, 422),
            (format!("{PREDICT}?artifact_id=x"), "text/csv", ROWS, 422),
            (format!("{PREDICT}?artifact_id=01K72PWT05GEXK1S24AVKAZ9VE"), "text/csv", ROWS, 404),
            (format!("{predict}&output=xls"), "text/csv", ROWS, 422),
            (format!("{predict}&group_by=nothing"), "text/csv", ROWS, 422),
            (predict.clone(), "text/plain", ROWS, 415),
            (predict.clone(), "text/csv", "", 422),
            (predict.clone(), "text/csv", "a,b\n", 422),
            (predict.clone(), "text/csv", "a,a\n1,2\n", 422),
            (predict.clone(), "application/json", "{\"columns\": [\"a\"], \"data\": [[1]", 422),
            (predict.clone(), "application/json", "{\"data\": [[1]], \"columns\": [\"a\"]}", 422),
            (predict.clone(), "application/json", "[]", 422),
            (predict.clone(), "application/x-ndjson", "x", 422),
            (TRAIN.to_owned(), "text/csv", ROWS, 422),
            (format!("{TRAIN}?group_by=location"), "text/csv", ROWS, 422),
            (format!("{TRAIN}?config_id=01K72PWT05GEXK1S24AVKAZ9VE"), "text/csv", ROWS, 404),
        ];
        for (path, media, body, status) in refused {
            let answer = send(&client, &path, media, body).await;
            assert_eq!(answer.status.as_u16(), status, "{path} {media} {body} {}", answer.body);
            assert_refused(&answer, &path);
        }
        assert_eq!(client.get("/api/v1/jobs").await.body.as_array().unwrap().len(), before);
        server.stop().await;
    }

    async fn a_schedule_does_a_batch_with_the_content_of_an_artifact(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = training(&client).await;
        let run = async |content: Value, wish: Value| {
            let data = json!({"content": content, "content_type": "text/csv"});
            let file = client.post("/api/v1/artifacts", &json!({"data": data})).await.expect(201);
            let mut input = json!({"artifact_id": id, "source_artifact_id": file.body["id"]});
            input.as_object_mut().unwrap().extend(wish.as_object().unwrap().clone());
            let schedule = json!({"name": "every day",
                "trigger": {"type": "cron", "expression": "@daily"},
                "target": {"kind": "ml.batch-predict", "input": input}});
            let schedule = client.post("/api/v1/schedules", &schedule).await.expect(201).body;
            let path = format!("/api/v1/schedules/{}/$run-now", text(&schedule["id"]));
            let begun = client.request(Method::POST, &path).send().await.expect(202).body;
            let job = ended(&client, &text(&begun["job_id"])).await;
            let artifact = job["artifact_id"].as_str().unwrap_or_default();
            let path = format!("/api/v1/artifacts/{artifact}/$download");
            (job["error"].clone(), client.get(&path).await.text())
        };
        let expected = "location,sample_0\r\na,3\r\nb,3\r\n";
        let (error, result) = run(json!("location\na\nb\n"), json!({"chunk_rows": 1})).await;
        assert_eq!((error, &*result), (Value::Null, expected));
        let rows = json!([{"location": "a"}, {"location": "b"}]);
        assert_eq!(run(rows, json!({})).await.1, expected);
        let long: Vec<Value> = (0..20_000).map(|it| json!({"location": it})).collect();
        assert_eq!(run(json!(long), json!({})).await.1.lines().count(), 20_001);
        let (error, _) = run(json!("a,a\n1,2\n"), json!({"format": "csv"})).await;
        assert!(text(&error).starts_with("ValueError: "), "{error}");

        let refused = json!({"name": "x", "trigger": {"type": "cron", "expression": "@daily"},
            "target": {"kind": "ml.batch-predict", "input": {"config_id": id, "output": "xls"}}});
        let refused = client.post("/api/v1/schedules", &refused).await.expect(422).body;
        assert_eq!(refused["errors"].as_array().unwrap().len(), 4, "{refused}");
        server.stop().await;
    }

    async fn the_same_request_with_the_same_key_is_one_batch(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = training(&client).await;
        let path = format!("{PREDICT}?artifact_id={id}");
        let ask = async |path: &str, body: &'static str| {
            let request = client.request(Method::POST, path).header("content-type", "text/csv");
            request.header("idempotency-key", "a").body(body).send().await
        };
        let first = submitted(&ask(&path, ROWS).await.expect(202));
        let again = submitted(&ask(&path, ROWS).await.expect(202));
        assert_eq!([&first.job, &first.artifact], [&again.job, &again.artifact]);
        ask(&path, "a\n1\n").await.expect(422);
        ask(&format!("{path}&chunk_rows=1"), ROWS).await.expect(422);
        assert_eq!(ended(&client, &first.job).await["status"], "completed");
        server.stop().await;
    }

    async fn each_group_and_each_body_is_a_training_of_its_own(database: TestDatabase) {
        let (server, client) = start_model(&database).await;
        let id = config(&client, json!({})).await;
        let path = format!("{TRAIN}?config_id={id}&group_by=location");
        let answer = send(&client, &path, "text/csv", ROWS).await;
        let (metadata, listed) = result(&client, &answer).await;
        let lines: Vec<Vec<&str>> = listed.lines().map(|it| it.split(',').collect()).collect();
        assert_eq!(lines[0], ["first_row", "last_row", "group", "config_id", "artifact_id"]);
        assert_eq!(lines[1][..4], ["1", "2", "north", &id]);
        assert_eq!(lines[2][..4], ["3", "4", "south", &id]);
        assert_eq!(metadata["trained_rows"], 4);
        for line in &lines[1..] {
            let path = format!("{PREDICT}?artifact_id={}", line[4]);
            let (_, predicted) = result(&client, &send(&client, &path, "text/csv", "location\na\n").await).await;
            assert_eq!(predicted, "location,sample_0\r\na,2\r\n");
        }
        let root = client.get(&format!("/api/v1/configs/{id}/$artifacts")).await.expect(200).body;
        assert_eq!(root.as_array().unwrap().len(), 2);

        let frame = json!({"columns": ["location"], "data": [["a"], ["b"], ["c"]]});
        let fails = config(&client, json!({"how": "fail"})).await;
        let bodies = [
            json!({"config_id": id, "data": frame}),
            json!({"config_id": fails, "data": frame}),
            json!({"config_id": id, "data": {"columns": ["a"], "data": []}}),
            json!({"data": frame}),
        ];
        let answer = send(&client, TRAIN, "application/json", json!(bodies).to_string()).await;
        let (metadata, listed) = result(&client, &answer).await;
        assert_eq!(listed.lines().count(), 2, "{listed}");
        let errors: Vec<String> = metadata["failures"].as_array().unwrap().iter()
            .map(|it| text(&it["error"])).collect();
        assert_eq!(errors, [
            "ValueError: no\u{fffd} way",
            "ValueError: the item cannot be read: its data frame has no rows",
            "ValueError: the item cannot be read: config_id: Field required",
        ]);
        server.stop().await;
    }

    async fn a_chunk_that_fails_for_a_while_is_tried_again(database: TestDatabase) {
        let (project, mut program) = scripts(&database.url, r#"
            grep -q "place 3" future.csv && { echo "no third place" >&2; exit 1; }
            if [ ! -e "$1.once" ]; then : > "$1.once"; exit 75; fi
            cp future.csv predictions.csv
        "#).await;
        let client = &program.client;
        let path = format!("{PREDICT}?artifact_id={}&chunk_rows=2&parallel=1", training(client).await);
        let (metadata, result) = result(client, &send(client, &path, "text/csv", many(6)).await).await;
        assert_eq!(result.lines().count(), 5, "{result}");
        assert_eq!(metadata["retried_chunks"], 1, "{metadata}");
        assert_eq!(metadata["failed_chunks"], 1);
        assert_eq!(metadata["predicted_rows"], 4);
        assert_eq!(metadata["failures"], json!([{"first_row": 3, "last_row": 4,
            "error": "RuntimeError: predict script failed with exit code 1; stderr tail: no third place"}]));
        assert_eq!(project.workspaces().len(), 0);
        program.signal(Signal::TERM);
        program.ended(Duration::from_secs(10)).await;
    }

    async fn a_killed_batch_goes_on_where_it_stopped(database: TestDatabase) {
        let (project, mut program) = scripts(&database.url, r#"
            sleep 0.2
            grep -o "place [0-9]*" future.csv | head -1 >> "$1.ledger"
            cp future.csv predictions.csv
        "#).await;
        let ledger = format!("{}.ledger", project.mark().display());
        let id = training(&program.client).await;
        let path = format!("{PREDICT}?artifact_id={id}&chunk_rows=100&parallel=2");
        let it = submitted(&send(&program.client, &path, "text/csv", many(2000)).await.expect(202));
        let chunks = async |program: &Program, it: &Submitted| {
            let steps = format!("/api/v1/jobs/{}/$steps", it.job);
            let steps = program.client.get(&steps).await.expect(200).body;
            let steps = steps.as_array().unwrap().iter().map(|it| text(&it["name"]));
            steps.filter(|it| it.starts_with("chunk-")).collect::<Vec<String>>()
        };
        until("some chunks are done", async || chunks(&program, &it).await.len() >= 5).await;
        let done = chunks(&program, &it).await;
        program.signal(Signal::KILL);
        program.ended(Duration::from_secs(5)).await;

        let mut program = Program::start(serve(&project, &database.url)).await;
        let job = ended(&program.client, &it.job).await;
        assert_eq!(job["status"], "completed", "{job}");
        let ran = fs_err::read_to_string(ledger).unwrap();
        let runs = |number: usize| {
            let first = format!("place {}", number * 100);
            ran.lines().filter(|it| *it == first).count()
        };
        for chunk in done {
            let number: usize = chunk.trim_start_matches("chunk-").parse().unwrap();
            assert_eq!(runs(number - 1), 1, "{chunk} was done again");
        }
        // Those that were under way may have run twice, and no others.
        assert!((0..20).all(|it| runs(it) >= 1));
        assert!(ran.lines().count() <= 20 + 4, "{ran}");
        let result = download(&program.client, &it).await.text();
        assert_eq!(result, many(2000).replace('\n', "\r\n"));
        let metadata = metadata(&program.client, &it).await;
        assert_eq!(metadata["predicted_rows"], 2000);
        program.signal(Signal::TERM);
        program.ended(Duration::from_secs(10)).await;
    }

    async fn a_hundred_thousand_rows_take_no_more_memory_than_ten_thousand(database: TestDatabase) {
        let (_project, mut program) = scripts(&database.url, "cp future.csv predictions.csv").await;
        let path = format!("{PREDICT}?artifact_id={}&output=ndjson", training(&program.client).await);
        let few = predict_noise(&program, &path, 10_000).await;
        let many = predict_noise(&program, &path, 100_000).await;
        let grown = program.peak_memory() - few.peak_bytes;
        assert!(grown < 12 << 20, "{grown} bytes more for {many:?} than for {few:?}");
        program.signal(Signal::TERM);
        program.ended(Duration::from_secs(10)).await;
    }

    async fn short_lines_that_are_wide_rows_take_no_more_memory_than_their_chunks(
        database: TestDatabase
    ) {
        let script = "echo a > predictions.csv; echo 1 >> predictions.csv";
        let (_project, mut program) = scripts(&database.url, script).await;
        let client = &program.client;
        let path = format!("{PREDICT}?artifact_id={}&parallel=1", training(client).await);
        let keys: Vec<String> = (0..5000).map(|it| format!("\"{it}\": 1")).collect();
        let file = format!("{{{}}}\n{}", keys.join(","), "{}\n".repeat(20_000));
        let before = program.peak_memory();
        let answer = send(client, &path, "application/x-ndjson", file).await;
        let it = submitted(&answer.expect(202));
        until("a chunk is done", async || {
            let job = client.get(&format!("/api/v1/jobs/{}", it.job)).await.expect(200).body;
            job["progress"]["counters"]["chunks"].as_f64().is_some_and(|it| it >= 2.0)
        })
        .await;
        client.post(&format!("/api/v1/jobs/{}/$cancel", it.job), &json!({})).await.expect(200);
        // All rows would take 2.4 GB.
        let grown = program.peak_memory() - before;
        assert!(grown < 200 << 20, "{grown} bytes more");
        program.signal(Signal::TERM);
        program.ended(Duration::from_secs(10)).await;
    }

    async fn all_batches_together_run_no_more_chunks_than_the_machine_has_room_for(
        database: TestDatabase
    ) {
        let script = "sleep 0.2; cp future.csv predictions.csv";
        let (project, mut program) = scripts(&database.url, script).await;
        let client = &program.client;
        let path = format!("{PREDICT}?artifact_id={}&chunk_rows=1&parallel=8", training(client).await);
        let mut batches = Vec::new();
        for queue in ["batch", "predict"] {
            let path = format!("{path}&queue={queue}");
            batches.push(submitted(&send(client, &path, "text/csv", many(12)).await.expect(202)));
        }
        let most = std::thread::available_parallelism().unwrap().get().max(2);
        let mut at_once = 0;
        for it in &batches {
            until("it is done", async || {
                at_once = at_once.max(project.workspaces().len());
                let job = client.get(&format!("/api/v1/jobs/{}", it.job)).await.expect(200).body;
                job["status"] == "completed"
            })
            .await;
        }
        assert!(at_once > 1, "chunks are done one by one");
        // One that is done may not be removed yet.
        assert!(at_once < 2 * most, "{at_once} at once, {most} are allowed");
        program.signal(Signal::TERM);
        program.ended(Duration::from_secs(10)).await;
    }

    async fn a_cancelled_batch_stops_at_once(database: TestDatabase) {
        let (project, mut program) = scripts(&database.url, "sleep 60 & wait").await;
        let client = &program.client;
        let path = format!("{PREDICT}?artifact_id={}&chunk_rows=1&parallel=2", training(client).await);
        let it = submitted(&send(client, &path, "text/csv", many(100)).await.expect(202));
        until("chunks are being done", async || project.workspaces().len() == 2).await;
        let asked = Instant::now();
        client.post(&format!("/api/v1/jobs/{}/$cancel", it.job), &json!({})).await.expect(200);
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        until("nothing is left", async || project.workspaces().is_empty()).await;
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        assert!(project.processes().is_empty());
        assert_eq!(ended(client, &it.job).await["status"], "canceled");
        client.get(&format!("/api/v1/artifacts/{}", it.artifact)).await.expect(404);
        program.signal(Signal::TERM);
        program.ended(Duration::from_secs(10)).await;
    }
}

/// A batch that went well.
#[derive(Debug)]
#[expect(dead_code, reason = "what is not looked at is shown when the test fails")]
struct Done {
    file_bytes: usize,
    seconds: f64,
    /// The most memory that the program has had by now.
    peak_bytes: u64,
}

/// Predicts for as many rows, which are all different, and looks at the result.
async fn predict_noise(program: &Program, path: &str, rows: usize) -> Done {
    let client = &program.client;
    let mut file = "row,note\n".to_owned();
    for row in 0..rows {
        let _infallible = writeln!(file, "{row},{:0220}", row * 7919);
    }
    let (file_bytes, began) = (file.len(), Instant::now());
    let it = submitted(&send(client, path, "text/csv", file).await.expect(202));
    let job = loop {
        let job = client.get(&format!("/api/v1/jobs/{}", it.job)).await.expect(200).body;
        if !matches!(job["status"].as_str(), Some("pending" | "running")) {
            break job;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{job}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(job["status"], "completed", "{job}");
    let metadata = metadata(client, &it).await;
    assert_eq!(metadata["predicted_rows"], rows);
    assert_eq!(metadata["chunks"], rows / 1000);
    let path = format!("/api/v1/artifacts/{}/$download", it.artifact);
    let mut stream = client.request(Method::GET, &path).open().await;
    let mut lines = 0;
    while let Some(bytes) = stream.next_bytes().await {
        lines += bytes.iter().filter(|it| **it == b'\n').count();
    }
    assert_eq!(lines, rows);
    let seconds = began.elapsed().as_secs_f64();
    Done { file_bytes, seconds, peak_bytes: program.peak_memory() }
}

/// A program whose model predicts with this script, which is given [`Project::mark`].
async fn scripts(database: &str, predict: &str) -> (Project, Program) {
    let project = Project::new("echo trained > model");
    let mark = project.mark().display().to_string();
    let manifest = format!(
        "[service]\nid = \"scripts\"\ndisplay_name = \"Scripts\"\n\n[runner]\n\
         train = \"sh train.sh {mark}\"\npredict = \"sh predict.sh {mark}\"\n"
    );
    fs_err::write(project.path().join("modelyard.toml"), manifest).unwrap();
    fs_err::write(project.path().join("predict.sh"), predict).unwrap();
    let program = Program::start(serve(&project, database)).await;
    (project, program)
}

fn serve(project: &Project, database: &str) -> tokio::process::Command {
    let mut command = project.serve();
    command.arg("--database").arg(database);
    // Otherwise the allocator keeps for each thread the most that it has had.
    command.env("MALLOC_ARENA_MAX", "1");
    command
}
