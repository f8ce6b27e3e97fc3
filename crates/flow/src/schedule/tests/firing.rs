//! Ticks fire, once each, whatever happens to their nodes and launchers.

use super::*;

on_both_databases! {
    async fn a_tick_begins_a_job_with_what_was_written_down(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({})).await;
        assert_eq!(
            server.advance(minutes(59)).await,
            Looked { next: Some(server.clock.now().after(minutes(1))), again: false }
        );
        assert_eq!(server.launched(), 0);
        let looked = server.advance(minutes(1)).await;
        assert_eq!(looked.next, Some(server.clock.now().after(hours(1))));
        let (job, launch) = server.world.launched.lock()[0].clone();
        assert_eq!(launch.input, json!({"a": 1}));
        assert_eq!(launch.unique, None);
        let record = server.job(job).await;
        assert_eq!(
            (record.kind.as_str(), record.owner.as_deref(), record.label.as_deref()),
            ("test.work", Some("somebody"), Some("every hour"))
        );
        let history = server.get(&format!("/{ID}/$history")).await.expect(200);
        let now = server.clock.now().to_string();
        assert_eq!(
            history,
            json!([{"tick_at": now, "fired_at": now, "outcome": "fired",
            "manual": false, "job_id": job, "error": null}])
        );
        let schedule = server.get(&format!("/{ID}")).await.expect(200);
        assert_eq!(
            (&schedule["last_at"], &schedule["next_at"]),
            (&json!(now), &json!("2026-09-01T02:00:00.000000Z"))
        );
        // Looking again at the same time begins nothing.
        server.look().await;
        assert_eq!((server.launched(), server.jobs().await), (1, 1));
    }

    async fn of_two_nodes_each_tick_fires_once(database: TestDatabase) {
        const TICKS: usize = 1000;
        let one = Server::new(&database);
        let other = one.other_node(&database).await;
        one.create(ID, json!({"trigger": {"type": "interval", "every_seconds": 10}})).await;
        for tick in 0..TICKS {
            one.clock.advance(Duration::from_secs(10));
            let now = one.clock.now();
            let (one, other) = tokio::join!(one.schedules.look(now), other.schedules.look(now));
            assert_eq!(one.unwrap(), other.unwrap(), "tick {tick}");
        }
        assert_eq!(one.launched(), TICKS);
        assert_eq!(one.jobs().await, i64::try_from(TICKS).unwrap());
        // The history is bounded, and whole as far as it goes.
        let history = other.history(ID).await;
        assert_eq!(history.len(), HISTORY);
        assert!(history.iter().all(|it| it.1 == "fired"));
        assert!(history.windows(2).all(|it| it[0].0 > it[1].0));
        other.db.close().await;
    }

    async fn what_is_not_committed_leaves_neither_job_nor_history(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({})).await;
        server.create(OTHER, json!({"trigger": {"type": "interval", "every_seconds": 7200}})).await;
        // The table of the history is away when the tick is written, as after a crash between.
        let mut conn = database.db.conn().await.unwrap();
        query("ALTER TABLE schedule_runs RENAME TO away").execute(&mut conn).await.unwrap();
        server.advance(hours(1)).await;
        assert_eq!(server.jobs().await, 0);
        query("ALTER TABLE away RENAME TO schedule_runs").execute(&mut conn).await.unwrap();
        drop(conn);
        // The tick is still there, and another node finds it.
        let other = server.other_node(&database).await;
        other.look().await;
        assert_eq!(server.jobs().await, 1);
        assert_eq!(server.history(ID).await, [line("01:00", "fired")]);
        other.db.close().await;
    }

    async fn a_full_queue_fails_the_tick_and_not_the_schedule(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({})).await;
        *server.world.trouble.lock() = Some(Trouble::QueueFull);
        let looked = server.advance(hours(1)).await;
        assert_eq!(looked, Looked { next: Some(server.clock.now().after(hours(1))), again: false });
        let history = server.get(&format!("/{ID}/$history")).await.expect(200);
        assert_eq!(
            (&history[0]["outcome"], &history[0]["error"]),
            (&json!("failed"), &json!("1000 jobs are waiting already"))
        );
        assert_eq!(server.jobs().await, 0);
        *server.world.trouble.lock() = None;
        server.advance(hours(1)).await;
        assert_eq!(server.history(ID).await, [line("02:00", "fired"), line("01:00", "failed")]);
    }

    async fn a_launcher_that_panics_harms_no_other_schedule(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({})).await;
        *server.world.trouble.lock() = Some(Trouble::Panic);
        server.advance(hours(1)).await;
        *server.world.trouble.lock() = None;
        server.create(OTHER, json!({})).await;
        server.advance(hours(1)).await;
        assert_eq!(server.history(ID).await, [line("02:00", "fired"), line("01:00", "failed")]);
        assert_eq!(server.history(OTHER).await, [line("02:00", "fired")]);
    }

    async fn what_may_pass_is_tried_again_for_a_minute(database: TestDatabase) {
        let server = Server::new(&database);
        for id in [ID, OTHER] {
            server.create(id, json!({})).await;
        }
        *server.world.trouble.lock() = Some(Trouble::Unavailable);
        assert!(server.advance(hours(1)).await.again);
        assert!(server.advance(Duration::from_secs(1)).await.again);
        assert_eq!(server.history(ID).await, []);
        *server.world.trouble.lock() = None;
        assert!(!server.advance(Duration::from_secs(1)).await.again);
        assert_eq!(server.history(ID).await, [line("01:00", "fired")]);
        assert_eq!(server.history(OTHER).await, [line("01:00", "fired")]);

        *server.world.trouble.lock() = Some(Trouble::Unavailable);
        assert!(server.advance(hours(1)).await.again);
        assert!(!server.advance(Duration::from_secs(61)).await.again);
        assert_eq!(server.history(ID).await[0], line("02:00", "failed"));
        assert_eq!(server.jobs().await, 2);
    }

    async fn many_that_cannot_be_begun_do_not_hide_the_others(database: TestDatabase) {
        let server = Server::new(&database);
        let operations: Vec<Value> = (0..250)
            .map(|_| {
                let mut body = hourly("");
                body.as_object_mut().unwrap().remove("id");
                json!({"op": "create", "body": body})
            })
            .collect();
        server.post("/$bulk", json!({"atomic": true, "operations": operations})).await.expect(200);
        *server.world.trouble.lock() = Some(Trouble::Unavailable);
        assert!(server.advance(hours(1)).await.again);
        server.create(ID, json!({"trigger": {"type": "interval", "every_seconds": 1}})).await;
        assert!(server.advance(Duration::from_secs(2)).await.again);
        *server.world.trouble.lock() = None;
        let looked = server.look().await;
        assert!(!looked.again && looked.next > Some(server.clock.now()));
        assert_eq!(server.jobs().await, 252);
        assert!(server.schedules.0.troubled.lock().is_empty());
    }

    async fn a_kind_that_is_gone_fails_its_ticks(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({})).await;
        let mut conn = database.db.conn().await.unwrap();
        query("UPDATE schedules SET kind = 'gone.work'").execute(&mut conn).await.unwrap();
        server.advance(hours(1)).await;
        let history = server.get(&format!("/{ID}/$history")).await.expect(200);
        assert_eq!(
            history[0]["error"],
            "`gone.work` cannot be scheduled; what can is 'test.other' or 'test.work'"
        );
    }

    async fn a_trigger_that_nobody_can_read_any_more_stops_its_schedule(database: TestDatabase) {
        let server = Server::new(&database);
        let trigger =
            json!({"type": "cron", "expression": "0 * * * *", "time_zone": "Asia/Kathmandu"});
        server.create(ID, json!({"trigger": trigger})).await;
        let mut conn = database.db.conn().await.unwrap();
        query("UPDATE schedules SET time_zone = 'Asia/Gone'").execute(&mut conn).await.unwrap();
        let looked = server.advance(hours(1)).await;
        assert_eq!(looked, Looked { next: None, again: false });
        assert_eq!(server.history(ID).await, [line("00:15", "failed")]);
        assert_eq!(server.get(&format!("/{ID}")).await.expect(200)["next_at"], Value::Null);
        server.put(&format!("/{ID}"), hourly(ID)).await.expect(200);
        server.advance(hours(1)).await;
        assert_eq!(server.history(ID).await[0], line("02:00", "fired"));
    }

    async fn a_tick_that_stands_in_the_history_is_not_fired_again(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({})).await;
        server.advance(hours(1)).await;
        // As after a restore, or where the clock was set back.
        let mut conn = database.db.conn().await.unwrap();
        query("UPDATE schedules SET next_tick = last_at, next_at = last_at")
            .execute(&mut conn)
            .await
            .unwrap();
        server.look().await;
        assert_eq!(server.jobs().await, 1);
        server.advance(hours(1)).await;
        assert_eq!(server.history(ID).await, [line("02:00", "fired"), line("01:00", "fired")]);
    }

    async fn the_ticker_fires_by_itself_and_hears_of_changes(database: TestDatabase) {
        let clock = Clock::system();
        let server = Server::with(database.db.clone(), clock, World::default(), Grants::All);
        server.schedules.start();
        server.engine.start().await.unwrap();
        // It sleeps for long by then, since there is nothing.
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.create(ID, json!({"trigger": {"type": "interval", "every_seconds": 1}})).await;
        let fired = async {
            while server.jobs().await < 2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), fired).await.expect("two ticks");
        let first = server.world.launched.lock()[0].0;
        let done = async {
            while !server.job(first).await.status.is_final() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), done).await.expect("its job is done");
        assert!(server.schedules.0.background.shutdown(Duration::from_secs(5)).await, "it stops");
    }
}
