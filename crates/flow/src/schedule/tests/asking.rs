//! What clients ask, and what they hear.

use super::*;

fn daily() -> Value {
    json!({"id": ID, "name": "every morning", "trigger":
            {"type": "cron", "expression": "0 6 * * *", "time_zone": "Europe/Berlin"},
        "target": {"kind": "test.work", "input": {"task_id": "x"}}})
}

on_both_databases! {
    async fn a_schedule_is_made_read_replaced_and_removed(database: TestDatabase) {
        let server = Server::new(&database);
        let created = server.post("", daily()).await;
        let expected = json!({
            "id": ID, "created_at": "2026-09-01T00:00:00.000000Z",
            "updated_at": "2026-09-01T00:00:00.000000Z", "name": "every morning", "enabled": true,
            "trigger": {"type": "cron", "expression": "0 6 * * *", "time_zone": "Europe/Berlin"},
            "target": {"kind": "test.work", "input": {"task_id": "x"}}, "misfire": "once",
            "overlap": "skip", "jitter_seconds": 0, "next_at": "2026-09-01T04:00:00.000000Z",
            "last_at": null});
        assert_eq!((created.status, &created.body), (201, &expected));
        assert_eq!(created.location, Some(format!("http://localhost/api/v1/schedules/{ID}")));
        let read = server.get(&format!("/{ID}")).await;
        assert_eq!((read.status, &read.body, &read.etag), (200, &expected, &created.etag));

        server.clock.advance(minutes(1));
        let body = json!({"name": "hourly", "enabled": false,
            "trigger": {"type": "interval", "every_seconds": 3600}, "misfire": "catch_up",
            "overlap": "queue", "jitter_seconds": 5, "target": {"kind": "test.other"}});
        let stale = server.call(Method::PUT, &format!("/{ID}"), Some("\"x\""), &body).await;
        assert_eq!(stale.status, 412);
        let replaced =
            server.call(Method::PUT, &format!("/{ID}"), read.etag.as_deref(), &body).await;
        assert_eq!(
            (replaced.status, &replaced.body),
            (
                200,
                &json!({
            "id": ID, "created_at": "2026-09-01T00:00:00.000000Z",
            "updated_at": "2026-09-01T00:01:00.000000Z", "name": "hourly", "enabled": false,
            "trigger": {"type": "interval", "every_seconds": 3600,
                "anchor": "2026-09-01T00:01:00.000000Z"},
            "target": {"kind": "test.other", "input": {}}, "misfire": "catch_up",
            "overlap": "queue", "jitter_seconds": 5, "next_at": null, "last_at": null})
            )
        );
        assert_ne!(replaced.etag, read.etag);

        let stale = server
            .call(Method::DELETE, &format!("/{ID}"), read.etag.as_deref(), &Value::Null)
            .await;
        assert_eq!(stale.status, 412);
        server
            .call(Method::DELETE, &format!("/{ID}"), replaced.etag.as_deref(), &Value::Null)
            .await
            .expect(204);
        let missing = server.get(&format!("/{ID}")).await;
        assert_eq!((missing.status, &missing.body["code"]), (404, &json!("schedule_missing")));
    }

    async fn a_tick_between_reading_and_writing_is_no_conflict(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({})).await;
        let path = format!("/{ID}");
        let read = server.get(&path).await;
        let tag = read.etag.as_deref();
        assert_eq!(server.again(&path, tag).await, 304);
        server.advance(hours(1)).await;
        assert_eq!(server.again(&path, tag).await, 200);
        let put = server.call(Method::PUT, &path, tag, &hourly(ID)).await;
        assert_eq!(put.status, 200);
        assert_eq!(put.body["last_at"], "2026-09-01T01:00:00.000000Z");
        // A change by somebody is one, whatever else happens.
        for method in [Method::PUT, Method::DELETE] {
            assert_eq!(server.call(method, &path, tag, &hourly(ID)).await.status, 412);
        }
        let several = format!("\"x\", W/{}, \"y~z\"", put.etag.unwrap());
        let put = server.call(Method::PUT, &path, Some(&several), &hourly(ID)).await;
        assert_eq!(put.status, 200);
        assert_eq!(server.call(Method::DELETE, &path, Some("*"), &Value::Null).await.status, 204);
    }

    async fn what_is_missing_or_taken_is_said(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({})).await;
        let taken = server.post("", hourly(ID)).await;
        assert_eq!((taken.status, &taken.body["code"]), (409, &json!("schedule_taken")));
        for (method, path) in [
            (Method::GET, ""),
            (Method::PUT, ""),
            (Method::DELETE, ""),
            (Method::GET, "/$history"),
            (Method::GET, "/$next"),
            (Method::POST, "/$run-now"),
            (Method::POST, "/$pause"),
            (Method::POST, "/$resume"),
        ] {
            let body = if method == Method::PUT { hourly(OTHER) } else { Value::Null };
            let answer = server.call(method.clone(), &format!("/{OTHER}{path}"), None, &body).await;
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (404, &json!("schedule_missing")),
                "{method} {path}"
            );
            let answer = server.call(method, &format!("/nope{path}"), None, &body).await;
            assert_eq!((answer.status, &answer.body["code"]), (400, &json!("invalid_ulid")));
        }
    }

    async fn lists_are_filtered_and_go_from_item_to_item(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({"name": "a"})).await;
        server
            .create(OTHER, json!({"name": "b", "enabled": false, "target": {"kind": "test.other"}}))
            .await;
        let names = |answer: Value| -> Vec<String> {
            let items = answer.get("items").unwrap_or(&answer).as_array().unwrap().clone();
            items.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
        };
        for (query, expected) in [
            ("", vec!["a", "b"]),
            ("?sort=name:desc", vec!["b", "a"]),
            ("?enabled=false", vec!["b"]),
            ("?q=OTHER", vec!["b"]),
            ("?next_at[lte]=2026-09-01T01:00:00Z", vec!["a"]),
            ("?overlap=skip", vec![]),
            ("?limit=1&sort=enabled,name:desc", vec!["b"]),
        ] {
            assert_eq!(names(server.get(query).await.expect(200)), expected, "{query}");
        }
        let sparse = server.get("?fields=id,trigger&enabled=true").await.expect(200);
        assert_eq!(sparse[0].as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "trigger"]);
        assert_eq!(server.get("?next_at=soon").await.status, 400);
    }

    async fn several_changes_are_made_at_once(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({})).await;
        let answer = server
            .post(
                "/$bulk",
                json!({"operations": [
            {"op": "create", "body": hourly(OTHER)},
            {"op": "create", "body": {"name": "wrong"}},
            {"op": "update", "id": ID, "body": daily()},
            {"op": "delete", "id": OTHER}]}),
            )
            .await
            .expect(200);
        let status: Vec<&Value> =
            answer["results"].as_array().unwrap().iter().map(|it| &it["status"]).collect();
        assert_eq!(status, [201, 422, 200, 204]);
        assert_eq!(answer["results"][2]["body"]["name"], "every morning");
    }

    async fn an_unknown_kind_is_answered_with_those_there_are(database: TestDatabase) {
        let server = Server::new(&database);
        let mut body = hourly(ID);
        body["target"]["kind"] = json!("ml.predict");
        let answer = server.post("", body).await.expect(422);
        assert_eq!(answer["errors"][0]["loc"], json!(["body", "target", "kind"]));
        assert_eq!(answer["errors"][0]["msg"], "Input should be 'test.other' or 'test.work'");
    }

    async fn input_that_its_launcher_cannot_read_is_refused(database: TestDatabase) {
        let server = Server::new(&database);
        let mut body = hourly(ID);
        body["target"]["input"] = json!({"wrong": true});
        let answer = server.post("", body).await;
        assert_eq!((answer.status, &answer.body["code"]), (400, &json!("input_wrong")));
    }

    async fn whoever_makes_a_schedule_must_be_permitted_what_it_begins(database: TestDatabase) {
        let with = |names: &[&str]| {
            let grants = Grants::Only(names.iter().map(|it| (*it).to_owned()).collect());
            Server::with(database.db.clone(), database.clock.clone(), World::default(), grants)
        };
        let reader = with(&["schedules:read", "test:begin"]);
        assert_eq!(reader.post("", hourly(ID)).await.status, 403);
        let writer = with(&["schedules:write", "schedules:read"]);
        let denied = writer.post("", hourly(ID)).await;
        assert_eq!(
            (denied.status, &denied.body["detail"]),
            (403, &json!("this needs the `test:begin` permission"))
        );
        let both = with(&["schedules:write", "test:begin"]);
        both.post("", hourly(ID)).await.expect(201);
        assert_eq!(both.get(&format!("/{ID}")).await.status, 403);
        assert_eq!(reader.get(&format!("/{ID}")).await.status, 200);
        assert_eq!(writer.put(&format!("/{ID}"), hourly(ID)).await.status, 403);
        assert_eq!(writer.post(&format!("/{ID}/$run-now"), Value::Null).await.status, 403);
        assert_eq!(reader.post(&format!("/{ID}/$pause"), Value::Null).await.status, 403);
        assert_eq!(writer.post(&format!("/{ID}/$pause"), Value::Null).await.status, 200);
        let denied = writer.post(&format!("/{ID}/$resume"), Value::Null).await;
        assert_eq!(
            (denied.status, &denied.body["detail"]),
            (403, &json!("this needs the `test:begin` permission"))
        );
        let resumed = both.post(&format!("/{ID}/$resume"), Value::Null).await.expect(200);
        assert_eq!(resumed["enabled"], true);
    }

    async fn the_next_times_are_told_as_clocks_show_them(database: TestDatabase) {
        let server = Server::new(&database);
        let mut body = daily();
        body["trigger"]["expression"] = json!("30 2 25-26 10 *");
        body["enabled"] = json!(false);
        server.post("", body).await.expect(201);
        let next = server.get(&format!("/{ID}/$next?count=3")).await.expect(200);
        assert_eq!(
            next,
            json!([
            {"at": "2026-10-25T00:30:00.000000Z", "local": "2026-10-25T02:30:00+02:00"},
            {"at": "2026-10-25T01:30:00.000000Z", "local": "2026-10-25T02:30:00+01:00"},
            {"at": "2026-10-26T01:30:00.000000Z", "local": "2026-10-26T02:30:00+01:00"}])
        );
        let five = server.get(&format!("/{ID}/$next")).await.expect(200);
        assert_eq!(five.as_array().unwrap().len(), 5);
        for wrong in ["0", "101", "x"] {
            assert_eq!(server.get(&format!("/{ID}/$next?count={wrong}")).await.status, 422);
        }
    }

    async fn a_schedule_runs_when_it_is_asked_to(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({"enabled": false, "overlap": "skip"})).await;
        server.clock.advance(minutes(5));
        let begun = server.post(&format!("/{ID}/$run-now"), Value::Null).await.expect(202);
        let (job, _) = server.world.launched.lock()[0].clone();
        assert_eq!(
            begun,
            json!({"job_id": job, "message": format!("Job of schedule {ID} submitted")})
        );
        let busy = server.post(&format!("/{ID}/$run-now"), Value::Null).await;
        assert_eq!((busy.status, &busy.body["code"]), (409, &json!("schedule_busy")));
        server.end_all().await;
        // Within the same microsecond.
        server.post(&format!("/{ID}/$run-now"), Value::Null).await.expect(202);
        let history = server.get(&format!("/{ID}/$history")).await.expect(200);
        let times: Vec<&Value> =
            history.as_array().unwrap().iter().map(|it| &it["tick_at"]).collect();
        assert_eq!(times, ["2026-09-01T00:05:00.000001Z", "2026-09-01T00:05:00.000000Z"]);
        assert!(history.as_array().unwrap().iter().all(|it| it["manual"] == true));
        let schedule = server.get(&format!("/{ID}")).await.expect(200);
        assert_eq!(
            (&schedule["last_at"], &schedule["next_at"]),
            (&json!("2026-09-01T00:05:00.000000Z"), &Value::Null)
        );

        *server.world.trouble.lock() = Some(Trouble::QueueFull);
        server.end_all().await;
        assert_eq!(server.post(&format!("/{ID}/$run-now"), Value::Null).await.status, 429);
        assert_eq!(server.jobs().await, 2);
    }

    async fn a_run_that_is_asked_for_again_is_the_same(database: TestDatabase) {
        let server = Server::new(&database);
        for (id, overlap) in [(ID, "skip"), (OTHER, "queue")] {
            server.create(id, json!({"overlap": overlap})).await;
        }
        let first = server.run_now_as(ID, "mine").await.expect(202);
        assert_eq!(server.run_now_as(ID, "mine").await.expect(202), first);
        // Another schedule is another request, also where its job would be another's.
        for _ in 0..2 {
            let reused = server.run_now_as(OTHER, "mine").await;
            assert_eq!(
                (reused.status, &reused.body["code"]),
                (422, &json!("idempotency_key_reused"))
            );
        }
        assert_eq!((server.jobs().await, server.history(ID).await.len()), (1, 1));
        // One that was refused asked for nothing.
        assert_eq!(server.run_now_as(ID, "later").await.status, 409);
        server.end_all().await;
        let second = server.run_now_as(ID, "later").await.expect(202);
        assert_ne!(second["job_id"], first["job_id"]);
        assert_eq!(server.run_now_as(ID, "mine").await.expect(202), first);

        let waits = server.run_now_as(OTHER, "one").await.expect(202);
        let same = server.run_now_as(OTHER, "two").await.expect(202);
        assert_eq!(waits["job_id"], same["job_id"]);
        server.end_all().await;
        let again = server.run_now_as(OTHER, "two").await.expect(202);
        assert_eq!(again["job_id"], same["job_id"]);
    }

    async fn a_run_can_be_wished_for_like_any_job(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({})).await;
        let wishes = format!("/{ID}/$run-now?label=by+hand&priority=7&max_attempts=9");
        server.post(&wishes, Value::Null).await.expect(202);
        let job = server.world.launched.lock()[0].0;
        let job = server.job(job).await;
        assert_eq!(
            (job.label.as_deref(), job.priority, job.max_attempts),
            (Some("by hand"), 7, 9)
        );
        let nowhere = server.post(&format!("/{ID}/$run-now?queue=nowhere"), Value::Null).await;
        assert_eq!((nowhere.status, &nowhere.body["code"]), (400, &json!("queue_unknown")));
    }

    async fn of_runs_that_are_asked_for_at_once_by_one_name_there_is_one(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({})).await;
        server.create(OTHER, json!({})).await;
        let same = futures_util::future::join_all((0..8).map(|_| server.run_now_as(ID, "x"))).await;
        let job = &same[0].body["job_id"];
        assert!(same.iter().all(|it| it.status == 202 && it.body["job_id"] == *job), "{same:?}");
        assert_eq!(server.jobs().await, 1);
        let (one, other) =
            tokio::join!(server.run_now_as(ID, "y"), server.run_now_as(OTHER, "y"));
        let mut statuses = [one.status, other.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 422]);
        assert_eq!(server.jobs().await, 2);
    }

    async fn running_one_now_leaves_its_next_tick(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({"overlap": "queue", "jitter_seconds": 60})).await;
        let next = server.get(&format!("/{ID}")).await.expect(200)["next_at"].clone();
        server.post(&format!("/{ID}/$run-now"), Value::Null).await.expect(202);
        let job = server.world.launched.lock()[0].0;
        let again = server.post(&format!("/{ID}/$run-now"), Value::Null).await.expect(202);
        assert_eq!(
            again,
            json!({"job_id": job, "message": format!("A job of schedule {ID} waits already")})
        );
        assert_eq!(server.get(&format!("/{ID}")).await.expect(200)["next_at"], next);
        server.advance(hours(1) + minutes(1)).await;
        assert_eq!(server.history(ID).await[0], line("01:00", "skipped_overlap"));
    }

    async fn what_others_have_is_not_seen(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({})).await;
        let (caller, id) =
            (Caller::system("test", TENANT, "another"), ScheduleId::read(ID).unwrap());
        assert_eq!(server.schedules.get(&caller, id).await.unwrap_err().code(), "schedule_missing");
        assert_eq!(
            server.schedules.history(&caller, id).await.unwrap_err().code(),
            "schedule_missing"
        );
    }

    async fn the_json_schema_describes_what_is_answered(database: TestDatabase) {
        let server = Server::new(&database);
        let schema = server.get("/$schema").await.expect(200);
        let schedule = server.create(ID, json!({})).await;
        let described: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(described, schedule.as_object().unwrap().keys().collect::<Vec<_>>());
        assert_eq!(described, FIELDS.keys);
    }
}
