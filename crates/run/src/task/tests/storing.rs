//! Tasks as things that are stored.

use super::*;

on_both_databases! {
    async fn a_task_is_made_read_replaced_and_removed(database: TestDatabase) {
        let server = Server::new(&database, Setup::default());
        let task = json!({"id": ID, "created_at": "2026-09-01T00:00:00",
            "updated_at": "2026-09-01T00:00:00", "command": "calculate_sum", "task_type": "python",
            "parameters": {"a": 10, "b": 32}, "enabled": true});
        assert_eq!(server.post("", python(ID)).await, (201, task.clone()));
        assert_eq!(server.get(&format!("/{}", ID.to_lowercase())).await, (200, task));

        database.clock.advance(Duration::from_secs(5));
        let disabled = json!({"command": "echo hi", "enabled": false, "id": OTHER});
        let replaced = json!({"id": ID, "created_at": "2026-09-01T00:00:00",
            "updated_at": "2026-09-01T00:00:05", "command": "echo hi", "task_type": "shell",
            "parameters": {"a": 10, "b": 32}, "enabled": false});
        assert_eq!(server.put(&format!("/{ID}"), disabled).await, (200, replaced));
        assert_eq!(server.get("/$stats").await, (200, json!({"total": 1})));

        let path = format!("/{ID}");
        assert_eq!(server.call(Method::DELETE, &path, &Value::Null).await, (204, Value::Null));
        let (status, problem) = server.get(&path).await;
        assert_eq!(status, 404);
        assert_eq!(problem["detail"], format!("Entity with id {ID} not found"));
        assert_eq!(problem["instance"], format!("/api/v1/tasks/{ID}"));
    }

    async fn a_put_that_says_nothing_of_it_enables_and_makes_a_shell_task(database: TestDatabase) {
        let server = Server::new(&database, Setup::default());
        let mut task = python(ID);
        task["enabled"] = json!(false);
        server.post("", task).await;
        let (_, task) = server.put(&format!("/{ID}"), json!({"command": "x", "parameters": null})).await;
        assert_eq!((&task["enabled"], &task["task_type"]), (&json!(true), &json!("shell")));
        assert_eq!(task["parameters"], json!({"a": 10, "b": 32}), "as v0 keeps them");
        let (_, task) = server.put(&format!("/{ID}"), json!({"command": "x", "parameters": {}})).await;
        assert_eq!(task["parameters"], json!({}));
    }

    async fn tasks_are_listed_by_id_and_by_whether_they_are_enabled(database: TestDatabase) {
        let server = Server::new(&database, Setup::default());
        for (id, enabled) in [(THIRD, true), (ID, true), (OTHER, false)] {
            server.post("", json!({"id": id, "command": "date", "enabled": enabled})).await;
            database.clock.advance(Duration::from_secs(1));
        }
        assert_eq!(ids(&server.get("").await.1), [ID, OTHER, THIRD]);
        assert_eq!(ids(&server.get("?enabled=true").await.1), [ID, THIRD]);
        assert_eq!(ids(&server.get("?enabled=off").await.1), [OTHER]);
        assert_eq!(ids(&server.get("?sort=created_at:desc").await.1), [OTHER, ID, THIRD]);
        assert_eq!(ids(&server.get("?sort=enabled&limit=2").await.1), [OTHER, ID]);
        // v0 looks past `enabled` when pages are asked for.
        let (_, page) = server.get("?page=1&size=1&enabled=true").await;
        assert_eq!((ids(&page), &page["total"], &page["pages"]), (vec![ID], &json!(2), &json!(2)));

        let (status, problem) = server.get("?enabled=zzz").await;
        assert_eq!(status, 422);
        assert_eq!(problem["errors"], json!([{"type": "bool_parsing", "loc": ["query", "enabled"],
            "msg": "Input should be a valid boolean, unable to interpret input", "input": "zzz"}]));
    }

    async fn a_task_that_is_wrong_or_taken_is_refused(database: TestDatabase) {
        let server = Server::new(&database, Setup::default());
        let (status, problem) = server.post("", json!({"command": "x", "task_type": "ruby"})).await;
        assert_eq!(status, 422);
        assert_eq!(problem["errors"], json!([{"type": "literal_error", "loc": ["body", "task_type"],
            "msg": "Input should be 'shell' or 'python'", "input": "ruby",
            "ctx": {"expected": "'shell' or 'python'"}}]));
        server.post("", python(ID)).await;
        assert_eq!(server.post("", python(ID)).await.0, 409);

        let request = Request::delete(format!("/api/v1/tasks/{ID}")).header("if-match", "\"x\"");
        let (status, problem) = server.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!((status, &problem["code"]), (412, &json!("precondition_failed")));
        let request = Request::get(format!("/api/v1/tasks/{ID}")).body(Body::empty()).unwrap();
        let seen = server.router.clone().oneshot(request).await.unwrap();
        let request = Request::delete(format!("/api/v1/tasks/{ID}"));
        let request = request.header("if-match", seen.headers()["etag"].clone());
        assert_eq!(server.send(request.body(Body::empty()).unwrap()).await.0, 204);
    }

    async fn several_changes_are_made_together_or_not_at_all(database: TestDatabase) {
        let server = Server::new(&database, Setup::default());
        let operations = json!([
            {"op": "create", "body": python(ID)},
            {"op": "update", "id": ID, "body": {"command": "date"}},
            {"op": "delete", "id": OTHER},
        ]);
        let statuses = |answer: &Value| -> Vec<i64> {
            let results = answer["results"].as_array().unwrap();
            results.iter().map(|it| it["status"].as_i64().unwrap()).collect()
        };
        let atomic = json!({"atomic": true, "operations": operations});
        let (_, answer) = server.post("/$bulk", atomic).await;
        assert_eq!((statuses(&answer), &answer["applied"]), (vec![424, 424, 404], &json!(false)));
        assert_eq!(server.get("/$stats").await.1, json!({"total": 0}));
        let (_, answer) = server.post("/$bulk", json!({"operations": operations})).await;
        assert_eq!((statuses(&answer), &answer["applied"]), (vec![201, 200, 404], &json!(true)));
        assert_eq!(server.get("").await.1[0]["command"], "date");
    }

    async fn each_operation_needs_its_permission(database: TestDatabase) {
        Server::new(&database, Setup::default()).post("", python(ID)).await;
        for (permission, expected) in [
            ("tasks:read", [200, 200, 403, 403, 403, 403, 403]),
            ("tasks:write", [403, 403, 201, 200, 200, 204, 403]),
            ("tasks:execute", [403, 403, 403, 403, 403, 403, 202]),
        ] {
            let grants = Grants::Only(Arc::new([permission.to_owned()]));
            let server = Server::new(&database, Setup { grants, ..Setup::default() });
            let path = format!("/{ID}");
            let statuses = [
                server.get("").await.0,
                server.get("/$schema").await.0,
                server.post("", python(OTHER)).await.0,
                server.put(&path, python(ID)).await.0,
                server.post("/$bulk", json!({"operations": []})).await.0,
                server.call(Method::DELETE, &format!("/{OTHER}"), &Value::Null).await.0,
                server.execute(ID).await.0,
            ];
            assert_eq!(statuses, expected, "{permission}");
        }
    }
}
