//! Tasks as things that are done.

use super::*;

on_both_databases! {
    async fn a_shell_task_leaves_what_it_printed_whatever_its_exit_code(database: TestDatabase) {
        let server = Server::started(&database, Setup::default()).await;
        let command = "echo out; echo err >&2; exit 3";
        let task = json!({"id": ID, "command": command, "parameters": {"unused": "a\0b"}});
        assert_eq!(
            server.outcome(task).await,
            json!({"task": {"id": ID, "command": command, "created_at": "2026-09-01T00:00:00",
                "updated_at": "2026-09-01T00:00:00"},
                "stdout": "out\n", "stderr": "err\n", "exit_code": 3})
        );
    }

    async fn a_command_is_a_template_of_the_parameters_that_are_stored_with_it(
        database: TestDatabase
    ) {
        let server = Server::started(&database, Setup::default()).await;
        let command = "printf '%s|' {who} {times} {missing}; awk 'BEGIN {print 1}'";
        let parameters = json!({"who": "x", "times": 1});
        server.post("", json!({"id": ID, "command": command, "parameters": parameters})).await;
        for (overrides, said) in [
            (json!({"who": 5}), "Task 01JCSEED0000000000000PYTH1: `who` must be a string, it is a number"),
            (json!({"how": 5}), "Task 01JCSEED0000000000000PYTH1: `how` is none of its parameters: who, times"),
        ] {
            let body = json!({"parameters": overrides});
            let (status, problem) = server.post(&format!("/{ID}/$execute"), body).await;
            assert_eq!((status, &problem["detail"]), (400, &json!(said)));
        }
        let body = json!({"parameters": {"who": "it's $(id) {times}"}});
        let submitted = server.post(&format!("/{ID}/$execute"), body).await;
        let data = server.artifact(&server.ended(submitted).await).await;
        assert_eq!(data["stdout"], "it's $(id) {times}|1|{missing}|1\n");
        assert_eq!(data["task"]["parameters"], json!({"who": "it's $(id) {times}", "times": 1}));
    }

    async fn a_parameter_cannot_stand_where_its_text_would_be_run(database: TestDatabase) {
        let server = Server::started(&database, Setup::default()).await;
        let parameters = json!({"who": "x"});
        let task = json!({"id": ID, "command": "echo {who}", "parameters": parameters});
        assert_eq!(server.post("", task).await.0, 201);
        let body = json!({"command": "echo \"{who}\"", "parameters": parameters});
        let kept = json!({"command": "echo \"{who}\""});
        for (status, problem) in [
            server.post("", body).await,
            // Its parameters stay, so it has one of this name.
            server.put(&format!("/{ID}"), kept).await,
        ] {
            assert_eq!((status, &problem["errors"][0]["loc"]), (422, &json!(["body", "command"])));
            let said = problem["errors"][0]["msg"].as_str().unwrap();
            assert!(said.contains("`{who}` must be written without quotes"), "{said}");
        }
        let plain = json!({"id": OTHER, "command": "echo \"{who}\""});
        assert_eq!(server.outcome(plain).await["stdout"], "{who}\n");

        // As an earlier version stored it.
        let mut conn = database.db.conn().await.unwrap();
        query("UPDATE tasks SET command = 'echo \"{who}\"' WHERE parameters IS NOT NULL")
            .execute(&mut conn)
            .await
            .unwrap();
        drop(conn);
        let body = json!({"parameters": {"who": "$(id)"}});
        let (status, problem) = server.post(&format!("/{ID}/$execute"), body).await;
        assert_eq!((status, &problem["code"]), (400, &json!("command_unsafe")));
    }

    async fn a_command_that_became_unsafe_is_not_run(database: TestDatabase) {
        let server = Server::new(&database, Setup::default());
        let task = json!({"id": ID, "command": "echo {who}", "parameters": {"who": "x"}});
        server.post("", task).await;
        let submitted = server.execute(ID).await;
        let mut conn = database.db.conn().await.unwrap();
        query("UPDATE tasks SET command = 'echo \"{who}\"'").execute(&mut conn).await.unwrap();
        drop(conn);
        server.start().await;
        let error = server.ended(submitted).await.error.unwrap();
        assert!(error.starts_with("ValueError: `{who}` must be written without quotes"), "{error}");
    }

    async fn what_a_shell_task_says_is_in_the_record_of_its_job(database: TestDatabase) {
        let server = Server::started(&database, Setup::default()).await;
        let command = "echo first; echo second >&2
            echo '{\"progress\": 0.5, \"message\": \"half\", \"counters\": {\"rows\": 3}}' >&3
            touch $MODELYARD_CHECKPOINT_DIR/one; echo '{\"checkpoint\": \"one\"}' >&3
            sleep 60";
        server.post("", json!({"id": ID, "command": command})).await;
        let (_, answer) = server.execute(ID).await;
        let id = job_id(&answer);
        // While it runs.
        let said = async {
            loop {
                let lines = server.jobs.lines(&test_caller(), id, 0, 10).await.unwrap();
                if lines.len() == 3 && server.job(id).await.progress.is_some() {
                    return lines;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let lines = tokio::time::timeout(Duration::from_secs(20), said).await.unwrap();
        let mut lines: Vec<_> =
            lines.iter().map(|it| (it.stream.as_str(), it.text.as_str())).collect();
        lines.sort_unstable();
        assert_eq!(lines[..2], [("stderr", "second"), ("stdout", "first")]);
        let (stream, text) = lines[2];
        assert!(stream == "system" && text.contains("keeps no checkpoints"), "{text}");
        let job = serde_json::to_value(server.job(id).await).unwrap();
        assert_eq!(
            (&job["progress"]["fraction"], &job["progress"]["message"]),
            (&json!(0.5), &json!("half"))
        );
        assert_eq!(job["progress"]["counters"], json!({"rows": 3.0}));
        assert_eq!(job["log_tail"].as_array().unwrap().len(), 3);
        server.jobs.delete(&test_caller(), id, &Conditions::default()).await.unwrap();
    }

    async fn a_shell_task_knows_its_job(database: TestDatabase) {
        let server = Server::started(&database, Setup::default()).await;
        let command = "echo $MODELYARD_JOB_ID $MODELYARD_IDEMPOTENCY_KEY";
        server.post("", json!({"id": ID, "command": command})).await;
        let submitted = server.execute(ID).await;
        let job = server.ended(submitted).await;
        let id = job.id;
        assert_eq!(server.artifact(&job).await["stdout"], format!("{id} {id}-run\n"));
    }

    async fn output_that_is_no_text_is_kept_as_far_as_it_is(database: TestDatabase) {
        let server = Server::started(&database, Setup::default()).await;
        let outcome = server.outcome(json!({"command": r"printf 'a\000b\377c'"})).await;
        assert_eq!(outcome["stdout"], "a\0b\u{fffd}c");
    }

    async fn a_shell_task_runs_in_the_project_with_its_environment(database: TestDatabase) {
        let project = database.dir().join("project");
        fs_err::create_dir(&project).unwrap();
        fs_err::write(project.join("a.txt"), "of the project").unwrap();
        let setup = Setup { directory: Some(project), ..Setup::default() };
        let server = Server::started(&database, setup).await;
        let outcome = server.outcome(json!({"command": "cat a.txt; echo \" $GREETING\""})).await;
        assert_eq!(outcome["stdout"], "of the project hello\n");
    }

    async fn without_a_project_it_runs_in_an_empty_directory_that_goes(database: TestDatabase) {
        let server = Server::started(&database, Setup::default()).await;
        let outcome = server.outcome(json!({"command": "ls -A; touch a.txt; pwd"})).await;
        let directory = outcome["stdout"].as_str().unwrap().trim();
        assert!(directory.starts_with('/') && !directory.contains('\n'), "{directory}");
        assert!(!PathBuf::from(directory).exists());
    }

    async fn a_command_over_its_time_fails_the_job_and_keeps_what_it_printed(
        database: TestDatabase
    ) {
        let limits = Limits { wall_time: Some(Duration::from_millis(300)), ..Limits::default() };
        let server = Server::started(&database, Setup { limits, ..Setup::default() }).await;
        server.post("", json!({"id": ID, "command": "echo begun; sleep 60"})).await;
        let submitted = server.execute(ID).await;
        let job = server.ended(submitted).await;
        let error = job.error.clone().unwrap();
        let told = "TimeoutError: task script was stopped after 0.3 seconds, its limit; artifact ";
        let artifact = error.strip_prefix(told).and_then(|it| it.get(..26)).unwrap();
        let artifact = Job { artifact_id: Ulid::read(artifact), ..job };
        let data = server.artifact(&artifact).await;
        assert_eq!((&data["stdout"], &data["exit_code"]), (&json!("begun\n"), &json!(-15)));
    }

    async fn a_function_leaves_what_it_returned(database: TestDatabase) {
        let server = Server::started(&database, Setup::default()).await;
        assert_eq!(
            server.outcome(python(ID)).await,
            json!({"task": {"id": ID, "command": "calculate_sum", "task_type": "python",
                "parameters": {"a": 10, "b": 32}, "created_at": "2026-09-01T00:00:00",
                "updated_at": "2026-09-01T00:00:00"},
                "result": {"result": 42, "operation": "sum"}, "error": null})
        );
    }

    async fn parameters_of_a_request_are_put_over_the_stored_ones(database: TestDatabase) {
        let server = Server::started(&database, Setup::default()).await;
        server.post("", python(ID)).await;
        let path = format!("/{ID}/$execute");
        let submitted = server.post(&path, json!({"parameters": {"b": 1}})).await;
        let data = server.artifact(&server.ended(submitted).await).await;
        assert_eq!(data["result"]["result"], 11);
        assert_eq!(data["task"]["parameters"], json!({"a": 10, "b": 1}));
        assert_eq!(server.get(&format!("/{ID}")).await.1["parameters"], json!({"a": 10, "b": 32}));

        for harmless in [json!({}), json!(null), json!({"parameters": null})] {
            assert_eq!(server.post(&path, harmless).await.0, 202);
        }
        let (status, problem) = server.post(&path, json!({"parameters": [1]})).await;
        assert_eq!((status, &problem["errors"][0]["type"]), (422, &json!("dict_type")));
        server.post("", json!({"id": OTHER, "command": "date"})).await;
        let path = format!("/{OTHER}/$execute");
        let (status, problem) = server.post(&path, json!({"parameters": {"b": 1}})).await;
        assert_eq!((status, &problem["code"]), (400, &json!("parameters_unused")));
    }

    async fn errors_of_functions_are_results_too(database: TestDatabase) {
        let server = Server::started(&database, Setup::default()).await;
        let failing = server.outcome(json!({"command": "failing_task", "task_type": "python"})).await;
        assert_eq!(failing["result"], Value::Null);
        assert_eq!(failing["error"], json!({"type": "ValueError",
            "message": "This task was designed to fail",
            "traceback": "ValueError: This task was designed to fail"}));
        assert_eq!(failing["task"]["parameters"], Value::Null);

        let short = json!({"command": "calculate_sum", "task_type": "python", "parameters": {"a": 1}});
        let error = &server.outcome(short).await["error"];
        assert_eq!(error["type"], "ValueError");
        assert_eq!(error["message"], "Missing required parameter 'b' for task function. Parameter \
            is not injectable and not provided in task.parameters.");

        let panicking = json!({"command": "panicking_task", "task_type": "python"});
        let error = &server.outcome(panicking).await["error"];
        assert_eq!((&error["type"], &error["message"]), (&json!("Panic"), &json!("there is nothing")));
    }

    async fn a_function_may_say_that_its_failure_passes(database: TestDatabase) {
        let server = Server::started(&database, Setup::default()).await;
        let task = json!({"id": ID, "command": "hesitating_task", "task_type": "python"});
        server.post("", task).await;
        let (_, answer) = server.execute(ID).await;
        let id = job_id(&answer);
        let waits = async {
            loop {
                let job = server.job(id).await;
                if job.error.is_some() {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let job = tokio::time::timeout(Duration::from_secs(20), waits).await.expect("it fails");
        // It waits for another attempt.
        assert_eq!((job.status, job.attempt), (JobStatus::Pending, 1));
        assert_eq!(job.error.as_deref(), Some("ModelError: not yet"));
        let lines = server.jobs.lines(&test_caller(), job.id, 0, 10).await.unwrap();
        let lines: Vec<_> = lines.iter().map(|it| (&*it.stream, &*it.text)).collect();
        assert_eq!(lines, [("stdout", "looked")]);
        assert_eq!(serde_json::to_value(&job).unwrap()["progress"]["message"], "half");

        let path = format!("/{ID}/$execute?max_attempts=1");
        let submitted = server.post(&path, Value::Null).await;
        let job = server.ended(submitted).await;
        assert_eq!((job.status, job.dead_letter), (JobStatus::Failed, true));
    }

    async fn the_functions_are_listed_with_what_they_take(database: TestDatabase) {
        let server = Server::new(&database, Setup::default());
        let (status, functions) = server.get("/$functions").await;
        assert_eq!(status, 200);
        let names: Vec<_> = functions.as_array().unwrap().iter().map(|it| &it["name"]).collect();
        assert_eq!(names, ["calculate_sum", "failing_task", "hesitating_task", "panicking_task"]);
        let schema = &functions[0]["parameters"];
        assert_eq!(schema["required"], json!(["a", "b"]));
        assert_eq!(schema["properties"]["a"], json!({"type": "integer", "format": "int64"}));
    }

    async fn parameters_that_no_function_takes_are_refused(database: TestDatabase) {
        let server = Server::new(&database, Setup::default());
        let mut wrong = python(ID);
        wrong["parameters"]["b"] = json!("x");
        let (status, problem) = server.post("", wrong.clone()).await;
        let place = json!(["body", "parameters", "b"]);
        assert_eq!((status, &problem["errors"][0]["loc"]), (422, &place));
        assert_eq!(server.post("", python(ID)).await.0, 201);
        assert_eq!(server.put(&format!("/{ID}"), wrong).await.0, 422);
        // What was stored is checked when it becomes that of a function.
        let free = json!({"id": OTHER, "command": "echo", "parameters": {"a": "x"}});
        assert_eq!(server.post("", free).await.0, 201);
        let kept = json!({"command": "calculate_sum", "task_type": "python"});
        assert_eq!(server.put(&format!("/{OTHER}"), kept).await.0, 422);

        let path = format!("/{ID}/$execute");
        let (status, problem) = server.post(&path, json!({"parameters": {"b": []}})).await;
        assert_eq!((status, &problem["code"]), (400, &json!("parameters_invalid")));
        let said = format!("Task {ID}: `b`: Input should be a valid integer");
        assert_eq!(problem["detail"], said);
        // What a task lacks may come with a request, and must if that has any.
        let short = json!({"id": THIRD, "command": "calculate_sum", "task_type": "python",
            "parameters": {"a": 1}});
        assert_eq!(server.post("", short).await.0, 201);
        let path = format!("/{THIRD}/$execute");
        assert_eq!(server.post(&path, json!({"parameters": {"b": 1}})).await.0, 202);
        assert_eq!(server.post(&path, json!({"parameters": {"a": 1}})).await.0, 400);
        assert_eq!(server.execute(THIRD).await.0, 202);
    }

    async fn a_function_that_there_is_not_fails_the_job(database: TestDatabase) {
        let server = Server::started(&database, Setup::default()).await;
        let (status, _) =
            server.post("", json!({"id": ID, "command": "nope_fn", "task_type": "python"})).await;
        assert_eq!(status, 201);
        let submitted = server.execute(ID).await;
        let message = format!("Task submitted for execution. Job ID: {}", job_id(&submitted.1));
        assert_eq!(submitted.1["message"], message);
        let job = server.ended(submitted).await;
        assert_eq!((job.status, job.artifact_id), (JobStatus::Failed, None));
        assert_eq!(job.kind, "task.execute");
        let error = "ValueError: Python function 'nope_fn' not found in registry";
        assert_eq!(job.error.as_deref(), Some(error));
        assert_eq!(server.artifacts.count(&test_caller()).await.unwrap(), 0);
    }

    async fn what_cannot_be_executed_is_told_at_once(database: TestDatabase) {
        let server = Server::new(&database, Setup::default());
        let (status, problem) = server.execute(ID).await;
        assert_eq!((status, &problem["detail"]), (400, &json!(format!("Task {ID} not found"))));
        assert_eq!(problem["title"], "Bad Request");

        server.post("", json!({"id": ID, "command": "date", "enabled": false})).await;
        let (status, problem) = server.execute(ID).await;
        assert_eq!(status, 400);
        assert_eq!(problem["detail"], format!("Cannot execute disabled task {ID}"));

        let (status, problem) = server.execute("bad").await;
        assert_eq!((status, &problem["detail"]), (400, &json!("Invalid ULID format: bad")));
        assert_eq!(problem["instance"], "/api/v1/tasks/bad");
    }

    async fn a_task_runs_as_it_is_when_its_turn_comes(database: TestDatabase) {
        let server = Server::new(&database, Setup::default());
        for id in [ID, OTHER, THIRD] {
            server.post("", python(id)).await;
        }
        let changed = server.execute(ID).await;
        let disabled = server.execute(OTHER).await;
        let removed = server.execute(THIRD).await;
        server.put(&format!("/{ID}"), json!({"command": "echo changed"})).await;
        server.put(&format!("/{OTHER}"), json!({"command": "date", "enabled": false})).await;
        server.call(Method::DELETE, &format!("/{THIRD}"), &Value::Null).await;
        server.start().await;

        let job = server.ended(changed).await;
        assert_eq!(server.artifact(&job).await["stdout"], "changed\n");
        let error = format!("ValueError: Cannot execute disabled task {OTHER}");
        assert_eq!(server.ended(disabled).await.error, Some(error));
        let error = format!("ValueError: Task {THIRD} not found");
        assert_eq!(server.ended(removed).await.error, Some(error));
    }

    async fn a_cancelled_execution_leaves_nothing(database: TestDatabase) {
        let server = Server::started(&database, Setup::default()).await;
        server.post("", json!({"id": ID, "command": "sleep 60"})).await;
        let (_, answer) = server.execute(ID).await;
        let id = job_id(&answer);
        let begun = async {
            while server.job(id).await.started_at.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), begun).await.expect("the job begins");
        server.jobs.delete(&test_caller(), id, &Conditions::default()).await.unwrap();
        assert_eq!(server.artifacts.count(&test_caller()).await.unwrap(), 0);
    }

    async fn shell_tasks_are_refused_unless_the_service_allows_them(database: TestDatabase) {
        let allowed = Server::new(&database, Setup::default());
        allowed.post("", json!({"id": ID, "command": "date"})).await;
        let submitted = allowed.execute(ID).await;

        let setup = Setup { shell: ShellTasks::Refused, ..Setup::default() };
        let server = Server::started(&database, setup).await;
        let shell = json!({"command": "date"});
        let create = json!({"operations": [{"op": "create", "body": shell}]});
        assert_eq!(server.post("/$bulk", create).await.1["results"][0]["status"], 403);
        for (status, problem) in [
            server.post("", shell.clone()).await,
            server.put(&format!("/{ID}"), shell).await,
            server.execute(ID).await,
        ] {
            assert_eq!((status, &problem["code"]), (403, &json!("shell_tasks_disabled")));
            assert!(problem["detail"].as_str().unwrap().contains("tasks.shell"));
        }
        // One that was submitted while they were allowed does not slip through.
        let error = server.ended(submitted).await.error.unwrap();
        assert!(error.starts_with("PermissionError: shell tasks are switched off"), "{error}");

        assert_eq!(server.get(&format!("/{ID}")).await.0, 200);
        assert_eq!(server.outcome(python(OTHER)).await["result"]["result"], 42);
        let path = format!("/{ID}");
        assert_eq!(server.call(Method::DELETE, &path, &Value::Null).await.0, 204);
    }
}
